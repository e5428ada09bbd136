/* SPDX-License-Identifier: MIT */
#include "engine/run.h"

#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/executor.h"
#include "engine/limits.h"
#include "engine/live.h"

static const char *const status_names[] = {
    "waiting", "ready", "running", "completed", "failed", "skipped", "cancelled",
};

const char *ti_status_name(ti_status status)
{
    return status_names[status];
}

uint64_t ti_program_new_key(void)
{
    static atomic_uint_fast64_t keys;
    return ti_add_relaxed(&keys, 1) + 1;
}

ti_program *ti_program_new(ti_engine *engine, ti_plan *plan, uint64_t key)
{
    ti_program *program = malloc(sizeof *program + plan->count);
    if (!program) {
        ti_plan_release(plan);
        return NULL;
    }
    *program = (ti_program){
        .engine = ti_engine_retain(engine),
        .plan = plan,
        .key = key,
    };
    atomic_init(&program->references, 1);
    bool bounded = plan->max_concurrency && plan->max_concurrency < engine->workers;
    if ((bounded || plan->limit_count) && !(program->limits = ti_limits_new(plan))) {
        ti_engine_release(engine);
        ti_plan_release(plan);
        free(program);
        return NULL;
    }
    ti_live_add(TI_LIVE_PROGRAMS, 1);
    for (uint32_t i = 0; i < plan->count; i++)
        atomic_init(&program->heavy[i], TI_HEAVY_AT_FIRST);
    return program;
}

ti_program *ti_program_retain(ti_program *program)
{
    ti_add_relaxed(&program->references, 1);
    return program;
}

void ti_program_release(ti_program *program)
{
    if (!program || !ti_drop_reference(&program->references) || ti_engine_forked(program->engine))
        return;
    ti_engine_forget(program->engine, program->key);
    ti_run *run = ti_exchange_sc(&program->spare, NULL);
    if (run)
        ti_run_destroy(run);
    while ((run = ti_engine_pop_idle(program->engine, program)))
        ti_run_destroy(run);
    ti_limits_free(program->limits);
    ti_plan_release(program->plan);
    ti_engine_release(program->engine);
    ti_live_add(TI_LIVE_PROGRAMS, -1);
    free(program);
}

static void reset_node(ti_node *node, uint32_t indegree)
{
    node->payload = NULL;
    node->metadata = NULL;
    ti_store_relaxed(&node->pending, indegree);
    node->source = 0;
    node->root = TI_NONE;
    node->status = TI_WAITING;
    node->flags = 0;
    node->attempts = 0;
}

static ti_run *allocate(ti_program *program)
{
    const ti_plan *plan = program->plan;
    ti_run *run = aligned_alloc(TI_CACHE_LINE, sizeof *run);
    if (!run)
        return NULL;
    *run = (ti_run){.program = program, .plan = plan};
    atomic_init(&run->references, 1);
    run->nodes = malloc(plan->count * sizeof *run->nodes);
    run->attempts = plan->retries ? calloc(plan->count, sizeof *run->attempts) : NULL;
    if (!run->nodes || (plan->retries && !run->attempts)) {
        free(run->nodes);
        free(run->attempts);
        free(run);
        return NULL;
    }
    run->bounded = program->limits != NULL;
    ti_blocks_open(&run->blocks, plan->count);
    for (uint32_t i = 0; i < plan->count; i++) {
        run->nodes[i].run = run;
        if (run->attempts)
            run->attempts[i].node = &run->nodes[i];
        atomic_init(&run->nodes[i].pending, 0);
        reset_node(&run->nodes[i], ti_plan_indegree(plan, i));
    }
    ti_engine_enlist(program->engine, run);
    ti_live_add(TI_LIVE_RUNS, 1);
    return run;
}

static ti_run *reuse(ti_program *program)
{
    ti_run *run = ti_load_relaxed(&program->spare) ? ti_exchange_sc(&program->spare, NULL) : NULL;
    return run ? run : ti_engine_pop_idle(program->engine, program);
}

ti_run_options ti_run_defaults(const ti_plan *plan)
{
    return (ti_run_options){plan->profile, plan->strategy, plan->timeout};
}

/* What this execution needs besides nodes. */
static bool equip(ti_run *run, const ti_run_options *options)
{
    size_t bytes = run->plan->count * sizeof *run->times;
    run->executor = ti_executors[options->strategy];
    if (options->profile && !run->times && !(run->times = malloc(bytes)))
        return false;
    if (options->profile)
        memset(run->times, 0, bytes);
    return !run->executor->prepare || run->executor->prepare(run);
}

ti_run *ti_run_new(ti_program *program, ti_value *input, ti_value *metadata,
                   const ti_run_options *options)
{
    ti_run *run = reuse(program);
    if (!run)
        run = allocate(program);
    if (run && !equip(run, options)) {
        ti_engine_push_idle(program->engine, program, run);
        run = NULL;
    }
    if (!run) {
        ti_value_release(input);
        ti_value_release(metadata);
        return NULL;
    }
    ti_program_retain(program);
    run->input = input;
    run->metadata = metadata;
    run->profile = options->profile;
    run->signals = run->listed = run->held = false;
    run->group = run;
    run->timeout = options->timeout;
    run->slots = program->plan->max_concurrency ? program->plan->max_concurrency : UINT32_MAX / 2;
    run->slot_waiters = 0;
    ti_store_relaxed(&run->remaining, program->plan->count);
    ti_store_relaxed(&run->bytes, 0);
    ti_store_relaxed(&run->references, 1);
    return run;
}

