/* SPDX-License-Identifier: MIT */
/* tidemill.core: what the Lua facade stands on. Not for scripts. */
#if defined(__unix__) || defined(__APPLE__)
#define _GNU_SOURCE
#include <dlfcn.h>
#endif

#include <string.h>

#include "bindings/host.h"
#include "bindings/state.h"
#include "engine/live.h"
#include "engine/native.h"
#include "engine/suggest.h"

/* The module's threads and metatables may outlive the last reference to it that Lua has. */
static void stay_loaded(void)
{
#ifdef RTLD_NODELETE
    static char anchor;
    Dl_info info;
    if (dladdr(&anchor, &info) && info.dli_fname)
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

/* next_settled(engine) -> the dag:start handle of a run that has settled, and what dag:run would
 * have returned for it; or nil */
static int next_settled(lua_State *L)
{
    ti_host_engine *self = luaL_checkudata(L, 1, TI_ENGINE_TYPE);
    ti_host_result *result = ti_host_new_result(L);
    ti_run *run = self->engine ? ti_engine_next_settled(self->engine) : NULL;
    if (!run)
        return 0;
    ti_host_set_run(result, run);
    int results = ti_host_finish(L, self, result);
    lua_pushlightuserdata(L, run);
    lua_insert(L, -results - 1);
    return results + 1;
}

static ti_host_engine *check_engine(lua_State *L)
{
    return luaL_checkudata(L, 1, TI_ENGINE_TYPE);
}

__attribute__((visibility("default"))) int luaopen_tidemill_core(lua_State *L);

/* What invoke does with a worker's state; the results are freed with the userdata that holds it. */
typedef struct ti_call {
    ti_builder scratch;
    ti_value *argument, *result;
    ti_error *error;
} ti_call;

static int call_free(lua_State *L)
{
    ti_call *call = tl_test_userdata(L, 1, "tidemill.call");
    if (!call)
        return 0;
    ti_builder_trim(&call->scratch, true);
    ti_value_release(call->argument);
    ti_value_release(call->result);
    ti_error_free(call->error);
    *call = (ti_call){0};
    return 0;
}

static ti_call *new_call(lua_State *L)
{
    ti_call *call = tl_new_userdata(L, sizeof *call);
    *call = (ti_call){0};
    luaL_getmetatable(L, "tidemill.call");
    lua_setmetatable(L, -2);
    return call;
}

/* The default where there is none better: signals are held back under the thread sanitizer. */
#if defined(__SANITIZE_THREAD__) || defined(_WIN32)
#define DEFAULT_PREEMPT TI_PREEMPT_HOOK
#else
#define DEFAULT_PREEMPT TI_PREEMPT_SIGNAL
#endif

static ti_preempt preempt_mode(const char *name)
{
    return strcmp(name, "none") == 0     ? TI_PREEMPT_NONE
           : strcmp(name, "hook") == 0   ? TI_PREEMPT_HOOK
           : strcmp(name, "signal") == 0 ? TI_PREEMPT_SIGNAL
                                         : DEFAULT_PREEMPT;
}

/* A callback that waits for an engine of its own holds a thread, perhaps one of libuv's: if all did
 * that, none would be left to lend. So such an engine has threads of its own. */
static bool may_share(lua_State *L)
{
    return ti_state_of(L) == NULL;
}

/* The options of `engine` are in the table at 1, which keeps its strings. */
static const char *text_option(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    const char *text = luaL_checkstring(L, -1);
    lua_pop(L, 1);
    return text;
}

/* 0 where there is none. */
static double number_option(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    double number = (double)luaL_optnumber(L, -1, 0);
    lua_pop(L, 1);
    return number;
}

static bool flag_option(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    bool flag = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return flag;
}

static ti_engine_config engine_config(lua_State *L, ti_preempt mode, bool automatic)
{
    return (ti_engine_config){
        .workers = (uint32_t)number_option(L, "workers"),
        .preempt = mode,
        .grace = (uint64_t)(number_option(L, "kill_grace") * 1e9),
        .stubborn = automatic && flag_option(L, "compiles"),
        .shared = flag_option(L, "shared") && may_share(L),
    };
}

/* NULL: *error says why. */
static ti_engine *open_with_natives(const ti_engine_config *config, ti_state_config *states,
                                    ti_error **error)
{
    ti_natives *natives = ti_natives_new();
    if (!natives) {
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return NULL;
    }
    const ti_backend_choice choices[] = {{&ti_state_backend, states},
                                         {&ti_native_backend, natives}};
    ti_engine *engine = ti_engine_open(config, choices, 2, error);
    if (engine)
        ti_natives_attach(natives, engine);
    else
        ti_natives_free(natives);
    return engine;
}

/* One of the static names of sandboxes. */
static const char *sandbox_option(lua_State *L)
{
    static const char *const profiles[] = {"trusted", "sandbox", "pure", NULL};
    lua_getfield(L, 1, "sandbox");
    const char *profile = profiles[luaL_checkoption(L, -1, NULL, profiles)];
    lua_pop(L, 1);
    return profile;
}

/* Sets what the facade reads of the engine on top of the stack. */
static void set_engine_fields(lua_State *L, uint32_t workers, const ti_state_config *config)
{
    ti_host_push_fields(L, lua_gettop(L));
    lua_pushinteger(L, (lua_Integer)workers);
    lua_setfield(L, -2, "workers");
    lua_pushstring(L, config->sandbox);
    lua_setfield(L, -2, "sandbox");
    if (config->callback_timeout > 0) {
        lua_pushnumber(L, config->callback_timeout);
        lua_setfield(L, -2, "callback_timeout");
    }
    lua_pushboolean(L, strcmp(config->preempt, "none") == 0);
    lua_setfield(L, -2, "unstoppable");
    lua_pop(L, 1);
}

/* engine { workers, path, cpath, preempt, kill_grace, compiles, shared, sandbox, callback_timeout,
 * memory_limit, instruction_limit } -> engine | nil, error; path and cpath are those of `package`;
 * preempt is "signal", "hook", "none", or "auto"; compiles: this Lua compiles loops; shared: its
 * threads are borrowed from libuv's pool; a limit of 0, or none, is none */
static int engine_open(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *preempt = text_option(L, "preempt");
    ti_preempt mode = preempt_mode(preempt);
    ti_engine_config config = engine_config(L, mode, strcmp(preempt, "auto") == 0);
    ti_host_engine *self = tl_new_userdata(L, sizeof *self);
    *self = (ti_host_engine){.pace = ti_host_pace(L)};
    luaL_getmetatable(L, TI_ENGINE_TYPE);
    lua_setmetatable(L, -2);
    ti_call *call = new_call(L); /* holds the error */
    lua_insert(L, -2);
    self->config = ti_state_config_new(text_option(L, "path"), text_option(L, "cpath"), preempt,
                                       mode, luaopen_tidemill_core);
    if (!self->config)
        return ti_host_fail(L, TI_E_MEMORY_LIMIT, "not enough memory for an engine");
    self->config->sandbox = sandbox_option(L);
    self->config->callback_timeout = number_option(L, "callback_timeout");
    self->config->memory_limit = (size_t)number_option(L, "memory_limit");
    self->config->instruction_limit = (uint64_t)number_option(L, "instruction_limit");
    set_engine_fields(L, config.workers, self->config);
    self->engine = open_with_natives(&config, self->config, &call->error);
    return self->engine ? 1 : ti_host_fail(L, call->error->code, "%s", call->error->message);
}

static int engine_close(lua_State *L)
{
    ti_host_engine *self = check_engine(L);
    if (self->engine)
        ti_engine_close(self->engine);
    return 0;
}

/* Also closes it, so that threads never outlive the Lua state that started them. */
static int engine_free(lua_State *L)
{
    ti_host_engine *self = tl_test_userdata(L, 1, TI_ENGINE_TYPE);
    if (!self)
        return 0;
    if (!self->engine)
        ti_state_config_free(self->config); /* it did not open, else it is the engine's */
    if (self->engine && !self->borrowed) {
        ti_engine_close(self->engine);
        ti_engine_drop_handle(self->engine);
        ti_engine_release(self->engine);
    }
    ti_host_clear_inputs(self);
    ti_builder_trim(&self->scratch, true);
    self->engine = NULL;
    self->config = NULL;
    return 0;
}

/* How many runs there are that engine:step or a stream has yet to deliver. */
static int engine_pending(lua_State *L)
{
    ti_host_engine *self = check_engine(L);
    lua_pushinteger(L, self->engine ? (lua_Integer)ti_engine_pending(self->engine) : 0);
    return 1;
}

static int engine_pollfd(lua_State *L)
{
    ti_host_engine *self = check_engine(L);
    int fd = self->engine ? ti_engine_pollfd(self->engine) : -1;
    if (fd < 0)
        return ti_host_fail(L, TI_E_INTERNAL, "the system gives no descriptor");
    lua_pushinteger(L, fd);
    return 1;
}

/* What cqueues asks of an object to poll, besides pollfd: wait for reading, as long as it takes. */
static int engine_events(lua_State *L)
{
    check_engine(L);
    lua_pushliteral(L, "r");
    return 1;
}

static int engine_timeout(lua_State *L)
{
    check_engine(L);
    return 0;
}

/* What luasocket asks, besides getfd: nothing is buffered where select can't see it. */
static int engine_dirty(lua_State *L)
{
    check_engine(L);
    lua_pushboolean(L, 0);
    return 1;
}

static int engine_tostring(lua_State *L)
{
    ti_host_engine *self = check_engine(L);
    if (!self->engine || ti_engine_closed(self->engine))
        lua_pushfstring(L, "%s: closed", TI_ENGINE_TYPE);
    else
        lua_pushfstring(L, "%s: %d workers", TI_ENGINE_TYPE, (int)self->engine->workers);
    return 1;
}

static int push_call(lua_State *L, const ti_call *call)
{
    if (call->result) {
        ti_convert_push(L, &call->result->root);
        return 1;
    }
    lua_pushnil(L);
    ti_error_push(L, (ti_text){NULL, 0}, call->error);
    return 2;
}

/* invoke(engine, worker, function, key, argument) -> what it returned | nil, error */
static int engine_invoke(lua_State *L)
{
    ti_host_engine *self = check_engine(L);
    uint32_t index = (uint32_t)luaL_checkinteger(L, 2) - 1;
    const char *function = luaL_checkstring(L, 3);
    uint64_t key = (uint64_t)luaL_checknumber(L, 4);
    ti_conversion conversion = {.scratch = &self->scratch, .root = "argument"};
    lua_settop(L, 5);
    ti_call *call = new_call(L);
    call->argument = ti_convert_to(L, 5, &conversion);
    if (!call->argument)
        return ti_host_fail(L, conversion.code, "%s", conversion.message);
    ti_worker *worker = self->engine ? ti_engine_claim(self->engine, index) : NULL;
    if (!worker)
        return ti_host_closed(L, self->engine);
    ti_state *state = ti_worker_context(worker, 0);
    size_t before = ti_state_bytes(state);
    call->result = ti_state_invoke(state, function, key, call->argument, &call->error);
    size_t after = ti_state_bytes(state);
    ti_engine_leave(self->engine, worker);
    if (after > before)
        ti_host_tell_collector(L, self, after - before);
    return push_call(L, call);
}

/* install(engine, key, source): a worker's state that replaces one has the program, too */
static int engine_install(lua_State *L)
{
    ti_host_engine *self = check_engine(L);
    uint64_t key = (uint64_t)luaL_checknumber(L, 2);
    ti_conversion conversion = {.scratch = &self->scratch, .root = "source"};
    ti_value *source = ti_convert_to(L, 3, &conversion);
    bool done = source && ti_state_config_install(self->config, key, source);
    ti_value_release(source);
    return done ? 0 : luaL_error(L, "not enough memory");
}

/* The DAG that is being compiled and its problems, freed with the userdata that holds it. */
typedef struct ti_compilation {
    ti_dag *dag;
    ti_problems problems;
    uint8_t native_backend;
} ti_compilation;

static int compilation_free(lua_State *L)
{
    ti_compilation *self = tl_test_userdata(L, 1, "tidemill.compilation");
    if (!self)
        return 0;
    ti_dag_free(self->dag);
    self->dag = NULL;
    ti_problems_clear(&self->problems);
    return 0;
}

static uint32_t named(const char *name, const char *const *names)
{
    for (uint32_t i = 0; name && names[i]; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return 0;
}

/* The string `field` of the table on top, which is on top then; NULL where it has none. */
static const char *get_string(lua_State *L, const char *field, size_t *size)
{
    *size = 0;
    lua_getfield(L, -1, field);
    return lua_tolstring(L, -1, size);
}

/* Hands the string on top, or each string of the list, to `take`; pops it. */
static void read_names(lua_State *L, ti_dag *dag,
                       void (*take)(ti_dag *dag, const char *name, size_t size))
{
    size_t size;
    int count = lua_istable(L, -1) ? (int)lua_rawlen(L, -1) : 0;
    if (lua_type(L, -1) == LUA_TSTRING) {
        const char *name = lua_tolstring(L, -1, &size);
        take(dag, name, size);
    }
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        const char *name = luaL_checklstring(L, -1, &size);
        take(dag, name, size);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static double get_number(lua_State *L, const char *field)
{
    lua_getfield(L, -1, field);
    double number = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return number;
}

/* Pops seconds; as nanoseconds. Nil is 0. */
static uint64_t to_time(lua_State *L)
{
    double seconds = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return (uint64_t)(seconds * 1e9);
}

static uint64_t get_time(lua_State *L, const char *field)
{
    lua_getfield(L, -1, field);
    return to_time(L);
}

/* The table on top, which it pops; nil is none. */
static ti_retry read_retry(lua_State *L)
{
    ti_retry retry = {0};
    if (lua_istable(L, -1)) {
        retry.max = (uint32_t)get_number(L, "max");
        retry.backoff = get_time(L, "backoff");
        retry.most = get_time(L, "max_backoff");
        retry.factor = get_number(L, "factor");
        retry.jitter = get_number(L, "jitter");
        retry.seed = (uint64_t)(int64_t)get_number(L, "seed");
    }
    lua_pop(L, 1);
    return retry;
}

/* { { name, count }, ... } */
static void read_limits(lua_State *L, ti_dag *dag)
{
    lua_getfield(L, -1, "limits");
    int count = lua_istable(L, -1) ? (int)lua_rawlen(L, -1) : 0;
    for (int i = 1; i <= count; i++) {
        size_t size;
        lua_rawgeti(L, -1, i);
        const char *name = get_string(L, "name", &size);
        lua_getfield(L, -2, "count");
        ti_dag_limit(dag, name, size, (uint32_t)lua_tonumber(L, -1));
        lua_pop(L, 3);
    }
    lua_pop(L, 1);
}

/* The lists that describe processors, as they stand on the stack, from `first` on. */
enum {
    LIST_ID,
    LIST_ANALYZE,
    LIST_NATIVE,
    LIST_DEPENDS_ON,
    LIST_PAYLOAD_FROM,
    LIST_USES,
    LIST_TIMEOUT,
    LIST_RETRY,
    LIST_CONDITIONAL,
    LISTS,
};

static const char *const list_names[LISTS] = {
    [LIST_ID] = "id",
    [LIST_ANALYZE] = "analyze",
    [LIST_NATIVE] = "native",
    [LIST_DEPENDS_ON] = "depends_on",
    [LIST_PAYLOAD_FROM] = "payload_from",
    [LIST_USES] = "uses",
    [LIST_TIMEOUT] = "timeout",
    [LIST_RETRY] = "retry",
    [LIST_CONDITIONAL] = "conditional",
};

/* Whether there is anything for processor `i`, from 1. */
static bool is_set(lua_State *L, int list, int i)
{
    lua_rawgeti(L, list, i);
    bool set = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return set;
}

static void read_processor(lua_State *L, ti_dag *dag, int first, int i, uint8_t native_backend)
{
    size_t size;
    lua_rawgeti(L, first + LIST_ID, i);
    const char *id = luaL_checklstring(L, -1, &size);
    uint32_t added =
        ti_dag_add(dag, id, size, is_set(L, first + LIST_ANALYZE, i) ? TI_ANALYZE : TI_TRANSFORM,
                   is_set(L, first + LIST_NATIVE, i) ? native_backend : 0);
    lua_pop(L, 1);
    if (added == TI_NONE)
        return;
    lua_rawgeti(L, first + LIST_DEPENDS_ON, i);
    read_names(L, dag, ti_dag_depends_on);
    lua_rawgeti(L, first + LIST_PAYLOAD_FROM, i);
    read_names(L, dag, ti_dag_payload_from);
    lua_rawgeti(L, first + LIST_USES, i);
    read_names(L, dag, ti_dag_uses);
    ti_declared *declared = &dag->processors[added];
    lua_rawgeti(L, first + LIST_TIMEOUT, i);
    declared->timeout = to_time(L);
    lua_rawgeti(L, first + LIST_RETRY, i);
    declared->retry = read_retry(L);
    declared->conditional = is_set(L, first + LIST_CONDITIONAL, i);
}

/* The lists of the table on top. */
static void read_processors(lua_State *L, ti_dag *dag, uint8_t native_backend)
{
    int first = lua_gettop(L) + 1;
    luaL_checkstack(L, LISTS + 8, "lists");
    for (int list = 0; list < LISTS; list++) {
        lua_getfield(L, first - 1, list_names[list]);
        luaL_checktype(L, -1, LUA_TTABLE);
    }
    int count = (int)lua_rawlen(L, first + LIST_ID);
    for (int i = 1; i <= count; i++)
        read_processor(L, dag, first, i, native_backend);
    lua_settop(L, first - 1);
}

/* Reads a description as tidemill.declare makes them: every field is there and of its type. */
static ti_dag *read_dag(lua_State *L, int description, ti_compilation *self)
{
    static const char *const strategies[] = {"fail_fast", "continue_on_error", "best_effort", NULL};
    size_t size;
    lua_pushvalue(L, description);
    const char *name = get_string(L, "name", &size);
    ti_dag *dag = self->dag = ti_dag_new(name, size);
    lua_pop(L, 1);
    if (!dag)
        return NULL;
    dag->failure_strategy =
        (ti_failure_strategy)named(get_string(L, "failure_strategy", &size), strategies);
    lua_pop(L, 1);
    dag->strategy = ti_strategy_named(get_string(L, "strategy", &size));
    lua_pop(L, 1);
    dag->max_concurrency = (uint32_t)get_number(L, "max_concurrency");
    dag->timeout = get_time(L, "timeout");
    read_limits(L, dag);
    lua_getfield(L, -1, "profile");
    dag->profile = lua_toboolean(L, -1);
    lua_getfield(L, -2, "processors");
    read_processors(L, dag, self->native_backend);
    return dag;
}

/* nil, { { processor = index | nil, text = ... }, ... } */
static int push_problems(lua_State *L, const ti_problems *problems)
{
    lua_pushnil(L);
    lua_createtable(L, (int)problems->count, 0);
    for (size_t i = 0; i < problems->count; i++) {
        lua_createtable(L, 0, 2);
        if (problems->list[i].processor != TI_NONE) {
            lua_pushinteger(L, (lua_Integer)problems->list[i].processor + 1);
            lua_setfield(L, -2, "processor");
        }
        lua_pushstring(L, problems->list[i].text);
        lua_setfield(L, -2, "text");
        lua_rawseti(L, -2, (int)(i + 1));
    }
    return 2;
}

/* compile(engine, key, description) -> dag | nil, problems */
static int compile(lua_State *L)
{
    ti_host_engine *engine = check_engine(L);
    uint64_t key = (uint64_t)luaL_checknumber(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    ti_compilation *self = tl_new_userdata(L, sizeof *self);
    *self = (ti_compilation){0};
    luaL_getmetatable(L, "tidemill.compilation");
    lua_setmetatable(L, -2);
    ti_host_dag *dag = tl_new_userdata(L, sizeof *dag);
    *dag = (ti_host_dag){.engine = engine};
    luaL_getmetatable(L, TI_DAG_TYPE);
    lua_setmetatable(L, -2);
    int result = lua_gettop(L);
    ti_host_push_fields(L, result);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "engine");
    if (!engine->engine)
        return luaL_error(L, "the engine is gone");
    self->native_backend = ti_natives_backend(engine->engine);
    if (!read_dag(L, 3, self))
        return luaL_error(L, "not enough memory");
    ti_plan *plan = ti_plan_compile(self->dag, &self->problems);
    ti_dag_free(self->dag); /* the collector may take its time */
    self->dag = NULL;
    if (!plan && self->problems.count)
        return push_problems(L, &self->problems);
    dag->program = plan ? ti_program_new(engine->engine, plan, key) : NULL;
    if (!dag->program)
        return luaL_error(L, "not enough memory");
    ti_host_tell_collector(L, engine, dag->program->plan->count * sizeof(ti_node));
    lua_pushvalue(L, result);
    return 1;
}

static void push_id(lua_State *L, const ti_plan *plan, uint32_t step)
{
    ti_text id = ti_plan_id(plan, step);
    lua_pushlstring(L, id.bytes, id.size);
}

static void push_processor(lua_State *L, const ti_plan *plan, uint32_t s)
{
    uint32_t first = plan->steps[s].first_dependency, count = ti_plan_indegree(plan, s);
    lua_createtable(L, 0, 4);
    push_id(L, plan, s);
    lua_setfield(L, -2, "id");
    lua_pushstring(L, plan->steps[s].intent == TI_ANALYZE ? "analyze" : "transform");
    lua_setfield(L, -2, "intent");
    lua_createtable(L, (int)count, 0);
    for (uint32_t i = 0; i < count; i++) {
        push_id(L, plan, plan->dependencies[first + i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "depends_on");
    lua_pushinteger(L, (lua_Integer)plan->steps[s].rank);
    lua_setfield(L, -2, "rank");
}

/* processors(dag) -> { { id, intent, depends_on, rank }, ... } in the order of declaration, or
 * nothing when it is closed */
static int processors(lua_State *L)
{
    const ti_host_dag *dag = luaL_checkudata(L, 1, TI_DAG_TYPE);
    if (!dag->program)
        return 0;
    const ti_plan *plan = dag->program->plan;
    lua_createtable(L, (int)plan->count, 0);
    for (uint32_t s = 0; s < plan->count; s++) {
        push_processor(L, plan, s);
        lua_rawseti(L, -2, (int)plan->steps[s].slot + 1);
    }
    return 1;
}

/* where(level) -> "file:line" of the function at that level, 1 being the one that calls this; nil:
 * it has no lines */
static int where(lua_State *L)
{
    lua_Debug at;
    if (!lua_getstack(L, (int)luaL_checkinteger(L, 1), &at) || !lua_getinfo(L, "Sl", &at) ||
        at.currentline <= 0)
        return 0;
    lua_pushfstring(L, "%s:%d", at.short_src, at.currentline);
    return 1;
}

/* why_not(value, name) -> what keeps it from travelling, or nothing */
static int why_not(lua_State *L)
{
    const char *root = luaL_checkstring(L, 2);
    ti_call *call = new_call(L);
    const ti_state *state = ti_state_of(L);
    call->scratch.most = state ? state->scratch.most : 0;
    ti_conversion conversion = {.scratch = &call->scratch, .root = root};
    call->result = ti_convert_to(L, 1, &conversion);
    if (call->result)
        return 0;
    lua_pushstring(L, conversion.message);
    return conversion.code == TI_E_MEMORY_LIMIT ? lua_error(L) : 1;
}

static int dag_free(lua_State *L)
{
    ti_host_dag *self = tl_test_userdata(L, 1, TI_DAG_TYPE);
    if (!self)
        return 0;
    ti_program_release(self->program);
    self->program = NULL;
    return 0;
}

static int dag_tostring(lua_State *L)
{
    ti_host_dag *self = luaL_checkudata(L, 1, TI_DAG_TYPE);
    const ti_plan *plan = self->program ? self->program->plan : NULL;
    if (!plan)
        lua_pushfstring(L, "%s: closed", TI_DAG_TYPE);
    else
        lua_pushfstring(L, "%s: %s, %d processors", TI_DAG_TYPE,
                        plan->name ? plan->name : "unnamed", (int)plan->count);
    return 1;
}

/* fields(object) -> the table that its fields are read from */
static int push_fields(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TUSERDATA);
    ti_host_push_fields(L, 1);
    return 1;
}

/* nearest(name, names) -> the one that was probably meant, or nil */
static int nearest(lua_State *L)
{
    size_t size, best = 0;
    const char *name = luaL_checklstring(L, 1, &size);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t limit = ti_suggest_limit(size) + 1;
    int count = (int)lua_rawlen(L, 2);
    for (int i = 1; i <= count && limit; i++) {
        size_t other_size;
        lua_rawgeti(L, 2, i);
        const char *other = lua_tolstring(L, -1, &other_size);
        size_t distance = ti_edit_distance(name, size, other, other_size, limit - 1);
        if (distance < limit) {
            limit = distance;
            best = (size_t)i;
        }
        lua_pop(L, 1);
    }
    if (!best)
        return 0;
    lua_rawgeti(L, 2, (int)best);
    return 1;
}

static int methods_of(lua_State *L)
{
    luaL_getmetatable(L, luaL_checkstring(L, 1));
    lua_getfield(L, -1, "methods");
    return 1;
}

/* metatable(name) -> the one of that name, which outlives a reload of the Lua modules */
static int metatable(lua_State *L)
{
    luaL_newmetatable(L, luaL_checkstring(L, 1));
    return 1;
}

/* In a worker's state: from here on what is being loaded may take only so many instructions. */
static int meter(lua_State *L)
{
    ti_state *state = ti_state_of(L);
    if (state)
        ti_stop_meter(L, state);
    return 0;
}

/* live() -> how many values, blocks, runs, programs and engines live in the process; nil: nobody
 * counts */
static int live(lua_State *L)
{
#ifdef NDEBUG
    (void)L;
    return 0;
#else
    static const char *const names[] = {"values", "blocks", "runs", "programs", "engines"};
    lua_createtable(L, 0, 4);
    for (int i = 0; i <= TI_LIVE_ENGINES; i++) {
        lua_pushinteger(L, ti_load_relaxed(&ti_live[i]));
        lua_setfield(L, -2, names[i]);
    }
    return 1;
#endif
}

static int default_workers(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)ti_engine_default_workers());
    return 1;
}

static int new_key(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)ti_program_new_key());
    return 1;
}

