/* SPDX-License-Identifier: MIT */
/* Retries against a virtual clock, where the waits are hours, and nothing sleeps; timeouts; and how
 * a cancel ends all of it. */
#include "engine/clock.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "native.h"

#define SECOND ((uint64_t)1000000000)
#define HOUR (3600 * SECOND)
#define MS (SECOND / 1000)

static tt_house house;

/* Fails until it has been called as often as `data` says. */
static tt_answer fail_at_first(const ti_task *task, void *data)
{
    const unsigned *calls = data;
    return task->node->attempts < *calls ? tt_error("not yet") : tt_return(task->node->attempts);
}

typedef struct tt_retrying {
    tt_native native;
    ti_engine *engine;
    ti_program *program;
    ti_run *run;
} tt_retrying;

static void begin(tt_retrying *it, ti_retry retry, unsigned *calls)
{
    ti_dag *dag = tt_fan(1);
    dag->processors[0].retry = retry;
    it->native = (tt_native){.call = fail_at_first, .data = calls};
    it->engine = tt_open(&house, 1);
    it->program = tt_install(it->engine, dag, &it->native);
    it->run = tt_run_new(it->program, 1);
    CHECK_INT(ti_engine_start(it->engine, it->run), TI_OK);
}

static void end(tt_retrying *it)
{
    ti_run_release(it->run);
    ti_program_release(it->program);
    tt_close(it->engine, &house);
}

/* Until that many calls have been made, and the node waits for its next attempt or has ended. */
static void await_calls(tt_retrying *it, unsigned calls)
{
    ti_control *control = &it->engine->control;
    for (bool there = false; !there; uv_sleep(1)) {
        uv_mutex_lock(&control->lock);
        there = ti_load_sc(&it->native.called) == calls &&
                (control->waiting || ti_run_settled(it->run));
        uv_mutex_unlock(&control->lock);
    }
}

static void pass(tt_retrying *it, uint64_t time)
{
    ti_add_relaxed(&ti_clock_offset, time);
    ti_control_expect(&it->engine->control, 0);
}

static void each_wait_is_longer_by_the_factor_up_to_the_most(void)
{
    tt_retrying it;
    unsigned calls = 5;
    begin(&it, (ti_retry){.max = 9, .backoff = HOUR, .factor = 3, .most = 4 * HOUR}, &calls);
    const uint64_t waits[] = {HOUR, 3 * HOUR, 4 * HOUR, 4 * HOUR};
    for (unsigned i = 0; i < 4; i++) {
        await_calls(&it, i + 1);
        pass(&it, waits[i] - 60 * SECOND);
        uv_sleep(5);
        CHECK_INT(it.native.called, i + 1); /* a minute is missing */
        pass(&it, 60 * SECOND);
    }
    CHECK(ti_engine_wait(it.engine, it.run, 30 * SECOND));
    CHECK_INT(tt_result(it.run), 5);
    CHECK_INT(tt_node(it.run, "p0")->attempts, 5);
    end(&it);
}

static void attempts_end_at_the_most_and_keep_their_errors(void)
{
    tt_retrying it;
    unsigned never = 1000;
    begin(&it, (ti_retry){.max = 3, .backoff = HOUR, .factor = 1, .most = HOUR}, &never);
    for (unsigned i = 1; i <= 3; i++) {
        await_calls(&it, i);
        pass(&it, HOUR);
    }
    CHECK(ti_engine_wait(it.engine, it.run, 30 * SECOND));
    const ti_node *node = tt_node(it.run, "p0");
    CHECK_INT(node->status, TI_FAILED);
    unsigned attempt = 4;
    for (const ti_error *error = node->error; error; error = error->previous)
        CHECK_INT(error->attempt, attempt--);
    CHECK_INT(attempt, 0);
    end(&it);
}

static void cancelling_ends_a_wait_at_once(void)
{
    tt_retrying it;
    unsigned never = 1000;
    begin(&it, (ti_retry){.max = 3, .backoff = HOUR, .factor = 1, .most = HOUR}, &never);
    await_calls(&it, 1);
    CHECK(ti_run_cancel(it.run, NULL, 0));
    CHECK(ti_engine_wait(it.engine, it.run, 30 * SECOND));
    CHECK_INT(tt_node(it.run, "p0")->status, TI_CANCELLED);
    CHECK_INT(it.native.called, 1);
    end(&it);
}

