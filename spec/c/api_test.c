/* SPDX-License-Identifier: MIT */
/* The public C interface, through tidemill.h alone: what a host sees. */
#include "engine/include/tidemill.h"

#include <poll.h>
#include <unistd.h>

#include "check.h"

/* What lives: all must be zero at the end of each test. */
static atomic_int states, kept;
static atomic_uint called;

static bool open_state(void *data, const tide_value *options, void **state, tide_error **error)
{
    (void)data, (void)error;
    *state = malloc(16);
    tide_view_count(tide_value_view(options));
    atomic_fetch_add(&states, 1);
    return *state != NULL;
}

static void close_state(void *state)
{
    free(state);
    atomic_fetch_sub(&states, 1);
}

static void drop(void *data)
{
    (void)data;
    atomic_fetch_sub(&kept, 1);
}

static int64_t number_of(const tide_value *value)
{
    return tide_view_integer(tide_value_view(value));
}

static void increment(void *state, const tide_task *task, tide_answer *answer)
{
    memset(state, 0, 16); /* nobody else may be in this state */
    atomic_fetch_add(&called, 1);
    answer->payload = tide_integer(number_of(tide_task_payload(task)) + 1);
}

static void note(void *state, const tide_task *task, tide_answer *answer)
{
    (void)state;
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    tide_write_text(writer, "seen");
    tide_write_view(writer, tide_value_view(tide_task_payload(task)));
    tide_write_end(writer);
    answer->metadata = tide_writer_finish(writer, &answer->error);
}

static void refuse(void *state, const tide_task *task, tide_answer *answer)
{
    (void)state;
    answer->error = tide_error_new(TIDE_OK, "attempt %u is no good", tide_task_attempt(task));
}

static tide_processor counted(void (*call)(void *, const tide_task *, tide_answer *))
{
    atomic_fetch_add(&kept, 1);
    return (tide_processor){sizeof(tide_processor), open_state, call, close_state, drop, NULL};
}

/* Without states or data. */
static tide_processor plain(void (*call)(void *, const tide_task *, tide_answer *))
{
    return (tide_processor){.size = sizeof(tide_processor), .call = call};
}

static tide_engine *open_engine(uint32_t workers)
{
    tide_options options = TIDE_OPTIONS;
    tide_error *error = NULL;
    options.workers = workers;
    options.pool = getenv("TIDEMILL_POOL") ? TIDE_POOL_SHARED : TIDE_POOL_PRIVATE;
    tide_engine *engine = tide_engine_open(&options, &error);
    CHECK_INT(tide_error_code(error), TIDE_OK);
    REQUIRE(engine);
    return engine;
}

static tide_dag *add(tide_engine *engine, tide_builder *builder)
{
    tide_error *error = NULL;
    tide_dag *dag = tide_engine_add(engine, builder, &error);
    if (!dag)
        check_fail(__FILE__, __LINE__, "%s", tide_error_text(error));
    REQUIRE(dag);
    tide_builder_free(builder);
    return dag;
}

/* A chain of transforms that each add one. */
static tide_dag *chain(tide_engine *engine, int count)
{
    tide_builder *builder = tide_builder_new("chain");
    char id[16], before[16];
    for (int i = 0; i < count; i++) {
        tide_processor processor = counted(increment);
        snprintf(id, sizeof id, "p%d", i);
        tide_builder_transform(builder, id, &processor);
        if (i)
            tide_builder_depends_on(builder, before);
        memcpy(before, id, sizeof id);
    }
    return add(engine, builder);
}

/* One processor. */
static tide_dag *single(tide_engine *engine, void (*call)(void *, const tide_task *, tide_answer *),
                        bool transform)
{
    tide_builder *builder = tide_builder_new(NULL);
    const tide_processor processor = plain(call);
    if (transform)
        tide_builder_transform(builder, "it", &processor);
    else
        tide_builder_analyze(builder, "it", &processor);
    return add(engine, builder);
}

static void check_nothing_lives(void)
{
    for (int i = 0; i < 1000 && (atomic_load(&states) || atomic_load(&kept)); i++)
        usleep(1000); /* an engine that closed itself on a thread of its own */
    CHECK_INT(atomic_load(&states), 0);
    CHECK_INT(atomic_load(&kept), 0);
}

static void check_code(tide_error *error, tide_code code)
{
    CHECK_TEXT(tide_code_name(tide_error_code(error)), tide_code_name(code));
    tide_error_free(error);
}

