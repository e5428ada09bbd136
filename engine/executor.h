/* SPDX-License-Identifier: MIT */
/* Scheduling strategies. They share plans, runs, workers and backends, and differ in two things:
 * what becomes ready when a processor has finished, and which ready processor is taken next.
 * Results are the same under all of them; only the order of work differs.
 *
 * What lies in deques and in the inbox is a ticket: the right to run one ready processor of a run.
 * Under most strategies it is for the very node that became ready; `take` may exchange it. */
#ifndef TI_EXECUTOR_H
#define TI_EXECUTOR_H

#include "engine/run.h"

struct ti_worker;

typedef struct ti_executor {
    const char *name;

    /* Makes what the strategy needs in a run, the first time it is used there. False: no memory.
     * NULL: nothing. On the thread that starts the run. */
    bool (*prepare)(ti_run *run);

    /* A node has become ready: returns the ticket to queue for it. From here on another ticket may
     * be exchanged for the node, so the caller lets go of it. NULL: the node is its own ticket.
     * Any thread. */
    ti_node *(*queue)(ti_node *node);

    /* Exchanges a ticket for the node to run. NULL: it is the node itself. With a seat. */
    ti_node *(*take)(ti_node *ticket);

    /* A processor has finished; makes others ready with ti_worker_ready. With a seat. NULL: sends
     * an event to each of its dependents; those for which it was the last become ready. */
    void (*finished)(struct ti_worker *worker, ti_run *run, const ti_step *step);
} ti_executor;

/* By ti_strategy; a NULL ends the list. */
extern const ti_executor *const ti_executors[];
/* TI_REACTIVE for a name that is none, or NULL. */
ti_strategy ti_strategy_named(const char *name);

extern const ti_executor ti_executor_reactive;
extern const ti_executor ti_executor_work_queue;
extern const ti_executor ti_executor_level;

/* NULL is fine. */
void ti_queue_free(struct ti_queue *queue);

/* Makes a chain of nodes ready: returns the chain of their tickets, in the same order, and its end.
 */
ti_node *ti_executor_queue(ti_node *chain, ti_node **last);

#endif
