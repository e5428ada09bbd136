/* SPDX-License-Identifier: MIT */
/* Many threads on one engine: runs of several plans, cancels and closings at random moments. What
 * comes out is either right or cancelled, every wait returns, and every count returns to zero. */
#include "check.h"
#include "native.h"

enum { HOSTS = 4, PROGRAMS = 3, BATCH = 8 };

static tt_house house;

/* Plans of different shapes, one of them with a bound, and what each makes of 0. */
typedef struct tt_world {
    ti_engine *engine;
    ti_program *programs[PROGRAMS];
    tt_native natives[PROGRAMS];
    uint64_t results[PROGRAMS];
    ti_run *shared; /* several threads cancel it */
    atomic_uint cancels;
} tt_world;

/* A little work, of random length. */
static tt_answer work(const ti_task *task, void *data)
{
    (void)data;
    uint32_t seed = (uint32_t)task->run->serial * 31 + task->index;
    uint32_t turns = check_random(&seed) % 8 ? 10 : check_random(&seed) % 3000;
    for (uint32_t i = 0; i < turns && !atomic_load(&task->run->stop); i++)
        ti_relax();
    return tt_increment(task, NULL);
}

/* `width` chains of `depth` between two processors. */
static ti_dag *ladder(uint32_t width, uint32_t depth)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    char id[32];
    tt_add(dag, "first", TI_TRANSFORM);
    for (uint32_t w = 0; w < width; w++)
        for (uint32_t d = 0; d < depth; d++) {
            tt_add(dag, (sprintf(id, "%u.%u", w, d), id), TI_TRANSFORM);
            if (d)
                tt_depends(dag, (sprintf(id, "%u.%u", w, d - 1), id));
            else
                tt_depends(dag, "first");
        }
    tt_add(dag, "last", TI_TRANSFORM);
    for (uint32_t w = 0; w < width; w++)
        tt_depends(dag, (sprintf(id, "%u.%u", w, depth - 1), id));
    return dag;
}

static void open_world(tt_world *world, uint32_t workers)
{
    *world = (tt_world){.engine = tt_open(&house, workers)};
    for (int i = 0; i < PROGRAMS; i++)
        world->natives[i].call = work;
    ti_dag *bounded = ladder(8, 2);
    bounded->max_concurrency = 2;
    world->programs[0] = tt_install(world->engine, tt_chain(20), &world->natives[0]);
    world->programs[1] = tt_install(world->engine, ladder(5, 4), &world->natives[1]);
    world->programs[2] = tt_install(world->engine, bounded, &world->natives[2]);
    world->results[0] = 20;
    world->results[1] = 6;
    world->results[2] = 4;
}

static void release_programs(tt_world *world)
{
    for (int i = 0; i < PROGRAMS; i++) {
        ti_program_release(world->programs[i]);
        CHECK(world->natives[i].most <= world->engine->workers);
    }
}

/* Every run is its program's; and only so many exist as were ever held at once. */
static void check_runs(ti_engine *engine, uint32_t most)
{
    uint32_t runs = 0;
    for (const ti_run *run = engine->runs[TI_ALL]; run; run = run->in[TI_ALL].next)
        runs++;
    CHECK(runs <= most);
    CHECK_INT(tt_in_flight(engine), 0);
}

static void close_world(tt_world *world)
{
    check_runs(world->engine, (HOSTS * BATCH + world->engine->workers + 1) * PROGRAMS);
    release_programs(world);
    tt_close(world->engine, &house);
}

/* A run that settled is whole, or it was cancelled and stops at a clean edge. */
static void check_settled(const tt_world *world, int which, ti_run *run, uint64_t input)
{
    const ti_plan *plan = run->plan;
    ti_status status = ti_run_status(run);
    CHECK(ti_run_settled(run));
    CHECK(status == TI_COMPLETED || status == TI_CANCELLED);
    if (status == TI_COMPLETED)
        CHECK_INT(tt_result(run), input + world->results[which]);
    for (uint32_t s = 0; s < plan->count; s++) {
        CHECK(run->nodes[s].status == TI_COMPLETED || status == TI_CANCELLED);
        if (run->nodes[s].status != TI_COMPLETED) {
            CHECK_INT(run->nodes[s].status, TI_CANCELLED);
            continue;
        }
        for (uint32_t d = plan->steps[s].first_dependency; d < plan->steps[s + 1].first_dependency;
             d++)
            CHECK_INT(run->nodes[plan->dependencies[d]].status, TI_COMPLETED);
        CHECK_INT(tt_number_of(ti_run_value(run, s + 1)), input + plan->steps[s].rank + 1);
    }
    CHECK_INT(run->remaining, 0);
}

