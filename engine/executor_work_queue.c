/* SPDX-License-Identifier: MIT */
/* work_queue: of all that is ready in a run, the processor with the longest way to go runs next, a
 * transform before an analyze, then the one declared first. One binary heap per run holds the ready
 * steps; it has as many entries as there are tickets. */
#include <stdlib.h>
#include <uv.h>

#include "engine/executor.h"
#include "engine/worker.h"

struct ti_queue {
    uv_mutex_t lock;
    uint32_t count;   /* [lock:queue] */
    ti_node *spare;   /* [lock:queue] tickets that stand for no node */
    ti_node *tickets; /* [const] as many as steps; of each only `run` and `next` are used */
    uint32_t steps[]; /* [lock:queue] a heap: the least priority first */
};

static bool prepare(ti_run *run)
{
    if (run->queue)
        return true;
    struct ti_queue *queue = malloc(sizeof *queue + run->plan->count * sizeof *queue->steps);
    if (!queue)
        return false;
    queue->count = 0;
    queue->spare = NULL;
    queue->tickets = malloc(run->plan->count * sizeof *queue->tickets);
    if (!queue->tickets || uv_mutex_init(&queue->lock)) {
        free(queue->tickets);
        free(queue);
        return false;
    }
    for (uint32_t i = 0; i < run->plan->count; i++) {
        queue->tickets[i].run = run;
        queue->tickets[i].next = queue->spare;
        queue->spare = &queue->tickets[i];
    }
    run->queue = queue;
    return true;
}

void ti_queue_free(struct ti_queue *queue)
{
    if (!queue)
        return;
    uv_mutex_destroy(&queue->lock);
    free(queue->tickets);
    free(queue);
}

static void sift_up(struct ti_queue *queue, const uint32_t *priorities, uint32_t step)
{
    uint32_t at = queue->count++;
    for (; at > 0; at = (at - 1) / 2) {
        uint32_t parent = queue->steps[(at - 1) / 2];
        if (priorities[parent] < priorities[step])
            break;
        queue->steps[at] = parent;
    }
    queue->steps[at] = step;
}

static uint32_t pop(struct ti_queue *queue, const uint32_t *priorities)
{
    uint32_t first = queue->steps[0], last = queue->steps[--queue->count], at = 0;
    for (uint32_t child; (child = 2 * at + 1) < queue->count; at = child) {
        uint32_t other = child + 1;
        if (other < queue->count &&
            priorities[queue->steps[other]] < priorities[queue->steps[child]])
            child = other;
        if (priorities[last] < priorities[queue->steps[child]])
            break;
        queue->steps[at] = queue->steps[child];
    }
    queue->steps[at] = last;
    return first;
}

static ti_node *queue_node(ti_node *node)
{
    ti_run *run = node->run;
    uv_mutex_lock(&run->queue->lock);
    sift_up(run->queue, run->plan->priorities, (uint32_t)(node - run->nodes));
    ti_node *ticket = run->queue->spare;
    run->queue->spare = ticket->next;
    uv_mutex_unlock(&run->queue->lock);
    return ticket;
}

static ti_node *take(ti_node *ticket)
{
    ti_run *run = ticket->run;
    uv_mutex_lock(&run->queue->lock);
    uint32_t step = pop(run->queue, run->plan->priorities);
    ticket->next = run->queue->spare;
    run->queue->spare = ticket;
    uv_mutex_unlock(&run->queue->lock);
    return &run->nodes[step];
}

const ti_executor ti_executor_work_queue = {
    .name = "work_queue",
    .prepare = prepare,
    .queue = queue_node,
    .take = take,
};
