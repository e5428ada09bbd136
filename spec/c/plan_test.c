/* SPDX-License-Identifier: MIT */
#include "engine/plan.h"

#include "check.h"
#include "graph.h"
#include "native.h"

static void depends(ti_dag *dag, const char *id)
{
    ti_dag_depends_on(dag, id, strlen(id));
}

static void add(ti_dag *dag, const char *id)
{
    ti_dag_add(dag, id, strlen(id), TI_TRANSFORM, 0);
}

static ti_dag *empty(void)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    REQUIRE(dag);
    return dag;
}

/* "b: a c; a" declares b, which depends on a and c, and then a. */
static ti_dag *declare(const char *text)
{
    ti_dag *dag = empty();
    char copy[512], *save = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *one = strtok_r(copy, ";", &save); one; one = strtok_r(NULL, ";", &save)) {
        char *inner = NULL;
        add(dag, strtok_r(one, ": ", &inner));
        for (char *id; (id = strtok_r(NULL, ": ", &inner));)
            depends(dag, id);
    }
    return dag;
}

static ti_plan *compile(ti_dag *dag)
{
    ti_problems problems = {0};
    ti_plan *plan = ti_plan_compile(dag, &problems);
    for (size_t i = 0; i < problems.count; i++)
        check_fail(__FILE__, __LINE__, "a problem: %s", problems.list[i].text);
    REQUIRE(plan);
    ti_problems_clear(&problems);
    ti_dag_free(dag);
    return plan;
}

/* All the problems of a DAG in the order found, a line each: "processor text". Static. */
static const char *problems_of(ti_dag *dag)
{
    static char text[8192];
    ti_problems problems = {0};
    CHECK(ti_plan_compile(dag, &problems) == NULL);
    CHECK(!problems.failed);
    size_t size = 0;
    *text = '\0';
    for (size_t i = 0; i < problems.count && size < sizeof text; i++) {
        const ti_problem *problem = &problems.list[i];
        size += (size_t)snprintf(text + size, sizeof text - size, "%d %s\n",
                                 (int)problem->processor, problem->text);
    }
    ti_problems_clear(&problems);
    ti_dag_free(dag);
    return text;
}

static void an_empty_dag_is_a_problem_of_the_whole(void)
{
    CHECK_TEXT(problems_of(empty()), "-1 has no processors\n");
}

static void a_self_dependency_is_a_problem(void)
{
    CHECK_TEXT(problems_of(declare("a; b: b a")), "1 depends on itself\n");
}

static void an_unknown_dependency_suggests_a_near_one(void)
{
    CHECK_TEXT(problems_of(declare("words; line: wrods")),
               "1 depends on unknown processor 'wrods' (did you mean 'words'?)\n");
    CHECK_TEXT(problems_of(declare("words; line: zebra")),
               "1 depends on unknown processor 'zebra'\n");
}

static void a_name_is_not_suggested_for_itself(void)
{
    CHECK_TEXT(problems_of(declare("other; words: wordz")),
               "1 depends on unknown processor 'wordz'\n");
}

static void a_duplicate_id_names_the_first(void)
{
    CHECK_TEXT(problems_of(declare("x; a; a; a")),
               "2 is declared twice; processor 2 has the same id\n"
               "3 is declared twice; processor 2 has the same id\n");
}

static void the_same_dependency_twice_is_a_problem(void)
{
    CHECK_TEXT(problems_of(declare("a; b: a a a")), "1 depends on 'a' twice\n"
                                                    "1 depends on 'a' twice\n");
}

static void payload_from_must_be_a_dependency(void)
{
    ti_dag *dag = declare("a; b; c: a");
    ti_dag_payload_from(dag, "b", 1);
    CHECK_TEXT(problems_of(dag), "2 payload_from is 'b', which is not one of its dependencies\n");
    dag = declare("a");
    ti_dag_payload_from(dag, "a", 1);
    CHECK_TEXT(problems_of(dag), "0 payload_from is 'a', which is not one of its dependencies\n");
}

