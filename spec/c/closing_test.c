/* SPDX-License-Identifier: MIT */
/* Moments of a closing, made by hand: engine.c is part of this file, so that a test can step in
 * where a thread is about to take the engine's lock; the linker then leaves the library's own out.
 */
#include <signal.h>
#include <uv.h>

/* What the calling thread does, once, before it next takes the lock. */
static _Thread_local void (*before_lock)(void);

static void step_in(void)
{
    void (*work)(void) = before_lock;
    before_lock = NULL;
    if (work)
        work();
}

#define uv_mutex_lock(m) (step_in(), (uv_mutex_lock)(m))

#include "engine/engine.c" /* NOLINT */

#include "check.h"
#include "native.h"

static tt_house house;

static struct {
    ti_engine *engine;
    ti_worker *seat;
} scene;

static void leave_and_close(void)
{
    ti_engine_leave(scene.engine, scene.seat);
    ti_engine_close(scene.engine);
}

/* A program is released; its seat is taken, and the engine not closing. Before the note is written,
 * the engine has closed. */
static void a_note_that_comes_after_the_closing_is_dropped(void)
{
    tt_native natives[2] = {{.call = tt_pass}, {.call = tt_pass}};
    scene.engine = tt_open(&house, 1);
    scene.seat = ti_engine_claim(scene.engine, 0);
    ti_program *early = tt_install(scene.engine, tt_chain(1), &natives[0]);
    ti_program *late = tt_install(scene.engine, tt_chain(1), &natives[1]);
    ti_program_release(early); /* a note for the seat: its list has room for more now */
    before_lock = leave_and_close;
    ti_program_release(late);
    CHECK_INT(natives[0].forgotten, 1);
    tt_close(scene.engine, &house);
}

static atomic_uint closed, open_to_signals;

static void *open_nothing(void *shared, uint32_t worker, ti_error **error)
{
    (void)worker, (void)error;
    return shared;
}

static void look_at_signals(void *context)
{
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    atomic_fetch_add(&open_to_signals, !sigismember(&blocked, SIGTERM));
    atomic_fetch_add((atomic_uint *)context, 1);
}

/* One that is made for the closing, as who lets go must not wait. */
static void a_thread_that_closes_leaves_signals_to_the_host(void)
{
    static const ti_backend backend = {
        .name = "none", .open = open_nothing, .close = look_at_signals};
    const ti_backend_choice choice = {&backend, &closed};
    ti_frame frame;
    ti_error *error = NULL;
    ti_engine *engine = tt_try_open(2, &choice, 1, &error);
    REQUIRE(engine);
    ti_frame_enter(&frame, engine);
    ti_engine_release(engine);
    ti_frame_leave(&frame);
    while (atomic_load(&closed) < 2)
        uv_sleep(1);
    CHECK_INT(open_to_signals, 0);
}

int main(void)
{
    RUN(a_note_that_comes_after_the_closing_is_dropped);
    RUN(a_thread_that_closes_leaves_signals_to_the_host);
    return check_report();
}
