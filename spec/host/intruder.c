/* SPDX-License-Identifier: MIT */
/* intruder together|in-turn: two threads use one Lua state, at once, or one after the other with
 * nothing that orders them. What looks for races must find that; otherwise the program ends well.
 */
#include <lauxlib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static lua_State *state;
static atomic_bool done;

static void *spin(void *unused)
{
    lua_getglobal(state, "spin");
    lua_call(state, 0, 0);
    return unused;
}

static void *push(void *unused)
{
    lua_pushliteral(state, "mine");
    atomic_store_explicit(&done, true, memory_order_relaxed);
    return unused;
}

int main(int count, char **arguments)
{
    bool together = count == 2 && strcmp(arguments[1], "together") == 0;
    pthread_t thread;
    state = luaL_newstate();
    if (!state || luaL_dostring(state, "function spin() for i = 1, 3e7 do end end"))
        return 2;
    if (pthread_create(&thread, NULL, together ? spin : push, NULL))
        return 2;
    for (int i = 0; i < 100 && together; i++) {
        usleep(1000);
        lua_gc(state, LUA_GCCOUNT, 0);
    }
    while (!together && !atomic_load_explicit(&done, memory_order_relaxed))
        usleep(1000);
    if (!together)
        lua_pushliteral(state, "mine as well");
    pthread_join(thread, NULL);
    return 0;
}
