/* SPDX-License-Identifier: MIT */
#include "engine/value.h"

#include <math.h>

#include "check.h"

static unsigned references(ti_value *value)
{
    return atomic_load(&value->references);
}

static bool equal(const ti_value *a, const ti_value *b)
{
    return ti_value_equal(&a->root, &b->root);
}

/* As ti_value_equal on two values whose references are given up. */
static bool same(ti_value *a, ti_value *b)
{
    bool yes = equal(a, b), back = equal(b, a);
    CHECK(yes == back);
    ti_value_release(a);
    ti_value_release(b);
    return yes;
}

static void scalars_keep_what_they_are_given(void)
{
    CHECK_INT(ti_value_nil()->root.kind, TI_NIL);
    CHECK_INT(ti_value_null()->root.kind, TI_NULL);
    CHECK_INT(ti_value_boolean(true)->root.kind, TI_BOOLEAN);
    CHECK(ti_value_boolean(true)->root.as.boolean && !ti_value_boolean(false)->root.as.boolean);
    static const int64_t integers[] = {0, 1, -1, INT64_MAX, INT64_MIN, (INT64_C(1) << 53) + 1};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        ti_value *value = ti_value_integer(integers[i]);
        CHECK_INT(value->root.kind, TI_INTEGER);
        CHECK(value->root.as.integer == integers[i]);
        ti_value_release(value);
    }
    static const double floats[] = {0.0, -0.5, 1e308, 5e-324, INFINITY};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        ti_value *value = ti_value_float(floats[i]);
        CHECK_INT(value->root.kind, TI_FLOAT);
        CHECK(value->root.as.number == floats[i]);
        ti_value_release(value);
    }
}

static void strings_hold_any_bytes(void)
{
    char bytes[] = "a\0\xff\0z";
    ti_value *value = ti_value_string(bytes, 5);
    memset(bytes, 'x', sizeof bytes);
    CHECK_INT(value->root.kind, TI_STRING);
    CHECK_INT(value->root.size, 5);
    CHECK(memcmp(ti_cell_string(&value->root), "a\0\xff\0z", 6) == 0); /* and a NUL after them */
    CHECK(value->bytes >= sizeof(ti_cell) + 6);
    ti_value_release(value);
    value = ti_value_string("", 0);
    CHECK_INT(value->root.size, 0);
    CHECK(*ti_cell_string(&value->root) == '\0');
    ti_value_release(value);
}

static void sizes_that_cannot_be_are_refused(void)
{
    CHECK(ti_value_string("", SIZE_MAX) == NULL);
    CHECK(ti_value_string("", SIZE_MAX / 2 + 1) == NULL);
    CHECK(ti_value_string("", SIZE_MAX - sizeof(ti_value)) == NULL);
    ti_builder builder = {0};
    size_t items;
    CHECK(ti_builder_begin(&builder));
    CHECK(!ti_builder_string(&builder, 0, "", SIZE_MAX / 2));
    CHECK(!ti_builder_table(&builder, 0, TI_ARRAY, SIZE_MAX, &items));
    CHECK(!ti_builder_table(&builder, 0, TI_ARRAY, SIZE_MAX / sizeof(ti_cell) + 1, &items));
    CHECK(!ti_builder_table(&builder, 0, TI_MAP, SIZE_MAX / 2 / sizeof(ti_cell) + 1, &items));
    ti_builder_trim(&builder, true);
}

static void equality_is_of_kind_and_content(void)
{
    CHECK(same(ti_value_nil(), ti_value_nil()));
    CHECK(!same(ti_value_nil(), ti_value_null()));
    CHECK(!same(ti_value_nil(), ti_value_boolean(false)));
    CHECK(!same(ti_value_boolean(true), ti_value_boolean(false)));
    CHECK(same(ti_value_integer(1), ti_value_integer(1)));
    CHECK(!same(ti_value_integer(1), ti_value_float(1)));
    CHECK(!same(ti_value_integer(0), ti_value_boolean(false)));
    CHECK(same(ti_value_float(0.0), ti_value_float(-0.0)));
    CHECK(same(ti_value_float(NAN), ti_value_float(-NAN)));
    CHECK(!same(ti_value_float(NAN), ti_value_float(0)));
    CHECK(same(ti_value_string("a\0b", 3), ti_value_string("a\0b", 3)));
    CHECK(!same(ti_value_string("a\0b", 3), ti_value_string("a\0c", 3)));
    CHECK(!same(ti_value_string("a", 1), ti_value_string("a\0", 2)));
    CHECK(!same(ti_value_string("1", 1), ti_value_integer(1)));
}

