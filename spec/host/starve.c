/* SPDX-License-Identifier: MIT */
/* starve SCRIPT WHEN STRIDE
 * Each allocation of a whole program in turn fails, alone and with all
 * that follow it: those of the engine, of the host's Lua state and of the workers'.
 *
 * Each time, a new Lua state loads the script, which returns a function, and calls that with `when`
 * and a table: `arm()` begins to starve, `feed()` ends it, or else the closing of the state, after
 * which nothing may be left. It goes on with every STRIDE-th allocation until all were made. */
#include "spec/c/allocator.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PATIENCE 30 /* seconds, for one time */

static long skip;     /* allocations after `arm` that are made */
static bool all_made; /* nothing was refused */
static char doing[200];

static int arm(lua_State *L)
{
    (void)L;
    fail_at = made + skip;
    return 0;
}

static int feed(lua_State *L)
{
    (void)L; /* may be NULL */
    if (fail_at >= 0)
        all_made = made <= fail_at;
    fail_at = -1;
    return 0;
}

/* The library opens before the memory goes. */
static int play(lua_State *L)
{
    luaL_openlibs(L);
    if (luaL_loadfile(L, lua_tostring(L, 1)))
        return lua_error(L);
    lua_call(L, 0, 1);
    lua_pushvalue(L, 2);
    lua_newtable(L);
    lua_pushcfunction(L, arm);
    lua_setfield(L, -2, "arm");
    lua_pushcfunction(L, feed);
    lua_setfield(L, -2, "feed");
    lua_call(L, 2, 0);
    return 0;
}

/* Of what was raised. */
static const char *text_of(lua_State *L)
{
    lua_getglobal(L, "tostring");
    lua_insert(L, -2);
    return lua_pcall(L, 1, 1, 0) || !lua_isstring(L, -1) ? "?" : lua_tostring(L, -1);
}

/* False: it went wrong. */
static bool once(const char *script, const char *when)
{
    lua_State *L = luaL_newstate();
    if (!L)
        return false;
    lua_pushcfunction(L, play);
    lua_pushstring(L, script);
    lua_pushstring(L, when);
    alarm(PATIENCE);
    bool failed = lua_pcall(L, 2, 0, 0);
    if (failed) {
        feed(L);
        fprintf(stderr, "%s: %s\n", doing, text_of(L));
    }
    lua_close(L);
    feed(NULL);
    alarm(0);
    return !failed;
}

static void hung(int signal)
{
    static const char text[] = ": it hangs\n";
    (void)signal;
    if (write(STDERR_FILENO, doing, strlen(doing)) > 0 &&
        write(STDERR_FILENO, text, sizeof text - 1) > 0)
        abort();
    abort();
}

enum { THREADS = 8 };

static void meet(void *barrier)
{
    uv_barrier_wait(barrier);
}

/* libc keeps the stacks of so many threads and what belongs to them, if they are small; from then
 * on it makes no more. */
static void make_stacks(void)
{
    uv_thread_t threads[THREADS];
    uv_barrier_t barrier;
    setrlimit(RLIMIT_STACK, &(struct rlimit){1 << 20, 1 << 20});
    uv_barrier_init(&barrier, THREADS);
    for (int i = 0; i < THREADS; i++)
        uv_thread_create(&threads[i], meet, &barrier);
    for (int i = 0; i < THREADS; i++)
        uv_thread_join(&threads[i]);
    uv_barrier_destroy(&barrier);
}

int main(int count, char **arguments)
{
    if (count != 4 || allocator_open())
        return 2;
    const char *script = arguments[1], *when = arguments[2];
    long stride = atol(arguments[3]);
    unsigned failures = 0, times = 0;
    signal(SIGALRM, hung);
    make_stacks();
    for (int ever_after = 0; ever_after < 2; ever_after++) {
        fail_ever_after = ever_after;
        for (int warm = 0; warm < 3; warm++) { /* what is allocated once and kept */
            skip = 1000000000;
            snprintf(doing, sizeof doing, "%s: with all memory", when);
            failures += !once(script, when);
        }
        all_made = false;
        for (skip = ever_after; !all_made && failures < 10; skip += stride, times++) {
            snprintf(doing, sizeof doing, "%s: allocation %ld%s", when, skip,
                     ever_after ? " and all after it" : "");
            long before = live;
            failures += !once(script, when);
            if (!SANITIZED && live != before) {
                fprintf(stderr, "%s: %ld blocks are left\n", doing, live - before);
                failures++;
            }
        }
    }
    printf("%s: %u times\n", when, times);
    return failures > 0;
}
