/* SPDX-License-Identifier: MIT */
/* The userdata of the host's Lua state. Each is made empty, with its metatable, before it is given
 * anything to own: so nothing leaks when Lua raises. All of them belong to the host's thread. */
#ifndef TI_HOST_H
#define TI_HOST_H

#include "bindings/compat.h"
#include "bindings/convert.h"
#include "engine/engine.h"

#define TI_ENGINE_TYPE "tidemill.engine"
#define TI_DAG_TYPE "tidemill.dag"
#define TI_RUN_TYPE "tidemill.run"
#define TI_RESULT_TYPE "tidemill.result"
#define TI_STREAM_TYPE "tidemill.stream"
#define TI_ERROR_TYPE "tidemill.error"

/* What Lua's collector does not see, in one Lua state; kept in its registry. */
typedef struct ti_pace {
    size_t garbage;     /* bytes of what was made since it was told */
    size_t uncollected; /* what it was told of since a cycle of it was seen to end */
} ti_pace;

typedef struct ti_host_engine {
    ti_engine *engine; /* NULL: not opened, or collected */
    bool borrowed;     /* it neither holds nor closes it: see embed.c */
    struct ti_state_config *config;
    ti_builder scratch;         /* for payloads on their way in */
    ti_value *input, *metadata; /* on their way into a run */
    ti_pace *pace;
} ti_host_engine;

typedef struct ti_host_dag {
    ti_program *program;
    ti_host_engine *engine; /* kept alive by the userdata's fields */
} ti_host_dag;

/* What dag:start returns. What is still set is freed with the userdata. */
typedef struct ti_host_run {
    ti_run *run;
    ti_host_engine *engine; /* kept alive by the fields */
} ti_host_run;

/* A result; see bundle.c. */
typedef struct ti_bundle ti_bundle;

typedef struct ti_host_result {
    ti_bundle *bundle; /* kept alive by the table attached to the userdata */
    uint32_t place;
} ti_host_result;

/* In object.c: makes the metatable of a type, with methods and metamethods, and leaves it on the
 * stack. Reading a field looks at the methods, then at the userdata's table of fields. */
void ti_host_new_type(lua_State *L, const char *type, const luaL_Reg *methods,
                      const luaL_Reg *metamethods);

/* The userdata at 1 if it is of a type; else NULL, or raises. In functions that were registered
 * with the type this is quick. */
void *ti_host_test(lua_State *L, const char *type);
void *ti_host_check(lua_State *L, const char *type);

/* The seconds at a stack index, -1 for none or nil. Raises for anything else, in the name of
 * `method`. */
lua_Number ti_host_check_seconds(lua_State *L, int index, const char *method);

/* Those as how long to wait; UINT64_MAX for -1, and for more than anybody waits. */
uint64_t ti_host_nanoseconds(lua_Number seconds);

/* Pushes the table of fields of the userdata at `index`, made at first need. */
void ti_host_push_fields(lua_State *L, int index);

/* Pushes nil and an error with a code and a message; returns 2. */
int ti_host_fail(lua_State *L, ti_code code, const char *format, ...);

/* In module.c: the value at an index is an engine, made by this copy of the library; an engine that
 * the userdata, which is pushed, does not hold. */
bool ti_host_is_engine(lua_State *L, int index);
ti_host_engine *ti_host_borrow_engine(lua_State *L, ti_engine *engine);

/* In native.c */
int ti_host_native_problem(lua_State *L); /* (engine, name) -> what is wrong with it, or nothing */
/* open_natives(dag, description.processors) -> true | nil, what is wrong: opens the states of the
 * processors that are native */
int ti_host_open_natives(lua_State *L);

/* In bundle.c: pushes a result, which gets its run later; it takes the reference. NULL: it has none
 * yet, or it was closed, or the finalizer of its bundle has run. */
ti_host_result *ti_host_new_result(lua_State *L);
void ti_host_set_run(ti_host_result *self, ti_run *run);
ti_run *ti_host_run_of(const ti_host_result *self);
void ti_host_drop_run(ti_host_result *self);
/* The run holds so much, besides ti_host_weight. */
void ti_host_weigh_run(ti_host_result *self, size_t bytes);
/* Pushes the table of fields of the result at `index`, by string keys. */
void ti_host_push_result_fields(lua_State *L, int index);
void ti_host_open_bundles(lua_State *L);
/* The same for an engine that is closed, or not this process's own; NULL is fine. */
int ti_host_closed(lua_State *L, const ti_engine *engine);

/* In result.c */
/* Drops what an error left on its way into a run. */
void ti_host_clear_inputs(ti_host_engine *engine);
/* The dag at 1; raises for anything else. */
ti_host_dag *ti_host_check_dag(lua_State *L);
/* Reads the options of a run at `index` (none, nil or a table) into *metadata and *options;
 * nonzero: nil and an error are pushed. Raises for misuse. */
int ti_host_read_options(lua_State *L, int index, ti_host_dag *dag, ti_value **metadata,
                         ti_run_options *options);
/* Bytes that a run holds from its start on: its nodes and what it was given. */
size_t ti_host_weight(const ti_run *run);
/* The pace of this Lua state, made at first need. */
ti_pace *ti_host_pace(lua_State *L);
/* Lua's collector does not see what C holds for its objects; so it is told. May run finalizers. */
void ti_host_tell_collector(lua_State *L, const ti_host_engine *engine, size_t bytes);
/* With a result on top, whose run has settled: leaves what dag:run returns for it, and returns how
 * much that is. */
int ti_host_finish(lua_State *L, ti_host_engine *engine, ti_host_result *result);
int ti_host_dag_run(lua_State *L); /* dag:run(payload, options) */
/* start(dag, payload, options, notify) -> handle, the light userdata that next_settled returns for
 * it | nil, error */
int ti_host_start(lua_State *L);
void ti_host_open_results(lua_State *L);

/* In stream.c: stream(dag, options of runs | nil, max_in_flight, ordered, source | nil) -> stream |
 * nil, error */
int ti_host_new_stream(lua_State *L);
void ti_host_open_streams(lua_State *L);

/* In outcome.c: what a settled run says, as Lua values. */
void ti_outcome_push_metadata(lua_State *L, const ti_run *run);
void ti_outcome_push_outcomes(lua_State *L, ti_run *run);
/* The list of errors of failed processors, in canonical order. */
void ti_outcome_push_failures(lua_State *L, const ti_run *run);
/* The error of the whole run. The list of failures is at `failures`. */
void ti_outcome_push_error(lua_State *L, ti_run *run, int failures);

#endif