static void values_are_what_was_put_in(void)
{
    size_t size;
    tide_value *text = tide_string("a\0b", 3);
    const char *bytes = tide_value_string(text, &size);
    CHECK_INT(size, 3);
    CHECK(memcmp(bytes, "a\0b", 4) == 0);
    CHECK_INT(tide_view_integer(tide_value_view(text)), 0);
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    tide_write_text(writer, "list");
    tide_write_array(writer);
    tide_write_integer(writer, INT64_MIN), tide_write_float(writer, 0.5);
    tide_write_boolean(writer, true), tide_write_null(writer);
    tide_write_view(writer, tide_value_view(text));
    tide_write_end(writer);
    tide_write_float(writer, 7), tide_write_text(writer, "a whole float is an integer as a key");
    tide_write_end(writer);
    tide_value *map = tide_writer_finish(writer, NULL);
    const tide_view *view = tide_value_view(map), *list = tide_view_field(view, "list");
    CHECK_INT(tide_view_kind(view), TIDE_MAP);
    CHECK_INT(tide_view_count(view), 2);
    CHECK_INT(tide_view_kind(tide_view_key(view, 1)), TIDE_INTEGER);
    CHECK_INT(tide_view_integer(tide_view_key(view, 1)), 7);
    CHECK_INT(tide_view_count(list), 5);
    CHECK(tide_view_integer(tide_view_item(list, 0)) == INT64_MIN);
    CHECK(tide_view_number(tide_view_item(list, 1)) == 0.5);
    CHECK(tide_view_boolean(tide_view_item(list, 2)));
    CHECK_INT(tide_view_kind(tide_view_item(list, 3)), TIDE_NULL);
    tide_view_string(tide_view_item(list, 4), &size);
    CHECK_INT(size, 3);
    CHECK(tide_view_item(list, 5) == NULL && tide_view_key(list, 0) == NULL);
    CHECK(tide_view_field(view, "lis") == NULL && tide_view_field(NULL, "list") == NULL);
    tide_writer *again = tide_writer_new();
    tide_write_view(again, view);
    tide_value *copy = tide_writer_finish(again, NULL);
    CHECK(tide_value_equal(map, copy) && !tide_value_equal(map, text));
    tide_value_release(copy), tide_value_release(map), tide_value_release(text);
}

/* What `write` leaves is refused for this reason. */
static void check_refused(void (*write)(tide_writer *writer), const char *why)
{
    tide_error *error = NULL;
    tide_writer *writer = tide_writer_new();
    write(writer);
    CHECK(tide_writer_finish(writer, &error) == NULL);
    CHECK_TEXT(tide_error_message(error), why);
    check_code(error, TIDE_E_INVALID_PAYLOAD);
}

static void write_same_key(tide_writer *writer)
{
    tide_write_map(writer);
    for (int i = 0; i < 3; i++)
        tide_write_integer(writer, i % 2), tide_write_null(writer);
    tide_write_end(writer);
}

static void write_half_a_pair(tide_writer *writer)
{
    tide_write_map(writer), tide_write_text(writer, "key"), tide_write_end(writer);
}

static void write_table_as_key(tide_writer *writer)
{
    tide_write_map(writer), tide_write_array(writer), tide_write_end(writer);
}

static void write_two(tide_writer *writer)
{
    tide_write_null(writer), tide_write_null(writer);
}

static void write_open(tide_writer *writer)
{
    tide_write_array(writer);
}

static void write_too_deep(tide_writer *writer)
{
    for (int i = 0; i <= 100; i++)
        tide_write_array(writer);
}

static void write_nothing(tide_writer *writer)
{
    (void)writer;
}

static void what_is_no_value_is_refused(void)
{
    check_refused(write_same_key, "a map has the same key twice");
    check_refused(write_half_a_pair, "a map ended between a key and its value");
    check_refused(write_table_as_key, "a key is a string, a number or a boolean");
    check_refused(write_two, "more than one value was written");
    check_refused(write_open, "an array or map was not ended");
    check_refused(write_too_deep, "arrays and maps are nested too deep (100 at most)");
    check_refused(write_nothing, "nothing was written");
}

static void a_dag_runs_and_says_what_became_of_it(void)
{
    tide_engine *engine = open_engine(2);
    tide_builder *builder = tide_builder_new("counts");
    tide_processor one = counted(increment), two = counted(increment), look = counted(note);
    tide_builder_transform(builder, "one", &one);
    tide_builder_analyze(builder, "look", &look);
    tide_builder_depends_on(builder, "one");
    tide_builder_transform(builder, "two", &two);
    tide_builder_depends_on(builder, "look");
    tide_dag *dag = add(engine, builder);
    CHECK_TEXT(tide_dag_name(dag), "counts");
    CHECK_INT(tide_dag_count(dag), 3);
    CHECK_TEXT(tide_dag_id(dag, 2), "two");
    CHECK(tide_dag_id(dag, 3) == NULL);
    CHECK_INT(atomic_load(&states), 6);
    tide_run_options options = TIDE_RUN_OPTIONS;
    options.profile = 1;
    tide_result *result = tide_dag_run(dag, tide_integer(40), &options, NULL);
    CHECK_INT(tide_result_status(result), TIDE_COMPLETED);
    CHECK(tide_result_error(result) == NULL);
    CHECK_INT(number_of(tide_result_payload(result)), 42);
    const tide_value *seen = tide_result_metadata(result, "look");
    CHECK_INT(tide_view_integer(tide_view_field(tide_value_view(seen), "seen")), 41);
    const tide_outcome *outcome = tide_result_outcome(result, "look");
    CHECK_TEXT(tide_outcome_id(outcome), "look");
    CHECK_TEXT(tide_status_name(tide_outcome_status(outcome)), "completed");
    CHECK(tide_outcome_payload(outcome) == NULL);
    CHECK_INT(number_of(tide_outcome_passed(outcome)), 41);
    CHECK(tide_outcome_started(outcome) >= 0);
    CHECK(tide_outcome_finished(outcome) >= tide_outcome_started(outcome));
    CHECK(tide_result_duration(result) >= tide_outcome_finished(outcome));
    CHECK(tide_result_outcome(result, "three") == NULL);
    CHECK(tide_result_at(result, 1) == outcome && tide_result_at(result, 3) == NULL);
    tide_dag_release(dag);
    tide_engine_close(engine, NULL);
    CHECK_INT(atomic_load(&states), 0);
    tide_engine_release(engine);
    CHECK_INT(number_of(tide_result_payload(result)), 42); /* a result outlives its engine */
    tide_result_release(result);
    check_nothing_lives();
}

