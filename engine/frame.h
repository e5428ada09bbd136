/* SPDX-License-Identifier: MIT */
/* A host's open, close and drop, which run without a seat: while one is on a thread's stack, that
 * thread must not wait for the engine it belongs to. (With a seat, ti_preempt_sits knows.) */
#ifndef TI_FRAME_H
#define TI_FRAME_H

#include <stdbool.h>

struct ti_engine;

/* On the stack of the thread, from enter to leave. */
typedef struct ti_frame {
    const struct ti_engine *engine;
    struct ti_frame *outer;
} ti_frame;

void ti_frame_enter(ti_frame *frame, const struct ti_engine *engine);
void ti_frame_leave(const ti_frame *frame);

bool ti_frame_inside(const struct ti_engine *engine);

#endif
