/* SPDX-License-Identifier: MIT */
/* Rules for code around Lua states: every entry into one is a protected call; nothing is owned
 * across a call that may raise unless the ti_state or a userdata holds it; the engine is called
 * only where nothing can raise.
 *
 * `serve` runs many callbacks under one protected call. When one raises, the call ends, the error
 * is made the answer of the task it belongs to, and `serve` is entered again. */
#include "bindings/state.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/heap.h"
#include "engine/worker.h"

/* Registry: the programs that the module tidemill.worker keeps, by key; each is a list of callbacks
 * with lists of `options` and `states` beside it. */
static const char programs_key = 0;
static const char worker_key = 0;
static const char state_key = 0;

/* What lies on the stack of a state all the time: pushing a C function may need memory. COLLECT is
 * in the registry only, like all of them. */
enum {
    ADD_TRACEBACK = 1,
    SERVE,
    DESCRIBE,
    DECIDE,
    INVOKE,
    OPEN,
    BASE = OPEN,
    COLLECT,
    FUNCTIONS = COLLECT
};

#define MOST_RESULTS 3 /* that anybody looks at */

/* A value may be this many times what its Lua state may use. More it is only where tables or
 * strings occur in it again and again, and then it could be without end. */
#define VALUE_PER_MEMORY 4

/* A program that a fresh state could not load is tried again, at most this often. */
#define RETRY_NS UINT64_C(100000000)

/* The stack within `serve_protected`; from PAYLOADS on, one slot for each payload in use. Callbacks
 * and context are also in its upvalues, from one time it serves to the next. */
enum { STATE = 1, CALLBACKS, CONTEXT, PAYLOADS };
enum { UPVALUE_CALLBACKS = 1, UPVALUE_CONTEXT, UPVALUES = UPVALUE_CONTEXT };

static const lua_CFunction base_functions[FUNCTIONS];

static void push_registered(lua_State *L, const char *key)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)key);
    lua_rawget(L, LUA_REGISTRYINDEX);
}

static int top_of(const ti_state *state)
{
    return PAYLOADS + (1 << state->payload_bits) - 1;
}

/* Has as many slots for payloads as suit a plan. */
static void make_room(lua_State *L, ti_state *state, const ti_plan *plan)
{
    uint32_t bits = state->payload_bits, before = 1u << bits;
    while (1u << bits < plan->count && 1u << bits < TI_STATE_PAYLOADS)
        bits++;
    state->payload_bits = bits;
    luaL_checkstack(L, (1 << bits) + LUA_MINSTACK, "no room for payloads");
    lua_settop(L, top_of(state));
    memset(&state->payloads[before], 0, ((1u << bits) - before) * sizeof state->payloads[0]);
}

/* Pushes the callbacks of a program; raises why it has none here. */
static void push_program(lua_State *L, uint64_t key)
{
    push_registered(L, &programs_key);
    lua_pushnumber(L, (lua_Number)key);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (!lua_istable(L, -1))
        luaL_error(L, "%s",
                   lua_isstring(L, -1) ? lua_tostring(L, -1)
                                       : "the callbacks of this DAG are not in this worker");
}

static void select_program(lua_State *L, ti_state *state, uint64_t key)
{
    push_program(L, key);
    lua_pushvalue(L, -1);
    lua_replace(L, lua_upvalueindex(UPVALUE_CALLBACKS));
    lua_replace(L, CALLBACKS);
    state->selected = key;
}

static void renew_context(lua_State *L, ti_state *state)
{
    ti_context_push(L, state);
    lua_pushvalue(L, -1);
    lua_replace(L, lua_upvalueindex(UPVALUE_CONTEXT));
    lua_replace(L, CONTEXT);
    state->touched = false;
}

/* programs[key][field][slot + 1] of the task */
void ti_state_push_kept(lua_State *L, const ti_state *state, const char *field)
{
    push_program(L, state->task->run->program->key);
    lua_getfield(L, -1, field);
    lua_rawgeti(L, -1, (int)(state->task->step->slot + 1));
    lua_replace(L, -3);
    lua_pop(L, 1);
}

ti_state *ti_state_of(lua_State *L)
{
    push_registered(L, &state_key);
    ti_state *state = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return state;
}

/* Where the string for a value is kept: Fibonacci hashing (Knuth, TAOCP 6.4). */
static uint32_t place_of(const ti_state *state, const ti_value *value)
{
    uint32_t bits = (uint32_t)((uintptr_t)value >> 4) * 2654435769u;
    return (uint32_t)((uint64_t)bits >> (32 - state->payload_bits));
}

static bool is_kept(const ti_state *state, uint32_t place, const ti_run *run, const ti_value *value)
{
    return state->payloads[place].value == value && state->payloads[place].serial == run->serial;
}

static void forget_payloads(lua_State *L, ti_state *state)
{
    for (uint32_t i = 0; i < 1u << state->payload_bits; i++) {
        if (!state->payloads[i].value)
            continue;
        state->payloads[i].value = NULL;
        lua_pushnil(L);
        lua_replace(L, PAYLOADS + (int)i);
    }
    state->kept = 0;
}

/* Keeps the string at a stack index. All that are kept take no more than half of what the state may
 * use. */
