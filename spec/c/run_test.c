/* SPDX-License-Identifier: MIT */
/* What one run does, on the calling thread alone: payloads, failures, cancellation, reuse. */
#include "engine/run.h"

#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

#include "check.h"
#include "native.h"

static tt_house house;

/* Runs a DAG once, on a one-worker engine that stays open until `done`. */
typedef struct tt_case {
    ti_engine *engine;
    ti_program *program;
    ti_run *run;
} tt_case;

static tt_case perform(ti_dag *dag, tt_native *native, uint64_t input)
{
    tt_case it = {.engine = tt_open(&house, 1)};
    it.program = tt_install(it.engine, dag, native);
    it.run = tt_run_new(it.program, input);
    CHECK_INT(ti_engine_run(it.engine, it.run), TI_OK);
    CHECK(ti_run_settled(it.run));
    return it;
}

static void done(tt_case it)
{
    ti_run_release(it.run);
    ti_program_release(it.program);
    tt_close(it.engine, &house);
}

static void check_statuses(const ti_run *run, const ti_status *by_slot)
{
    for (uint32_t s = 0; s < run->plan->count; s++)
        CHECK_TEXT(ti_status_name(run->nodes[s].status),
                   ti_status_name(by_slot[run->plan->steps[s].slot]));
}

static void statuses_have_names(void)
{
    static const char *const names[] = {"waiting", "ready",   "running",  "completed",
                                        "failed",  "skipped", "cancelled"};
    for (int status = TI_WAITING; status <= TI_CANCELLED; status++)
        CHECK_TEXT(ti_status_name((ti_status)status), names[status]);
}

static void a_chain_hands_the_payload_on(void)
{
    tt_native native = {.call = tt_increment};
    tt_case it = perform(tt_chain(1000), &native, 5);
    CHECK_INT(ti_run_status(it.run), TI_COMPLETED);
    CHECK_INT(tt_result(it.run), 1005);
    CHECK_INT(native.called, 1000);
    CHECK_INT(native.most, 1);
    CHECK_INT(ti_run_source(it.run), 1000);
    CHECK_INT(tt_node(it.run, "p10")->attempts, 1);
    CHECK_INT(tt_number_of(ti_run_value(it.run, tt_node(it.run, "p10")->source)), 16);
    done(it);
}

/* Returns its payload times 10, plus its declaration index. */
static tt_answer append_slot(const ti_task *task, void *data)
{
    (void)data;
    return tt_return(tt_number_of(task->payload) * 10 + task->step->slot);
}

/* top(0) -> left(1), right(2) -> bottom(3), but left goes by an extra step(4) if `deep`. */
static ti_dag *diamond(bool deep)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    tt_add(dag, "top", TI_TRANSFORM);
    tt_add(dag, "left", TI_TRANSFORM);
    tt_depends(dag, deep ? "extra" : "top");
    tt_add(dag, "right", TI_TRANSFORM);
    tt_depends(dag, "top");
    tt_add(dag, "bottom", TI_TRANSFORM);
    tt_depends(dag, "left");
    tt_depends(dag, "right");
    if (deep) {
        tt_add(dag, "extra", TI_TRANSFORM);
        tt_depends(dag, "top");
    }
    return dag;
}

static void the_deepest_branch_wins_a_join_then_the_last_declared(void)
{
    tt_native native = {.call = append_slot};
    tt_case it = perform(diamond(false), &native, 9);
    CHECK_INT(tt_result(it.run), 9023);
    done(it);
    it = perform(diamond(true), &native, 9);
    CHECK_INT(tt_result(it.run), 90413);
    done(it);
}

static void payload_from_takes_another_branch(void)
{
    tt_native native = {.call = append_slot};
    ti_dag *dag = diamond(false);
    tt_add(dag, "other", TI_TRANSFORM);
    tt_depends(dag, "left");
    tt_depends(dag, "right");
    ti_dag_payload_from(dag, "left", 4);
    tt_case it = perform(dag, &native, 9);
    CHECK_INT(tt_result(it.run), 9014);
    done(it);
}

