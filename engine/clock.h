/* SPDX-License-Identifier: MIT */
/* The engine's clock: nanoseconds, monotonic. Tests may put it forward. */
#ifndef TI_CLOCK_H
#define TI_CLOCK_H

#include <uv.h>

#include "engine/atomics.h"

extern atomic_uint_fast64_t ti_clock_offset;

static inline uint64_t ti_now(void)
{
    return uv_hrtime() + ti_load_relaxed(&ti_clock_offset);
}

#endif