static void all_problems_are_told_at_once(void)
{
    tide_engine *engine = open_engine(1);
    tide_builder *builder = tide_builder_new("mill");
    tide_error *error = NULL;
    const tide_processor processor = counted(increment), none = {.size = sizeof none};
    tide_builder_depends_on(builder, "nothing");
    tide_builder_transform(builder, "wheel", &processor);
    tide_builder_depends_on(builder, "gaet");
    tide_builder_call_timeout(builder, -1);
    tide_builder_transform(builder, "gate", &none);
    tide_builder_uses(builder, "db");
    tide_builder_analyze(builder, "gate", NULL);
    tide_builder_timeout(builder, 0);
    CHECK(tide_engine_add(engine, builder, &error) == NULL);
    CHECK_INT(tide_error_problems(error), 8);
    CHECK_TEXT(tide_error_problem(error, 0), "depends_on comes before the first processor");
    CHECK(strstr(tide_error_message(error),
                 "processor 'wheel': depends on unknown processor 'gaet' "
                 "(did you mean 'gate'?)"));
    CHECK(strstr(tide_error_message(error), "mill: 8 problems:\n  depends_on comes"));
    CHECK(tide_error_problem(error, 8) == NULL);
    check_code(error, TIDE_E_INVALID_DAG);
    tide_builder_free(builder);
    tide_engine_release(engine);
    check_nothing_lives();
}

static bool open_second(void *data, const tide_value *options, void **state, tide_error **error)
{
    static atomic_int opened;
    (void)options;
    if (atomic_fetch_add(&opened, 1) % 2 == 0)
        return open_state(data, options, state, error);
    *error = tide_error_new(TIDE_OK, "no %s left", "wheel");
    return false;
}

static void an_open_that_fails_is_an_error_of_adding(void)
{
    tide_engine *engine = open_engine(2);
    tide_builder *builder = tide_builder_new(NULL);
    tide_error *error = NULL;
    tide_processor processor = counted(increment);
    processor.open = open_second;
    tide_builder_transform(builder, "wheel", &processor);
    CHECK(tide_engine_add(engine, builder, &error) == NULL);
    CHECK_TEXT(tide_error_text(error), "invalid_dag: processor 'wheel': open: no wheel left");
    tide_error_free(error);
    CHECK_INT(atomic_load(&states), 0);
    tide_builder_free(builder);
    tide_engine_release(engine);
    check_nothing_lives();
}

static void a_processor_that_fails_is_told(void)
{
    tide_engine *engine = open_engine(1);
    tide_builder *builder = tide_builder_new(NULL);
    const tide_processor fails = plain(refuse), works = counted(increment);
    const tide_retry retry = {.max = 2};
    tide_builder_failure_strategy(builder, TIDE_CONTINUE_ON_ERROR);
    tide_builder_transform(builder, "bad", &fails);
    tide_builder_retry(builder, &retry);
    tide_builder_transform(builder, "good", &works);
    tide_builder_transform(builder, "after", &fails);
    tide_builder_depends_on(builder, "bad");
    tide_dag *dag = add(engine, builder);
    tide_result *result = tide_dag_run(dag, tide_integer(1), NULL, NULL);
    CHECK_INT(tide_result_status(result), TIDE_FAILED);
    CHECK_INT(number_of(tide_result_payload(result)), 2);
    tide_error *error = tide_result_error(result);
    CHECK_TEXT(tide_error_text(error), "processor_failed: processor 'bad': attempt 3 is no good");
    CHECK_INT(tide_error_attempt(error), 3);
    CHECK_TEXT(tide_error_processor(error), "bad");
    CHECK(tide_error_traceback(error) == NULL && tide_error_cause(error) == NULL);
    tide_error_free(error);
    const tide_outcome *failure = tide_result_next_failure(result, NULL);
    CHECK_TEXT(tide_outcome_id(failure), "bad");
    CHECK(tide_result_next_failure(result, failure) == NULL);
    error = tide_outcome_error(tide_result_outcome(result, "after"));
    CHECK_TEXT(tide_error_root(error), "bad");
    check_code(error, TIDE_E_DEPENDENCY_FAILED);
    tide_result_release(result);
    tide_dag_release(dag);
    tide_engine_release(engine);
    check_nothing_lives();
}

static void answer_nothing(void *state, const tide_task *task, tide_answer *answer)
{
    (void)state, (void)task, (void)answer;
}

