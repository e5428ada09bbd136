/* SPDX-License-Identifier: MIT */
/* Threads that are borrowed, one moment after the other, where libuv's pool has a single thread to
 * lend. pool.c and pool_shared.c are part of this file, so that a test can step in where a thread
 * is about to lock the pool; the linker then leaves the library's own out. */
#include <uv.h>

/* What the calling thread does, once, before it next locks the pool. */
static _Thread_local void (*before_lock)(void);

static void step_in(void)
{
    void (*work)(void) = before_lock;
    before_lock = NULL;
    if (work)
        work();
}

#undef uv_mutex_lock /* it may have jitter */
#define uv_mutex_lock(m) (step_in(), (uv_mutex_lock)(m))

#include "engine/pool.c"        /* NOLINT */
#include "engine/pool_shared.c" /* NOLINT */

#include "check.h"
#include "native.h"

static tt_house house;

/* A request of the host's that has libuv's only thread until it is let go. */
typedef struct tt_visitor {
    uv_loop_t loop;
    uv_work_t request;
    uv_sem_t came, may_go;
    sigset_t mask; /* the thread's */
    atomic_bool done;
} tt_visitor;

static void visit(uv_work_t *request)
{
    tt_visitor *visitor = request->data;
    pthread_sigmask(SIG_SETMASK, NULL, &visitor->mask);
    uv_sem_post(&visitor->came);
    uv_sem_wait(&visitor->may_go);
    atomic_store(&visitor->done, true);
}

static void send_visitor(tt_visitor *visitor)
{
    visitor->request.data = visitor;
    atomic_init(&visitor->done, false);
    REQUIRE(uv_loop_init(&visitor->loop) == 0);
    REQUIRE(uv_sem_init(&visitor->came, 0) == 0 && uv_sem_init(&visitor->may_go, 0) == 0);
    REQUIRE(uv_queue_work(&visitor->loop, &visitor->request, visit, NULL) == 0);
}

static void take_the_thread(tt_visitor *visitor)
{
    send_visitor(visitor);
    uv_sem_wait(&visitor->came);
}

static void let_go(tt_visitor *visitor)
{
    uv_sem_post(&visitor->may_go);
    uv_run(&visitor->loop, UV_RUN_DEFAULT);
    REQUIRE(uv_loop_close(&visitor->loop) == 0);
    uv_sem_destroy(&visitor->came);
    uv_sem_destroy(&visitor->may_go);
}

/* The thread is there to be had: a request comes and goes. */
static void check_given_back(tt_visitor *visitor)
{
    take_the_thread(visitor);
    let_go(visitor);
}

static void an_idle_engine_has_given_its_thread_back(void)
{
    tt_native native = {.call = tt_increment};
    tt_visitor visitor;
    ti_engine *engine = tt_open(&house, 4);
    ti_program *program = tt_install(engine, tt_fan(12), &native);
    for (int round = 0; round < ROUNDS(200); round++) {
        tt_start_and_wait(program);
        check_given_back(&visitor);
        while (ti_load_sc(&engine->pool.parking.idle) < 4 ||
               ti_load_sc(&engine->pool.parking.searching) > 0)
            uv_sleep(1); /* another one was on its way */
    }
    CHECK_INT(engine->pool.started, 0);
    ti_program_release(program);
    tt_close(engine, &house);
}

static tt_answer tell_thread(const ti_task *task, void *data)
{
    pthread_sigmask(SIG_SETMASK, NULL, data);
    return tt_pass(task, NULL);
}

static void a_borrowed_thread_gets_sigurg_alone_and_its_mask_back(void)
{
    sigset_t mask;
    tt_native native = {.call = tell_thread, .data = &mask};
    tt_visitor before, after;
    check_given_back(&before);
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    tt_start_and_wait(program);
    check_given_back(&after);
    CHECK(sigismember(&mask, SIGTERM));
    CHECK(!sigismember(&mask, SIGURG));
    for (int number = 1; number < SIGSYS; number++)
        CHECK_INT(sigismember(&after.mask, number), sigismember(&before.mask, number));
    ti_program_release(program);
    tt_close(engine, &house);
}

