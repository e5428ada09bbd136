/* SPDX-License-Identifier: MIT */
#include "engine/limits.h"

#include "check.h"
#include "native.h"

static tt_house house;

enum { DB = 1, NET = 2 };

/* What several threads may hold at once, counted by who holds it. */
typedef struct tt_counts {
    atomic_uint db, net, most_db, most_net;
} tt_counts;

static void raise_to(atomic_uint *most, unsigned now)
{
    unsigned before = ti_load_sc(most);
    while (before < now && !ti_cas_sc(most, &before, now))
        ;
}

static tt_answer hold(const ti_task *task, void *data)
{
    tt_counts *counts = data;
    uint64_t uses = task->run->plan->uses[task->index];
    if (uses & DB)
        raise_to(&counts->most_db, ti_add_sc(&counts->db, 1) + 1);
    if (uses & NET)
        raise_to(&counts->most_net, ti_add_sc(&counts->net, 1) + 1);
    for (volatile unsigned i = 0; i < 200; i++)
        ;
    if (uses & DB)
        ti_sub_sc(&counts->db, 1);
    if (uses & NET)
        ti_sub_sc(&counts->net, 1);
    return tt_pass(task, NULL);
}

/* Many processors that use one limit, the other, or both, in either order. */
static ti_dag *crossing(uint32_t count, uint32_t db, uint32_t net)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    REQUIRE(dag && ti_dag_limit(dag, "db", 2, db) && ti_dag_limit(dag, "net", 3, net));
    for (uint32_t i = 0; i < count; i++) {
        char id[16];
        snprintf(id, sizeof id, "p%u", i);
        tt_add(dag, id, TI_TRANSFORM);
        if (i % 3 != 1)
            ti_dag_uses(dag, "db", 2);
        if (i % 3 != 0)
            ti_dag_uses(dag, "net", 3);
    }
    return dag;
}

static void limits_bound_all_runs_of_a_program_and_all_permits_come_back(void)
{
    tt_counts counts = {0};
    tt_native native = {.call = hold, .data = &counts};
    ti_engine *engine = tt_open(&house, 4);
    ti_program *program = tt_install(engine, crossing(60, 2, 1), &native);
    for (unsigned round = 0; round < ROUNDS(80); round++) {
        ti_run *runs[4];
        for (unsigned i = 0; i < 4; i++) {
            runs[i] = tt_run_new(program, 1);
            CHECK_INT(ti_engine_start(engine, runs[i]), TI_OK);
        }
        if (round % 4 == 3)
            ti_run_cancel(runs[round % 3], NULL, 0);
        for (unsigned i = 0; i < 4; i++) {
            CHECK(ti_engine_wait(engine, runs[i], UINT64_MAX));
            ti_run_release(runs[i]);
        }
    }
    CHECK(counts.most_db <= 2 && counts.most_net <= 1);
    CHECK_INT(counts.db + counts.net, 0);
    CHECK_INT(tt_compute(program, 5), 5); /* which takes every permit there is */
    ti_program_release(program);
    tt_close(engine, &house);
}

/* By hand: a run's nodes ask and give back. */
static void who_waits_first_is_served_first_and_nobody_overtakes(void)
{
    tt_native native = {.call = tt_pass};
    ti_engine *engine = tt_open(&house, 1);
    ti_dag *dag = ti_dag_new(NULL, 0);
    REQUIRE(dag && ti_dag_limit(dag, "db", 2, 1) && ti_dag_limit(dag, "net", 3, 1));
    const char *ids[] = {"holds", "both", "later", "other"};
    const char *uses[] = {"db", "db net", "net", "net"};
    for (int i = 0; i < 4; i++) {
        tt_add(dag, ids[i], TI_ANALYZE);
        if (strstr(uses[i], "db"))
            ti_dag_uses(dag, "db", 2);
        if (strstr(uses[i], "net"))
            ti_dag_uses(dag, "net", 3);
    }
    ti_program *program = tt_install(engine, dag, &native);
    ti_run *run = tt_run_new(program, 1);
    ti_node *node = run->nodes;
    CHECK(ti_limits_acquire(program->limits, &node[0]));
    CHECK(!ti_limits_acquire(program->limits, &node[1])); /* db is taken */
    CHECK(!ti_limits_acquire(program->limits, &node[2])); /* net is free, but kept for "both" */
    CHECK(ti_limits_release(program->limits, &node[0]) == &node[1]);
    CHECK(ti_limits_release(program->limits, &node[1]) == &node[2]);
    CHECK(!ti_limits_acquire(program->limits, &node[3]));
    CHECK(ti_limits_release(program->limits, &node[2]) == &node[3]);
    CHECK(!ti_limits_release(program->limits, &node[3]));
    CHECK(ti_limits_acquire(program->limits, &node[1]));
    CHECK(!ti_limits_release(program->limits, &node[1]));
    for (int i = 0; i < 4; i++)
        node[i].next = NULL;
    ti_run_release(run);
    ti_program_release(program);
    tt_close(engine, &house);
}

int main(void)
{
    RUN(limits_bound_all_runs_of_a_program_and_all_permits_come_back);
    RUN(who_waits_first_is_served_first_and_nobody_overtakes);
    return check_report();
}
