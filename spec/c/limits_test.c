/* SPDX-License-Identifier: MIT */
#include "jitter.h"

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

/* A program whose processors use limits, and two of its runs, which nobody starts: the limits are
 * played with by hand. */
typedef struct tt_shop {
    ti_engine *engine;
    ti_program *program;
    ti_run *run, *other;
    ti_limits *limits;
} tt_shop;

static tt_native idle = {.call = tt_increment};

static tt_shop open_shop(ti_dag *dag)
{
    tt_shop shop = {.engine = tt_open(&house, 8)};
    shop.program = tt_install(shop.engine, dag, &idle);
    shop.run = tt_run_new(shop.program, 1);
    shop.other = tt_run_new(shop.program, 2);
    shop.limits = shop.program->limits;
    return shop;
}

static void close_shop(tt_shop shop)
{
    ti_run_release(shop.run);
    ti_run_release(shop.other);
    ti_program_release(shop.program);
    tt_close(shop.engine, &house);
}

/* `count` processors that all use limit "a" of so many. */
static ti_dag *fan_of_a(uint32_t count, uint32_t limit)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    char id[16];
    CHECK(ti_dag_limit(dag, "a", 1, limit));
    for (uint32_t i = 0; i < count; i++) {
        tt_add(dag, (sprintf(id, "p%u", i), id), TI_TRANSFORM);
        ti_dag_uses(dag, "a", 1);
    }
    return dag;
}

static bool has_permit(const ti_node *node)
{
    return node->flags & TI_HAS_PERMIT;
}

/* That a chain holds this node alone, with its permit. */
static void check_granted(const ti_node *chain, const ti_node *node)
{
    CHECK(chain == node);
    CHECK(chain && chain->next == NULL && has_permit(chain));
}

static void without_bounds_there_are_no_limits(void)
{
    tt_shop shop = open_shop(tt_fan(3));
    CHECK(shop.limits == NULL);
    close_shop(shop);
    ti_limits_free(NULL);
}

static void a_permit_is_had_or_waited_for_in_order(void)
{
    tt_shop shop = open_shop(fan_of_a(5, 2));
    ti_node *nodes = shop.run->nodes;
    for (int i = 0; i < 2; i++)
        CHECK(ti_limits_acquire(shop.limits, &nodes[i]) && has_permit(&nodes[i]));
    for (int i = 2; i < 5; i++)
        CHECK(!ti_limits_acquire(shop.limits, &nodes[i]) && !has_permit(&nodes[i]));
    for (int i = 0; i < 3; i++) {
        check_granted(ti_limits_release(shop.limits, &nodes[i]), &nodes[i + 2]);
        CHECK(!has_permit(&nodes[i]));
    }
    CHECK(ti_limits_release(shop.limits, &nodes[3]) == NULL);
    CHECK(ti_limits_release(shop.limits, &nodes[4]) == NULL);
    CHECK(ti_limits_acquire(shop.limits, &nodes[0])); /* both are back, and no more than both */
    CHECK(ti_limits_acquire(shop.limits, &nodes[1]));
    CHECK(!ti_limits_acquire(shop.limits, &nodes[2]));
    check_granted(ti_limits_release(shop.limits, &nodes[0]), &nodes[2]);
    ti_limits_release(shop.limits, &nodes[1]);
    ti_limits_release(shop.limits, &nodes[2]);
    close_shop(shop);
}

static void runs_of_a_program_share_its_limits(void)
{
    tt_shop shop = open_shop(fan_of_a(2, 1));
    CHECK(ti_limits_acquire(shop.limits, &shop.run->nodes[0]));
    CHECK(!ti_limits_acquire(shop.limits, &shop.other->nodes[0]));
    CHECK(!ti_limits_acquire(shop.limits, &shop.run->nodes[1]));
    check_granted(ti_limits_release(shop.limits, &shop.run->nodes[0]), &shop.other->nodes[0]);
    check_granted(ti_limits_release(shop.limits, &shop.other->nodes[0]), &shop.run->nodes[1]);
    CHECK(ti_limits_release(shop.limits, &shop.run->nodes[1]) == NULL);
    close_shop(shop);
}

