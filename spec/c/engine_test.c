/* SPDX-License-Identifier: MIT */
/* What an engine promises its hosts, one promise at a time; stress_test.c attacks them at once. */
#define _GNU_SOURCE
#include "engine/engine.h"

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "native.h"

static tt_house house;

/* A callback that says it is there and stays until it may go. */
typedef struct tt_gate {
    atomic_uint inside;
    atomic_bool open;
} tt_gate;

static void nap(void)
{
    uv_sleep(1);
}

static tt_answer pass_gate(const ti_task *task, void *data)
{
    tt_gate *gate = data;
    atomic_fetch_add(&gate->inside, 1);
    while (!atomic_load(&gate->open) && !atomic_load(&task->run->stop))
        nap();
    return tt_increment(task, NULL);
}

static void await_inside(tt_gate *gate, unsigned count)
{
    while (atomic_load(&gate->inside) < count)
        nap();
}

static void opens_and_closes_every_context_once(void)
{
    for (uint32_t workers = 1; workers < 6; workers++) {
        ti_engine *engine = tt_open(&house, workers);
        CHECK(!ti_engine_closed(engine));
        ti_engine_close(engine);
        CHECK(ti_engine_closed(engine));
        ti_engine_close(engine);
        tt_close(engine, &house);
    }
    CHECK(ti_engine_default_workers() >= 1);
    ti_engine_release(NULL);
}

static void a_backend_that_refuses_a_worker_fails_the_opening(void)
{
    ti_error *error = NULL;
    house = (tt_house){.refuses = 2};
    const ti_backend_choice choices[] = {{&tt_backend, &house}, {&tt_backend, &house}};
    CHECK(tt_try_open(3, choices, 2, &error) == NULL);
    CHECK_TEXT(error->message, "worker 1 refuses");
    CHECK_INT(house.opened, 2);
    CHECK_INT(house.closed, 2);
    ti_error_free(error);
}

static void a_closed_engine_takes_no_runs(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_chain(3), &native);
    ti_run *run = tt_run_new(program, 1), *other = tt_run_new(program, 2);
    ti_engine_close(engine);
    CHECK_INT(ti_engine_run(engine, run), TI_E_CLOSED);
    CHECK_INT(ti_engine_start(engine, other), TI_E_CLOSED);
    CHECK(!ti_run_cancel(run, "no need", 7));
    CHECK_INT(ti_run_status(run), TI_RUNNING);
    CHECK(ti_engine_claim(engine, 0) == NULL);
    CHECK_INT(native.called, 0);
    CHECK_INT(tt_in_flight(engine), 0);
    ti_run_release(run);
    ti_run_release(other);
    ti_program_release(program);
    tt_close(engine, &house);
}

/* A small DAG costs the caller no thread and no context switch. */
static void a_chain_runs_on_the_calling_thread(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 4);
    ti_program *program = tt_install(engine, tt_chain(100), &native);
    for (int i = 0; i < 50; i++)
        CHECK_INT(tt_compute(program, 7), 107);
    CHECK_INT(engine->pool.started, 0);
    ti_program_release(program);
    tt_close(engine, &house);
}

static tt_answer meet(const ti_task *task, void *data)
{
    uv_barrier_wait(data);
    return tt_increment(task, NULL);
}

/* Four processors that wait for each other end only if all are called at once. */
static void as_many_callbacks_as_workers_run_at_once(void)
{
    enum { WORKERS = 4 };
    uv_barrier_t barrier;
    REQUIRE(uv_barrier_init(&barrier, WORKERS) == 0);
    tt_native native = {.call = meet, .data = &barrier};
    ti_engine *engine = tt_open(&house, WORKERS);
    ti_program *program = tt_install(engine, tt_fan(3 * WORKERS), &native);
    CHECK_INT(tt_compute(program, 1), 2);
    ti_run *run = tt_run_new(program, 5);
    tt_start(run);
    tt_wait(run);
    CHECK_INT(tt_result(run), 6);
    CHECK_INT(native.most, WORKERS);
    ti_run_release(run);
    ti_program_release(program);
    tt_close(engine, &house);
    uv_barrier_destroy(&barrier);
}

