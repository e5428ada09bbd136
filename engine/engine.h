/* SPDX-License-Identifier: MIT */
/* An engine: workers, the threads that sit at them, and the runs in flight. All of it may be used
 * from several threads at once. */
#ifndef TI_ENGINE_H
#define TI_ENGINE_H

#include <uv.h>

#include "engine/backend.h"
#include "engine/control.h"
#include "engine/inbox.h"
#include "engine/pool.h"
#include "engine/settled.h"
#include "engine/worker.h"

#define TI_MOST_WORKERS 1024

/* How callbacks that run are stopped. */
typedef enum ti_preempt {
    TI_PREEMPT_NONE,   /* they are not: a run that is cancelled waits for them to return */
    TI_PREEMPT_HOOK,   /* the backend looks at ti_worker_must_stop as it goes */
    TI_PREEMPT_SIGNAL, /* the backend's `interrupt` is called */
} ti_preempt;

/* What TI_E_INTERNAL of ti_engine_run and ti_engine_start means. */
#define TI_NO_THREAD "the system has no thread, or no descriptors for one, left to give"

/* Who waits for a run is woken with those who wait for one in so many others. */
#define TI_ENGINE_CROWDS 64

typedef struct ti_engine {
    uint32_t workers;   /* [const] */
    ti_preempt preempt; /* [const] */
    uint64_t grace;     /* [const] ns; see ti_engine_give_up */
    bool stubborn;      /* [const] see ti_engine_config */
    ti_worker *seats;   /* [const] */
    uint32_t backends;  /* [const] */
    struct {
        const ti_backend *vtable;
        void *shared;
    } backend[TI_MOST_BACKENDS]; /* [const] */
    unsigned forks;              /* [const] of the process that opened it; see `forked` */
    atomic_uint references;      /* [atomic] */
    atomic_uint handles;         /* [atomic] those of them that take what has settled */
    atomic_uchar closing;        /* [atomic] */
    uv_mutex_t lock;
    uv_cond_t changed; /* with lock: a list has a run, a claimed seat is free, it closes */
    uv_cond_t crowds[TI_ENGINE_CROWDS]; /* with lock: a run settled; see crowd_of */
    ti_run *runs[TI_LISTS];             /* [lock:engine] the first of each list */
    size_t idle_bytes;                  /* [lock:engine] of runs that programs keep for later */
    atomic_size_t unseen;               /* [atomic] see ti_engine_take_unseen */
    ti_settled settled;                 /* [lock:engine] of runs that were subscribed to */
    ti_descriptor descriptor;           /* [lock:engine] */
    uint32_t closers;                   /* [lock:engine] 1 once somebody closes it */
    bool closed;                        /* [lock:engine] */
    bool deaf;                          /* [lock:engine] nobody takes from `settled` any more */
    atomic_uint_fast64_t made;          /* [atomic] how many runs were allocated */
    atomic_uint pending;                /* [atomic] see ti_engine_pending */
    ti_inbox inbox;
    ti_pool pool;
    ti_control control;
} ti_engine;

typedef struct ti_backend_choice {
    const ti_backend *vtable;
    void *shared; /* goes to its `open`; must outlive the engine's workers, or, if the backend has
                     `discard`, is the engine's once that is open */
} ti_backend_choice;

typedef struct ti_engine_config {
    uint32_t workers;
    ti_preempt preempt;
    uint64_t grace; /* ns; how long a callback may take to stop before its thread is given up; 0:
                       for ever */
    bool stubborn;  /* callbacks may not see that they must stop: runs with a timeout keep off the
                       calling thread, which could not be given up */
    bool shared;    /* threads are borrowed from libuv's pool while there is work, and so cannot be
                       given up: `grace` and `stubborn` mean nothing. While that pool has none to
                       lend, the engine waits; on a thread of that pool, do not wait for it */
} ti_engine_config;

/* How many workers suit this machine. */
uint32_t ti_engine_default_workers(void);

