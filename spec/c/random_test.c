/* SPDX-License-Identifier: MIT */
/* Random DAGs with random delays come out as graph.c says they must: with one worker or several,
 * under every strategy, run on the calling thread or started, alone or many runs at once. */
#include "trial.h"

#include "check.h"

enum { AT_ONCE = 6 };

/* A run under a strategy by chance. */
static ti_run *new_run(ti_program *program, uint32_t *seed)
{
    ti_run_options options = ti_run_defaults(program->plan);
    options.strategy = (ti_strategy)(check_random(seed) % 3);
    ti_run *run = ti_run_new(program, tt_number(TRIAL_INPUT), NULL, &options);
    REQUIRE(run);
    return run;
}

static void run_alone(ti_program *program, tt_trial *trial, uint32_t *seed)
{
    ti_run *run = new_run(program, seed);
    REQUIRE(ti_engine_run(program->engine, run) == TI_OK);
    trial_check(trial, run);
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
        trial_check(trial, runs[i]);
        ti_run_release(runs[i]);
    }
}

static void try_one(ti_engine *engine, tt_trial *trial, uint32_t *seed)
{
    ti_dag *dag = graph_declare(&trial->graph);
    uint32_t most = check_random(seed) % (engine->workers + 2), called = trial_calls(trial);
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
