/* SPDX-License-Identifier: MIT */
/* A program is a plan installed in an engine; a run is one execution of it on one payload.
 *
 * A run holds one node per step of the plan, 40 bytes each, allocated once and used again by later
 * runs. A node is also the mailbox of its processor: each dependency delivers one event, by leaving
 * its outcome in its own node and then taking one from `pending`. Whoever takes the last one has
 * seen all outcomes and makes the node ready. So nothing is queued, lost, or allocated on the way.
 *
 * out(n) of the canonical payload rule is one number, `source`: 0 stands for the run's input, s + 1
 * for what the transform at step s returned. Steps stand in canonical order, so the greatest
 * out(d) is the greatest number. */
#ifndef TI_RUN_H
#define TI_RUN_H

#include "engine/arena.h"
#include "engine/error.h"
#include "engine/plan.h"

struct ti_engine;
struct ti_executor;
struct ti_limits;
struct ti_queue;

typedef enum ti_status {
    TI_WAITING, /* for dependencies */
    TI_READY,   /* queued, or waiting for a permit */
    TI_RUNNING,
    TI_COMPLETED,
    TI_FAILED,
    TI_SKIPPED,
    TI_CANCELLED
} ti_status;

const char *ti_status_name(ti_status status);

enum {
    TI_OWNS_PAYLOAD = 1, /* it holds a reference; else it is packed, or borrowed from the run's
                            input or another node */
    TI_OWNS_METADATA = 2,
    TI_HAS_PERMIT = 4,
};

/* Owned by the worker that has it in hand: the one that took its last event until it finishes; then
 * read-only. Handing over is by `pending`, the deques and the inbox. */
typedef struct ti_node {
    struct ti_run *run; /* [const] */
    union {
        struct ti_node *next; /* while ready: the queue it stands in */
        ti_value *payload;    /* of a completed transform */
    };
    union {
        ti_value *metadata; /* completed; NULL: none */
        ti_error *error;    /* failed */
    };
    atomic_uint pending; /* [atomic] events still to come */
    uint32_t source;     /* out(n) */
    uint32_t root;       /* step whose failure kept this one from completing, or TI_NONE; skipped
                            without a root: by its own condition */
    uint8_t status;      /* ti_status */
    uint8_t flags;
    uint16_t attempts;
} ti_node;

/* Beside the node of a step that may be tried again. */
typedef struct ti_attempts {
    ti_error *errors; /* of failed attempts, newest first, linked by `previous`; as the node */
    uint64_t due;     /* when it is tried again */
    ti_node *node;    /* [const] */
    struct ti_attempts *before, *after; /* [lock:control] in the list of those that wait */
    bool waits;                         /* [lock:control] it is in that list */
} ti_attempts;

typedef struct ti_times {
    uint64_t started, finished; /* ns since the run began */
    uint32_t worker;
} ti_times;

/* What ti_program.heavy begins with: see "What pays" in worker.c. */
#define TI_HEAVY_AT_FIRST 2

typedef struct ti_program {
    atomic_uint references;         /* [atomic] */
    struct ti_engine *engine;       /* [const] */
    ti_plan *plan;                  /* [const] */
    struct ti_limits *limits;       /* [const] NULL: there are none */
    uint64_t key;                   /* [const] unique; what backends file callbacks under */
    _Atomic(struct ti_run *) spare; /* [atomic] the run that was recycled last */
    uint32_t idle_count;            /* [lock:engine] */
    struct ti_run *idle;            /* [lock:engine] more of them */
    atomic_uint started;            /* [atomic] runs so far */
    atomic_uint light_ns;           /* [atomic] mean time of a light processor */
    atomic_uchar heavy[];           /* [atomic] per step; see "What pays" in worker.c */
} ti_program;

/* Why a run was told to stop. */
typedef enum ti_stop { TI_GO = 0, TI_STOP_CANCELLED, TI_STOP_TIMEOUT, TI_STOP_FAILED } ti_stop;

/* The lists of an engine's runs: all that exist, idle ones too; those in flight with a timeout. */
enum { TI_ALL, TI_TIMED, TI_LISTS };

