/* SPDX-License-Identifier: MIT */
/* tidemill: DAGs of processors, run on all cores. The C interface; docs/embedding.md is the guide.
 *
 * What holds everywhere:
 *
 * Threads. Any function may be called from any thread, and counted objects (engine, dag, run,
 * result, value) may be shared by threads that each have a reference. Builders, writers, streams
 * and errors belong to one thread at a time.
 *
 * Ownership. What a function returns without the word "borrowed" is the caller's: to be given back
 * with the type's own release, free or close, which all take NULL. Borrowed pointers are good as
 * long as the object they came from. A parameter that a function *takes* is gone afterwards,
 * whether it succeeds or not.
 *
 * Errors. What fails returns NULL, false or a code, and leaves an error at *error, to be freed with
 * tide_error_free. `error` may be NULL. On success *error is not touched. NULL where an object is
 * needed is answered with TIDE_E_MISUSE, or where there is no `error`, by doing nothing; a value
 * that is NULL stands for one for which there was no memory, so makers need not be checked.
 *
 * Blocking. Functions that may wait for others say "Waits". In a callback of the same engine (a
 * processor's open, call, close or drop) these fail with TIDE_E_MISUSE instead of waiting for
 * themselves.
 *
 * Times are seconds. Ids and names are text with a NUL. */
#ifndef TIDEMILL_H
#define TIDEMILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIDE_VERSION_MAJOR 0
#define TIDE_VERSION_MINOR 1
#define TIDE_VERSION_PATCH 0
#define TIDE_VERSION "0.1.0"
#define TIDE_VERSION_NUMBER                                                                        \
    (TIDE_VERSION_MAJOR * 10000 + TIDE_VERSION_MINOR * 100 + TIDE_VERSION_PATCH)

#if defined(__GNUC__)
#define TIDE_API __attribute__((visibility("default")))
#define TIDE_FORMAT(string, first) __attribute__((format(printf, string, first)))
#else
#define TIDE_API
#define TIDE_FORMAT(string, first)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that is linked, as TIDE_VERSION. Static. */
TIDE_API const char *tide_version(void);

/* ---- Errors ---- */

typedef enum tide_code {
    TIDE_OK = 0,
    TIDE_E_INVALID_DAG,       /* the DAG has problems, or its script does not load */
    TIDE_E_PROCESSOR_FAILED,  /* a processor answered with an error */
    TIDE_E_DEPENDENCY_FAILED, /* a processor was skipped, because an ancestor failed */
    TIDE_E_TIMEOUT,           /* a call, a run, or waiting took too long */
    TIDE_E_CANCELLED,         /* the run was cancelled, or another processor failed first */
    TIDE_E_INVALID_RESPONSE,  /* a processor answered what its intent does not allow */
    TIDE_E_INVALID_PAYLOAD,   /* a value that cannot be */
    TIDE_E_MEMORY_LIMIT,      /* not enough memory */
    TIDE_E_QUEUE_FULL,        /* as much is in flight as the stream allows */
    TIDE_E_CLOSED,            /* the engine is closed, or the process was forked */
    TIDE_E_INTERNAL,          /* the system gives no thread, no Lua state */
    TIDE_E_MISUSE = 100,      /* the caller broke the contract; the message says how */
} tide_code;

typedef struct tide_error tide_error;
typedef struct tide_value tide_value;
typedef struct tide_view tide_view;

/* "processor_failed"; "unknown" for a number that is no code. Static. */
TIDE_API const char *tide_code_name(tide_code code);

/* An error for a processor to answer with, or for its `open`. Never NULL. `code` is
 * TIDE_E_PROCESSOR_FAILED if it is TIDE_OK. */
TIDE_API tide_error *tide_error_new(tide_code code, const char *format, ...) TIDE_FORMAT(2, 3);

TIDE_API void tide_error_free(tide_error *error);

