/* SPDX-License-Identifier: MIT */
/* Streams: what comes out of them, in which order, how many runs they need, and closing them, or
 * their engine, at bad moments. */
#include "engine/stream.h"

#include <uv.h>

#include "check.h"
#include "native.h"

enum { GATED = 1000000 };

static tt_house house;

/* Payloads from GATED on wait until it opens, or until their run is told to stop. */
typedef struct tt_gate {
    atomic_uint inside;
    atomic_bool open;
} tt_gate;

static tt_answer pass_gate(const ti_task *task, void *data)
{
    tt_gate *gate = data;
    if (tt_number_of(task->payload) < GATED)
        return tt_increment(task, NULL);
    atomic_fetch_add(&gate->inside, 1);
    while (!atomic_load(&gate->open) && !atomic_load(&task->run->stop))
        uv_sleep(1);
    return tt_increment(task, NULL);
}

/* A few hundred nanoseconds, or some 100 µs for one payload in `*data`. */
static tt_answer uneven(const ti_task *task, void *data)
{
    const uint32_t *long_ones = data;
    uint64_t number = tt_number_of(task->payload);
    uint32_t turns = number % *long_ones ? 10 : 2000;
    for (uint32_t i = 0; i < turns && !atomic_load(&task->run->stop); i++)
        ti_relax();
    return tt_increment(task, NULL);
}

static tt_answer fail_for_odd(const ti_task *task, void *data)
{
    (void)data;
    return tt_number_of(task->payload) % 2 ? tt_error("odd") : tt_increment(task, NULL);
}

/* An engine with one program of one chain, and a stream of it. */
typedef struct tt_scene {
    ti_engine *engine;
    ti_program *program;
    ti_stream *stream;
} tt_scene;

static tt_scene open_scene(uint32_t workers, uint32_t chain, tt_native *native,
                           ti_stream_options options)
{
    tt_scene scene = {.engine = tt_open(&house, workers)};
    scene.program = tt_install(scene.engine, tt_chain(chain), native);
    scene.stream = ti_stream_open(scene.program, &options);
    REQUIRE(scene.stream);
    return scene;
}

/* Nobody but the engine has its runs any more. */
static void check_idle(ti_engine *engine, uint32_t most)
{
    uint32_t runs = 0;
    uv_mutex_lock(&engine->lock);
    for (ti_run *run = engine->runs[TI_ALL]; run; run = run->in[TI_ALL].next, runs++)
        CHECK_INT(ti_load_sc(&run->references), 0);
    uv_mutex_unlock(&engine->lock);
    CHECK(runs <= most);
    CHECK_INT(ti_engine_pending(engine), 0);
}

static void close_scene(tt_scene *scene, uint32_t most)
{
    ti_stream_close(scene->stream);
    ti_engine_close(scene->engine);
    check_idle(scene->engine, most);
    ti_program_release(scene->program);
    tt_close(scene->engine, &house);
}

static void push(ti_stream *stream, uint64_t input, ti_program *program)
{
    ti_run *run = tt_run_new(program, input);
    run->tag = input;
    CHECK_INT(ti_stream_push(stream, run), TI_OK);
}

static void check_code(ti_stream *stream, ti_program *program, ti_code code)
{
    ti_run *run = tt_run_new(program, 1);
    CHECK_TEXT(ti_code_name(ti_stream_push(stream, run)), ti_code_name(code));
    ti_run_release(run);
}

/* Takes the next one, which has to be `tag`, and made of it `tag` + `more`. */
static void expect(ti_stream *stream, uint64_t tag, uint64_t more)
{
    ti_run *run = ti_stream_next(stream, UINT64_MAX);
    REQUIRE(run);
    CHECK_INT(run->tag, tag);
    CHECK_INT(ti_run_status(run), TI_COMPLETED);
    CHECK_INT(tt_result(run), tag + more);
    ti_run_release(run);
}

static void expect_cancelled(ti_stream *stream, uint64_t tag)
{
    ti_run *run = ti_stream_next(stream, UINT64_MAX);
    REQUIRE(run);
    CHECK_INT(run->tag, tag);
    CHECK_INT(ti_run_status(run), TI_CANCELLED);
    ti_run_release(run);
}

static ti_stream_options options_of(unsigned bits, uint32_t most)
{
    return (ti_stream_options){.most = most, .ordered = bits & 1, .background = bits & 2};
}

