/* SPDX-License-Identifier: MIT */
/* tidemill_lua.h: Lua for C hosts. Scripts are loaded by the same Lua modules that load them in a
 * Lua program: they run in a state that belongs to the engine, its *loader*, behind a lock. The
 * engine owns the loader, so the loader only borrows the engine. */
#include <stdlib.h>
#include <string.h>

#include "bindings/host.h"
#include "bindings/state.h"
#include "bindings/tidemill_lua.h"
#include "engine/api.h"
#include "engine/native.h"

/* Where `cmake --install` puts the modules; a rock has them on Lua's own paths. */
#ifdef LUA_SHARE
#define INSTALLED_PATH LUA_SHARE "/?.lua;" LUA_SHARE "/?/init.lua"
#define INSTALLED_CPATH LUA_LIB "/?.so"
#else
#define INSTALLED_PATH ""
#define INSTALLED_CPATH ""
#endif

typedef struct ti_loader {
    uv_mutex_t lock;
    lua_State *L; /* [lock:loader] */
} ti_loader;

static const char engine_key = 0;

int luaopen_tidemill_core(lua_State *L);

/* What is done in the loader under protection. What is set in the end is the caller's. */
typedef struct ti_entry {
    const tide_options *options;
    const tide_lua_options *lua;
    ti_engine *engine; /* to borrow, or, when it was opened */
    ti_state_config *config;
    const char *path; /* of a script */
    ti_program *program;
    tide_error *error;
} ti_entry;

static tide_code code_named(const char *name)
{
    for (int code = TIDE_E_INVALID_DAG; name && code < TIDE_E_INTERNAL; code++)
        if (strcmp(name, tide_code_name((tide_code)code)) == 0)
            return (tide_code)code;
    return TIDE_E_INTERNAL;
}

/* The string field of the table at an absolute index, which stays on the stack; bytes NULL: none.
 */
static ti_text text_field(lua_State *L, int index, const char *field)
{
    ti_text text = {NULL, 0};
    lua_getfield(L, index, field);
    if (lua_type(L, -1) == LUA_TSTRING)
        text.bytes = lua_tolstring(L, -1, &text.size);
    return text;
}

static void read_problems(lua_State *L, int index, ti_problems *problems)
{
    lua_getfield(L, index, "problems");
    int count = lua_istable(L, -1) ? (int)lua_rawlen(L, -1) : 0;
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        if (lua_type(L, -1) == LUA_TSTRING)
            ti_problems_add(problems, TI_NONE, "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
}

/* The error that is on top, as the Lua modules make them, or whatever was raised. */
static void read_error(lua_State *L, tide_error **error)
{
    int index = lua_gettop(L);
    if (!lua_istable(L, index)) {
        const char *text = lua_tostring(L, index);
        *error = tide_error_new(TIDE_E_INTERNAL, "%s", text ? text : "no string was raised");
        return;
    }
    ti_text code = text_field(L, index, "code"), message = text_field(L, index, "message");
    ti_text traceback = text_field(L, index, "traceback");
    ti_text processor = text_field(L, index, "processor");
    tide_code number = code_named(code.bytes);
    ti_error *record = ti_error_new((ti_code)number, message.bytes, message.size, traceback.bytes,
                                    traceback.size, NULL);
    *error = ti_api_error_new(number, record, processor, (ti_text){NULL, 0});
    if ((*error)->record)
        read_problems(L, index, &(*error)->problems);
}

/* package[field] = front ";" installed ";" what it was */
static void extend_path(lua_State *L, const char *field, const char *front, const char *installed)
{
    lua_getglobal(L, "package");
    lua_pushfstring(L, "%s%s%s%s", front ? front : "", front && *front ? ";" : "", installed,
                    *installed ? ";" : "");
    lua_getfield(L, -2, field);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushliteral(L, "");
    }
    lua_concat(L, 2);
    lua_setfield(L, -2, field);
    lua_pop(L, 1);
}

static void preload_core(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_tidemill_core);
    lua_setfield(L, -2, "tidemill.core");
    lua_pop(L, 2);
}

/* Leaves the module tidemill on the stack. */
static void open_facade(lua_State *L, const char *path, const char *cpath)
{
    luaL_openlibs(L);
    extend_path(L, "path", path, INSTALLED_PATH);
    extend_path(L, "cpath", cpath, INSTALLED_CPATH);
    preload_core(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "tidemill");
    lua_call(L, 1, 1);
}