static void jitter_is_a_function_of_the_seed(void)
{
    ti_retry retry = {.max = 9, .backoff = HOUR, .factor = 2, .most = 24 * HOUR, .jitter = 0.5};
    bool differs = false;
    for (uint32_t attempt = 1; attempt < 5; attempt++) {
        uint64_t wait = ti_backoff(&retry, 7, attempt), full = HOUR << (attempt - 1);
        CHECK(wait <= full && wait >= full / 2);
        CHECK_INT(wait, ti_backoff(&retry, 7, attempt));
        differs = differs || wait != ti_backoff(&retry, 8, attempt);
    }
    CHECK(differs);
}

/* A DAG that was started; on two workers. */
typedef struct tt_case {
    ti_engine *engine;
    ti_program *program;
    ti_run *run;
} tt_case;

static tt_case begin_case(ti_dag *dag, tt_native *native)
{
    tt_case it = {.engine = tt_open(&house, 2)};
    it.program = tt_install(it.engine, dag, native);
    it.run = tt_run_new(it.program, 1);
    tt_start(it.run);
    return it;
}

static void end_case(tt_case it)
{
    ti_run_release(it.run);
    ti_program_release(it.program);
    tt_close(it.engine, &house);
}

static ti_retry retry(uint32_t max, uint64_t backoff)
{
    return (ti_retry){.max = max, .backoff = backoff, .most = 1000 * HOUR, .factor = 2};
}

static void a_backoff_grows_to_its_bound(void)
{
    ti_retry it = {.backoff = 100, .most = 1000, .factor = 3};
    static const uint64_t waits[] = {100, 300, 900, 1000, 1000};
    for (uint32_t i = 0; i < 5; i++)
        CHECK_INT(ti_backoff(&it, 7, i + 1), waits[i]);
    it.most = 1000000 * HOUR;
    CHECK_INT(ti_backoff(&it, 7, 1000000), it.most);
    it = (ti_retry){.backoff = 0, .most = 1000, .factor = 2};
    CHECK_INT(ti_backoff(&it, 0, 50), 0);
}

/* Fails until its third attempt. */
static tt_answer third_time_lucky(const ti_task *task, void *data)
{
    return task->node->attempts < 3 ? tt_error("not yet") : tt_increment(task, data);
}

static void what_fails_is_tried_again(void)
{
    tt_native native = {.call = third_time_lucky};
    ti_dag *dag = tt_chain(2);
    dag->processors[0].retry = dag->processors[1].retry = retry(2, MS / 10);
    tt_case it = begin_case(dag, &native);
    tt_wait(it.run);
    CHECK_INT(ti_run_status(it.run), TI_COMPLETED);
    CHECK_INT(tt_result(it.run), 3);
    CHECK_INT(native.called, 6);
    CHECK_INT(tt_node(it.run, "p1")->attempts, 3);
    end_case(it);
}

static void cancel(tt_case it)
{
    CHECK(ti_run_cancel(it.run, "enough", 6));
}

static void close_engine(tt_case it)
{
    ti_engine_close(it.engine);
}

/* A bound of one permit, which the processor that waits must not hold meanwhile. */
static void a_cancel_or_a_closing_ends_the_wait(void)
{
    static void (*const ends[])(tt_case) = {cancel, close_engine};
    for (int i = 0; i < 2; i++) {
        tt_native native = {.call = tt_fail};
        ti_dag *dag = tt_fan(3);
        dag->failure_strategy = TI_CONTINUE_ON_ERROR;
        dag->max_concurrency = 1;
        for (int k = 0; k < 3; k++)
            dag->processors[k].retry = retry(1, HOUR);
        tt_case it = begin_case(dag, &native);
        while (atomic_load(&native.called) < 3)
            uv_sleep(1);
        CHECK(!ti_run_settled(it.run));
        ends[i](it);
        tt_wait(it.run);
        CHECK_INT(ti_run_status(it.run), TI_CANCELLED);
        CHECK_INT(native.called, 3);
        CHECK_INT(it.run->slots, 1);
        end_case(it);
    }
}

/* Runs that one thread cancels the moment their callback fails on another. */
typedef struct tt_duel {
    ti_program *program;
    tt_case sooner; /* another run, that waits for a shorter time */
    uv_barrier_t barrier;
    ti_run *run;
    atomic_bool failing, over;
    double worst;
} tt_duel;

