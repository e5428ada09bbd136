/* SPDX-License-Identifier: MIT */
/* dag:stream: the userdata that pulls a source, keeps a bounded number of runs in flight and hands
 * them back. Calling it is its iterator. */
#include <stdlib.h>

#include "bindings/host.h"
#include "engine/stream.h"

/* Its table of fields: these, and from INPUTS + 1 on what was pushed, by slot. */
enum { SOURCE = 1, RAISED, REFUSED, DAG, INPUTS = DAG };

typedef struct ti_host_stream {
    ti_stream *stream;      /* NULL: it was closed */
    ti_program *program;    /* the stream has a reference */
    ti_host_engine *engine; /* kept alive by the fields, through the dag */
    ti_run_options options;
    ti_run *next;       /* on its way into the stream */
    ti_value *input;    /* on its way into a run */
    ti_value *metadata; /* of all runs, or NULL */
    uint32_t *free;     /* slots of inputs that are not in use: a stack */
    uint32_t most, frees;
    uint32_t refusals; /* how many of those in flight are in REFUSED */
    bool ended;        /* nothing is pulled any more */
    bool raised;       /* the source raised what is in RAISED, which is to come out at the end */
    bool pulls;        /* it has a source */
    bool pulling;      /* which is being called */
} ti_host_stream;

static ti_host_stream *check_stream(lua_State *L)
{
    return ti_host_check(L, TI_STREAM_TYPE);
}

static void clear_next(ti_host_stream *self)
{
    ti_run_release(self->next);
    ti_value_release(self->input);
    self->next = NULL;
    self->input = NULL;
}

static int stream_close(lua_State *L)
{
    ti_host_stream *self = ti_host_test(L, TI_STREAM_TYPE);
    if (!self)
        return 0;
    ti_stream *stream = self->stream;
    self->stream = NULL;
    ti_stream_close(stream);
    clear_next(self);
    ti_value_release(self->metadata);
    self->metadata = NULL;
    free(self->free);
    self->free = NULL;
    return 0;
}

/* Its place in the stream is the error on top of the stack, which is popped. */
static void refuse(lua_State *L, ti_host_stream *self, uint32_t slot)
{
    lua_rawgeti(L, 2, REFUSED);
    lua_insert(L, -2);
    lua_rawseti(L, -2, (int)slot);
    lua_pop(L, 1);
    self->refusals++;
}

/* The run of self->input, or of nothing if that is none; NULL: no memory. */
static ti_run *make_run(ti_host_stream *self)
{
    bool refused = !self->input;
    ti_value *input = refused ? ti_value_nil() : self->input;
    self->input = NULL;
    self->next = ti_run_new(self->program, input, ti_value_retain(self->metadata), &self->options);
    if (self->next && refused)
        ti_run_refuse(self->next);
    return self->next;
}

/* Pushes the value on top of the stack; what is at `input` is handed back for it. The fields are at
 * 2. `refusing`: a value that can't travel takes its place all the same. False: nil and an error
 * are on top. */
static bool push_top(lua_State *L, ti_host_stream *self, int input, bool refusing)
{
    ti_conversion conversion;
    int value = lua_gettop(L);
    clear_next(self);
    ti_convert_begin(&conversion, &self->engine->scratch, "payload");
    self->input = ti_convert_to(L, value, &conversion);
    bool refused = !self->input;
    size_t bytes = refused ? 0 : self->input->bytes;
    if (refused) {
        ti_host_fail(L, conversion.code, "%s", conversion.message); /* may run finalizers ... */
        if (!refusing)
            return false;
    }
    if (!self->stream || !self->frees) /* ... that use the stream */
        return ti_host_fail(L, TI_E_CLOSED, "the stream is closed"), false;
    if (!make_run(self))
        return ti_host_fail(L, TI_E_MEMORY_LIMIT, "not enough memory for a run"), false;
    uint32_t slot = self->free[self->frees - 1];
    self->next->tag = slot;
    ti_code code = ti_stream_push(self->stream, self->next);
    if (code)
        return ti_host_fail(L, code, "%s", ti_code_text(code)), false;
    self->next = NULL;
    self->frees--;
    if (refused)
        refuse(L, self, slot);
    lua_pushvalue(L, input);
    lua_rawseti(L, 2, (int)(INPUTS + slot));
    ti_host_tell_collector(L, self->engine, bytes);
    return true;
}