/* Processors of one run wait for a permit; workers and callers go on with others meanwhile. */
static void a_bound_holds_and_blocks_nobody(void)
{
    tt_gate gate = {0};
    tt_native bounded = {.call = pass_gate, .data = &gate}, other = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 2);
    ti_dag *dag = tt_fan(8);
    dag->max_concurrency = 1;
    ti_program *one = tt_install(engine, dag, &bounded);
    ti_program *two = tt_install(engine, tt_fan(20), &other);
    ti_run *held = tt_run_new(one, 1), *free_run = tt_run_new(two, 1);
    tt_start(held);
    await_inside(&gate, 1);
    tt_start(free_run);
    tt_wait(free_run);
    CHECK_INT(tt_compute(two, 6), 7);
    CHECK(!ti_run_settled(held));
    CHECK_INT(bounded.called, 1);
    atomic_store(&gate.open, true);
    tt_wait(held);
    CHECK_INT(bounded.called, 8);
    CHECK_INT(bounded.most, 1);
    ti_run_release(held);
    ti_run_release(free_run);
    ti_program_release(one);
    ti_program_release(two);
    tt_close(engine, &house);
}

/* Who waits for a permit hears of the cancel, and gives on the permit it never used. */
static void a_cancel_reaches_those_that_wait_for_a_permit(void)
{
    tt_gate gate = {0};
    tt_native native = {.call = pass_gate, .data = &gate};
    ti_engine *engine = tt_open(&house, 3);
    ti_dag *dag = tt_fan(50);
    dag->max_concurrency = 2;
    ti_program *program = tt_install(engine, dag, &native);
    ti_run *run = tt_run_new(program, 1);
    tt_start(run);
    await_inside(&gate, 2);
    CHECK(ti_run_cancel(run, "enough", 6));
    tt_wait(run);
    CHECK_INT(ti_run_status(run), TI_CANCELLED);
    CHECK_INT(native.called, 2);
    for (int i = 0; i < 50; i++)
        CHECK_INT(run->nodes[i].status, TI_CANCELLED);
    ti_run_release(run);
    atomic_store(&gate.open, true);
    CHECK_INT(tt_compute(program, 3), 4); /* the same run again: all permits are back */
    CHECK_INT(native.most, 2);
    ti_program_release(program);
    tt_close(engine, &house);
}

static void a_claimed_seat_is_nobody_elses(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_fan(5), &native);
    ti_worker *seat = ti_engine_claim(engine, 0);
    ti_run *run = tt_run_new(program, 1);
    tt_start(run);
    uv_sleep(20);
    CHECK_INT(native.called, 0);
    CHECK(!ti_run_settled(run));
    ti_engine_leave(engine, seat);
    tt_wait(run);
    CHECK_INT(native.called, 5);
    ti_run_release(run);
    ti_program_release(program);
    tt_close(engine, &house);
}

/* What is in one callback and has much to do after it, when somebody comes for the seat. */
typedef struct tt_visit {
    ti_engine *engine;
    ti_program *program;
    tt_native *native;
    tt_gate gate;
    bool guest; /* the host's thread works in dag:run; else the engine's does */
} tt_visit;

static tt_answer pass_gate_of(const ti_task *task, void *data)
{
    return pass_gate(task, &((tt_visit *)data)->gate);
}

static void work_and_visit(void *data, unsigned index)
{
    tt_visit *visit = data;
    if (index == 0 && visit->guest) {
        CHECK_INT(tt_compute(visit->program, 1), 2);
    } else if (index == 0) {
        tt_start_and_wait(visit->program);
    } else if (index == 1) {
        await_inside(&visit->gate, 1);
        ti_worker *seat = ti_engine_claim(visit->engine, 0);
        CHECK_INT(visit->native->called, 1);
        ti_engine_leave(visit->engine, seat);
    } else {
        while (!atomic_load(&ti_engine_worker(visit->engine, 0)->claims))
            nap();
        atomic_store(&visit->gate.open, true);
    }
}