static void max_concurrency_bounds_each_run_by_itself(void)
{
    ti_dag *dag = tt_fan(3);
    dag->max_concurrency = 1;
    tt_shop shop = open_shop(dag);
    CHECK(ti_limits_acquire(shop.limits, &shop.run->nodes[0]));
    CHECK(!ti_limits_acquire(shop.limits, &shop.run->nodes[1]));
    CHECK(ti_limits_acquire(shop.limits, &shop.other->nodes[0]));
    CHECK(!ti_limits_acquire(shop.limits, &shop.other->nodes[1]));
    CHECK(!ti_limits_acquire(shop.limits, &shop.run->nodes[2]));
    check_granted(ti_limits_release(shop.limits, &shop.run->nodes[0]), &shop.run->nodes[1]);
    check_granted(ti_limits_release(shop.limits, &shop.other->nodes[0]), &shop.other->nodes[1]);
    check_granted(ti_limits_release(shop.limits, &shop.run->nodes[1]), &shop.run->nodes[2]);
    ti_limits_release(shop.limits, &shop.run->nodes[2]);
    ti_limits_release(shop.limits, &shop.other->nodes[1]);
    close_shop(shop);
}

/* both(0) needs a and b, only_a(1) and only_b(2) one of them, free(3) none. */
static ti_dag *a_and_b(void)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    CHECK(ti_dag_limit(dag, "a", 1, 1) && ti_dag_limit(dag, "b", 1, 1));
    tt_add(dag, "both", TI_TRANSFORM);
    ti_dag_uses(dag, "a", 1);
    ti_dag_uses(dag, "b", 1);
    tt_add(dag, "only_a", TI_TRANSFORM);
    ti_dag_uses(dag, "a", 1);
    tt_add(dag, "only_b", TI_TRANSFORM);
    ti_dag_uses(dag, "b", 1);
    tt_add(dag, "free", TI_TRANSFORM);
    return dag;
}

/* Who waits for both holds neither, but keeps those behind from what it waits for. */
static void all_permits_or_none(void)
{
    tt_shop shop = open_shop(a_and_b());
    ti_node *one = shop.run->nodes, *two = shop.other->nodes;
    CHECK(ti_limits_acquire(shop.limits, &one[1]));
    CHECK(!ti_limits_acquire(shop.limits, &one[0]));
    CHECK(!ti_limits_acquire(shop.limits, &one[2])); /* b is there, and promised */
    CHECK(ti_limits_acquire(shop.limits, &one[3]));
    CHECK(!ti_limits_acquire(shop.limits, &two[1]));
    check_granted(ti_limits_release(shop.limits, &one[1]), &one[0]);
    ti_node *granted = ti_limits_release(shop.limits, &one[0]); /* a and b: the next for each */
    CHECK(granted == &one[2] && has_permit(granted));
    check_granted(granted ? granted->next : NULL, &two[1]);
    ti_limits_release(shop.limits, &one[2]);
    ti_limits_release(shop.limits, &two[1]);
    ti_limits_release(shop.limits, &one[3]);
    close_shop(shop);
}

static void a_stopped_run_waits_for_nothing(void)
{
    tt_shop shop = open_shop(fan_of_a(3, 1));
    ti_node *nodes = shop.run->nodes;
    CHECK(ti_limits_acquire(shop.limits, &nodes[0]));
    ti_store_sc(&shop.run->stop, TI_STOP_CANCELLED);
    CHECK(ti_limits_acquire(shop.limits, &nodes[1]));
    CHECK(!has_permit(&nodes[1]));
    ti_limits_release(shop.limits, &nodes[0]);
    close_shop(shop);
}

/* Those that waited come off the list, and what was kept for them goes to those behind. */
static void a_flush_takes_what_is_stopped_off_the_list(void)
{
    tt_shop shop = open_shop(a_and_b());
    ti_node *one = shop.run->nodes, *two = shop.other->nodes;
    CHECK(ti_limits_acquire(shop.limits, &one[1]));
    CHECK(!ti_limits_acquire(shop.limits, &one[0]));
    CHECK(!ti_limits_acquire(shop.limits, &one[2]));
    CHECK(!ti_limits_acquire(shop.limits, &two[2]));
    ti_store_sc(&shop.other->stop, TI_STOP_CANCELLED);
    CHECK(ti_limits_flush(shop.limits, shop.other) == &two[2]);
    CHECK(!has_permit(&two[2]));
    ti_store_sc(&shop.other->stop, TI_GO);
    CHECK(!ti_limits_acquire(shop.limits, &two[2]));
    ti_store_sc(&shop.run->stop, TI_STOP_CANCELLED);
    ti_node *chain = ti_limits_flush(shop.limits, shop.run);
    CHECK(chain == &one[0] && chain->next == &one[2] && chain->next->next == &two[2]);
    CHECK(!has_permit(&one[0]) && !has_permit(&one[2]) && has_permit(&two[2]));
    CHECK(ti_limits_flush(shop.limits, shop.run) == NULL);
    CHECK(ti_limits_release(shop.limits, &two[2]) == NULL);
    CHECK(ti_limits_release(shop.limits, &one[1]) == NULL);
    close_shop(shop);
}

enum { THREADS = 4, LIMITS = 3, EACH = ROUNDS(8000) };