/* Streams `count` payloads. */
static void stream_all(tt_scene *scene, ti_stream_options options, uint64_t count, uint64_t more)
{
    uint64_t pushed = 0, taken = 0, sum = 0;
    while (taken < count) {
        for (; pushed < count && ti_stream_in_flight(scene->stream) < options.most; pushed++)
            push(scene->stream, pushed, scene->program);
        if (ti_stream_in_flight(scene->stream) == options.most)
            check_code(scene->stream, scene->program, TI_E_QUEUE_FULL);
        ti_run *run = ti_stream_next(scene->stream, UINT64_MAX);
        REQUIRE(run);
        if (options.ordered)
            CHECK_INT(run->tag, taken);
        CHECK_INT(tt_result(run), run->tag + more);
        sum += run->tag;
        taken++;
        ti_run_release(run);
    }
    CHECK_INT(sum, count * (count - 1) / 2);
    CHECK_INT(ti_stream_in_flight(scene->stream), 0);
    CHECK(!ti_stream_next(scene->stream, UINT64_MAX));
}

static void every_run_comes_out_once_and_in_order(void)
{
    static const uint32_t mosts[] = {1, 2, 7, 64}, longs[] = {1, 5, 100000};
    for (uint32_t workers = 1; workers <= 4; workers *= 2)
        for (unsigned bits = 0; bits < 4; bits++)
            for (unsigned i = 0; i < 12; i++) {
                uint32_t most = mosts[i % 4], long_ones = longs[i / 4];
                tt_native native = {.call = uneven, .data = &long_ones};
                ti_stream_options options = options_of(bits, most);
                tt_scene scene = open_scene(workers, 3, &native, options);
                stream_all(&scene, options, ROUNDS(300), 3);
                close_scene(&scene, most + workers + 2);
            }
}

static void so_many_runs_exist_as_were_in_flight(void)
{
    for (unsigned bits = 0; bits < 4; bits++) {
        tt_native native = {.call = tt_increment};
        ti_stream_options options = options_of(bits, 5);
        tt_scene scene = open_scene(2, 2, &native, options);
        stream_all(&scene, options, ROUNDS(20000), 2);
        close_scene(&scene, 5 + 1 + 2); /* one that is refused, and what threads still settle */
    }
}

static void an_empty_stream_has_nothing(void)
{
    for (unsigned bits = 0; bits < 4; bits++) {
        tt_native native = {.call = tt_increment};
        tt_scene scene = open_scene(1, 1, &native, options_of(bits, 1));
        CHECK(!ti_stream_next(scene.stream, 0));
        CHECK(!ti_stream_next(scene.stream, UINT64_MAX));
        close_scene(&scene, 0);
    }
    ti_stream_close(NULL);
}

static void a_failure_is_an_outcome_like_others(void)
{
    for (unsigned bits = 0; bits < 4; bits++) {
        tt_native native = {.call = fail_for_odd};
        tt_scene scene = open_scene(2, 1, &native, options_of(bits, 10));
        unsigned failed = 0;
        for (uint64_t i = 0; i < 10; i++)
            push(scene.stream, i, scene.program);
        for (ti_run *run; (run = ti_stream_next(scene.stream, UINT64_MAX)); ti_run_release(run)) {
            CHECK_INT(ti_run_status(run), run->tag % 2 ? TI_FAILED : TI_COMPLETED);
            failed += ti_run_status(run) == TI_FAILED;
        }
        CHECK_INT(failed, 5);
        close_scene(&scene, 13);
    }
}

static void what_was_refused_settles_in_its_place(void)
{
    for (unsigned bits = 1; bits < 4; bits += 2) {
        tt_native native = {.call = tt_increment};
        tt_scene scene = open_scene(2, 1, &native, options_of(bits, 4));
        push(scene.stream, 1, scene.program);
        ti_run *run = tt_run_new(scene.program, 2);
        run->tag = 2;
        ti_run_refuse(run);
        CHECK_INT(ti_stream_push(scene.stream, run), TI_OK);
        push(scene.stream, 3, scene.program);
        expect(scene.stream, 1, 1);
        expect_cancelled(scene.stream, 2);
        expect(scene.stream, 3, 1);
        CHECK_INT(native.called, 2);
        close_scene(&scene, 6);
    }
}

static void next_waits_no_longer_than_it_is_told(void)
{
    for (unsigned bits = 2; bits < 4; bits++) {
        tt_gate gate = {0};
        tt_native native = {.call = pass_gate, .data = &gate};
        tt_scene scene = open_scene(1, 1, &native, options_of(bits, 4));
        push(scene.stream, GATED, scene.program);
        CHECK(!ti_stream_next(scene.stream, 0));
        CHECK(!ti_stream_next(scene.stream, 1000000));
        CHECK_INT(ti_stream_in_flight(scene.stream), 1);
        atomic_store(&gate.open, true);
        expect(scene.stream, GATED, 1);
        close_scene(&scene, 4);
    }
}