static void a_claim_waits_for_the_current_callback_only(void)
{
    for (int guest = 0; guest < 2; guest++)
        for (int strategy = 0; strategy < 3; strategy++) {
            tt_visit visit = {.guest = guest};
            tt_native native = {.call = pass_gate_of, .data = &visit};
            ti_dag *dag = tt_fan(400); /* more than a deque has room for */
            dag->strategy = (ti_strategy)strategy;
            visit.native = &native;
            visit.engine = tt_open(&house, 1);
            visit.program = tt_install(visit.engine, dag, &native);
            check_threads(3, work_and_visit, &visit);
            CHECK_INT(native.called, 400);
            ti_program_release(visit.program);
            tt_close(visit.engine, &house);
        }
}

static void wait_for_it(void *data, unsigned index)
{
    (void)index;
    ti_run *run = data;
    tt_wait(run);
    CHECK_INT(tt_result(run), 4);
}

static void look_from_elsewhere(void *seat, unsigned index)
{
    (void)index;
    CHECK(!ti_worker_is_ours(seat));
}

static void a_seat_knows_whose_it_is(void)
{
    ti_engine *engine = tt_open(&house, 2);
    ti_worker *seat = ti_engine_claim(engine, 1);
    CHECK(ti_worker_is_ours(seat));
    CHECK(!ti_worker_is_ours(ti_engine_worker(engine, 0)));
    check_threads(1, look_from_elsewhere, seat);
    ti_engine_leave(engine, seat);
    CHECK(!ti_worker_is_ours(seat));
    tt_close(engine, &house);
}

static void several_threads_may_wait_for_one_run(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_chain(3), &native);
    for (int round = 0; round < ROUNDS(300); round++) {
        ti_run *run = tt_run_new(program, 1);
        tt_start(run);
        check_threads(4, wait_for_it, run);
        ti_run_release(run);
    }
    ti_program_release(program);
    tt_close(engine, &house);
}

static void a_program_is_forgotten_on_every_worker(void)
{
    tt_native native = {.call = tt_increment}, other = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 3);
    ti_program *program = tt_install(engine, tt_chain(3), &native);
    ti_program *stays = tt_install(engine, tt_chain(3), &other);
    CHECK(ti_program_retain(program) == program);
    tt_compute(program, 1);
    ti_program_release(program);
    CHECK_INT(native.forgotten, 0);
    ti_worker *seat = ti_engine_claim(engine, 1);
    ti_program_release(program); /* a collector may do this: it must not wait for the seat */
    CHECK_INT(native.forgotten, 2);
    ti_engine_leave(engine, seat);
    tt_await_forgotten(engine, &native);
    CHECK_INT(other.forgotten, 0);
    ti_program_release(stays);
    tt_close(engine, &house);
}

static void many_programs_can_wait_to_be_forgotten(void)
{
    enum { PROGRAMS = 100 };
    static tt_native natives[PROGRAMS];
    ti_engine *engine = tt_open(&house, 2);
    ti_worker *seat = ti_engine_claim(engine, 0);
    for (int i = 0; i < PROGRAMS; i++) {
        natives[i].call = tt_increment;
        ti_program_release(tt_install(engine, tt_chain(1), &natives[i]));
        CHECK_INT(natives[i].forgotten, 1);
    }
    ti_engine_leave(engine, seat);
    ti_engine_leave(engine, ti_engine_claim(engine, 0));
    for (int i = 0; i < PROGRAMS; i++)
        CHECK_INT(natives[i].forgotten, 2);
    tt_close(engine, &house);
}