static void open_types(lua_State *L)
{
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg engine_methods[] = {
        {"close", engine_close},     {"pending", engine_pending},
        {"pollfd", engine_pollfd},   {"getfd", engine_pollfd},
        {"dirty", engine_dirty},     {"events", engine_events},
        {"timeout", engine_timeout}, {NULL, NULL},
    };
    static const luaL_Reg engine_meta[] = {
        {"__gc", engine_free},
        {"__close", engine_close},
        {"__tostring", engine_tostring},
        {NULL, NULL},
    };
    static const luaL_Reg dag_methods[] = {
        {"run", ti_host_dag_run},
        {NULL, NULL},
    };
    static const luaL_Reg dag_meta[] = {
        {"__gc", dag_free},
        {"__close", dag_free},
        {"__tostring", dag_tostring},
        {NULL, NULL},
    };
    static const luaL_Reg call_meta[] = {{"__gc", call_free}, {NULL, NULL}};
    static const luaL_Reg compilation_meta[] = {{"__gc", compilation_free}, {NULL, NULL}};
    ti_host_new_type(L, TI_ENGINE_TYPE, engine_methods, engine_meta);
    ti_host_new_type(L, TI_DAG_TYPE, dag_methods, dag_meta);
    ti_host_new_type(L, "tidemill.call", none, call_meta);
    ti_host_new_type(L, "tidemill.compilation", none, compilation_meta);
    lua_pop(L, 4);
    ti_host_open_results(L);
    ti_host_open_streams(L);
}

