/* SPDX-License-Identifier: MIT */
#include "graph.h"

#include "check.h"

static void shuffle(uint32_t *items, uint32_t count, uint32_t *seed)
{
    for (uint32_t i = 0; i < count; i++)
        items[i] = i;
    for (uint32_t i = count; i > 1; i--) {
        uint32_t other = check_random(seed) % i, item = items[i - 1];
        items[i - 1] = items[other];
        items[other] = item;
    }
}

static uint32_t some_dependency(const tt_graph *graph, uint32_t processor, uint32_t *seed)
{
    uint32_t first = check_random(seed) % graph->count;
    for (uint32_t i = 0; i < graph->count; i++)
        if (graph->depends[processor][(first + i) % graph->count])
            return (first + i) % graph->count;
    return GRAPH_NOBODY;
}

static void choose_processor(tt_graph *graph, uint32_t i, uint32_t *seed, bool failing)
{
    graph->intent[i] = check_random(seed) % 3 ? TI_TRANSFORM : TI_ANALYZE;
    graph->act[i] = check_random(seed) % 4 ? GRAPH_ANSWER : GRAPH_PASS;
    if (check_random(seed) % 10 == 0)
        graph->act[i] = GRAPH_SKIP;
    if (failing && check_random(seed) % 8 == 0)
        graph->act[i] = check_random(seed) % 3 ? GRAPH_FAIL : GRAPH_RETRY;
    graph->payload_from[i] =
        check_random(seed) % 5 ? GRAPH_NOBODY : some_dependency(graph, i, seed);
}

void graph_random(tt_graph *graph, uint32_t *seed, bool failing)
{
    uint32_t order[GRAPH_MOST];
    memset(graph, 0, sizeof *graph);
    graph->count = 1 + check_random(seed) % GRAPH_MOST;
    uint32_t sparse = 1 + check_random(seed) % 20;
    shuffle(order, graph->count, seed);
    for (uint32_t i = 1; i < graph->count; i++)
        for (uint32_t j = 0; j < i; j++)
            graph->depends[order[i]][order[j]] = check_random(seed) % sparse == 0;
    for (uint32_t i = 0; i < graph->count; i++)
        choose_processor(graph, i, seed, failing);
    REQUIRE(graph_rank_all(graph));
}

/* One more than the greatest rank of its dependencies, until nothing changes. */
bool graph_rank_all(tt_graph *graph)
{
    bool changed = true;
    memset(graph->rank, 0, sizeof graph->rank);
    for (uint32_t round = 0; changed && round <= graph->count; round++) {
        changed = false;
        for (uint32_t i = 0; i < graph->count; i++)
            for (uint32_t j = 0; j < graph->count; j++)
                if (graph->depends[i][j] && graph->rank[i] <= graph->rank[j]) {
                    graph->rank[i] = graph->rank[j] + 1;
                    changed = true;
                }
    }
    return !changed;
}

ti_dag *graph_declare(const tt_graph *graph)
{
    ti_dag *dag = ti_dag_new("random", 6);
    REQUIRE(dag);
    dag->failure_strategy = graph->strategy;
    char id[16];
    if (graph->permits)
        ti_dag_limit(dag, "db", 2, graph->permits);
    for (uint32_t i = 0; i < graph->count; i++) {
        ti_dag_add(dag, id, (size_t)sprintf(id, "p%u", i), graph->intent[i], 0);
        if (graph->permits && graph->uses[i])
            ti_dag_uses(dag, "db", 2);
        for (uint32_t j = 0; j < graph->count; j++)
            if (graph->depends[i][j])
                ti_dag_depends_on(dag, id, (size_t)sprintf(id, "p%u", j));
        if (graph->act[i] == GRAPH_RETRY)
            dag->processors[i].retry =
                (ti_retry){.max = GRAPH_RETRIES, .backoff = 10000, .most = 20000, .factor = 1.5};
        if (graph->payload_from[i] != GRAPH_NOBODY)
            ti_dag_payload_from(dag, id, (size_t)sprintf(id, "p%u", graph->payload_from[i]));
    }
    return dag;
}

uint64_t graph_answer(uint32_t processor, uint64_t payload)
{
    return (payload ^ processor) * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

/* Whether a stands after b by (rank, index); nobody stands before all. */
static bool after(const tt_graph *graph, uint32_t a, uint32_t b)
{
    if (a == GRAPH_NOBODY || b == GRAPH_NOBODY)
        return a != GRAPH_NOBODY;
    return graph->rank[a] != graph->rank[b] ? graph->rank[a] > graph->rank[b] : a > b;
}

/* The least of two failures, where nobody is none. */
static uint32_t first_failure(const tt_graph *graph, uint32_t a, uint32_t b)
{
    if (a == GRAPH_NOBODY || b == GRAPH_NOBODY)
        return a == GRAPH_NOBODY ? b : a;
    return after(graph, a, b) ? b : a;
}

static tt_outcome expect_one(const tt_graph *graph, uint32_t i, uint64_t input,
                             const tt_outcome *outcomes)
{
    tt_outcome one = {
        .status = TI_COMPLETED, .root = GRAPH_NOBODY, .out = GRAPH_NOBODY, .value = input};
    for (uint32_t j = 0; j < graph->count; j++) {
        if (!graph->depends[i][j])
            continue;
        bool fixed = graph->payload_from[i] != GRAPH_NOBODY;
        if (fixed ? graph->payload_from[i] == j : after(graph, outcomes[j].out, one.out)) {
            one.out = outcomes[j].out;
            one.value = outcomes[j].value;
        }
        if (graph->strategy == TI_CONTINUE_ON_ERROR)
            one.root = first_failure(graph, one.root, outcomes[j].root);
    }
    one.in = one.value;
    if (one.root != GRAPH_NOBODY) {
        one.status = TI_SKIPPED;
    } else if (graph->act[i] == GRAPH_FAIL) {
        one.status = TI_FAILED;
        one.root = i;
    } else if (graph->act[i] == GRAPH_SKIP) {
        one.status = TI_SKIPPED;
    } else if (graph->intent[i] == TI_TRANSFORM) {
        one.out = i;
        one.value = graph->act[i] == GRAPH_PASS ? one.value : graph_answer(i, one.value);
    }
    return one;
}

tt_outcome graph_expect(const tt_graph *graph, uint64_t input, tt_outcome *outcomes)
{
    tt_outcome whole = {
        .status = TI_COMPLETED, .root = GRAPH_NOBODY, .out = GRAPH_NOBODY, .value = input};
    for (uint32_t rank = 0; rank < graph->count; rank++)
        for (uint32_t i = 0; i < graph->count; i++)
            if (graph->rank[i] == rank)
                outcomes[i] = expect_one(graph, i, input, outcomes);
    for (uint32_t i = 0; i < graph->count; i++) {
        if (after(graph, outcomes[i].out, whole.out)) {
            whole.out = outcomes[i].out;
            whole.value = outcomes[i].value;
        }
        if (outcomes[i].status == TI_FAILED)
            whole.root = first_failure(graph, whole.root, i);
    }
    if (whole.root != GRAPH_NOBODY)
        whole.status = TI_FAILED;
    return whole;
}