static void an_analyze_adds_metadata_and_lets_the_payload_by(void)
{
    static const tt_call calls[] = {tt_increment, tt_note, tt_increment, tt_note};
    tt_native native = {.calls = calls};
    ti_dag *dag = ti_dag_new(NULL, 0);
    tt_add(dag, "a", TI_TRANSFORM);
    tt_add(dag, "b", TI_ANALYZE);
    tt_depends(dag, "a");
    tt_add(dag, "c", TI_TRANSFORM);
    tt_depends(dag, "b");
    tt_add(dag, "alone", TI_ANALYZE);
    tt_case it = perform(dag, &native, 1);
    CHECK_INT(tt_result(it.run), 3);
    CHECK_INT(tt_number_of(tt_node(it.run, "b")->metadata), 2);
    CHECK_INT(tt_number_of(tt_node(it.run, "alone")->metadata), 1);
    CHECK(tt_node(it.run, "a")->metadata == NULL);
    done(it);
}

/* Passing the payload on as it is copies nothing and takes no reference. */
static void a_payload_passed_on_is_the_same_value(void)
{
    tt_native native = {.call = tt_pass};
    tt_case it = perform(tt_chain(50), &native, 77);
    CHECK(ti_run_value(it.run, ti_run_source(it.run)) == it.run->input);
    CHECK_INT(atomic_load(&it.run->input->references), 1);
    CHECK_INT(it.run->bytes, 0);
    done(it);
}

static void bytes_are_those_of_the_values_made(void)
{
    static const tt_call calls[] = {tt_increment, tt_pass, tt_increment};
    tt_native native = {.calls = calls};
    tt_case it = perform(tt_chain(3), &native, 0);
    CHECK_INT(it.run->bytes, 2 * it.run->input->bytes);
    done(it);
}

/* p0 fails; p1 depends on it, p2 on p1; p3 stands alone and is declared last. */
static ti_dag *half_failing(ti_failure_strategy strategy)
{
    ti_dag *dag = tt_chain(3);
    tt_add(dag, "p3", TI_TRANSFORM);
    dag->failure_strategy = strategy;
    return dag;
}

static const tt_call half_failing_calls[] = {tt_fail, tt_increment, tt_increment, tt_increment};

static void fail_fast_starts_nothing_more(void)
{
    static const ti_status expected[] = {TI_FAILED, TI_CANCELLED, TI_CANCELLED, TI_CANCELLED};
    tt_native native = {.calls = half_failing_calls};
    tt_case it = perform(half_failing(TI_FAIL_FAST), &native, 1);
    check_statuses(it.run, expected);
    CHECK_INT(native.called, 1);
    CHECK_INT(ti_run_status(it.run), TI_FAILED);
    CHECK_INT(it.run->verdict, TI_STOP_FAILED);
    CHECK_INT(tt_result(it.run), 1);
    done(it);
}

static void continue_on_error_skips_what_depends_on_it(void)
{
    static const ti_status expected[] = {TI_FAILED, TI_SKIPPED, TI_SKIPPED, TI_COMPLETED};
    tt_native native = {.calls = half_failing_calls};
    tt_case it = perform(half_failing(TI_CONTINUE_ON_ERROR), &native, 1);
    check_statuses(it.run, expected);
    CHECK_INT(native.called, 2);
    CHECK_INT(tt_node(it.run, "p2")->root, 0);
    CHECK_INT(tt_node(it.run, "p2")->attempts, 0);
    CHECK_INT(tt_node(it.run, "p3")->root, TI_NONE);
    CHECK_INT(ti_run_status(it.run), TI_FAILED);
    CHECK_INT(tt_result(it.run), 2);
    done(it);
}

static void best_effort_goes_on_without_it(void)
{
    static const ti_status expected[] = {TI_FAILED, TI_COMPLETED, TI_COMPLETED, TI_COMPLETED};
    tt_native native = {.calls = half_failing_calls};
    tt_case it = perform(half_failing(TI_BEST_EFFORT), &native, 1);
    check_statuses(it.run, expected);
    CHECK_INT(tt_result(it.run), 3);
    CHECK_INT(ti_run_status(it.run), TI_FAILED);
    done(it);
}

