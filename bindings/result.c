/* SPDX-License-Identifier: MIT */
/* dag:run and dag:start, and the userdata they return. A result is the settled run itself, handed
 * over, not copied; what a caller looks at is made into Lua values at the first look. */
#include <math.h>
#include <string.h>

#include "bindings/host.h"
#include "engine/executor.h"

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

/* A run or a result, or NULL: anybody may call a __gc. */
static ti_host_run *either(lua_State *L)
{
    ti_host_run *self = tl_test_userdata(L, 1, TI_RESULT_TYPE);
    return self ? self : tl_test_userdata(L, 1, TI_RUN_TYPE);
}

static int run_free(lua_State *L)
{
    ti_host_run *self = either(L);
    if (!self)
        return 0;
    ti_run_release(self->run);
    ti_value_release(self->input);
    ti_value_release(self->metadata);
    *self = (ti_host_run){0};
    return 0;
}

static void tell_collector(lua_State *L, ti_host_engine *engine, size_t bytes)
{
    engine->garbage += bytes;
    if (engine->garbage < GARBAGE_STEP)
        return;
    size_t kilobytes = engine->garbage >> 10;
    engine->garbage = 0;
#ifdef LUA_GCISRUNNING
    if (!lua_gc(L, LUA_GCISRUNNING, 0))
        return;
#endif
    lua_gc(L, LUA_GCSTEP, kilobytes < 1 << 24 ? (int)kilobytes : 1 << 24);
}