static void keep(lua_State *L, ti_state *state, int index, const ti_run *run, const ti_value *value,
                 const char *bytes)
{
    uint32_t place = place_of(state, value);
    if (state->memory && value->root.size > state->memory->limit / (2 * TI_STATE_PAYLOADS))
        return;
    if (state->kept > TI_STATE_KEPT)
        forget_payloads(L, state);
    state->kept += value->root.size;
    lua_copy(L, index, PAYLOADS + (int)place);
    state->payloads[place].value = value;
    state->payloads[place].serial = run->serial;
    state->payloads[place].bytes = bytes;
}

static void push_payload(lua_State *L, ti_state *state, const ti_task *task)
{
    const ti_value *payload = task->payload;
    uint32_t place = state->place = place_of(state, payload);
    if (is_kept(state, place, task->run, payload)) {
        lua_pushvalue(L, PAYLOADS + (int)place);
        return;
    }
    if (payload->root.kind != TI_STRING) {
        ti_convert_push(L, &payload->root);
        return;
    }
    lua_pushlstring(L, ti_cell_string(&payload->root), payload->root.size);
    keep(L, state, -1, task->run, payload, lua_tostring(L, -1));
}

/* A value that was kept is gone without having become anybody's: another one may get its address.
 */
static void drop_kept(ti_state *state, const ti_value *value)
{
    state->payloads[place_of(state, value)].value = NULL;
}

static void drop_unanswered(ti_state *state)
{
    if (!state->unanswered)
        return;
    drop_kept(state, state->unanswered);
    ti_value_release(state->unanswered);
    state->unanswered = NULL;
}

static void close_state(void *context);
static void look_for_missing(ti_state *state);

static int collect_protected(lua_State *L)
{
    return lua_gc(L, LUA_GCCOLLECT, 0);
}

/* A full collection, whose finalizers are a part of the current callback if there is one. */
static void collect(ti_state *state)
{
    lua_State *L = state->L;
    state->stoppable = state->leavable = state->task && state->serving;
    push_registered(L, (const char *)&base_functions[COLLECT - 1]);
    if (lua_pcall(L, 0, 0, 0))
        lua_pop(L, 1);
    state->stoppable = state->leavable = false;
}

/* What was refused is dealt with. False: the state keeps so much that it should be replaced. */
static bool forgive(ti_state *state)
{
    if (!state->memory || !state->memory->strained)
        return true;
    ti_memory_forgive(state->memory);
    collect(state);
    return ti_memory_is_sound(state->memory);
}

/* What decide_protected works on. */
typedef struct ti_decision {
    ti_state *state;
    const ti_error *error;
    bool retryable;
} ti_decision;

/* Asks the script's retry.when, if there is one, whether an error is worth another attempt. */
static int decide_protected(lua_State *L)
{
    ti_decision *decision = lua_touserdata(L, 1);
    const ti_task *task = decision->state->task;
    ti_state_push_kept(L, decision->state, "retries");
    if (lua_isnil(L, -1))
        return 0;
    ti_error_push(L, ti_plan_id(task->run->plan, task->index), decision->error);
    lua_pushinteger(L, task->node->attempts);
    lua_setfield(L, -2, "attempt");
    decision->state->stoppable = !ti_worker_must_stop(decision->state->serving);
    lua_call(L, 1, 1);
    decision->retryable = lua_toboolean(L, -1);
    return 0;
}

/* True: the error is worth another attempt. When retry.when raises, *error becomes that, with the
 * original one behind it, and there are no more attempts. */
static bool decide(ti_state *state, ti_error **error)
{
    lua_State *L = state->L;
    ti_decision decision = {state, *error, true};
    state->call++; /* it may spend as much as the callback */
    push_registered(L, (const char *)&base_functions[DECIDE - 1]);
    lua_pushlightuserdata(L, &decision);
    int status = lua_pcall(L, 1, 0, 0);
    state->stoppable = false;
    forgive(state);
    if (!status)
        return decision.retryable;
    if (ti_worker_must_stop(state->serving)) { /* which is why it raised */
        lua_pop(L, 1);
        return false;
    }
    const char *why = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "it raised no string";
    ti_error *raised = ti_error_format(TI_E_PROCESSOR_FAILED, "retry.when: %s", why);
    *error = ti_error_chain(raised, *error, state->task->node->attempts);
    lua_pop(L, 1);
    return false;
}

static void fail(ti_state *state, ti_error *error)
{
    bool retryable = ti_worker_may_retry(state->serving) && decide(state, &error);
    state->task = NULL;
    ti_worker_fail(state->serving, error, retryable);
}

/* The task must stop. A timeout is an error that may be worth another attempt. */
static void stop(ti_state *state)
{
    ti_error *late = ti_worker_timeout_error(state->serving);
    if (late) {
        fail(state, late);
        return;
    }
    state->task = NULL;
    ti_worker_stop(state->serving);
}

static const char *intent_name(const ti_task *task)
{
    return task->step->intent == TI_TRANSFORM ? "transform" : "analyze";
}