/* TIDE_OK for NULL. All strings are borrowed from the error. */
TIDE_API tide_code tide_error_code(const tide_error *error);
TIDE_API const char *tide_error_message(const tide_error *error);   /* never NULL */
TIDE_API const char *tide_error_processor(const tide_error *error); /* its id, or NULL */
TIDE_API const char *tide_error_root(const tide_error *error);      /* of TIDE_E_DEPENDENCY_FAILED:
                                                                       the id that failed; or NULL */
TIDE_API const char *tide_error_traceback(const tide_error *error); /* where Lua raised, or NULL */
TIDE_API uint32_t tide_error_attempt(const tide_error *error); /* of a processor, from 1; else 0 */

/* For people: code, processor and message. */
TIDE_API const char *tide_error_text(const tide_error *error);

/* What was raised, where that was a table; or NULL. Borrowed. */
TIDE_API const tide_value *tide_error_cause(const tide_error *error);

/* Of TIDE_E_INVALID_DAG: how many problems there are, and each of them; NULL past the last. */
TIDE_API size_t tide_error_problems(const tide_error *error);
TIDE_API const char *tide_error_problem(const tide_error *error, size_t index);

/* ---- Values ----
 *
 * What flows between processors: immutable and counted. To look at one, take its view. */

typedef enum tide_kind {
    TIDE_NIL,
    TIDE_NULL, /* a null that can be in an array or map, as tidemill.null in Lua */
    TIDE_BOOLEAN,
    TIDE_INTEGER,
    TIDE_FLOAT,
    TIDE_STRING,
    TIDE_ARRAY,
    TIDE_MAP,
} tide_kind;

/* Makers: a new reference, or NULL when there is no memory. */
TIDE_API tide_value *tide_nil(void);
TIDE_API tide_value *tide_null(void);
TIDE_API tide_value *tide_boolean(bool boolean);
TIDE_API tide_value *tide_integer(int64_t integer);
TIDE_API tide_value *tide_float(double number);
TIDE_API tide_value *tide_string(const void *bytes, size_t size); /* copies any bytes */
TIDE_API tide_value *tide_text(const char *text);                 /* up to the NUL */

/* One more reference to the same value. NULL gives NULL. What the callbacks of a run made lies in
 * blocks of that run, of 1 KiB to 64 KiB; who holds one small value of them holds its block. Copy
 * what is to be kept for long, e.g. by tide_string. */
TIDE_API tide_value *tide_value_retain(const tide_value *value);
TIDE_API void tide_value_release(tide_value *value);

/* Same kind and content; maps have no order, and a NaN equals a NaN. An integer never equals a
 * float. */
TIDE_API bool tide_value_equal(const tide_value *a, const tide_value *b);

/* All of a value. NULL gives NULL. A view is borrowed from the value it is of. */
TIDE_API const tide_view *tide_value_view(const tide_value *value);

/* Short for the view's: the bytes of a string, NULL for anything else. */
TIDE_API const char *tide_value_string(const tide_value *value, size_t *size);

/* Views take NULL for nil, and answer zero, NULL or false where the kind is another: so
 * tide_view_integer(tide_view_field(tide_value_view(metadata), "count")) needs no checks. */
TIDE_API tide_kind tide_view_kind(const tide_view *view);
TIDE_API bool tide_view_boolean(const tide_view *view);
TIDE_API int64_t tide_view_integer(const tide_view *view); /* of a float only if it is whole */
TIDE_API double tide_view_number(const tide_view *view);   /* of an integer or a float */
/* The bytes, with a NUL after them; `size` may be NULL. */
TIDE_API const char *tide_view_string(const tide_view *view, size_t *size);
/* Items of an array, pairs of a map. */
TIDE_API size_t tide_view_count(const tide_view *view);
/* From 0 on: an item of an array, the value of a pair of a map; and the key of that pair. */
TIDE_API const tide_view *tide_view_item(const tide_view *view, size_t index);
TIDE_API const tide_view *tide_view_key(const tide_view *view, size_t index);
/* The value that a map has under a string. Looks at the keys one by one. */
TIDE_API const tide_view *tide_view_field(const tide_view *view, const char *key);