static size_t set_string(ti_builder *builder, size_t at, const char *text)
{
    REQUIRE(ti_builder_string(builder, at, text, strlen(text)));
    return at + sizeof(ti_cell);
}

static size_t set_integer(ti_builder *builder, size_t at, int64_t integer)
{
    *ti_builder_cell(builder, at) = (ti_cell){.kind = TI_INTEGER, .as.integer = integer};
    return at + sizeof(ti_cell);
}

static size_t set_table(ti_builder *builder, size_t at, ti_kind kind, size_t count)
{
    size_t items;
    REQUIRE(ti_builder_table(builder, at, kind, count, &items));
    return items;
}

/* {list = {1, "two"}, name = "n"}, its pairs in either order. */
static ti_value *record(ti_builder *builder, bool backwards)
{
    REQUIRE(ti_builder_begin(builder));
    size_t at = set_table(builder, 0, TI_MAP, 2);
    if (backwards)
        at = set_string(builder, set_string(builder, at, "name"), "n");
    at = set_string(builder, at, "list");
    size_t items = set_table(builder, at, TI_ARRAY, 2);
    set_string(builder, set_integer(builder, items, 1), "two");
    if (!backwards)
        set_string(builder, set_string(builder, at + sizeof(ti_cell), "name"), "n");
    return ti_builder_finish(builder, NULL);
}

static void a_nested_value_reads_as_it_was_built(void)
{
    ti_builder builder = {0};
    ti_value *value = record(&builder, false);
    const ti_cell *pairs = ti_cell_items(&value->root);
    CHECK_INT(value->root.kind, TI_MAP);
    CHECK_INT(value->root.size, 2);
    CHECK_TEXT(ti_cell_string(&pairs[0]), "list");
    CHECK_INT(pairs[1].size, 2);
    CHECK_INT(ti_cell_items(&pairs[1])[0].as.integer, 1);
    CHECK_TEXT(ti_cell_string(&ti_cell_items(&pairs[1])[1]), "two");
    CHECK_TEXT(ti_cell_string(&pairs[3]), "n");
    ti_value_release(value);
    ti_builder_trim(&builder, true);
}

static void maps_have_no_order(void)
{
    ti_builder builder = {0};
    CHECK(same(record(&builder, false), record(&builder, true)));
    ti_value *value = record(&builder, false);
    REQUIRE(ti_builder_begin(&builder));
    set_string(&builder, set_string(&builder, set_table(&builder, 0, TI_MAP, 1), "list"), "n");
    CHECK(!same(ti_value_retain(value), ti_builder_finish(&builder, NULL)));
    REQUIRE(ti_builder_begin(&builder));
    set_table(&builder, 0, TI_ARRAY, 2);
    CHECK(!same(value, ti_builder_finish(&builder, NULL)));
    ti_builder_trim(&builder, true);
}

static void empty_tables_are_equal_by_kind(void)
{
    ti_builder builder = {0};
    ti_value *empty[3];
    for (int i = 0; i < 3; i++) {
        REQUIRE(ti_builder_begin(&builder));
        set_table(&builder, 0, i < 2 ? TI_ARRAY : TI_MAP, 0);
        empty[i] = ti_builder_finish(&builder, NULL);
    }
    CHECK(equal(empty[0], empty[1]));
    CHECK(!equal(empty[1], empty[2]));
    for (int i = 0; i < 3; i++)
        ti_value_release(empty[i]);
    ti_builder_trim(&builder, true);
}

/* An array in an array in an array... with `leaf` at the bottom; strings of odd sizes on the way.
 */
static ti_value *nested(ti_builder *builder, int depth, int64_t leaf)
{
    REQUIRE(ti_builder_begin(builder));
    size_t at = 0;
    for (int i = 0; i < depth; i++) {
        at = set_table(builder, at, TI_ARRAY, 2);
        char text[32] = {0};
        memset(text, 's', (size_t)(i % 31));
        at = set_string(builder, at, text);
    }
    set_integer(builder, at, leaf);
    return ti_builder_finish(builder, NULL);
}

static void check_aligned(const ti_cell *cell)
{
    CHECK((uintptr_t)cell % _Alignof(ti_cell) == 0);
    size_t cells = cell->kind == TI_ARRAY ? cell->size : cell->kind == TI_MAP ? 2 * cell->size : 0;
    for (size_t i = 0; i < cells; i++)
        check_aligned(&ti_cell_items(cell)[i]);
}