/* In a stream without order, what is stuck holds up nobody. */
static void what_settles_first_comes_first_without_order(void)
{
    tt_gate gate = {0};
    tt_native native = {.call = pass_gate, .data = &gate};
    tt_scene scene = open_scene(2, 1, &native, options_of(2, 4));
    push(scene.stream, GATED, scene.program);
    for (uint64_t i = 0; i < 100; i++) {
        push(scene.stream, i, scene.program);
        expect(scene.stream, i, 1);
    }
    atomic_store(&gate.open, true);
    expect(scene.stream, GATED, 1);
    close_scene(&scene, 6);
}

static void closing_cancels_what_is_in_flight(void)
{
    for (unsigned bits = 2; bits < 4; bits++) {
        tt_gate gate = {0};
        tt_native native = {.call = pass_gate, .data = &gate};
        tt_scene scene = open_scene(2, 1, &native, options_of(bits, 8));
        for (uint64_t i = 0; i < 8; i++)
            push(scene.stream, GATED + i, scene.program);
        while (!atomic_load(&gate.inside))
            uv_sleep(1);
        ti_stream_close(scene.stream); /* the gate is closed: it ends because they are cancelled */
        scene.stream = NULL;
        CHECK_INT(ti_engine_pending(scene.engine), 0);
        CHECK_INT(tt_compute(scene.program, 1), 2);
        CHECK(native.called <= 4);
        close_scene(&scene, 12);
    }
}

/* Nothing of a stream begins before somebody takes from it, unless it is in the background. */
static void closing_drops_what_has_not_begun(void)
{
    for (unsigned bits = 0; bits < 2; bits++) {
        tt_native native = {.call = tt_increment};
        tt_scene scene = open_scene(2, 1, &native, options_of(bits, 8));
        for (uint64_t i = 0; i < 8; i++)
            push(scene.stream, i, scene.program);
        close_scene(&scene, 8);
        CHECK_INT(native.called, 0);
    }
}

static void closing_lets_go_of_what_settled_and_was_not_taken(void)
{
    for (unsigned bits = 0; bits < 4; bits++) {
        tt_native native = {.call = tt_increment};
        tt_scene scene = open_scene(2, 1, &native, options_of(bits, 8));
        for (uint64_t i = 0; i < 8; i++)
            push(scene.stream, i, scene.program);
        ti_run_release(ti_stream_next(scene.stream, UINT64_MAX));
        while (bits & 2 && atomic_load(&native.called) < 8)
            uv_sleep(1);
        close_scene(&scene, 11);
    }
}

static void a_stream_outlives_its_program_and_engine_handles(void)
{
    for (unsigned bits = 0; bits < 4; bits++) {
        tt_native native = {.call = tt_increment};
        tt_scene scene = open_scene(2, 2, &native, options_of(bits, 3));
        for (uint64_t i = 0; i < 3; i++)
            push(scene.stream, i, scene.program);
        ti_program_release(scene.program);
        ti_engine *engine = ti_engine_retain(scene.engine);
        ti_engine_release(scene.engine);
        unsigned taken = 0;
        for (ti_run *run; (run = ti_stream_next(scene.stream, UINT64_MAX)); taken++) {
            CHECK_INT(tt_result(run), run->tag + 2);
            ti_run_release(run);
        }
        CHECK_INT(taken, 3);
        ti_stream_close(scene.stream);
        tt_close(engine, &house);
    }
}

/* What was in flight or had not begun comes out as cancelled; nothing more goes in. */
static void an_engine_that_closes_first_cancels(void)
{
    for (unsigned bits = 0; bits < 4; bits++) {
        tt_gate gate = {0};
        tt_native native = {.call = pass_gate, .data = &gate};
        tt_scene scene = open_scene(2, 1, &native, options_of(bits, 8));
        for (uint64_t i = 0; i < 6; i++)
            push(scene.stream, GATED + i, scene.program);
        ti_engine_close(scene.engine);
        check_code(scene.stream, scene.program, TI_E_CLOSED);
        unsigned taken = 0;
        for (ti_run *run; (run = ti_stream_next(scene.stream, UINT64_MAX)); taken++) {
            CHECK_INT(ti_run_status(run), TI_CANCELLED);
            if (options_of(bits, 8).ordered)
                CHECK_INT(run->tag, GATED + taken);
            CHECK(ti_load_relaxed(&run->reason));
            ti_run_release(run);
        }
        CHECK_INT(taken, 6);
        close_scene(&scene, 9);
    }
}