/* Arrays and maps are written in order, with what is in them between begin and end:
 *
 *     tide_writer *writer = tide_writer_new();
 *     tide_write_map(writer);
 *     tide_write_text(writer, "size"), tide_write_integer(writer, 3);
 *     tide_write_end(writer);
 *     tide_value *value = tide_writer_finish(writer, &error);
 *
 * In a map, keys (strings, numbers, booleans; each once) and values take turns. nil cannot be in an
 * array or map. What goes wrong is told by `finish`. */
typedef struct tide_writer tide_writer;

TIDE_API tide_writer *tide_writer_new(void); /* NULL: no memory, and the others then do nothing */
TIDE_API void tide_writer_free(tide_writer *writer);
TIDE_API void tide_write_array(tide_writer *writer);
TIDE_API void tide_write_map(tide_writer *writer);
TIDE_API void tide_write_end(tide_writer *writer);
TIDE_API void tide_write_null(tide_writer *writer);
TIDE_API void tide_write_boolean(tide_writer *writer, bool boolean);
TIDE_API void tide_write_integer(tide_writer *writer, int64_t integer);
TIDE_API void tide_write_float(tide_writer *writer, double number);
TIDE_API void tide_write_string(tide_writer *writer, const void *bytes, size_t size);
TIDE_API void tide_write_text(tide_writer *writer, const char *text);
TIDE_API void tide_write_view(tide_writer *writer, const tide_view *view); /* a copy of it */

/* The one value written, and frees the writer, also on failure: TIDE_E_INVALID_PAYLOAD,
 * TIDE_E_MEMORY_LIMIT. */
TIDE_API tide_value *tide_writer_finish(tide_writer *writer, tide_error **error);

/* ---- Engines ---- */

typedef struct tide_engine tide_engine;

/* How Lua callbacks that must stop are stopped (docs/scripting.md). C processors never are: they
 * ask tide_task_cancelled. */
typedef enum tide_preempt {
    TIDE_PREEMPT_AUTO,
    TIDE_PREEMPT_SIGNAL,
    TIDE_PREEMPT_HOOK,
    TIDE_PREEMPT_NONE,
} tide_preempt;

/* Where threads come from. */
typedef enum tide_pool {
    TIDE_POOL_PRIVATE, /* the engine's own, from when they are first wanted until it closes */
    TIDE_POOL_SHARED,  /* libuv's threadpool, and given back when there is nothing to do */
} tide_pool;

/* Begin with `tide_options options = TIDE_OPTIONS;`, so that programs survive new fields. */
typedef struct tide_options {
    size_t size;      /* of this struct, as the program knows it */
    uint32_t workers; /* most callbacks at once; 0: one for each core */
    tide_preempt preempt;
    double kill_grace; /* how long a Lua callback may take to stop before its thread is given up;
                          0: one second. Not with a shared pool, whose threads cannot be */
    tide_pool pool;
} tide_options;

#define TIDE_OPTIONS                                                                               \
    {                                                                                              \
        sizeof(tide_options), 0, TIDE_PREEMPT_AUTO, 0.0, TIDE_POOL_PRIVATE                         \
    }

/* An engine for processors in C. (tidemill_lua.h opens one for Lua scripts, too.) `options` may be
 * NULL. Threads start when they are first wanted. */
TIDE_API tide_engine *tide_engine_open(const tide_options *options, tide_error **error);

/* Cancels what is in flight, waits until it has settled, joins the threads, and closes the states
 * of all processors: no callback is called afterwards. What was made with the engine stays valid;
 * results can be read, and all else answers TIDE_E_CLOSED. May be called again, also from several
 * threads: each returns when it is closed. Waits: for callbacks that run, as long as they take.
 * False: it was called from a callback of this engine, and nothing has happened. */
TIDE_API bool tide_engine_close(tide_engine *engine, tide_error **error);

TIDE_API tide_engine *tide_engine_retain(tide_engine *engine);

/* Dags, runs, results and streams have references of their own, and so has each run in flight. The
 * last reference closes the engine if it is not closed: where that thread may wait, it does; on a
 * thread of the engine itself (a callback that lets go of the last handle; a run that settles when
 * nobody has a handle any more) a thread made for that does it. */
