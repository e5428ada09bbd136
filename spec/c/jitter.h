/* SPDX-License-Identifier: MIT */
/* Makes rare schedules common: a thread may lose its core around any atomic access and any lock.
 *
 * A test that includes this before a header of the engine sees that header with jitter in it. To
 * see the whole engine so, give it to the compiler:
 *   cmake -S . -B build/jitter -DCMAKE_C_FLAGS="-I$PWD -include spec/c/jitter.h" */
#ifndef JITTER_H
#define JITTER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* -include comes before any source can ask for it */
#endif

#include <sched.h>
#include <stdint.h>
#include <time.h>
#include <uv.h>

/* One call in so many naps for longer than a thread needs to look for work and park. */
#ifndef JITTER_NAPS
#define JITTER_NAPS 256
#endif

/* One call in 16 gives the core to somebody else. */
static inline void jitter(void)
{
    static _Thread_local uint32_t state;
    if (!state)
        state = (uint32_t)(uintptr_t)&state ^ (uint32_t)uv_hrtime();
    state = state * 1664525u + 1013904223u;
    if (state >> 8 < (1u << 24) / JITTER_NAPS)
        nanosleep(&(struct timespec){.tv_nsec = state & 0xffff}, NULL);
    else if (state >> 28 == 0)
        sched_yield();
}

#define HOOK jitter
#include "hooked.h"

#define uv_mutex_lock(m) (jitter(), uv_mutex_lock(m))
#define uv_mutex_unlock(m) (uv_mutex_unlock(m), jitter())
#define uv_sem_post(s) (jitter(), uv_sem_post(s))
#define uv_cond_broadcast(c) (jitter(), uv_cond_broadcast(c))

#endif
