/* SPDX-License-Identifier: MIT */
/* Random DAGs with random delays come out as graph.c says they must: with one worker or several,
 * under every strategy, run on the calling thread or started, alone or many runs at once. */
#include "check.h"
#include "graph.h"
#include "native.h"

enum { INPUT = 12345, AT_ONCE = 6 };

/* A graph, what must come of it, and how to call it. */
typedef struct tt_trial {
    tt_graph graph;
    tt_outcome outcomes[GRAPH_MOST], whole;
    tt_native native;
    uint32_t delay; /* at most so many ns per callback, by chance */
    atomic_uint seed;
} tt_trial;

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

static tt_trial *trial_new(uint32_t *seed, ti_failure_strategy strategy, uint32_t delay_ns)
{
    tt_trial *trial = calloc(1, sizeof *trial);
    REQUIRE(trial);
    graph_random(&trial->graph, seed, check_random(seed) % 2);
    trial->graph.strategy = strategy;
    trial->whole = graph_expect(&trial->graph, INPUT, trial->outcomes);
    trial->native = (tt_native){.call = act, .data = trial};
    trial->delay = delay_ns;
    trial->seed = *seed;
    return trial;
}

static uint32_t step_of(const ti_run *run, uint32_t processor)
{
    return processor == GRAPH_NOBODY ? TI_NONE : run->plan->order[processor];
}

static void check_node(const tt_trial *trial, const ti_run *run, uint32_t i)
{
    const ti_node *node = &run->nodes[run->plan->order[i]];
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
    const ti_node *node = &run->nodes[run->plan->order[i]];
    if (node->status == TI_CANCELLED)
        return;
    CHECK_INT(node->status, trial->outcomes[i].status);
    for (uint32_t j = 0; j < trial->graph.count; j++)
        if (trial->graph.depends[i][j])
            CHECK_INT(run->nodes[run->plan->order[j]].status, trial->outcomes[j].status);
    if (node->status == TI_COMPLETED)
        CHECK(tt_number_of(ti_run_value(run, node->source)) == trial->outcomes[i].value);
}

static void check_trial(const tt_trial *trial, ti_run *run)
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

/* A run under a strategy by chance. */
static ti_run *new_run(ti_program *program, uint32_t *seed)
{
    ti_run_options options = ti_run_defaults(program->plan);
    options.strategy = (ti_strategy)(check_random(seed) % 3);
    ti_run *run = ti_run_new(program, tt_number(INPUT), NULL, &options);
    REQUIRE(run);
    return run;
}

static void run_alone(ti_program *program, tt_trial *trial, uint32_t *seed)
{
    ti_run *run = new_run(program, seed);
    REQUIRE(ti_engine_run(program->engine, run) == TI_OK);
    check_trial(trial, run);
    ti_run_release(run);
}

static void run_at_once(ti_program *program, tt_trial *trial, uint32_t *seed)
{
    ti_run *runs[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
        runs[i] = new_run(program, seed);
        tt_start(runs[i]);
    }
    for (int i = AT_ONCE; i-- > 0;) {
        tt_wait(runs[i]);
        check_trial(trial, runs[i]);
        ti_run_release(runs[i]);
    }
}

/* How often a run that nothing cuts short calls back. */
static uint32_t calls_of(const tt_trial *trial)
{
    uint32_t called = 0;
    for (uint32_t i = 0; i < trial->graph.count; i++) {
        uint32_t root = trial->outcomes[i].root;
        if (root == GRAPH_NOBODY || root == i)
            called += trial->graph.act[i] == GRAPH_RETRY ? 1 + GRAPH_RETRIES : 1;
    }
    return called;
}

static void try_one(ti_engine *engine, tt_trial *trial, uint32_t *seed)
{
    ti_dag *dag = graph_declare(&trial->graph);
    uint32_t most = check_random(seed) % (engine->workers + 2), called = calls_of(trial);
    dag->max_concurrency = most;
    ti_program *program = tt_install(engine, dag, &trial->native);
    run_alone(program, trial, seed);
    CHECK(most == 0 || trial->native.most <= most);
    run_at_once(program, trial, seed);
    ti_program_release(program);
    if (trial->graph.strategy != TI_FAIL_FAST || trial->whole.status == TI_COMPLETED)
        CHECK_INT(trial->native.called, (1 + AT_ONCE) * called);
    else
        CHECK(trial->native.called <= (1 + AT_ONCE) * called);
}

enum { TRIALS = ROUNDS(150) };

static void try_many(uint32_t workers, ti_failure_strategy strategy, uint32_t delay_ns)
{
    tt_house house;
    tt_trial *trials[TRIALS];
    ti_engine *engine = tt_open(&house, workers);
    uint32_t seed = 100000 * workers + 1000 * strategy + delay_ns;
    for (int i = 0; i < TRIALS; i++) {
        trials[i] = trial_new(&seed, strategy, delay_ns);
        try_one(engine, trials[i], &seed);
    }
    for (int i = 0; i < TRIALS; i++)
        tt_await_forgotten(engine, &trials[i]->native);
    tt_close(engine, &house);
    for (int i = 0; i < TRIALS; i++)
        free(trials[i]);
}

static void try_workers(uint32_t workers)
{
    for (ti_failure_strategy strategy = TI_FAIL_FAST; strategy <= TI_BEST_EFFORT; strategy++) {
        try_many(workers, strategy, 0);
        try_many(workers, strategy, 30000);
    }
}

static void one_worker(void)
{
    try_workers(1);
}

static void two_workers(void)
{
    try_workers(2);
}

static void four_workers(void)
{
    try_workers(4);
}

int main(void)
{
    RUN(one_worker);
    RUN(two_workers);
    RUN(four_workers);
    return check_report();
}