TIDE_API void tide_engine_release(tide_engine *engine);

TIDE_API uint32_t tide_engine_workers(const tide_engine *engine);

/* ---- Processors in C ---- */

typedef struct tide_task tide_task;
typedef struct tide_outcome tide_outcome;

/* What a processor makes of a call; all zero before. The engine takes what is in it.
 *
 *                 transform                    analyze
 *   payload       the next payload: required   must be NULL
 *   metadata      a map, or NULL               a map, or NULL
 *   error         it fails; the other fields are dropped
 *   skip          it contributes nothing, and its dependents go on
 *
 * Anything else fails with TIDE_E_INVALID_RESPONSE. */
typedef struct tide_answer {
    tide_value *payload;
    tide_value *metadata;
    tide_error *error;
    bool skip;
} tide_answer;

/* A processor. Wherever it is used in a DAG, every worker opens a state of its own for it: so
 * `call` is never in one state on two threads at once, and needs no lock for what is in there.
 * `data` is shared by all of them. */
typedef struct tide_processor {
    size_t size; /* sizeof(tide_processor) */

    /* Makes one worker's state; `options` (borrowed, NULL: none) are those of its use. False: the
     * DAG is not accepted, with the error at *error, which becomes the caller's. On the thread that
     * adds or loads the DAG. NULL: `data` is the state of every worker, and `close` is not called.
     */
    bool (*open)(void *data, const tide_value *options, void **state, tide_error **error);

    /* Does the work. On a thread of the engine, or one that waits in tide_dag_run. It cannot be
     * interrupted: what takes long asks tide_task_cancelled. (In an engine with Lua, system calls
     * may return EINTR when it was told to stop.) Required. */
    void (*call)(void *state, const tide_task *task, tide_answer *answer);

    /* Frees a state: when the dag is gone (in a worker that is busy just then: when that is used
     * next), or the engine closes. On any thread. May be NULL. */
    void (*close)(void *state);

    /* Nothing will use `data` again: all states are closed, and the builder or name it came by is
     * gone. On any thread. May be NULL. */
    void (*drop)(void *data);

    void *data;
} tide_processor;

/* Makes a processor known under a name, for scripts: tm.native "name". Before they are loaded. The
 * struct is copied. TIDE_E_MISUSE: the name is taken. After an error `drop` is not called. */
TIDE_API bool tide_engine_register(tide_engine *engine, const char *name,
                                   const tide_processor *processor, tide_error **error);

/* What `call` may ask, on its own thread and until it returns. Everything is borrowed. */
TIDE_API const tide_value *tide_task_payload(const tide_task *task);
TIDE_API const char *tide_task_id(const tide_task *task);
TIDE_API const tide_value *tide_task_options(const tide_task *task); /* or NULL */
TIDE_API uint32_t tide_task_attempt(const tide_task *task);          /* from 1 */
TIDE_API uint32_t tide_task_worker(const tide_task *task);           /* from 0 */
/* It was told to stop (cancelled, too late, another one failed): its answer does not count. */
TIDE_API bool tide_task_cancelled(const tide_task *task);
/* Until the deadline of this call or its run; negative: there is none. */
TIDE_API double tide_task_remaining(const tide_task *task);
/* What an ancestor contributed; NULL: nothing, or it is no ancestor. */
TIDE_API const tide_value *tide_task_metadata(const tide_task *task, const char *id);
TIDE_API const tide_value *tide_task_input_metadata(const tide_task *task); /* or NULL */
/* What became of the direct dependencies: by id, or one by one. NULL: there is no such one. */
TIDE_API const tide_outcome *tide_task_dependency(const tide_task *task, const char *id);
TIDE_API const tide_outcome *tide_task_dependency_at(const tide_task *task, size_t index);

/* ---- Declaring a DAG ---- */

typedef struct tide_builder tide_builder;
typedef struct tide_dag tide_dag;

