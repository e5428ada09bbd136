/* SPDX-License-Identifier: MIT */
/* Retries against a virtual clock: the waits are hours, and nothing sleeps. */
#include "engine/clock.h"

#include "check.h"
#include "native.h"

#define SECOND ((uint64_t)1000000000)
#define HOUR (3600 * SECOND)

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

int main(void)
{
    RUN(each_wait_is_longer_by_the_factor_up_to_the_most);
    RUN(attempts_end_at_the_most_and_keep_their_errors);
    RUN(cancelling_ends_a_wait_at_once);
    RUN(jitter_is_a_function_of_the_seed);
    return check_report();
}
