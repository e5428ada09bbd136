/* SPDX-License-Identifier: MIT */
/* Stopping a callback that runs. A hook raises in it, again and again (pcall cannot swallow that),
 * as long as the engine says that the current call must stop; a hook that finds otherwise is stale
 * and goes. Under "signal" there is no hook until a signal handler of the worker's own thread sets
 * one; under "hook" there always is one.
 *
 * Hooks belong to coroutines (in LuaJIT to the state), so the coroutine that runs is tracked:
 * worker states have their own coroutine.resume and wrap. A message handler of xpcall may run where
 * hooks do not, so it is not called for a stop; and finalizers are run in coroutines. */
#include "bindings/state.h"

#include <assert.h>

#define EVERY 1000 /* instructions, under "hook" */
#define OFTEN 100  /* where instructions are counted */
#define LOADING                                                                                    \
    100000000 /* instructions that loading a program may take, where they are counted              \
               */

#define MOST_NESTED 190 /* coroutines in coroutines: LuaJIT itself counts none, and crashes */

static const int stop_mask = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT;
static const char mode_key = 0;

static uint64_t allowance(const ti_state *state)
{
    return state->loading ? LOADING : state->instruction_limit;
}

static bool is_metered(const ti_state *state)
{
    return state->loading || state->instruction_limit;
}

bool ti_stop_spent(const ti_state *state)
{
    return state->spender == state->call && is_metered(state) && state->spent > allowance(state);
}

static bool exceeds(const ti_state *state)
{
    return ti_stop_spent(state) || (state->memory && ti_memory_refused(state->memory));
}

static bool must_stop(const ti_state *state)
{
    if (!state || !(state->stoppable || state->invoking))
        return false;
    return exceeds(state) ||
           (state->stoppable && (state->abandoned || ti_worker_must_stop(state->serving)));
}

static void spend(ti_state *state, uint64_t instructions)
{
    if (state->spender != state->call) {
        state->spender = state->call;
        state->spent = 0;
    }
    state->spent += instructions;
}

ti_error *ti_stop_spent_error(const ti_state *state)
{
    return ti_error_format(TI_E_TIMEOUT, "%s executed more than %llu instructions%s",
                           state->loading ? "loading it" : "it",
                           (unsigned long long)allowance(state),
                           state->loading ? "" : " (instruction_limit)");
}

static ti_preempt mode_of(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)&mode_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    ti_preempt mode = (ti_preempt)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return mode;
}

static void hook(lua_State *L, lua_Debug *activation);

/* Raises, again and again. */
static void stop(lua_State *L, ti_state *state)
{
    state->running = L; /* the error may unwind past who would set it back */
    lua_sethook(L, hook, stop_mask, 1);
    luaL_error(L, "stopped by the engine");
}

/* A state that serves does so on the thread that has its worker's seat, or is nobody's any more. */
static inline bool is_ours(const ti_state *state)
{
    return !state || !state->serving || state->abandoned || ti_worker_is_ours(state->serving);
}

/* Counts on. Setting a hook takes as long as the stack is deep, so it is not done again and again.
 */
static void count_by(lua_State *L, int instructions)
{
    if (lua_gethook(L) != hook || lua_gethookmask(L) != LUA_MASKCOUNT ||
        lua_gethookcount(L) != instructions)
        lua_sethook(L, hook, LUA_MASKCOUNT, instructions);
}

static void hook(lua_State *L, lua_Debug *activation)
{
    ti_state *state = ti_state_of(L);
    assert(is_ours(state));
    bool metered = state && is_metered(state);
    if (metered && activation->event == LUA_HOOKCOUNT)
        spend(state, OFTEN);
    if (state && state->memory && state->memory->strained)
        ti_stop_judge(L, state->memory);
    if (must_stop(state)) {
        stop(L, state);
    } else if (metered) {
        count_by(L, OFTEN);
    } else if (mode_of(L) == TI_PREEMPT_HOOK) {
        count_by(L, EVERY);
    } else {
        lua_sethook(L, NULL, 0, 0);
    }
}

