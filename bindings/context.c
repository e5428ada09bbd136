/* SPDX-License-Identifier: MIT */
/* ctx: what a callback may ask about the task it runs for. One userdata serves call after call
 * until a callback looks at it; that one is spent then, and knows the call it belongs to. */
#include <stdlib.h>
#include <string.h>

#include "bindings/state.h"
#include "engine/engine.h"

#define CONTEXT_TYPE "tidemill.context"

typedef struct ti_context {
    ti_state *state;
    uint64_t call; /* 0: not looked at yet */
} ti_context;

static void push_text(lua_State *L, ti_text text)
{
    lua_pushlstring(L, text.bytes, text.size);
}

void ti_error_push(lua_State *L, ti_text processor, const ti_error *error)
{
    lua_createtable(L, 0, 6);
    lua_pushstring(L, ti_code_name(error->code));
    lua_setfield(L, -2, "code");
    lua_pushlstring(L, error->message, error->message_size);
    lua_setfield(L, -2, "message");
    if (processor.bytes) {
        push_text(L, processor);
        lua_setfield(L, -2, "processor");
        lua_pushinteger(L, (lua_Integer)error->attempt);
        lua_setfield(L, -2, "attempt");
    }
    if (error->traceback) {
        lua_pushlstring(L, error->traceback, error->traceback_size);
        lua_setfield(L, -2, "traceback");
    }
    if (error->cause) {
        ti_convert_push(L, &error->cause->root);
        lua_setfield(L, -2, "cause");
    }
    luaL_getmetatable(L, TI_ERROR_TYPE);
    lua_setmetatable(L, -2);
}

/* The state that a method of ctx was made for, in the same call. */
static ti_state *current(lua_State *L)
{
    ti_state *state = lua_touserdata(L, lua_upvalueindex(1));
    if (!state->task || (lua_Number)state->call != lua_tonumber(L, lua_upvalueindex(2)))
        luaL_error(L, "ctx is used after its callback returned");
    return state;
}

static int is_cancelled(lua_State *L)
{
    ti_state *state = current(L);
    lua_pushboolean(L, ti_worker_must_stop(state->serving));
    return 1;
}

static int time_left(lua_State *L)
{
    double seconds = ti_worker_time_left(current(L)->serving);
    if (seconds < 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, seconds);
    return 1;
}

static void push_method(lua_State *L, ti_state *state, lua_CFunction method)
{
    lua_pushlightuserdata(L, state);
    lua_pushnumber(L, (lua_Number)state->call);
    lua_pushcclosure(L, method, 2);
}

/* Marks all ancestors of the task's step and lists them; returns how many. The marks and the list
 * share one block, which the state keeps. */
static uint32_t find_ancestors(lua_State *L, ti_state *state, const uint32_t **list)
{
    const ti_plan *plan = state->task->run->plan;
    if (state->ancestor_room < plan->count) {
        uint32_t *grown = realloc(state->ancestors, 2 * plan->count * sizeof *grown);
        if (!grown)
            luaL_error(L, "not enough memory");
        memset(grown, 0, 2 * plan->count * sizeof *grown);
        state->ancestors = grown;
        state->ancestor_room = plan->count;
        state->ancestor_mark = 0;
    }
    uint32_t *marks = state->ancestors, *found = marks + state->ancestor_room, count = 0;
    uint32_t mark = ++state->ancestor_mark; /* so that old marks need not be cleared */
    uint32_t step = state->task->index;
    for (uint32_t next = 0;; step = found[next++]) {
        const uint32_t *dependency = plan->dependencies + plan->steps[step].first_dependency;
        const uint32_t *end = plan->dependencies + plan->steps[step + 1].first_dependency;
        for (; dependency < end; dependency++)
            if (marks[*dependency] != mark) {
                marks[*dependency] = mark;
                found[count++] = *dependency;
            }
        if (next == count)
            break;
    }
    *list = found;
    return count;
}

static const ti_cell *metadata_of(const ti_node *node)
{
    return node->status == TI_COMPLETED && node->metadata ? &node->metadata->root : NULL;
}