/* Closing cancels what runs; what came of it can be read for as long as somebody holds it. */
static void results_outlive_the_engine(void)
{
    tt_gate gate = {0};
    static const tt_call calls[] = {tt_increment, pass_gate, tt_increment};
    tt_native quick = {.call = tt_increment}, slow = {.calls = calls, .data = &gate};
    ti_engine *engine = tt_open(&house, 2);
    ti_program *one = tt_install(engine, tt_chain(3), &quick);
    ti_program *two = tt_install(engine, tt_chain(3), &slow);
    ti_run *done = tt_run_new(one, 1), *cut = tt_run_new(two, 1);
    CHECK_INT(ti_engine_run(engine, done), TI_OK);
    tt_start(cut);
    await_inside(&gate, 1);
    ti_program_release(one);
    ti_program_release(two);
    ti_engine_close(engine);
    CHECK_INT(house.closed, 2);
    CHECK_INT(ti_run_status(done), TI_COMPLETED);
    CHECK_INT(tt_result(done), 4);
    CHECK_INT(ti_run_status(cut), TI_CANCELLED);
    CHECK_INT(tt_result(cut), 2);
    CHECK(atomic_load(&cut->reason) != NULL);
    tt_wait(cut); /* returns at once */
    ti_run_release(done);
    ti_run_release(cut);
    tt_close(engine, &house);
}

/* The last reference to the engine may be a run's: it was closed before. */
static void a_run_may_be_the_last_to_go(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_chain(3), &native);
    ti_run *run = tt_run_new(program, 1);
    CHECK_INT(ti_engine_run(engine, run), TI_OK);
    ti_engine_close(engine);
    ti_engine_release(engine);
    ti_program_release(program);
    CHECK_INT(tt_result(run), 4);
    ti_run_release(run);
    CHECK_INT(house.closed, 2);
}

/* Nobody closes it: the last reference does, whoever drops it, be it a thread of its own. */
static void dropping_everything_closes_the_engine(void)
{
    for (int round = 0; round < ROUNDS(200); round++) {
        tt_native native = {.call = tt_increment};
        ti_engine *engine = tt_open(&house, 2);
        ti_program *program = tt_install(engine, tt_chain(3), &native);
        ti_run *run = tt_run_new(program, 1);
        tt_start(run);
        if (round % 2)
            tt_wait(run);
        ti_run_release(run);
        ti_program_release(program);
        ti_engine_release(engine);
        for (int ms = 0; ms < 5000 && atomic_load(&house.closed) < 2; ms++)
            nap();
        REQUIRE(atomic_load(&house.closed) == 2);
    }
}

static void close_it(void *data, unsigned index)
{
    (void)index;
    ti_engine_close(data);
    CHECK_INT(house.closed, 2); /* all closers wait for the first */
}

static void several_threads_may_close_an_engine(void)
{
    for (int round = 0; round < ROUNDS(100); round++) {
        tt_gate gate = {0};
        tt_native native = {.call = pass_gate, .data = &gate};
        ti_engine *engine = tt_open(&house, 2);
        ti_program *program = tt_install(engine, tt_fan(5), &native);
        ti_run *run = tt_run_new(program, 1);
        tt_start(run);
        check_threads(3, close_it, engine);
        CHECK_INT(ti_run_status(run), TI_CANCELLED);
        ti_run_release(run);
        ti_program_release(program);
        tt_close(engine, &house);
    }
}

/* Which of two backends has answered, seen from the other. */
typedef struct tt_twin {
    uint32_t opened, closed, served;
} tt_twin;

static void *open_twin(void *shared, uint32_t worker, ti_error **error)
{
    (void)worker, (void)error;
    ((tt_twin *)shared)->opened++;
    return shared;
}

static void serve_twin(void *context, ti_worker *worker)
{
    tt_twin *twin = context;
    const ti_task *task;
    while ((task = ti_worker_next(worker))) {
        twin->served++;
        uint64_t payload = tt_number_of(task->payload);
        ti_worker_complete(worker, tt_number(2 * payload), NULL, TI_OWNS_PAYLOAD);
    }
}

static void close_twin(void *context)
{
    ((tt_twin *)context)->closed++;
}

