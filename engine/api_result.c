/* SPDX-License-Identifier: MIT */
/* Results of the C interface: settled runs, and what became of each processor. */
#include <stdio.h>
#include <string.h>

#include "engine/api.h"

static const ti_text none = {NULL, 0};

tide_result *tide_result_retain(tide_result *result)
{
    return result ? ti_result_out(ti_run_retain(ti_result_in(result))) : NULL;
}

void tide_result_release(tide_result *result)
{
    ti_run_release(ti_result_in(result));
}

tide_status tide_result_status(const tide_result *result)
{
    return result ? (tide_status)ti_run_status(ti_result_in(result)) : TIDE_CANCELLED;
}

/* What kept the processors of a run from running that was told to stop. */
static ti_error *make_reason(const ti_run *run, ti_code code)
{
    const ti_value *reason = ti_load_acquire(&run->reason);
    if (run->verdict == TI_STOP_TIMEOUT)
        return ti_error_format(code, "the run took longer than %g s", (double)run->timeout / 1e9);
    if (run->verdict != TI_STOP_CANCELLED)
        return ti_error_format(code, "another processor of the run failed");
    return ti_error_format(code, "the run was cancelled%s%s", reason ? ": " : "",
                           reason ? ti_cell_string(&reason->root) : "");
}

tide_error *tide_result_error(const tide_result *result)
{
    tide_status status = tide_result_status(result);
    const ti_run *run = ti_result_in(result);
    if (!run || status == TIDE_COMPLETED)
        return NULL;
    if (status == TIDE_FAILED)
        return tide_outcome_error(tide_result_next_failure(result, NULL));
    ti_code code = run->verdict == TI_STOP_TIMEOUT ? TI_E_TIMEOUT : TI_E_CANCELLED;
    return ti_api_error_new((tide_code)code, make_reason(run, code), none, none);
}

const tide_value *tide_result_payload(const tide_result *result)
{
    const ti_run *run = ti_result_in(result);
    return run ? ti_value_out(ti_run_value(run, ti_run_source(run))) : NULL;
}

const tide_value *tide_result_metadata(const tide_result *result, const char *id)
{
    return tide_outcome_metadata(tide_result_outcome(result, id));
}

const tide_value *tide_result_input_metadata(const tide_result *result)
{
    return result ? ti_value_out(ti_result_in(result)->metadata) : NULL;
}

void *tide_result_tag(const tide_result *result)
{
    return result ? (void *)(uintptr_t)ti_result_in(result)->tag : NULL;
}

double tide_result_duration(const tide_result *result)
{
    const ti_run *run = ti_result_in(result);
    return run && run->profile ? (double)(run->ended - run->began) / 1e9 : -1;
}

const tide_outcome *tide_result_outcome(const tide_result *result, const char *id)
{
    const ti_run *run = ti_result_in(result);
    uint32_t step = run && id ? ti_plan_find(run->plan, id, strlen(id)) : TI_NONE;
    return step == TI_NONE ? NULL : ti_outcome_out(&run->nodes[step]);
}

size_t tide_result_count(const tide_result *result)
{
    return result ? ti_result_in(result)->plan->count : 0;
}

const tide_outcome *tide_result_at(const tide_result *result, size_t index)
{
    return index < tide_result_count(result) ? ti_outcome_out(&ti_result_in(result)->nodes[index])
                                             : NULL;
}

static uint32_t step_of(const ti_node *node)
{
    return (uint32_t)(node - node->run->nodes);
}

static ti_text id_of(const ti_node *node)
{
    return ti_plan_id(node->run->plan, step_of(node));
}

const tide_outcome *tide_result_next_failure(const tide_result *result, const tide_outcome *outcome)
{
    const ti_run *run = ti_result_in(result);
    if (!run)
        return NULL;
    uint32_t step = ti_run_next_failure(run, outcome ? step_of(ti_outcome_in(outcome)) + 1 : 0);
    return step == TI_NONE ? NULL : ti_outcome_out(&run->nodes[step]);
}

const char *tide_outcome_id(const tide_outcome *outcome)
{
    return outcome ? id_of(ti_outcome_in(outcome)).bytes : NULL;
}

tide_status tide_outcome_status(const tide_outcome *outcome)
{
    return outcome ? (tide_status)ti_outcome_in(outcome)->status : TIDE_WAITING;
}

uint32_t tide_outcome_attempts(const tide_outcome *outcome)
{
    return outcome ? ti_outcome_in(outcome)->attempts : 0;
}

const tide_value *tide_outcome_payload(const tide_outcome *outcome)
{
    const ti_node *node = ti_outcome_in(outcome);
    return node && node->status == TI_COMPLETED ? ti_value_out(node->payload) : NULL;
}

const tide_value *tide_outcome_passed(const tide_outcome *outcome)
{
    const ti_node *node = ti_outcome_in(outcome);
    return node ? ti_value_out(ti_run_value(node->run, node->source)) : NULL;
}

const tide_value *tide_outcome_metadata(const tide_outcome *outcome)
{
    const ti_node *node = ti_outcome_in(outcome);
    return node && node->status == TI_COMPLETED ? ti_value_out(node->metadata) : NULL;
}

/* Of a processor that an ancestor's failure kept from running. */
static tide_error *skipped_error(const ti_node *node)
{
    ti_text root = ti_plan_id(node->run->plan, node->root);
    ti_error *record =
        ti_error_format(TI_E_DEPENDENCY_FAILED, "not run, because '%s' failed", root.bytes);
    return ti_api_error_new(TIDE_E_DEPENDENCY_FAILED, record, id_of(node), root);
}

tide_error *tide_outcome_error(const tide_outcome *outcome)
{
    const ti_node *node = ti_outcome_in(outcome);
    if (!node)
        return NULL;
    if (node->status == TI_FAILED)
        return ti_api_error_copy(node->error, id_of(node));
    if (node->status == TI_SKIPPED)
        return node->root == TI_NONE ? NULL : skipped_error(node);
    if (node->status == TI_CANCELLED)
        return ti_api_error_new(TIDE_E_CANCELLED, make_reason(node->run, TI_E_CANCELLED),
                                id_of(node), none);
    return NULL;
}

/* NULL: it was not profiled, or never ran. */
static const ti_times *times_of(const tide_outcome *outcome)
{
    const ti_node *node = ti_outcome_in(outcome);
    return node && node->run->profile && node->attempts ? &node->run->times[step_of(node)] : NULL;
}

double tide_outcome_started(const tide_outcome *outcome)
{
    const ti_times *times = times_of(outcome);
    return times ? (double)times->started / 1e9 : -1;
}

double tide_outcome_finished(const tide_outcome *outcome)
{
    const ti_times *times = times_of(outcome);
    return times ? (double)times->finished / 1e9 : -1;
}
