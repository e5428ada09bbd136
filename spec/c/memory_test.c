/* SPDX-License-Identifier: MIT */
/* What is allocated, and what becomes of everything when there is no more memory: each allocation
 * in turn fails, alone and with all that follow it. */
#include "allocator.h"

#include "check.h"
#include "engine/include/tidemill.h"
#include "native.h"

/* Runs `work` with its first allocation failing, then its second, and so on until it does all it
 * has to do; `work` returns whether it did. Nothing may leak on the way. */
static void starve(bool (*work)(void))
{
    for (int ever_after = 0; ever_after < 2; ever_after++) {
        bool whole = false;
        CHECK(work()); /* what is allocated once and kept is there from now on */
        for (long skipped = 0; !whole && skipped < 2000; skipped++) {
            long before = live;
            fail_ever_after = ever_after;
            fail_at = made + skipped;
            bool done = work();
            whole = made <= fail_at;
            fail_at = -1;
            CHECK(done || !whole);
            CHECK(SANITIZED || live == before);
        }
        CHECK(whole);
    }
}

static bool make_values(void)
{
    ti_value *values[] = {ti_value_integer(1), ti_value_float(1), ti_value_string("text", 4),
                          ti_value_boolean(true)};
    bool whole = values[0] && values[1] && values[2];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        ti_value_release(values[i]);
    return whole;
}

static void values_are_made_or_not(void)
{
    starve(make_values);
}

/* Grows the scratch buffer several times. */
static bool build_value(void)
{
    ti_builder builder = {0};
    size_t items = 0;
    bool whole = ti_builder_begin(&builder) && ti_builder_table(&builder, 0, TI_ARRAY, 50, &items);
    for (size_t i = 0; whole && i < 50; i++)
        whole = ti_builder_string(&builder, items + i * sizeof(ti_cell), "some text to keep", 17);
    ti_value *value = whole ? ti_builder_finish(&builder, NULL) : NULL;
    bool done = value && ti_cell_items(&value->root)[49].size == 17;
    ti_value_release(value);
    ti_builder_trim(&builder, true);
    return done;
}

static void a_builder_says_when_it_cannot_grow(void)
{
    starve(build_value);
}

/* Without memory an error is another error, but there is one. */
static bool make_errors(void)
{
    ti_error *one = ti_error_new(TI_E_TIMEOUT, "late", 4, "trace", 5, ti_value_integer(1));
    ti_error *two = ti_error_format(TI_E_CLOSED, "%d", 1);
    bool whole = one->code == TI_E_TIMEOUT && one->cause && two->code == TI_E_CLOSED;
    CHECK(one->code == TI_E_TIMEOUT || one->code == TI_E_MEMORY_LIMIT);
    CHECK(strlen(one->message) == one->message_size && one->message_size > 0);
    ti_error *chain = ti_error_chain(two, one, 2);
    ti_error_free(chain);
    return whole;
}

static void errors_are_always_made(void)
{
    starve(make_errors);
}

/* Names that don't fit the first block of texts, limits, options, edges. */
static ti_dag *declare(void)
{
    ti_dag *dag = ti_dag_new("starved", 7);
    char id[3000];
    if (!dag)
        return NULL;
    ti_dag_limit(dag, "db", 2, 1);
    for (uint32_t i = 0; i < 20; i++) {
        memset(id, 'a' + (int)i, sizeof id);
        ti_dag_add(dag, id, sizeof id, i % 2 ? TI_ANALYZE : TI_TRANSFORM, 0);
        if (dag->failed)
            continue;
        dag->processors[i].timeout = i * 1000000000;
        dag->processors[i].retry.max = i % 3;
        ti_dag_uses(dag, "db", 2);
        for (uint32_t k = 0; k < i && k < 3; k++) {
            memset(id, 'a' + (int)k, sizeof id);
            ti_dag_depends_on(dag, id, sizeof id);
        }
        if (i)
            ti_dag_payload_from(dag, id, sizeof id);
    }
    return dag;
}

static bool compile(void)
{
    ti_problems problems = {0};
    ti_dag *dag = declare();
    ti_plan *plan = dag ? ti_plan_compile(dag, &problems) : NULL;
    bool whole = plan != NULL;
    CHECK_INT(problems.count, 0);
    CHECK(!plan || !dag->failed);
    ti_problems_clear(&problems);
    ti_dag_free(dag);
    ti_plan_release(plan);
    return whole;
}

static void a_plan_is_whole_or_none(void)
{
    starve(compile);
}

/* A DAG of one processor that depends on itself ten times. */
static bool find_problems(void)
{
    ti_problems problems = {0};
    ti_dag *dag = ti_dag_new(NULL, 0);
    if (!dag)
        return false;
    ti_dag_add(dag, "a", 1, TI_TRANSFORM, 0);
    for (int i = 0; i < 10; i++)
        ti_dag_depends_on(dag, "a", 1);
    CHECK(ti_plan_compile(dag, &problems) == NULL);
    bool whole = problems.count == 10 && !problems.failed;
    CHECK(whole || problems.failed || problems.count == 0);
    ti_problems_clear(&problems);
    ti_dag_free(dag);
    return whole;
}

