/* SPDX-License-Identifier: MIT */
/* The order in which each strategy calls, with one worker, and how events meet, with several; that
 * results are the same under all strategies is for random_test.c. executor_reactive.c is part of
 * this file, so that it has jitter in it; the linker then leaves the library's own out. */
#include "jitter.h"

#include "engine/executor_reactive.c" /* NOLINT */

#include "check.h"
#include "native.h"

static tt_house house;

/* What was called, in order: the first letters of the ids. */
static char order[64];

static tt_answer write_down(const ti_task *task, void *data)
{
    ti_text id = ti_plan_id(task->run->plan, task->index);
    strncat(order, id.bytes, 1);
    return task->step->intent == TI_TRANSFORM ? tt_increment(task, data) : (tt_answer){0};
}

/* "b: a c; a" as in plan_test.c, with a capital letter for an analyze. */
static ti_dag *declare(const char *text)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    for (; *text; text++) {
        char id[2] = {*text};
        bool first = dag->count == 0 || text[-1] == ';';
        if (strchr(":; ", *text))
            continue;
        if (first)
            tt_add(dag, id, *text < 'a' ? TI_ANALYZE : TI_TRANSFORM);
        else
            tt_depends(dag, id);
    }
    return dag;
}

static const char *order_of(const char *text, ti_strategy strategy)
{
    tt_native native = {.call = write_down};
    ti_engine *engine = tt_open(&house, 1);
    ti_dag *dag = declare(text);
    dag->strategy = strategy;
    ti_program *program = tt_install(engine, dag, &native);
    for (int again = 0; again < 2; again++) { /* a run used again is no different */
        *order = '\0';
        tt_compute(program, 1);
    }
    ti_program_release(program);
    tt_close(engine, &house);
    return order;
}

static void strategies_have_names(void)
{
    CHECK_INT(ti_strategy_named("reactive"), TI_REACTIVE);
    CHECK_INT(ti_strategy_named("work_queue"), TI_WORK_QUEUE);
    CHECK_INT(ti_strategy_named("level"), TI_LEVEL);
    CHECK_INT(ti_strategy_named("other"), TI_REACTIVE);
    CHECK_INT(ti_strategy_named(NULL), TI_REACTIVE);
}

/* Whatever order a strategy has, it keeps to the dependencies and calls each once. */
static void every_strategy_keeps_to_the_dependencies(void)
{
    for (ti_strategy strategy = TI_REACTIVE; strategy <= TI_LEVEL; strategy++) {
        const char *called = order_of("e:d b;d:c;c;b:a;a", strategy);
        CHECK_INT(strlen(called), 5);
        CHECK(strchr(called, 'c') < strchr(called, 'd'));
        CHECK(strchr(called, 'd') < strchr(called, 'e'));
        CHECK(strchr(called, 'a') < strchr(called, 'b'));
        CHECK_INT(called[4], 'e');
    }
}

static void work_queue_takes_the_longest_way_first(void)
{
    /* from a three more, from d two, from b and e one, and then as declared */
    CHECK_TEXT(order_of("c;b;x:b;a;d:a;e:d;f:e", TI_WORK_QUEUE), "adbecxf");
}

static void work_queue_takes_transforms_before_analyzes_then_as_declared(void)
{
    CHECK_TEXT(order_of("A;b;C;d", TI_WORK_QUEUE), "bdAC");
}

/* More are ready than the deque holds, those with the highest priority last: so what is called is
 * never what was taken from the deque, nor from where its overflow is kept. */
static void work_queue_loses_nothing_where_much_is_ready(void)
{
    enum { HALF = 2 * TI_DEQUE_SIZE };
    for (uint32_t workers = 1; workers <= 2; workers++) {
        tt_native native = {.call = tt_pass};
        ti_engine *engine = tt_open(&house, workers);
        ti_dag *dag = tt_fan(2 * HALF);
        dag->strategy = TI_WORK_QUEUE;
        for (int i = 0; i < HALF; i++)
            dag->processors[i].intent = TI_ANALYZE;
        ti_program *program = tt_install(engine, dag, &native);
        for (unsigned round = 1; round <= 10; round++) {
            ti_run *run = tt_run_new(program, 7);
            tt_start(run);
            tt_wait(run);
            CHECK_INT(tt_result(run), 7);
            CHECK_INT(native.called, round * 2 * HALF);
            ti_run_release(run);
        }
        ti_program_release(program);
        tt_close(engine, &house);
    }
}

static void level_finishes_a_rank_before_the_next(void)
{
    const char *called = order_of("c:b;b:a;a;z;y:z;x", TI_LEVEL);
    static const char ranks[] = "axzbyc"; /* 3 + 2 + 1 */
    CHECK_INT(strlen(called), 6);
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 6; k++)
            if ((i < 3 && k >= 3) || (i < 5 && k >= 5))
                CHECK(strchr(called, ranks[i]) < strchr(called, ranks[k]));
}

/* Long enough to be worth another worker. */
static tt_answer stay_a_little(const ti_task *task, void *data)
{
    uint64_t until = uv_hrtime() + 12000;
    while (uv_hrtime() < until)
        ti_relax();
    return tt_increment(task, data);
}

/* Each of a layer depends on all of the layer before, which finish at nearly the same time: every
 * event counts, and only the last of them starts it. */
static void events_that_meet_are_all_counted(void)
{
    enum { WIDTH = 3, DEPTH = 30 };
    tt_native native = {.call = stay_a_little};
    ti_engine *engine = tt_open(&house, WIDTH);
    ti_dag *dag = ti_dag_new(NULL, 0);
    char id[32];
    for (uint32_t i = 0; i < WIDTH * DEPTH; i++) {
        tt_add(dag, (sprintf(id, "p%u", i), id), TI_TRANSFORM);
        for (uint32_t k = 0; k < WIDTH && i >= WIDTH; k++)
            tt_depends(dag, (sprintf(id, "p%u", (i / WIDTH - 1) * WIDTH + k), id));
    }
    ti_program *program = tt_install(engine, dag, &native);
    unsigned rounds = ROUNDS(200);
    for (unsigned round = 0; round < rounds; round++)
        CHECK_INT(tt_compute(program, 1), 1 + DEPTH);
    CHECK_INT(native.called, rounds * WIDTH * DEPTH);
    ti_program_release(program);
    tt_close(engine, &house);
}

int main(void)
{
    RUN(strategies_have_names);
    RUN(every_strategy_keeps_to_the_dependencies);
    RUN(work_queue_takes_the_longest_way_first);
    RUN(work_queue_takes_transforms_before_analyzes_then_as_declared);
    RUN(work_queue_loses_nothing_where_much_is_ready);
    RUN(level_finishes_a_rank_before_the_next);
    RUN(events_that_meet_are_all_counted);
    return check_report();
}
