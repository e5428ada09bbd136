/* SPDX-License-Identifier: MIT */
#include "engine/dag.h"

#include "check.h"

static bool same(ti_text text, const char *expected)
{
    return text.size == strlen(expected) && memcmp(text.bytes, expected, text.size) == 0;
}

static void keeps_what_is_declared(void)
{
    char name[] = "article", id[] = "trim";
    ti_dag *dag = ti_dag_new(name, 7);
    CHECK_INT(ti_dag_add(dag, id, 4, TI_TRANSFORM, 0), 0);
    memset(name, 'x', 7);
    memset(id, 'x', 4);
    CHECK_INT(ti_dag_add(dag, "words", 5, TI_ANALYZE, 3), 1);
    ti_dag_depends_on(dag, "trim", 4);
    ti_dag_depends_on(dag, "nobody", 6);
    ti_dag_payload_from(dag, "trim", 4);
    CHECK_TEXT(dag->name, "article");
    CHECK_INT(dag->count, 2);
    CHECK_INT(dag->edges, 2);
    CHECK(same(dag->processors[0].id, "trim"));
    CHECK_INT(dag->processors[0].dependencies, 0);
    CHECK(dag->processors[0].payload_from.bytes == NULL);
    CHECK_INT(dag->processors[1].intent, TI_ANALYZE);
    CHECK_INT(dag->processors[1].backend, 3);
    CHECK_INT(dag->processors[1].dependencies, 2);
    CHECK(same(dag->dependencies[dag->processors[1].first_dependency + 1], "nobody"));
    CHECK(same(dag->processors[1].payload_from, "trim"));
    CHECK(!dag->failed);
    ti_dag_free(dag);
}

static void has_no_name_and_is_reactive_by_default(void)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    CHECK(dag->name == NULL);
    CHECK_INT(dag->failure_strategy, TI_FAIL_FAST);
    CHECK_INT(dag->max_concurrency, 0);
    CHECK(!dag->profile);
    ti_dag_free(dag);
    ti_dag_free(NULL);
}

static void ids_may_hold_any_bytes_and_be_of_any_size(void)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    static char huge[100000];
    memset(huge, 'h', sizeof huge);
    ti_dag_add(dag, "a\0b", 3, TI_TRANSFORM, 0);
    ti_dag_add(dag, huge, sizeof huge, TI_TRANSFORM, 0);
    ti_dag_add(dag, "after", 5, TI_TRANSFORM, 0);
    CHECK_INT(dag->processors[0].id.size, 3);
    CHECK(memcmp(dag->processors[0].id.bytes, "a\0b", 3) == 0);
    CHECK_INT(dag->processors[1].id.size, sizeof huge);
    CHECK(memcmp(dag->processors[1].id.bytes, huge, sizeof huge) == 0);
    CHECK(same(dag->processors[2].id, "after"));
    ti_dag_free(dag);
}

/* Ids must not move while the arrays and the text blocks grow. */
static void grows_without_losing_anything(void)
{
    enum { COUNT = 20000 };
    ti_dag *dag = ti_dag_new(NULL, 0);
    char id[32];
    for (uint32_t i = 0; i < COUNT; i++) {
        CHECK_INT(ti_dag_add(dag, id, (size_t)sprintf(id, "processor %u", i), TI_TRANSFORM, 0), i);
        for (uint32_t k = 0; k < i % 4; k++)
            ti_dag_depends_on(dag, id, (size_t)sprintf(id, "processor %u", k));
    }
    uint32_t edge = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        sprintf(id, "processor %u", i);
        CHECK(same(dag->processors[i].id, id));
        CHECK_INT(dag->processors[i].first_dependency, edge);
        for (uint32_t k = 0; k < i % 4; k++) {
            sprintf(id, "processor %u", k);
            CHECK(same(dag->dependencies[edge++], id));
        }
    }
    CHECK_INT(dag->edges, edge);
    ti_dag_free(dag);
}

static void problems_are_kept_in_order(void)
{
    ti_problems problems = {0};
    char text[3000];
    memset(text, 't', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (uint32_t i = 0; i < 100; i++)
        ti_problems_add(&problems, i, "%u is wrong with %.*s", i, 3, "abcdef");
    ti_problems_add(&problems, TI_NONE, "%s", text);
    CHECK_INT(problems.count, 101);
    CHECK_INT(problems.list[99].processor, 99);
    CHECK_TEXT(problems.list[99].text, "99 is wrong with abc");
    CHECK_TEXT(problems.list[100].text, text);
    CHECK(!problems.failed);
    ti_problems_clear(&problems);
    CHECK(problems.list == NULL && problems.count == 0);
    ti_problems_clear(&problems); /* again is fine */
}

int main(void)
{
    RUN(keeps_what_is_declared);
    RUN(has_no_name_and_is_reactive_by_default);
    RUN(ids_may_hold_any_bytes_and_be_of_any_size);
    RUN(grows_without_losing_anything);
    RUN(problems_are_kept_in_order);
    return check_report();
}
