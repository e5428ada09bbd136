/* SPDX-License-Identifier: MIT */
/* dag:run and dag:start, and the userdata they return. A result is the settled run itself, handed
 * over, not copied; what a caller looks at is made into Lua values at the first look. */
#include <string.h>

#include "bindings/host.h"

/* Lua's collector does not see what a result holds; it is told of this many bytes at a time. */
#define GARBAGE_STEP ((size_t)256 << 10)

static ti_host_run *new_run(lua_State *L, const char *type)
{
    ti_host_run *self = tl_new_userdata(L, sizeof *self);
    *self = (ti_host_run){0};
    luaL_getmetatable(L, type);
    lua_setmetatable(L, -2);
    return self;
}

static int run_free(lua_State *L)
{
    ti_host_run *self = lua_touserdata(L, 1);
    ti_run_release(self->run);
    ti_value_release(self->input);
    ti_value_release(self->metadata);
    *self = (ti_host_run){0};
    return 0;
}

static void tell_collector(lua_State *L, ti_host_engine *engine, ti_run *run)
{
    engine->garbage += run->plan->count * sizeof *run->nodes + ti_load_relaxed(&run->bytes);
    if (engine->garbage < GARBAGE_STEP)
        return;
    size_t kilobytes = engine->garbage >> 10;
    engine->garbage = 0;
    lua_gc(L, LUA_GCSTEP, kilobytes < 1 << 24 ? (int)kilobytes : 1 << 24);
}

/* (result) -> what dag:run returns for it */
static int finish(lua_State *L, ti_host_engine *engine, ti_run *run)
{
    int result = lua_gettop(L);
    tell_collector(L, engine, run);
    ti_status status = ti_run_status(run);
    if (status == TI_COMPLETED)
        return 1;
    ti_outcome_push_failures(L, run);
    ti_outcome_push_error(L, run, result + 1);
    lua_pushvalue(L, result);
    lua_setfield(L, -2, "result");
    if (status == TI_CANCELLED || run->plan->failure_strategy == TI_FAIL_FAST)
        lua_pushnil(L);
    else
        lua_pushvalue(L, result);
    lua_insert(L, -2);
    return 2;
}

/* The engine of the dag at 1; raises for anything but a dag. */
static ti_host_dag *check_dag(lua_State *L)
{
    ti_host_dag *dag = luaL_checkudata(L, 1, TI_DAG_TYPE);
    luaL_argcheck(L, dag->program, 1, "this dag has been closed");
    return dag;
}

static int check_metadata_keys(lua_State *L, const ti_plan *plan, int index)
{
    lua_pushnil(L);
    while (lua_next(L, index)) {
        size_t size;
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &size) : NULL;
        if (key && ti_plan_find(plan, key, size) != TI_NONE)
            return ti_host_fail(L, TI_E_INVALID_PAYLOAD,
                                "metadata.%s has the name of a processor; choose another key", key);
        lua_pop(L, 1);
    }
    return 0;
}

/* Reads the options at 3 into self->metadata and *profile; nonzero: nil and an error are pushed. */
static int read_options(lua_State *L, ti_host_dag *dag, ti_host_run *self, bool *profile)
{
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 3)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "metadata") == 0 && lua_istable(L, -1)) {
            ti_conversion conversion = {.scratch = &dag->engine->scratch, .root = "metadata"};
            int failed = check_metadata_keys(L, dag->program->plan, lua_gettop(L));
            if (failed)
                return failed;
            self->metadata = ti_convert_to(L, -1, &conversion);
            if (!self->metadata)
                return ti_host_fail(L, conversion.code, "%s", conversion.message);
        } else if (strcmp(key, "profile") == 0 && lua_isboolean(L, -1)) {
            *profile = lua_toboolean(L, -1);
        } else if (strcmp(key, "metadata") == 0 || strcmp(key, "profile") == 0) {
            return luaL_error(L, "option '%s' must be a %s, but it is a %s", key,
                              key[0] == 'm' ? "table" : "boolean", luaL_typename(L, -1));
        } else {
            return luaL_error(L, "unknown option '%s' (there are metadata and profile)", key);
        }
        lua_pop(L, 1);
    }
    return 0;
}

/* Makes the run for dag:run(payload, options) in `self`; nonzero: nil and an error are pushed. */
static int prepare(lua_State *L, ti_host_dag *dag, ti_host_run *self)
{
    ti_conversion conversion = {.scratch = &dag->engine->scratch, .root = "payload"};
    bool profile = dag->program->plan->profile;
    if (!dag->engine->engine || ti_engine_closed(dag->engine->engine))
        return ti_host_fail(L, TI_E_CLOSED, "the engine is closed");
    if (!lua_isnoneornil(L, 3)) {
        int failed = read_options(L, dag, self, &profile);
        if (failed)
            return failed;
    }
    self->input = ti_convert_to(L, 2, &conversion);
    if (!self->input)
        return ti_host_fail(L, conversion.code, "%s", conversion.message);
    self->run = ti_run_new(dag->program, self->input, self->metadata, profile);
    self->input = self->metadata = NULL;
    if (!self->run)
        return ti_host_fail(L, TI_E_MEMORY_LIMIT, "not enough memory for a run");
    return 0;
}

