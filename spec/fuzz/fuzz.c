/* SPDX-License-Identifier: MIT */
/* Hands what libFuzzer makes up to a function in Lua: spec/fuzz/$TIDEMILL_FUZZ.lua returns it. What
 * it raises is a finding; engine and bindings are instrumented and watched by ASan and UBSan. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int luaopen_tidemill_core(lua_State *L);
int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static lua_State *L;

static void stop(void)
{
    fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
    abort();
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    const char *target = getenv("TIDEMILL_FUZZ");
    L = luaL_newstate();
    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_tidemill_core);
    lua_setfield(L, -2, "tidemill.core");
    lua_settop(L, 0);
    lua_pushfstring(L, "spec/fuzz/%s.lua", target ? target : "value");
    if (luaL_loadfile(L, lua_tostring(L, 1)) || lua_pcall(L, 0, 1, 0))
        stop();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lua_pushvalue(L, 2);
    lua_pushlstring(L, (const char *)bytes, size);
    if (lua_pcall(L, 1, 0, 0))
        stop();
    return 0;
}