void ti_stop_reset(ti_state *state)
{
    lua_Hook there = lua_gethook(state->L);
    state->nested = 0;
    if (there && there != hook)
        lua_sethook(state->L, NULL, 0, 0);
    if (is_metered(state))
        lua_sethook(state->L, hook, LUA_MASKCOUNT, OFTEN);
    else if (state->config->mode == TI_PREEMPT_HOOK && there != hook)
        lua_sethook(state->L, hook, LUA_MASKCOUNT, EVERY);
}

void ti_stop_meter(lua_State *L, ti_state *state)
{
    state->loading = true;
    state->call++; /* which has spent nothing */
    lua_sethook(L, hook, LUA_MASKCOUNT, OFTEN);
}

void ti_stop_charge(lua_State *L, uint64_t instructions)
{
    ti_state *state = ti_state_of(L);
    if (!state)
        return;
    spend(state, instructions);
    if (must_stop(state))
        stop(L, state);
}

void ti_stop_judge(lua_State *L, ti_memory *memory)
{
    if (!ti_memory_refused(memory))
        lua_gc(L, LUA_GCCOLLECT, 0);
    ti_memory_judge(memory);
}

static void set_hooks(const ti_state *state)
{
    lua_sethook(state->L, hook, stop_mask, 1);
    if (state->running != state->L)
        lua_sethook(state->running, hook, stop_mask, 1);
}

void ti_stop_interrupt(ti_state *state)
{
    assert(is_ours(state));
    if (must_stop(state))
        set_hooks(state);
}

void ti_stop_alarm(void *state)
{
    set_hooks(state);
}

bool ti_stop_abandon(ti_state *state)
{
    state->abandoned = state->abandoned || state->leavable;
    return state->abandoned;
}

/* coroutine.resume, and coroutine.close, which runs what is to be closed. Upvalue: the original. A
 * stop that ended the inner coroutine goes on in the outer one. */