static void lost_problems_are_not_forgotten(void)
{
    starve(find_problems);
}

static tt_house house;
static tt_native native = {.call = tt_pass};

static ti_engine *open_engine(void)
{
    ti_error *error = NULL;
    const ti_backend_choice choice = {&tt_backend, &house};
    house = (tt_house){0};
    ti_engine *engine = tt_try_open(2, &choice, 1, &error);
    CHECK((engine == NULL) == (error != NULL));
    ti_error_free(error);
    return engine;
}

static void close_engine(ti_engine *engine)
{
    if (engine)
        ti_engine_close(engine);
    ti_engine_release(engine);
    CHECK_INT(house.opened, house.closed);
}

static bool open_and_close(void)
{
    ti_engine *engine = open_engine();
    bool whole = engine != NULL;
    close_engine(engine);
    return whole;
}

static void an_engine_opens_or_does_not(void)
{
    starve(open_and_close);
}

static ti_plan *compiled(ti_strategy strategy)
{
    ti_problems problems = {0};
    ti_dag *dag = declare();
    if (dag) {
        dag->strategy = strategy;
        dag->max_concurrency = 1;
    }
    ti_plan *plan = dag ? ti_plan_compile(dag, &problems) : NULL;
    ti_problems_clear(&problems);
    ti_dag_free(dag);
    return plan;
}

/* Whether two runs at once were made and ended as they should. */
static bool run_twice(ti_program *program, bool start)
{
    ti_run_options options = ti_run_defaults(program->plan);
    options.profile = true;
    ti_value *inputs[2] = {ti_value_integer(1), ti_value_integer(2)};
    bool whole = true;
    ti_run *runs[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        runs[i] = inputs[i] ? ti_run_new(program, inputs[i], NULL, &options) : NULL;
        ti_code code = !runs[i] ? TI_E_MEMORY_LIMIT
                       : start  ? ti_engine_start(program->engine, runs[i])
                                : ti_engine_run(program->engine, runs[i]);
        whole = whole && code == TI_OK;
        if (code == TI_OK) {
            ti_engine_wait(program->engine, runs[i], UINT64_MAX);
            CHECK_INT(ti_run_status(runs[i]), TI_COMPLETED);
            CHECK_INT(tt_result(runs[i]), i + 1);
        }
    }
    ti_run_release(runs[0]);
    ti_run_release(runs[1]);
    return whole;
}

static bool live_through(ti_strategy strategy, bool start)
{
    ti_engine *engine = open_engine();
    ti_plan *plan = engine ? compiled(strategy) : NULL;
    ti_program *program = plan ? ti_program_new(engine, plan, (uint64_t)(uintptr_t)&native) : NULL;
    bool whole = program && run_twice(program, start);
    ti_program_release(program);
    close_engine(engine);
    return whole;
}

static bool live_reactive(void)
{
    return live_through(TI_REACTIVE, false);
}

static bool live_by_queue(void)
{
    return live_through(TI_WORK_QUEUE, false);
}

static bool live_started(void)
{
    return live_through(TI_LEVEL, true);
}

static void a_run_completes_or_never_starts(void)
{
    starve(live_reactive);
    starve(live_by_queue);
    starve(live_started);
}

/* After the first, a run costs nothing but what its caller and its callbacks make. */
static void later_runs_allocate_nothing(void)
{
    enum { RUNS = 200 };
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_chain(50), &native);
    for (int i = 0; i < 20; i++) {
        tt_compute(program, 1);
        ti_run *run = tt_run_new(program, 1);
        tt_start(run);
        tt_wait(run);
        ti_run_release(run);
    }
    long before = made, alive = live;
    for (int i = 0; i < RUNS; i++)
        tt_compute(program, 1);
    CHECK_INT(made - before, RUNS); /* the inputs */
    before = made;
    for (int i = 0; i < RUNS; i++) {
        ti_run *run = tt_run_new(program, 1);
        tt_start(run);
        tt_wait(run);
        ti_run_release(run);
    }
    /* But for another run or two, if a thread is slow to let go of the last. */
    CHECK(made - before < RUNS + RUNS / 5);
    CHECK(live - alive < RUNS / 5);
    ti_program_release(program);
    tt_close(engine, &house);
}

/* Runs are used again. One that lacks memory for what is asked of it goes back, and no other. */
static void a_run_that_cannot_be_had_leaves_the_others_apart(void)
{
    enum { RUNS = 6 };
    ti_run *runs[2 * RUNS];
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    ti_run_options options = ti_run_defaults(program->plan);
    for (int i = 0; i < RUNS; i++)
        runs[i] = tt_run_new(program, 1);
    ti_run_release_all(runs, RUNS);
    ti_value *input = ti_value_integer(1);
    options.profile = true;
    fail_at = made;
    CHECK(ti_run_new(program, input, NULL, &options) == NULL);
    fail_at = -1;
    for (int i = 0; i < 2 * RUNS; i++) {
        runs[i] = tt_run_new(program, 1);
        for (int k = 0; k < i; k++)
            CHECK(runs[k] != runs[i]);
    }
    ti_run_release_all(runs, 2 * RUNS);
    ti_program_release(program);
    tt_close(engine, &house);
}