static void a_cycle_begins_with_its_first_declared(void)
{
    CHECK_TEXT(problems_of(declare("c: a; a: b; b: c")),
               "0 depends on itself through a cycle: c -> a -> b -> c\n");
    CHECK_TEXT(problems_of(declare("b: a; a: b")),
               "0 depends on itself through a cycle: b -> a -> b\n");
}

static void what_stands_behind_a_cycle_is_not_on_it(void)
{
    CHECK_TEXT(problems_of(declare("e; z: y; y: x; x: w e; w: x")),
               "3 depends on itself through a cycle: x -> w -> x\n");
}

static void cycles_apart_are_all_reported(void)
{
    CHECK_TEXT(problems_of(declare("a: b; b: a; c: d; d: c; e: f; f: g; g: e")),
               "0 depends on itself through a cycle: a -> b -> a\n"
               "2 depends on itself through a cycle: c -> d -> c\n"
               "4 depends on itself through a cycle: e -> f -> g -> e\n");
}

/* c and d make a cycle, and lead to another one first. */
static void a_cycle_that_leads_to_another_is_reported_too(void)
{
    CHECK_TEXT(problems_of(declare("a: b; b: a; c: a d; d: c")),
               "0 depends on itself through a cycle: a -> b -> a\n"
               "2 depends on itself through a cycle: c -> d -> c\n");
}

static void all_problems_come_at_once(void)
{
    ti_dag *dag =
        declare("trim; trim; words: trmi; loop: pool; pool: loop; me: me; two: words words");
    ti_dag_payload_from(dag, "trim", 4);
    CHECK_TEXT(problems_of(dag), "1 is declared twice; processor 1 has the same id\n"
                                 "2 depends on unknown processor 'trmi' (did you mean 'trim'?)\n"
                                 "5 depends on itself\n"
                                 "6 depends on 'words' twice\n"
                                 "6 payload_from is 'trim', which is not one of its dependencies\n"
                                 "3 depends on itself through a cycle: loop -> pool -> loop\n");
}

/* Each unknown name costs a walk over all names: with many of them that must stop somewhere. */
static void thousands_of_unknown_names_take_no_time(void)
{
    ti_dag *dag = empty();
    char id[32];
    for (int i = 0; i < 20000; i++) {
        add(dag, (sprintf(id, "processor %d", i), id));
        depends(dag, (sprintf(id, "processor %d!", i), id));
    }
    ti_problems problems = {0};
    double began = check_seconds();
    CHECK(ti_plan_compile(dag, &problems) == NULL);
    CHECK(check_seconds() - began < 5);
    CHECK_INT(problems.count, 20000);
    ti_problems_clear(&problems);
    ti_dag_free(dag);
}

static const char *id_of(const ti_plan *plan, uint32_t step)
{
    static char text[64];
    ti_text id = ti_plan_id(plan, step);
    snprintf(text, sizeof text, "%.*s", (int)id.size, id.bytes);
    return text;
}

static void steps_stand_by_rank_then_as_declared(void)
{
    ti_plan *plan = compile(declare("d: b c; b: a; z; c: a; a"));
    static const char *const ids[] = {"z", "a", "b", "c", "d"};
    static const uint32_t ranks[] = {0, 0, 1, 1, 2}, slots[] = {2, 4, 1, 3, 0};
    CHECK_INT(plan->count, 5);
    CHECK_INT(plan->edges, 4);
    CHECK_INT(plan->entries, 2);
    for (uint32_t s = 0; s < 5; s++) {
        CHECK_TEXT(id_of(plan, s), ids[s]);
        CHECK_INT(plan->steps[s].rank, ranks[s]);
        CHECK_INT(plan->steps[s].slot, slots[s]);
        CHECK_INT(tt_step(plan, slots[s]), s);
        CHECK_INT(ti_plan_find(plan, ids[s], 1), s);
        CHECK_INT(plan->steps[s].payload_from, TI_NONE);
    }
    CHECK_INT(ti_plan_indegree(plan, 0), 0);
    CHECK_INT(ti_plan_indegree(plan, 4), 2);
    ti_plan_release(plan);
}

