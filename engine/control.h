/* SPDX-License-Identifier: MIT */
/* The control loop: a libuv loop on a thread of its own, started at first need, which owns all
 * waiting for time: deadlines of callbacks and of runs, retries, and seeing to it that what was
 * told to stop does. Nothing else in the engine sleeps until a time. It also makes the requests by
 * which a pool borrows threads (pool_shared.h). */
#ifndef TI_CONTROL_H
#define TI_CONTROL_H

#include <uv.h>

#include "engine/run.h"

typedef struct ti_control {
    struct ti_engine *engine; /* [const] */
    uv_mutex_t lock;
    ti_attempts *waiting;  /* [lock:control] for their next attempt */
    bool started, closing; /* [lock:control] */
    uv_thread_t thread;    /* [lock:control] */
    uv_async_t wake;       /* sent with the lock while started and not closing */
    uv_loop_t loop;        /* [loop] */
    uv_timer_t timer;      /* [loop] */
    atomic_uchar watching; /* [atomic] it looks every millisecond whether workers get on */
    uint32_t quiet;        /* [loop] how often in a row there was nothing to watch */
    uint64_t patience;     /* [loop] ms until it looks again whether all that must stop has */
    atomic_uint_fast64_t
        next; /* [atomic] when it looks again at the latest; UINT64_MAX: not by itself */
} ti_control;

/* 0, or a libuv error. */
int ti_control_open(ti_control *control, struct ti_engine *engine);

/* Starts the thread if there is none. False: the system gives none, or the engine closes. Whoever
 * relies on the control loop asks first. */
bool ti_control_ensure(ti_control *control);

/* Something will be due at that time. Cheap when it looks by then anyway. Any thread. */
void ti_control_expect(ti_control *control, uint64_t due);

/* A worker keeps ready work to itself: watch whether it gets on. Costs a load when it is watched
 * already, and the watch ends by itself when there is nothing to see. */
static inline void ti_control_watch(ti_control *control);

/* Makes a node ready again when it is due, or when its run is told to stop. Any thread. */
void ti_control_delay(ti_control *control, ti_attempts *attempts);

/* Takes all that wait of runs that were told to stop; a chain of nodes, which the caller must
 * queue. */
ti_node *ti_control_flush(ti_control *control);

/* Joins the thread, once all that were borrowed have been given back; from then on there is none.
 */
void ti_control_close(ti_control *control);
void ti_control_free(ti_control *control);

/* For ti_control_watch. */
void ti_control_begin_watch(ti_control *control);

static inline void ti_control_watch(ti_control *control)
{
    if (!ti_load_sc(&control->watching))
        ti_control_begin_watch(control);
}

/* How long to wait after a number of attempts. The jitter is a function of the seed, the step and
 * the attempt alone. */
uint64_t ti_backoff(const ti_retry *retry, uint32_t step, uint32_t attempts);

#endif