typedef struct ti_run {
    /* [const] while it runs */
    ti_program *program; /* a reference while somebody holds the run */
    const ti_plan *plan;
    ti_node *nodes;
    ti_value *input;
    ti_value *metadata; /* what the caller gave, or NULL */
    bool profile, timed;
    uint64_t serial; /* of this execution: unique in the engine */
    uint64_t began;
    uint32_t light_ns;
    ti_times *times;       /* per step, when profiled */
    bool signals;          /* the engine's descriptor tells when it has settled */
    bool listed;           /* it is left in a list then */
    bool held;             /* who started it holds it until it has settled */
    const void *group;     /* what a guest works for; the run itself, or its stream */
    ti_attempts *attempts; /* per step, when the plan has retries */
    const struct ti_executor *executor;
    uint64_t timeout; /* ns; 0: none */
    bool bounded;     /* some processor needs permits */

    struct ti_queue *queue; /* of work_queue */
    uint32_t level_end;     /* of level: where the current level ends; its last worker's */
    atomic_uint level_left; /* [atomic] of level: processors of the current level to finish */
    uint32_t slots;         /* [lock:limits] permits of max_concurrency */
    uint32_t slot_waiters;  /* [lock:limits] */

    /* written by the worker that settles it, before `phase` says so */
    uint64_t ended;  /* when timed */
    ti_stop verdict; /* what `stop` was: a later cancel changes nothing */

    atomic_uchar failed; /* [atomic] some processor has */

    /* for who started it */
    uint64_t tag;
    struct ti_run *before, *after; /* in its stream */

    ti_blocks blocks; /* see arena.h */

    struct ti_run *next_idle;    /* [lock:engine] */
    struct ti_run *next_late;    /* [loop] */
    struct ti_settled *list;     /* [lock:engine] NULL: nobody takes it any more */
    struct ti_run *next_settled; /* [lock:engine] */
    struct {
        struct ti_run *previous, *next;
    } in[TI_LISTS]; /* [lock:engine] */

    _Alignas(TI_CACHE_LINE) atomic_uint remaining; /* [atomic] processors not yet accounted for */
    atomic_size_t bytes;           /* [atomic] of the values and errors that callbacks made */
    atomic_uint_fast64_t deadline; /* [atomic] 0: none */
    atomic_uint phase;             /* [atomic] ti_phase */
    atomic_uint references;        /* [atomic] handles, and one while in flight */
    atomic_uchar stop;             /* [atomic] ti_stop */
    _Atomic(ti_value *) reason;    /* [atomic] a string, or NULL */
} ti_run;

typedef enum ti_phase { TI_IDLE, TI_IN_FLIGHT, TI_AWAITED, TI_SETTLED } ti_phase;

/* A key that no program has yet. */
uint64_t ti_program_new_key(void);
/* Takes the reference to `plan`. The program keeps the engine alive. NULL: no memory (and the plan
 * is released). */
ti_program *ti_program_new(struct ti_engine *engine, ti_plan *plan, uint64_t key);
ti_program *ti_program_retain(ti_program *program);
/* The last one frees its runs and tells the backends to forget it. */
void ti_program_release(ti_program *program);

typedef struct ti_run_options {
    bool profile;
    ti_strategy strategy;
    uint64_t timeout; /* ns; 0: none */
} ti_run_options;

/* What the DAG says. */
ti_run_options ti_run_defaults(const ti_plan *plan);

/* A run ready to start, with one reference. Takes the references to `input` and `metadata`
 * (NULL: none), also on failure. NULL: no memory. */
ti_run *ti_run_new(ti_program *program, ti_value *input, ti_value *metadata,
                   const ti_run_options *options);
ti_run *ti_run_retain(ti_run *run);
/* For who comes by the engine's list: false if nobody holds the run any more. */
bool ti_run_retain_live(ti_run *run);
/* The last one puts the run back to be used again. From any thread. NULL is fine. */
void ti_run_release(ti_run *run);
/* The same for `count` at once, any of which may be NULL; cheaper if they are of one program. */
void ti_run_release_all(ti_run **runs, uint32_t count);
/* Frees an idle run for good; only ti_program_release calls it. */
void ti_run_destroy(ti_run *run);

/* Trips the cancellation token: nothing of the run starts from now on, and what runs is
 * interrupted. From any thread, any number of times; the first reason stays. `reason` may be NULL;
 * it is copied. True: it was in flight. (ti_run_stop does not interrupt, which ti_engine_enforce
 * does.) */
bool ti_run_cancel(ti_run *run, const char *reason, size_t size);
bool ti_run_stop(ti_run *run, ti_stop stop, const char *reason, size_t size);

/* A run that has not started never will: a stream settles it as cancelled. */
static inline void ti_run_refuse(ti_run *run)
{
    ti_store_relaxed(&run->stop, TI_STOP_CANCELLED);
}

static inline bool ti_run_settled(ti_run *run)
{
    return ti_load_acquire(&run->phase) == TI_SETTLED;
}

/* Its entry points as a chain, linked by `next`, the first one last, and another chain behind. */
ti_node *ti_run_entries(ti_run *run, ti_node *rest);

/* After it has settled: */

/* The value that out(n) = `source` stands for. Borrowed. */
static inline ti_value *ti_run_value(const ti_run *run, uint32_t source)
{
    return source ? run->nodes[source - 1].payload : run->input;
}

/* The greatest out(n). */
uint32_t ti_run_source(const ti_run *run);

/* Failed processors from `step` on, in canonical order: the first one's step, or TI_NONE. */
uint32_t ti_run_next_failure(const ti_run *run, uint32_t step);

/* TI_COMPLETED, TI_FAILED or TI_CANCELLED as a whole; TI_RUNNING while it has not settled. */
ti_status ti_run_status(ti_run *run);

#endif
