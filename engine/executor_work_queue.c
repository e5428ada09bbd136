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
    uint32_t *steps;  /* [lock:queue] a heap: first the one that runs next */
    uint32_t ways[];  /* [const] of each step, the longest way to go: in processors after it */
};

static void measure_ways(const ti_plan *plan, uint32_t *ways)
{
    for (uint32_t s = plan->count; s-- > 0;) {
        ways[s] = 0;
        for (uint32_t k = plan->steps[s].first_dependent; k < plan->steps[s + 1].first_dependent;
             k++)
            if (ways[plan->dependents[k]] + 1 > ways[s])
                ways[s] = ways[plan->dependents[k]] + 1;
    }
}

static bool prepare(ti_run *run)
{
    if (run->queue)
        return true;
    size_t count = run->plan->count;
    struct ti_queue *queue = malloc(sizeof *queue + 2 * count * sizeof *queue->ways);
    if (!queue)
        return false;
    queue->steps = queue->ways + count;
    measure_ways(run->plan, queue->ways);
    queue->count = 0;
    queue->spare = NULL;
    queue->tickets = malloc(count * sizeof *queue->tickets);
    if (!queue->tickets || uv_mutex_init(&queue->lock)) {
        free(queue->tickets);
        free(queue);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
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

static bool runs_before(const ti_run *run, uint32_t a, uint32_t b)
{
    const uint32_t *ways = run->queue->ways;
    const ti_step *one = &run->plan->steps[a], *other = &run->plan->steps[b];
    if (ways[a] != ways[b])
        return ways[a] > ways[b];
    if (one->intent != other->intent)
        return one->intent == TI_TRANSFORM;
    return one->slot < other->slot;
}

static void sift_up(const ti_run *run, uint32_t step)
{
    struct ti_queue *queue = run->queue;
    uint32_t at = queue->count++;
    for (; at > 0; at = (at - 1) / 2) {
        uint32_t parent = queue->steps[(at - 1) / 2];
        if (runs_before(run, parent, step))
            break;
        queue->steps[at] = parent;
    }
    queue->steps[at] = step;
}

static uint32_t pop(const ti_run *run)
{
    struct ti_queue *queue = run->queue;
    uint32_t first = queue->steps[0], last = queue->steps[--queue->count], at = 0;
    for (uint32_t child; (child = 2 * at + 1) < queue->count; at = child) {
        uint32_t other = child + 1;
        if (other < queue->count && runs_before(run, queue->steps[other], queue->steps[child]))
            child = other;
        if (runs_before(run, last, queue->steps[child]))
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
    sift_up(run, (uint32_t)(node - run->nodes));
    ti_node *ticket = run->queue->spare;
    run->queue->spare = ticket->next;
    uv_mutex_unlock(&run->queue->lock);
    return ticket;
}

static ti_node *take(ti_node *ticket)
{
    ti_run *run = ticket->run;
    uv_mutex_lock(&run->queue->lock);
    uint32_t step = pop(run);
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