ti_run *ti_run_retain(ti_run *run)
{
    ti_add_relaxed(&run->references, 1);
    return run;
}

bool ti_run_retain_live(ti_run *run)
{
    unsigned count = ti_load_relaxed(&run->references);
    while (count && !ti_cas_sc(&run->references, &count, count + 1))
        ;
    return count > 0;
}

static void clear_node(ti_node *node)
{
    if (node->flags & TI_OWNS_PAYLOAD)
        ti_value_release(node->payload);
    if (node->flags & TI_OWNS_METADATA)
        ti_value_release(node->metadata);
    if (node->status == TI_FAILED)
        ti_error_free(node->error);
}

static void clear(ti_run *run)
{
    const ti_plan *plan = run->plan;
    for (uint32_t i = 0; i < plan->count; i++) {
        clear_node(&run->nodes[i]);
        if (run->attempts) {
            ti_error_free(run->attempts[i].errors);
            run->attempts[i].errors = NULL;
        }
        reset_node(&run->nodes[i], ti_plan_indegree(plan, i));
    }
    ti_blocks_clear(&run->blocks);
    ti_value_release(run->input);
    ti_value_release(run->metadata);
    if (ti_load_relaxed(&run->reason))
        ti_value_release(ti_exchange_sc(&run->reason, NULL));
    run->input = run->metadata = NULL;
    ti_store_relaxed(&run->stop, TI_GO);
    ti_store_relaxed(&run->failed, 0);
    ti_store_relaxed(&run->phase, TI_IDLE);
}

/* True: that was the last reference, and it is idle now. */
static bool let_go(ti_run *run)
{
    /* Down to zero in earnest, for ti_run_retain_live. */
    if (ti_sub_acq_rel(&run->references, 1) != 1 || ti_engine_forked(run->program->engine))
        return false;
    clear(run);
    run->next_idle = NULL;
    return true;
}

void ti_run_release(ti_run *run)
{
    if (!run || !let_go(run))
        return;
    ti_program *program = run->program;
    ti_run *before = ti_exchange_sc(&program->spare, run);
    if (before)
        ti_engine_push_idle(program->engine, program, before);
    ti_program_release(program);
}

/* Idle runs of one program, linked, with the reference that each has to it. */
static void put_back(ti_run *runs, uint32_t count)
{
    ti_program *program = runs->program;
    ti_engine_push_idle(program->engine, program, runs);
    ti_sub_acq_rel(&program->references, count - 1);
    ti_program_release(program);
}

void ti_run_release_all(ti_run **runs, uint32_t count)
{
    ti_run *idle = NULL;
    uint32_t idles = 0;
    for (uint32_t i = 0; i < count; i++) {
        ti_run *run = runs[i];
        if (!run || !let_go(run))
            continue;
        if (idle && idle->program != run->program) {
            put_back(idle, idles);
            idle = NULL;
            idles = 0;
        }
        run->next_idle = idle;
        idle = run;
        idles++;
    }
    if (idle)
        put_back(idle, idles);
}

void ti_run_destroy(ti_run *run)
{
    ti_engine_delist(run->program->engine, run);
    ti_value_release(ti_load_relaxed(&run->reason)); /* of a cancel that came as it settled */
    ti_queue_free(run->queue);
    free(run->attempts);
    free(run->times);
    free(run->nodes);
    ti_blocks_free(&run->blocks);
    ti_live_add(TI_LIVE_RUNS, -1);
    free(run);
}

ti_node *ti_run_entries(ti_run *run, ti_node *rest)
{
    for (uint32_t i = 0; i < run->plan->entries; i++) {
        run->nodes[i].next = rest;
        rest = &run->nodes[i];
    }
    return rest;
}

bool ti_run_stop(ti_run *run, ti_stop stop, const char *reason, size_t size)
{
    unsigned phase = ti_load_sc(&run->phase);
    unsigned char go = TI_GO;
    if (phase == TI_SETTLED || phase == TI_IDLE)
        return false;
    if (reason && !ti_load_acquire(&run->reason)) {
        ti_value *text = ti_value_string(reason, size), *none = NULL;
        if (text && !ti_cas_sc(&run->reason, &none, text))
            ti_value_release(text);
    }
    ti_cas_sc(&run->stop, &go, (unsigned char)stop);
    return true;
}

bool ti_run_cancel(ti_run *run, const char *reason, size_t size)
{
    bool in_flight = ti_run_stop(run, TI_STOP_CANCELLED, reason, size);
    if (in_flight)
        ti_engine_stop(run->program->engine, run, NULL);
    return in_flight;
}

uint32_t ti_run_source(const ti_run *run)
{
    for (uint32_t i = run->plan->count; i > 0; i--) {
        const ti_node *node = &run->nodes[i - 1];
        if (node->status == TI_COMPLETED && node->source == i)
            return i;
    }
    return 0;
}

uint32_t ti_run_next_failure(const ti_run *run, uint32_t step)
{
    for (; step < run->plan->count; step++)
        if (run->nodes[step].status == TI_FAILED)
            return step;
    return TI_NONE;
}

ti_status ti_run_status(ti_run *run)
{
    if (!ti_run_settled(run))
        return TI_RUNNING;
    if (run->verdict == TI_STOP_CANCELLED || run->verdict == TI_STOP_TIMEOUT)
        return TI_CANCELLED;
    return ti_load_relaxed(&run->failed) ? TI_FAILED : TI_COMPLETED;
}