/* Opens every backend for every worker. NULL: *error says why. */
ti_engine *ti_engine_open(const ti_engine_config *config, const ti_backend_choice *choices,
                          uint32_t count, ti_error **error);

/* Cancels what is in flight, waits until it has settled, joins the threads and closes the backends.
 * Idempotent. Not from within a callback of the engine. */
void ti_engine_close(ti_engine *engine);
/* True in a forked process, too. */
bool ti_engine_closed(ti_engine *engine);

/* The process was forked from the one that opened the engine. Its threads are not here, and what
 * they had locked or half changed stays so: nothing is done or freed any more, only settled runs
 * may be read. */
bool ti_engine_forked(const ti_engine *engine);

ti_engine *ti_engine_retain(ti_engine *engine);
/* The last one closes it and frees it; where the caller is inside the engine and must not wait for
 * it, on a thread made for that. NULL is fine. */
void ti_engine_release(ti_engine *engine);

/* The calling thread is one that the engine waits for when it closes: it sits at a worker, is the
 * control loop, or is in a callback that closes something. So it must not wait for the engine. */
bool ti_engine_inside(ti_engine *engine);

/* Runs to the end and blocks until it has; the calling thread works too. TI_OK, TI_E_CLOSED, or
 * TI_E_INTERNAL: a thread is needed (for timeouts, retries) and the system gives none. */
ti_code ti_engine_run(ti_engine *engine, ti_run *run);

/* Starts the run on the engine's threads and returns: as ti_engine_run does. */
ti_code ti_engine_start(ti_engine *engine, ti_run *run);

/* Blocks until the run, which was started, has settled. False: it took longer than `nanoseconds`
 * (UINT64_MAX: as long as it takes), or this is a forked process. */
bool ti_engine_wait(ti_engine *engine, ti_run *run, uint64_t nanoseconds);

/* Takes the first run of a list, which must have been made for it; blocks as ti_engine_wait does
 * until there is one. */
ti_run *ti_engine_wait_for_any(ti_engine *engine, ti_settled *list, uint64_t nanoseconds);

/* Has a run that has not started left in the list of ti_engine_next_settled when it has settled. */
void ti_engine_subscribe(ti_engine *engine, ti_run *run);

/* Of the runs that were subscribed to, the one that settled first, with a reference; NULL: none
 * has, and the descriptor is not readable until another run settles. After the engine has closed,
 * too: whoever subscribes takes them all before it lets go of the engine. */
ti_run *ti_engine_next_settled(ti_engine *engine);

/* A descriptor that is readable when a run that signals (it was subscribed to, or is of a stream in
 * the background) has settled; for poll(2) and event loops, never to be read or closed. Whoever it
 * wakes calls ti_engine_next_settled until that returns NULL, and then takes what streams have.
 * Made at the first call, it lives as long as the engine. -1: the system gives none. */
int ti_engine_pollfd(ti_engine *engine);

/* One more that takes what has settled, or one less; ti_engine_open counts the first. When there is
 * none, what would be left for them is dropped. */
void ti_engine_add_handle(ti_engine *engine);
void ti_engine_drop_handle(ti_engine *engine);

/* Runs that signal and are in flight, or wait in a stream for that, or have settled and not been
 * taken. */
uint32_t ti_engine_pending(ti_engine *engine);

/* Takes a worker's seat, so that its contexts can be worked on; waits for the callback that runs
 * there, or until it has what it lacks. NULL: the engine has closed, or there is no memory for what
 * the worker lacks. */
ti_worker *ti_engine_claim(ti_engine *engine, uint32_t index);
void ti_engine_leave(ti_engine *engine, ti_worker *worker);

/* For stream.c: puts a run in flight, as ti_engine_start does; its entry points are the caller's to
 * queue. And a run that never was in flight settles as cancelled. */
ti_code ti_engine_launch(ti_engine *engine, ti_run *run);
void ti_engine_refuse(ti_engine *engine, ti_run *run);

