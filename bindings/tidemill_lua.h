/* SPDX-License-Identifier: MIT */
/* tidemill for C hosts with DAG scripts: in addition to tidemill.h, whose rules hold here. Programs
 * link with libtidemill-lua in place of libtidemill: it has all of that, and the Lua bindings. */
#ifndef TIDEMILL_LUA_H
#define TIDEMILL_LUA_H

#include <tidemill.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;

/* Begin with `tide_lua_options options = TIDE_LUA_OPTIONS;`. */
typedef struct tide_lua_options {
    size_t size;
    const char *path;           /* goes before package.path of all states; NULL: nothing */
    const char *cpath;          /* likewise package.cpath */
    size_t memory_limit;        /* of each worker's state, in bytes; 0: none (docs/scripting.md) */
    uint64_t instruction_limit; /* of each call; 0: none */
    const char *sandbox;        /* "sandbox" or "pure"; NULL: scripts are trusted (docs/trust.md) */
    double callback_timeout;    /* seconds that each call may take; 0: any, in a sandbox 10 */
} tide_lua_options;

#define TIDE_LUA_OPTIONS                                                                           \
    {                                                                                              \
        sizeof(tide_lua_options), NULL, NULL, 0, 0, NULL, 0                                        \
    }

/* An engine whose workers each have a Lua state. The states find the modules that were installed
 * with the library, then what is on Lua's own paths (LUA_PATH and LUA_CPATH count). Both options
 * may be NULL. TIDE_E_INTERNAL: no Lua state could be made, or the modules are not there. */
TIDE_API tide_engine *tide_lua_open(const tide_options *options, const tide_lua_options *lua,
                                    tide_error **error);

/* Loads a DAG script into every worker, as engine:load does: TIDE_E_INVALID_DAG, with all problems.
 * The native processors that it uses must have been registered. From any thread; scripts are loaded
 * one at a time. Waits. TIDE_E_MISUSE: the engine has no Lua states (tide_engine_open). */
TIDE_API tide_dag *tide_lua_load(tide_engine *engine, const char *path, tide_error **error);

/* A reference to the engine that the userdata at a stack index is, for a host with a Lua state of
 * its own. It is closed when that state is closed, or collects the userdata, whoever has
 * references. Raises nothing. On the state's thread. NULL: it is no engine, or one of another copy
 * of the library (see tide_lua_preload). */
TIDE_API tide_engine *tide_lua_engine(struct lua_State *L, int index, tide_error **error);

/* Makes `require "tidemill"` in a host's state use this library, in place of a module that would be
 * another copy of it, and find the installed Lua modules. Before the first such require. False: no
 * memory, or the state has no package library. */
TIDE_API bool tide_lua_preload(struct lua_State *L);

#ifdef __cplusplus
}
#endif

#endif
