/* SPDX-License-Identifier: MIT */
/* A worker's moves, made by hand: this thread has every seat, so the engine's own threads, if there
 * are any, find none and sleep. */
#include "engine/worker.h"

#include "check.h"
#include "native.h"

static tt_house house;

typedef struct tt_bench {
    ti_engine *engine;
    ti_worker *a, *b;
    ti_program *program;
    ti_run *run;
} tt_bench;

/* Two workers, and a started run whose entry points lie in the inbox. */
static tt_bench sit_at_all(ti_dag *dag, tt_native *native)
{
    tt_bench it = {.engine = tt_open(&house, 2)};
    it.a = ti_engine_sit(it.engine, 0);
    it.b = ti_engine_sit(it.engine, 1);
    it.program = tt_install(it.engine, dag, native);
    it.run = tt_run_new(it.program, 1);
    CHECK_INT(ti_engine_start(it.engine, it.run), TI_OK);
    return it;
}

static void leave_all(tt_bench it)
{
    CHECK(ti_run_settled(it.run));
    ti_engine_leave(it.engine, it.a);
    ti_engine_leave(it.engine, it.b);
    ti_run_release(it.run);
    ti_program_release(it.program);
    tt_close(it.engine, &house);
}

static void a_worker_finds_what_was_sent_and_drains_it(void)
{
    tt_native native = {.call = tt_increment};
    tt_bench it = sit_at_all(tt_chain(10), &native);
    CHECK(ti_worker_find(it.a, NULL));
    CHECK(ti_inbox_empty(&it.engine->inbox));
    CHECK_INT(native.called, 0);
    ti_worker_drain(it.a);
    CHECK_INT(native.called, 10);
    CHECK_INT(tt_result(it.run), 11);
    CHECK(!ti_worker_find(it.a, NULL));
    leave_all(it);
}

static void all_that_is_ready_runs_though_the_ring_is_full(void)
{
    tt_native native = {.call = tt_increment};
    tt_bench it = sit_at_all(tt_fan(5 * TI_DEQUE_SIZE), &native);
    CHECK(ti_worker_find(it.a, NULL));
    CHECK(it.a->overflows > 0);
    ti_worker_drain(it.a);
    CHECK_INT(it.a->overflows, 0);
    CHECK_INT(native.called, 5 * TI_DEQUE_SIZE);
    leave_all(it);
}

static void only_what_is_offered_is_stolen(void)
{
    tt_native native = {.call = tt_increment};
    tt_bench it = sit_at_all(tt_fan(3), &native);
    CHECK(ti_worker_find(it.a, NULL));
    CHECK(!ti_worker_find(it.b, NULL));
    ti_store_sc(&it.a->offers, 1);
    CHECK(ti_worker_find(it.b, NULL));
    ti_worker_drain(it.b);
    CHECK_INT(native.called, 1);
    CHECK(!ti_run_settled(it.run));
    ti_worker_drain(it.a);
    CHECK_INT(native.called, 3);
    CHECK(!ti_load_relaxed(&it.a->offers)); /* nothing is left to be had */
    leave_all(it);
}

static void a_thief_takes_half(void)
{
    tt_native native = {.call = tt_increment};
    tt_bench it = sit_at_all(tt_fan(100), &native); /* with one that joins them */
    CHECK(ti_worker_find(it.a, NULL));
    CHECK_INT(ti_deque_count(&it.a->deque), 99); /* and the one that is hot */
    ti_store_sc(&it.a->offers, 1);
    CHECK(ti_worker_find(it.b, NULL));
    CHECK_INT(ti_deque_count(&it.a->deque), 49);
    CHECK_INT(ti_deque_count(&it.b->deque), 49);
    ti_worker_drain(it.b);
    CHECK_INT(native.called, 50);
    ti_worker_drain(it.a);
    leave_all(it);
}

/* A guest leaves the inbox alone, and what it steals of another run it passes on. */
static void a_guest_works_for_its_own_run_only(void)
{
    tt_native native = {.call = tt_increment};
    tt_bench it = sit_at_all(tt_fan(3), &native);
    ti_run *own = tt_run_new(it.program, 1);
    it.b->guest = own;
    CHECK(!ti_worker_find(it.b, NULL));
    CHECK(ti_worker_find(it.a, NULL));
    ti_store_sc(&it.a->offers, 1);
    CHECK(!ti_worker_find(it.b, NULL));
    CHECK(!ti_inbox_empty(&it.engine->inbox));
    it.b->guest = it.run;
    ti_store_sc(&it.a->offers, 1);
    while (ti_worker_find(it.b, NULL))
        ti_worker_drain(it.b);
    it.b->guest = NULL;
    while (ti_worker_find(it.b, NULL))
        ti_worker_drain(it.b);
    ti_worker_drain(it.a);
    CHECK_INT(native.called, 3);
    ti_run_release(own);
    leave_all(it);
}

/* A run whose processors finish on two workers is settled by the last of them, once. */
static void the_last_worker_settles_the_run(void)
{
    tt_native native = {.call = tt_increment};
    tt_bench it = sit_at_all(tt_fan(2), &native);
    CHECK(ti_worker_find(it.a, NULL));
    ti_store_sc(&it.a->offers, 1);
    CHECK(ti_worker_find(it.b, NULL));
    ti_worker_drain(it.a);
    CHECK_INT(it.run->remaining, 1);
    CHECK(!ti_run_settled(it.run));
    ti_worker_drain(it.b);
    CHECK_INT(it.run->remaining, 0);
    CHECK_INT(tt_in_flight(it.engine), 0);
    leave_all(it);
}

static void a_worker_mixes_runs_and_settles_each(void)
{
    tt_native native = {.call = tt_increment};
    tt_bench it = sit_at_all(tt_chain(2), &native);
    ti_run *runs[50];
    for (int i = 0; i < 50; i++) {
        runs[i] = tt_run_new(it.program, (uint64_t)i);
        CHECK_INT(ti_engine_start(it.engine, runs[i]), TI_OK);
    }
    CHECK_INT(tt_in_flight(it.engine), 51);
    CHECK(ti_worker_find(it.a, NULL));
    ti_worker_drain(it.a);
    CHECK_INT(tt_in_flight(it.engine), 0);
    for (int i = 0; i < 50; i++) {
        CHECK(ti_run_settled(runs[i]));
        CHECK_INT(tt_result(runs[i]), i + 2);
        ti_run_release(runs[i]);
    }
    leave_all(it);
}

int main(void)
{
    RUN(a_worker_finds_what_was_sent_and_drains_it);
    RUN(a_thief_takes_half);
    RUN(all_that_is_ready_runs_though_the_ring_is_full);
    RUN(only_what_is_offered_is_stolen);
    RUN(a_guest_works_for_its_own_run_only);
    RUN(the_last_worker_settles_the_run);
    RUN(a_worker_mixes_runs_and_settles_each);
    return check_report();
}
