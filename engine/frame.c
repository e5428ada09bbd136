/* SPDX-License-Identifier: MIT */
#include "engine/frame.h"

#include <stddef.h>

static _Thread_local ti_frame *innermost;

void ti_frame_enter(ti_frame *frame, const struct ti_engine *engine)
{
    frame->engine = engine;
    frame->outer = innermost;
    innermost = frame;
}

void ti_frame_leave(const ti_frame *frame)
{
    innermost = frame->outer;
}

bool ti_frame_inside(const struct ti_engine *engine)
{
    const ti_frame *frame = innermost;
    while (frame && frame->engine != engine)
        frame = frame->outer;
    return frame != NULL;
}