bool ti_host_is_engine(lua_State *L, int index)
{
    if (!tl_test_userdata(L, index, TI_ENGINE_TYPE))
        return false;
    luaL_getmetatable(L, TI_ENGINE_TYPE);
    lua_getfield(L, -1, "__gc");
    bool ours = lua_tocfunction(L, -1) == engine_free;
    lua_pop(L, 2);
    return ours;
}

ti_host_engine *ti_host_borrow_engine(lua_State *L, ti_engine *engine)
{
    ti_host_engine *self = tl_new_userdata(L, sizeof *self);
    *self = (ti_host_engine){.borrowed = true, .pace = ti_host_pace(L)};
    luaL_getmetatable(L, TI_ENGINE_TYPE);
    lua_setmetatable(L, -2);
    self->engine = engine;
    self->config = engine->backend[0].shared;
    set_engine_fields(L, engine->workers, self->config);
    return self;
}

int luaopen_tidemill_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"engine", engine_open},
        {"invoke", engine_invoke},
        {"install", engine_install},
        {"compile", compile},
        {"processors", processors},
        {"where", where},
        {"native_problem", ti_host_native_problem},
        {"open_natives", ti_host_open_natives},
        {"new_key", new_key},
        {"next_settled", next_settled},
        {"start", ti_host_start},
        {"stream", ti_host_new_stream},
        {"fields", push_fields},
        {"methods_of", methods_of},
        {"metatable", metatable},
        {"nearest", nearest},
        {"why_not", why_not},
        {"meter", meter},
        {"live", live},
        {"default_workers", default_workers},
        {NULL, NULL},
    };
    stay_loaded();
    open_types(L);
    lua_newtable(L);
    tl_set_functions(L, functions);
    ti_pattern_open(L);
    lua_setfield(L, -2, "pattern");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    lua_pushliteral(L, TIDE_VERSION);
    lua_setfield(L, -2, "version");
    lua_pushinteger(L, TI_MOST_WORKERS);
    lua_setfield(L, -2, "most_workers");
    return 1;
}