/* Bytes that runs made since the last time, of those whose end nobody is told. */
size_t ti_engine_take_unseen(ti_engine *engine);

/* Nobody takes from a list any more, nor of `runs`, linked by `after`, those that were to be left
 * there. */
void ti_engine_unlist(ti_engine *engine, ti_settled *list, ti_run *runs);

/* For worker.c, pool.c and run.c: */
static inline ti_worker *ti_engine_worker(ti_engine *engine, uint32_t index)
{
    return &engine->seats[index];
}

static inline const ti_backend *ti_engine_backend(ti_engine *engine, uint32_t index)
{
    return engine->backend[index].vtable;
}

/* Sees to a run that was told to stop: what of it waits (for a permit, a retry) is made ready, so
 * that it ends, and what runs is interrupted, except on the caller's own worker (or NULL). With a
 * reference to the run. */
void ti_engine_stop(ti_engine *engine, const ti_run *run, const ti_worker *self);

/* Interrupts again what runs and must stop. True: there is something, and signals may help. Only
 * the control loop calls it, and the thread that closes the engine. */
bool ti_engine_enforce(ti_engine *engine);

/* Tells what is past its deadline to stop, and sets *late if some callback is. Returns when the
 * next one is. Only the control loop calls it. */
uint64_t ti_engine_check_deadlines(ti_engine *engine, uint64_t now, bool *late);

/* Makes the offer of a worker that has been in one callback since the last look while work waits
 * behind it. True: some worker keeps work to itself. Only the control loop calls it. */
bool ti_engine_check_progress(ti_engine *engine);

/* Gives up threads whose callback was told to stop longer ago than the grace allows, and replaces
 * those given up: the callback's outcome is settled and the pool gets a fresh thread; whoever sits
 * down at the worker opens a fresh context. The old ones are left to each other and are never
 * touched again. (A guest cannot be
 * given up: its frames are the host's.) Only the control loop calls it. */
void ti_engine_give_up(ti_engine *engine, uint64_t now);

/* Makes a chain of nodes ready, from any thread. NULL is fine. */
void ti_engine_queue(ti_engine *engine, ti_node *chain);

/* Called once per run, by the worker that accounts for its last processor. */
void ti_engine_settle(ti_engine *engine, ti_run *run);

/* A free seat, `preferred` if it can be; NULL: all are taken. One that lacks a context is the last
 * choice, and gets it first. */
ti_worker *ti_engine_sit(ti_engine *engine, uint32_t preferred);

/* A free seat that lacks a context, for ti_engine_equip; NULL: there is none. */
ti_worker *ti_engine_sit_bare(ti_engine *engine);

/* Opens the contexts that a worker lacks because its last thread was given up, which may take long
 * (they load scripts), and catches up. With the seat taken. False: there is no memory for that now,
 * and the seat has been left. */
bool ti_engine_equip(ti_engine *engine, ti_worker *worker);

/* Something can be had by a thread that sits down, and there is a seat. */
bool ti_engine_beckons(ti_engine *engine);

void ti_engine_enlist(ti_engine *engine, ti_run *run);
void ti_engine_delist(ti_engine *engine, ti_run *run);
ti_run *ti_engine_pop_idle(ti_engine *engine, ti_program *program);
/* Takes runs that are linked by `next_idle`. */
void ti_engine_push_idle(ti_engine *engine, ti_program *program, ti_run *runs);

/* Has every backend drop what it keeps under a program's key: at once where the seat is free and
 * lacks nothing, else when somebody sits down there next (and a context that is opened until then
 * may have loaded the program). Never blocks for long, so that a garbage collector or a
 * worker may call it. (Without memory for the note, what is kept goes with the engine.) */
void ti_engine_forget(ti_engine *engine, uint64_t key);

/* Does what ti_engine_forget left for later, unless something is lacking. With the seat taken. */
void ti_engine_catch_up(ti_engine *engine, ti_worker *worker);

#endif