/* return nil, "why". Without a why: nothing was returned. */
static void refuse(lua_State *L, ti_state *state, int first, int results)
{
    if (results < 2 || lua_isnil(L, first + 1)) {
        fail(state, ti_error_format(TI_E_INVALID_RESPONSE,
                                    "a transform must return the next payload, but it returned %s",
                                    results ? "nil" : "nothing"));
        return;
    }
    ti_conversion conversion = {.scratch = &state->scratch, .root = "cause"};
    char text[64];
    size_t size;
    const char *message = lua_tolstring(L, first + 1, &size);
    ti_value *cause = NULL;
    if (!message) {
        size = (size_t)snprintf(text, sizeof text, "it returned nil and a %s",
                                luaL_typename(L, first + 1));
        message = text;
        cause = ti_convert_to(L, first + 1, &conversion);
    }
    fail(state, ti_error_new(TI_E_PROCESSOR_FAILED, message, size, NULL, 0, cause));
}

static void too_many(ti_state *state, int results, const char *expected)
{
    const char *intent = intent_name(state->task);
    fail(state,
         ti_error_format(TI_E_INVALID_RESPONSE, "%s %s returns %s, but it returned %d values",
                         intent[0] == 'a' ? "an" : "a", intent, expected, results));
}

static void not_metadata(lua_State *L, ti_state *state, int index)
{
    bool hint = state->task->step->intent == TI_TRANSFORM && lua_type(L, index) == LUA_TNUMBER;
    fail(state, ti_error_format(TI_E_INVALID_RESPONSE, "metadata must be a table, but it is a %s%s",
                                luaL_typename(L, index),
                                hint ? " (to drop the second value of string.gsub, put parentheses "
                                       "around the call)"
                                     : ""));
}

static void untransferable(ti_state *state, const ti_conversion *conversion)
{
    fail(state, ti_error_new(conversion->code, conversion->message, strlen(conversion->message),
                             NULL, 0, NULL));
}

/* True with *metadata (NULL: none), or the task has failed. */
static bool read_metadata(lua_State *L, ti_state *state, int index, ti_value **metadata)
{
    *metadata = NULL;
    if (lua_isnil(L, index))
        return true;
    if (!lua_istable(L, index)) {
        not_metadata(L, state, index);
        return false;
    }
    const ti_task *task = state->task;
    ti_conversion conversion;
    ti_convert_begin(&conversion, &state->scratch, "metadata");
    conversion.arena = ti_worker_arena(state->serving);
    conversion.name = ti_plan_id(task->run->plan, task->index);
    *metadata = ti_convert_to(L, index, &conversion);
    if (*metadata)
        return true;
    untransferable(state, &conversion);
    return false;
}

static void complete(ti_state *state, ti_value *payload, ti_value *metadata)
{
    const ti_task *task = state->task;
    bool owns_metadata = metadata && !ti_value_is_packed(metadata);
    if (task->step->flags & TI_STEP_TIMEOUT && ti_worker_must_stop(state->serving)) {
        drop_unanswered(state);
        if (owns_metadata)
            ti_value_release(metadata);
        stop(state);
        return;
    }
    unsigned owned =
        (state->unanswered ? TI_OWNS_PAYLOAD : 0u) | (owns_metadata ? TI_OWNS_METADATA : 0u);
    state->task = NULL;
    state->unanswered = NULL;
    if (!ti_worker_complete(state->serving, payload, metadata, owned) && owned & TI_OWNS_PAYLOAD)
        drop_kept(state, payload);
}

/* A payload that was made for the task; NULL: there was no memory. */
static ti_value *made(ti_state *state, ti_value *payload)
{
    state->unanswered = payload && !ti_value_is_packed(payload) ? payload : NULL;
    return payload;
}

static void answer_analyze(lua_State *L, ti_state *state, int first, int results)
{
    ti_value *metadata = NULL;
    if (results > 1 && lua_isnil(L, first) && !lua_isnil(L, first + 1))
        refuse(L, state, first, results);
    else if (results > 1)
        too_many(state, results, "one table of metadata at most");
    else if (results == 0 || read_metadata(L, state, first, &metadata))
        complete(state, NULL, metadata);
}

static ti_value *read_payload(lua_State *L, ti_state *state, int index)
{
    ti_conversion conversion;
    ti_convert_begin(&conversion, &state->scratch, "payload");
    conversion.arena = ti_worker_arena(state->serving);
    ti_value *payload = made(state, ti_convert_to(L, index, &conversion));
    if (!payload)
        untransferable(state, &conversion);
    return payload;
}

/* A string, the usual answer. The very string that was passed in is the same value: nothing is
 * copied. */
static ti_value *read_string(lua_State *L, ti_state *state, int index)
{
    const ti_task *task = state->task;
    ti_value *payload = task->payload;
    size_t size;
    const char *bytes = lua_tolstring(L, index, &size);
    if (state->payloads[state->place].bytes == bytes &&
        is_kept(state, state->place, task->run, payload))
        return payload;
    payload = made(state, ti_value_string_in(ti_worker_arena(state->serving), bytes, size));
    if (payload)
        keep(L, state, index, task->run, payload, bytes);
    else
        fail(state, ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL));
    return payload;
}

