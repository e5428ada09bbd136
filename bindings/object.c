/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>

#include "bindings/host.h"
#include "bindings/state.h"

/* Functions of a type have its metatable as their first upvalue. True: so has the value at 1. */
static bool is_own(lua_State *L)
{
    if (!lua_getmetatable(L, 1))
        return false;
    bool same = lua_topointer(L, -1) == lua_topointer(L, lua_upvalueindex(1));
    lua_pop(L, 1);
    return same;
}

void *ti_host_test(lua_State *L, const char *type)
{
    void *data = lua_touserdata(L, 1);
    if (!data)
        return NULL;
    return is_own(L) ? data : tl_test_userdata(L, 1, type);
}

void *ti_host_check(lua_State *L, const char *type)
{
    void *data = ti_host_test(L, type);
    return data ? data : luaL_checkudata(L, 1, type);
}

lua_Number ti_host_check_seconds(lua_State *L, int index, const char *method)
{
    if (lua_isnoneornil(L, index))
        return -1;
    if (!lua_isnumber(L, index))
        return luaL_error(L, "%s takes a number of seconds, but it got a %s", method,
                          luaL_typename(L, index));
    lua_Number seconds = lua_tonumber(L, index);
    if (seconds >= 0)
        return seconds;
    return luaL_error(L, "%s takes a number of seconds, but it got %s", method,
                      seconds < 0 ? "one below 0" : "nan, which is not a number");
}

uint64_t ti_host_nanoseconds(lua_Number seconds)
{
    return seconds < 0 || seconds > 1e9 ? UINT64_MAX : (uint64_t)((double)seconds * 1e9);
}

/* The second upvalue has the methods. */
static int object_index(lua_State *L)
{
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(2));
    if (!lua_isnil(L, -1))
        return 1;
    luaL_argcheck(L, lua_type(L, 1) == LUA_TUSERDATA && is_own(L), 1, "not an object of this type");
    tl_get_fields(L, 1);
    if (!lua_istable(L, -1))
        return 0;
    lua_pushvalue(L, 2);
    lua_gettable(L, -2);
    return 1;
}

void ti_host_new_type(lua_State *L, const char *type, const luaL_Reg *methods,
                      const luaL_Reg *metamethods)
{
    luaL_newmetatable(L, type);
    lua_getfield(L, -1,
                 "methods"); /* set last, so an attempt that ran out of memory is made again */
    bool done = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (done)
        return; /* the module was loaded before, and its objects live on */
    lua_pushvalue(L, -1);
    tl_set_closures(L, metamethods, 1);
    lua_pushstring(L, type);
    lua_setfield(L, -2, "__name");
    lua_newtable(L);
    lua_pushvalue(L, -2);
    tl_set_closures(L, methods, 1);
    lua_getfield(L, -2, "__index");
    if (lua_isnil(L, -1)) {
        lua_pushvalue(L, -3);
        lua_pushvalue(L, -3);
        lua_pushcclosure(L, object_index, 2);
        lua_setfield(L, -4, "__index");
    }
    lua_pop(L, 1);
    lua_setfield(L, -2, "methods");
}

void ti_host_push_fields(lua_State *L, int index)
{
    tl_get_fields(L, index);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    tl_set_fields(L, index);
}

int ti_host_fail(lua_State *L, ti_code code, const char *format, ...)
{
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= sizeof text)
        size = sizeof text - 1;
    ti_error error = {.code = code, .message = text, .message_size = (size_t)size};
    lua_pushnil(L);
    ti_error_push(L, (ti_text){NULL, 0}, &error);
    return 2;
}

int ti_host_closed(lua_State *L, const ti_engine *engine)
{
    bool forked = engine && ti_engine_forked(engine);
    return ti_host_fail(L, TI_E_CLOSED, "%s",
                        forked ? "the engine belongs to the process that this one was forked from"
                               : "the engine is closed");
}