int ti_host_dag_run(lua_State *L)
{
    ti_host_dag *dag = check_dag(L);
    lua_settop(L, 3);
    ti_host_run *self = new_run(L, TI_RESULT_TYPE);
    int failed = prepare(L, dag, self);
    if (failed)
        return failed;
    if (!ti_engine_run(dag->engine->engine, self->run))
        return ti_host_fail(L, TI_E_CLOSED, "the engine is closed");
    return finish(L, dag->engine, self->run);
}

int ti_host_dag_start(lua_State *L)
{
    ti_host_dag *dag = check_dag(L);
    lua_settop(L, 3);
    ti_host_run *self = new_run(L, TI_RUN_TYPE);
    ti_host_push_fields(L, lua_gettop(L));
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "dag");
    lua_pop(L, 1);
    int failed = prepare(L, dag, self);
    if (failed)
        return failed;
    self->engine = dag->engine;
    ti_code code = ti_engine_start(dag->engine->engine, self->run);
    if (code == TI_E_INTERNAL)
        return ti_host_fail(L, code, "the system cannot start a thread");
    return code ? ti_host_fail(L, code, "the engine is closed") : 1;
}

static ti_host_run *check_run(lua_State *L, const char *type)
{
    ti_host_run *self = luaL_checkudata(L, 1, type);
    luaL_argcheck(L, self->run, 1, "it has been closed");
    return self;
}

/* Each wait returns a result of its own, which shares the run. */
static int run_wait(lua_State *L)
{
    ti_host_run *self = check_run(L, TI_RUN_TYPE);
    ti_host_run *result = new_run(L, TI_RESULT_TYPE);
    ti_engine_wait(self->run->program->engine, self->run);
    result->run = ti_run_retain(self->run);
    return finish(L, self->engine, result->run);
}

static int run_cancel(lua_State *L)
{
    ti_host_run *self = check_run(L, TI_RUN_TYPE);
    size_t size = 0;
    const char *reason = luaL_optlstring(L, 2, NULL, &size);
    lua_pushboolean(L, ti_run_cancel(self->run, reason, size));
    return 1;
}

static int run_close(lua_State *L)
{
    ti_host_run *self = lua_touserdata(L, 1);
    if (self->run)
        ti_run_cancel(self->run, NULL, 0);
    return run_free(L);
}

static const char *run_status_name(ti_host_run *self)
{
    return self->run ? ti_status_name(ti_run_status(self->run)) : "closed";
}

static int run_index(lua_State *L)
{
    ti_host_run *self = luaL_checkudata(L, 1, TI_RUN_TYPE);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "status") == 0) {
        lua_pushstring(L, run_status_name(self));
        return 1;
    }
    lua_getmetatable(L, 1);
    lua_getfield(L, -1, "methods");
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    return 1;
}

static int run_tostring(lua_State *L)
{
    ti_host_run *self = luaL_checkudata(L, 1, TI_RUN_TYPE);
    lua_pushfstring(L, "%s: %s", TI_RUN_TYPE, run_status_name(self));
    return 1;
}

/* Pushes what a field is made of; nil: there is no such field. */
static void push_result_field(lua_State *L, ti_run *run, const char *key)
{
    if (strcmp(key, "payload") == 0)
        ti_convert_push(L, &ti_run_value(run, ti_run_source(run))->root);
    else if (strcmp(key, "metadata") == 0)
        ti_outcome_push_metadata(L, run);
    else if (strcmp(key, "outcomes") == 0)
        ti_outcome_push_outcomes(L, run);
    else if (strcmp(key, "failures") == 0)
        ti_outcome_push_failures(L, run);
    else if (strcmp(key, "ok") == 0)
        lua_pushboolean(L, ti_run_status(run) == TI_COMPLETED);
    else if (strcmp(key, "duration") == 0 && run->profile)
        lua_pushnumber(L, (lua_Number)(run->ended - run->began) / 1e9);
    else
        lua_pushnil(L);
}

static int result_index(lua_State *L)
{
    ti_host_run *self = check_run(L, TI_RESULT_TYPE);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    lua_settop(L, 2);
    ti_host_push_fields(L, 1);
    lua_pushvalue(L, 2);
    lua_rawget(L, 3);
    if (!lua_isnil(L, -1))
        return 1;
    push_result_field(L, self->run, key);
    if (!lua_isnil(L, -1)) {
        lua_pushvalue(L, 2);
        lua_pushvalue(L, -2);
        lua_rawset(L, 3);
    }
    return 1;
}

static int result_tostring(lua_State *L)
{
    ti_host_run *self = luaL_checkudata(L, 1, TI_RESULT_TYPE);
    lua_pushfstring(L, "%s: %s", TI_RESULT_TYPE, run_status_name(self));
    return 1;
}

void ti_host_open_results(lua_State *L)
{
    static const luaL_Reg run_methods[] = {
        {"wait", run_wait},
        {"cancel", run_cancel},
        {NULL, NULL},
    };
    static const luaL_Reg run_meta[] = {
        {"__gc", run_free},       {"__close", run_close}, {"__index", run_index},
        {"__tostring", run_tostring}, {NULL, NULL},
    };
    static const luaL_Reg no_methods[] = {{NULL, NULL}};
    static const luaL_Reg result_meta[] = {
        {"__gc", run_free},
        {"__close", run_free},
        {"__index", result_index},
        {"__tostring", result_tostring},
        {NULL, NULL},
    };
    ti_host_new_type(L, TI_RUN_TYPE, run_methods, run_meta);
    ti_host_new_type(L, TI_RESULT_TYPE, no_methods, result_meta);
    lua_pop(L, 2);
}