/* What a transform returned after the payload may be its metadata; else the task has failed. */
static bool may_be_metadata(lua_State *L, ti_state *state, int second, int results)
{
    if (results > 2) {
        too_many(state, results, "a payload and one table of metadata at most");
        return false;
    }
    if (!lua_isnil(L, second) && !lua_istable(L, second)) {
        not_metadata(L, state, second);
        return false;
    }
    return true;
}

static void answer_transform(lua_State *L, ti_state *state, int first, int results)
{
    ti_value *payload, *metadata = NULL;
    int type = results ? lua_type(L, first) : LUA_TNIL;
    if (type == LUA_TNIL) {
        refuse(L, state, first, results);
        return;
    }
    if (results > 1 && !may_be_metadata(L, state, first + 1, results))
        return;
    payload = type == LUA_TSTRING ? read_string(L, state, first) : read_payload(L, state, first);
    if (!payload)
        return;
    if (results > 1 && !read_metadata(L, state, first + 1, &metadata)) {
        drop_unanswered(state);
        return;
    }
    complete(state, payload, metadata);
}

/* What a callback used that has returned is too much, though it may have caught that error: raises
 * it again. Where Lua does not collect before memory runs out, this is the time. */
__attribute__((noinline, cold)) static void check_bounds(lua_State *L, ti_state *state)
{
    if (state->memory && state->memory->strained) {
        ti_stop_judge(L, state->memory);
        if (ti_memory_refused(state->memory))
            luaL_error(L, "not enough memory");
    }
    if (ti_stop_spent(state))
        luaL_error(L, "too many instructions");
}

/* Calls a function of the script with two arguments. It may be stopped, and if it does not stop,
 * this state be given up: then `serve` must end the thread without touching the engine. */
static inline void call_script(lua_State *L, ti_state *state, int results)
{
    state->stoppable = state->leavable = true;
    lua_call(L, 2, results);
    state->leavable = false;
    if (state->abandoned)
        luaL_error(L, "given up");
    if (state->bounded)
        check_bounds(L, state);
    state->stoppable = false;
}

/* Calls the processor's `when`; false: it is skipped. */
static bool condition_holds(lua_State *L, ti_state *state, const ti_task *task)
{
    ti_state_push_kept(L, state, "conditions");
    ti_context_push_metadata(L, state);
    push_payload(L, state, task);
    call_script(L, state, 1);
    bool holds = lua_toboolean(L, -1);
    lua_settop(L, top_of(state));
    return holds;
}

/* For the tasks of a run, until the next one comes. */
static void prepare(lua_State *L, ti_state *state, const ti_run *run)
{
    if (run->program->key != state->selected)
        select_program(L, state, run->program->key);
    if (1u << state->payload_bits < run->plan->count &&
        1u << state->payload_bits < TI_STATE_PAYLOADS)
        make_room(L, state, run->plan);
    state->prepared = run->serial;
}

static void call(lua_State *L, ti_state *state, const ti_task *task)
{
    state->task = task;
    state->call++;
    state->running = L;
    if (task->run->serial != state->prepared)
        prepare(L, state, task->run);
    if (task->step->flags & TI_STEP_CONDITION && !condition_holds(L, state, task)) {
        state->task = NULL;
        ti_worker_skip(state->serving);
        return;
    }
    if (state->touched)
        renew_context(L, state);
    int top = top_of(state);
    lua_rawgeti(L, CALLBACKS, (int)(task->step->slot + 1));
    push_payload(L, state, task);
    lua_pushvalue(L, CONTEXT);
    call_script(L, state, LUA_MULTRET);
    int results = lua_gettop(L) - top;
    if (results > MOST_RESULTS)
        lua_settop(L, top + MOST_RESULTS); /* they are too many; there may be no stack for more */
    if (task->step->intent == TI_TRANSFORM)
        answer_transform(L, state, top + 1, results);
    else
        answer_analyze(L, state, top + 1, results);
    lua_settop(L, top);
}

static int serve_protected(lua_State *L)
{
    ti_state *state = lua_touserdata(L, STATE);
    const ti_task *task;
    lua_pushvalue(L, lua_upvalueindex(UPVALUE_CALLBACKS));
    lua_pushvalue(L, lua_upvalueindex(UPVALUE_CONTEXT));
    state->payload_bits = 0;
    state->payloads[0].value = NULL;
    state->kept = 0;
    state->prepared = 0;
    lua_settop(L, top_of(state));
    while ((task = ti_worker_next(state->serving)))
        call(L, state, task);
    return 0;
}

