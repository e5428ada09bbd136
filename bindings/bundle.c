/* SPDX-License-Identifier: MIT */
/* Results, and how they are freed. A finalizer for each would cost more than a short run does. So a
 * result has none: the run it stands for lies in a bundle, a userdata that many results keep alive
 * and whose finalizer frees all of their runs. The bundle being filled is known by a weak reference
 * only, so that what is garbage does not wait for the next results. */
#include "bindings/host.h"

#define BUNDLE_TYPE "tidemill.bundle"

/* A bundle takes no more when it holds so many runs, or as much: one result keeps all of them. */
#define MOST_RUNS 32
#define MOST_BYTES ((size_t)64 << 10)

/* The bundle that is being filled is at this key of the metatable of results, in a weak table: the
 * userdata itself, which a collector takes out as soon as it is to be finalized. Lua 5.1 and LuaJIT
 * would leave its table there if garbage with a finalizer of its own refers to one of its results.
 */
#define FILLING 1

/* The table attached to a bundle and its results, which has only this, or a result's own. */
enum { BUNDLE = 1, OWN };

struct ti_bundle {
    uint32_t count;
    size_t bytes;
    ti_run *runs[MOST_RUNS];
};

static int bundle_free(lua_State *L)
{
    ti_bundle *self = ti_host_test(L, BUNDLE_TYPE);
    if (!self)
        return 0;
    ti_run_release_all(self->runs, self->count);
    for (uint32_t i = 0; i < self->count; i++)
        self->runs[i] = NULL;
    return 0;
}

/* Pushes the table of a new bundle, and keeps the bundle in the weak table below it. */
static ti_bundle *new_bundle(lua_State *L)
{
    lua_createtable(L, 1, 0);
    ti_bundle *self = tl_new_userdata(L, sizeof *self);
    self->count = 0;
    self->bytes = 0;
    luaL_getmetatable(L, BUNDLE_TYPE);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -2);
    tl_set_fields(L, -2);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -4, FILLING);
    lua_rawseti(L, -2, BUNDLE);
    return self;
}

/* With the metatable of results on top: pushes the weak table and the table of a bundle that has
 * room. */
static ti_bundle *filling(lua_State *L)
{
    lua_rawgeti(L, -1, FILLING);
    lua_rawgeti(L, -1, FILLING);
    ti_bundle *self = lua_touserdata(L, -1);
    if (self && self->count < MOST_RUNS && self->bytes < MOST_BYTES) {
        tl_get_fields(L, -1);
        lua_replace(L, -2);
        return self;
    }
    lua_pop(L, 1);
    return new_bundle(L);
}

ti_host_result *ti_host_new_result(lua_State *L)
{
    ti_host_result *self = tl_new_userdata(L, sizeof *self);
    self->bundle = NULL;
    luaL_getmetatable(L, TI_RESULT_TYPE);
    self->bundle = filling(L);
    self->place = self->bundle->count++;
    self->bundle->runs[self->place] = NULL;
    tl_set_fields(L, -4);
    lua_pop(L, 1);
    lua_setmetatable(L, -2);
    return self;
}

void ti_host_set_run(ti_host_result *self, ti_run *run)
{
    self->bundle->runs[self->place] = run;
    self->bundle->bytes += ti_host_weight(run);
}

void ti_host_weigh_run(ti_host_result *self, size_t bytes)
{
    self->bundle->bytes += bytes;
}

ti_run *ti_host_run_of(const ti_host_result *self)
{
    return self->bundle->runs[self->place];
}

void ti_host_drop_run(ti_host_result *self)
{
    ti_run *run = ti_host_run_of(self);
    self->bundle->runs[self->place] = NULL;
    ti_run_release(run);
}

void ti_host_push_result_fields(lua_State *L, int index)
{
    tl_get_fields(L, index);
    lua_rawgeti(L, -1, OWN);
    bool own = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (own)
        return;
    lua_createtable(L, 2, 4);
    lua_rawgeti(L, -2, BUNDLE);
    lua_rawseti(L, -2, BUNDLE);
    lua_pushboolean(L, 1);
    lua_rawseti(L, -2, OWN);
    lua_replace(L, -2);
    lua_pushvalue(L, -1);
    tl_set_fields(L, index);
}

/* With the metatable of results on top. */
static void keep_weakly(lua_State *L)
{
    lua_createtable(L, 1, 0);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawseti(L, -2, FILLING);
}

void ti_host_open_bundles(lua_State *L)
{
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", bundle_free}, {NULL, NULL}};
    ti_host_new_type(L, BUNDLE_TYPE, none, meta);
    lua_pop(L, 1);
    luaL_getmetatable(L, TI_RESULT_TYPE);
    keep_weakly(L);
    lua_pop(L, 1);
}
