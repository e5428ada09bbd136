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

#include "engine/thread.h"

static atomic_uint refusals; /* so many threads are refused from now on */

static int create_or_refuse(uv_thread_t *id, uv_thread_cb work, void *data)
{
    unsigned left = atomic_load(&refusals);
    while (left > 0 && !atomic_compare_exchange_weak(&refusals, &left, left - 1))
        ;
    return left > 0 ? UV_EAGAIN : ti_thread_create(id, work, data);
}

#define ti_thread_create create_or_refuse

static unsigned joined;
#define uv_thread_join(id) (joined++, (uv_thread_join)(id))

#include "engine/pool.c"        /* NOLINT */
#include "engine/pool_shared.c" /* NOLINT */

#include <limits.h>
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

static tt_answer meet(const ti_task *task, void *data)
{
    uv_barrier_wait(data);
    return tt_increment(task, NULL);
}

/* What was refused a few times is had in the end, though the only thread there is waits for it. */
static void a_refused_thread_is_asked_for_again(void)
{
    for (uint32_t each = 1; each <= 2; each++) { /* two in one run, or one in each of two */
        uv_barrier_t barrier;
        REQUIRE(uv_barrier_init(&barrier, 2) == 0);
        tt_native native = {.call = meet, .data = &barrier};
        ti_engine *engine = tt_open(&house, 3);
        ti_program *program = tt_install(engine, tt_fan(3 - each), &native);
        REQUIRE(ti_pool_ensure(&engine->pool));
        atomic_store(&refusals, 3);
        ti_run *runs[2];
        for (uint32_t i = 0; i < each; i++) {
            tt_start(runs[i] = tt_run_new(program, 1));
            while (atomic_load(&native.called) == 0)
                uv_sleep(1);
        }
        for (uint32_t i = 0; i < each; i++) {
            tt_wait(runs[i]);
            CHECK_INT(tt_result(runs[i]), 2);
            ti_run_release(runs[i]);
        }
        CHECK_INT(refusals, 0);
        uv_barrier_destroy(&barrier);
        ti_program_release(program);
        tt_close(engine, &house);
    }
}

/* With no thread at all a start asks at once, and fails only if it is refused itself. */
static void a_start_without_threads_asks_for_one(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    ti_run *run = tt_run_new(program, 1);
    atomic_store(&refusals, 2);
    CHECK_INT(ti_engine_start(engine, run), TI_E_INTERNAL);
    CHECK_INT(ti_engine_start(engine, run), TI_E_INTERNAL);
    CHECK_INT(engine->pool.parking.idle, 2);
    tt_start(run);
    tt_wait(run);
    ti_run_release(run);
    ti_program_release(program);
    tt_close(engine, &house);
}

typedef struct tt_leaver {
    ti_engine *engine;
    uv_sem_t go, gone;
    atomic_bool has_left;
} tt_leaver;

/* The first time, as a thread does that is given up: nobody sees it again. */
static tt_answer leave_for_good(const ti_task *task, void *data)
{
    tt_leaver *leaver = data;
    ti_worker *worker = leaver->engine->seats;
    if (atomic_exchange(&leaver->has_left, true))
        return tt_increment(task, NULL);
    uv_sem_wait(&leaver->go);
    while (task != &worker->task)
        worker++;
    tt_backend.close(worker->contexts[0]);
    ti_store_sc(&worker->abandoned, 1);
    uv_sem_post(&leaver->gone);
    pthread_exit(NULL);
}

static ti_program *open_leaver(tt_leaver *leaver, uint32_t workers)
{
    static tt_native native;
    native = (tt_native){.call = leave_for_good, .data = leaver};
    *leaver = (tt_leaver){.engine = tt_open(&house, workers)};
    leaver->engine->preempt = TI_PREEMPT_SIGNAL;
    leaver->engine->grace = 1000000;
    REQUIRE(uv_sem_init(&leaver->go, 0) == 0 && uv_sem_init(&leaver->gone, 0) == 0);
    REQUIRE(ti_control_ensure(&leaver->engine->control));
    joined = 0;
    return tt_install(leaver->engine, tt_chain(1), &native);
}

/* And has the engine notice it, which is refused that many threads. */
static void leave(tt_leaver *leaver, unsigned refused)
{
    atomic_store(&refusals, refused);
    uv_sem_post(&leaver->go);
    uv_sem_wait(&leaver->gone);
    ti_control_expect(&leaver->engine->control, 0);
}

/* All its threads are joined but for the one that was lost. */
static void close_leaver(tt_leaver *leaver, ti_program *program)
{
    ti_program_release(program);
    ti_engine_close(leaver->engine);
    CHECK_INT(leaver->engine->pool.started, 1);
    CHECK_INT(joined, 1);
    CHECK_INT(leaver->engine->pool.parking.idle, leaver->engine->workers - 1);
    CHECK_INT(house.opened, leaver->engine->workers + 1);
    CHECK_INT(house.closed, house.opened);
    ti_engine_release(leaver->engine);
    uv_sem_destroy(&leaver->go), uv_sem_destroy(&leaver->gone);
    atomic_store(&refusals, 0);
}

/* The engine's only thread is lost, and no other is to be had for a while: what was started before
 * goes on when one is, without anything else happening; and what is started afterwards does. */
static void a_lost_thread_is_replaced_when_there_is_one(void)
{
    tt_leaver leaver;
    ti_program *program = open_leaver(&leaver, 1);
    ti_run *runs[3];
    for (uint64_t i = 0; i < 3; i++)
        runs[i] = tt_run_new(program, i);
    tt_start(runs[0]);
    tt_start(runs[1]);
    leave(&leaver, 3);
    tt_wait(runs[0]);
    CHECK_INT(tt_node(runs[0], "p0")->status, TI_CANCELLED);
    tt_wait(runs[1]);
    CHECK_INT(refusals, 0);
    tt_start(runs[2]);
    tt_wait(runs[2]);
    CHECK_INT(tt_result(runs[1]) + tt_result(runs[2]), 2 + 3);
    for (int i = 0; i < 3; i++)
        ti_run_release(runs[i]);
    close_leaver(&leaver, program);
}

static void an_engine_does_without_a_lost_thread(void)
{
    tt_leaver leaver;
    ti_program *program = open_leaver(&leaver, 2);
    ti_run *run = tt_run_new(program, 1);
    tt_start(run);
    while (!atomic_load(&leaver.has_left))
        uv_sleep(1);
    tt_start_and_wait(program);
    leave(&leaver, UINT_MAX);
    tt_wait(run);
    ti_run_release(run);
    for (int i = 0; i < 20; i++)
        tt_start_and_wait(program);
    close_leaver(&leaver, program);
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
    RUN(a_refused_thread_is_asked_for_again);
    RUN(a_start_without_threads_asks_for_one);
    RUN(a_lost_thread_is_replaced_when_there_is_one);
    RUN(an_engine_does_without_a_lost_thread);
    RUN(a_waker_that_finds_nobody_leaves_nobody_asleep);
    run_in_either_mode();
    tt_shared = true;
    run_in_either_mode();
    return check_report();
}