/* What is started in the meantime waits; and what runs on the calling thread need not. */
static void a_full_pool_holds_up_no_caller(void)
{
    tt_native native = {.call = tt_increment};
    tt_visitor visitor;
    ti_engine *engine = tt_open(&house, 4);
    ti_program *program = tt_install(engine, tt_fan(4), &native);
    take_the_thread(&visitor);
    ti_run *runs[20];
    for (int i = 0; i < 20; i++)
        tt_start(runs[i] = tt_run_new(program, 5));
    CHECK_INT(tt_compute(program, 1), 2);
    CHECK_INT(engine->pool.parking.idle, 3); /* one request waits, not twenty */
    CHECK_INT(native.called, 4);
    let_go(&visitor);
    for (int i = 0; i < 20; i++) {
        tt_wait(runs[i]);
        CHECK_INT(tt_result(runs[i]), 6);
        ti_run_release(runs[i]);
    }
    ti_program_release(program);
    tt_close(engine, &house);
}

/* Whatever was asked for has been requested from libuv. */
static void await_request(ti_pool *pool)
{
    for (bool asked = true; asked;) {
        uv_mutex_lock(&pool->parking.lock);
        asked = pool->parking.asked;
        uv_mutex_unlock(&pool->parking.lock);
    }
}

static void closing_waits_for_nobody_else(void)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        tt_native native = {.call = tt_increment};
        tt_visitor visitor;
        ti_engine *engine = tt_open(&house, workers);
        ti_program *program = tt_install(engine, tt_fan(8), &native);
        take_the_thread(&visitor);
        ti_run *runs[3];
        for (int i = 0; i < 3; i++)
            tt_start(runs[i] = tt_run_new(program, 1));
        await_request(&engine->pool);
        ti_engine_close(engine);
        for (int i = 0; i < 3; i++) {
            CHECK_INT(ti_run_status(runs[i]), TI_CANCELLED);
            ti_run_release(runs[i]);
        }
        CHECK_INT(native.called, 0);
        CHECK(!visitor.done);
        let_go(&visitor);
        ti_program_release(program);
        tt_close(engine, &house);
    }
}

/* A caller offered what it then did itself. */
static void closing_takes_back_what_nobody_needs(void)
{
    tt_native native = {.call = tt_increment};
    tt_visitor visitor;
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_fan(8), &native);
    take_the_thread(&visitor);
    CHECK_INT(tt_compute(program, 1), 2);
    CHECK_INT(engine->pool.parking.idle, 1);
    await_request(&engine->pool);
    ti_engine_close(engine);
    CHECK_INT(engine->pool.parking.idle, 2);
    CHECK_INT(engine->pool.started, 0);
    let_go(&visitor);
    ti_program_release(program);
    tt_close(engine, &house);
}

static struct {
    ti_engine *engine;
    ti_run *first, *second;
    uv_sem_t at_work, go_on;
    tt_visitor *visitor;
    atomic_uint generations;
} scene;

/* The engine closes while its thread is in a callback, and another request of its waits. */
static tt_answer work_at_length(const ti_task *task, void *data)
{
    (void)data;
    uv_sem_post(&scene.at_work);
    uv_sem_wait(&scene.go_on);
    return tt_increment(task, NULL);
}

static void close_engine(void *data, unsigned index)
{
    (void)data;
    if (index == 0) {
        ti_engine_close(scene.engine);
    } else {
        while (!ti_load_sc(&scene.first->stop) || !ti_load_sc(&scene.second->stop))
            ti_relax();
        uv_sem_post(&scene.go_on);
    }
}

static void closing_waits_for_what_is_borrowed(void)
{
    for (int round = 0; round < ROUNDS(100); round++) {
        tt_native native = {.call = work_at_length};
        REQUIRE(uv_sem_init(&scene.at_work, 0) == 0 && uv_sem_init(&scene.go_on, 0) == 0);
        scene.engine = tt_open(&house, 2);
        ti_program *program = tt_install(scene.engine, tt_chain(2), &native);
        scene.first = tt_run_new(program, 1);
        scene.second = tt_run_new(program, 1);
        tt_start(scene.first);
        uv_sem_wait(&scene.at_work);
        tt_start(scene.second);
        check_threads(2, close_engine, NULL);
        CHECK_INT(ti_run_status(scene.first), TI_CANCELLED);
        CHECK_INT(ti_run_status(scene.second), TI_CANCELLED);
        CHECK_INT(native.called, 1);
        ti_run_release(scene.first);
        ti_run_release(scene.second);
        ti_program_release(program);
        tt_close(scene.engine, &house);
        uv_sem_destroy(&scene.at_work);
        uv_sem_destroy(&scene.go_on);
    }
}

