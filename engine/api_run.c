/* SPDX-License-Identifier: MIT */
/* Runs of the C interface. */
#include <string.h>

#include "engine/api.h"

const char *tide_status_name(tide_status status)
{
    return (unsigned)status <= TIDE_CANCELLED ? ti_status_name((ti_status)status) : "unknown";
}

/* False, with an error: it is no map with strings that are no ids as keys. */
static bool check_metadata(const ti_plan *plan, const ti_cell *metadata, tide_error **error)
{
    bool empty = metadata->kind == TI_ARRAY && metadata->size == 0;
    if (metadata->kind != TI_MAP && !empty) {
        ti_api_fail_format(error, TI_E_INVALID_PAYLOAD, "metadata must be a map");
        return false;
    }
    for (size_t i = 0; i < metadata->size; i++) {
        const ti_cell *key = &ti_cell_items(metadata)[2 * i];
        if (key->kind != TI_STRING) {
            ti_api_fail_format(error, TI_E_INVALID_PAYLOAD, "the keys of metadata must be strings");
            return false;
        }
        if (ti_plan_find(plan, ti_cell_string(key), key->size) != TI_NONE) {
            ti_api_fail_format(error, TI_E_INVALID_PAYLOAD,
                               "metadata.%s has the name of a processor; choose another key",
                               ti_cell_string(key));
            return false;
        }
    }
    return true;
}

/* Into what the DAG says, which is there already. */
static bool read_options(const ti_plan *plan, const tide_run_options *options, ti_run_options *into,
                         tide_error **error)
{
    if (options->metadata && !check_metadata(plan, &ti_value_in(options->metadata)->root, error))
        return false;
    if (!(options->timeout >= 0 && options->timeout <= 1e9))
        ti_api_misuse(error, "timeout is no number of seconds");
    else if ((unsigned)options->strategy > TIDE_LEVEL)
        ti_api_misuse(error, "strategy is none of tide_strategy");
    else {
        if (options->timeout > 0)
            into->timeout = (uint64_t)(options->timeout * 1e9) + 1;
        if (options->strategy != TIDE_STRATEGY_DEFAULT)
            into->strategy = (ti_strategy)(options->strategy - 1);
        if (options->profile)
            into->profile = options->profile > 0;
        return true;
    }
    return false;
}

static ti_run *make(ti_program *program, ti_value *payload, const tide_run_options *from,
                    tide_error **error)
{
    tide_run_options options = TIDE_RUN_OPTIONS;
    ti_run_options into = ti_run_defaults(program->plan);
    if (from && !ti_api_read(&options, sizeof options, from, "tide_run_options", error))
        return NULL;
    if (!read_options(program->plan, &options, &into, error))
        return NULL;
    if (ti_engine_closed(program->engine)) {
        ti_api_fail_code(error, TI_E_CLOSED);
        return NULL;
    }
    ti_run *run = ti_run_new(program, ti_value_retain(payload),
                             ti_value_retain(ti_value_in(options.metadata)), &into);
    if (!run) {
        ti_api_fail_format(error, TI_E_MEMORY_LIMIT, "not enough memory for a run");
        return NULL;
    }
    if (options.notify)
        ti_engine_subscribe(program->engine, run);
    run->tag = (uint64_t)(uintptr_t)options.tag;
    return run;
}

ti_run *ti_api_run_new(ti_program *program, ti_value *payload, const tide_run_options *options,
                       tide_error **error)
{
    ti_run *run = NULL;
    if (!program)
        ti_api_misuse(error, "a run needs a dag");
    else if (!payload)
        ti_api_fail_format(error, TI_E_MEMORY_LIMIT, "there was no memory for the payload");
    else
        run = make(program, payload, options, error);
    ti_value_release(payload);
    return run;
}

tide_result *tide_dag_run(tide_dag *dag, tide_value *payload, const tide_run_options *options,
                          tide_error **error)
{
    if (dag && !ti_api_may_wait(ti_dag_in(dag)->engine, "tide_dag_run", error)) {
        tide_value_release(payload);
        return NULL;
    }
    ti_run *run = ti_api_run_new(ti_dag_in(dag), ti_value_in(payload), options, error);
    if (!run)
        return NULL;
    run->signals = run->listed = false; /* who waits for it is told by that */
    ti_code code = ti_engine_run(run->program->engine, run);
    if (!code)
        return ti_result_out(run);
    ti_run_release(run);
    ti_api_fail_code(error, code);
    return NULL;
}

tide_run *tide_dag_start(tide_dag *dag, tide_value *payload, const tide_run_options *options,
                         tide_error **error)
{
    ti_run *run = ti_api_run_new(ti_dag_in(dag), ti_value_in(payload), options, error);
    if (!run)
        return NULL;
    ti_code code = ti_engine_start(run->program->engine, run);
    if (!code)
        return ti_run_out(run);
    ti_run_release(run);
    ti_api_fail_code(error, code);
    return NULL;
}

tide_run *tide_run_retain(tide_run *run)
{
    return run ? ti_run_out(ti_run_retain(ti_run_in(run))) : NULL;
}

void tide_run_release(tide_run *run)
{
    ti_run_release(ti_run_in(run));
}

tide_result *tide_run_wait(tide_run *handle, double seconds, tide_error **error)
{
    ti_run *run = ti_run_in(handle);
    if (!run) {
        ti_api_misuse(error, "tide_run_wait needs a run");
        return NULL;
    }
    ti_engine *engine = run->program->engine;
    uint64_t patience = ti_api_patience(seconds);
    if (!ti_run_settled(run) && patience) {
        if (!ti_api_may_wait(engine, "tide_run_wait", error))
            return NULL;
        ti_engine_wait(engine, run, patience);
    }
    if (ti_run_settled(run))
        return ti_result_out(ti_run_retain(run));
    if (patience == UINT64_MAX) /* the process was forked */
        ti_api_fail_code(error, TI_E_CLOSED);
    else
        ti_api_fail_format(error, TI_E_TIMEOUT, "the run has not settled after %g s", seconds);
    return NULL;
}

bool tide_run_cancel(tide_run *run, const char *reason)
{
    return run && ti_run_cancel(ti_run_in(run), reason, reason ? strlen(reason) : 0);
}

tide_status tide_run_status(tide_run *run)
{
    return run ? (tide_status)ti_run_status(ti_run_in(run)) : TIDE_CANCELLED;
}

void *tide_run_tag(const tide_run *run)
{
    return run ? (void *)(uintptr_t)ti_run_in(run)->tag : NULL;
}