static void run_or_start(tt_world *world, uint32_t *seed)
{
    ti_run *runs[BATCH];
    int which = (int)(check_random(seed) % PROGRAMS), count = 1 + (int)(check_random(seed) % BATCH);
    for (int i = 0; i < count; i++)
        runs[i] = tt_run_new(world->programs[which], (uint64_t)i);
    for (int i = 0; i < count; i++)
        if (check_random(seed) % 4)
            tt_start(runs[i]);
        else
            REQUIRE(ti_engine_run(world->engine, runs[i]) == TI_OK);
    for (int i = 0; i < count; i++) {
        tt_wait(runs[i]);
        CHECK_INT(ti_run_status(runs[i]), TI_COMPLETED);
        check_settled(world, which, runs[i], (uint64_t)i);
        ti_run_release(runs[i]);
    }
}

static void be_a_host(void *data, unsigned index)
{
    uint32_t seed = index;
    for (int round = 0; round < ROUNDS(200); round++)
        run_or_start(data, &seed);
}

static void hosts_share_an_engine(void)
{
    for (uint32_t workers = 1; workers <= 4; workers *= 2) {
        tt_world world;
        open_world(&world, workers);
        REQUIRE(ti_pool_ensure(&world.engine->pool));
        check_threads(HOSTS, be_a_host, &world);
        close_world(&world);
    }
}

/* Pauses for up to `most` ns. */
static void pause_up_to(uint32_t *seed, uint32_t most)
{
    uint64_t until = uv_hrtime() + check_random(seed) % most;
    while (uv_hrtime() < until)
        ti_relax();
}

/* Two cancel, one runs, one waits. */
static void cancel_or_run(void *data, unsigned index)
{
    tt_world *world = data;
    uint32_t seed = (uint32_t)atomic_fetch_add(&world->cancels, 1) * 7;
    if (index >= 2) {
        pause_up_to(&seed, 60000);
        ti_run_cancel(world->shared, index == 2 ? "one" : "other", index == 2 ? 3 : 5);
    } else if (index == 0) {
        tt_start(world->shared);
        tt_wait(world->shared);
    } else {
        pause_up_to(&seed, 60000);
        ti_run_status(world->shared);
    }
}

static void a_run_cancelled_at_any_moment_settles_once(void)
{
    tt_world world;
    open_world(&world, 3);
    uint32_t cancelled = 0;
    for (int round = 0; round < ROUNDS(1500); round++) {
        int which = round % PROGRAMS;
        world.shared = tt_run_new(world.programs[which], 5);
        check_threads(4, cancel_or_run, &world);
        check_settled(&world, which, world.shared, 5);
        const ti_value *reason = atomic_load(&world.shared->reason);
        if (ti_run_status(world.shared) == TI_CANCELLED) {
            cancelled++;
            CHECK(reason && (strcmp(ti_cell_string(&reason->root), "one") == 0 ||
                             strcmp(ti_cell_string(&reason->root), "other") == 0));
        }
        ti_run_release(world.shared);
    }
    CHECK(cancelled > 0);
    close_world(&world);
}

/* A permit that is lost to a cancelled run would hang a later one, and one too many would show. */
static void permits_survive_cancels(void)
{
    tt_world world;
    open_world(&world, 4);
    for (int round = 0; round < ROUNDS(1000); round++) {
        world.shared = tt_run_new(world.programs[2], 0);
        check_threads(4, cancel_or_run, &world);
        CHECK_INT(world.shared->slots, 2);
        CHECK_INT(world.shared->slot_waiters, 0);
        ti_run_release(world.shared);
    }
    CHECK(world.natives[2].most <= 2);
    close_world(&world);
}

