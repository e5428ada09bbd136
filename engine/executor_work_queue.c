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
    if (uv_mutex_init(&queue->lock)) {
        free(queue);
        return false;
    }
    run->queue = queue;
    return true;
}

void ti_queue_free(struct ti_queue *queue)
{
    if (!queue)
        return;
    uv_mutex_destroy(&queue->lock);
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

static void queue_node(ti_node *node)
{
    ti_run *run = node->run;
    uv_mutex_lock(&run->queue->lock);
    sift_up(run->queue, run->plan->priorities, (uint32_t)(node - run->nodes));
    uv_mutex_unlock(&run->queue->lock);
}

static ti_node *take(ti_node *ticket)
{
    ti_run *run = ticket->run;
    uv_mutex_lock(&run->queue->lock);
    uint32_t step = pop(run->queue, run->plan->priorities);
    uv_mutex_unlock(&run->queue->lock);
    return &run->nodes[step];
}

const ti_executor ti_executor_work_queue = {
    .name = "work_queue",
    .prepare = prepare,
    .queue = queue_node,
    .take = take,
    .finished = ti_executor_send_events,
};