static void set_number(lua_State *L, const char *field, double number)
{
    if (number == 0)
        return;
    lua_pushnumber(L, (lua_Number)number);
    lua_setfield(L, -2, field);
}

static void push_options(lua_State *L, const tide_options *options, const tide_lua_options *lua)
{
    static const char *const modes[] = {NULL, "signal", "hook"};
    lua_newtable(L);
    set_number(L, "workers", options->workers);
    set_number(L, "kill_grace", options->kill_grace);
    set_number(L, "callback_timeout", lua->callback_timeout);
    if (lua->sandbox) {
        lua_pushstring(L, lua->sandbox);
        lua_setfield(L, -2, "sandbox");
    }
    set_number(L, "memory_limit", (double)lua->memory_limit);
    set_number(L, "instruction_limit", (double)lua->instruction_limit);
    if (options->pool == TIDE_POOL_SHARED) {
        lua_pushliteral(L, "shared");
        lua_setfield(L, -2, "pool");
    }
    if (options->preempt == TIDE_PREEMPT_NONE)
        lua_pushboolean(L, 0);
    else
        lua_pushstring(L, modes[options->preempt]);
    lua_setfield(L, -2, "preempt");
}

static void keep_engine(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)&engine_key);
    lua_insert(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

/* tm.engine { ... }, whose engine leaves this state's hands. */
static int open_protected(lua_State *L)
{
    ti_entry *entry = lua_touserdata(L, 1);
    open_facade(L, entry->lua->path, entry->lua->cpath);
    lua_getfield(L, -1, "engine");
    push_options(L, entry->options, entry->lua);
    int status = lua_pcall(L, 1, 2, 0);
    if (status == LUA_ERRRUN && lua_type(L, -1) == LUA_TSTRING) {
        ti_api_misuse(&entry->error, "%s", lua_tostring(L, -1));
        return 0;
    }
    if (status)
        return lua_error(L);
    ti_host_engine *self = tl_test_userdata(L, -2, TI_ENGINE_TYPE);
    if (!self) {
        read_error(L, &entry->error);
        return 0;
    }
    lua_pop(L, 1);
    keep_engine(L);
    entry->engine = self->engine;
    entry->config = self->config;
    self->borrowed = true;
    return 0;
}

/* A loader for an engine that is open. */
static int borrow_protected(lua_State *L)
{
    const ti_entry *entry = lua_touserdata(L, 1);
    open_facade(L, entry->config->path, entry->config->cpath);
    ti_host_borrow_engine(L, entry->engine);
    keep_engine(L);
    return 0;
}

/* engine:load(path), whose program leaves this state's hands. */
static int load_protected(lua_State *L)
{
    ti_entry *entry = lua_touserdata(L, 1);
    lua_pushlightuserdata(L, (void *)(uintptr_t)&engine_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_getfield(L, -1, "load");
    lua_insert(L, -2);
    lua_pushstring(L, entry->path);
    lua_call(L, 2, 2);
    ti_host_dag *dag = tl_test_userdata(L, -2, TI_DAG_TYPE);
    if (dag) {
        entry->program = dag->program;
        dag->program = NULL;
    } else {
        read_error(L, &entry->error);
    }
    return 0;
}

/* Drops what a load left, a program that failed half-way among it: it would keep the engine. */
static int collect_protected(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

/* False: it raised, and that is the entry's error. */
static bool enter(lua_State *L, lua_CFunction function, ti_entry *entry)
{
    int top = lua_gettop(L), status = tl_protected(L, function, entry);
    if (status && !entry->error) {
        const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "it raised";
        entry->error = tide_error_new(status == LUA_ERRMEM ? TIDE_E_MEMORY_LIMIT : TIDE_E_INTERNAL,
                                      "%s", text);
    }
    lua_settop(L, top);
    return !entry->error;
}

static ti_loader *new_loader(void)
{
    ti_loader *loader = calloc(1, sizeof *loader);
    if (!loader || uv_mutex_init(&loader->lock)) {
        free(loader);
        return NULL;
    }
    return loader;
}

void ti_loader_free(ti_loader *loader)
{
    if (!loader)
        return;
    if (loader->L)
        lua_close(loader->L);
    uv_mutex_destroy(&loader->lock);
    free(loader);
}

static void give(tide_error **error, tide_error *what)
{
    if (error)
        *error = what;
    else
        tide_error_free(what);
}

tide_engine *tide_lua_open(const tide_options *from, const tide_lua_options *lua_from,
                           tide_error **error)
{
    tide_options options;
    tide_lua_options lua = TIDE_LUA_OPTIONS;
    if (!ti_api_read_options(&options, from, error) ||
        (lua_from && !ti_api_read(&lua, sizeof lua, lua_from, "tide_lua_options", error)))
        return NULL;
    ti_entry entry = {.options = &options, .lua = &lua};
    ti_loader *loader = new_loader();
    lua_State *L = loader ? luaL_newstate() : NULL;
    if (!L) {
        ti_loader_free(loader);
        ti_api_fail_code(error, TI_E_MEMORY_LIMIT);
        return NULL;
    }
    loader->L = L;
    if (!enter(L, open_protected, &entry)) {
        ti_loader_free(loader); /* and the engine, if it raised after that was made */
        give(error, entry.error);
        return NULL;
    }
    entry.config->loader = loader;
    return ti_engine_out(entry.engine);
}

/* The engine's loader, made at first need; NULL: no memory. */
static ti_loader *loader_of(ti_state_config *config)
{
    uv_mutex_lock(&config->lock);
    if (!config->loader)
        config->loader = new_loader();
    ti_loader *loader = config->loader;
    uv_mutex_unlock(&config->lock);
    return loader;
}

/* With the loader's lock. */
static bool ensure_state(ti_loader *loader, ti_entry *entry)
{
    if (loader->L)
        return true;
    lua_State *L = luaL_newstate();
    if (!L) {
        entry->error = tide_error_new(TIDE_E_MEMORY_LIMIT, NULL);
        return false;
    }
    if (!enter(L, borrow_protected, entry)) {
        lua_close(L);
        return false;
    }
    loader->L = L;
    return true;
}

static void load(ti_loader *loader, ti_entry *entry)
{
    uv_mutex_lock(&loader->lock);
    if (ensure_state(loader, entry)) {
        ti_entry ignored = {0};
        enter(loader->L, load_protected, entry);
        enter(loader->L, collect_protected, &ignored);
        tide_error_free(ignored.error);
    }
    uv_mutex_unlock(&loader->lock);
}

tide_dag *tide_lua_load(tide_engine *handle, const char *path, tide_error **error)
{
    ti_engine *engine = ti_engine_in(handle);
    if (!engine || !path || engine->backend[0].vtable != &ti_state_backend) {
        ti_api_misuse(error, "tide_lua_load needs a path, and an engine with Lua states");
        return NULL;
    }
    if (!ti_api_may_wait(engine, "tide_lua_load", error))
        return NULL;
    if (ti_engine_closed(engine)) {
        ti_api_fail_code(error, TI_E_CLOSED);
        return NULL;
    }
    ti_entry entry = {.engine = engine, .config = engine->backend[0].shared, .path = path};
    ti_loader *loader = loader_of(entry.config);
    if (!loader) {
        ti_api_fail_code(error, TI_E_MEMORY_LIMIT);
        return NULL;
    }
    load(loader, &entry);
    if (!entry.program)
        give(error, entry.error);
    return ti_dag_out(entry.program);
}

tide_engine *tide_lua_engine(lua_State *L, int index, tide_error **error)
{
    const ti_host_engine *self = L ? tl_test_userdata(L, index, TI_ENGINE_TYPE) : NULL;
    if (!self)
        ti_api_misuse(error, "the value is no tidemill.engine");
    else if (!ti_host_is_engine(L, index))
        ti_api_misuse(error, "the engine was made by another copy of the library: call "
                             "tide_lua_preload before the first require \"tidemill\"");
    else if (!self->engine || ti_engine_closed(self->engine))
        ti_api_fail_code(error, TI_E_CLOSED);
    else
        return tide_engine_retain(ti_engine_out(self->engine));
    return NULL;
}

static int preload_protected(lua_State *L)
{
    extend_path(L, "path", NULL, INSTALLED_PATH);
    extend_path(L, "cpath", NULL, INSTALLED_CPATH);
    preload_core(L);
    return 0;
}

bool tide_lua_preload(lua_State *L)
{
    if (!L)
        return false;
    int top = lua_gettop(L), status = tl_protected(L, preload_protected, NULL);
    lua_settop(L, top);
    return status == 0;
}
