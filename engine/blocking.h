/* SPDX-License-Identifier: MIT */
/* The lock and the semaphore that parking.h blocks on. As with atomics.h, a model checker can take
 * their place. */
#ifndef TI_BLOCKING_H
#define TI_BLOCKING_H

#include <uv.h>

typedef uv_mutex_t ti_mutex;
typedef uv_sem_t ti_semaphore;

#define ti_mutex_lock(m) uv_mutex_lock(m)
#define ti_mutex_unlock(m) uv_mutex_unlock(m)
#define ti_semaphore_wait(s) uv_sem_wait(s)
#define ti_semaphore_post(s) uv_sem_post(s)

#endif
