/* SPDX-License-Identifier: MIT */
/* Threads borrowed from libuv's own pool, for an engine that keeps none. One request
 * (uv_queue_work) borrows one thread for as long as there is work, and not for long at a time:
 * others want that pool, too. Requests are made on the control loop alone. */
#ifndef TI_POOL_SHARED_H
#define TI_POOL_SHARED_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct ti_pool;

/* One request. libuv's from uv_queue_work until give_back. */
typedef struct ti_loan {
    struct ti_pool *pool; /* [const] */
    uint32_t index;       /* [const] */
    uv_work_t request;    /* [loop] */
    struct ti_loan *next; /* [loop] */
} ti_loan;

typedef struct ti_lender {
    ti_loan *loans; /* [const] as many as threads may be borrowed; NULL: the pool borrows none */
    uv_async_t ask; /* sent with the lock of parking while attached */
    bool attached;  /* [lock:parking] `ask` is a handle of the control loop */
    bool withdrawn; /* [lock:parking] what was requested and has not begun is to be cancelled */
    ti_loan *free;  /* [loop] */
    ti_loan *last;  /* [loop] the last request made, unless it was given back; only this one may
                       not have begun yet: see pool_shared.c */
} ti_lender;

/* False: no memory. */
bool ti_lender_open(struct ti_pool *pool);
void ti_lender_free(struct ti_pool *pool);

/* For the control loop: the loop is about to run; it is about to end, and does when all threads
 * have been given back. Does nothing where the pool borrows none. 0, or a libuv error. */
int ti_lender_attach(struct ti_pool *pool, uv_loop_t *loop);
void ti_lender_detach(struct ti_pool *pool);

/* Asks for a thread, with a share of `searching` that goes to it. With the lock of parking. False:
 * there is no control loop. */
bool ti_lender_ask(struct ti_pool *pool);

/* A request that waits for libuv's pool is to wait no longer. With the lock of parking. */
void ti_lender_withdraw(struct ti_pool *pool);

#endif
