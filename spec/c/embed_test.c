/* SPDX-License-Identifier: MIT */
/* tidemill_lua.h: DAG scripts in a C host. */
#include "bindings/tidemill_lua.h"

#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <unistd.h>

#include "check.h"

static atomic_int states;
static atomic_uint drops;

static bool open_repeat(void *data, const tide_value *options, void **state, tide_error **error)
{
    int64_t times = tide_view_integer(tide_view_field(tide_value_view(options), "times"));
    (void)data;
    if (times < 1) {
        *error = tide_error_new(TIDE_OK, "options.times must be a number from 1 on");
        return false;
    }
    *state = malloc(sizeof times);
    memcpy(*state, &times, sizeof times);
    atomic_fetch_add(&states, 1);
    return true;
}

static void repeat(void *state, const tide_task *task, tide_answer *answer)
{
    size_t size;
    int64_t times;
    char bytes[4096];
    const char *text = tide_value_string(tide_task_payload(task), &size);
    memcpy(&times, state, sizeof times);
    CHECK(tide_value_view(tide_task_options(task)) != NULL);
    for (int64_t i = 0; i < times; i++)
        memcpy(bytes + (size_t)i * size, text, size);
    answer->payload = tide_string(bytes, (size_t)times * size);
}

static void close_repeat(void *state)
{
    free(state);
    atomic_fetch_sub(&states, 1);
}

static void measure(void *state, const tide_task *task, tide_answer *answer)
{
    size_t size;
    tide_value_string(tide_task_payload(task), &size);
    (void)state;
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    tide_write_text(writer, "bytes"), tide_write_integer(writer, (int64_t)size);
    tide_write_end(writer);
    answer->metadata = tide_writer_finish(writer, &answer->error);
}

static void drop(void *data)
{
    (void)data;
    atomic_fetch_add(&drops, 1);
}

static void register_both(tide_engine *engine)
{
    const tide_processor repeats = {sizeof repeats, open_repeat, repeat, close_repeat, drop, NULL};
    const tide_processor measures = {.size = sizeof measures, .call = measure, .drop = drop};
    CHECK(tide_engine_register(engine, "repeat", &repeats, NULL));
    CHECK(tide_engine_register(engine, "measure", &measures, NULL));
    atomic_store(&drops, 0);
}

static tide_engine *open_engine(uint32_t workers)
{
    tide_options options = TIDE_OPTIONS;
    tide_lua_options lua = TIDE_LUA_OPTIONS;
    tide_error *error = NULL;
    options.workers = workers;
    options.pool = getenv("TIDEMILL_POOL") ? TIDE_POOL_SHARED : TIDE_POOL_PRIVATE;
    lua.path = TREE "/?.lua;" TREE "/?/init.lua";
    tide_engine *engine = tide_lua_open(&options, &lua, &error);
    if (!engine)
        check_fail(__FILE__, __LINE__, "%s", tide_error_text(error));
    REQUIRE(engine);
    return engine;
}

static tide_dag *load(tide_engine *engine, const char *path)
{
    tide_error *error = NULL;
    tide_dag *dag = tide_lua_load(engine, path, &error);
    if (!dag)
        check_fail(__FILE__, __LINE__, "%s", tide_error_text(error));
    REQUIRE(dag);
    return dag;
}

/* Runs a text through a DAG, and what must come out. */
static void check_run_of(tide_dag *dag, const char *input, const char *output)
{
    tide_error *error = NULL;
    tide_result *result = tide_dag_run(dag, tide_text(input), NULL, &error);
    if (!result || (!error && (error = tide_result_error(result))))
        check_fail(__FILE__, __LINE__, "%s", tide_error_text(error));
    else
        CHECK_TEXT(tide_value_string(tide_result_payload(result), NULL), output);
    tide_error_free(error);
    tide_result_release(result);
}

static void check_code(tide_error *error, tide_code code)
{
    CHECK_TEXT(tide_code_name(tide_error_code(error)), tide_code_name(code));
    tide_error_free(error);
}

