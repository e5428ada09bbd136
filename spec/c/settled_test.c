/* SPDX-License-Identifier: MIT */
/* How a host is told that runs have settled: the list, and the descriptor, as poll(2) sees it. */
#include "engine/settled.h"

#include <poll.h>
#include <sys/resource.h>
#include <uv.h>

#include "check.h"
#include "engine/stream.h"
#include "native.h"

static tt_house house;

static bool readable_within(int fd, int milliseconds)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    REQUIRE(poll(&entry, 1, milliseconds) >= 0);
    CHECK(!(entry.revents & (POLLERR | POLLHUP | POLLNVAL)));
    return entry.revents & POLLIN;
}

static bool readable(int fd)
{
    return readable_within(fd, 0);
}

static void a_list_gives_back_in_order(void)
{
    ti_run runs[3];
    ti_settled list = {0};
    memset(runs, 0, sizeof runs);
    CHECK(!ti_settled_take(&list));
    for (int round = 0; round < 2; round++) {
        ti_settled_add(&list, &runs[0]);
        ti_settled_add(&list, &runs[1]);
        CHECK(ti_settled_take(&list) == &runs[0]);
        ti_settled_add(&list, &runs[2]);
        CHECK(ti_settled_take(&list) == &runs[1]);
        CHECK(ti_settled_take(&list) == &runs[2]);
        CHECK(!ti_settled_take(&list));
    }
}

static void a_descriptor_is_readable_from_signal_to_clear(void)
{
    ti_descriptor descriptor = TI_NO_DESCRIPTOR;
    ti_descriptor_signal(&descriptor); /* nobody has asked for it */
    ti_descriptor_clear(&descriptor);
    int fd = ti_descriptor_open(&descriptor, false);
    REQUIRE(fd >= 0);
    CHECK_INT(ti_descriptor_open(&descriptor, true), fd);
    CHECK(!readable(fd));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i <= round * 100000; i++) /* more than a pipe has room for */
            ti_descriptor_signal(&descriptor);
        CHECK(readable(fd));
        ti_descriptor_clear(&descriptor);
        CHECK(!readable(fd));
        ti_descriptor_clear(&descriptor);
    }
    ti_descriptor_close(&descriptor);
    ti_descriptor_close(&descriptor);
    fd = ti_descriptor_open(&descriptor, true);
    CHECK(readable(fd));
    ti_descriptor_close(&descriptor);
}

static void without_descriptors_there_is_none(void)
{
    struct rlimit before, none;
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    ti_run *run = tt_run_new(program, 1);
    ti_engine_subscribe(engine, run);
    tt_start(run);
    tt_wait(run);
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 0;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK_INT(ti_engine_pollfd(engine), -1);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(readable(ti_engine_pollfd(engine))); /* the next time; and nothing was forgotten */
    ti_run_release(ti_engine_next_settled(engine));
    ti_run_release(run);
    ti_program_release(program);
    tt_close(engine, &house);
}

typedef struct tt_gate {
    atomic_bool open;
} tt_gate;

static tt_answer pass_gate(const ti_task *task, void *data)
{
    tt_gate *gate = data;
    while (!atomic_load(&gate->open) && !atomic_load(&task->run->stop))
        uv_sleep(1);
    return tt_increment(task, NULL);
}

static ti_run *subscribe(ti_program *program, uint64_t input)
{
    ti_run *run = tt_run_new(program, input);
    ti_engine_subscribe(program->engine, run);
    tt_start(run);
    return run;
}

static void it_is_readable_once_a_subscribed_run_has_settled(void)
{
    tt_gate gate = {0};
    tt_native native = {.call = pass_gate, .data = &gate};
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    int fd = ti_engine_pollfd(engine);
    CHECK_INT(ti_engine_pollfd(engine), fd);
    CHECK(!ti_engine_next_settled(engine));
    for (int round = 0; round < 3; round++) {
        atomic_store(&gate.open, false);
        ti_run *run = subscribe(program, 1);
        CHECK_INT(ti_engine_pending(engine), 1);
        CHECK(!readable_within(fd, 2));
        atomic_store(&gate.open, true);
        CHECK(readable_within(fd, -1));
        CHECK_INT(ti_engine_pending(engine), 1);
        ti_run *settled = ti_engine_next_settled(engine);
        CHECK(settled == run);
        CHECK_INT(ti_engine_pending(engine), 0);
        CHECK(!ti_engine_next_settled(engine));
        CHECK(!readable(fd));
        ti_run_release(settled);
        ti_run_release(run);
    }
    ti_program_release(program);
    tt_close(engine, &house);
}

static void it_is_readable_at_once_if_something_has_settled_before(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    ti_run *run = subscribe(program, 1);
    tt_wait(run);
    CHECK(readable(ti_engine_pollfd(engine)));
    ti_run_release(ti_engine_next_settled(engine));
    CHECK(!ti_engine_next_settled(engine));
    CHECK(!readable(ti_engine_pollfd(engine)));
    ti_run_release(run);
    ti_program_release(program);
    tt_close(engine, &house);
}