static void the_error_stays_in_the_node(void)
{
    tt_native native = {.calls = half_failing_calls};
    tt_case it = perform(half_failing(TI_BEST_EFFORT), &native, 1);
    uint32_t step = ti_run_next_failure(it.run, 0);
    CHECK_INT(step, 0);
    CHECK_INT(it.run->nodes[step].error->code, TI_E_PROCESSOR_FAILED);
    CHECK_TEXT(it.run->nodes[step].error->message, "it fails");
    CHECK_INT(ti_run_next_failure(it.run, step + 1), TI_NONE);
    done(it);
}

/* Three fail, declared in the order third, first, second by (rank, index). */
static void failures_come_in_canonical_order(void)
{
    static const tt_call calls[] = {tt_fail, tt_fail, tt_fail, tt_increment};
    tt_native native = {.calls = calls};
    ti_dag *dag = ti_dag_new(NULL, 0);
    dag->failure_strategy = TI_CONTINUE_ON_ERROR;
    tt_add(dag, "third", TI_TRANSFORM);
    tt_depends(dag, "fine");
    tt_add(dag, "first", TI_TRANSFORM);
    tt_add(dag, "second", TI_TRANSFORM);
    tt_add(dag, "fine", TI_TRANSFORM);
    tt_add(dag, "join", TI_TRANSFORM);
    tt_depends(dag, "third");
    tt_depends(dag, "second");
    tt_case it = perform(dag, &native, 1);
    static const char *const order[] = {"first", "second", "third"};
    uint32_t step = 0;
    for (int i = 0; i < 3; i++, step++) {
        step = ti_run_next_failure(it.run, step);
        CHECK(&it.run->nodes[step] == tt_node(it.run, order[i]));
    }
    CHECK_INT(ti_run_next_failure(it.run, step), TI_NONE);
    CHECK(&it.run->nodes[tt_node(it.run, "join")->root] == tt_node(it.run, "second"));
    done(it);
}

static tt_answer cancel_own_run(const ti_task *task, void *data)
{
    (void)data;
    CHECK(ti_run_cancel(task->run, "enough", 6));
    CHECK(ti_run_cancel(task->run, "more", 4));
    return tt_return(1000);
}

static void a_cancelled_run_starts_nothing_and_drops_what_returns(void)
{
    static const tt_call calls[] = {tt_increment, cancel_own_run, tt_increment};
    static const ti_status expected[] = {TI_COMPLETED, TI_CANCELLED, TI_CANCELLED};
    tt_native native = {.calls = calls};
    tt_case it = perform(tt_chain(3), &native, 1);
    check_statuses(it.run, expected);
    CHECK_INT(ti_run_status(it.run), TI_CANCELLED);
    CHECK_TEXT(ti_cell_string(&atomic_load(&it.run->reason)->root), "enough");
    CHECK_INT(tt_result(it.run), 2);
    CHECK(!ti_run_cancel(it.run, "too late", 8));
    CHECK_TEXT(ti_cell_string(&atomic_load(&it.run->reason)->root), "enough");
    done(it);
}

static tt_answer cancel_and_fail(const ti_task *task, void *data)
{
    (void)data;
    CHECK(ti_run_cancel(task->run, NULL, 0));
    return tt_error("after the cancel");
}

static void what_fails_after_the_cancel_was_cancelled(void)
{
    tt_native native = {.call = cancel_and_fail};
    tt_case it = perform(tt_chain(2), &native, 1);
    CHECK_INT(tt_node(it.run, "p0")->status, TI_CANCELLED);
    CHECK_INT(ti_run_next_failure(it.run, 0), TI_NONE);
    CHECK_INT(ti_run_status(it.run), TI_CANCELLED);
    CHECK(atomic_load(&it.run->reason) == NULL);
    done(it);
}

