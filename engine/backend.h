/* SPDX-License-Identifier: MIT */
/* What runs callbacks: Lua states, or plain C. The engine knows backends by this vtable alone.
 *
 * A backend pulls its work: `serve` takes tasks with ti_worker_next and answers each with one call
 * of ti_worker_complete or ti_worker_fail, until there are none. So a language that must guard its
 * callbacks (lua_pcall) sets up its guard once for many of them, not once each. */
#ifndef TI_BACKEND_H
#define TI_BACKEND_H

#include "engine/error.h"
#include "engine/run.h"

/* Backends per engine. */
#define TI_MOST_BACKENDS 4

typedef struct ti_worker ti_worker;

typedef struct ti_backend {
    const char *name;

    /* Makes the context of one worker; NULL with *error set when it can't. On the thread that opens
     * the engine. */
    void *(*open)(void *shared, uint32_t worker, ti_error **error);

    /* Runs tasks until ti_worker_next returns NULL; takes at least one. On the thread that has the
     * worker's seat; never on two at once. */
    void (*serve)(void *context, ti_worker *worker);

    /* Drops what it keeps under a program's key; may be NULL. On any thread, with the seat taken.
     */
    void (*forget)(void *context, uint64_t key);

    /* The callback that runs may have to stop (ti_worker_must_stop); have it stop soon. May be
     * NULL. In a signal handler on the thread that is in `serve`: only what is safe there. */
    void (*interrupt)(void *context);

    /* The callback that runs did not stop in time and its thread is given up: from now on the
     * context belongs to that thread alone, which must end without touching the worker, should the
     * callback ever return. False: it is not in a callback. In a signal handler on that thread. May
     * be NULL. */
    bool (*abandon)(void *context);

    /* Frees the context. On the thread that closes the engine. */
    void (*close)(void *context);

    /* Nothing of the engine will use `shared` again. On the thread that frees the engine; not if it
     * did not open. May be NULL. */
    void (*discard)(void *shared);
} ti_backend;

/* One processor to run. Good until it is answered. */
typedef struct ti_task {
    ti_run *run;
    ti_node *node;
    const ti_step *step;
    uint32_t index;    /* of the step */
    uint32_t source;   /* in(n) */
    ti_value *payload; /* in(n): borrowed from the run */
} ti_task;

/* The next task of the backend that is serving, or NULL: return from `serve`. */
const ti_task *ti_worker_next(ti_worker *worker);

/* Where a value that answers the current task can be made, if it is made for nothing else. */
ti_arena *ti_worker_arena(ti_worker *worker);

/* Answers the current task. `payload` counts for transforms only: the task's own payload as it is,
 * without a reference, or another value; `metadata` may be NULL. `owned`: TI_OWNS_*, for those that
 * come as a new reference; the others are of ti_worker_arena. False: it came too late, and what was
 * owned has been released. */
bool ti_worker_complete(ti_worker *worker, ti_value *payload, ti_value *metadata, unsigned owned);

/* Answers the current task: it contributes nothing, and its dependents go on. */
void ti_worker_skip(ti_worker *worker);

/* What the current task fails with if its timeout is why it must stop; NULL: its run is. */
ti_error *ti_worker_timeout_error(const ti_worker *worker);

/* Answers the current task, which ti_worker_must_stop told to stop. */
void ti_worker_stop(ti_worker *worker);

/* Answers the current task; takes the error. It is tried again if it may be and `retryable`. */
void ti_worker_fail(ti_worker *worker, ti_error *error, bool retryable);

/* The current task has attempts left, so that failing with `retryable` means something. */
bool ti_worker_may_retry(const ti_worker *worker);

/* The current task was cancelled or took too long. While it runs: from its own thread, and from a
 * signal handler there. */
bool ti_worker_must_stop(ti_worker *worker);

/* Seconds until the current task's or its run's deadline, or a negative number: it has none. */
double ti_worker_time_left(const ti_worker *worker);

#endif