static tt_answer fail_and_tell(const ti_task *task, void *data)
{
    tt_duel *duel = data;
    ti_store_sc(&duel->failing, true);
    return tt_fail(task, NULL);
}

static void keep_waiting(tt_case *it)
{
    if (!ti_run_settled(it->run))
        return;
    ti_run_release(it->run);
    it->run = tt_run_new(it->program, 1);
    tt_start(it->run);
}

static void start_and_time(tt_duel *duel)
{
    for (int round = 0; round < ROUNDS(15000) && duel->worst < 0.2; round++) {
        keep_waiting(&duel->sooner);
        duel->run = tt_run_new(duel->program, 1);
        ti_store_sc(&duel->failing, false);
        uv_barrier_wait(&duel->barrier);
        double began = check_seconds();
        tt_start(duel->run);
        tt_wait(duel->run);
        duel->worst = check_seconds() - began;
        uv_barrier_wait(&duel->barrier);
        ti_run_release(duel->run);
    }
    ti_store_sc(&duel->over, true);
    uv_barrier_wait(&duel->barrier);
}

static void cancel_when_it_fails(tt_duel *duel)
{
    uint32_t seed = 1;
    for (;;) {
        uv_barrier_wait(&duel->barrier);
        if (ti_load_sc(&duel->over))
            return;
        while (!ti_load_sc(&duel->failing))
            ti_relax();
        for (uint32_t turns = check_random(&seed) % 20; turns > 0; turns--)
            ti_relax();
        CHECK(ti_run_cancel(duel->run, NULL, 0));
        uv_barrier_wait(&duel->barrier);
    }
}

static void fight(void *data, unsigned index)
{
    if (index)
        cancel_when_it_fails(data);
    else
        start_and_time(data);
}

/* The wait that begins in the moment of the cancel ends at once too, even if the control loop has
 * nothing to do before some other wait is over. */
static void a_cancel_ends_a_wait_that_begins(void)
{
    tt_duel duel = {0};
    tt_native native = {.call = fail_and_tell, .data = &duel}, other = {.call = tt_fail};
    ti_dag *dag = tt_chain(1), *sooner = tt_chain(1);
    dag->processors[0].retry = retry(1, HOUR);
    sooner->processors[0].retry = retry(1, 2 * SECOND);
    duel.sooner = begin_case(sooner, &other);
    duel.program = tt_install(duel.sooner.engine, dag, &native);
    REQUIRE(uv_barrier_init(&duel.barrier, 2) == 0);
    check_threads(2, fight, &duel);
    CHECK(duel.worst < 0.2);
    uv_barrier_destroy(&duel.barrier);
    ti_run_cancel(duel.sooner.run, NULL, 0);
    tt_wait(duel.sooner.run);
    ti_program_release(duel.program);
    end_case(duel.sooner);
}

/* Goes on until its run is told to stop. */
static tt_answer until_stopped(const ti_task *task, void *data)
{
    (void)data;
    while (!atomic_load(&task->run->stop))
        uv_sleep(1);
    return tt_return(100);
}

static void a_run_that_takes_too_long_is_cancelled(void)
{
    static const tt_call calls[] = {tt_increment, until_stopped, tt_increment};
    tt_native native = {.calls = calls};
    ti_dag *dag = tt_chain(3);
    dag->timeout = 20 * MS;
    tt_case it = begin_case(dag, &native);
    tt_wait(it.run);
    CHECK_INT(it.run->verdict, TI_STOP_TIMEOUT);
    CHECK_INT(ti_run_status(it.run), TI_CANCELLED);
    CHECK_INT(tt_result(it.run), 2);
    CHECK_INT(native.called, 2);
    end_case(it);
}

static tt_answer dawdle(const ti_task *task, void *data)
{
    if (task->node->attempts == 1)
        uv_sleep(40);
    return tt_increment(task, data);
}

/* Nothing can stop a C callback; but what it returns late is not taken. */
static void a_callback_that_takes_too_long_fails(void)
{
    for (uint32_t retries = 0; retries < 2; retries++) {
        tt_native native = {.call = dawdle};
        ti_dag *dag = tt_chain(1);
        dag->processors[0].timeout = 5 * MS;
        dag->processors[0].retry = retry(retries, 0);
        tt_case it = begin_case(dag, &native);
        tt_wait(it.run);
        CHECK_INT(native.called, 1 + retries);
        if (retries)
            CHECK_INT(tt_result(it.run), 2);
        else
            CHECK_INT(tt_node(it.run, "p0")->error->code, TI_E_TIMEOUT);
        end_case(it);
    }
}

