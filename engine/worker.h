/* SPDX-License-Identifier: MIT */
/* A worker: a seat in the engine, with one context per backend (a Lua state) and a deque. Any
 * thread may sit down, one at a time: the engine's own, or one that waits for its run. */
#ifndef TI_WORKER_H
#define TI_WORKER_H

#include "engine/backend.h"
#include "engine/deque.h"
#include "engine/executor.h"

#include <assert.h>
#include <uv.h>

struct ti_worker {
    struct ti_engine *engine;         /* [const] */
    uint32_t index;                   /* [const] */
    void *contexts[TI_MOST_BACKENDS]; /* [seat] see ti_worker_context */

    /* [seat] only the thread that sits here */
    ti_node *chosen;    /* taken, and exchanged for its ticket: runs before all else */
    ti_node *hot;       /* runs next */
    ti_node *overflow;  /* ready, linked: what the ring has no room for */
    uint32_t overflows; /* how many */
    uint8_t serving;    /* the backend whose turn it is */
    ti_run *tally_run;  /* processors of this run ... */
    uint32_t tally;     /* ... that finished here and are not yet taken from its `remaining` */
    size_t tally_bytes; /* what they made, likewise */
    ti_arena arena;     /* of tally_run */
    const void *guest;  /* the only ti_run.group that the thread here works for, or NULL: any */
    uint32_t random;
    atomic_uint
        progress;  /* [atomic] written by [seat]: callbacks begun, for the control loop's watch */
    uint32_t seen; /* [loop] what that was when it looked last */
    uint64_t task_began; /* when timed */
    ti_task task;
    bool serves;             /* between begin and the answer */
    struct ti_worker *outer; /* the seat of another engine that this thread sits in, further out */

    /* [atomic] what runs here, for those who may have to stop it. A call with a timeout has an odd
     * number; it is over when `interrupted` is that number, or when its run is told to stop. */
    _Atomic(ti_run *) running; /* while a node or a tally of it is in hand, so it is not freed */
    atomic_uint_fast64_t call, interrupted, deadline;

    /* Giving up a thread whose callback does not stop; see ti_engine_give_up. */
    atomic_uchar told;      /* [atomic] it was told to stop since the control loop looked last */
    uint32_t told_progress; /* [loop] */
    uint64_t told_since;    /* [loop] 0: it is not being waited for */
    atomic_uint give_up;    /* [atomic] the `progress` at which to give up, or 0 */
    atomic_uchar abandoned; /* [atomic] nobody sits here any more; the control loop replaces it */

    uv_thread_t thread; /* [seat] who sits here, or closes the engine; others while `reachable` */
    atomic_uchar reachable; /* [atomic] */
    atomic_uint kicking;    /* [atomic] threads that are about to use `thread` */

    _Alignas(TI_CACHE_LINE) atomic_uchar seated; /* [atomic] somebody sits here */
    atomic_uint claims;  /* [atomic] callers that wait for this seat; nobody else sits down */
    atomic_uchar offers; /* [atomic] written by [seat]: stealing here pays */
    atomic_uchar bare;   /* [atomic] written by [seat]: it lacks a context; see ti_engine_equip */

    atomic_uint forgetful;    /* [atomic] how many keys wait in `forget` */
    uint64_t *forget;         /* [lock:engine] programs that are gone */
    uint32_t forget_capacity; /* [lock:engine] */

    ti_deque deque; /* pop, push: [seat]; steal: any */
};

/* The calling thread has this seat: what is [seat] is its own. */
static inline bool ti_worker_is_ours(const ti_worker *worker)
{
    uv_thread_t self = uv_thread_self();
    return ti_load_relaxed(&worker->seated) && uv_thread_equal(&worker->thread, &self);
}

/* What a backend keeps here, or NULL. There is no other way to it, so every entry into a Lua state
 * is checked. */
static inline void *ti_worker_context(const ti_worker *worker, uint32_t backend)
{
    assert(ti_worker_is_ours(worker));
    return worker->contexts[backend];
}

/* Queues a ticket here; what the ring has no room for is kept aside. */
static inline void ti_worker_push(ti_worker *worker, ti_node *node)
{
    if (!ti_deque_push(&worker->deque, node)) {
        node->next = worker->overflow;
        worker->overflow = node;
        worker->overflows++;
    }
}

/* A node is ready: the newest ready processor goes first and is not queued at all. */
static inline void ti_worker_ready(ti_worker *worker, ti_node *node)
{
    node->status = TI_READY;
    if (node->run->executor->queue)
        node = node->run->executor->queue(node);
    if (worker->hot)
        ti_worker_push(worker, node);
    else
        worker->hot = node;
}

/* Delivers one event; true if it was the last the node waited for. A count of one can only be ours:
 * then nobody else will touch it. */
static inline bool ti_node_deliver(ti_node *node)
{
    return ti_load_acquire(&node->pending) == 1 || ti_sub_acq_rel(&node->pending, 1) == 1;
}

/* Delivers an event to each dependent of a step that has finished. */
static inline void ti_worker_send_events(ti_worker *worker, ti_run *run, const ti_step *step)
{
    const uint32_t *dependent = run->plan->dependents + step[0].first_dependent;
    const uint32_t *end = run->plan->dependents + step[1].first_dependent;
    for (; dependent < end; dependent++) {
        ti_node *node = &run->nodes[*dependent];
        if (ti_node_deliver(node))
            ti_worker_ready(worker, node);
    }
}

/* Makes a chain of nodes ready here; the last one runs first. */
void ti_worker_enter(ti_worker *worker, ti_node *chain);

/* Runs ready work of this worker until there is none, or somebody waits for the seat: then, after
 * one callback at least, the rest goes to the inbox, and the seat is to be left. (A guest goes on
 * if there are no threads to leave the rest to.) */
void ti_worker_drain(ti_worker *worker);

/* Takes all that is queued here, as a chain of nodes. */
ti_node *ti_worker_scatter(ti_worker *worker);

/* Looks for work elsewhere, for a few microseconds, or until a run (or NULL) has settled; true:
 * there is something to drain. A guest finds only what belongs to its own group. */
bool ti_worker_find(ti_worker *worker, ti_run *until);

#endif
