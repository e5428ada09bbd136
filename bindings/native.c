/* SPDX-License-Identifier: MIT */
/* tm.native: processors in C that a script uses by name. */
#include <stdlib.h>

#include "bindings/host.h"
#include "engine/native.h"

#define USES_TYPE "tidemill.uses"

int ti_host_native_problem(lua_State *L)
{
    char text[400];
    const ti_host_engine *self = luaL_checkudata(L, 1, TI_ENGINE_TYPE);
    size_t size;
    const char *name = luaL_checklstring(L, 2, &size);
    ti_natives *natives = self->engine ? ti_natives_of(self->engine) : NULL;
    if (!natives)
        return 0;
    ti_native *native = ti_natives_find(natives, name, size);
    ti_native_release(native);
    if (native)
        return 0;
    ti_natives_unknown(natives, name, size, text, sizeof text);
    lua_pushstring(L, text);
    return 1;
}

/* What open_natives collects, freed with the userdata that holds it. */
typedef struct ti_uses {
    ti_native_use *list;
    uint32_t count;
    ti_builder scratch;
    ti_error *error;
} ti_uses;

static void clear(ti_uses *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        ti_native_release(self->list[i].native);
        ti_value_release(self->list[i].options);
    }
    free(self->list);
    ti_builder_trim(&self->scratch, true);
    ti_error_free(self->error);
    *self = (ti_uses){0};
}

static int uses_free(lua_State *L)
{
    ti_uses *self = tl_test_userdata(L, 1, USES_TYPE);
    if (self)
        clear(self);
    return 0;
}

static ti_uses *new_uses(lua_State *L, int most)
{
    ti_uses *self = tl_new_userdata(L, sizeof *self);
    *self = (ti_uses){0};
    if (luaL_newmetatable(L, USES_TYPE)) {
        lua_pushcfunction(L, uses_free);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    self->list = calloc((size_t)most + 1, sizeof *self->list);
    if (!self->list)
        luaL_error(L, "not enough memory");
    return self;
}

/* The lists of a description that matter here, as they stand on the stack. */
enum { NAMES = 3, IDS, OPTIONS };

/* The processor `i`, from 1; its id stays in the description. False: what is wrong is pushed. */
static bool read_use(lua_State *L, ti_natives *natives, ti_uses *self, int i)
{
    size_t size;
    lua_rawgeti(L, NAMES, i);
    const char *name = lua_tolstring(L, -1, &size);
    if (!name) {
        lua_pop(L, 1);
        return true;
    }
    ti_native_use *use = &self->list[self->count];
    *use = (ti_native_use){.slot = (uint32_t)i - 1, .native = ti_natives_find(natives, name, size)};
    if (!use->native) {
        lua_pushfstring(L, "there is no native processor '%s'", name);
        return false;
    }
    self->count++;
    lua_rawgeti(L, IDS, i);
    use->id = lua_tostring(L, -1);
    lua_rawgeti(L, OPTIONS, i);
    ti_conversion conversion = {.scratch = &self->scratch, .root = "options"};
    if (!lua_isnil(L, -1) && !(use->options = ti_convert_to(L, -1, &conversion))) {
        lua_pushstring(L, conversion.message);
        return false;
    }
    lua_pop(L, 3);
    return true;
}

int ti_host_open_natives(lua_State *L)
{
    static const char *const lists[] = {"native", "id", "options"};
    const ti_host_dag *dag = luaL_checkudata(L, 1, TI_DAG_TYPE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    for (int i = 0; i < 3; i++) {
        lua_getfield(L, 2, lists[i]);
        luaL_checktype(L, -1, LUA_TTABLE);
    }
    int count = (int)lua_rawlen(L, IDS);
    ti_uses *self = new_uses(L, count);
    ti_engine *engine = dag->program->engine;
    for (int i = 1; i <= count; i++) {
        if (!read_use(L, ti_natives_of(engine), self, i)) {
            clear(self); /* the collector may take its time, and a `drop` wait for it */
            lua_pushnil(L);
            lua_insert(L, -2);
            return 2;
        }
    }
    if (!ti_native_install(engine, dag->program->key, dag->program->plan->count, self->list,
                           self->count, &self->error)) {
        lua_pushnil(L);
        lua_pushstring(L, self->error->message);
        clear(self);
        return 2;
    }
    clear(self);
    lua_pushboolean(L, 1);
    return 1;
}
