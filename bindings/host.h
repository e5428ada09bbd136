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
#define TI_ERROR_TYPE "tidemill.error"

typedef struct ti_host_engine {
    ti_engine *engine; /* NULL: not opened, or collected */
    struct ti_state_config *config;
    ti_builder scratch; /* for payloads on their way in */
    size_t garbage;     /* bytes of results made since Lua's collector was told */
} ti_host_engine;

typedef struct ti_host_dag {
    ti_program *program;
    ti_host_engine *engine; /* kept alive by the userdata's fields */
} ti_host_dag;

/* Both run and result. What is still set is freed with the userdata. */
typedef struct ti_host_run {
    ti_run *run;
    ti_value *input, *metadata; /* on their way into a run */
    ti_host_engine *engine;     /* of a run; kept alive by its fields */
} ti_host_run;

/* In object.c: makes the metatable of a type, with methods and metamethods, and leaves it on the
 * stack. Reading a field looks at the methods, then at the userdata's table of fields. */
void ti_host_new_type(lua_State *L, const char *type, const luaL_Reg *methods,
                      const luaL_Reg *metamethods);

/* Pushes the table of fields of the userdata at `index`, made at first need. */
void ti_host_push_fields(lua_State *L, int index);

/* Pushes nil and an error with a code and a message; returns 2. */
int ti_host_fail(lua_State *L, ti_code code, const char *format, ...);

/* The same for an engine that is closed, or not this process's own; NULL is fine. */
int ti_host_closed(lua_State *L, const ti_engine *engine);

/* In result.c */
int ti_host_dag_run(lua_State *L); /* dag:run(payload, options) */
/* start(dag, payload, options, notify) -> handle, the light userdata that next_settled returns for
 * it | nil, error */
int ti_host_start(lua_State *L);
void ti_host_open_results(lua_State *L);

/* In outcome.c: what a settled run says, as Lua values. */
void ti_outcome_push_metadata(lua_State *L, const ti_run *run);
void ti_outcome_push_outcomes(lua_State *L, ti_run *run);
/* The list of errors of failed processors, in canonical order. */
void ti_outcome_push_failures(lua_State *L, const ti_run *run);
/* The error of the whole run. The list of failures is at `failures`. */
void ti_outcome_push_error(lua_State *L, ti_run *run, int failures);

#endif