static void answer_payload(void *state, const tide_task *task, tide_answer *answer)
{
    (void)state;
    answer->payload = tide_value_retain(tide_task_payload(task));
}

static void answer_number_as_metadata(void *state, const tide_task *task, tide_answer *answer)
{
    answer_payload(state, task, answer);
    answer->metadata = tide_integer(1);
}

static void skip(void *state, const tide_task *task, tide_answer *answer)
{
    answer_number_as_metadata(state, task, answer);
    answer->skip = true;
}

static void skip_late(void *state, const tide_task *task, tide_answer *answer)
{
    atomic_fetch_add(&called, 1);
    while (!tide_task_cancelled(task) && atomic_load(&called) < 20)
        usleep(100);
    skip(state, task, answer);
}

static void a_skip_that_comes_too_late_is_an_attempt(void)
{
    tide_engine *engine = open_engine(1);
    tide_builder *builder = tide_builder_new(NULL);
    const tide_processor late = plain(skip_late);
    const tide_retry retry = {.max = 2};
    tide_builder_transform(builder, "it", &late);
    tide_builder_call_timeout(builder, 0.001);
    tide_builder_retry(builder, &retry);
    tide_dag *dag = add(engine, builder);
    atomic_store(&called, 0);
    tide_result *result = tide_dag_run(dag, tide_integer(1), NULL, NULL);
    tide_error *error = tide_result_error(result);
    CHECK_INT(atomic_load(&called), 3);
    CHECK_INT(tide_error_attempt(error), 3);
    check_code(error, TIDE_E_TIMEOUT);
    tide_result_release(result);
    tide_dag_release(dag);
    tide_engine_release(engine);
}

static tide_code outcome_of(tide_engine *engine,
                            void (*call)(void *, const tide_task *, tide_answer *), bool transform)
{
    tide_dag *dag = single(engine, call, transform);
    tide_result *result = tide_dag_run(dag, tide_text("a"), NULL, NULL);
    tide_error *error = tide_result_error(result);
    tide_code code = tide_error_code(error);
    CHECK_TEXT(tide_value_string(tide_result_payload(result), NULL), "a");
    tide_error_free(error);
    tide_result_release(result);
    tide_dag_release(dag);
    return code;
}

static void answers_must_fit_the_intent(void)
{
    tide_engine *engine = open_engine(1);
    CHECK_INT(outcome_of(engine, answer_nothing, true), TIDE_E_INVALID_RESPONSE);
    CHECK_INT(outcome_of(engine, answer_nothing, false), TIDE_OK);
    CHECK_INT(outcome_of(engine, answer_payload, true), TIDE_OK);
    CHECK_INT(outcome_of(engine, answer_payload, false), TIDE_E_INVALID_RESPONSE);
    CHECK_INT(outcome_of(engine, answer_number_as_metadata, true), TIDE_E_INVALID_RESPONSE);
    CHECK_INT(outcome_of(engine, skip, true), TIDE_OK);
    CHECK_INT(outcome_of(engine, skip, false), TIDE_OK);
    tide_engine_release(engine);
}

static void look_around(void *state, const tide_task *task, tide_answer *answer)
{
    const tide_value *options = tide_task_options(task);
    const tide_outcome *left = tide_task_dependency(task, "left");
    CHECK(state == (void *)&kept);
    CHECK_TEXT(tide_task_id(task), "join");
    CHECK_INT(number_of(options), 7);
    CHECK(tide_task_metadata(task, "top") && tide_task_metadata(task, "left"));
    CHECK(!tide_task_metadata(task, "aside") && !tide_task_metadata(task, "nobody"));
    CHECK_INT(number_of(tide_outcome_passed(left)), 1);
    CHECK_INT(tide_outcome_status(left), TIDE_COMPLETED);
    CHECK(tide_task_dependency_at(task, 0) == left && !tide_task_dependency_at(task, 2));
    CHECK(!tide_task_dependency(task, "top"));
    CHECK(tide_view_boolean(
        tide_view_field(tide_value_view(tide_task_input_metadata(task)), "input")));
    CHECK(!tide_task_cancelled(task));
    CHECK(tide_task_remaining(task) > 0 && tide_task_remaining(task) <= 100);
    CHECK_INT(tide_task_attempt(task), 1);
    CHECK(tide_task_worker(task) < 2);
    (void)answer;
}

