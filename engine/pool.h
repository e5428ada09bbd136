/* SPDX-License-Identifier: MIT */
/* The engine's own threads: started when first wanted, parked when there is nothing to do. */
#ifndef TI_POOL_H
#define TI_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "engine/atomics.h"

struct ti_engine;
typedef struct ti_thread ti_thread;

typedef struct ti_pool {
    struct ti_engine *engine; /* [const] */
    uint32_t limit;           /* [const] most threads */
    uv_mutex_t lock;
    ti_thread *threads; /* [const] `limit` of them; the first `started` exist */
    uint32_t started;   /* [lock:pool] */
    ti_thread *parked;  /* [lock:pool] the last one to park first: its cache is warm */
    bool refused;       /* [lock:pool] the system gives no more threads */
    bool closing;       /* [lock:pool] */
    _Alignas(TI_CACHE_LINE) atomic_uint idle; /* [atomic] threads parked or not started yet */
    atomic_uint searching; /* [atomic] threads looking for work, or just woken to */
} ti_pool;

/* 0, or a libuv error. */
int ti_pool_open(ti_pool *pool, struct ti_engine *engine, uint32_t limit);

/* Gets one more thread to look for work, unless one is looking already or none is left. What was
 * published before (an inbox item, an offer) is seen by a thread that looks or is about to park. */
void ti_pool_wake(ti_pool *pool);

/* Starts a thread if there is none. False: the system gives none. */
bool ti_pool_ensure(ti_pool *pool);

/* A thread of the pool will not come back: another one takes its place. Any thread but that one. */
void ti_pool_replace(ti_pool *pool, uv_thread_t lost);

/* Lets the threads finish what is ready, and joins them; from then on there are none. */
void ti_pool_close(ti_pool *pool);
void ti_pool_free(ti_pool *pool);

#endif
