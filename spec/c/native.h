/* SPDX-License-Identifier: MIT */
/* A backend of C callbacks, and what tests do with engines again and again.
 *
 * A program's key is the address of its tt_native, which has a callback per processor, by its
 * declaration index. Payloads are integers, so that tests can calculate what must come out. */
#ifndef NATIVE_H
#define NATIVE_H

#include "engine/engine.h"

/* What a callback says: an error, that it is to be skipped, or a payload and metadata. */
typedef struct tt_answer {
    ti_value *payload, *metadata;
    ti_error *error;
    bool skip;
} tt_answer;

typedef tt_answer (*tt_call)(const ti_task *task, void *data);

/* The callbacks of one program, and what came of them. Zeros are fine but for `calls` or `call`. */
typedef struct tt_native {
    const tt_call *calls; /* by declaration index; NULL: `call` does all */
    tt_call call;
    void *data;
    atomic_uint called;
    atomic_uint running, most; /* callbacks at once */
    atomic_uint forgotten;     /* how many contexts were told to forget it */
} tt_native;

/* What is `shared` by all contexts of an engine: all counts must be equal when it is freed. */
typedef struct tt_house {
    uint32_t refuses; /* `open` fails for this worker, counted from 1 */
    atomic_uint opened, closed;
    atomic_uint running, most; /* callbacks at once in the engine */
} tt_house;

extern const ti_backend tt_backend;

/* Engines borrow their threads from libuv's pool; at first, whether TIDEMILL_POOL is "shared". */
extern bool tt_shared;

/* As ti_engine_open, without anything special. */
ti_engine *tt_try_open(uint32_t workers, const ti_backend_choice *choices, uint32_t count,
                       ti_error **error);

/* Opens an engine with this backend alone; exits if it can't. */
ti_engine *tt_open(tt_house *house, uint32_t workers);

/* Closes and frees an engine that nobody else refers to any more, and checks the house. */
void tt_close(ti_engine *engine, tt_house *house);

/* How many runs are in flight. */
uint32_t tt_in_flight(ti_engine *engine);

/* Compiles a DAG, frees it, and installs it; exits if that fails. */
ti_program *tt_install(ti_engine *engine, ti_dag *dag, tt_native *native);

/* Waits until every context has forgotten a program that was released. (A thread that settles a run
 * may be the last to let go of it, and a seat that was taken hears of it when it is taken next.) */
void tt_await_forgotten(ti_engine *engine, tt_native *native);

/* A DAG of `count` transforms p0, p1, ... without dependencies, or each depending on the last. */
ti_dag *tt_fan(uint32_t count);
ti_dag *tt_chain(uint32_t count);

void tt_add(ti_dag *dag, const char *id, ti_intent intent);
void tt_depends(ti_dag *dag, const char *id);

ti_value *tt_number(uint64_t number);
uint64_t tt_number_of(const ti_value *value);

/* A run of one number, ready to start. */
ti_run *tt_run_new(ti_program *program, uint64_t input);

/* Starts a run, which must work, and waits for it. */
void tt_start(ti_run *run);
void tt_wait(ti_run *run);
void tt_start_and_wait(ti_program *program);

/* What a settled run made of it. */
uint64_t tt_result(const ti_run *run);

/* The node of a processor. */
const ti_node *tt_node(const ti_run *run, const char *id);

/* The step of the processor with a declaration index. */
uint32_t tt_step(const ti_plan *plan, uint32_t processor);

/* Runs it on this thread and returns the result; the run must complete. */
uint64_t tt_compute(ti_program *program, uint64_t input);

/* Callbacks. */
tt_answer tt_increment(const ti_task *task, void *data); /* returns the payload + 1 */
tt_answer tt_pass(const ti_task *task, void *data);      /* returns the payload itself */
tt_answer tt_note(const ti_task *task, void *data);      /* metadata: the payload */
tt_answer tt_fail(const ti_task *task, void *data);

/* Answers made of what callbacks have at hand. */
tt_answer tt_return(uint64_t number);
tt_answer tt_error(const char *message);

#endif
