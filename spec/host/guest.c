/* SPDX-License-Identifier: MIT */
/* A plugin with Lua in it: a library that its host loads, calls and unloads. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

__attribute__((visibility("default"))) int guest_run(const char *script);

/* 0, or 1 with the error on standard error. */
int guest_run(const char *script)
{
    lua_State *L = luaL_newstate();
    if (!L)
        return 1;
    luaL_openlibs(L);
    int failed = luaL_loadfile(L, script) || lua_pcall(L, 0, 0, 0);
    if (failed)
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    lua_close(L);
    return failed;
}
