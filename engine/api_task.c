/* SPDX-License-Identifier: MIT */
/* What a processor in C may ask about its call. */
#include <string.h>

#include "engine/api.h"
#include "engine/native.h"
#include "engine/worker.h"

const tide_value *tide_task_payload(const tide_task *task)
{
    return ti_value_out(task->task->payload);
}

const char *tide_task_id(const tide_task *task)
{
    return ti_plan_id(task->task->run->plan, task->task->index).bytes;
}

const tide_value *tide_task_options(const tide_task *task)
{
    return ti_value_out(task->options);
}

uint32_t tide_task_attempt(const tide_task *task)
{
    return task->task->node->attempts;
}

uint32_t tide_task_worker(const tide_task *task)
{
    return task->worker->index;
}

bool tide_task_cancelled(const tide_task *task)
{
    return ti_worker_must_stop(task->worker);
}

double tide_task_remaining(const tide_task *task)
{
    return ti_worker_time_left(task->worker);
}

const tide_value *tide_task_metadata(const tide_task *task, const char *id)
{
    const ti_run *run = task->task->run;
    uint32_t step = id ? ti_plan_find(run->plan, id, strlen(id)) : TI_NONE;
    if (step == TI_NONE || !ti_native_is_ancestor(task, step))
        return NULL; /* another processor may be writing there */
    return tide_outcome_metadata(ti_outcome_out(&run->nodes[step]));
}

const tide_value *tide_task_input_metadata(const tide_task *task)
{
    return ti_value_out(task->task->run->metadata);
}

const tide_outcome *tide_task_dependency_at(const tide_task *task, size_t index)
{
    const ti_step *step = task->task->step;
    const ti_run *run = task->task->run;
    if (index >= step[1].first_dependency - step[0].first_dependency)
        return NULL;
    return ti_outcome_out(&run->nodes[run->plan->dependencies[step[0].first_dependency + index]]);
}

const tide_outcome *tide_task_dependency(const tide_task *task, const char *id)
{
    const tide_outcome *outcome;
    for (size_t i = 0; id && (outcome = tide_task_dependency_at(task, i)); i++)
        if (strcmp(tide_outcome_id(outcome), id) == 0)
            return outcome;
    return NULL;
}
