/* SPDX-License-Identifier: MIT */
/* Runs a Lua script that has, besides the usual, the table `bench`:
 *
 *   now()                seconds, of a clock that only goes forward
 *   sleep(seconds)
 *   others()             seconds of processor time that threads other than this one have used
 *   waited()             seconds that threads of this process were ready but had no core (Linux)
 *   allocated()          bytes that malloc has handed out, with its own headers
 *   floor(...), processes(...)  see bench.h
 *   counting()           whether instructions can be counted: under callgrind
 *   count(name, f)       counts what f() executes, and has callgrind write it to a file of its own
 */
#include "bench/bench.h"

#include <lauxlib.h>
#include <lualib.h>

#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <time.h>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#define CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_STOP_INSTRUMENTATION
#define CALLGRIND_ZERO_STATS
#define CALLGRIND_DUMP_STATS_AT(name) (void)(name)
#endif

static double read_clock(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int bench_now(lua_State *L)
{
    lua_pushnumber(L, read_clock(CLOCK_MONOTONIC));
    return 1;
}

static int bench_sleep(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
    return 0;
}

static int bench_others(lua_State *L)
{
    lua_pushnumber(L, read_clock(CLOCK_PROCESS_CPUTIME_ID) - read_clock(CLOCK_THREAD_CPUTIME_ID));
    return 1;
}

/* cpu time, time in the queue, times it ran; of one thread */
static double time_in_queue(const char *task)
{
    char path[64];
    unsigned long long ran = 0, queued = 0;
    snprintf(path, sizeof path, "/proc/self/task/%.20s/schedstat", task);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &ran, &queued) != 2)
        queued = 0;
    fclose(file);
    return (double)queued / 1e9;
}

static int bench_waited(lua_State *L)
{
    double waited = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks && (entry = readdir(tasks));)
        if (entry->d_name[0] != '.')
            waited += time_in_queue(entry->d_name);
    if (tasks)
        closedir(tasks);
    lua_pushnumber(L, waited);
    return 1;
}

static int bench_allocated(lua_State *L)
{
    struct mallinfo2 info = mallinfo2();
    lua_pushnumber(L, (lua_Number)(info.uordblks + info.hblkhd));
    return 1;
}

static int bench_counting(lua_State *L)
{
    lua_pushboolean(L, RUNNING_ON_VALGRIND != 0);
    return 1;
}

static int bench_count(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 2);
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
    lua_call(L, 0, 0);
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
    return 0;
}

static void open_bench(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"now", bench_now},
        {"others", bench_others},
        {"waited", bench_waited},
        {"sleep", bench_sleep},
        {"allocated", bench_allocated},
        {"floor", bench_floor},
        {"processes", bench_processes},
        {"counting", bench_counting},
        {"count", bench_count},
        {NULL, NULL},
    };
    lua_newtable(L);
    for (const luaL_Reg *function = functions; function->name; function++) {
        lua_pushcfunction(L, function->func);
        lua_setfield(L, -2, function->name);
    }
    lua_setglobal(L, "bench");
}

int main(int count, char **arguments)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    open_bench(L);
    int status = count < 2 || luaL_loadfile(L, arguments[1]);
    for (int i = 2; i < count && !status; i++)
        lua_pushstring(L, arguments[i]);
    status = status || lua_pcall(L, count - 2, 0, 0);
    if (status)
        fprintf(stderr, "%s\n", count < 2 ? "usage: bench SCRIPT" : lua_tostring(L, -1));
    lua_close(L);
    return status;
}
