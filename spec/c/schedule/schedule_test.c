/* SPDX-License-Identifier: MIT */
/* Small random DAGs, run, started, cancelled and closed by two threads under seeded schedules.
 *
 *   schedule_test [first [count]]    TIDEMILL_SCHEDULES=100000 schedule_test
 *
 * A seed that fails is printed; `schedule_test SEED 1` is that schedule again. */
#include "check.h"
#include "trial.h"

enum { RUNS = 3, SMALL = 8 };

/* Virtual nanoseconds: more than anything takes but a retry, when it has to wait. */
#define SOON UINT64_C(1000000000)

/* What two hosts do to one engine. */
typedef struct tt_play {
    ti_engine *engine;
    ti_program *program;
    tt_trial *trial;
    ti_run *runs[RUNS];
    ti_code codes[RUNS];
    bool cancelled[RUNS];
    uint32_t seeds[2];
    bool closes;
} tt_play;

static tt_trial *small_trial(uint32_t *seed)
{
    for (;;) {
        tt_trial *trial = trial_new(seed, (ti_failure_strategy)(check_random(seed) % 3), 0);
        if (trial->graph.count <= SMALL)
            return trial;
        free(trial);
    }
}

/* Every other processor shares a permit or two. */
static void add_limit(tt_graph *graph, uint32_t *seed)
{
    graph->permits = check_random(seed) % 3;
    for (uint32_t i = 0; i < graph->count; i++)
        graph->uses[i] = check_random(seed) % 2;
}

/* Some retries wait so long that whoever waits for one in vain is found out. */
static void delay_retries(ti_dag *dag, uint32_t *seed)
{
    for (uint32_t i = 0; i < dag->count; i++)
        if (check_random(seed) % 2)
            dag->processors[i].retry.backoff = dag->processors[i].retry.most =
                (10 + check_random(seed) % 90) * SOON;
}

static ti_run *new_run(tt_play *play, uint32_t *seed)
{
    ti_run_options options = ti_run_defaults(play->program->plan);
    options.strategy = (ti_strategy)(check_random(seed) % 3);
    options.timeout = check_random(seed) % 8 ? 0 : 1 + check_random(seed) % 200000;
    ti_run *run = ti_run_new(play->program, tt_number(TRIAL_INPUT), NULL, &options);
    REQUIRE(run);
    return run;
}

/* The one that runs and starts. */
static void drive(tt_play *play)
{
    uint32_t *seed = &play->seeds[0];
    for (int i = 0; i < RUNS; i++)
        play->codes[i] = check_random(seed) % 2 ? ti_engine_run(play->engine, play->runs[i])
                                                : ti_engine_start(play->engine, play->runs[i]);
    for (int i = RUNS; i-- > 0;)
        if (play->codes[i] == TI_OK)
            CHECK(ti_engine_wait(play->engine, play->runs[i], UINT64_MAX));
}

/* The one that comes in between. */
static void disturb(tt_play *play)
{
    uint32_t *seed = &play->seeds[1];
    for (uint32_t left = check_random(seed) % 3; left > 0; left--) {
        uint32_t i = check_random(seed) % RUNS;
        switch (check_random(seed) % 4) {
        case 0:
            if (ti_run_cancel(play->runs[i], "enough", 6)) {
                play->cancelled[i] = true;
                CHECK(ti_engine_wait(play->engine, play->runs[i], SOON));
            }
            break;
        case 1:
            ti_engine_wait(play->engine, play->runs[i], check_random(seed) % 100000);
            break;
        case 2:
            uv_sleep(check_random(seed) % 2);
            break;
        default:
            if (play->closes)
                ti_engine_close(play->engine);
        }
    }
}

static void act_part(void *data, unsigned index)
{
    if (index)
        disturb(data);
    else
        drive(data);
}

static void check_play(tt_play *play)
{
    for (int i = 0; i < RUNS; i++) {
        ti_run *run = play->runs[i];
        if (play->codes[i] != TI_OK) {
            CHECK_INT(play->codes[i], TI_E_CLOSED);
            CHECK(play->closes);
            continue;
        }
        REQUIRE(ti_run_settled(run));
        bool cut = run->verdict == TI_STOP_CANCELLED || run->verdict == TI_STOP_TIMEOUT;
        CHECK(!cut || play->cancelled[i] || play->closes || run->timeout);
        if (cut)
            trial_check_cut(play->trial, run);
        else
            trial_check(play->trial, run);
    }
}

static uint64_t play_seed(uint32_t number)
{
    static tt_house house;
    uint32_t seed = number;
    tt_play play = {.closes = check_random(&seed) % 4 == 0};
    play.trial = small_trial(&seed);
    add_limit(&play.trial->graph, &seed);
    ti_dag *dag = graph_declare(&play.trial->graph);
    delay_retries(dag, &seed);
    dag->max_concurrency = check_random(&seed) % 3;
    sched_begin(number);
    play.engine = tt_open(&house, 1 + check_random(&seed) % 3);
    play.program = tt_install(play.engine, dag, &play.trial->native);
    for (int i = 0; i < RUNS; i++)
        play.runs[i] = new_run(&play, &seed);
    play.seeds[0] = check_random(&seed);
    play.seeds[1] = check_random(&seed);
    check_threads(2, act_part, &play);
    check_play(&play);
    for (int i = 0; i < RUNS; i++)
        ti_run_release(play.runs[i]);
    ti_program_release(play.program);
    tt_close(play.engine, &house);
    free(play.trial);
    return sched_end();
}

static uint32_t first = 1, seeds;

static void random_schedules_keep_the_promises(void)
{
    for (uint32_t seed = first; seed < first + seeds; seed++) {
        if (seed % 100 == 0)
            check_extend();
        play_seed(seed);
        if (check_failures()) {
            fprintf(stderr, "seed %u: that is wrong; again: schedule_test %u 1\n", seed, seed);
            return;
        }
    }
}

static void a_seed_is_the_same_schedule_again(void)
{
    for (uint32_t seed = first; seed < first + 20; seed++)
        CHECK(play_seed(seed) == play_seed(seed));
}

int main(int count, char **arguments)
{
    const char *wanted = getenv("TIDEMILL_SCHEDULES");
    seeds = wanted ? (uint32_t)atol(wanted) : ROUNDS(2000);
    if (count > 1)
        first = (uint32_t)atol(arguments[1]);
    if (count > 2)
        seeds = (uint32_t)atol(arguments[2]);
    RUN(random_schedules_keep_the_promises);
    RUN(a_seed_is_the_same_schedule_again);
    return check_report();
}
