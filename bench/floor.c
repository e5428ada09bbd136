/* SPDX-License-Identifier: MIT */
/* The floor is what calling the callbacks costs without any engine: one thread and one Lua state
 * that for each call pushes the payload, calls under lua_pcall, reads the answer and copies it
 * into a buffer from malloc. A table is built from C values and walked into one block. */
#include "bench/bench.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    lua_State *state; /* has the callback at 1 */
    char *payload;
    size_t size;
    int fields; /* of a table; 0: the payload is a string */
} floor_side;

enum { KEY_SIZE = 24 };

static void push_table(floor_side *side)
{
    lua_State *L = side->state;
    lua_createtable(L, 0, side->fields);
    for (int i = 0; i < side->fields; i++) {
        lua_pushstring(L, side->payload + (size_t)i * KEY_SIZE);
        lua_pushinteger(L, i);
        lua_rawset(L, -3);
    }
}

static void copy_string(lua_State *L)
{
    size_t size;
    const char *answer = lua_tolstring(L, -1, &size);
    char *copy = malloc(size);
    memcpy(copy, answer, size);
    __asm__ __volatile__("" : : "r"(copy) : "memory"); /* the copy is wanted */
    free(copy);
}

static void copy_table(lua_State *L, int fields)
{
    enum { FIELD = KEY_SIZE + sizeof(lua_Integer) };
    char *block = malloc((size_t)fields * FIELD), *end = block;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        size_t size;
        const char *key = lua_tolstring(L, -2, &size);
        lua_Integer value = lua_tointeger(L, -1);
        memcpy(end, key, size + 1);
        memcpy(end + KEY_SIZE, &value, sizeof value);
        end += FIELD;
    }
    __asm__ __volatile__("" : : "r"(block) : "memory");
    free(block);
}

static void call(lua_State *L, floor_side *side)
{
    lua_State *state = side->state;
    lua_pushvalue(state, 1);
    if (side->fields)
        push_table(side);
    else
        lua_pushlstring(state, side->payload, side->size);
    if (lua_pcall(state, 1, 1, 0))
        luaL_error(L, "%s", lua_tostring(state, -1));
    if (side->fields)
        copy_table(state, side->fields);
    else
        copy_string(state);
    lua_pop(state, 1);
}

/* What no engine can do without: the call alone, with a payload that is there already. */
static int floor_bare(lua_State *L)
{
    floor_side *side = luaL_checkudata(L, 1, "bench.floor");
    lua_State *state = side->state;
    long calls = (long)luaL_checkinteger(L, 2);
    lua_pushlstring(state, side->payload, side->size);
    for (long i = 0; i < calls; i++) {
        lua_pushvalue(state, 1);
        lua_pushvalue(state, 2);
        lua_call(state, 1, 1);
        lua_settop(state, 2);
    }
    lua_settop(state, 1);
    return 0;
}

static int floor_call(lua_State *L)
{
    floor_side *side = luaL_checkudata(L, 1, "bench.floor");
    long calls = (long)luaL_checkinteger(L, 2);
    for (long i = 0; i < calls; i++)
        call(L, side);
    return 0;
}

static int floor_gc(lua_State *L)
{
    floor_side *side = luaL_checkudata(L, 1, "bench.floor");
    if (side->state)
        lua_close(side->state);
    free(side->payload);
    return 0;
}

static char *keys(int fields)
{
    char *list = malloc((size_t)fields * KEY_SIZE);
    for (int i = 0; i < fields; i++)
        snprintf(list + (size_t)i * KEY_SIZE, KEY_SIZE, "field%d", i + 1);
    return list;
}

int bench_floor(lua_State *L)
{
    const char *source = luaL_checkstring(L, 1);
    floor_side *side = lua_newuserdata(L, sizeof *side);
    memset(side, 0, sizeof *side);
    if (luaL_newmetatable(L, "bench.floor")) {
        lua_pushcfunction(L, floor_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, floor_call);
        lua_setfield(L, -2, "call");
        lua_pushcfunction(L, floor_bare);
        lua_setfield(L, -2, "bare");
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
    }
    lua_setmetatable(L, -2);
    if (lua_type(L, 2) == LUA_TNUMBER) {
        side->fields = (int)lua_tointeger(L, 2);
        side->payload = keys(side->fields);
    } else {
        const char *payload = luaL_checklstring(L, 2, &side->size);
        side->payload = memcpy(malloc(side->size), payload, side->size);
    }
    side->state = luaL_newstate();
    luaL_openlibs(side->state);
    if (luaL_loadstring(side->state, source) || lua_pcall(side->state, 0, 1, 0))
        return luaL_error(L, "%s", lua_tostring(side->state, -1));
    return 1;
}
