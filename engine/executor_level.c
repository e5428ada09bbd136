/* SPDX-License-Identifier: MIT */
/* level: a barrier after each rank. Steps stand by rank, so a level is a range of them, and when
 * the last of a level has finished, all of the next one is ready: their dependencies have lower
 * ranks. */
#include "engine/executor.h"
#include "engine/worker.h"

/* Makes the level that begins at `first` the current one; returns its end. Only one worker is here
 * at a time: the one that finished the level before. */
static uint32_t open_level(ti_run *run, uint32_t first)
{
    const ti_plan *plan = run->plan;
    uint32_t end = first;
    while (end < plan->count && plan->steps[end].rank == plan->steps[first].rank)
        end++;
    run->level_end = end;
    ti_store_release(&run->level_left, end - first);
    return end;
}

static bool prepare(ti_run *run)
{
    open_level(run, 0);
    return true;
}

static void finished(ti_worker *worker, ti_run *run, const ti_step *step)
{
    (void)step;
    if (ti_sub_acq_rel(&run->level_left, 1) != 1)
        return;
    uint32_t first = run->level_end;
    if (first == run->plan->count)
        return;
    for (uint32_t i = first, end = open_level(run, first); i < end; i++)
        ti_worker_ready(worker, &run->nodes[i]);
}

const ti_executor ti_executor_level = {
    .name = "level",
    .prepare = prepare,
    .finished = finished,
};