/* Stays for a while, cancelled or not. */
static tt_answer stay(const ti_task *task, void *data)
{
    (void)data;
    for (int i = 0; i < 300; i++)
        ti_relax();
    return tt_increment(task, NULL);
}

/* One starts it and waits; the other cancels it as soon as it can. */
static void start_or_cancel(void *data, unsigned index)
{
    tt_world *world = data;
    uint32_t seed = (uint32_t)atomic_fetch_add(&world->cancels, 1);
    if (index == 0) {
        tt_start(world->shared);
        tt_wait(world->shared);
    } else {
        do
            pause_up_to(&seed, 300000);
        while (!ti_run_cancel(world->shared, NULL, 0) && !ti_run_settled(world->shared));
    }
}

/* While one worker holds the only permit, others find hundreds of processors that must wait: one of
 * them may be told that the run has stopped, and must not take that for a permit. */
static void a_bound_holds_while_its_run_is_cancelled(void)
{
    tt_world world;
    open_world(&world, 4);
    tt_native native = {.call = stay};
    ti_dag *dag = tt_fan(500);
    dag->max_concurrency = 1;
    ti_program *program = tt_install(world.engine, dag, &native);
    for (int round = 0; round < ROUNDS(1500); round++) {
        world.shared = tt_run_new(program, 0);
        check_threads(2, start_or_cancel, &world);
        ti_run_release(world.shared);
    }
    CHECK(native.most <= 1);
    ti_program_release(program);
    tt_await_forgotten(world.engine, &native);
    close_world(&world);
}

/* Goes on until the engine is closed under its feet. */
static void run_until_closed(tt_world *world, uint32_t *seed)
{
    for (;;) {
        int which = (int)(check_random(seed) % PROGRAMS);
        ti_run *run = tt_run_new(world->programs[which], 3);
        ti_code code = check_random(seed) % 2 ? ti_engine_run(world->engine, run)
                                              : ti_engine_start(world->engine, run);
        if (code == TI_OK) {
            tt_wait(run);
            check_settled(world, which, run, 3);
        }
        ti_run_release(run);
        CHECK(code == TI_OK || code == TI_E_CLOSED);
        if (code)
            return;
    }
}

static void run_or_close(void *data, unsigned index)
{
    tt_world *world = data;
    uint32_t seed = index + 977 * (uint32_t)uv_hrtime();
    if (index) {
        run_until_closed(world, &seed);
    } else {
        pause_up_to(&seed, 300000);
        ti_engine_close(world->engine);
        CHECK_INT(house.closed, world->engine->workers);
    }
}

static void an_engine_closed_at_any_moment_lets_everyone_go(void)
{
    for (int round = 0; round < ROUNDS(800); round++) {
        tt_world world;
        open_world(&world, 1 + (uint32_t)round % 4);
        REQUIRE(ti_pool_ensure(&world.engine->pool));
        check_threads(HOSTS, run_or_close, &world);
        CHECK_INT(tt_in_flight(world.engine), 0);
        release_programs(&world);
        tt_close(world.engine, &house);
    }
}

static void come_and_go(void *data, unsigned index)
{
    tt_world *world = data;
    static tt_native natives[HOSTS];
    tt_native *native = &natives[index];
    for (int round = 0; round < ROUNDS(400); round++) {
        *native = (tt_native){.call = work};
        ti_program *program = tt_install(world->engine, tt_fan(4), native);
        ti_run *run = tt_run_new(program, 1);
        tt_start(run);
        ti_program_release(program); /* the run keeps it */
        tt_wait(run);
        CHECK_INT(tt_result(run), 2);
        ti_run_release(run);
        tt_await_forgotten(world->engine, native);
    }
}

static void programs_come_and_go_while_others_run(void)
{
    tt_world world;
    open_world(&world, 3);
    CHECK(ti_pool_ensure(&world.engine->pool));
    check_threads(HOSTS, come_and_go, &world);
    close_world(&world);
}

int main(void)
{
    RUN(hosts_share_an_engine);
    RUN(a_run_cancelled_at_any_moment_settles_once);
    RUN(permits_survive_cancels);
    RUN(a_bound_holds_while_its_run_is_cancelled);
    RUN(an_engine_closed_at_any_moment_lets_everyone_go);
    RUN(programs_come_and_go_while_others_run);
    return check_report();
}