/* Callbacks that are short, long and short again: both ways of doing the work, and the switches. */
static void costs_may_change(void)
{
    for (unsigned bits = 0; bits < 2; bits++) {
        uint32_t long_ones = 1;
        tt_native native = {.call = uneven, .data = &long_ones};
        ti_stream_options options = options_of(bits, 16);
        tt_scene scene = open_scene(2, 1, &native, options);
        for (int round = 0; round < 6; round++) {
            long_ones = round % 2 ? 1 : 100000; /* nothing is in flight here */
            stream_all(&scene, options, ROUNDS(400), 1);
        }
        close_scene(&scene, 20);
    }
}

/* Several threads, each with streams of its own of one program; some close them in the middle. */
static void stream_and_close(void *data, unsigned index)
{
    ti_program *program = data;
    uint32_t seed = index;
    for (int round = 0; round < ROUNDS(150); round++) {
        ti_stream_options options = options_of(check_random(&seed), 1 + check_random(&seed) % 12);
        ti_stream *stream = ti_stream_open(program, &options);
        uint32_t count = check_random(&seed) % 40;
        for (uint32_t i = 0; i < count; i++) {
            if (ti_stream_in_flight(stream) < options.most)
                push(stream, i, program);
            ti_run *run = check_random(&seed) % 3 ? ti_stream_next(stream, 0) : NULL;
            if (run)
                CHECK_INT(tt_result(run), run->tag + 2);
            ti_run_release(run);
        }
        ti_stream_close(stream);
    }
}

static void streams_of_many_threads_share_a_program(void)
{
    uint32_t long_ones = 20;
    tt_native native = {.call = uneven, .data = &long_ones};
    ti_engine *engine = tt_open(&house, 3);
    ti_program *program = tt_install(engine, tt_chain(2), &native);
    check_threads(4, stream_and_close, program);
    ti_engine_close(engine);
    check_idle(engine, 4 * 13 * 150);
    ti_program_release(program);
    tt_close(engine, &house);
}

/* One thread closes the engine while others stream. */
static void stream_until_closed(void *data, unsigned index)
{
    ti_program *program = data;
    if (index == 0) {
        uv_sleep(2);
        ti_engine_close(program->engine);
        return;
    }
    ti_stream_options options = options_of(index, 8);
    ti_stream *stream = ti_stream_open(program, &options);
    ti_code code = TI_OK;
    uint64_t pushed = 0, taken = 0;
    while (code == TI_OK || ti_stream_in_flight(stream)) {
        ti_run *run = tt_run_new(program, pushed);
        code = ti_stream_push(stream, run);
        if (code == TI_OK)
            pushed++;
        else
            ti_run_release(run);
        if (code == TI_OK && ti_stream_in_flight(stream) < options.most)
            continue;
        run = ti_stream_next(stream, UINT64_MAX);
        taken += run != NULL;
        if (run)
            CHECK(ti_run_settled(run));
        ti_run_release(run);
    }
    CHECK_TEXT(ti_code_name(code), "closed");
    CHECK_INT(taken, pushed);
    ti_stream_close(stream);
}

static void an_engine_may_close_while_others_stream(void)
{
    for (int round = 0; round < ROUNDS(40); round++) {
        uint32_t long_ones = 50;
        tt_native native = {.call = uneven, .data = &long_ones};
        ti_engine *engine = tt_open(&house, 2);
        ti_program *program = tt_install(engine, tt_chain(2), &native);
        check_threads(5, stream_until_closed, program);
        check_idle(engine, 100);
        ti_program_release(program);
        tt_close(engine, &house);
    }
}

int main(void)
{
    RUN(every_run_comes_out_once_and_in_order);
    RUN(so_many_runs_exist_as_were_in_flight);
    RUN(an_empty_stream_has_nothing);
    RUN(a_failure_is_an_outcome_like_others);
    RUN(what_was_refused_settles_in_its_place);
    RUN(next_waits_no_longer_than_it_is_told);
    RUN(what_settles_first_comes_first_without_order);
    RUN(closing_cancels_what_is_in_flight);
    RUN(closing_drops_what_has_not_begun);
    RUN(closing_lets_go_of_what_settled_and_was_not_taken);
    RUN(a_stream_outlives_its_program_and_engine_handles);
    RUN(an_engine_that_closes_first_cancels);
    RUN(costs_may_change);
    RUN(streams_of_many_threads_share_a_program);
    RUN(an_engine_may_close_while_others_stream);
    return check_report();
}
