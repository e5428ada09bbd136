/* SPDX-License-Identifier: MIT */
/* tidemill through its C interface: with processors in C that hand on what they were given, where
 * what is left is the engine alone; or with a DAG script. A Lua module, since shapes are tables. */
#include "bindings/tidemill_lua.h"

#include <lauxlib.h>
#include <lua.h>

#include <malloc.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    tide_engine *engine;
    tide_dag *dag;
} native_graph;

static size_t length(lua_State *L, int index)
{
#if LUA_VERSION_NUM >= 502
    return lua_rawlen(L, index);
#else
    return lua_objlen(L, index);
#endif
}

static double allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return (double)(info.uordblks + info.hblkhd);
}

static void hand_on(void *state, const tide_task *task, tide_answer *answer)
{
    (void)state;
    answer->payload = tide_value_retain(tide_task_payload(task));
}

static const char *id_of(char buffer[16], lua_Integer position)
{
    snprintf(buffer, 16, "n%d", (int)position);
    return buffer;
}

static tide_builder *declare(lua_State *L, int shape)
{
    static const tide_processor processor = {.size = sizeof processor, .call = hand_on};
    tide_builder *builder = tide_builder_new("bench");
    size_t count = length(L, shape);
    char id[16];
    for (size_t i = 1; i <= count; i++) {
        tide_builder_transform(builder, id_of(id, (lua_Integer)i), &processor);
        lua_rawgeti(L, shape, (int)i);
        size_t edges = length(L, -1);
        for (size_t k = 1; k <= edges; k++) {
            lua_rawgeti(L, -1, (int)k);
            tide_builder_depends_on(builder, id_of(id, lua_tointeger(L, -1)));
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    return builder;
}

static int fail(lua_State *L, tide_error *error)
{
    lua_pushstring(L, tide_error_text(error));
    tide_error_free(error);
    return lua_error(L);
}

static native_graph *check(lua_State *L)
{
    return luaL_checkudata(L, 1, "bench.native");
}

static tide_result *run(lua_State *L, native_graph *graph, int payload)
{
    size_t size;
    const char *bytes = luaL_checklstring(L, payload, &size);
    tide_error *error = NULL;
    tide_result *result = tide_dag_run(graph->dag, tide_string(bytes, size), NULL, &error);
    if (!result)
        fail(L, error);
    return result;
}

static int native_run(lua_State *L)
{
    tide_result_release(run(L, check(L), 2));
    return 0;
}

/* graph:payload(in) -> what comes out */
static int native_payload(lua_State *L)
{
    tide_result *result = run(L, check(L), 2);
    size_t size;
    const char *bytes = tide_value_string(tide_result_payload(result), &size);
    lua_pushlstring(L, bytes, size);
    tide_result_release(result);
    return 1;
}

static int native_close(lua_State *L)
{
    native_graph *graph = check(L);
    tide_dag_release(graph->dag);
    tide_engine_close(graph->engine, NULL);
    tide_engine_release(graph->engine);
    memset(graph, 0, sizeof *graph);
    return 0;
}

static native_graph *new_graph(lua_State *L)
{
    native_graph *graph = lua_newuserdata(L, sizeof *graph);
    memset(graph, 0, sizeof *graph);
    luaL_getmetatable(L, "bench.native");
    lua_setmetatable(L, -2);
    return graph;
}

/* graph(shape, workers) -> graph, bytes that its plan keeps, bytes that a run keeps */
static int open_shape(lua_State *L, const tide_options *options)
{
    tide_error *error = NULL;
    native_graph *graph = new_graph(L);
    graph->engine = tide_engine_open(options, &error);
    if (!graph->engine)
        return fail(L, error);
    double before = allocated();
    tide_builder *builder = declare(L, 1);
    graph->dag = tide_engine_add(graph->engine, builder, &error);
    tide_builder_free(builder);
    double plan = allocated() - before;
    if (!graph->dag)
        return fail(L, error);
    before = allocated();
    lua_pushliteral(L, "x");
    tide_result *result = run(L, graph, -1);
    double held = allocated() - before;
    tide_result_release(result);
    lua_pop(L, 1);
    lua_pushnumber(L, plan);
    lua_pushnumber(L, held);
    return 3;
}

/* graph(path, workers) -> graph */
static int open_script(lua_State *L, const tide_options *options)
{
    tide_error *error = NULL;
    native_graph *graph = new_graph(L);
    graph->engine = tide_lua_open(options, NULL, &error);
    if (graph->engine)
        graph->dag = tide_lua_load(graph->engine, lua_tostring(L, 1), &error);
    return graph->dag ? 1 : fail(L, error);
}

static int native_open(lua_State *L)
{
    tide_options options = TIDE_OPTIONS;
    options.workers = (uint32_t)luaL_checkinteger(L, 2);
    if (lua_type(L, 1) == LUA_TSTRING)
        return open_script(L, &options);
    luaL_checktype(L, 1, LUA_TTABLE);
    return open_shape(L, &options);
}

__attribute__((visibility("default"))) int luaopen_bench_native(lua_State *L);

int luaopen_bench_native(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"run", native_run},
        {"payload", native_payload},
        {"close", native_close},
        {"__gc", native_close},
        {NULL, NULL},
    };
    luaL_newmetatable(L, "bench.native");
    for (const luaL_Reg *method = methods; method->name; method++) {
        lua_pushcfunction(L, method->func);
        lua_setfield(L, -2, method->name);
    }
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, native_open);
    return 1;
}