static void a_plan_keeps_the_options(void)
{
    ti_dag *dag = ti_dag_new("article", 7);
    ti_dag_add(dag, "a", 1, TI_ANALYZE, 2);
    ti_dag_add(dag, "b", 1, TI_TRANSFORM, 1);
    ti_dag_depends_on(dag, "a", 1);
    ti_dag_payload_from(dag, "a", 1);
    dag->failure_strategy = TI_BEST_EFFORT;
    dag->max_concurrency = 9;
    dag->profile = true;
    ti_plan *plan = compile(dag);
    CHECK_TEXT(plan->name, "article");
    CHECK_INT(plan->failure_strategy, TI_BEST_EFFORT);
    CHECK_INT(plan->max_concurrency, 9);
    CHECK(plan->profile);
    CHECK_INT(plan->steps[0].intent, TI_ANALYZE);
    CHECK_INT(plan->steps[0].backend, 2);
    CHECK_INT(plan->steps[1].backend, 1);
    CHECK_INT(plan->steps[1].payload_from, 0);
    CHECK(ti_plan_retain(plan) == plan);
    ti_plan_release(plan);
    ti_plan_release(plan);
    ti_plan_release(NULL);
}

static void ids_are_found_by_all_their_bytes(void)
{
    ti_dag *dag = empty();
    ti_dag_add(dag, "a\0b", 3, TI_TRANSFORM, 0);
    ti_dag_add(dag, "a\0c", 3, TI_TRANSFORM, 0);
    ti_dag_add(dag, "a", 1, TI_TRANSFORM, 0);
    ti_plan *plan = compile(dag);
    CHECK_INT(ti_plan_find(plan, "a\0b", 3), 0);
    CHECK_INT(ti_plan_find(plan, "a\0c", 3), 1);
    CHECK_INT(ti_plan_find(plan, "a", 1), 2);
    CHECK_INT(ti_plan_find(plan, "a\0d", 3), TI_NONE);
    CHECK_INT(ti_plan_find(plan, "", 0), TI_NONE);
    ti_plan_release(plan);
}

/* Whether `list`, `count` long, holds exactly the steps of those with row[i], as steps. */
static void check_edges(const ti_plan *plan, const uint32_t *list, uint32_t count, const bool *row,
                        uint32_t processors)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < processors; i++) {
        if (!row[i])
            continue;
        CHECK(found < count && list[found] == tt_step(plan, i)); /* as declared */
        found++;
    }
    CHECK_INT(count, found);
}

static void check_plan(const ti_plan *plan, const tt_graph *graph)
{
    uint32_t entries = 0;
    for (uint32_t s = 0; s < plan->count; s++) {
        const ti_step *step = &plan->steps[s];
        bool dependents[GRAPH_MOST];
        for (uint32_t i = 0; i < graph->count; i++)
            dependents[i] = graph->depends[i][step->slot];
        CHECK_INT(step->rank, graph->rank[step->slot]);
        CHECK_INT(step->intent, graph->intent[step->slot]);
        CHECK(s == 0 || step[-1].rank < step->rank ||
              (step[-1].rank == step->rank && step[-1].slot < step->slot));
        check_edges(plan, plan->dependencies + step[0].first_dependency,
                    step[1].first_dependency - step[0].first_dependency, graph->depends[step->slot],
                    graph->count);
        check_edges(plan, plan->dependents + step[0].first_dependent,
                    step[1].first_dependent - step[0].first_dependent, dependents, graph->count);
        uint32_t from = graph->payload_from[step->slot];
        CHECK_INT(step->payload_from, from == GRAPH_NOBODY ? TI_NONE : tt_step(plan, from));
        entries += step->rank == 0;
    }
    CHECK_INT(plan->entries, entries);
}

