/* SPDX-License-Identifier: MIT */
/* How a host is told that runs have settled: lists of them, and a descriptor for event loops. All
 * of it is [lock:engine]. */
#ifndef TI_SETTLED_H
#define TI_SETTLED_H

#include <uv.h>

#include "engine/run.h"

/* Settled runs, each with a reference, in the order they settled. Zeroed, it is empty. */
typedef struct ti_settled {
    ti_run *first, *last; /* linked by next_settled */
    bool awaited;         /* somebody waits for ti_engine.changed until it has one */
} ti_settled;

void ti_settled_add(ti_settled *list, ti_run *run);
/* NULL: it is empty. */
ti_run *ti_settled_take(ti_settled *list);

/* The two ends of a pipe, in which there is a byte or none. */
typedef struct ti_descriptor {
    uv_file ends[2]; /* -1: nobody has asked for it */
    bool readable;
} ti_descriptor;

#define TI_NO_DESCRIPTOR ((ti_descriptor){{-1, -1}, false})

/* The end to poll; -1: the system gives none. */
int ti_descriptor_open(ti_descriptor *descriptor, bool readable);
void ti_descriptor_signal(ti_descriptor *descriptor);
void ti_descriptor_clear(ti_descriptor *descriptor);
void ti_descriptor_close(ti_descriptor *descriptor);

#endif
