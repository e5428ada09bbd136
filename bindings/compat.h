/* SPDX-License-Identifier: MIT */
/* One Lua to write for: PUC Lua 5.1, 5.3, 5.4, 5.5 and LuaJIT differ in here and nowhere else. */
#ifndef TI_COMPAT_H
#define TI_COMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#if __has_include(<luajit.h>)
#include <luajit.h>
#endif

#include <stdint.h>

/* A userdata with a table attached, or, as it is new, nil. In 5.1 and LuaJIT there must be a table,
 * so the registry stands for nil. */
#if LUA_VERSION_NUM >= 504
#define tl_new_userdata(L, size) lua_newuserdatauv(L, size, 1)
#define tl_set_fields(L, index) lua_setiuservalue(L, index, 1)
#define tl_get_fields(L, index) lua_getiuservalue(L, index, 1)
#elif LUA_VERSION_NUM >= 502
#define tl_new_userdata(L, size) lua_newuserdata(L, size)
#define tl_set_fields(L, index) lua_setuservalue(L, index)
#define tl_get_fields(L, index) lua_getuservalue(L, index)
#else
#define tl_set_fields(L, index) lua_setfenv(L, index)

static inline void *tl_new_userdata(lua_State *L, size_t size)
{
    void *data = lua_newuserdata(L, size);
    lua_pushvalue(L, LUA_REGISTRYINDEX);
    lua_setfenv(L, -2);
    return data;
}

static inline void tl_get_fields(lua_State *L, int index)
{
    lua_getfenv(L, index);
    if (lua_rawequal(L, -1, LUA_REGISTRYINDEX)) {
        lua_pop(L, 1);
        lua_pushnil(L);
    }
}
#endif

#if LUA_VERSION_NUM >= 503
#define tl_is_integer(L, index) lua_isinteger(L, index)
#define tl_to_integer(L, index) lua_tointeger(L, index)
#define tl_push_integer(L, integer) lua_pushinteger(L, integer)
#else
#define tl_is_integer(L, index) 0
#define tl_to_integer(L, index) 0
#define tl_push_integer(L, integer) lua_pushnumber(L, (lua_Number)(integer))
#endif

/* The collector works as if so many bytes had been allocated, of which there are no more than fit
 * into an int as kilobytes. True: that ended a cycle. */
#if LUA_VERSION_NUM >= 505
#define tl_gc_step(L, bytes) lua_gc(L, LUA_GCSTEP, (size_t)(bytes))
#else
#define tl_gc_step(L, bytes) lua_gc(L, LUA_GCSTEP, (int)((bytes) >> 10))
#endif

#if LUA_VERSION_NUM >= 505
#define tl_newstate(allocate, context) lua_newstate(allocate, context, luaL_makeseed(NULL))
#else
#define tl_newstate(allocate, context) lua_newstate(allocate, context)
#endif

/* Calls a C function with a pointer, where even pushing the function might raise. */
#if LUA_VERSION_NUM < 502
#define tl_protected(L, function, pointer) lua_cpcall(L, function, pointer)
#else
static inline int tl_protected(lua_State *L, lua_CFunction function, void *pointer)
{
    lua_pushcfunction(L, function);
    lua_pushlightuserdata(L, pointer);
    return lua_pcall(L, 1, 0, 0);
}
#endif

#if LUA_VERSION_NUM < 502
#define lua_rawlen lua_objlen

#ifndef LUAJIT_VERSION
static inline void lua_copy(lua_State *L, int from, int to)
{
    lua_pushvalue(L, from);
    lua_replace(L, to);
}
#endif

static inline int lua_absindex(lua_State *L, int index)
{
    return index > 0 || index <= LUA_REGISTRYINDEX ? index : lua_gettop(L) + index + 1;
}

static inline void tl_set_closures(lua_State *L, const luaL_Reg *functions, int upvalues)
{
    for (; functions->name; functions++) {
        for (int i = 0; i < upvalues; i++)
            lua_pushvalue(L, -upvalues);
        lua_pushcclosure(L, functions->func, upvalues);
        lua_setfield(L, -upvalues - 2, functions->name);
    }
    lua_pop(L, upvalues);
}

static inline void *tl_test_userdata(lua_State *L, int index, const char *name)
{
    void *data = lua_touserdata(L, index);
    if (!data || !lua_getmetatable(L, index))
        return NULL;
    luaL_getmetatable(L, name);
    int same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same ? data : NULL;
}

/* 5.1 has no luaL_traceback; its debug library has. */
static inline void tl_push_traceback(lua_State *L, int level)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(L, -1, "debug");
    lua_getfield(L, -1, "traceback");
    lua_pushliteral(L, "");
    lua_pushinteger(L, level + 1);
    lua_call(L, 2, 1);
    lua_replace(L, -3);
    lua_pop(L, 1);
}
#else
#define tl_set_closures(L, functions, upvalues) luaL_setfuncs(L, functions, upvalues)
#define tl_test_userdata(L, index, name) luaL_testudata(L, index, name)
#define tl_push_traceback(L, level) luaL_traceback(L, L, NULL, level)
#endif

/* Sets functions in the table on top; the others with as many values above it as upvalues, which
 * are popped. */
#define tl_set_functions(L, functions) tl_set_closures(L, functions, 0)

#endif
