/* SPDX-License-Identifier: MIT */
/* What the machine itself can do at once: processes that share nothing. */
#include "bench/bench.h"

#include <lauxlib.h>
#include <lualib.h>

#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int call(lua_State *L, long calls)
{
    for (long i = 0; i < calls; i++) {
        lua_pushvalue(L, 1);
        lua_pushliteral(L, "0123456789abcdef0123456789abcdef");
        if (lua_pcall(L, 1, 0, 0))
            return 1;
    }
    return 0;
}

/* What this process waited for a core, in seconds (Linux). */
static double waited(void)
{
    unsigned long long ran, queued = 0;
    FILE *file = fopen("/proc/self/schedstat", "r");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &ran, &queued) != 2)
        queued = 0;
    fclose(file);
    return (double)queued / 1e9;
}

/* Says on `ready` that it is warm, begins when `go` is closed, and says how long it waited. */
static int child(const char *source, long calls, int ready, int go)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    if (luaL_loadstring(L, source) || lua_pcall(L, 0, 1, 0) || call(L, 1))
        return 1;
    char byte;
    double before = waited();
    if (write(ready, &before, sizeof before) != sizeof before || read(go, &byte, 1) != 0)
        return 1;
    if (call(L, calls))
        return 1;
    double more = waited() - before;
    return write(ready, &more, sizeof more) != sizeof more;
}

/* Returns how many have failed. */
static int await(const pid_t *children, int count)
{
    int failures = 0;
    for (int i = 0; i < count; i++) {
        int status = 1;
        waitpid(children[i], &status, 0);
        failures += status != 0;
    }
    return failures;
}

/* Of what `count` processes say. */
static double sum(int pipe, int count)
{
    double total = 0, number;
    while (count-- > 0 && read(pipe, &number, sizeof number) == sizeof number)
        total += number;
    return total;
}

int bench_processes(lua_State *L)
{
    const char *source = luaL_checkstring(L, 1);
    int count = (int)luaL_checkinteger(L, 2), ready[2], go[2];
    long calls = (long)luaL_checkinteger(L, 3);
    pid_t children[MOST];
    luaL_argcheck(L, count > 0 && count <= MOST, 2, "1 to 64");
    if (pipe(ready) || pipe(go))
        return luaL_error(L, "no pipe");
    for (int i = 0; i < count; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            close(go[1]);
            _exit(child(source, calls, ready[1], go[0]));
        }
    }
    close(ready[1]);
    sum(ready[0], count);
    double began = now();
    close(go[1]);
    double queued = sum(ready[0], count), took = now() - began;
    int failures = await(children, count);
    close(ready[0]);
    close(go[0]);
    if (failures)
        return luaL_error(L, "%d processes failed", failures);
    lua_pushnumber(L, took);
    lua_pushnumber(L, queued);
    return 2;
}