void ti_context_push_metadata(lua_State *L, ti_state *state)
{
    const ti_run *run = state->task->run;
    const uint32_t *ancestors;
    uint32_t count = find_ancestors(L, state, &ancestors);
    if (run->metadata)
        ti_convert_push(L, &run->metadata->root);
    else
        lua_newtable(L);
    for (uint32_t i = 0; i < count; i++) {
        const ti_cell *metadata = metadata_of(&run->nodes[ancestors[i]]);
        if (!metadata)
            continue;
        push_text(L, ti_plan_id(run->plan, ancestors[i]));
        ti_convert_push(L, metadata);
        lua_rawset(L, -3);
    }
}

static void push_dependency(lua_State *L, const ti_run *run, uint32_t step)
{
    const ti_node *node = &run->nodes[step];
    const ti_cell *metadata = metadata_of(node);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, ti_status_name((ti_status)node->status));
    lua_setfield(L, -2, "status");
    ti_convert_push(L, &ti_run_value(run, node->source)->root);
    lua_setfield(L, -2, "payload");
    if (metadata) {
        ti_convert_push(L, metadata);
        lua_setfield(L, -2, "metadata");
    }
    if (node->status == TI_FAILED) {
        ti_error_push(L, ti_plan_id(run->plan, step), node->error);
        lua_setfield(L, -2, "error");
    }
}

static void push_dependencies(lua_State *L, ti_state *state)
{
    const ti_run *run = state->task->run;
    const ti_plan *plan = run->plan;
    uint32_t at = state->task->step[0].first_dependency,
             end = state->task->step[1].first_dependency;
    lua_createtable(L, 0, (int)(end - at));
    for (; at < end; at++) {
        push_text(L, ti_plan_id(plan, plan->dependencies[at]));
        push_dependency(L, run, plan->dependencies[at]);
        lua_rawset(L, -3);
    }
}

/* True: pushed the field. Tables are made at the first look and kept for the call. */
static bool push_built(lua_State *L, ti_state *state, const char *key)
{
    bool metadata = strcmp(key, "metadata") == 0;
    if (!metadata && strcmp(key, "dependencies") != 0)
        return false;
    tl_get_fields(L, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        tl_set_fields(L, 1);
    }
    lua_getfield(L, -1, key);
    if (!lua_isnil(L, -1))
        return true;
    lua_pop(L, 1);
    if (metadata)
        ti_context_push_metadata(L, state);
    else
        push_dependencies(L, state);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, key);
    return true;
}

static void push_field(lua_State *L, ti_state *state, const char *key)
{
    const ti_task *task = state->task;
    if (push_built(L, state, key))
        return;
    if (strcmp(key, "id") == 0)
        push_text(L, ti_plan_id(task->run->plan, task->index));
    else if (strcmp(key, "options") == 0)
        ti_state_push_kept(L, state, "options");
    else if (strcmp(key, "state") == 0)
        ti_state_push_kept(L, state, "states");
    else if (strcmp(key, "attempt") == 0)
        lua_pushinteger(L, task->node->attempts);
    else if (strcmp(key, "cancelled") == 0)
        push_method(L, state, is_cancelled);
    else if (strcmp(key, "remaining") == 0)
        push_method(L, state, time_left);
    else
        lua_pushnil(L);
}

static int context_index(lua_State *L)
{
    ti_context *context = luaL_checkudata(L, 1, CONTEXT_TYPE);
    ti_state *state = context->state;
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (!context->call) {
        context->call = state->call;
        state->touched = true;
    }
    if (!state->task || context->call != state->call)
        return luaL_error(L, "ctx is used after its callback returned");
    push_field(L, state, key);
    return 1;
}

static int context_newindex(lua_State *L)
{
    return luaL_error(L, "ctx cannot be changed; return a payload or metadata instead");
}

static int context_tostring(lua_State *L)
{
    lua_pushliteral(L, CONTEXT_TYPE);
    return 1;
}

void ti_context_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__index", context_index},
        {"__newindex", context_newindex},
        {"__tostring", context_tostring},
        {NULL, NULL},
    };
    luaL_newmetatable(L, CONTEXT_TYPE);
    tl_set_functions(L, metamethods);
    lua_pushliteral(L, CONTEXT_TYPE);
    lua_setfield(L, -2, "__name");
    lua_pushliteral(L, CONTEXT_TYPE);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void ti_context_push(lua_State *L, ti_state *state)
{
    ti_context *context = tl_new_userdata(L, sizeof *context);
    *context = (ti_context){.state = state};
    luaL_getmetatable(L, CONTEXT_TYPE);
    lua_setmetatable(L, -2);
}