/* Every other processor of a chain, and a half of a fan, are the twin's; it has no `forget`. */
static void two_backends_share_a_dag(void)
{
    static const ti_backend twin_backend = {
        .name = "twin", .open = open_twin, .serve = serve_twin, .close = close_twin};
    tt_twin twin = {0};
    tt_native native = {.call = tt_increment};
    ti_error *error = NULL;
    house = (tt_house){0};
    const ti_backend_choice choices[] = {{&tt_backend, &house}, {&twin_backend, &twin}};
    ti_engine *engine = tt_try_open(1, choices, 2, &error);
    REQUIRE(engine);
    ti_dag *dag = tt_chain(20);
    for (uint32_t i = 0; i < 20; i++) {
        dag->processors[i].backend = i % 2;
        char id[16];
        ti_dag_add(dag, id, (size_t)sprintf(id, "f%u", i), TI_TRANSFORM, i % 3 == 0);
    }
    ti_program *program = tt_install(engine, dag, &native);
    CHECK_INT(tt_compute(program, 1), 3 * 1024 - 2); /* x -> 2 (x + 1), ten times */
    CHECK_INT(native.called, 10 + 13);
    CHECK_INT(twin.served, 10 + 7);
    ti_program_release(program);
    CHECK_INT(native.forgotten, 1);
    tt_close(engine, &house);
    CHECK_INT(twin.opened, 1);
    CHECK_INT(twin.closed, 1);
}

#ifndef __SANITIZE_THREAD__ /* it holds signals back */

/* A backend whose first callback never looks up, and that finds no memory for a context when it is
 * told so. */
typedef struct tt_mule {
    atomic_bool stands, barren; /* it is in that callback; it cannot be opened */
    atomic_bool slow;           /* opening it takes as long as this is set */
    atomic_uint refused, served, opening, forgotten;
} tt_mule;

static void *open_mule(void *shared, uint32_t worker, ti_error **error)
{
    tt_mule *mule = shared;
    (void)worker;
    atomic_fetch_add(&mule->opening, 1);
    while (atomic_load(&mule->slow))
        uv_sleep(1);
    if (!atomic_load(&mule->barren))
        return mule;
    atomic_fetch_add(&mule->refused, 1);
    *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
    return NULL;
}

static void serve_mule(void *context, ti_worker *worker)
{
    tt_mule *mule = context;
    while (ti_worker_next(worker)) {
        if (atomic_fetch_add(&mule->served, 1) == 0) {
            atomic_store(&mule->stands, true);
            while (atomic_load(&mule->stands))
                uv_sleep(1);
            pthread_exit(NULL); /* it was given up meanwhile */
        }
        ti_worker_complete(worker, tt_number(7), NULL, TI_OWNS_PAYLOAD);
    }
}

static void forget_mule(void *context, uint64_t key)
{
    (void)key;
    atomic_fetch_add(&((tt_mule *)context)->forgotten, 1);
}

static void interrupt_mule(void *context)
{
    (void)context;
}

static bool abandon_mule(void *context)
{
    return atomic_load(&((tt_mule *)context)->stands);
}

static void close_mule(void *context)
{
    (void)context;
}

static const ti_backend mule_backend = {
    .name = "mule",
    .open = open_mule,
    .serve = serve_mule,
    .forget = forget_mule,
    .interrupt = interrupt_mule,
    .abandon = abandon_mule,
    .close = close_mule,
};

/* Its only worker is given up, and cannot be opened again. */
static ti_program *lose_a_worker(ti_engine *engine, tt_mule *mule)
{
    static tt_native native;
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    ti_run *run = tt_run_new(program, 1);
    tt_start(run);
    while (!atomic_load(&mule->stands))
        uv_sleep(1);
    atomic_store(&mule->barren, true);
    ti_run_cancel(run, NULL, 0);
    tt_wait(run);
    CHECK_INT(ti_run_status(run), TI_CANCELLED);
    ti_run_release(run);
    while (!atomic_load(&mule->refused))
        uv_sleep(1);
    return program;
}

static ti_engine *open_with_mule(tt_mule *mule)
{
    const ti_engine_config config = {.workers = 1, .preempt = TI_PREEMPT_SIGNAL, .grace = 20000000};
    ti_error *error = NULL;
    ti_engine *engine =
        ti_engine_open(&config, &(ti_backend_choice){&mule_backend, mule}, 1, &error);
    REQUIRE(engine);
    return engine;
}