/* Keeps the traceback beside what was raised. */
static int add_traceback(lua_State *L)
{
    lua_createtable(L, 2, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    tl_push_traceback(L, 1);
    lua_rawseti(L, -2, 2);
    return 1;
}

/* What describe_protected works on. */
typedef struct ti_raised {
    ti_state *state;
    int status;
    ti_code code;
    ti_error *error; /* the outcome */
    ti_value *cause;
} ti_raised;

/* Leaves a string for the value at `index`, without an address in it: equal runs have equal errors.
 * Runs __tostring, which may raise. */
static void push_text(lua_State *L, int index)
{
    if (lua_type(L, index) != LUA_TSTRING && luaL_callmeta(L, index, "__tostring")) {
        if (lua_type(L, -1) == LUA_TSTRING)
            return;
        lua_pop(L, 1);
    }
    if (lua_isnil(L, index))
        lua_pushliteral(L, "(nil was raised)");
    else if (lua_isboolean(L, index))
        lua_pushstring(L, lua_toboolean(L, index) ? "(true was raised)" : "(false was raised)");
    else if (lua_isstring(L, index))
        lua_pushvalue(L, index);
    else
        lua_pushfstring(L, "(a %s was raised)", luaL_typename(L, index));
    lua_tostring(L, -1); /* a number becomes a string here */
}

/* The size of a traceback without its last line if that is a C function, which is `serve`. */
static size_t without_last_c_line(const char *traceback, size_t size)
{
    static const char c_function[] = "\n\t[C]: ";
    size_t at = size;
    while (at > 0 && traceback[at - 1] != '\n')
        at--;
    if (at == 0 || strncmp(traceback + at - 1, c_function, sizeof c_function - 1) != 0)
        return size;
    return at - 1;
}

/* (raised, handled) or, when that raised, (raised, handled, false) */
static int describe_protected(lua_State *L)
{
    ti_raised *raised = lua_touserdata(L, 1);
    bool plainly = lua_gettop(L) > 2;
    size_t size, traceback_size = 0;
    const char *traceback = NULL;
    int value = 2, top;
    lua_settop(L, 2);
    if (raised->status == LUA_ERRRUN && lua_istable(L, 2)) {
        lua_rawgeti(L, 2, 1);
        value = 3;
        lua_rawgeti(L, 2, 2);
        traceback = lua_tolstring(L, 4, &traceback_size);
    }
    top = lua_gettop(L);
    if (plainly)
        lua_pushfstring(L, "(a %s was raised, and its __tostring raised too)",
                        luaL_typename(L, value));
    else
        push_text(L, value);
    const char *message = lua_tolstring(L, top + 1, &size);
    if (lua_istable(L, value) && !raised->cause) {
        ti_conversion conversion = {.scratch = &raised->state->scratch, .root = "cause"};
        raised->cause = ti_convert_to(L, value, &conversion);
    }
    traceback_size = without_last_c_line(traceback, traceback_size);
    while (traceback_size && *traceback == '\n') {
        traceback++;
        traceback_size--;
    }
    ti_value *cause = raised->cause;
    raised->cause = NULL;
    raised->error = ti_error_new(raised->code, message, size, traceback_size ? traceback : NULL,
                                 traceback_size, cause);
    return 0;
}

/* The error record for what lua_pcall left on top of the stack; pops it. Never NULL. */
static ti_error *describe(ti_state *state, int status, ti_code code)
{
    lua_State *L = state->L;
    ti_raised raised = {.state = state, .status = status, .code = code};
    if (status == LUA_ERRMEM)
        raised.code = TI_E_MEMORY_LIMIT;
    int handled = lua_gettop(L);
    lua_pushvalue(L, DESCRIBE);
    lua_pushlightuserdata(L, &raised);
    lua_pushvalue(L, handled);
    if (lua_pcall(L, 2, 0, 0) && !raised.error) { /* it may be stopped as it returns */
        lua_settop(L, handled);
        lua_pushvalue(L, DESCRIBE);
        lua_pushlightuserdata(L, &raised);
        lua_pushvalue(L, handled);
        lua_pushboolean(L, 0);
        if (lua_pcall(L, 3, 0, 0) && !raised.error)
            raised.error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, raised.cause);
    }
    lua_settop(L, handled - 1);
    return raised.error;
}

/* The engine gave this state and its thread up, and the callback has returned after all. Nothing of
 * the engine may be touched: it may be gone. */
static void end_orphan(ti_state *state)
{
    close_state(state);
    pthread_exit(NULL);
}

static void recover(ti_state *state);

/* What the current callback, or the program that is being loaded, fails with for using too much;
 * NULL: it did not. */
static ti_error *broken_bound(ti_state *state)
{
    if (!state->bounded && !state->loading)
        return NULL;
    if (state->memory && state->memory->strained && !ti_memory_refused(state->memory)) {
        collect(state);
        ti_memory_judge(state->memory);
    }
    if (state->memory && ti_memory_refused(state->memory))
        return ti_memory_error(state->memory);
    return ti_stop_spent(state) ? ti_stop_spent_error(state) : NULL;
}

/* Why the current task failed; pops what was raised. */
static ti_error *account(ti_state *state, int status)
{
    ti_error *error = broken_bound(state), *broken;
    if (error) {
        lua_pop(state->L, 1);
        return error;
    }
    state->stoppable = true; /* so that a __tostring is */
    error = describe(state, status, TI_E_PROCESSOR_FAILED);
    broken = broken_bound(state); /* by that */
    if (!broken)
        return error;
    ti_error_free(error);
    return broken;
}

/* Makes what was raised, which is on top of the stack, the answer of the current task; pops it. An
 * error that hit between two tasks (no memory to begin with) the next one has to bear. False: there
 * is none. */