static void a_task_knows_its_ancestors_and_nobody_else(void)
{
    tide_engine *engine = open_engine(2);
    tide_builder *builder = tide_builder_new(NULL);
    const tide_processor notes = plain(note);
    tide_processor looks = plain(look_around);
    looks.data = &kept;
    tide_builder_strategy(builder, TIDE_LEVEL); /* so that `aside` has run */
    tide_builder_analyze(builder, "top", &notes);
    tide_builder_analyze(builder, "aside", &notes);
    tide_builder_analyze(builder, "left", &notes);
    tide_builder_depends_on(builder, "top");
    tide_builder_analyze(builder, "right", &notes);
    tide_builder_depends_on(builder, "top");
    tide_builder_analyze(builder, "join", &looks);
    tide_builder_depends_on(builder, "left");
    tide_builder_depends_on(builder, "right");
    tide_builder_options(builder, tide_integer(7));
    tide_builder_call_timeout(builder, 100);
    tide_dag *dag = add(engine, builder);
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    tide_write_text(writer, "input"), tide_write_boolean(writer, true);
    tide_write_end(writer);
    tide_value *metadata = tide_writer_finish(writer, NULL);
    tide_run_options options = TIDE_RUN_OPTIONS;
    options.metadata = metadata;
    tide_result *result = tide_dag_run(dag, tide_integer(1), &options, NULL);
    tide_value_release(metadata);
    CHECK_INT(tide_result_status(result), TIDE_COMPLETED);
    CHECK(tide_result_input_metadata(result) != NULL);
    tide_result_release(result);
    tide_dag_release(dag);
    tide_engine_release(engine);
}

enum { FAR = 150 };

static void look_far(void *state, const tide_task *task, tide_answer *answer)
{
    char id[16];
    for (int i = 0; i < FAR; i++) {
        CHECK(tide_task_metadata(task, (sprintf(id, "a%d", i), id)) != NULL);
        CHECK(tide_task_metadata(task, (sprintf(id, "b%d", i), id)) == NULL);
    }
    (void)state, (void)answer;
}

/* Two chains side by side, and one who looks from the end of the first. */
static void ancestors_may_be_far_away(void)
{
    tide_engine *engine = open_engine(1);
    tide_builder *builder = tide_builder_new(NULL);
    const tide_processor notes = plain(note), looks = plain(look_far);
    tide_builder_strategy(builder, TIDE_LEVEL); /* so that all of the other chain has run */
    for (int i = 0; i <= FAR; i++)
        for (char chain = 'a'; chain <= 'b'; chain++) {
            char id[16];
            sprintf(id, "%c%d", chain, i);
            tide_builder_analyze(builder, id, i == FAR && chain == 'a' ? &looks : &notes);
            if (i)
                tide_builder_depends_on(builder, (sprintf(id, "%c%d", chain, i - 1), id));
        }
    tide_dag *dag = add(engine, builder);
    tide_result *result = tide_dag_run(dag, tide_integer(1), NULL, NULL);
    CHECK_INT(tide_result_status(result), TIDE_COMPLETED);
    tide_result_release(result);
    tide_dag_release(dag);
    tide_engine_release(engine);
}

static atomic_bool gate_open;
static atomic_uint at_the_gate;

static void wait_at_gate(void *state, const tide_task *task, tide_answer *answer)
{
    atomic_fetch_add(&at_the_gate, 1);
    while (!atomic_load(&gate_open) && !tide_task_cancelled(task))
        usleep(100);
    answer_payload(state, task, answer);
}

static void close_gate(void)
{
    atomic_store(&gate_open, false);
    atomic_store(&at_the_gate, 0);
}

static void await_gate(unsigned count)
{
    while (atomic_load(&at_the_gate) < count)
        usleep(100);
}

static void a_run_is_cancelled_from_another_thread(void)
{
    tide_engine *engine = open_engine(2);
    tide_dag *dag = single(engine, wait_at_gate, true);
    tide_error *error = NULL;
    close_gate();
    tide_run *run = tide_dag_start(dag, tide_integer(1), NULL, NULL);
    await_gate(1);
    CHECK_INT(tide_run_status(run), TIDE_RUNNING);
    CHECK(tide_run_wait(run, 0, &error) == NULL);
    check_code(error, TIDE_E_TIMEOUT);
    CHECK(tide_run_cancel(run, "no time"));
    tide_result *result = tide_run_wait(run, -1, NULL);
    CHECK_INT(tide_run_status(run), TIDE_CANCELLED);
    CHECK(!tide_run_cancel(run, "again"));
    error = tide_result_error(result);
    CHECK_TEXT(tide_error_text(error), "cancelled: the run was cancelled: no time");
    tide_error_free(error);
    tide_result_release(result);
    tide_run_release(run);
    tide_dag_release(dag);
    tide_engine_release(engine);
}

static void a_run_takes_too_long(void)
{
    tide_engine *engine = open_engine(1);
    tide_dag *dag = single(engine, wait_at_gate, true);
    tide_run_options options = TIDE_RUN_OPTIONS;
    options.timeout = 0.01;
    close_gate();
    tide_result *result = tide_dag_run(dag, tide_integer(1), &options, NULL);
    CHECK_INT(tide_result_status(result), TIDE_CANCELLED);
    check_code(tide_result_error(result), TIDE_E_TIMEOUT);
    tide_result_release(result);
    tide_dag_release(dag);
    tide_engine_release(engine);
}

typedef struct shared {
    tide_dag *dag, *other;
} shared;

static void run_many(void *data, unsigned index)
{
    shared *both = data;
    for (int i = 0; i < ROUNDS(4000); i++) {
        tide_dag *dag = i % 2 ? both->dag : both->other;
        int64_t input = (int64_t)index * 1000 + i;
        tide_result *result;
        if (i % 3) {
            result = tide_dag_run(dag, tide_integer(input), NULL, NULL);
        } else {
            tide_run *run = tide_dag_start(dag, tide_integer(input), NULL, NULL);
            result = tide_run_wait(run, -1, NULL);
            tide_run_release(run);
        }
        REQUIRE(result);
        CHECK_INT(number_of(tide_result_payload(result)), input + (int64_t)tide_dag_count(dag));
        tide_result_release(result);
    }
}