static void a_script_runs(void)
{
    tide_engine *engine = open_engine(2);
    tide_dag *dag = load(engine, FIXTURES "/shout.dag.lua");
    tide_dag *again = load(engine, FIXTURES "/shout.dag.lua");
    tide_result *result = tide_dag_run(dag, tide_text("tide"), NULL, NULL);
    CHECK_INT(tide_result_status(result), TIDE_COMPLETED);
    tide_result_release(result);
    tide_dag_release(dag), tide_dag_release(again);
    tide_engine_release(engine);
}

static void a_sandbox_holds_for_scripts_that_c_loads(void)
{
    tide_lua_options lua = TIDE_LUA_OPTIONS;
    tide_error *error = NULL;
    lua.path = TREE "/?.lua;" TREE "/?/init.lua";
    lua.sandbox = "sandbox";
    tide_engine *engine = tide_lua_open(NULL, &lua, &error);
    REQUIRE(engine);
    CHECK(tide_lua_load(engine, FIXTURES "/outside.dag.lua", &error) == NULL);
    CHECK(strstr(tide_error_message(error), "'io'") != NULL);
    check_code(error, TIDE_E_INVALID_DAG);
    tide_engine_release(engine);
    lua.sandbox = "sandpit";
    CHECK(tide_lua_open(NULL, &lua, &error) == NULL);
    CHECK(error != NULL);
    tide_error_free(error);
}

static void options_that_lua_would_raise_for_are_misuse(void)
{
    tide_lua_options wrong[] = {TIDE_LUA_OPTIONS, TIDE_LUA_OPTIONS, TIDE_LUA_OPTIONS,
                                TIDE_LUA_OPTIONS};
    wrong[0].sandbox = "nope";
    wrong[1].callback_timeout = NAN;
    wrong[2].callback_timeout = -1;
    wrong[3].memory_limit = SIZE_MAX;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tide_error *error = NULL;
        wrong[i].path = TREE "/?.lua;" TREE "/?/init.lua";
        CHECK(tide_lua_open(NULL, &wrong[i], &error) == NULL);
        CHECK_INT(tide_error_code(error), TIDE_E_MISUSE);
        tide_error_free(error);
    }
}

static void native_and_lua_processors_mix(void)
{
    tide_engine *engine = open_engine(2);
    register_both(engine);
    tide_dag *dag = load(engine, FIXTURES "/native.dag.lua");
    CHECK_INT(atomic_load(&states), 2);
    check_run_of(dag, "ebb", "EBBEBB: 6");
    tide_dag_release(dag);
    CHECK_INT(atomic_load(&drops), 0); /* the names are still there */
    dag = load(engine, FIXTURES "/native.dag.lua");
    CHECK(tide_engine_close(engine, NULL));
    CHECK_INT(atomic_load(&states), 0);
    CHECK_INT(atomic_load(&drops), 2);
    tide_dag_release(dag);
    tide_engine_release(engine);
}

/* Writes a script and loads it, which must fail with this in its message. */
static void check_does_not_load(tide_engine *engine, const char *body, const char *message)
{
    char path[] = "/tmp/tidemill_embed_XXXXXX";
    tide_error *error = NULL;
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    dprintf(fd, "local tm = require 'tidemill'\nreturn tm.dag { %s }\n", body);
    close(fd);
    CHECK(tide_lua_load(engine, path, &error) == NULL);
    if (!strstr(tide_error_message(error), message))
        check_fail(__FILE__, __LINE__, "\"%s\" is not in \"%s\"", message,
                   tide_error_message(error));
    CHECK(tide_error_problems(error) > 0);
    check_code(error, TIDE_E_INVALID_DAG);
    unlink(path);
}

