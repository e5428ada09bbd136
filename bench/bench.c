/* SPDX-License-Identifier: MIT */
/* Runs a Lua script that has, besides the usual, the table `bench`: a clock and the floor. The
 * floor is what calling the callbacks costs without any engine: one thread and one Lua state that
 * for each call pushes 32 bytes, calls under lua_pcall, reads the answer and copies it into a
 * buffer from malloc. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int bench_now(lua_State *L)
{
    lua_pushnumber(L, now());
    return 1;
}

/* floor(source, calls) -> seconds per call of the function that the source returns */
static int bench_floor(lua_State *L)
{
    const char *source = luaL_checkstring(L, 1);
    long calls = (long)luaL_checkinteger(L, 2);
    static const char payload[32] = "0123456789abcdef0123456789abcdef";
    lua_State *state = luaL_newstate();
    luaL_openlibs(state);
    if (luaL_loadstring(state, source) || lua_pcall(state, 0, 1, 0))
        return luaL_error(L, "%s", lua_tostring(state, -1));
    double began = now();
    for (long i = 0; i < calls; i++) {
        size_t size;
        lua_pushvalue(state, 1);
        lua_pushlstring(state, payload, sizeof payload);
        if (lua_pcall(state, 1, 1, 0))
            return luaL_error(L, "%s", lua_tostring(state, -1));
        const char *answer = lua_tolstring(state, -1, &size);
        char *copy = malloc(size);
        memcpy(copy, answer, size);
        __asm__ __volatile__("" : : "r"(copy) : "memory"); /* the copy is wanted */
        free(copy);
        lua_pop(state, 1);
    }
    double took = now() - began;
    lua_close(state);
    lua_pushnumber(L, took / (double)calls);
    return 1;
}

int main(int count, char **arguments)
{
    static const luaL_Reg functions[] = {{"now", bench_now}, {"floor", bench_floor}, {NULL, NULL}};
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_newtable(L);
    for (const luaL_Reg *function = functions; function->name; function++) {
        lua_pushcfunction(L, function->func);
        lua_setfield(L, -2, function->name);
    }
    lua_setglobal(L, "bench");
    int status = count < 2 || luaL_loadfile(L, arguments[1]);
    for (int i = 2; i < count && !status; i++)
        lua_pushstring(L, arguments[i]);
    status = status || lua_pcall(L, count - 2, 0, 0);
    if (status)
        fprintf(stderr, "%s\n", count < 2 ? "usage: bench SCRIPT" : lua_tostring(L, -1));
    lua_close(L);
    return status;
}