static void random_plans_are_what_the_matrix_says(void)
{
    uint32_t seed = 42;
    for (int round = 0; round < ROUNDS(2000); round++) {
        tt_graph graph;
        graph_random(&graph, &seed, false);
        ti_plan *plan = compile(graph_declare(&graph));
        CHECK_INT(plan->count, graph.count);
        check_plan(plan, &graph);
        ti_plan_release(plan);
    }
}

/* "... cycle: p1 -> p2 -> p1" must be edges of the graph that lead around. */
static void check_cycle(const tt_graph *graph, const ti_problem *problem)
{
    static const char prefix[] = "depends on itself through a cycle: p";
    CHECK(strncmp(problem->text, prefix, sizeof prefix - 1) == 0);
    char *at = problem->text + sizeof prefix - 1;
    uint32_t first = (uint32_t)strtoul(at, &at, 10), from = first, steps = 0;
    CHECK_INT(first, problem->processor);
    for (; strncmp(at, " -> p", 5) == 0; steps++) {
        uint32_t to = (uint32_t)strtoul(at + 5, &at, 10);
        CHECK(graph->depends[from][to]);
        CHECK(to >= first);
        from = to;
    }
    CHECK(steps > 1 && from == first && *at == '\0');
}

static void random_cycles_are_found(void)
{
    uint32_t seed = 7, cyclic = 0;
    for (int round = 0; round < ROUNDS(2000); round++) {
        tt_graph graph;
        graph_random(&graph, &seed, false);
        for (int extra = 0; extra < 3; extra++) {
            uint32_t i = check_random(&seed) % graph.count, j = check_random(&seed) % graph.count;
            graph.depends[i][j] = i != j;
        }
        ti_dag *dag = graph_declare(&graph);
        ti_problems problems = {0};
        ti_plan *plan = ti_plan_compile(dag, &problems);
        CHECK_INT(plan != NULL, graph_rank_all(&graph));
        CHECK_INT(plan == NULL, problems.count > 0);
        for (size_t i = 0; i < problems.count; i++)
            check_cycle(&graph, &problems.list[i]);
        cyclic += plan == NULL;
        ti_plan_release(plan);
        ti_problems_clear(&problems);
        ti_dag_free(dag);
    }
    CHECK(cyclic > 20);
}

/* reach[i][j]: a way leads from i to j. */
static void find_ways(const tt_graph *graph, bool reach[GRAPH_MOST][GRAPH_MOST])
{
    memcpy(reach, graph->depends, sizeof graph->depends);
    for (uint32_t k = 0; k < graph->count; k++)
        for (uint32_t i = 0; i < graph->count; i++)
            for (uint32_t j = 0; j < graph->count; j++)
                reach[i][j] = reach[i][j] || (reach[i][k] && reach[k][j]);
}

/* Of all processors that lie on a cycle together, one problem names some. */
static void every_knot_of_cycles_is_reported(void)
{
    uint32_t seed = 11;
    for (int round = 0; round < ROUNDS(500); round++) {
        tt_graph graph;
        bool reach[GRAPH_MOST][GRAPH_MOST];
        graph_random(&graph, &seed, false);
        for (int extra = 0; extra < 6; extra++) {
            uint32_t i = check_random(&seed) % graph.count, j = check_random(&seed) % graph.count;
            graph.depends[i][j] = i != j;
        }
        find_ways(&graph, reach);
        ti_dag *dag = graph_declare(&graph);
        ti_problems problems = {0};
        ti_plan_release(ti_plan_compile(dag, &problems));
        for (uint32_t i = 0; i < graph.count; i++) {
            bool named = !reach[i][i];
            for (size_t k = 0; k < problems.count && !named; k++) {
                uint32_t other = problems.list[k].processor;
                named = reach[i][other] && reach[other][i];
            }
            CHECK(named);
        }
        ti_problems_clear(&problems);
        ti_dag_free(dag);
    }
}