static void a_worker_that_could_not_be_replaced_is_when_there_is_memory(void)
{
    static tt_mule mule;
    ti_engine *engine = open_with_mule(&mule);
    ti_program *program = lose_a_worker(engine, &mule);
    CHECK(ti_engine_claim(engine, 0) == NULL);
    ti_run *run = tt_run_new(program, 1);
    tt_start(run);
    CHECK(!ti_engine_wait(engine, run, 20000000));
    atomic_store(&mule.barren, false);
    tt_wait(run);
    CHECK_INT(tt_result(run), 7);
    ti_run_release(run);
    ti_program_release(program);
    ti_engine_release(engine);
    atomic_store(&mule.stands, false);
}

/* A context that is opened later may have what was forgotten before, since it began to be opened.
 */
static void a_worker_forgets_what_went_while_it_could_not_be_replaced(void)
{
    static tt_mule mule;
    static tt_native native;
    ti_engine *engine = open_with_mule(&mule);
    ti_program *program = lose_a_worker(engine, &mule);
    while (atomic_load(&mule.refused) < 2 || ti_load_sc(&ti_engine_worker(engine, 0)->seated))
        uv_sleep(1); /* the new thread tries twice */
    ti_program_release(tt_install(engine, tt_chain(1), &native));
    CHECK_INT(mule.forgotten, 0);
    atomic_store(&mule.barren, false);
    tt_start_and_wait(program);
    CHECK_INT(mule.forgotten, 1);
    ti_program_release(program);
    ti_engine_release(engine);
    atomic_store(&mule.stands, false);
}

static ti_run *new_run_with_timeout(ti_program *program, uint64_t nanoseconds)
{
    ti_run_options options = ti_run_defaults(program->plan);
    options.timeout = nanoseconds;
    return ti_run_new(program, tt_number(1), NULL, &options);
}

/* Nor does the run wait in which a thread was given up. */
static void a_worker_that_takes_long_to_replace_holds_up_nobody(void)
{
    static tt_mule mule;
    static tt_native natives[2];
    ti_engine *engine = open_with_mule(&mule);
    ti_program *program = tt_install(engine, tt_chain(1), &natives[0]);
    ti_program *other = tt_install(engine, tt_chain(1), &natives[1]);
    ti_run *run = tt_run_new(program, 1);
    tt_start(run);
    while (!atomic_load(&mule.stands))
        uv_sleep(1);
    atomic_store(&mule.slow, true);
    ti_run_cancel(run, NULL, 0);
    tt_wait(run);
    ti_run_release(run);
    while (atomic_load(&mule.opening) < 2)
        uv_sleep(1);
    ti_program_release(other); /* at once: it is noted */
    CHECK_INT(mule.forgotten, 0);
    run = new_run_with_timeout(program, 10000000);
    tt_start(run);
    while (ti_load_relaxed(&run->stop) != TI_STOP_TIMEOUT) /* which the control loop sees to */
        uv_sleep(1);
    atomic_store(&mule.slow, false);
    tt_wait(run);
    CHECK_INT(ti_run_status(run), TI_CANCELLED);
    CHECK_INT(mule.forgotten, 1);
    ti_run_release(run);
    ti_program_release(program);
    ti_engine_release(engine);
    atomic_store(&mule.stands, false);
}

static void an_engine_closes_without_a_worker_that_could_not_be_replaced(void)
{
    static tt_mule mule;
    ti_engine *engine = open_with_mule(&mule);
    ti_program_release(lose_a_worker(engine, &mule));
    ti_engine_release(engine);
    atomic_store(&mule.stands, false);
}

#endif

/* The child of a fork that happened while some thread had each lock: all it may do to what it has
 * inherited does nothing, and does not wait. */
