/* SPDX-License-Identifier: MIT */
/* A random DAG with callbacks that do as it says, and the check of what a run made of it. */
#ifndef TRIAL_H
#define TRIAL_H

#include "graph.h"
#include "native.h"

enum { TRIAL_INPUT = 12345 };

/* A graph, what must come of it, and how to call it. */
typedef struct tt_trial {
    tt_graph graph;
    tt_outcome outcomes[GRAPH_MOST], whole;
    tt_native native;
    uint32_t delay; /* at most so many ns per callback, by chance */
    atomic_uint seed;
} tt_trial;

/* To be freed. */
tt_trial *trial_new(uint32_t *seed, ti_failure_strategy strategy, uint32_t delay_ns);

/* A settled run that nobody cancelled. */
void trial_check(const tt_trial *trial, ti_run *run);

/* One that somebody may have cancelled: what has completed, failed or been skipped is as it would
 * have been otherwise. */
void trial_check_cut(const tt_trial *trial, ti_run *run);

/* How often a run that nothing cuts short calls back. */
uint32_t trial_calls(const tt_trial *trial);

#endif