static tt_answer cancel_and_note(const ti_task *task, void *data)
{
    (void)data;
    ti_run_cancel(task->run, NULL, 0);
    return (tt_answer){.payload = task->payload, .metadata = tt_number(1)};
}

/* What a cancelled callback returned is freed: payload, borrowed or not, and metadata. */
static void nothing_leaks_from_a_cancelled_callback(void)
{
    static const tt_call calls[] = {cancel_and_note, tt_increment};
    tt_native native = {.calls = calls};
    for (ti_intent intent = TI_TRANSFORM; intent <= TI_ANALYZE; intent++) {
        ti_dag *dag = ti_dag_new(NULL, 0);
        tt_add(dag, "only", intent);
        tt_case it = perform(dag, &native, 1);
        CHECK(tt_node(it.run, "only")->metadata == NULL);
        CHECK_INT(atomic_load(&it.run->input->references), 1);
        done(it);
    }
}

static void a_run_is_used_again_and_remembers_nothing(void)
{
    static const ti_status clean[] = {TI_FAILED, TI_SKIPPED, TI_SKIPPED, TI_COMPLETED};
    static const tt_call messy[] = {cancel_own_run, tt_fail, tt_note, tt_note};
    tt_native native = {.calls = messy};
    tt_case it = perform(half_failing(TI_CONTINUE_ON_ERROR), &native, 1);
    ti_run *before = it.run;
    ti_run_release(it.run);
    native.calls = half_failing_calls;
    it.run = tt_run_new(it.program, 8);
    CHECK(it.run == before);
    CHECK_INT(ti_run_status(it.run), TI_RUNNING);
    CHECK(!ti_run_cancel(it.run, "not yet", 7)); /* it is not in flight */
    CHECK_INT(ti_engine_run(it.engine, it.run), TI_OK);
    check_statuses(it.run, clean);
    CHECK(atomic_load(&it.run->reason) == NULL);
    CHECK_INT(tt_result(it.run), 9);
    done(it);
}

static void each_run_has_its_own_serial(void)
{
    tt_native native = {.call = tt_pass};
    tt_case it = perform(tt_chain(1), &native, 1);
    ti_run *other = tt_run_new(it.program, 2);
    CHECK(other != it.run);
    CHECK_INT(ti_engine_run(it.engine, other), TI_OK);
    CHECK(other->serial != it.run->serial);
    CHECK_INT(tt_result(it.run), 1);
    CHECK_INT(tt_result(other), 2);
    ti_run_release(other);
    done(it);
}

static void a_profiled_run_knows_its_times(void)
{
    tt_native native = {.call = tt_increment};
    tt_case it = perform(tt_chain(3), &native, 1);
    CHECK(!it.run->profile);
    ti_run_release(it.run);
    ti_run_options options = {.profile = true};
    it.run = ti_run_new(it.program, tt_number(1), tt_number(2), &options);
    CHECK_INT(ti_engine_run(it.engine, it.run), TI_OK);
    CHECK_INT(tt_number_of(it.run->metadata), 2);
    uint64_t last = 0;
    for (int i = 0; i < 3; i++) {
        CHECK(it.run->times[i].started >= last);
        CHECK(it.run->times[i].finished >= it.run->times[i].started);
        CHECK_INT(it.run->times[i].worker, 0);
        last = it.run->times[i].finished;
    }
    CHECK(it.run->ended - it.run->began >= last);
    done(it);
}

