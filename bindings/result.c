/* SPDX-License-Identifier: MIT */
/* dag:run and dag:start, and the userdata they return. A result is the settled run itself, handed
 * over, not copied; what a caller looks at is made into Lua values at the first look. */
#include <math.h>
#include <string.h>

#include "bindings/host.h"
#include "engine/executor.h"

/* Lua's collector does not see what a result holds; it is told of this many bytes at a time, or of
 * more, up to 1 GiB. */
#define GARBAGE_STEP ((size_t)256 << 10)
#define MOST_TOLD ((size_t)1 << 30)

/* What may become garbage, beside as much as Lua itself has, before a cycle must have ended. */
#define GARBAGE_MOST ((size_t)16 << 20)

static int run_free(lua_State *L)
{
    ti_host_run *self = ti_host_test(L, TI_RUN_TYPE);
    if (!self)
        return 0;
    ti_run_release(self->run);
    self->run = NULL;
    return 0;
}

static int result_close(lua_State *L)
{
    ti_host_result *self = ti_host_test(L, TI_RESULT_TYPE);
    if (self)
        ti_host_drop_run(self);
    return 0;
}

void ti_host_clear_inputs(ti_host_engine *engine)
{
    ti_value_release(engine->input);
    ti_value_release(engine->metadata);
    engine->input = engine->metadata = NULL;
}

/* A collector that is generational, as in the program `lua` of 5.4, looks again at what has become
 * old only when Lua's own memory has doubled, of which results have next to none. So when no cycle
 * has ended for as long as would double it, all is collected. */
static void collect_old(lua_State *L, ti_pace *pace, size_t bytes)
{
#ifdef LUA_GCGEN
    pace->uncollected += bytes;
    if (pace->uncollected <= GARBAGE_MOST + ((size_t)lua_gc(L, LUA_GCCOUNT) << 10))
        return;
    pace->uncollected = 0;
    lua_gc(L, LUA_GCCOLLECT);
#else
    (void)L, (void)pace, (void)bytes;
#endif
}

