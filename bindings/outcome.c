/* SPDX-License-Identifier: MIT */
/* What became of a run, as Lua values. All of these may raise, and own nothing. */
#include <string.h>

#include "bindings/host.h"
#include "bindings/state.h"

static void push_text(lua_State *L, ti_text text)
{
    lua_pushlstring(L, text.bytes, text.size);
}

static ti_text id_of(const ti_run *run, uint32_t step)
{
    return ti_plan_id(run->plan, step);
}

void ti_outcome_push_metadata(lua_State *L, const ti_run *run)
{
    if (run->metadata)
        ti_convert_push(L, &run->metadata->root);
    else
        lua_newtable(L);
    for (uint32_t i = 0; i < run->plan->count; i++) {
        const ti_node *node = &run->nodes[i];
        if (node->status != TI_COMPLETED || !node->metadata)
            continue;
        push_text(L, id_of(run, i));
        ti_convert_push(L, &node->metadata->root);
        lua_rawset(L, -3);
    }
}

/* "the run was cancelled: why", or without a why. */
static void push_reason(lua_State *L, ti_run *run)
{
    const ti_value *reason = ti_load_acquire(&run->reason);
    if (run->verdict == TI_STOP_TIMEOUT) {
        lua_pushfstring(L, "the run took longer than %f s", (lua_Number)run->timeout / 1e9);
        return;
    }
    if (run->verdict != TI_STOP_CANCELLED) {
        lua_pushliteral(L, "another processor of the run failed");
        return;
    }
    lua_pushliteral(L, "the run was cancelled");
    if (!reason)
        return;
    lua_pushliteral(L, ": ");
    ti_convert_push(L, &reason->root);
    lua_concat(L, 3);
}

/* An error without a record: the processor was kept from running. The message is on top. */
static void push_kept(lua_State *L, const ti_run *run, uint32_t step, ti_code code)
{
    lua_createtable(L, 0, 4);
    lua_insert(L, -2);
    lua_setfield(L, -2, "message");
    lua_pushstring(L, ti_code_name(code));
    lua_setfield(L, -2, "code");
    if (step != TI_NONE) {
        push_text(L, id_of(run, step));
        lua_setfield(L, -2, "processor");
    }
    luaL_getmetatable(L, TI_ERROR_TYPE);
    lua_setmetatable(L, -2);
}

static void push_skipped(lua_State *L, const ti_run *run, uint32_t step)
{
    uint32_t root = run->nodes[step].root;
    lua_pushliteral(L, "not run, because '");
    push_text(L, id_of(run, root));
    lua_pushliteral(L, "' failed");
    lua_concat(L, 3);
    push_kept(L, run, step, TI_E_DEPENDENCY_FAILED);
    push_text(L, id_of(run, root));
    lua_setfield(L, -2, "root");
}

/* True: pushed the error of a processor that did not complete. */
static bool push_processor_error(lua_State *L, ti_run *run, uint32_t step)
{
    const ti_node *node = &run->nodes[step];
    switch ((ti_status)node->status) {
    case TI_FAILED:
        ti_error_push(L, id_of(run, step), node->error);
        return true;
    case TI_SKIPPED:
        if (node->root == TI_NONE)
            return false; /* its condition did not hold */
        push_skipped(L, run, step);
        return true;
    case TI_CANCELLED:
        push_reason(L, run);
        push_kept(L, run, step, TI_E_CANCELLED);
        return true;
    default:
        return false;
    }
}

static void set_seconds(lua_State *L, const char *field, uint64_t nanoseconds)
{
    lua_pushnumber(L, (lua_Number)nanoseconds / 1e9);
    lua_setfield(L, -2, field);
}

/* Pushes the errors of all failed attempts, the first one first; false: there are none. */
static bool push_attempt_errors(lua_State *L, const ti_run *run, uint32_t step)
{
    const ti_node *node = &run->nodes[step];
    const ti_error *last = node->status == TI_FAILED ? node->error : run->attempts[step].errors;
    int count = 0;
    for (const ti_error *error = last; error; error = error->previous)
        count++;
    if (!count)
        return false;
    lua_createtable(L, count, 0);
    for (const ti_error *error = last; error; error = error->previous) {
        ti_error_push(L, id_of(run, step), error);
        lua_rawseti(L, -2, count--);
    }
    return true;
}

static void push_outcome(lua_State *L, ti_run *run, uint32_t step)
{
    const ti_node *node = &run->nodes[step];
    lua_createtable(L, 0, 4);
    lua_pushstring(L, ti_status_name((ti_status)node->status));
    lua_setfield(L, -2, "status");
    lua_pushinteger(L, node->attempts);
    lua_setfield(L, -2, "attempts");
    if (node->status == TI_COMPLETED && node->source == step + 1) {
        ti_convert_push(L, &node->payload->root);
        lua_setfield(L, -2, "payload");
    }
    if (node->status == TI_COMPLETED && node->metadata) {
        ti_convert_push(L, &node->metadata->root);
        lua_setfield(L, -2, "metadata");
    }
    if (push_processor_error(L, run, step))
        lua_setfield(L, -2, "error");
    if (run->attempts && push_attempt_errors(L, run, step))
        lua_setfield(L, -2, "errors");
    if (run->profile && node->attempts) {
        set_seconds(L, "started", run->times[step].started);
        set_seconds(L, "finished", run->times[step].finished);
        lua_pushinteger(L, (lua_Integer)run->times[step].worker + 1);
        lua_setfield(L, -2, "worker");
    }
}

void ti_outcome_push_outcomes(lua_State *L, ti_run *run)
{
    lua_createtable(L, 0, (int)run->plan->count);
    for (uint32_t i = 0; i < run->plan->count; i++) {
        push_text(L, id_of(run, i));
        push_outcome(L, run, i);
        lua_rawset(L, -3);
    }
}

void ti_outcome_push_failures(lua_State *L, const ti_run *run)
{
    int count = 0;
    lua_newtable(L);
    for (uint32_t step = ti_run_next_failure(run, 0); step != TI_NONE;
         step = ti_run_next_failure(run, step + 1)) {
        ti_error_push(L, id_of(run, step), run->nodes[step].error);
        lua_rawseti(L, -2, ++count);
    }
}

void ti_outcome_push_error(lua_State *L, ti_run *run, int failures)
{
    if (ti_run_status(run) == TI_CANCELLED) {
        push_reason(L, run);
        push_kept(L, run, TI_NONE, run->verdict == TI_STOP_TIMEOUT ? TI_E_TIMEOUT : TI_E_CANCELLED);
    } else {
        lua_rawgeti(L, failures, 1);
    }
    lua_pushvalue(L, failures);
    lua_setfield(L, -2, "failures");
}