static void take_keys(void *data, unsigned index)
{
    uint64_t *keys = (uint64_t *)data + index * 1000;
    for (int i = 0; i < 1000; i++)
        keys[i] = ti_program_new_key();
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void keys_are_unique(void)
{
    static uint64_t keys[4000];
    check_threads(4, take_keys, keys);
    qsort(keys, 4000, sizeof *keys, compare_keys);
    CHECK(keys[0] > 0);
    for (int i = 1; i < 4000; i++)
        CHECK(keys[i] != keys[i - 1]);
}

/* More processors than the deque holds become ready at once. */
static void a_wide_fan_overflows_and_loses_nothing(void)
{
    tt_native native = {.call = tt_increment};
    tt_case it = perform(tt_fan(10 * TI_DEQUE_SIZE + 3), &native, 1);
    CHECK_INT(native.called, 10 * TI_DEQUE_SIZE + 3);
    CHECK_INT(tt_result(it.run), 2);
    done(it);
}

static void a_chain_of_a_million_runs(void)
{
    enum { LONG = ROUNDS(1000000) };
    tt_native native = {.call = tt_pass};
    tt_case it = perform(tt_chain(LONG), &native, 6);
    CHECK_INT(native.called, LONG);
    CHECK_INT(ti_run_source(it.run), LONG);
    CHECK_INT(tt_result(it.run), 6);
    done(it);
}

/* What this promises is said of glibc's allocator; a sanitizer has its own. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

static double allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return (double)(info.uordblks + info.hblkhd);
}

/* 1,000 layers of 100; each depends on three of the layer before. */
static ti_dag *layers(void)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    char id[16];
    for (uint32_t i = 0; i < 100000; i++) {
        tt_add(dag, (snprintf(id, sizeof id, "p%u", i), id), TI_TRANSFORM);
        for (uint32_t k = 0; i >= 100 && k < 3; k++) {
            uint32_t on = i / 100 * 100 - 100 + (i + 7 * k) % 100;
            tt_depends(dag, (snprintf(id, sizeof id, "p%u", on), id));
        }
    }
    return dag;
}

static void check_memory(ti_dag *(*declare)(void), uint32_t edges, ti_strategy strategy)
{
    tt_native native = {.call = tt_pass};
    ti_engine *engine = tt_open(&house, 1);
    double before = allocated();
    ti_dag *dag = declare();
    dag->strategy = strategy;
    ti_program *program = tt_install(engine, dag, &native);
    double with_program = allocated();
    double each = (with_program - before) / program->plan->count;
    ti_run *run = tt_run_new(program, 1);
    REQUIRE(ti_engine_run(engine, run) == TI_OK);
    double of_run = (allocated() - with_program) / program->plan->count;
    printf("  %u edges each: %.1f bytes for a processor, %.1f in a run\n", edges, each, of_run);
    CHECK(each <= 64 + 8 * edges);
    CHECK(of_run <= 96);
    ti_run_release(run);
    ti_program_release(program);
    tt_close(engine, &house);
}

static ti_dag *chain(void)
{
    return tt_chain(100000);
}

/* 64 bytes for a processor and 8 for an edge, and 96 in a run. */
static void memory_is_what_was_promised(void)
{
    for (ti_strategy strategy = TI_REACTIVE; strategy <= TI_LEVEL; strategy++) {
        check_memory(chain, 1, strategy);
        check_memory(layers, 3, strategy);
    }
}
#else
static void memory_is_what_was_promised(void)
{
}
#endif

int main(void)
{
    RUN(statuses_have_names);
    RUN(a_chain_hands_the_payload_on);
    RUN(the_deepest_branch_wins_a_join_then_the_last_declared);
    RUN(payload_from_takes_another_branch);
    RUN(an_analyze_adds_metadata_and_lets_the_payload_by);
    RUN(a_payload_passed_on_is_the_same_value);
    RUN(bytes_are_those_of_the_values_made);
    RUN(fail_fast_starts_nothing_more);
    RUN(continue_on_error_skips_what_depends_on_it);
    RUN(best_effort_goes_on_without_it);
    RUN(the_error_stays_in_the_node);
    RUN(failures_come_in_canonical_order);
    RUN(a_cancelled_run_starts_nothing_and_drops_what_returns);
    RUN(what_fails_after_the_cancel_was_cancelled);
    RUN(nothing_leaks_from_a_cancelled_callback);
    RUN(a_run_is_used_again_and_remembers_nothing);
    RUN(each_run_has_its_own_serial);
    RUN(a_profiled_run_knows_its_times);
    RUN(keys_are_unique);
    RUN(a_wide_fan_overflows_and_loses_nothing);
    RUN(a_chain_of_a_million_runs);
    RUN(memory_is_what_was_promised);
    return check_report();
}