static bool blame(ti_state *state, int status)
{
    if (!state->task)
        state->task = ti_worker_next(state->serving);
    drop_unanswered(state);
    ti_error *error = NULL;
    if (state->task && !ti_worker_must_stop(state->serving))
        error = account(state, status);
    else
        lua_pop(state->L, 1);
    state->stoppable = false;
    recover(state);
    if (state->abandoned) {
        ti_error_free(error);
        end_orphan(state);
    }
    if (state->task && !ti_worker_must_stop(state->serving)) {
        fail(state, error);
        return true;
    }
    ti_error_free(error);
    if (!state->task)
        return false;
    stop(state);
    return true;
}

static void serve(void *context, ti_worker *worker)
{
    ti_state *state = context;
    bool again;
    assert(!state->serving && ti_worker_is_ours(worker));
    if (state->missing)
        look_for_missing(state);
    state->serving = worker;
    do {
        lua_State *L = state->L; /* `blame` may have replaced it */
        ti_stop_reset(state);
        lua_pushvalue(L, SERVE);
        lua_pushlightuserdata(L, state);
        int status = lua_pcall(L, 1, 0, ADD_TRACEBACK);
        state->leavable = false;
        if (state->abandoned)
            end_orphan(state);
        state->stoppable = false;
        again = status && blame(state, status);
    } while (again);
    state->serving = NULL;
}

typedef struct ti_invocation {
    ti_state *state;
    const char *function;
    uint64_t key;
    const ti_value *argument;
    ti_value *result;
    ti_conversion conversion;
} ti_invocation;

static int invoke_protected(lua_State *L)
{
    ti_invocation *invocation = lua_touserdata(L, 1);
    push_registered(L, &worker_key);
    lua_getfield(L, -1, invocation->function);
    lua_pushnumber(L, (lua_Number)invocation->key);
    if (invocation->argument)
        ti_convert_push(L, &invocation->argument->root);
    else
        lua_pushnil(L);
    lua_call(L, 2, 1);
    invocation->result = ti_convert_to(L, -1, &invocation->conversion);
    return 0;
}

ti_value *ti_state_invoke(ti_state *state, const char *function, uint64_t key,
                          const ti_value *argument, ti_error **error)
{
    lua_State *L = state->L;
    ti_invocation invocation = {
        .state = state,
        .function = function,
        .key = key,
        .argument = argument,
        .conversion = {.scratch = &state->scratch, .root = function},
    };
    ti_stop_reset(state);
    state->call++; /* what the last callback spent is not this one's */
    state->running = L;
    state->invoking = true;
    lua_pushvalue(L, INVOKE);
    lua_pushlightuserdata(L, &invocation);
    int status = lua_pcall(L, 1, 0, ADD_TRACEBACK);
    ti_error *broken = broken_bound(state);
    state->invoking = state->loading = false;
    if (broken) {
        lua_settop(L, BASE);
        ti_value_release(invocation.result);
        invocation.result = NULL;
        *error = broken;
    } else if (status) {
        *error = describe(state, status, TI_E_INVALID_DAG);
    } else if (!invocation.result) {
        *error = ti_error_format(invocation.conversion.code, "%s", invocation.conversion.message);
    }
    recover(state);
    return invocation.result;
}

size_t ti_state_bytes(const ti_state *state)
{
    return (size_t)lua_gc(state->L, LUA_GCCOUNT, 0) << 10;
}

static void set_package(lua_State *L, const char *field, const char *text)
{
    lua_pushstring(L, text);
    lua_setfield(L, -2, field);
}

static void register_top(lua_State *L, const char *key)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)key);
    lua_insert(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

static int open_protected(lua_State *L)
{
    const ti_state_config *config = lua_touserdata(L, 1);
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    set_package(L, "path", config->path);
    set_package(L, "cpath", config->cpath);
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, config->core);
    lua_setfield(L, -2, "tidemill.core");
    ti_context_open(L);
    ti_stop_open(L, config->mode, config->memory_limit || config->instruction_limit);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "tidemill.worker");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "open");
    lua_pushstring(L, config->preempt);
    lua_pushboolean(L, config->instruction_limit != 0);
    lua_pushboolean(L, config->memory_limit != 0);
    lua_call(L, 3, 0);
    lua_getfield(L, -1, "programs");
    register_top(L, &programs_key);
    register_top(L, &worker_key);
    return 0;
}

static const lua_CFunction base_functions[FUNCTIONS] = {
    add_traceback,    serve_protected, describe_protected, decide_protected,
    invoke_protected, open_protected,  collect_protected,
};

static int open_base_protected(lua_State *L)
{
    register_top(L, &state_key); /* the ti_state is on top */
    for (int i = 0; i < FUNCTIONS; i++) {
        int upvalues = base_functions[i] == serve_protected ? UPVALUES : 0;
        for (int k = 0; k < upvalues; k++)
            lua_pushnil(L);
        lua_pushcclosure(L, base_functions[i], upvalues);
        register_top(L, (const char *)&base_functions[i]);
    }
    return 0;
}

