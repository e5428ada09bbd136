/* SPDX-License-Identifier: MIT */
/* Threads that start when wanted, sleep when not, and never oversleep; and the same for threads
 * that are borrowed. pool.c is part of this file, so that it has jitter in it; the linker then
 * leaves the library's own out. */
#include "jitter.h"

/* What the calling thread does, once, before it next locks the pool, and after it has unlocked it.
 */
static _Thread_local void (*before_lock)(void), (*after_unlock)(void);

static void once(void (**hook)(void))
{
    void (*work)(void) = *hook;
    *hook = NULL;
    if (work)
        work();
}

#undef uv_mutex_lock
#undef uv_mutex_unlock
#define uv_mutex_lock(m) (once(&before_lock), jitter(), (uv_mutex_lock)(m))
#define uv_mutex_unlock(m) ((uv_mutex_unlock)(m), jitter(), once(&after_unlock))

#include "engine/pool.c"        /* NOLINT */
#include "engine/pool_shared.c" /* NOLINT */

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

static atomic_bool segv_blocked, term_blocked;

static tt_answer look_at_signals(const ti_task *task, void *data)
{
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    atomic_store(&segv_blocked, sigismember(&blocked, SIGSEGV));
    atomic_store(&term_blocked, sigismember(&blocked, SIGTERM));
    return tt_increment(task, data);
}

/* A host's handler for crashes works on all threads; SIGTERM is for the host's own. */
static void threads_leave_signals_to_the_host(void)
{
    tt_native native = {.call = look_at_signals};
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    tt_start_and_wait(program);
    CHECK(!segv_blocked && term_blocked);
    ti_program_release(program);
    tt_close(engine, &house);
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
    tt_start_and_wait(program);
    CHECK_INT(engine->pool.started, 3);
    tt_start_and_wait(program);
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
    tt_start_and_wait(program);
    uv_sleep(200); /* what is watched for a while is watched no more */
    struct rusage before, after;
    double used = used_seconds(&before);
    uv_sleep(500);
    used = used_seconds(&after) - used;
    CHECK(used < 0.02);
#if !defined(__SANITIZE_THREAD__) /* it has a thread of its own that wakes up */
    CHECK(after.ru_nvcsw - before.ru_nvcsw < 20);
#endif
    CHECK_INT(engine->pool.parking.idle, 4);
    CHECK_INT(engine->pool.parking.searching, 0);
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
    tt_start_and_wait(data);
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

static struct {
    ti_pool *pool;
    ti_place *parked;
    ti_run *run;
} scene;

static void hide_parked(void)
{
    scene.parked = scene.pool->parking.parked;
    scene.pool->parking.parked = NULL;
}

static void show_parked_and_start(void)
{
    scene.pool->parking.parked = scene.parked;
    tt_start(scene.run);
}

/* One thread is about to wake another, and finds none parked: it has just got up by itself. Before
 * the waker gives up its share of the search, that thread has parked again, and a run was started,
 * whose starter saw somebody search and woke nobody. */
static void a_waker_that_finds_nobody_leaves_nobody_asleep(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    tt_start_and_wait(program);
    while (ti_load_sc(&engine->pool.parking.idle) == 0 ||
           ti_load_sc(&engine->pool.parking.searching) > 0)
        uv_sleep(1);
    uv_sleep(20); /* it sleeps for certain */
    scene.pool = &engine->pool;
    scene.run = tt_run_new(program, 1);
    before_lock = hide_parked;
    after_unlock = show_parked_and_start;
    ti_pool_wake(&engine->pool);
    CHECK(ti_engine_wait(engine, scene.run, 2000000000));
    ti_pool_wake(&engine->pool);
    tt_wait(scene.run);
    ti_run_release(scene.run);
    ti_program_release(program);
    tt_close(engine, &house);
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
        tt_start_and_wait(it->program);
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
            tt_start_and_wait(program);
        else
            CHECK_INT(tt_compute(program, 1), 2);
    ti_program_release(program);
    tt_close(engine, &house);
}

static void run_in_either_mode(void)
{
    RUN(threads_leave_signals_to_the_host);
    RUN(parked_threads_use_no_cpu);
    RUN(a_pool_may_close_unused);
    RUN(first_starts_race_and_all_succeed);
    RUN(no_wake_up_is_lost);
    RUN(fans_finish);
}

int main(void)
{
    RUN(threads_start_when_wanted);
    RUN(a_waker_that_finds_nobody_leaves_nobody_asleep);
    run_in_either_mode();
    tt_shared = true;
    run_in_either_mode();
    return check_report();
}