typedef enum tide_failure_strategy {
    TIDE_FAIL_FAST,
    TIDE_CONTINUE_ON_ERROR,
    TIDE_BEST_EFFORT,
} tide_failure_strategy;

typedef enum tide_strategy {
    TIDE_STRATEGY_DEFAULT, /* what the DAG says; for the DAG: reactive */
    TIDE_REACTIVE,
    TIDE_WORK_QUEUE,
    TIDE_LEVEL,
} tide_strategy;

typedef struct tide_retry {
    uint32_t max;       /* attempts after the first: 1 to 60000 */
    double backoff;     /* before the second attempt */
    double factor;      /* each wait is so many times the one before; 0: twice */
    double max_backoff; /* 0: no bound */
    double jitter;      /* 0 to 1: up to this part of a wait is taken off at random */
    uint64_t seed;      /* of that */
} tide_retry;

/* NULL: no memory; then the others do nothing, and adding fails with TIDE_E_MISUSE. `name` may be
 * NULL. What is declared is copied, and what is wrong with it is told when it is added. */
TIDE_API tide_builder *tide_builder_new(const char *name);
TIDE_API void tide_builder_free(tide_builder *builder);

/* About the DAG. */
TIDE_API void tide_builder_failure_strategy(tide_builder *builder, tide_failure_strategy strategy);
TIDE_API void tide_builder_strategy(tide_builder *builder, tide_strategy strategy);
TIDE_API void tide_builder_max_concurrency(tide_builder *builder, uint32_t most);
TIDE_API void tide_builder_timeout(tide_builder *builder, double seconds); /* of a run */
TIDE_API void tide_builder_profile(tide_builder *builder, bool profile);
/* At most `count` processors at once, in all runs of the DAG, that use the name. */
TIDE_API void tide_builder_limit(tide_builder *builder, const char *name, uint32_t count);

/* A processor. The struct is copied, and its `drop` is called once, whatever becomes of the DAG. */
TIDE_API void tide_builder_transform(tide_builder *builder, const char *id,
                                     const tide_processor *processor);
TIDE_API void tide_builder_analyze(tide_builder *builder, const char *id,
                                   const tide_processor *processor);

/* About the processor that was declared last. */
TIDE_API void tide_builder_depends_on(tide_builder *builder, const char *id);
TIDE_API void tide_builder_payload_from(tide_builder *builder, const char *id);
TIDE_API void tide_builder_uses(tide_builder *builder, const char *limit);
TIDE_API void tide_builder_call_timeout(tide_builder *builder, double seconds); /* of one call */
TIDE_API void tide_builder_retry(tide_builder *builder, const tide_retry *retry);
TIDE_API void tide_builder_options(tide_builder *builder, tide_value *options); /* takes them */

/* Checks the DAG and installs it; the builder stays the caller's and may be used again. All
 * problems are told at once: TIDE_E_INVALID_DAG. Otherwise the error of a processor's `open`,
 * TIDE_E_CLOSED or TIDE_E_MEMORY_LIMIT. Waits: for each worker to finish its current callback. */
TIDE_API tide_dag *tide_engine_add(tide_engine *engine, tide_builder *builder, tide_error **error);

/* A dag may be run any number of times, at once and from any thread. Releasing it stops nothing. */
TIDE_API tide_dag *tide_dag_retain(tide_dag *dag);
TIDE_API void tide_dag_release(tide_dag *dag);
TIDE_API const char *tide_dag_name(const tide_dag *dag); /* borrowed, or NULL */
/* Its processors in canonical order: by rank, and within a rank as declared. NULL past the last. */
TIDE_API size_t tide_dag_count(const tide_dag *dag);
TIDE_API const char *tide_dag_id(const tide_dag *dag, size_t index);

/* ---- Runs ---- */

typedef struct tide_run tide_run;
typedef struct tide_result tide_result;

typedef enum tide_status {
    TIDE_WAITING,
    TIDE_READY,
    TIDE_RUNNING,
    TIDE_COMPLETED,
    TIDE_FAILED,
    TIDE_SKIPPED,
    TIDE_CANCELLED,
} tide_status;