static int enter(lua_State *L)
{
    ti_state *state = ti_state_of(L);
    lua_State *outer = state->running, *inner = lua_tothread(L, 1);
    int arguments = lua_gettop(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    uint32_t nested = state->nested;
    if (nested == MOST_NESTED)
        return luaL_error(L, "C stack overflow");
    state->nested++;
    if (inner)
        state->running = inner;
    int status = 0;
    if (state->memory) /* then even this may fail, and `running` would be left behind */
        status = lua_pcall(L, arguments, LUA_MULTRET, 0);
    else
        lua_call(L, arguments, LUA_MULTRET);
    state->running = outer;
    state->nested = nested;
    if (status)
        lua_error(L);
    if (must_stop(state))
        lua_sethook(L, hook, stop_mask, 1);
    return lua_gettop(L);
}

/* What coroutine.wrap returns. Upvalues: the coroutine, coroutine.resume, coroutine.close or nil.
 */
static int wrapped(lua_State *L)
{
    int arguments = lua_gettop(L);
    luaL_checkstack(L, 4, "too many arguments");
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_insert(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 2);
    lua_call(L, arguments + 1, LUA_MULTRET);
    if (lua_toboolean(L, 1))
        return lua_gettop(L) - 1;
    lua_settop(L, 2);
    if (!lua_isnil(L, lua_upvalueindex(3))) {
        lua_pushvalue(L, lua_upvalueindex(3));
        lua_pushvalue(L, lua_upvalueindex(1));
        if (!lua_pcall(L, 1, 2, 0) && !lua_toboolean(L, 3))
            lua_replace(L, 2); /* what was to be closed raised as well, and that is the error */
        lua_settop(L, 2);
    }
    if (lua_type(L, 2) == LUA_TSTRING) { /* as coroutine.wrap does: where it was called */
        luaL_where(L, 1);
        lua_insert(L, 2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

/* coroutine.wrap. Upvalues: coroutine.create, coroutine.resume, coroutine.close or nil. */
static int wrap(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_pushvalue(L, lua_upvalueindex(3));
    lua_pushcclosure(L, wrapped, 3);
    return 1;
}

/* Puts `enter` in the place of a function of the table on top, if there is one, and leaves it or
 * nil. */
static void track(lua_State *L, const char *name)
{
    lua_getfield(L, -1, name);
    if (lua_isnil(L, -1))
        return;
    lua_pushcclosure(L, enter, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, name);
}

static void track_coroutines(lua_State *L)
{
    lua_getglobal(L, "coroutine");
    int library = lua_gettop(L);
    lua_getfield(L, library, "create");
    lua_pushvalue(L, library);
    track(L, "resume");
    lua_remove(L, -2);
    lua_pushvalue(L, library);
    track(L, "close");
    lua_remove(L, -2);
    lua_pushcclosure(L, wrap, 3);
    lua_setfield(L, library, "wrap");
    lua_pop(L, 1);
}

/* A message handler that keeps out of a stop. Upvalue: the script's own. */
static int handle_message(lua_State *L)
{
    if (must_stop(ti_state_of(L)))
        return 1;
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

static int guard_handler(lua_State *L)
{
    lua_settop(L, 1);
    lua_pushcclosure(L, handle_message, 1);
    return 1;
}

/* In Lua, so that a coroutine may yield from within. */
static const char xpcall_source[] = "local xpcall, guard = ...\n"
                                    "return function(f, handler, ...)\n"
                                    "  return xpcall(f, guard(handler), ...)\n"
                                    "end\n";

static void guard_xpcall(lua_State *L)
{
    if (luaL_loadbuffer(L, xpcall_source, sizeof xpcall_source - 1, "=xpcall"))
        lua_error(L);
    lua_getglobal(L, "xpcall");
    lua_pushcfunction(L, guard_handler);
    lua_call(L, 2, 1);
    lua_setglobal(L, "xpcall");
}

#if LUA_VERSION_NUM >= 502
/* Lua runs finalizers where no hook is looked at, but a coroutine that a finalizer starts is free
 * of that. So what setmetatable finds under __gc runs in one. */
static const char setmetatable_source[] =
    "local setmetatable, create, resume = ...\n"
    "local error, rawget, rawset, type = error, rawget, rawset, type\n"
    "local guarded = setmetatable({}, { __mode = 'k' })\n"
    "local function guard(gc)\n"
    "  local function finalize(object)\n"
    "    local ok, why = resume(create(gc), object)\n"
    "    if not ok then error(why, 0) end\n"
    "  end\n"
    "  guarded[finalize] = true\n"
    "  return finalize\n"
    "end\n"
    "return function(object, meta)\n"
    "  local gc = type(meta) == 'table' and rawget(meta, '__gc')\n"
    "  if type(gc) == 'function' and not guarded[gc] then rawset(meta, '__gc', guard(gc)) end\n"
    "  return setmetatable(object, meta)\n"
    "end\n";

static void guard_finalizers(lua_State *L)
{
    if (luaL_loadbuffer(L, setmetatable_source, sizeof setmetatable_source - 1, "=setmetatable"))
        lua_error(L);
    lua_getglobal(L, "setmetatable");
    lua_getglobal(L, "coroutine");
    lua_getfield(L, -1, "create");
    lua_getfield(L, -2, "resume");
    lua_remove(L, -3);
    lua_call(L, 3, 1);
    lua_setglobal(L, "setmetatable");
}
#else
static void guard_finalizers(lua_State *L)
{
    (void)L; /* tables have no finalizers */
}
#endif

void ti_stop_open(lua_State *L, ti_preempt mode, bool bounded)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)&mode_key);
    lua_pushinteger(L, mode);
    lua_rawset(L, LUA_REGISTRYINDEX);
    if (mode == TI_PREEMPT_NONE && !bounded)
        return;
    track_coroutines(L);
    guard_xpcall(L);
    guard_finalizers(L);
    if (mode == TI_PREEMPT_HOOK)
        lua_sethook(L, hook, LUA_MASKCOUNT, EVERY);
}
