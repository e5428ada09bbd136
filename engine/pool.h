/* SPDX-License-Identifier: MIT */
/* The threads that work for an engine: its own, started when first wanted and parked when there is
 * nothing to do; or borrowed from libuv's pool, and given back then (pool_shared.h). */
#ifndef TI_POOL_H
#define TI_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "engine/parking.h"
#include "engine/pool_shared.h"

struct ti_engine;
typedef struct ti_thread ti_thread;

typedef struct ti_pool {
    struct ti_engine *engine; /* [const] */
    uint32_t limit;           /* [const] most threads */
    ti_thread *threads;       /* [const] `limit` of them; `started` run */
    uint32_t started;         /* [lock:parking] */
    uint64_t again;           /* [lock:parking] when (ti_now) the system is asked for a thread
                                 again; 0: it has refused none */
    atomic_uchar refused;     /* [atomic] it has, and the control loop does not know */
    bool borrows;             /* [const] it was opened to borrow its threads */
    bool sharing;             /* [lock:parking] it still does: the engine is not closing */
    ti_lender lender;
    ti_parking parking;
} ti_pool;

/* 0, or a libuv error. */
int ti_pool_open(ti_pool *pool, struct ti_engine *engine, uint32_t limit, bool borrows);

/* Gets one more thread to look for work, unless one is looking already or none is left. What was
 * published before (an inbox item, an offer) is seen by a thread that looks or is about to park. */
void ti_pool_wake(ti_pool *pool);

/* Starts a thread if there is none; where threads are borrowed, sees to it that they can be. False:
 * the system gives none. */
bool ti_pool_ensure(ti_pool *pool);

/* For the control loop: gets a thread that was refused a while ago, if it is still wanted. When to
 * call it again; UINT64_MAX: whoever is refused one sees to that. */
uint64_t ti_pool_ask_again(ti_pool *pool, uint64_t now);

/* A thread of the pool will not come back: another one takes its place, now or when there is one to
 * be had. Any thread but that one, and not where threads are borrowed. */
void ti_pool_replace(ti_pool *pool, uv_thread_t lost);

/* The engine closes. From here on the pool starts threads of its own, so that closing need not wait
 * until libuv's pool has one to lend. */
void ti_pool_stop_sharing(ti_pool *pool);

/* Lets the threads finish what is ready, and joins them; from then on there are none. */
void ti_pool_close(ti_pool *pool);
void ti_pool_free(ti_pool *pool);

/* For pool_shared.c. Works on a seat, the given one if it can be, until nothing is found, or until
 * some time (uv_hrtime) is past. Comes with a share of `searching`, and returns with it. */
void ti_pool_work(ti_pool *pool, uint32_t seat, uint64_t until);

#endif
