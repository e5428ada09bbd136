/* SPDX-License-Identifier: MIT */
#include "trial.h"

#include "check.h"

static void delay(tt_trial *trial)
{
    uint32_t seed = atomic_fetch_add(&trial->seed, 0x9e3779b9);
    uint64_t until = uv_hrtime() + check_random(&seed) % (trial->delay + 1);
    if (trial->delay && check_random(&seed) % 3 == 0)
        while (uv_hrtime() < until)
            ti_relax();
}

static tt_answer act(const ti_task *task, void *data)
{
    tt_trial *trial = data;
    uint32_t slot = task->step->slot;
    uint64_t payload = tt_number_of(task->payload);
    CHECK(payload == trial->outcomes[slot].in);
    delay(trial);
    tt_act what = trial->graph.act[slot];
    if (what == GRAPH_FAIL || (what == GRAPH_RETRY && task->node->attempts <= GRAPH_RETRIES))
        return tt_error("as planned");
    if (what == GRAPH_SKIP)
        return (tt_answer){.skip = true};
    tt_answer answer = {.payload = task->payload};
    if (what == GRAPH_PASS)
        return answer;
    if (trial->graph.intent[slot] == TI_TRANSFORM)
        answer.payload = tt_number(graph_answer(slot, payload));
    answer.metadata = tt_number(payload);
    return answer;
}

tt_trial *trial_new(uint32_t *seed, ti_failure_strategy strategy, uint32_t delay_ns)
{
    tt_trial *trial = calloc(1, sizeof *trial);
    REQUIRE(trial);
    graph_random(&trial->graph, seed, check_random(seed) % 2);
    trial->graph.strategy = strategy;
    trial->whole = graph_expect(&trial->graph, TRIAL_INPUT, trial->outcomes);
    trial->native = (tt_native){.call = act, .data = trial};
    trial->delay = delay_ns;
    trial->seed = *seed;
    return trial;
}

static uint32_t step_of(const ti_run *run, uint32_t processor)
{
    return processor == GRAPH_NOBODY ? TI_NONE : tt_step(run->plan, processor);
}

static void check_node(const tt_trial *trial, const ti_run *run, uint32_t i)
{
    const ti_node *node = &run->nodes[tt_step(run->plan, i)];
    const tt_outcome *expected = &trial->outcomes[i];
    bool noted = expected->status == TI_COMPLETED && trial->graph.act[i] != GRAPH_PASS;
    CHECK_INT(node->status, expected->status);
    CHECK_INT(node->root, step_of(run, expected->root));
    CHECK_INT(node->source, step_of(run, expected->out) + 1);
    CHECK(tt_number_of(ti_run_value(run, node->source)) == expected->value);
    if (expected->status == TI_FAILED)
        CHECK_TEXT(node->error->message, "as planned");
    else if (noted)
        CHECK(node->metadata && tt_number_of(node->metadata) == expected->in);
    else
        CHECK(node->metadata == NULL);
}

/* Under fail_fast, who fails, and which of those that would complete did so, is up to chance;
 * nothing else is. */
static void check_fast_node(const tt_trial *trial, const ti_run *run, uint32_t i)
{
    const ti_node *node = &run->nodes[tt_step(run->plan, i)];
    if (node->status == TI_CANCELLED)
        return;
    CHECK_INT(node->status, trial->outcomes[i].status);
    for (uint32_t j = 0; j < trial->graph.count; j++)
        if (trial->graph.depends[i][j])
            CHECK_INT(run->nodes[tt_step(run->plan, j)].status, trial->outcomes[j].status);
    if (node->status == TI_COMPLETED)
        CHECK(tt_number_of(ti_run_value(run, node->source)) == trial->outcomes[i].value);
}

void trial_check(const tt_trial *trial, ti_run *run)
{
    bool fast = trial->graph.strategy == TI_FAIL_FAST && trial->whole.status == TI_FAILED;
    CHECK_INT(ti_run_status(run), trial->whole.status);
    for (uint32_t i = 0; i < trial->graph.count; i++)
        if (fast)
            check_fast_node(trial, run, i);
        else
            check_node(trial, run, i);
    uint32_t first = ti_run_next_failure(run, 0);
    if (fast) {
        CHECK(first != TI_NONE && ti_run_next_failure(run, first + 1) == TI_NONE);
        return;
    }
    CHECK_INT(ti_run_source(run), step_of(run, trial->whole.out) + 1);
    CHECK_INT(first, step_of(run, trial->whole.root));
}

static ti_status status_of(const ti_run *run, uint32_t processor)
{
    return (ti_status)run->nodes[tt_step(run->plan, processor)].status;
}

void trial_check_cut(const tt_trial *trial, ti_run *run)
{
    for (uint32_t i = 0; i < trial->graph.count; i++) {
        if (status_of(run, i) == TI_CANCELLED)
            continue;
        if (trial->graph.strategy == TI_FAIL_FAST)
            check_fast_node(trial, run, i);
        else
            check_node(trial, run, i);
        for (uint32_t j = 0; j < trial->graph.count; j++)
            CHECK(!trial->graph.depends[i][j] || status_of(run, j) != TI_CANCELLED);
    }
}

uint32_t trial_calls(const tt_trial *trial)
{
    uint32_t called = 0;
    for (uint32_t i = 0; i < trial->graph.count; i++) {
        uint32_t root = trial->outcomes[i].root;
        if (root == GRAPH_NOBODY || root == i)
            called += trial->graph.act[i] == GRAPH_RETRY ? 1 + GRAPH_RETRIES : 1;
    }
    return called;
}