/* Keeps what is on top of the stack to be raised when all that is in flight has been handed back.
 */
static void raise_later(lua_State *L, ti_host_stream *self)
{
    lua_rawseti(L, 2, RAISED);
    self->ended = self->raised = true;
}

/* Pulls the source while there is room. */
static void fill(lua_State *L, ti_host_stream *self)
{
    while (self->stream && !self->ended && self->frees > 0) {
        lua_rawgeti(L, 2, SOURCE);
        self->pulling = true;
        int raised = lua_pcall(L, 0, 1, 0);
        self->pulling = false;
        if (raised)
            raise_later(L, self);
        else if (!self->stream || lua_isnil(L, -1)) /* a source may close its stream */
            self->ended = true;
        else if (!push_top(L, self, lua_gettop(L), true) && self->stream)
            raise_later(L, self);
        lua_settop(L, 2);
    }
}

/* Hands the error of a refused input out in place of its result, which is on top. */
static int give_refusal(lua_State *L, ti_host_stream *self, uint32_t slot)
{
    lua_rawgeti(L, 2, REFUSED);
    lua_rawgeti(L, -1, (int)slot);
    lua_pushnil(L);
    lua_rawseti(L, -3, (int)slot);
    self->refusals--;
    lua_pushnil(L);
    lua_replace(L, -4);
    lua_replace(L, -2);
    return 2;
}

static bool is_refused(lua_State *L, const ti_host_stream *self, uint32_t slot)
{
    if (!self->refusals)
        return false;
    lua_rawgeti(L, 2, REFUSED);
    lua_rawgeti(L, -1, (int)slot);
    bool is = !lua_isnil(L, -1);
    lua_pop(L, 2);
    return is;
}

/* Returns input, result, error of the next run that has settled; nil: there is none. */
static int take(lua_State *L, ti_host_stream *self, uint64_t nanoseconds)
{
    lua_settop(L, 2);
    lua_pushnil(L); /* the input */
    ti_host_result *result = ti_host_new_result(L);
    if (!self->stream) /* a finalizer may have closed it even now */
        return 0;
    ti_run *run = ti_stream_next(self->stream, nanoseconds);
    if (!run)
        return 0;
    ti_host_set_run(result, run);
    uint32_t slot = (uint32_t)run->tag;
    self->free[self->frees++] = slot;
    lua_rawgeti(L, 2, (int)(INPUTS + slot));
    lua_replace(L, 3);
    lua_pushboolean(L, 0); /* keeps the slot in the array part */
    lua_rawseti(L, 2, (int)(INPUTS + slot));
    if (is_refused(L, self, slot))
        return 1 + give_refusal(L, self, slot);
    int results = ti_host_finish(L, self->engine, result);
    lua_pushvalue(L, 3);
    lua_insert(L, -results - 1);
    return results + 1;
}

/* The iterator of a generic for. */
static int stream_call(lua_State *L)
{
    ti_host_stream *self = check_stream(L);
    if (self->pulling)
        return luaL_error(L, "the source of a stream cannot take from that stream");
    lua_settop(L, 1);
    tl_get_fields(L, 1);
    fill(L, self);
    int results = take(L, self, UINT64_MAX);
    if (results || !self->raised)
        return results;
    self->raised = false;
    lua_rawgeti(L, 2, RAISED);
    return lua_error(L);
}

/* stream:push(payload[, input]) -> true | nil, error. `input` is handed back in the payload's
 * place.
 */
static int stream_push(lua_State *L)
{
    ti_host_stream *self = check_stream(L);
    if (self->pulls)
        return luaL_error(L, "a stream that has a source cannot be pushed into");
    luaL_argcheck(L, !lua_isnoneornil(L, 2), 2, "a payload expected, got nil, which ends a loop");
    lua_settop(L, 3);
    lua_insert(L, 2);
    tl_get_fields(L, 1);
    lua_insert(L, 2); /* stream fields input payload */
    if (!self->stream)
        return ti_host_fail(L, TI_E_CLOSED, "the stream is closed");
    if (!self->frees)
        return ti_host_fail(L, TI_E_QUEUE_FULL, "%u runs are in flight; take some results first",
                            (unsigned)self->most);
    if (!push_top(L, self, lua_isnil(L, 3) ? 4 : 3, false))
        return 2;
    lua_pushboolean(L, 1);
    return 1;
}