enum { LARGE = 100000 };

/* p0 <- p1 <- p2 ..., declared last first if `backwards`. */
static ti_dag *chain(uint32_t count, bool backwards)
{
    ti_dag *dag = empty();
    char id[16];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = backwards ? count - 1 - i : i;
        add(dag, (sprintf(id, "p%u", at), id));
        if (at)
            depends(dag, (sprintf(id, "p%u", at - 1), id));
    }
    return dag;
}

static void long_chains_compile(void)
{
    for (int backwards = 0; backwards < 2; backwards++) {
        ti_plan *plan = compile(chain(LARGE, backwards));
        CHECK_INT(plan->entries, 1);
        for (uint32_t s = 0; s < LARGE; s++) {
            CHECK_INT(plan->steps[s].rank, s);
            CHECK_INT(plan->steps[s].slot, backwards ? LARGE - 1 - s : s);
        }
        CHECK_INT(ti_plan_find(plan, "p77777", 6), 77777);
        ti_plan_release(plan);
    }
}

/* (Sanitizers copy the whole text for each name that is added to it.) */
static void a_long_cycle_is_printed(void)
{
    enum { LONG = ROUNDS(40000) };
    char last[16];
    ti_dag *dag = chain(LONG, true);
    ti_problems problems = {0};
    sprintf(last, "p%d", LONG - 1);
    depends(dag, last); /* the one declared last is p0 */
    CHECK(ti_plan_compile(dag, &problems) == NULL);
    CHECK_INT(problems.count, 1);
    CHECK(strlen(problems.list[0].text) > 8 * LONG);
    ti_problems_clear(&problems);
    ti_dag_free(dag);
}

/* One before many, and many before one. */
static void wide_graphs_compile(void)
{
    ti_dag *dag = empty();
    char id[16];
    add(dag, "first");
    for (uint32_t i = 0; i < LARGE; i++) {
        add(dag, (sprintf(id, "p%u", i), id));
        depends(dag, "first");
    }
    add(dag, "last");
    for (uint32_t i = 0; i < LARGE; i++)
        depends(dag, (sprintf(id, "p%u", i), id));
    ti_plan *plan = compile(dag);
    CHECK_INT(plan->edges, 2 * LARGE);
    CHECK_INT(plan->steps[1].first_dependent - plan->steps[0].first_dependent, LARGE);
    CHECK_INT(ti_plan_indegree(plan, LARGE + 1), LARGE);
    for (uint32_t i = 0; i < LARGE; i++) {
        CHECK_INT(plan->dependents[i], i + 1);
        CHECK_INT(plan->dependencies[plan->edges - LARGE + i], i + 1);
    }
    ti_plan_release(plan);
}

int main(void)
{
    RUN(an_empty_dag_is_a_problem_of_the_whole);
    RUN(a_self_dependency_is_a_problem);
    RUN(an_unknown_dependency_suggests_a_near_one);
    RUN(a_name_is_not_suggested_for_itself);
    RUN(a_duplicate_id_names_the_first);
    RUN(the_same_dependency_twice_is_a_problem);
    RUN(payload_from_must_be_a_dependency);
    RUN(a_cycle_begins_with_its_first_declared);
    RUN(what_stands_behind_a_cycle_is_not_on_it);
    RUN(cycles_apart_are_all_reported);
    RUN(a_cycle_that_leads_to_another_is_reported_too);
    RUN(all_problems_come_at_once);
    RUN(thousands_of_unknown_names_take_no_time);
    RUN(steps_stand_by_rank_then_as_declared);
    RUN(a_plan_keeps_the_options);
    RUN(ids_are_found_by_all_their_bytes);
    RUN(random_plans_are_what_the_matrix_says);
    RUN(random_cycles_are_found);
    RUN(every_knot_of_cycles_is_reported);
    RUN(long_chains_compile);
    RUN(a_long_cycle_is_printed);
    RUN(wide_graphs_compile);
    return check_report();
}