#if LUA_VERSION_NUM >= 504
/* As in a Lua that the auxiliary library made. */
static void warn(void *context, const char *message, int continues)
{
    ti_state *state = context;
    bool control = !state->warning && !continues && message[0] == '@';
    if (control && strcmp(message, "@on") == 0)
        state->warns = true;
    if (control && strcmp(message, "@off") == 0)
        state->warns = false;
    if (!control && state->warns) {
        lua_writestringerror("%s", state->warning ? "" : "Lua warning: ");
        lua_writestringerror("%s", message);
        lua_writestringerror("%s", continues ? "" : "\n");
    }
    state->warning = continues;
}
#endif

/* Under the address sanitizer, and for who looks at memory with valgrind, what a state uses comes
 * from malloc. LuaJIT has an allocator of its own. */
static bool has_heap(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(LUAJIT_VERSION)
    return false;
#else
    return !getenv("TIDEMILL_MALLOC");
#endif
}

/* NULL: no memory. */
static lua_State *new_lua(ti_state *state)
{
    if (!has_heap())
        return luaL_newstate();
    ti_heap *heap = ti_heap_new();
    lua_State *L = heap ? tl_newstate(ti_heap_allocate, heap) : NULL;
    if (!L)
        ti_heap_free(heap);
#if LUA_VERSION_NUM >= 504
    else
        lua_setwarnf(L, warn, state);
#endif
    (void)state;
    return L;
}

static void close_lua(lua_State *L, ti_memory *memory)
{
    void *heap;
    ti_memory_disarm(L, memory);
    lua_Alloc allocate = lua_getallocf(L, &heap);
    lua_close(L);
    if (allocate == ti_heap_allocate)
        ti_heap_free(heap);
}

static void close_state(void *context)
{
    ti_state *state = context;
    if (state->L)
        close_lua(state->L, state->memory);
    ti_builder_trim(&state->scratch, true);
    free(state->ancestors);
    free(state);
}

static struct ti_install *copy_installs(ti_state_config *config, bool *complete);
static void free_installs(struct ti_install *installs);
static void reinstall(ti_state *state, struct ti_install *installs);

/* From here on the limit of memory holds. */
static bool arm(ti_state *state, ti_error **error)
{
    size_t limit = state->config->memory_limit, used = 0;
    if (!limit)
        return true;
    ti_memory *memory = ti_memory_arm(state->L, limit, &used);
    if (memory) {
        memory->alarm = ti_stop_alarm;
        memory->owner = state;
        memory->running = (lua_State *const *)&state->running;
        state->memory = memory;
        return true;
    }
    *error = used > limit ? ti_error_format(TI_E_MEMORY_LIMIT,
                                            "memory_limit is %zu bytes, but the Lua state of a "
                                            "worker takes %zu to begin with",
                                            limit, used)
                          : ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
    return false;
}

static bool open_base(lua_State *L, ti_state *state)
{
    if (tl_protected(L, open_base_protected, state))
        return false;
    lua_settop(L, 0);
    for (int i = 0; i < BASE; i++)
        push_registered(L, (const char *)&base_functions[i]);
    return true;
}

/* Gives the state a fresh Lua state, without programs. False: *error says why, and it has none. */
static bool open_lua(ti_state *state, ti_error **error)
{
    lua_State *L = new_lua(state);
    state->memory = NULL;
    state->L = state->running = NULL;
    state->selected = 0;
    state->touched = true; /* so that the first call makes a ctx */
    if (!L || !open_base(L, state)) {
        if (L)
            close_lua(L, NULL);
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return false;
    }
    state->L = state->running = L;
    lua_pushvalue(L, OPEN);
    lua_pushlightuserdata(L, state->config);
    int status = lua_pcall(L, 1, 0, ADD_TRACEBACK);
    if (!status && arm(state, error))
        return true;
    if (status)
        *error = describe(state, status, TI_E_INTERNAL);
    close_lua(L, NULL);
    state->L = state->running = NULL;
    return false;
}

static void *open_state(void *shared, uint32_t worker, ti_error **error)
{
    ti_state *state = calloc(1, sizeof *state);
    bool complete = false;
    struct ti_install *installs = state ? copy_installs(shared, &complete) : NULL;
    if (!complete) {
        free(state);
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return NULL;
    }
    state->worker = worker;
    state->config = shared;
    state->instruction_limit = state->config->instruction_limit;
    state->bounded = state->config->memory_limit || state->instruction_limit;
    state->scratch.most = VALUE_PER_MEMORY * state->config->memory_limit;
    if (open_lua(state, error)) {
        reinstall(state, installs);
        return state;
    }
    free_installs(installs);
    close_state(state);
    return NULL;
}

/* Puts a fresh Lua state with all programs in the place of one that keeps too much. The old one
 * stays if there is no memory for that. Its finalizers may take so long that the engine gives the
 * state up meanwhile. */
static void renew(ti_state *state)
{
    lua_State *old = state->L;
    ti_memory *memory = state->memory;
    ti_error *error = NULL;
    bool complete;
    struct ti_install *installs = copy_installs(state->config, &complete);
    if (!complete)
        return;
    if (!open_lua(state, &error)) {
        ti_error_free(error);
        free_installs(installs);
        state->L = state->running = old;
        state->memory = memory;
        return;
    }
    state->leavable = true;
    close_lua(old, memory);
    state->leavable = false;
    if (state->abandoned)
        free_installs(installs);
    else
        reinstall(state, installs);
}

