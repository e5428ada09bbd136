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

#include "engine/atomics.h"

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

#undef ti_load_relaxed
#undef ti_load_acquire
#undef ti_load_sc
#undef ti_store_relaxed
#undef ti_store_release
#undef ti_store_sc
#undef ti_exchange_sc
#undef ti_add_relaxed
#undef ti_add_sc
#undef ti_sub_acq_rel
#undef ti_sub_sc
#undef ti_cas_sc

#define ti_load_relaxed(p) (jitter(), atomic_load_explicit((p), memory_order_relaxed))
#define ti_load_acquire(p) (jitter(), atomic_load_explicit((p), memory_order_acquire))
#define ti_load_sc(p) (jitter(), atomic_load_explicit((p), memory_order_seq_cst))
#define ti_store_relaxed(p, v) (jitter(), atomic_store_explicit((p), (v), memory_order_relaxed))
#define ti_store_release(p, v) (jitter(), atomic_store_explicit((p), (v), memory_order_release))
#define ti_store_sc(p, v) (jitter(), atomic_store_explicit((p), (v), memory_order_seq_cst))
#define ti_exchange_sc(p, v) (jitter(), atomic_exchange_explicit((p), (v), memory_order_seq_cst))
#define ti_add_relaxed(p, n) (jitter(), atomic_fetch_add_explicit((p), (n), memory_order_relaxed))
#define ti_add_sc(p, n) (jitter(), atomic_fetch_add_explicit((p), (n), memory_order_seq_cst))
#define ti_sub_acq_rel(p, n) (jitter(), atomic_fetch_sub_explicit((p), (n), memory_order_acq_rel))
#define ti_sub_sc(p, n) (jitter(), atomic_fetch_sub_explicit((p), (n), memory_order_seq_cst))
#define ti_cas_sc(p, expected, desired)                                                            \
    (jitter(), atomic_compare_exchange_strong_explicit(                                            \
                   (p), (expected), (desired), memory_order_seq_cst, memory_order_seq_cst))

#define uv_mutex_lock(m) (jitter(), uv_mutex_lock(m))
#define uv_mutex_unlock(m) (uv_mutex_unlock(m), jitter())
#define uv_sem_post(s) (jitter(), uv_sem_post(s))
#define uv_cond_broadcast(c) (jitter(), uv_cond_broadcast(c))

#endif
