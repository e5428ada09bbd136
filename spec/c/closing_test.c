/* SPDX-License-Identifier: MIT */
/* Moments of a closing, made by hand: engine.c is part of this file, so that a test can step in
 * where a thread is about to take the engine's lock; the linker then leaves the library's own out.
 */
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

int main(void)
{
    RUN(a_note_that_comes_after_the_closing_is_dropped);
    return check_report();
}