static void recover(ti_state *state)
{
    if (state->recovering)
        return;
    state->recovering = true;
    if (!forgive(state) && !state->abandoned)
        renew(state);
    state->recovering = false;
}

/* What a program is loaded from. */
typedef struct ti_install {
    struct ti_install *next;
    uint64_t key;
    ti_value *source;
} ti_install;

ti_state_config *ti_state_config_new(const char *path, const char *cpath, const char *preempt,
                                     ti_preempt mode, lua_CFunction core)
{
    ti_state_config *config = calloc(1, sizeof *config);
    if (!config || uv_mutex_init(&config->lock)) {
        free(config);
        return NULL;
    }
    config->path = strdup(path);
    config->cpath = strdup(cpath);
    config->preempt = strdup(preempt);
    config->mode = mode;
    config->core = core;
    if (config->path && config->cpath && config->preempt)
        return config;
    ti_state_config_free(config);
    return NULL;
}

static void free_install(ti_install *install)
{
    ti_value_release(install->source);
    free(install);
}

static void free_installs(ti_install *installs)
{
    for (ti_install *next; installs; installs = next) {
        next = installs->next;
        free_install(installs);
    }
}

void ti_state_config_free(ti_state_config *config)
{
    if (!config)
        return;
    free_installs(config->installs);
    ti_loader_free(config->loader);
    uv_mutex_destroy(&config->lock);
    free(config->path);
    free(config->cpath);
    free(config->preempt);
    free(config);
}

bool ti_state_config_install(ti_state_config *config, uint64_t key, ti_value *source)
{
    ti_install *install = malloc(sizeof *install);
    if (!install)
        return false;
    uv_mutex_lock(&config->lock);
    *install = (ti_install){config->installs, key, ti_value_retain(source)};
    config->installs = install;
    uv_mutex_unlock(&config->lock);
    return true;
}

static void uninstall(ti_state_config *config, uint64_t key)
{
    uv_mutex_lock(&config->lock);
    for (ti_install **link = &config->installs; *link; link = &(*link)->next) {
        ti_install *install = *link;
        if (install->key != key)
            continue;
        *link = install->next;
        free_install(install);
        break;
    }
    uv_mutex_unlock(&config->lock);
}

/* The programs that there are now, in the same order. Not *complete: there is no memory for that.
 */
static ti_install *copy_installs(ti_state_config *config, bool *complete)
{
    ti_install *copies = NULL, **link = &copies;
    uv_mutex_lock(&config->lock);
    const ti_install *install = config->installs;
    for (; install && (*link = malloc(sizeof **link)); install = install->next) {
        **link = (ti_install){NULL, install->key, install->source};
        ti_value_retain(install->source);
        link = &(*link)->next;
    }
    uv_mutex_unlock(&config->lock);
    *complete = !install;
    if (install)
        free_installs(copies);
    return install ? NULL : copies;
}

/* Takes the copies. Scripts run here, which may take long, so there is no lock. What changes
 * meanwhile needs none, since this thread has the seat from before the copies were made:
 * - A program that goes is noted for this seat (ti_engine_forget), before or after it is loaded
 *   here, and dropped by whoever catches up.
 * - A program that comes is loaded in every worker, and here when the seat is free again. The load
 *   may have been here before, in the state that this one replaces; then "commit" finds nothing,
 *   and loads it (worker.lua).
 * What does not load again is missing, says why, and is tried again before later work. */
static void reinstall(ti_state *state, ti_install *installs)
{
    state->missing = 0;
    for (const ti_install *install = installs; install; install = install->next) {
        ti_error *error = NULL, *none = NULL;
        ti_value_release(ti_state_invoke(state, "commit", install->key, install->source, &error));
        if (!error)
            continue;
        ti_value *why = ti_value_string(error->message, error->message_size);
        ti_value_release(ti_state_invoke(state, "miss", install->key, why, &none));
        ti_value_release(why);
        ti_error_free(error);
        ti_error_free(none);
        state->missing++;
    }
    free_installs(installs);
    state->tried = uv_hrtime();
}

static void look_for_missing(ti_state *state)
{
    bool complete;
    if (uv_hrtime() - state->tried < RETRY_NS)
        return;
    ti_install *installs = copy_installs(state->config, &complete);
    if (complete)
        reinstall(state, installs);
}

static void forget(void *context, uint64_t key)
{
    ti_state *state = context;
    ti_error *error = NULL;
    uninstall(state->config, key);
    if (state->selected == key) {
        lua_pushnil(state->L);
        lua_setupvalue(state->L, SERVE, UPVALUE_CALLBACKS);
        state->selected = 0;
    }
    ti_value_release(ti_state_invoke(state, "forget", key, NULL, &error));
    ti_error_free(error);
}

static void interrupt(void *context)
{
    ti_stop_interrupt(context);
}

static bool abandon(void *context)
{
    return ti_stop_abandon(context);
}

static void discard(void *shared)
{
    ti_state_config_free(shared);
}

const ti_backend ti_state_backend = {
    .name = "lua",
    .open = open_state,
    .serve = serve,
    .forget = forget,
    .interrupt = interrupt,
    .abandon = abandon,
    .close = close_state,
    .discard = discard,
};
