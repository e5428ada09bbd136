/* SPDX-License-Identifier: MIT */
/* A worker: a seat in the engine, with one context per backend (a Lua state) and a deque. Any thread
 * may sit down, one at a time: the engine's own, or one that waits for its run. */
#ifndef TI_WORKER_H
#define TI_WORKER_H

#include "engine/backend.h"
#include "engine/deque.h"

struct ti_worker {
    struct ti_engine *engine; /* [const] */
    uint32_t index;           /* [const] */
    void *contexts[TI_MOST_BACKENDS]; /* [const] what they point to: [seat] */

    /* [seat] only the thread that sits here */
    ti_node *hot;       /* runs next */
    ti_node *overflow;  /* ready, linked: what the ring has no room for */
    uint32_t overflows; /* how many */
    uint8_t serving;    /* the backend whose turn it is */
    ti_run *tally_run;  /* processors of this run ... */
    uint32_t tally;     /* ... that finished here and are not yet taken from its `remaining` */
    size_t tally_bytes; /* what they made, likewise */
    ti_run *guest;      /* the only run that the thread here works for, or NULL: any */
    uint32_t random;
    uint64_t task_began;
    ti_task task;

    _Alignas(TI_CACHE_LINE) atomic_uchar seated; /* [atomic] somebody sits here */
    atomic_uint claims;  /* [atomic] callers that wait for this seat; nobody else sits down */
    atomic_uchar offers; /* [atomic] written by [seat]: stealing here pays */

    atomic_uint forgetful;       /* [atomic] how many keys wait in `forget` */
    uint64_t *forget;            /* [lock:engine] programs that are gone */
    uint32_t forget_capacity;    /* [lock:engine] */

    ti_deque deque; /* pop, push: [seat]; steal: any */
};

/* Makes the entry points of a run that has not started ready here. */
void ti_worker_enter(ti_worker *worker, ti_run *run);

/* Runs ready work of this worker until there is none. */
void ti_worker_drain(ti_worker *worker);

/* Looks for work elsewhere, for a few microseconds; true: there is something to drain. A guest finds
 * only what belongs to its own run, and stops looking when that has settled. */
bool ti_worker_find(ti_worker *worker);

#endif