/* "completed"; "unknown" for a number that is no status. Static. */
TIDE_API const char *tide_status_name(tide_status status);

/* Begin with `tide_run_options options = TIDE_RUN_OPTIONS;`. */
typedef struct tide_run_options {
    size_t size;
    const tide_value *metadata; /* a map whose keys are strings and no ids, or NULL; borrowed */
    double timeout;             /* 0: what the DAG says */
    tide_strategy strategy;
    int profile; /* 1: outcomes have times; -1: they have none; 0: what the DAG says */
    bool notify; /* tide_engine_next_settled returns it. (tide_dag_start only) */
    void *tag;   /* the caller's own; see tide_result_tag */
} tide_run_options;

#define TIDE_RUN_OPTIONS                                                                           \
    {                                                                                              \
        sizeof(tide_run_options), NULL, 0.0, TIDE_STRATEGY_DEFAULT, 0, false, NULL                 \
    }

/* Runs to the end. Takes the payload; `options` may be NULL. The calling thread works, too. A
 * result says nothing about success: see tide_result_error. NULL: it did not run (TIDE_E_CLOSED,
 * TIDE_E_INVALID_PAYLOAD, TIDE_E_MEMORY_LIMIT, TIDE_E_INTERNAL). Waits. */
TIDE_API tide_result *tide_dag_run(tide_dag *dag, tide_value *payload,
                                   const tide_run_options *options, tide_error **error);

/* Starts a run on the engine's threads and returns at once. As above, but does not wait. */
TIDE_API tide_run *tide_dag_start(tide_dag *dag, tide_value *payload,
                                  const tide_run_options *options, tide_error **error);

TIDE_API tide_run *tide_run_retain(tide_run *run);
/* A run goes on when nobody holds it. */
TIDE_API void tide_run_release(tide_run *run);

/* The result once it has settled, each time a new reference. Negative: as long as it takes; 0: as
 * it is now. TIDE_E_TIMEOUT: not yet. Waits. */
TIDE_API tide_result *tide_run_wait(tide_run *run, double seconds, tide_error **error);

/* No callback of the run starts from now on; Lua callbacks that run are interrupted, those in C see
 * tide_task_cancelled. The first reason stays; it is copied, and may be NULL. False: it has settled
 * before. Never waits: also from a callback. */
TIDE_API bool tide_run_cancel(tide_run *run, const char *reason);

/* TIDE_RUNNING, or how it ended: TIDE_COMPLETED, TIDE_FAILED, TIDE_CANCELLED. */
TIDE_API tide_status tide_run_status(tide_run *run);
TIDE_API void *tide_run_tag(const tide_run *run);

/* ---- Results ----
 *
 * A settled run. It keeps all values of the run; borrowed pointers are good as long as it is. */

TIDE_API tide_result *tide_result_retain(tide_result *result);
TIDE_API void tide_result_release(tide_result *result);

/* TIDE_COMPLETED; TIDE_FAILED: some processor failed; TIDE_CANCELLED: it was cancelled or took too
 * long. */
TIDE_API tide_status tide_result_status(const tide_result *result);

/* NULL if it completed; else why not: of the processors that failed, the first in canonical order.
 */
TIDE_API tide_error *tide_result_error(const tide_result *result);

/* What the canonical rule yields of what has completed. Borrowed; never NULL. */
TIDE_API const tide_value *tide_result_payload(const tide_result *result);

/* What a processor contributed; NULL: nothing, or there is no such one. Borrowed. */
TIDE_API const tide_value *tide_result_metadata(const tide_result *result, const char *id);
TIDE_API const tide_value *tide_result_input_metadata(const tide_result *result);

TIDE_API void *tide_result_tag(const tide_result *result);
TIDE_API double tide_result_duration(const tide_result *result); /* negative: not profiled */

/* What became of one processor; NULL: there is no such one. In canonical order by number. */
TIDE_API const tide_outcome *tide_result_outcome(const tide_result *result, const char *id);
TIDE_API size_t tide_result_count(const tide_result *result);
TIDE_API const tide_outcome *tide_result_at(const tide_result *result, size_t index);