static void what_is_in_time_is_not_late(void)
{
    tt_native native = {.call = tt_increment};
    ti_dag *dag = tt_chain(20);
    dag->timeout = HOUR;
    for (int i = 0; i < 20; i++)
        dag->processors[i].timeout = HOUR;
    tt_case it = begin_case(dag, &native);
    tt_wait(it.run);
    CHECK_INT(tt_result(it.run), 21);
    ti_add_relaxed(&ti_clock_offset, 2 * HOUR);
    ti_control_expect(&it.engine->control, 0); /* it has settled: nothing is late any more */
    for (int i = 0; i < ROUNDS(200); i++)
        CHECK_INT(tt_compute(it.program, 1), 21);
    end_case(it);
}

static void a_wait_may_be_for_a_while_only(void)
{
    tt_native native = {.call = until_stopped};
    tt_case it = begin_case(tt_chain(1), &native);
    CHECK(!ti_engine_wait(it.engine, it.run, 0));
    double began = check_seconds();
    CHECK(!ti_engine_wait(it.engine, it.run, 20 * MS));
    CHECK(check_seconds() - began > 0.019);
    CHECK(ti_run_cancel(it.run, NULL, 0));
    CHECK(ti_engine_wait(it.engine, it.run, HOUR));
    CHECK(ti_engine_wait(it.engine, it.run, 0));
    end_case(it);
}

/* Runs that want it are left in a queue when they have settled, each with a reference. */
static void settled_runs_are_told_of_in_order(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_chain(2), &native);
    CHECK(ti_engine_next_settled(engine) == NULL);
    for (uint64_t i = 0; i < 10; i++) {
        ti_run *run = tt_run_new(program, i);
        if (i % 2)
            ti_engine_subscribe(engine, run);
        CHECK_INT(ti_engine_run(engine, run), TI_OK);
        ti_run_release(run);
    }
    for (uint64_t i = 1; i < 8; i += 2) {
        ti_run *run = ti_engine_next_settled(engine);
        REQUIRE(run);
        CHECK_INT(tt_result(run), i + 2);
        ti_run_release(run);
    }
    ti_program_release(program);
    ti_engine_close(engine);
    ti_run *last = ti_engine_next_settled(engine); /* whoever asked for it takes it even now */
    REQUIRE(last);
    CHECK_INT(tt_result(last), 11);
    ti_run_release(last);
    CHECK(ti_engine_next_settled(engine) == NULL);
    tt_close(engine, &house);
}

static atomic_uint handled;

static void count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

/* A signal that is blocked on all threads of the host waits until the host takes it. */
static void signals_wait_for_the_host(void)
{
    sigset_t one, before;
    ti_engine *engine = tt_open(&house, 1);
    REQUIRE(ti_control_ensure(&engine->control) && ti_pool_ensure(&engine->pool));
    sigemptyset(&one), sigaddset(&one, SIGUSR1);
    signal(SIGUSR1, count_signal);
    pthread_sigmask(SIG_BLOCK, &one, &before);
    for (int i = 0; i < 20; i++) {
        REQUIRE(kill(getpid(), SIGUSR1) == 0);
        CHECK_INT(sigtimedwait(&one, NULL, &(struct timespec){.tv_sec = 5}), SIGUSR1);
        if (handled > 0)
            break;
    }
    CHECK_INT(handled, 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    signal(SIGUSR1, SIG_DFL);
    tt_close(engine, &house);
}

int main(void)
{
    RUN(signals_wait_for_the_host);
    RUN(each_wait_is_longer_by_the_factor_up_to_the_most);
    RUN(attempts_end_at_the_most_and_keep_their_errors);
    RUN(cancelling_ends_a_wait_at_once);
    RUN(jitter_is_a_function_of_the_seed);
    RUN(a_backoff_grows_to_its_bound);
    RUN(what_fails_is_tried_again);
    RUN(a_cancel_or_a_closing_ends_the_wait);
    RUN(a_cancel_ends_a_wait_that_begins);
    RUN(a_run_that_takes_too_long_is_cancelled);
    RUN(a_callback_that_takes_too_long_fails);
    RUN(what_is_in_time_is_not_late);
    RUN(a_wait_may_be_for_a_while_only);
    RUN(settled_runs_are_told_of_in_order);
    return check_report();
}