/* Runs that somebody waits for, and streams that are taken from without a loop. */
static void others_do_not_make_it_readable(void)
{
    tt_native native = {.call = tt_increment};
    ti_engine *engine = tt_open(&house, 2);
    ti_program *program = tt_install(engine, tt_chain(2), &native);
    int fd = ti_engine_pollfd(engine);
    CHECK_INT(tt_compute(program, 1), 3);
    ti_run *run = tt_run_new(program, 1);
    tt_start(run);
    tt_wait(run);
    ti_run_release(run);
    for (int ordered = 0; ordered < 2; ordered++) {
        ti_stream *stream =
            ti_stream_open(program, &(ti_stream_options){.most = 4, .ordered = ordered});
        for (uint64_t i = 0; i < 4; i++)
            REQUIRE(ti_stream_push(stream, tt_run_new(program, i)) == TI_OK);
        CHECK_INT(ti_engine_pending(engine), 0);
        ti_run_release(ti_stream_next(stream, UINT64_MAX));
        ti_stream_close(stream);
    }
    CHECK(!readable(fd));
    ti_program_release(program);
    tt_close(engine, &house);
}

static void runs_of_streams_in_the_background_make_it_readable(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        tt_gate gate = {0};
        tt_native native = {.call = pass_gate, .data = &gate};
        ti_engine *engine = tt_open(&house, 1);
        ti_program *program = tt_install(engine, tt_chain(1), &native);
        int fd = ti_engine_pollfd(engine);
        ti_stream *stream = ti_stream_open(
            program, &(ti_stream_options){.most = 4, .ordered = ordered, .background = true});
        for (uint64_t i = 0; i < 4; i++)
            REQUIRE(ti_stream_push(stream, tt_run_new(program, i)) == TI_OK);
        CHECK_INT(ti_engine_pending(engine), 4);
        CHECK(!readable_within(fd, 2));
        atomic_store(&gate.open, true);
        for (unsigned taken = 0; taken < 4;) {
            CHECK(readable_within(fd, -1));
            CHECK(!ti_engine_next_settled(engine)); /* they are not in that list */
            for (ti_run *run; (run = ti_stream_next(stream, 0)); taken++)
                ti_run_release(run);
        }
        CHECK_INT(ti_engine_pending(engine), 0);
        ti_stream_close(stream);
        ti_program_release(program);
        tt_close(engine, &house);
    }
}

static void what_a_closing_cancels_makes_it_readable(void)
{
    tt_gate gate = {0};
    tt_native native = {.call = pass_gate, .data = &gate};
    ti_engine *engine = tt_open(&house, 1);
    ti_program *program = tt_install(engine, tt_chain(1), &native);
    int fd = ti_engine_pollfd(engine);
    ti_run *runs[3];
    for (int i = 0; i < 3; i++)
        runs[i] = subscribe(program, 1);
    ti_engine_close(engine);
    CHECK(readable(fd));
    CHECK_INT(ti_engine_pending(engine), 3);
    for (int i = 0; i < 3; i++) {
        ti_run *run = ti_engine_next_settled(engine);
        REQUIRE(run);
        CHECK_INT(ti_run_status(run), TI_CANCELLED);
        ti_run_release(run);
    }
    CHECK(!ti_engine_next_settled(engine));
    CHECK(!readable(fd));
    for (int i = 0; i < 3; i++)
        ti_run_release(runs[i]);
    ti_program_release(program);
    tt_close(engine, &house);
}

/* A host that does nothing but what its poll tells it is never left waiting. */
static void no_wake_up_is_lost(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        tt_native native = {.call = tt_increment};
        ti_engine *engine = tt_open(&house, 3);
        ti_program *program = tt_install(engine, tt_chain(2), &native);
        int fd = ti_engine_pollfd(engine);
        ti_stream *stream = ti_stream_open(
            program, &(ti_stream_options){.most = 5, .ordered = ordered, .background = true});
        uint32_t seed = 7, pushed = 0, taken = 0, started = 0, settled = 0;
        uint32_t goal = (uint32_t)ROUNDS(20000);
        while (taken < goal || settled < goal) {
            for (; pushed < goal && ti_stream_in_flight(stream) < 5; pushed++)
                REQUIRE(ti_stream_push(stream, tt_run_new(program, pushed)) == TI_OK);
            for (; started < goal && started - settled < check_random(&seed) % 4; started++)
                ti_run_release(subscribe(program, 1));
            if (ti_engine_pending(engine))
                CHECK(readable_within(fd, -1));
            for (ti_run *run; (run = ti_engine_next_settled(engine)); settled++)
                ti_run_release(run);
            for (ti_run *run; (run = ti_stream_next(stream, 0)); taken++)
                ti_run_release(run);
        }
        CHECK_INT(ti_engine_pending(engine), 0);
        ti_stream_close(stream);
        ti_program_release(program);
        tt_close(engine, &house);
    }
}

int main(void)
{
    RUN(a_list_gives_back_in_order);
    RUN(a_descriptor_is_readable_from_signal_to_clear);
    RUN(without_descriptors_there_is_none);
    RUN(it_is_readable_once_a_subscribed_run_has_settled);
    RUN(it_is_readable_at_once_if_something_has_settled_before);
    RUN(others_do_not_make_it_readable);
    RUN(runs_of_streams_in_the_background_make_it_readable);
    RUN(what_a_closing_cancels_makes_it_readable);
    RUN(no_wake_up_is_lost);
    return check_report();
}