/* The next that failed after `outcome` (NULL: the first), in canonical order; NULL: none. */
TIDE_API const tide_outcome *tide_result_next_failure(const tide_result *result,
                                                      const tide_outcome *outcome);

TIDE_API const char *tide_outcome_id(const tide_outcome *outcome);
TIDE_API tide_status tide_outcome_status(const tide_outcome *outcome);
TIDE_API uint32_t tide_outcome_attempts(const tide_outcome *outcome); /* 0: it never ran */
/* What a transform returned; NULL: it is none, or did not complete. */
TIDE_API const tide_value *tide_outcome_payload(const tide_outcome *outcome);
/* What it passed on: what a transform returned, what any other processor saw. Never NULL. */
TIDE_API const tide_value *tide_outcome_passed(const tide_outcome *outcome);
TIDE_API const tide_value *tide_outcome_metadata(const tide_outcome *outcome);
/* Why it did not complete. NULL: it did, or skipped itself. The caller's own. */
TIDE_API tide_error *tide_outcome_error(const tide_outcome *outcome);
/* Since the run began; negative where it was not profiled or never ran. */
TIDE_API double tide_outcome_started(const tide_outcome *outcome);
TIDE_API double tide_outcome_finished(const tide_outcome *outcome);

/* ---- Event loops ---- */

/* A descriptor, for poll(2) and event loops, that is readable when something has settled: a run
 * started with `notify`, or one of a stream in the background. Whoever it wakes calls
 * tide_engine_next_settled until that returns NULL, then takes what its streams have. Made at the
 * first call, it is the engine's own and lives as long: neither read nor close it. -1: the system
 * gives none. */
TIDE_API int tide_engine_pollfd(tide_engine *engine, tide_error **error);

/* The run that settled first of those started with `notify` and not yet returned. NULL: none has,
 * and the descriptor is not readable until the next one does. Returns those of a closed engine,
 * too. What is not taken goes with the last tide_engine reference. (The engine of a Lua state has
 * one such list: either the program in Lua calls engine:step, or C calls this.) */
TIDE_API tide_result *tide_engine_next_settled(tide_engine *engine);

/* Runs that make the descriptor readable and are in flight, or settled and not yet taken. */
TIDE_API uint32_t tide_engine_pending(tide_engine *engine);

/* ---- Streams ----
 *
 * Many runs of one dag with a bound on how many are in flight. Used by one thread at a time. */

typedef struct tide_stream tide_stream;

enum {
    TIDE_STREAM_UNORDERED = 1,  /* results come as they settle, else in the order of the pushes */
    TIDE_STREAM_BACKGROUND = 2, /* runs begin when they are pushed, whether or not somebody takes
                                   results, and make the engine's descriptor readable */
};

/* At most `most` (from 1 on) are pushed and not yet taken by `next`. `flags`: of those above. */
TIDE_API tide_stream *tide_stream_open(tide_dag *dag, uint32_t most, unsigned flags,
                                       tide_error **error);

/* Starts a run; takes the payload, also when it fails. TIDE_E_QUEUE_FULL: take a result first; ask
 * tide_stream_room to know before. Otherwise as tide_dag_start. */
TIDE_API bool tide_stream_push(tide_stream *stream, tide_value *payload,
                               const tide_run_options *options, tide_error **error);

/* How many pushes there is room for, and how many results are still to come. */
TIDE_API uint32_t tide_stream_room(const tide_stream *stream);
TIDE_API uint32_t tide_stream_in_flight(const tide_stream *stream);

/* The next result. NULL: none is in flight, and *error is untouched; or TIDE_E_TIMEOUT. Negative:
 * as long as it takes. Waits; the calling thread works meanwhile, also past the time. */
TIDE_API tide_result *tide_stream_next(tide_stream *stream, double seconds, tide_error **error);

/* Cancels what is in flight, without waiting for it, and frees the stream. */
TIDE_API void tide_stream_close(tide_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
