/* SPDX-License-Identifier: MIT */
/* What scripts find in the table `bench`; see bench.c. */
#ifndef BENCH_H
#define BENCH_H

#include <lua.h>

/* floor(source, payload) -> an object whose method call(n) calls n times the function that source
 * returns. The payload is a string, or a number of fields: a table of integers by string keys. With
 * a string, bare(n) calls it n times with neither push, nor pcall, nor copy. */
int bench_floor(lua_State *L);

/* processes(source, n, calls) -> seconds that n processes take, at once, each with a Lua state of
 * its own that calls the function that source returns `calls` times; and seconds that they waited
 * for a core. */
int bench_processes(lua_State *L);

#endif