static void use_inherited(ti_engine *engine, ti_program *program, ti_run *run, ti_run *settled)
{
    ti_error *error = NULL;
    alarm(10);
    CHECK(ti_engine_closed(engine) && ti_engine_forked(engine));
    CHECK(tt_result(settled) == 2);
    CHECK_INT(ti_engine_run(engine, settled), TI_E_CLOSED);
    CHECK_INT(ti_engine_start(engine, settled), TI_E_CLOSED);
    CHECK(!ti_engine_wait(engine, run, UINT64_MAX));
    CHECK(ti_engine_next_settled(engine) == NULL);
    CHECK(ti_engine_claim(engine, 0) == NULL);
    ti_run_cancel(run, "enough", 6);
    ti_run_release(run);
    ti_run_release(settled);
    ti_run_release(settled); /* the engine's, for `notify`: the last */
    ti_program_release(program);
    ti_engine_close(engine);
    ti_engine_release(engine);
    ti_engine *own = tt_try_open(1, &(ti_backend_choice){&tt_backend, &house}, 1, &error);
    CHECK(own && !ti_engine_forked(own));
    ti_engine_release(own);
    _exit(check_report());
}

static void a_forked_child_waits_for_nobody(void)
{
    tt_gate gate = {0};
    tt_native native = {.call = pass_gate, .data = &gate}, quick = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_fan(3), &native);
    ti_program *done = tt_install(engine, tt_chain(1), &quick);
    ti_run *run = tt_run_new(program, 1), *settled = tt_run_new(done, 1);
    ti_engine_subscribe(engine, settled);
    tt_start(settled);
    tt_wait(settled);
    tt_compute(done, 1); /* another run, which is the program's spare one now */
    tt_start(run);
    await_inside(&gate, 2);
    REQUIRE(ti_control_ensure(&engine->control));
    uv_mutex_lock(&engine->lock);
    uv_mutex_lock(&engine->control.lock);
    uv_mutex_lock(&engine->pool.parking.lock);
    pid_t child = fork();
    if (child == 0)
        use_inherited(engine, program, run, settled);
    uv_mutex_unlock(&engine->control.lock);
    uv_mutex_unlock(&engine->pool.parking.lock);
    uv_mutex_unlock(&engine->lock);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&gate.open, true);
    tt_wait(run);
    CHECK_INT(ti_run_status(run), TI_COMPLETED);
    ti_run_release(ti_engine_next_settled(engine));
    ti_run_release(run);
    ti_run_release(settled);
    ti_program_release(program);
    ti_program_release(done);
    tt_close(engine, &house);
}

int main(void)
{
    RUN(opens_and_closes_every_context_once);
    RUN(a_backend_that_refuses_a_worker_fails_the_opening);
    RUN(a_closed_engine_takes_no_runs);
    RUN(a_chain_runs_on_the_calling_thread);
    RUN(as_many_callbacks_as_workers_run_at_once);
    RUN(a_bound_holds_and_blocks_nobody);
    RUN(a_cancel_reaches_those_that_wait_for_a_permit);
    RUN(a_claimed_seat_is_nobody_elses);
    RUN(a_claim_waits_for_the_current_callback_only);
    RUN(a_seat_knows_whose_it_is);
    RUN(several_threads_may_wait_for_one_run);
    RUN(a_program_is_forgotten_on_every_worker);
    RUN(many_programs_can_wait_to_be_forgotten);
    RUN(results_outlive_the_engine);
    RUN(a_run_may_be_the_last_to_go);
    RUN(dropping_everything_closes_the_engine);
    RUN(several_threads_may_close_an_engine);
    RUN(two_backends_share_a_dag);
#ifndef __SANITIZE_THREAD__
    RUN(a_worker_that_could_not_be_replaced_is_when_there_is_memory);
    RUN(a_worker_forgets_what_went_while_it_could_not_be_replaced);
    RUN(an_engine_closes_without_a_worker_that_could_not_be_replaced);
    RUN(a_worker_that_takes_long_to_replace_holds_up_nobody);
#endif
    RUN(a_forked_child_waits_for_nobody);
    return check_report();
}
