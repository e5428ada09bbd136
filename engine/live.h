/* SPDX-License-Identifier: MIT */
/* How much lives, for tests; counted in all engines of the process, where asserts are on. */
#ifndef TI_LIVE_H
#define TI_LIVE_H

#include "engine/atomics.h"

typedef enum ti_living {
    TI_LIVE_VALUES, /* on the heap */
    TI_LIVE_BLOCKS, /* of packed ones */
    TI_LIVE_RUNS,
    TI_LIVE_PROGRAMS,
    TI_LIVE_ENGINES
} ti_living;

#ifdef NDEBUG
#define ti_live_add(kind, count) ((void)0)
#else
extern atomic_int ti_live[TI_LIVE_ENGINES + 1]; /* [atomic] in value.c */
#define ti_live_add(kind, count) ((void)ti_add_relaxed(&ti_live[kind], (count)))
#endif

#endif