static void what_a_script_does_wrong_is_told(void)
{
    tide_engine *engine = open_engine(2);
    tide_error *error = NULL;
    register_both(engine);
    check_does_not_load(engine, "tm.transform('x', tm.native 'repaet')",
                        "there is no native processor 'repaet' (did you mean 'repeat'?)");
    check_does_not_load(engine, "tm.transform('x', tm.native 'repeat')",
                        "processor 'x': open: options.times must be a number from 1 on");
    check_does_not_load(
        engine, "tm.transform 'x' { run = tm.native 'repeat', when = print, setup = print }",
        "2 problems");
    CHECK_INT(atomic_load(&states), 0);
    CHECK(tide_lua_load(engine, "/nowhere.lua", &error) == NULL);
    CHECK(strstr(tide_error_message(error), "cannot open the script") != NULL);
    check_code(error, TIDE_E_INVALID_DAG);
    tide_engine_close(engine, NULL);
    CHECK(tide_lua_load(engine, FIXTURES "/shout.dag.lua", &error) == NULL);
    check_code(error, TIDE_E_CLOSED);
    tide_engine_release(engine);
}

static void an_error_in_lua_comes_with_its_traceback(void)
{
    tide_engine *engine = open_engine(1);
    tide_dag *dag = load(engine, FIXTURES "/failing.dag.lua");
    tide_result *result = tide_dag_run(dag, tide_text("raise"), NULL, NULL);
    tide_error *error = tide_result_error(result);
    CHECK_INT(tide_error_code(error), TIDE_E_PROCESSOR_FAILED);
    CHECK(tide_error_traceback(error) && strstr(tide_error_traceback(error), "failing.dag.lua"));
    tide_error_free(error);
    tide_result_release(result);
    tide_dag_release(dag);
    tide_engine_release(engine);
}

static void without_the_modules_there_is_no_engine(void)
{
    tide_lua_options lua = {0};
    tide_error *error = NULL;
    CHECK(tide_lua_open(NULL, &lua, &error) == NULL);
    check_code(error, TIDE_E_MISUSE);
    tide_engine *plain = tide_engine_open(NULL, NULL);
    CHECK(tide_lua_load(plain, FIXTURES "/shout.dag.lua", &error) == NULL);
    check_code(error, TIDE_E_MISUSE);
    tide_engine_release(plain);
}

static void load_and_run(void *data, unsigned index)
{
    for (int i = 0; i < ROUNDS(8); i++) {
        tide_dag *dag = load(data, FIXTURES "/native.dag.lua");
        for (int k = 0; k < 4; k++)
            check_run_of(dag, index % 2 ? "ebb" : "flow", index % 2 ? "EBBEBB: 6" : "FLOWFLOW: 8");
        tide_dag_release(dag);
    }
}

static void several_threads_load_and_run(void)
{
    tide_engine *engine = open_engine(2);
    register_both(engine);
    check_threads(4, load_and_run, engine);
    tide_engine_release(engine);
    CHECK_INT(atomic_load(&states), 0);
}

static void load_in_its_own(void *data, unsigned index)
{
    tide_engine **engines = data;
    load_and_run(engines[index % 2], index);
}

static void several_engines_with_lua_live_side_by_side(void)
{
    tide_engine *engines[2] = {open_engine(1), open_engine(2)};
    register_both(engines[0]), register_both(engines[1]);
    check_threads(4, load_in_its_own, engines);
    CHECK(tide_engine_close(engines[0], NULL));
    load_and_run(engines[1], 0);
    tide_engine_release(engines[0]), tide_engine_release(engines[1]);
    CHECK_INT(atomic_load(&states), 0);
    CHECK_INT(atomic_load(&drops), 4);
}

/* In a state of the host's own: registers natives on its engine, which the program then uses. */
static int use_host_state(lua_State *L)
{
    CHECK(luaL_loadstring(L, "local path, script = ...\n"
                             "package.path = path .. package.path\n"
                             "local tm = require 'tidemill'\n"
                             "engine = tm.engine { workers = 2 }\n"
                             "return engine") == 0);
    lua_pushliteral(L, TREE "/?.lua;" TREE "/?/init.lua;");
    lua_call(L, 1, 1);
    tide_error *error = NULL;
    tide_engine *engine = tide_lua_engine(L, -1, &error);
    REQUIRE(engine);
    register_both(engine);
    lua_pushinteger(L, 1);
    CHECK(tide_lua_engine(L, -1, &error) == NULL);
    check_code(error, TIDE_E_MISUSE);
    lua_settop(L, 0);
    CHECK(luaL_loadstring(L, "local script = ...\n"
                             "local dag = assert(engine:load(script))\n"
                             "return dag:run('ebb').payload") == 0);
    lua_pushliteral(L, FIXTURES "/native.dag.lua");
    lua_call(L, 1, 1);
    CHECK_TEXT(lua_tostring(L, -1), "EBBEBB: 6");
    tide_dag *dag = load(engine, FIXTURES "/native.dag.lua");
    check_run_of(dag, "flow", "FLOWFLOW: 8");
    *(void **)lua_touserdata(L, lua_upvalueindex(1)) = engine;
    tide_dag_release(dag);
    return 0;
}