static void start_second(void)
{
    tt_start(scene.second);
}

static tt_answer step_in_later(const ti_task *task, void *data)
{
    (void)data;
    if (task->run == scene.first)
        before_lock = start_second;
    return tt_increment(task, NULL);
}

/* A thread has found nothing, and is about to go. Somebody starts a run, sees a thread search, and
 * asks for none. */
static void a_thread_that_goes_looks_once_more(void)
{
    tt_native native = {.call = step_in_later};
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    scene.first = tt_run_new(program, 1);
    scene.second = tt_run_new(program, 1);
    tt_start(scene.first);
    tt_wait(scene.first);
    CHECK(ti_engine_wait(engine, scene.second, 2000000000));
    tt_start_and_wait(program);
    tt_wait(scene.second);
    ti_run_release(scene.first);
    ti_run_release(scene.second);
    ti_program_release(program);
    tt_close(engine, &house);
}

static void have_no_thread(void)
{
    ti_store_sc(&scene.engine->pool.parking.idle, 0);
}

/* One is about to ask for the last thread, and finds that another one has got it. */
static void nobody_asks_for_more_than_there_is(void)
{
    tt_native native = {.call = tt_increment};
    scene.engine = tt_open(&house, 1);
    ti_pool *pool = &scene.engine->pool;
    ti_program *program = tt_install(scene.engine, tt_chain(1), &native);
    tt_start_and_wait(program);
    while (ti_load_sc(&pool->parking.idle) == 0 || ti_load_sc(&pool->parking.searching) > 0)
        uv_sleep(1);
    before_lock = have_no_thread;
    ti_pool_wake(pool);
    CHECK_INT(pool->parking.idle, 0);
    CHECK_INT(pool->parking.searching, 0);
    ti_store_sc(&pool->parking.idle, 1);
    ti_engine_close(scene.engine);
    ti_pool_wake(pool); /* now there is nobody to ask */
    CHECK_INT(pool->parking.idle, 1);
    CHECK_INT(pool->parking.searching, 0);
    ti_program_release(program);
    tt_close(scene.engine, &house);
}

/* Always leaves another run behind, until the host had its turn. */
static tt_answer go_on(const ti_task *task, void *data)
{
    (void)data;
    if (!atomic_load(&scene.visitor->done)) {
        ti_run *next = tt_run_new(task->run->program, 1);
        tt_start(next);
        ti_run_release(next);
    }
    atomic_fetch_add(&scene.generations, 1);
    return tt_increment(task, NULL);
}

static void others_have_their_turn_while_there_is_always_work(void)
{
    tt_native native = {.call = go_on};
    tt_visitor visitor;
    scene.visitor = &visitor;
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    atomic_init(&visitor.done, false);
    tt_start_and_wait(program);
    send_visitor(&visitor);
    let_go(&visitor);
    CHECK(scene.generations > 1);
    ti_program_release(program);
    tt_close(engine, &house);
}

static void engines_come_and_go(void)
{
    tt_visitor visitor;
    for (int round = 0; round < ROUNDS(200); round++) {
        tt_native native = {.call = tt_increment};
        ti_engine *engine = tt_open(&house, 1 + (uint32_t)round % 4);
        ti_program *program = tt_install(engine, tt_fan(3), &native);
        ti_run *run = tt_run_new(program, 1);
        tt_start(run);
        if (round % 2)
            tt_wait(run);
        ti_engine_close(engine);
        CHECK(ti_run_settled(run));
        ti_run_release(run);
        ti_program_release(program);
        tt_close(engine, &house);
    }
    check_given_back(&visitor);
}

int main(void)
{
    tt_shared = true;
    REQUIRE(setenv("UV_THREADPOOL_SIZE", "1", 1) == 0);
    RUN(a_borrowed_thread_gets_sigurg_alone_and_its_mask_back);
    RUN(an_idle_engine_has_given_its_thread_back);
    RUN(a_full_pool_holds_up_no_caller);
    RUN(closing_waits_for_nobody_else);
    RUN(closing_takes_back_what_nobody_needs);
    RUN(closing_waits_for_what_is_borrowed);
    RUN(a_thread_that_goes_looks_once_more);
    RUN(nobody_asks_for_more_than_there_is);
    RUN(others_have_their_turn_while_there_is_always_work);
    RUN(engines_come_and_go);
    return check_report();
}
