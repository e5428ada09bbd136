/* SPDX-License-Identifier: MIT */
/* Threads that start when wanted, sleep when not, and never oversleep. pool.c is part of this file,
 * so that it has jitter in it; the linker then leaves the library's own out. */
#include "jitter.h"

#include "engine/pool.c" /* NOLINT */

#include <sys/resource.h>

#include "check.h"
#include "native.h"

static tt_house house;

static double used_seconds(struct rusage *usage)
{
    REQUIRE(getrusage(RUSAGE_SELF, usage) == 0);
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

static void start_and_wait(ti_program *program)
{
    ti_run *run = tt_run_new(program, 1);
    int status = (int)ti_engine_start(program->engine, run);
    CHECK_TEXT(ti_code_name((ti_code)status), "ok");
    if (status == TI_OK)
        ti_engine_wait(program->engine, run, UINT64_MAX);
    ti_run_release(run);
}

static tt_answer stay_a_little(const ti_task *task, void *data)
{
    uv_sleep(2);
    return tt_increment(task, data);
}

static void threads_start_when_wanted(void)
{
    tt_native native = {.call = stay_a_little};
    ti_engine *engine = tt_open(&house, 3);
    ti_program *program = tt_install(engine, tt_fan(12), &native);
    CHECK_INT(engine->pool.started, 0);
    start_and_wait(program);
    CHECK_INT(engine->pool.started, 3);
    start_and_wait(program);
    CHECK_INT(engine->pool.started, 3);
    ti_program_release(program);
    tt_close(engine, &house);
}

/* Half a second of nothing costs nothing, and nobody wakes up to look. */
static void parked_threads_use_no_cpu(void)
{
    tt_native native = {.call = stay_a_little};
    ti_engine *engine = tt_open(&house, 4);
    ti_program *program = tt_install(engine, tt_fan(12), &native);
    start_and_wait(program);
    uv_sleep(50);
    struct rusage before, after;
    double used = used_seconds(&before);
    uv_sleep(500);
    used = used_seconds(&after) - used;
    CHECK(used < 0.02);
#if !defined(__SANITIZE_THREAD__) /* it has a thread of its own that wakes up */
    CHECK(after.ru_nvcsw - before.ru_nvcsw < 20);
#endif
    CHECK_INT(engine->pool.idle, 4);
    CHECK_INT(engine->pool.searching, 0);
    ti_program_release(program);
    tt_close(engine, &house);
}

/* Engines that never had work close without ever having had a thread. */
static void a_pool_may_close_unused(void)
{
    for (int round = 0; round < ROUNDS(200); round++)
        tt_close(tt_open(&house, 1 + (uint32_t)round % 4), &house);
}

static void start_at_once(void *data, unsigned index)
{
    (void)index;
    start_and_wait(data);
}

/* The first starts of an engine race for its first thread. */
static void first_starts_race_and_all_succeed(void)
{
    for (int round = 0; round < ROUNDS(300); round++) {
        tt_native native = {.call = tt_increment};
        ti_engine *engine = tt_open(&house, 1 + (uint32_t)round % 2);
        ti_program *program = tt_install(engine, tt_chain(1), &native);
        check_threads(3, start_at_once, program);
        CHECK_INT(native.called, 3);
        ti_program_release(program);
        tt_close(engine, &house);
    }
}

enum { HOSTS = 3, LOCKSTEPS = ROUNDS(2000) };

typedef struct tt_lockstep {
    ti_program *program;
    uv_barrier_t barrier;
} tt_lockstep;

static void go_in_lockstep(void *data, unsigned index)
{
    tt_lockstep *it = data;
    uint32_t seed = index;
    for (int round = 0; round < LOCKSTEPS; round++) {
        uint64_t until = uv_hrtime() + check_random(&seed) % 20000;
        while (uv_hrtime() < until)
            ti_relax();
        start_and_wait(it->program);
        uv_barrier_wait(&it->barrier);
    }
}

/* Nobody starts anything else before all have come back: one lost wake-up, and nothing ever moves
 * again. The delays are as long as a thread takes to look for work and park. */
static void no_wake_up_is_lost(void)
{
    for (uint32_t workers = 1; workers <= 4; workers *= 2) {
        tt_native native = {.call = tt_increment};
        ti_engine *engine = tt_open(&house, workers);
        tt_lockstep it = {.program = tt_install(engine, tt_chain(1), &native)};
        REQUIRE(uv_barrier_init(&it.barrier, HOSTS) == 0);
        check_threads(HOSTS, go_in_lockstep, &it);
        CHECK_INT(native.called, HOSTS * LOCKSTEPS);
        uv_barrier_destroy(&it.barrier);
        ti_program_release(it.program);
        tt_close(engine, &house);
    }
}

/* Fans need the other threads to be woken for what the first one offers. */
static void fans_finish(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 4);
    ti_program *program = tt_install(engine, tt_fan(6), &native);
    for (int round = 0; round < ROUNDS(2000); round++)
        if (round % 2)
            start_and_wait(program);
        else
            CHECK_INT(tt_compute(program, 1), 2);
    ti_program_release(program);
    tt_close(engine, &house);
}

int main(void)
{
    RUN(threads_start_when_wanted);
    RUN(parked_threads_use_no_cpu);
    RUN(a_pool_may_close_unused);
    RUN(first_starts_race_and_all_succeed);
    RUN(no_wake_up_is_lost);
    RUN(fans_finish);
    return check_report();
}
