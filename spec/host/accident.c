/* SPDX-License-Identifier: MIT */
/* spec.accident: what a host may do to itself, for programs in Lua. */
#include <lauxlib.h>
#include <lua.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

__attribute__((visibility("default"))) int luaopen_spec_accident(lua_State *L);

/* fork() -> the child's id, or 0 in the child */
static int accident_fork(lua_State *L)
{
    fflush(NULL);
    lua_pushinteger(L, (lua_Integer)fork());
    return 1;
}

/* wait(id, seconds) -> its exit status, "signal n", or "hung" (and it is killed) */
static int accident_wait(lua_State *L)
{
    pid_t id = (pid_t)luaL_checkinteger(L, 1);
    long tenths = (long)(luaL_checknumber(L, 2) * 100);
    int status = 0;
    pid_t ended = 0;
    for (; tenths > 0 && !(ended = waitpid(id, &status, WNOHANG)); tenths--)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    if (ended == 0) {
        kill(id, SIGKILL);
        waitpid(id, &status, 0);
        lua_pushliteral(L, "hung");
    } else if (WIFSIGNALED(status)) {
        lua_pushfstring(L, "signal %d", WTERMSIG(status));
    } else {
        lua_pushinteger(L, WEXITSTATUS(status));
    }
    return 1;
}

/* kill(id, signal) */
static int accident_kill(lua_State *L)
{
    kill((pid_t)luaL_checkinteger(L, 1), (int)luaL_checkinteger(L, 2));
    return 0;
}

/* pid() */
static int accident_pid(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)getpid());
    return 1;
}

/* nap(seconds) */
static int accident_nap(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    nanosleep(&(struct timespec){.tv_sec = (time_t)seconds,
                                 .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)},
              NULL);
    return 0;
}

int luaopen_spec_accident(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"fork", accident_fork}, {"wait", accident_wait}, {"kill", accident_kill},
        {"pid", accident_pid},   {"nap", accident_nap},   {NULL, NULL},
    };
    lua_newtable(L);
    for (const luaL_Reg *each = functions; each->name; each++) {
        lua_pushcfunction(L, each->func);
        lua_setfield(L, -2, each->name);
    }
    return 1;
}