/* (result) -> what dag:run returns for it */
static int finish(lua_State *L, ti_host_engine *engine, ti_run *run)
{
    int result = lua_gettop(L);
    tell_collector(L, engine, ti_load_relaxed(&run->bytes));
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

/* What a caller may say of one run. */
enum { OPTION_METADATA, OPTION_PROFILE, OPTION_STRATEGY, OPTION_TIMEOUT, OPTIONS };

static const struct {
    const char *name;
    int type;
} option_types[OPTIONS] = {
    [OPTION_METADATA] = {"metadata", LUA_TTABLE},
    [OPTION_PROFILE] = {"profile", LUA_TBOOLEAN},
    [OPTION_STRATEGY] = {"strategy", LUA_TSTRING},
    [OPTION_TIMEOUT] = {"timeout", LUA_TNUMBER},
};

/* The option whose key is at -2 and value at -1; raises if there is none, or the value is of
 * another type. */
static int check_option(lua_State *L)
{
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    for (int i = 0; i < OPTIONS; i++) {
        if (strcmp(key, option_types[i].name) != 0)
            continue;
        if (lua_type(L, -1) != option_types[i].type)
            return luaL_error(L, "option '%s' must be a %s, but it is a %s", key,
                              lua_typename(L, option_types[i].type), luaL_typename(L, -1));
        return i;
    }
    return luaL_error(L, "unknown option '%s' (there are metadata, profile, strategy, timeout)",
                      key);
}

static ti_strategy check_strategy(lua_State *L)
{
    const char *name = lua_tostring(L, -1);
    ti_strategy strategy = ti_strategy_named(name);
    if (strcmp(ti_executors[strategy]->name, name) != 0)
        luaL_error(L, "option 'strategy' must be reactive, work_queue or level, but it is %s",
                   name);
    return strategy;
}

static uint64_t check_timeout(lua_State *L)
{
    lua_Number seconds = lua_tonumber(L, -1);
    if (!(seconds > 0 && seconds <= 1e9))
        luaL_error(L, "option 'timeout' must be a positive number of seconds");
    return (uint64_t)ceil((double)seconds * 1e9);
}

/* Nonzero: nil and an error are pushed. */
static int read_metadata(lua_State *L, ti_host_dag *dag, ti_host_run *self)
{
    ti_conversion conversion = {.scratch = &dag->engine->scratch, .root = "metadata"};
    int failed = check_metadata_keys(L, dag->program->plan, lua_gettop(L));
    if (failed)
        return failed;
    self->metadata = ti_convert_to(L, -1, &conversion);
    return self->metadata ? 0 : ti_host_fail(L, conversion.code, "%s", conversion.message);
}

/* Reads the options at 3 into self->metadata and *options; nonzero: nil and an error are pushed. */
static int read_options(lua_State *L, ti_host_dag *dag, ti_host_run *self, ti_run_options *options)
{
    int failed = 0;
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_pushnil(L);
    while (!failed && lua_next(L, 3)) {
        switch (check_option(L)) {
        case OPTION_METADATA:
            failed = read_metadata(L, dag, self);
            break;
        case OPTION_PROFILE:
            options->profile = lua_toboolean(L, -1);
            break;
        case OPTION_STRATEGY:
            options->strategy = check_strategy(L);
            break;
        case OPTION_TIMEOUT:
            options->timeout = check_timeout(L);
            break;
        }
        if (!failed)
            lua_pop(L, 1);
    }
    return failed;
}

/* Makes the run for dag:run(payload, options) in `self`; nonzero: nil and an error are pushed. */
static int prepare(lua_State *L, ti_host_dag *dag, ti_host_run *self)
{
    ti_conversion conversion = {.scratch = &dag->engine->scratch, .root = "payload"};
    ti_run_options options = ti_run_defaults(dag->program->plan);
    if (!dag->engine->engine || ti_engine_closed(dag->engine->engine))
        return ti_host_closed(L, dag->engine->engine);
    if (!lua_isnoneornil(L, 3)) {
        int failed = read_options(L, dag, self, &options);
        if (failed)
            return failed;
    }
    self->input = ti_convert_to(L, 2, &conversion);
    if (!self->input)
        return ti_host_fail(L, conversion.code, "%s", conversion.message);
    size_t bytes = self->input->bytes + (self->metadata ? self->metadata->bytes : 0);
    self->run = ti_run_new(dag->program, self->input, self->metadata, &options);
    self->input = self->metadata = NULL;
    if (!self->run)
        return ti_host_fail(L, TI_E_MEMORY_LIMIT, "not enough memory for a run");
    tell_collector(L, dag->engine, bytes + self->run->plan->count * sizeof *self->run->nodes);
    return 0;
}

/* Nil and an error for a run that did not start. */
static int not_started(lua_State *L, const ti_engine *engine, ti_code code)
{
    if (code == TI_E_INTERNAL)
        return ti_host_fail(L, code, "the system cannot start a thread");
    return ti_host_closed(L, engine);
}

int ti_host_dag_run(lua_State *L)
{
    ti_host_dag *dag = check_dag(L);
    lua_settop(L, 3);
    ti_host_run *self = new_run(L, TI_RESULT_TYPE);
    int failed = prepare(L, dag, self);
    if (failed)
        return failed;
    ti_code code = ti_engine_run(dag->engine->engine, self->run);
    return code ? not_started(L, dag->engine->engine, code) : finish(L, dag->engine, self->run);
}

int ti_host_start(lua_State *L)
{
    ti_host_dag *dag = check_dag(L);
    bool notify = lua_toboolean(L, 4);
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
    self->run->notify = notify;
    lua_pushlightuserdata(L, self->run);
    ti_code code = ti_engine_start(dag->engine->engine, self->run);
    return code ? not_started(L, dag->engine->engine, code) : 2;
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
    lua_Number seconds = luaL_optnumber(L, 2, -1);
    luaL_argcheck(L, lua_isnoneornil(L, 2) || seconds >= 0, 2, "a number of seconds expected");
    lua_settop(L, 1);
    ti_host_run *result = new_run(L, TI_RESULT_TYPE);
    uint64_t limit = seconds < 0 || seconds > 1e9 ? UINT64_MAX : (uint64_t)((double)seconds * 1e9);
    ti_engine *engine = self->run->program->engine;
    if (!ti_engine_wait(engine, self->run, limit) && ti_engine_forked(engine))
        return ti_host_closed(L, engine);
    if (!ti_run_settled(self->run))
        return ti_host_fail(L, TI_E_TIMEOUT, "the run has not settled after %g s", (double)seconds);
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
    ti_host_run *self = either(L);
    if (self && self->run)
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
        {"__gc", run_free},           {"__close", run_close}, {"__index", run_index},
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