typedef struct tt_crowd {
    tt_shop shop;
    uint32_t limits[LIMITS];
    atomic_uint inside[LIMITS], served;
} tt_crowd;

static void come_in(tt_crowd *crowd, const ti_node *node, int by)
{
    uint32_t slot = crowd->shop.run->plan->steps[node - crowd->shop.run->nodes].slot;
    for (uint32_t i = 0; i < LIMITS; i++)
        if ((slot >> i) & 1)
            CHECK(atomic_fetch_add(&crowd->inside[i], (unsigned)by) + (unsigned)by <=
                  crowd->limits[i]);
}

static ti_node *use_permits(tt_crowd *crowd, ti_node *node)
{
    come_in(crowd, node, 1);
    CHECK_INT(node->attempts++, 0); /* not atomic: the permit hands the node over */
    jitter();
    come_in(crowd, node, -1);
    atomic_fetch_add(&crowd->served, 1);
    return ti_limits_release(crowd->shop.limits, node);
}

/* As a worker does: whoever gives permits back runs the nodes that get them. */
static void serve(tt_crowd *crowd, ti_node *node)
{
    node->next = NULL;
    while (node) {
        ti_node *rest = node->next, *granted = use_permits(crowd, node), **end = &granted;
        while (*end)
            end = &(*end)->next;
        *end = rest;
        node = granted;
    }
}

static void queue_up(void *data, unsigned index)
{
    tt_crowd *crowd = data;
    for (uint32_t i = index; i < THREADS * EACH; i += THREADS)
        if (ti_limits_acquire(crowd->shop.limits, &crowd->shop.run->nodes[i]))
            serve(crowd, &crowd->shop.run->nodes[i]);
}

/* Bit i of its declaration index says whether a processor uses limit i. */
static void never_more_than_the_limits(void)
{
    tt_crowd crowd = {.limits = {1, 2, 3}};
    ti_dag *dag = ti_dag_new(NULL, 0);
    char id[16];
    for (uint32_t i = 0; i < LIMITS; i++)
        CHECK(ti_dag_limit(dag, &"abc"[i], 1, crowd.limits[i]));
    for (uint32_t n = 0; n < THREADS * EACH; n++) {
        tt_add(dag, (sprintf(id, "p%u", n), id), TI_TRANSFORM);
        for (uint32_t i = 0; i < LIMITS; i++)
            if ((n >> i) & 1)
                ti_dag_uses(dag, &"abc"[i], 1);
    }
    crowd.shop = open_shop(dag);
    check_threads(THREADS, queue_up, &crowd);
    CHECK_INT(crowd.served, THREADS * EACH);
    for (uint32_t i = 0; i < LIMITS; i++)
        CHECK_INT(crowd.inside[i], 0);
    CHECK(ti_limits_flush(crowd.shop.limits, crowd.shop.run) == NULL);
    close_shop(crowd.shop);
}

static void the_number_of_limits_is_limited(void)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    char name[16];
    for (uint32_t i = 0; i < TI_MOST_LIMITS; i++)
        CHECK(ti_dag_limit(dag, name, (size_t)sprintf(name, "limit %u", i), 1));
    CHECK(!ti_dag_limit(dag, "one too many", 12, 1));
    tt_add(dag, "p", TI_TRANSFORM);
    tt_add(dag, "q", TI_TRANSFORM);
    ti_dag_uses(dag, "limit 63", 8); /* the last bit */
    tt_shop shop = open_shop(dag);
    ti_node *last = &shop.run->nodes[1], *same = &shop.other->nodes[1];
    CHECK(ti_limits_acquire(shop.limits, last));
    CHECK(!ti_limits_acquire(shop.limits, same));
    check_granted(ti_limits_release(shop.limits, last), same);
    CHECK(!ti_limits_acquire(shop.limits, last));
    ti_store_sc(&shop.run->stop, TI_STOP_CANCELLED);
    CHECK(ti_limits_flush(shop.limits, shop.run) == last);
    ti_limits_release(shop.limits, same);
    close_shop(shop);
}

int main(void)
{
    RUN(limits_bound_all_runs_of_a_program_and_all_permits_come_back);
    RUN(who_waits_first_is_served_first_and_nobody_overtakes);
    RUN(without_bounds_there_are_no_limits);
    RUN(a_permit_is_had_or_waited_for_in_order);
    RUN(runs_of_a_program_share_its_limits);
    RUN(max_concurrency_bounds_each_run_by_itself);
    RUN(all_permits_or_none);
    RUN(a_stopped_run_waits_for_nothing);
    RUN(a_flush_takes_what_is_stopped_off_the_list);
    RUN(never_more_than_the_limits);
    RUN(the_number_of_limits_is_limited);
    return check_report();
}