static void deep_values_stay_aligned_and_equal(void)
{
    ti_builder builder = {0};
    ti_value *value = nested(&builder, TI_MAX_DEPTH, 42);
    check_aligned(&value->root);
    CHECK(same(ti_value_retain(value), nested(&builder, TI_MAX_DEPTH, 42)));
    CHECK(!same(ti_value_retain(value), nested(&builder, TI_MAX_DEPTH, 43)));
    CHECK(!same(value, nested(&builder, TI_MAX_DEPTH - 1, 42)));
    ti_builder_trim(&builder, true);
}

static void what_is_not_set_is_nil(void)
{
    ti_builder builder = {0};
    ti_value *full = nested(&builder, 50, 1);
    REQUIRE(ti_builder_begin(&builder)); /* the buffer is dirty now */
    size_t items = set_table(&builder, 0, TI_ARRAY, 100);
    for (size_t i = 0; i < 100; i++)
        CHECK_INT(ti_builder_cell(&builder, items + i * sizeof(ti_cell))->kind, TI_NIL);
    ti_value_release(full);
    ti_builder_trim(&builder, true);
    REQUIRE(ti_builder_begin(&builder));
    ti_value *value = ti_builder_finish(&builder, NULL);
    CHECK_INT(value->root.kind, TI_NIL);
    ti_value_release(value);
    ti_builder_trim(&builder, true);
}

static void trimming_keeps_a_small_buffer_only(void)
{
    ti_builder builder = {0};
    REQUIRE(ti_builder_begin(&builder));
    ti_builder_trim(&builder, false);
    CHECK(builder.data != NULL);
    set_table(&builder, 0, TI_ARRAY, 1 << 17);
    ti_builder_trim(&builder, false);
    CHECK(builder.data == NULL && builder.capacity == 0);
    ti_builder_trim(&builder, true); /* again is fine */
}

static void the_last_reference_frees(void)
{
    ti_value *value = ti_value_string("x", 1);
    CHECK_INT(references(value), 1);
    CHECK(ti_value_retain(value) == value);
    CHECK_INT(references(value), 2);
    ti_value_release(value);
    CHECK_INT(references(value), 1);
    ti_value_release(value); /* a leak is ASan's to find */
    CHECK(ti_value_retain(NULL) == NULL);
    ti_value_release(NULL);
}

static void static_values_are_never_freed(void)
{
    for (int i = 0; i < 3; i++) {
        ti_value_release(ti_value_nil());
        ti_value_release(ti_value_null());
        ti_value_release(ti_value_boolean(true));
        ti_value_release(ti_value_boolean(false));
    }
    CHECK_INT(ti_value_boolean(true)->root.as.boolean, true);
}

enum { SHARED = 3, LAST = ROUNDS(20000) };

typedef struct tt_sharing {
    ti_value *values[SHARED];
    ti_value *last[LAST];
} tt_sharing;

static void keep_and_drop(void *data, unsigned index)
{
    tt_sharing *shared = data;
    uint32_t seed = index;
    for (int round = 0; round < ROUNDS(200000); round++) {
        ti_value *value = shared->values[check_random(&seed) % SHARED];
        ti_value_retain(value);
        CHECK_INT(value->root.as.integer, 5);
        ti_value_release(value);
    }
    for (int i = 0; i < LAST; i++)
        ti_value_release(shared->last[i]);
}

/* No count is lost; and whoever is last frees, which the threads' final releases race for. */
static void references_count_from_several_threads(void)
{
    static tt_sharing shared;
    for (int i = 0; i < SHARED; i++)
        shared.values[i] = ti_value_integer(5);
    for (int i = 0; i < LAST; i++) {
        shared.last[i] = ti_value_integer(5);
        for (int k = 1; k < 4; k++)
            ti_value_retain(shared.last[i]);
    }
    check_threads(4, keep_and_drop, &shared);
    for (int i = 0; i < SHARED; i++) {
        CHECK_INT(references(shared.values[i]), 1);
        ti_value_release(shared.values[i]);
    }
}

int main(void)
{
    RUN(scalars_keep_what_they_are_given);
    RUN(strings_hold_any_bytes);
    RUN(sizes_that_cannot_be_are_refused);
    RUN(equality_is_of_kind_and_content);
    RUN(a_nested_value_reads_as_it_was_built);
    RUN(maps_have_no_order);
    RUN(empty_tables_are_equal_by_kind);
    RUN(deep_values_stay_aligned_and_equal);
    RUN(what_is_not_set_is_nil);
    RUN(trimming_keeps_a_small_buffer_only);
    RUN(the_last_reference_frees);
    RUN(static_values_are_never_freed);
    RUN(references_count_from_several_threads);
    return check_report();
}