static void a_host_state_shares_its_engine(void)
{
    lua_State *L = luaL_newstate();
    void *engine = NULL;
    luaL_openlibs(L);
    CHECK(tide_lua_preload(L));
    lua_pushlightuserdata(L, &engine);
    lua_pushcclosure(L, use_host_state, 1);
    if (lua_pcall(L, 0, 0, 0))
        check_fail(__FILE__, __LINE__, "%s", lua_tostring(L, -1));
    REQUIRE(engine);
    lua_close(L); /* closes the engine */
    tide_error *error = NULL;
    CHECK(tide_lua_load(engine, FIXTURES "/shout.dag.lua", &error) == NULL);
    check_code(error, TIDE_E_CLOSED);
    CHECK_INT(atomic_load(&states), 0);
    tide_engine_release(engine);
}

/* A state that was not prepared loads the module for Lua programs, which is another copy. */
static int open_other_copy(lua_State *L)
{
    tide_error *error = NULL;
    CHECK(luaL_loadstring(L, "local path, cpath = ...\n"
                             "package.path = path .. package.path\n"
                             "package.cpath = cpath .. package.cpath\n"
                             "return require 'tidemill'.engine { workers = 1 }") == 0);
    lua_pushliteral(L, TREE "/?.lua;" TREE "/?/init.lua;");
    lua_pushliteral(L, TREE "/?.so;");
    lua_call(L, 2, 1);
    CHECK(tide_lua_engine(L, -1, &error) == NULL);
    CHECK(strstr(tide_error_message(error), "another copy") != NULL);
    check_code(error, TIDE_E_MISUSE);
    return 0;
}

static void another_copy_of_the_library_is_noticed(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_pushcfunction(L, open_other_copy);
    if (lua_pcall(L, 0, 0, 0))
        check_fail(__FILE__, __LINE__, "%s", lua_tostring(L, -1));
    lua_close(L);
}

/* Tries to load from where that would wait for itself: from an `open`. */
static bool load_in_open(void *data, const tide_value *options, void **state, tide_error **error)
{
    (void)options, (void)state;
    return tide_lua_load(data, FIXTURES "/shout.dag.lua", error) != NULL;
}

static void a_script_is_not_loaded_within_a_load(void)
{
    tide_engine *engine = open_engine(1);
    tide_processor processor = {.size = sizeof processor, .open = load_in_open, .call = measure};
    processor.data = engine;
    CHECK(tide_engine_register(engine, "loads", &processor, NULL));
    check_does_not_load(engine, "tm.analyze('x', tm.native 'loads')",
                        "would wait for the callback");
    tide_engine_release(engine);
}

int main(void)
{
    RUN(a_script_runs);
    RUN(a_sandbox_holds_for_scripts_that_c_loads);
    RUN(options_that_lua_would_raise_for_are_misuse);
    RUN(native_and_lua_processors_mix);
    RUN(what_a_script_does_wrong_is_told);
    RUN(an_error_in_lua_comes_with_its_traceback);
    RUN(without_the_modules_there_is_no_engine);
    RUN(several_threads_load_and_run);
    RUN(several_engines_with_lua_live_side_by_side);
    RUN(a_host_state_shares_its_engine);
    RUN(another_copy_of_the_library_is_noticed);
    RUN(a_script_is_not_loaded_within_a_load);
    return check_report();
}
