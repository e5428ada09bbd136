/* SPDX-License-Identifier: MIT */
/* Seeded schedules. Given to the compiler for each source of a program (-include), it makes one
 * thread run at a time: before each atomic access and wherever a thread may wait, `sched_point`
 * decides from a seed which thread goes on. So the same seed is the same schedule, to the last
 * step, and a thread that waits for what nobody will do is found at once. Time is virtual: it
 * passes a little with each step, and up to the next that is awaited when all threads wait. */
#ifndef SCHEDULE_H
#define SCHEDULE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* -include comes before any source can ask for it */
#endif

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* From here on the calling thread and those it starts are scheduled by the seed. */
void sched_begin(uint32_t seed);
/* All threads but the caller have ended. The hash of all decisions. */
uint64_t sched_end(void);

void sched_point(void);

uint64_t sched_hrtime(void);
void sched_sleep(unsigned ms);
void sched_mutex_lock(uv_mutex_t *mutex);
void sched_mutex_unlock(uv_mutex_t *mutex);
void sched_cond_wait(uv_cond_t *cond, uv_mutex_t *mutex);
int sched_cond_timedwait(uv_cond_t *cond, uv_mutex_t *mutex, uint64_t nanoseconds);
void sched_cond_broadcast(uv_cond_t *cond);
void sched_sem_wait(uv_sem_t *sem);
void sched_sem_post(uv_sem_t *sem);
int sched_thread_create(uv_thread_t *id, const uv_thread_options_t *options, uv_thread_cb work,
                        void *data);
int sched_thread_join(uv_thread_t *id);

/* A loop with one timer and one async handle, as control.c has. */
int sched_loop_init(uv_loop_t *loop);
int sched_timer_init(uv_loop_t *loop, uv_timer_t *timer);
int sched_timer_start(uv_timer_t *timer, uv_timer_cb work, uint64_t ms, uint64_t repeat);
int sched_async_init(uv_loop_t *loop, uv_async_t *async, uv_async_cb work);
int sched_async_send(uv_async_t *async);
void sched_close(uv_handle_t *handle, uv_close_cb work);
int sched_run(uv_loop_t *loop, uv_run_mode mode);
int sched_loop_close(uv_loop_t *loop);

#ifndef SCHEDULE_ITSELF

#define HOOK sched_point
#include "../hooked.h"

#define uv_hrtime sched_hrtime
#define uv_sleep sched_sleep
#define uv_mutex_lock sched_mutex_lock
#define uv_mutex_unlock sched_mutex_unlock
#define uv_cond_wait sched_cond_wait
#define uv_cond_timedwait sched_cond_timedwait
#define uv_cond_broadcast sched_cond_broadcast
#define uv_sem_wait sched_sem_wait
#define uv_sem_post sched_sem_post
#define uv_thread_create(id, work, data) sched_thread_create(id, NULL, work, data)
#define uv_thread_create_ex sched_thread_create
#define uv_thread_join sched_thread_join
#define uv_loop_init sched_loop_init
#define uv_timer_init sched_timer_init
#define uv_timer_start sched_timer_start
#define uv_async_init sched_async_init
#define uv_async_send sched_async_send
#define uv_update_time(loop) ((void)(loop))
#define uv_close sched_close
#define uv_run sched_run
#define uv_loop_close sched_loop_close
#define uv_barrier_wait(barrier) (sched_point(), (void)(barrier)) /* nobody needs to be late */
/* See control.c. */
#define uv_pipe(ends, a, b) ((void)(ends), 1 ? 0 : (a) + (b))
#define uv_fs_close(loop, request, file, work) ((void)(request), (void)(file))
#define uv_fs_req_cleanup(request) ((void)(request))

#endif
#endif