static void many_threads_share_one_engine(void)
{
    tide_engine *engine = open_engine(2);
    shared both = {chain(engine, 5), chain(engine, 3)};
    check_threads(6, run_many, &both);
    tide_dag_release(both.dag), tide_dag_release(both.other);
    tide_engine_release(engine);
    check_nothing_lives();
}

static void several_engines_live_in_one_process(void)
{
    tide_engine *one = open_engine(2), *other = open_engine(1);
    shared both = {chain(one, 5), chain(other, 3)};
    check_threads(4, run_many, &both);
    tide_engine_close(one, NULL);
    CHECK_INT(atomic_load(&states), 3); /* the other one goes on */
    run_many(&(shared){both.other, both.other}, 0);
    tide_dag_release(both.dag), tide_dag_release(both.other);
    tide_engine_release(other), tide_engine_release(one);
    check_nothing_lives();
}

static void add_and_release(void *data, unsigned index)
{
    (void)index;
    for (int i = 0; i < ROUNDS(40); i++) {
        tide_dag *dag = chain(data, 4);
        tide_run *run = tide_dag_start(dag, tide_integer(0), NULL, NULL);
        tide_dag_release(dag);
        tide_run_release(run); /* the run goes on without us */
    }
}

static void dags_come_and_go_on_several_threads(void)
{
    tide_engine *engine = open_engine(2);
    check_threads(4, add_and_release, engine);
    tide_engine_release(engine);
    check_nothing_lives();
}

static void the_descriptor_tells_what_has_settled(void)
{
    enum { RUNS = 50 };
    tide_engine *engine = open_engine(2);
    tide_dag *dag = chain(engine, 3);
    int fd = tide_engine_pollfd(engine, NULL), tags[RUNS], seen = 0;
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    CHECK(fd >= 0);
    CHECK_INT(poll(&polled, 1, 0), 0);
    for (int i = 0; i < RUNS; i++) {
        tide_run_options options = TIDE_RUN_OPTIONS;
        options.notify = true;
        options.tag = &tags[i];
        tags[i] = 0;
        tide_run_release(tide_dag_start(dag, tide_integer(i), &options, NULL));
    }
    while (tide_engine_pending(engine)) {
        tide_result *result;
        CHECK_INT(poll(&polled, 1, -1), 1);
        while ((result = tide_engine_next_settled(engine))) {
            int *tag = tide_result_tag(result);
            CHECK_INT(number_of(tide_result_payload(result)), tag - tags + 3);
            CHECK_INT((*tag)++, 0);
            seen++;
            tide_result_release(result);
        }
    }
    CHECK_INT(seen, RUNS);
    CHECK_INT(poll(&polled, 1, 0), 0);
    tide_dag_release(dag);
    tide_engine_release(engine);
    check_nothing_lives();
}

static void only_runs_that_were_started_notify(void)
{
    tide_engine *engine = open_engine(1);
    tide_dag *dag = chain(engine, 2);
    tide_stream *stream = tide_stream_open(dag, 1, 0, NULL);
    tide_run_options options = TIDE_RUN_OPTIONS;
    options.notify = true;
    tide_result_release(tide_dag_run(dag, tide_integer(1), &options, NULL));
    CHECK(tide_stream_push(stream, tide_integer(1), &options, NULL));
    CHECK_INT(tide_engine_pending(engine), 0);
    tide_result_release(tide_stream_next(stream, -1, NULL));
    CHECK(!tide_engine_next_settled(engine));
    tide_stream_close(stream);
    tide_dag_release(dag);
    tide_engine_release(engine);
    check_nothing_lives();
}

static void what_nobody_takes_goes_with_the_engine(void)
{
    tide_engine *engine = open_engine(2);
    tide_dag *dag = chain(engine, 3);
    tide_run_options options = TIDE_RUN_OPTIONS;
    options.notify = true;
    for (int i = 0; i < 20; i++)
        tide_run_release(tide_dag_start(dag, tide_integer(i), &options, NULL));
    tide_engine_release(engine);
    tide_run_release(tide_dag_start(dag, tide_integer(0), &options, NULL));
    tide_dag_release(dag);
    check_nothing_lives();
}

