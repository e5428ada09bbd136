/* SPDX-License-Identifier: MIT */
/* Where the values of a run lie, and how long. */
#include "engine/arena.h"

#include "check.h"
#include "engine/live.h"
#include "engine/value.h"

enum { PROCESSORS = 1000, TURNS = 2000 };

static ti_value *text(ti_arena *arena, char letter, size_t size)
{
    char bytes[2000];
    memset(bytes, letter, size);
    ti_value *value = ti_value_string_in(arena, bytes, size);
    REQUIRE(value != NULL);
    return value;
}

static void check_letters(const ti_value *value, char letter, size_t size)
{
    CHECK_INT(value->root.size, size);
    for (size_t i = 0; i < size; i++)
        if (ti_cell_string(&value->root)[i] != letter)
            check_fail(__FILE__, __LINE__, "byte %zu is %c, not %c", i,
                       ti_cell_string(&value->root)[i], letter);
}

static void small_values_are_packed_and_large_ones_are_not(void)
{
    ti_blocks blocks;
    ti_blocks_open(&blocks, 1);
    ti_arena arena = {.blocks = &blocks};
    ti_value *small = text(&arena, 's', 32), *large = text(&arena, 'l', 1500);
    ti_value *number = ti_value_scalar_in(&arena, &(ti_cell){.kind = TI_INTEGER, .as.integer = 7});
    CHECK(ti_value_is_packed(small));
    CHECK(ti_value_is_packed(number));
    CHECK(!ti_value_is_packed(large));
    CHECK(!ti_value_is_packed(ti_value_scalar_in(&arena, &(ti_cell){.kind = TI_NIL})));
    check_letters(small, 's', 32);
    check_letters(large, 'l', 1500);
    CHECK_INT(number->root.as.integer, 7);
    ti_value_release(large);
    ti_arena_return(&arena);
    ti_blocks_free(&blocks);
}

static void a_value_that_is_held_outlives_its_run(void)
{
    ti_blocks blocks;
    ti_blocks_open(&blocks, 4);
    ti_arena arena = {.blocks = &blocks};
    ti_value *held = ti_value_retain(text(&arena, 'h', 100));
    ti_arena_return(&arena);
    ti_blocks_clear(&blocks);
    ti_value *next = text(&arena, 'n', 100); /* of the next flight */
    check_letters(held, 'h', 100);
    check_letters(next, 'n', 100);
    ti_value_release(held);
    ti_arena_return(&arena);
    ti_blocks_free(&blocks);
}

static void blocks_are_used_again(void)
{
    ti_blocks blocks;
    ti_blocks_open(&blocks, PROCESSORS);
    ti_arena arena = {.blocks = &blocks};
    const ti_value *first = NULL;
    for (int flight = 0; flight < 3; flight++) {
        ti_value *value = text(&arena, 'x', 32);
        CHECK(flight == 0 || value == first);
        first = value;
        ti_arena_return(&arena);
        ti_blocks_clear(&blocks);
    }
    ti_blocks_free(&blocks);
}

typedef struct tt_shared {
    ti_blocks blocks;
    ti_value *made[4][TURNS];
} tt_shared;

/* Like a worker that turns to other runs again and again. */
static void make_some(void *data, unsigned index)
{
    tt_shared *shared = data;
    ti_arena arena = {.blocks = &shared->blocks};
    for (int i = 0; i < TURNS; i++) {
        shared->made[index][i] = text(&arena, (char)('a' + index), 1 + (size_t)i % 60);
        if (i % 7 == 0)
            ti_arena_return(&arena);
    }
    ti_arena_return(&arena);
}

static void workers_share_the_blocks_of_a_run(void)
{
    static tt_shared shared;
    ti_blocks_open(&shared.blocks, PROCESSORS);
    for (int flight = 0; flight < 5; flight++) {
        check_threads(4, make_some, &shared);
        for (unsigned w = 0; w < 4; w++)
            for (int i = 0; i < TURNS; i++)
                check_letters(shared.made[w][i], (char)('a' + w), 1 + (size_t)i % 60);
        ti_blocks_clear(&shared.blocks);
    }
    ti_blocks_free(&shared.blocks);
}

static void nothing_is_left(void)
{
#ifndef NDEBUG
    CHECK_INT(ti_load_relaxed(&ti_live[TI_LIVE_BLOCKS]), 0);
    CHECK_INT(ti_load_relaxed(&ti_live[TI_LIVE_VALUES]), 0);
#endif
}

int main(void)
{
    RUN(small_values_are_packed_and_large_ones_are_not);
    RUN(a_value_that_is_held_outlives_its_run);
    RUN(blocks_are_used_again);
    RUN(workers_share_the_blocks_of_a_run);
    RUN(nothing_is_left);
    return check_report();
}