static void do_nothing(void *data, unsigned index)
{
    (void)data, (void)index;
}

static bool open_some(void *data, const tide_value *options, void **state, tide_error **error)
{
    (void)data, (void)options;
    *state = malloc(1);
    if (!*state)
        *error = tide_error_new(TIDE_E_MEMORY_LIMIT, "no %s", "state");
    return *state != NULL;
}

static void call_some(void *state, const tide_task *task, tide_answer *answer)
{
    (void)state, (void)task;
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    tide_write_text(writer, "list");
    tide_write_array(writer);
    for (int i = 0; i < 20; i++)
        tide_write_text(writer, "0123456789");
    tide_write_end(writer), tide_write_end(writer);
    answer->payload = tide_writer_finish(writer, &answer->error);
}

static void fail_some(void *state, const tide_task *task, tide_answer *answer)
{
    (void)state, (void)task;
    answer->error = tide_error_new(TIDE_E_PROCESSOR_FAILED, "it does");
}

/* What fails has an error, which says so; frees it. */
static bool there_is(const void *object, tide_error *error)
{
    CHECK((object == NULL) == (error != NULL));
    CHECK(!error || tide_error_code(error) != TIDE_OK);
    CHECK(!error || tide_error_text(error)[0]);
    tide_error_free(error);
    return object != NULL;
}

static tide_dag *add_some(tide_engine *engine)
{
    const tide_processor works = {sizeof works, open_some, call_some, free, NULL, NULL};
    const tide_processor fails = {.size = sizeof fails, .call = fail_some};
    tide_builder *builder = tide_builder_new("some");
    tide_error *error = NULL;
    tide_builder_failure_strategy(builder, TIDE_CONTINUE_ON_ERROR);
    tide_builder_limit(builder, "db", 1);
    tide_builder_transform(builder, "works", &works);
    tide_builder_uses(builder, "db");
    tide_builder_options(builder, tide_integer(1));
    tide_builder_transform(builder, "fails", &fails);
    tide_builder_depends_on(builder, "works");
    tide_builder_transform(builder, "after", &works);
    tide_builder_depends_on(builder, "fails");
    tide_dag *dag = tide_engine_add(engine, builder, &error);
    tide_builder_free(builder);
    return there_is(dag, error) ? dag : NULL;
}

static bool look_at(const tide_result *result)
{
    tide_error *error = tide_result_error(result);
    bool whole = tide_error_code(error) == TIDE_E_PROCESSOR_FAILED;
    tide_error_free(error);
    for (size_t i = 0; i < tide_result_count(result); i++) {
        error = tide_outcome_error(tide_result_at(result, i));
        whole = whole && tide_error_code(error) != TIDE_E_MEMORY_LIMIT;
        tide_error_free(error);
    }
    return whole && tide_value_view(tide_result_payload(result));
}

static bool run_some(tide_dag *dag)
{
    tide_error *error = NULL;
    tide_result *result = tide_dag_run(dag, tide_text("x"), NULL, &error);
    bool whole = there_is(result, error) && look_at(result);
    tide_result_release(result);
    error = NULL;
    tide_stream *stream = tide_stream_open(dag, 2, 0, &error);
    if (!there_is(stream, error))
        return false;
    error = NULL;
    bool pushed = tide_stream_push(stream, tide_integer(1), NULL, &error);
    whole = there_is(pushed ? stream : NULL, error) && whole;
    result = tide_stream_next(stream, -1, NULL);
    CHECK((result != NULL) == pushed);
    tide_result_release(result);
    tide_stream_close(stream);
    return whole;
}

static bool be_a_host(void)
{
    const tide_processor named = {.size = sizeof named, .call = call_some};
    tide_options options = TIDE_OPTIONS;
    tide_error *error = NULL;
    options.workers = 1;
    tide_engine *engine = tide_engine_open(&options, &error);
    if (!there_is(engine, error))
        return false;
    error = NULL;
    bool whole = tide_engine_register(engine, "named", &named, &error);
    there_is(whole ? engine : NULL, error);
    tide_dag *dag = add_some(engine);
    whole = dag && run_some(dag) && whole;
    tide_dag_release(dag);
    tide_engine_release(engine);
    return whole;
}

static void a_host_does_all_or_is_told(void)
{
    starve(be_a_host);
}

int main(void)
{
    check_threads(4, do_nothing, NULL); /* libc keeps what belongs to their stacks */
    REQUIRE(allocator_open() == 0);
    RUN(values_are_made_or_not);
    RUN(a_builder_says_when_it_cannot_grow);
    RUN(errors_are_always_made);
    RUN(a_plan_is_whole_or_none);
    RUN(lost_problems_are_not_forgotten);
    RUN(an_engine_opens_or_does_not);
    RUN(a_run_completes_or_never_starts);
    RUN(later_runs_allocate_nothing);
    RUN(a_run_that_cannot_be_had_leaves_the_others_apart);
    RUN(a_host_does_all_or_is_told);
    return check_report();
}