static void a_stream_bounds_what_is_in_flight(void)
{
    static const unsigned flags[] = {0, TIDE_STREAM_UNORDERED, TIDE_STREAM_BACKGROUND};
    tide_engine *engine = open_engine(2);
    tide_dag *dag = chain(engine, 2);
    for (int f = 0; f < 3; f++) {
        tide_stream *stream = tide_stream_open(dag, 8, flags[f], NULL);
        tide_result *result;
        tide_error *error = NULL;
        int64_t pushed = 0, taken = 0, sum = 0;
        while (taken < 100) {
            while (pushed < 100 && tide_stream_room(stream))
                CHECK(tide_stream_push(stream, tide_integer(pushed++), NULL, NULL));
            if (pushed < 100) {
                CHECK(!tide_stream_push(stream, tide_integer(0), NULL, &error));
                check_code(error, TIDE_E_QUEUE_FULL);
            }
            CHECK((result = tide_stream_next(stream, -1, NULL)) != NULL);
            int64_t number = number_of(tide_result_payload(result));
            if (flags[f] != TIDE_STREAM_UNORDERED)
                CHECK_INT(number, taken + 2);
            sum += number;
            taken++;
            tide_result_release(result);
        }
        CHECK_INT(sum, 99 * 100 / 2 + 200);
        CHECK(tide_stream_next(stream, -1, &error) == NULL);
        for (int i = 0; i < 4; i++)
            tide_stream_push(stream, tide_integer(i), NULL, NULL);
        CHECK_INT(tide_stream_in_flight(stream), 4);
        tide_stream_close(stream);
    }
    tide_dag_release(dag);
    tide_engine_release(engine);
    check_nothing_lives();
}

static void zero_waits(void *state, const tide_task *task, tide_answer *answer)
{
    if (number_of(tide_task_payload(task)) == 0)
        wait_at_gate(state, task, answer);
    else
        answer_payload(state, task, answer);
}

/* The next result, which must be of this number. */
static void check_next(tide_stream *stream, int64_t number)
{
    tide_result *result = tide_stream_next(stream, -1, NULL);
    CHECK_INT(number_of(tide_result_payload(result)), number);
    tide_result_release(result);
}

static void a_stream_keeps_the_order_or_does_not(void)
{
    tide_engine *engine = open_engine(2);
    tide_dag *dag = single(engine, zero_waits, true);
    for (unsigned unordered = 0; unordered < 2; unordered++) {
        unsigned flags = TIDE_STREAM_BACKGROUND | (unordered ? TIDE_STREAM_UNORDERED : 0u);
        tide_stream *stream = tide_stream_open(dag, 2, flags, NULL);
        tide_error *error = NULL;
        close_gate();
        for (int i = 0; i < 2; i++)
            CHECK(tide_stream_push(stream, tide_integer(i), NULL, NULL));
        await_gate(1);
        if (unordered)
            check_next(stream, 1);
        CHECK(!tide_stream_next(stream, 0.01, &error));
        check_code(error, TIDE_E_TIMEOUT);
        atomic_store(&gate_open, true);
        check_next(stream, 0);
        if (!unordered)
            check_next(stream, 1);
        CHECK_INT(tide_stream_in_flight(stream), 0);
        tide_stream_close(stream);
    }
    tide_dag_release(dag);
    tide_engine_release(engine);
}

/* What a callback does to the engine it runs in, and what it was told. */
static struct {
    tide_engine *engine;
    tide_dag *dag;
    tide_run *run;
    tide_error *errors[4];
} inside;

static void wait_for_oneself(void *state, const tide_task *task, tide_answer *answer)
{
    CHECK(!tide_engine_close(inside.engine, &inside.errors[0]));
    CHECK(!tide_dag_run(inside.dag, tide_integer(1), NULL, &inside.errors[1]));
    CHECK(!tide_run_wait(inside.run, -1, &inside.errors[2]));
    tide_builder *builder = tide_builder_new(NULL);
    CHECK(!tide_engine_add(inside.engine, builder, &inside.errors[3]));
    tide_builder_free(builder);
    answer_payload(state, task, answer);
}

static void a_callback_may_not_wait_for_itself(void)
{
    inside.engine = open_engine(2);
    inside.dag = single(inside.engine, wait_for_oneself, true);
    tide_dag *gate = single(inside.engine, wait_at_gate, true);
    close_gate();
    inside.run = tide_dag_start(gate, tide_integer(1), NULL, NULL);
    await_gate(1);
    tide_result *result = tide_dag_run(inside.dag, tide_integer(1), NULL, NULL);
    CHECK_INT(tide_result_status(result), TIDE_COMPLETED);
    for (int i = 0; i < 4; i++)
        check_code(inside.errors[i], TIDE_E_MISUSE);
    atomic_store(&gate_open, true);
    tide_result_release(result);
    tide_run_release(inside.run);
    tide_dag_release(gate), tide_dag_release(inside.dag);
    tide_engine_release(inside.engine);
}

static void let_go(void *state, const tide_task *task, tide_answer *answer)
{
    tide_dag_release(inside.dag);
    tide_engine_release(inside.engine);
    increment(state, task, answer);
}

static void the_last_handle_may_go_in_a_callback(void)
{
    inside.engine = open_engine(2);
    tide_builder *builder = tide_builder_new(NULL);
    const tide_processor processor = counted(let_go);
    tide_builder_transform(builder, "it", &processor);
    inside.dag = add(inside.engine, builder);
    tide_run_release(tide_dag_start(inside.dag, tide_integer(1), NULL, NULL));
    check_nothing_lives();
}

