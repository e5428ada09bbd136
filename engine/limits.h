/* SPDX-License-Identifier: MIT */
/* Bounds on how many callbacks run at once: `max_concurrency` of one run, and named limits that all
 * runs of a program share. Nobody blocks: a processor that may not run yet waits in a list, and the
 * worker goes on.
 *
 * A processor takes all permits it needs or none, so no combination can deadlock. First come, first
 * served per limit: what a waiting processor needs is kept from those behind it. From any thread.
 */
#ifndef TI_LIMITS_H
#define TI_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/run.h"

typedef struct ti_limits ti_limits;

/* For one program. NULL: no memory. */
ti_limits *ti_limits_new(const ti_plan *plan);
void ti_limits_free(ti_limits *limits);

/* True: the node has its permits (TI_HAS_PERMIT), or its run was told to stop and it needs none.
 * False: it waits, and no longer belongs to the caller. */
bool ti_limits_acquire(ti_limits *limits, ti_node *node);

/* Gives the permits of a node back. Returns those that have theirs now as a chain, linked by
 * `next`, the first to wait first; the caller must queue them. */
ti_node *ti_limits_release(ti_limits *limits, ti_node *node);

/* Takes all nodes of a run, which was told to stop, off the list, and with them those of any other
 * such run. Returns them, and those that have their permits thanks to that, as a chain; the caller
 * must queue them. */
ti_node *ti_limits_flush(ti_limits *limits, const ti_run *run);

#endif