/* Upvalues: the stream, nanoseconds. */
static int next_result(lua_State *L)
{
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    ti_host_stream *self = check_stream(L);
    tl_get_fields(L, 1);
    return take(L, self, ti_host_nanoseconds(lua_tonumber(L, lua_upvalueindex(2))));
}

/* stream:results([seconds]): an iterator over what settles; it ends when nothing is in flight, or
 * nothing settles for that long. */
static int stream_results(lua_State *L)
{
    check_stream(L);
    lua_Number seconds = ti_host_check_seconds(L, 2, "stream:results");
    lua_settop(L, 1);
    lua_pushnumber(L, seconds);
    lua_pushcclosure(L, next_result, 2);
    return 1;
}

static int stream_in_flight(lua_State *L)
{
    ti_host_stream *self = check_stream(L);
    lua_pushinteger(L, self->stream ? (lua_Integer)ti_stream_in_flight(self->stream) : 0);
    return 1;
}

static int stream_tostring(lua_State *L)
{
    ti_host_stream *self = check_stream(L);
    if (!self->stream)
        lua_pushfstring(L, "%s: closed", TI_STREAM_TYPE);
    else
        lua_pushfstring(L, "%s: %d of %d in flight", TI_STREAM_TYPE,
                        (int)ti_stream_in_flight(self->stream), (int)self->most);
    return 1;
}

/* With the stream at 7. */
static void keep_fields(lua_State *L)
{
    lua_createtable(L, 16, 0);
    lua_newtable(L);
    lua_rawseti(L, 8, REFUSED);
    lua_pushvalue(L, 5);
    lua_rawseti(L, 8, SOURCE);
    lua_pushvalue(L, 1);
    lua_rawseti(L, 8, DAG);
    tl_set_fields(L, 7);
}

int ti_host_new_stream(lua_State *L)
{
    ti_host_dag *dag = ti_host_check_dag(L);
    lua_settop(L, 6);
    bool pulls = !lua_isnil(L, 5);
    ti_stream_options options = {
        .most = (uint32_t)luaL_checkinteger(L, 3),
        .ordered = lua_toboolean(L, 4),
        .background = !pulls && lua_toboolean(L, 6),
        .signals = !pulls,
    };
    ti_host_stream *self = tl_new_userdata(L, sizeof *self);
    *self = (ti_host_stream){
        .program = dag->program,
        .engine = dag->engine,
        .most = options.most,
        .frees = options.most,
        .ended = !pulls,
        .pulls = pulls,
    };
    luaL_getmetatable(L, TI_STREAM_TYPE);
    lua_setmetatable(L, -2);
    keep_fields(L);
    if (!dag->engine->engine || ti_engine_closed(dag->engine->engine))
        return ti_host_fail(L, TI_E_CLOSED, "the engine is closed");
    int failed = ti_host_read_options(L, 2, dag, &self->metadata, &self->options);
    if (failed)
        return failed;
    self->free = malloc(options.most * sizeof *self->free);
    self->stream = self->free ? ti_stream_open(dag->program, &options) : NULL;
    if (!self->stream)
        return ti_host_fail(L, TI_E_MEMORY_LIMIT, "not enough memory for a stream");
    for (uint32_t i = 0; i < options.most; i++)
        self->free[i] = options.most - i;
    return 1;
}

void ti_host_open_streams(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"push", stream_push},
        {"results", stream_results},
        {"close", stream_close},
        {"in_flight", stream_in_flight},
        {NULL, NULL},
    };
    static const luaL_Reg meta[] = {
        {"__call", stream_call},         {"__gc", stream_close}, {"__close", stream_close},
        {"__tostring", stream_tostring}, {NULL, NULL},
    };
    ti_host_new_type(L, TI_STREAM_TYPE, methods, meta);
    lua_pop(L, 1);
}