static void a_run_may_settle_when_nobody_is_left(void)
{
    for (int i = 0; i < ROUNDS(100); i++) {
        tide_engine *engine = open_engine(2);
        tide_dag *dag = chain(engine, 3);
        tide_run_release(tide_dag_start(dag, tide_integer(1), NULL, NULL));
        tide_dag_release(dag);
        tide_engine_release(engine);
    }
    check_nothing_lives();
}

static void a_closed_engine_answers(void)
{
    tide_engine *engine = open_engine(1);
    tide_dag *dag = chain(engine, 2);
    tide_error *error = NULL;
    tide_processor processor = plain(increment);
    CHECK(tide_engine_close(engine, NULL) && tide_engine_close(engine, NULL));
    CHECK(!tide_dag_run(dag, tide_integer(1), NULL, &error));
    check_code(error, TIDE_E_CLOSED);
    CHECK(!tide_dag_start(dag, tide_integer(1), NULL, &error));
    check_code(error, TIDE_E_CLOSED);
    CHECK(!tide_engine_register(engine, "late", &processor, &error));
    check_code(error, TIDE_E_CLOSED);
    tide_builder *builder = tide_builder_new(NULL);
    tide_builder_transform(builder, "it", &processor);
    CHECK(!tide_engine_add(engine, builder, &error));
    check_code(error, TIDE_E_CLOSED);
    tide_stream *stream = tide_stream_open(dag, 1, 0, NULL);
    CHECK(!tide_stream_push(stream, tide_integer(1), NULL, &error));
    check_code(error, TIDE_E_CLOSED);
    tide_stream_close(stream);
    tide_builder_free(builder);
    tide_dag_release(dag);
    tide_engine_release(engine);
    check_nothing_lives();
}

static void misuse_is_answered(void)
{
    tide_engine *engine = open_engine(1);
    tide_dag *dag = chain(engine, 1);
    tide_error *error = NULL;
    tide_processor processor = plain(increment);
    tide_options options = {0};
    CHECK(!tide_engine_open(&options, &error));
    check_code(error, TIDE_E_MISUSE);
    CHECK(!tide_engine_register(engine, NULL, &processor, &error));
    check_code(error, TIDE_E_MISUSE);
    CHECK(tide_engine_register(engine, "it", &processor, NULL));
    CHECK(!tide_engine_register(engine, "it", &processor, &error));
    check_code(error, TIDE_E_MISUSE);
    CHECK(!tide_dag_run(NULL, tide_integer(1), NULL, &error));
    check_code(error, TIDE_E_MISUSE);
    CHECK(!tide_dag_run(dag, NULL, NULL, &error));
    check_code(error, TIDE_E_MEMORY_LIMIT);
    tide_value *number = tide_integer(1);
    tide_run_options run = TIDE_RUN_OPTIONS;
    run.metadata = number;
    CHECK(!tide_dag_run(dag, tide_integer(1), &run, &error));
    check_code(error, TIDE_E_INVALID_PAYLOAD);
    tide_value_release(number);
    CHECK(!tide_engine_add(engine, NULL, &error));
    check_code(error, TIDE_E_MISUSE);
    CHECK(!tide_stream_open(dag, 0, 0, &error));
    check_code(error, TIDE_E_MISUSE);
    CHECK(!tide_stream_open(dag, 0, 0, NULL));
    tide_engine_close(NULL, NULL), tide_engine_release(NULL), tide_dag_release(NULL);
    tide_run_release(NULL), tide_result_release(NULL), tide_stream_close(NULL);
    tide_builder_free(NULL), tide_builder_depends_on(NULL, "x"), tide_writer_free(NULL);
    tide_error_free(NULL), tide_value_release(NULL);
    CHECK_TEXT(tide_code_name((tide_code)77), "unknown");
    tide_dag_release(dag);
    tide_engine_release(engine);
    check_nothing_lives();
}

int main(void)
{
    CHECK_TEXT(tide_version(), TIDE_VERSION);
    RUN(values_are_what_was_put_in);
    RUN(what_is_no_value_is_refused);
    RUN(a_dag_runs_and_says_what_became_of_it);
    RUN(all_problems_are_told_at_once);
    RUN(an_open_that_fails_is_an_error_of_adding);
    RUN(a_processor_that_fails_is_told);
    RUN(answers_must_fit_the_intent);
    RUN(a_skip_that_comes_too_late_is_an_attempt);
    RUN(a_task_knows_its_ancestors_and_nobody_else);
    RUN(ancestors_may_be_far_away);
    RUN(a_run_is_cancelled_from_another_thread);
    RUN(a_run_takes_too_long);
    RUN(many_threads_share_one_engine);
    RUN(several_engines_live_in_one_process);
    RUN(dags_come_and_go_on_several_threads);
    RUN(the_descriptor_tells_what_has_settled);
    RUN(only_runs_that_were_started_notify);
    RUN(what_nobody_takes_goes_with_the_engine);
    RUN(a_stream_bounds_what_is_in_flight);
    RUN(a_stream_keeps_the_order_or_does_not);
    RUN(a_callback_may_not_wait_for_itself);
    RUN(the_last_handle_may_go_in_a_callback);
    RUN(a_run_may_settle_when_nobody_is_left);
    RUN(a_closed_engine_answers);
    RUN(misuse_is_answered);
    return check_report();
}