ti_pace *ti_host_pace(lua_State *L)
{
    static const char key = 0;
    lua_pushlightuserdata(L, (void *)(uintptr_t)&key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    ti_pace *pace = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (pace)
        return pace;
    lua_pushlightuserdata(L, (void *)(uintptr_t)&key);
    pace = tl_new_userdata(L, sizeof *pace);
    *pace = (ti_pace){0};
    lua_rawset(L, LUA_REGISTRYINDEX);
    return pace;
}

void ti_host_tell_collector(lua_State *L, const ti_host_engine *engine, size_t bytes)
{
    ti_pace *pace = engine->pace;
    pace->garbage += bytes;
    if (pace->garbage < GARBAGE_STEP)
        return;
    size_t told = pace->garbage < MOST_TOLD ? pace->garbage : MOST_TOLD;
    pace->garbage = 0;
#ifdef LUA_GCISRUNNING
    if (!lua_gc(L, LUA_GCISRUNNING, 0))
        return;
#endif
    if (tl_gc_step(L, told))
        pace->uncollected = 0;
    else
        collect_old(L, pace, told);
}

int ti_host_finish(lua_State *L, ti_host_engine *engine, ti_host_result *self)
{
    int result = lua_gettop(L);
    ti_run *run = ti_host_run_of(self);
    size_t bytes = ti_load_relaxed(&run->bytes);
    ti_host_weigh_run(self, bytes);
    ti_host_tell_collector(L, engine, bytes);
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

ti_host_dag *ti_host_check_dag(lua_State *L)
{
    ti_host_dag *dag = ti_host_check(L, TI_DAG_TYPE);
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
static int read_metadata(lua_State *L, ti_host_dag *dag, ti_value **metadata)
{
    ti_conversion conversion = {.scratch = &dag->engine->scratch, .root = "metadata"};
    int failed = check_metadata_keys(L, dag->program->plan, lua_gettop(L));
    if (failed)
        return failed;
    *metadata = ti_convert_to(L, -1, &conversion);
    return *metadata ? 0 : ti_host_fail(L, conversion.code, "%s", conversion.message);
}

int ti_host_read_options(lua_State *L, int index, ti_host_dag *dag, ti_value **metadata,
                         ti_run_options *options)
{
    int failed = 0;
    *options = ti_run_defaults(dag->program->plan);
    if (lua_isnoneornil(L, index))
        return 0;
    luaL_checktype(L, index, LUA_TTABLE);
    lua_pushnil(L);
    while (!failed && lua_next(L, index)) {
        switch (check_option(L)) {
        case OPTION_METADATA:
            failed = read_metadata(L, dag, metadata);
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

/* NULL: nil and an error are pushed. */
static ti_value *read_payload(lua_State *L, ti_host_engine *engine)
{
    ti_conversion conversion;
    ti_convert_begin(&conversion, &engine->scratch, "payload");
    ti_value *payload = ti_convert_to(L, 2, &conversion);
    if (!payload)
        ti_host_fail(L, conversion.code, "%s", conversion.message);
    return payload;
}

/* Makes the run for dag:run(payload, options); NULL: nil and an error are pushed. */
static ti_run *prepare(lua_State *L, ti_host_dag *dag)
{
    ti_host_engine *engine = dag->engine;
    ti_run_options options;
    if (!engine->engine || ti_engine_closed(engine->engine)) {
        ti_host_closed(L, engine->engine);
        return NULL;
    }
    ti_host_clear_inputs(engine);
    if (ti_host_read_options(L, 3, dag, &engine->metadata, &options) ||
        !(engine->input = read_payload(L, engine)))
        return NULL;
    ti_run *run = ti_run_new(dag->program, engine->input, engine->metadata, &options);
    engine->input = engine->metadata = NULL;
    if (!run)
        ti_host_fail(L, TI_E_MEMORY_LIMIT, "not enough memory for a run");
    return run;
}

size_t ti_host_weight(const ti_run *run)
{
    return run->plan->count * sizeof *run->nodes + run->input->bytes +
           (run->metadata ? run->metadata->bytes : 0);
}

/* And of what runs have made since that nobody waits for. */
static void tell_collector_of(lua_State *L, ti_host_engine *engine, const ti_run *run)
{
    ti_host_tell_collector(L, engine, ti_host_weight(run) + ti_engine_take_unseen(engine->engine));
}

/* Nil and an error for a run that did not start. */
static int not_started(lua_State *L, const ti_engine *engine, ti_code code)
{
    if (code == TI_E_INTERNAL)
        return ti_host_fail(L, code, TI_NO_THREAD);
    return ti_host_closed(L, engine);
}

int ti_host_dag_run(lua_State *L)
{
    ti_host_dag *dag = ti_host_check_dag(L);
    lua_settop(L, 3);
    ti_host_result *self = ti_host_new_result(L);
    ti_run *run = prepare(L, dag);
    if (!run)
        return 2;
    ti_host_set_run(self, run);
    tell_collector_of(L, dag->engine, run);
    ti_code code = ti_engine_run(dag->engine->engine, run);
    return code ? not_started(L, dag->engine->engine, code) : ti_host_finish(L, dag->engine, self);
}

/* Pushes a handle for dag:start, which keeps its dag alive. */
static ti_host_run *new_run(lua_State *L, ti_host_dag *dag)
{
    ti_host_run *self = tl_new_userdata(L, sizeof *self);
    *self = (ti_host_run){.engine = dag->engine};
    luaL_getmetatable(L, TI_RUN_TYPE);
    lua_setmetatable(L, -2);
    ti_host_push_fields(L, lua_gettop(L));
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "dag");
    lua_pop(L, 1);
    return self;
}

int ti_host_start(lua_State *L)
{
    ti_host_dag *dag = ti_host_check_dag(L);
    bool notify = lua_toboolean(L, 4);
    lua_settop(L, 3);
    ti_host_run *self = new_run(L, dag);
    self->run = prepare(L, dag);
    if (!self->run)
        return 2;
    tell_collector_of(L, dag->engine, self->run);
    if (notify)
        ti_engine_subscribe(dag->engine->engine, self->run);
    lua_pushlightuserdata(L, self->run);
    ti_code code = ti_engine_start(dag->engine->engine, self->run);
    return code ? not_started(L, dag->engine->engine, code) : 2;
}

static ti_host_run *check_run(lua_State *L)
{
    ti_host_run *self = ti_host_check(L, TI_RUN_TYPE);
    luaL_argcheck(L, self->run, 1, "it has been closed");
    return self;
}

/* Each wait returns a result of its own, which shares the run. */
static int run_wait(lua_State *L)
{
    ti_host_run *self = check_run(L);
    lua_Number seconds = ti_host_check_seconds(L, 2, "run:wait");
    lua_settop(L, 1);
    ti_host_result *result = ti_host_new_result(L);
    uint64_t limit = ti_host_nanoseconds(seconds);
    ti_engine *engine = self->run->program->engine;
    if (!ti_engine_wait(engine, self->run, limit) && ti_engine_forked(engine))
        return ti_host_closed(L, engine);
    if (!ti_run_settled(self->run))
        return ti_host_fail(L, TI_E_TIMEOUT, "the run has not settled after %g s", (double)seconds);
    ti_host_set_run(result, ti_run_retain(self->run));
    return ti_host_finish(L, self->engine, result);
}

static int run_cancel(lua_State *L)
{
    ti_host_run *self = check_run(L);
    size_t size = 0;
    const char *reason = luaL_optlstring(L, 2, NULL, &size);
    lua_pushboolean(L, ti_run_cancel(self->run, reason, size));
    return 1;
}

static int run_close(lua_State *L)
{
    ti_host_run *self = ti_host_test(L, TI_RUN_TYPE);
    if (self && self->run)
        ti_run_cancel(self->run, NULL, 0);
    return run_free(L);
}

static const char *status_name(ti_run *run)
{
    return run ? ti_status_name(ti_run_status(run)) : "closed";
}

static int run_index(lua_State *L)
{
    ti_host_run *self = ti_host_check(L, TI_RUN_TYPE);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "status") == 0) {
        lua_pushstring(L, status_name(self->run));
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
    ti_host_run *self = ti_host_check(L, TI_RUN_TYPE);
    lua_pushfstring(L, "%s: %s", TI_RUN_TYPE, status_name(self->run));
    return 1;
}

/* Pushes a field that is no table; false: it is one, or there is none of that name. */
static bool push_plain_field(lua_State *L, ti_run *run, const char *key)
{
    if (strcmp(key, "ok") == 0) {
        lua_pushboolean(L, ti_run_status(run) == TI_COMPLETED);
    } else if (strcmp(key, "payload") == 0) {
        const ti_cell *payload = &ti_run_value(run, ti_run_source(run))->root;
        if (payload->kind == TI_ARRAY || payload->kind == TI_MAP)
            return false;
        ti_convert_push(L, payload);
    } else if (strcmp(key, "duration") == 0 && run->profile) {
        lua_pushnumber(L, (lua_Number)(run->ended - run->began) / 1e9);
    } else {
        return false;
    }
    return true;
}

/* Pushes the table that a field is; false: there is no such field. */
static bool push_table_field(lua_State *L, ti_run *run, const char *key)
{
    if (strcmp(key, "payload") == 0)
        ti_convert_push(L, &ti_run_value(run, ti_run_source(run))->root);
    else if (strcmp(key, "metadata") == 0)
        ti_outcome_push_metadata(L, run);
    else if (strcmp(key, "outcomes") == 0)
        ti_outcome_push_outcomes(L, run);
    else if (strcmp(key, "failures") == 0)
        ti_outcome_push_failures(L, run);
    else
        return false;
    return true;
}

/* True: pushed the table that a field is, which was looked at before. */
static bool push_kept(lua_State *L)
{
    tl_get_fields(L, 1);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    return lua_istable(L, -1);
}

/* Keeps the table on top of the stack: whoever looks again finds the same one. */
static void keep(lua_State *L)
{
    ti_host_push_result_fields(L, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

static int result_index(lua_State *L)
{
    ti_host_result *self = ti_host_check(L, TI_RESULT_TYPE);
    ti_run *run = ti_host_run_of(self);
    luaL_argcheck(L, run, 1, "it has been closed");
    if (lua_type(L, 2) != LUA_TSTRING)
        return 0;
    const char *key = lua_tostring(L, 2);
    if (push_plain_field(L, run, key) || push_kept(L))
        return 1;
    if (!push_table_field(L, run, key))
        return 0;
    keep(L);
    return 1;
}

static int result_tostring(lua_State *L)
{
    ti_host_result *self = ti_host_check(L, TI_RESULT_TYPE);
    lua_pushfstring(L, "%s: %s", TI_RESULT_TYPE, status_name(ti_host_run_of(self)));
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
        {"__close", result_close},
        {"__index", result_index},
        {"__tostring", result_tostring},
        {NULL, NULL},
    };
    ti_host_new_type(L, TI_RUN_TYPE, run_methods, run_meta);
    ti_host_new_type(L, TI_RESULT_TYPE, no_methods, result_meta);
    lua_pop(L, 2);
    ti_host_open_bundles(L);
}
