/* SPDX-License-Identifier: MIT */
/* The memory of a worker's Lua state, against a list of what it gave out. */
#include "allocator.h"

#include "bindings/heap.h"

#include <stdint.h>
#include <string.h>

#include "check.h"

enum { BLOCKS = 3000, TURNS = 60000 };

static struct {
    unsigned char *bytes;
    size_t size;
    unsigned char mark;
} blocks[BLOCKS];

static uint32_t seed = 1;

static uint32_t dice(uint32_t sides)
{
    return check_random(&seed) % sides;
}

/* Mostly small, as in Lua; up to a few pages. */
static size_t some_size(void)
{
    return 1 + (dice(10) ? dice(600) : dice(40000));
}

static void check_mark(size_t i, size_t size)
{
    for (size_t k = 0; k < size; k++)
        if (blocks[i].bytes[k] != blocks[i].mark) {
            CHECK_INT(blocks[i].bytes[k], blocks[i].mark);
            return;
        }
}

static void mark(size_t i, size_t size)
{
    blocks[i].size = size;
    blocks[i].mark = (unsigned char)dice(256);
    if (size)
        memset(blocks[i].bytes, blocks[i].mark, size);
}

static void turn(ti_heap *heap, size_t i)
{
    size_t old = blocks[i].size, size = dice(3) ? some_size() : 0;
    check_mark(i, old);
    unsigned char *bytes = ti_heap_allocate(heap, blocks[i].bytes, old, size);
    CHECK(bytes != NULL || size == 0);
    CHECK((uintptr_t)bytes % 16 == 0);
    blocks[i].bytes = bytes;
    check_mark(i, old < size ? old : size);
    mark(i, size);
}

static void drop_all(ti_heap *heap)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        check_mark(i, blocks[i].size);
        ti_heap_allocate(heap, blocks[i].bytes, blocks[i].size, 0);
        blocks[i].bytes = NULL;
        blocks[i].size = 0;
    }
}

static void blocks_keep_what_is_written_to_them(void)
{
    ti_heap *heap = ti_heap_new();
    for (int i = 0; i < TURNS; i++)
        turn(heap, dice(BLOCKS));
    drop_all(heap);
    ti_heap_free(heap);
}

static void memory_for_small_blocks_is_used_again_and_given_back(void)
{
    ti_heap *heap = ti_heap_new();
    size_t before = 0, most = 0;
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            blocks[i].bytes = ti_heap_allocate(heap, NULL, 5, 512 - (size_t)round * 16);
            CHECK(blocks[i].bytes != NULL);
            mark(i, 512 - (size_t)round * 16);
        }
        if (round == 0)
            most = ti_heap_reserved(heap);
        CHECK(ti_heap_reserved(heap) <= most + before);
        drop_all(heap);
        before = ti_heap_reserved(heap); /* a little stays */
        CHECK(before < most);
    }
    CHECK(most >= (size_t)BLOCKS * 512);
    ti_heap_free(heap);
}

static void a_new_block_of_no_bytes_is_none(void)
{
    ti_heap *heap = ti_heap_new();
    CHECK(ti_heap_allocate(heap, NULL, 0, 0) == NULL);
    ti_heap_free(heap);
    ti_heap_free(NULL);
}

/* Lua up to 5.3 relies on it. */
static void a_block_shrinks_also_where_there_is_no_memory(void)
{
    ti_heap *heap = ti_heap_new();
    char *block = ti_heap_allocate(heap, NULL, 0, 512),
         *large = ti_heap_allocate(heap, NULL, 0, 900);
    strcpy(block, "as it was");
    strcpy(large, "this too");
    starved = pthread_self();
    fail_ever_after = true;
    fail_at = made;
    CHECK(ti_heap_allocate(heap, block, 512, 100000) == NULL);
    CHECK(ti_heap_allocate(heap, NULL, 0, 100000) == NULL);
    for (size_t size = 512; size > 16; size -= 16) {
        char *shrunk = ti_heap_allocate(heap, block, size, size - 16);
        REQUIRE(shrunk != NULL);
        block = shrunk;
    }
    large = ti_heap_allocate(heap, large, 900, 20);
    fail_at = -1;
    fail_ever_after = false;
    REQUIRE(large != NULL);
    CHECK_TEXT(block, "as it was");
    CHECK_TEXT(large, "this too");
    ti_heap_allocate(heap, large, 20, 0);
    ti_heap_allocate(heap, block, 16, 0);
    ti_heap_free(heap);
}

int main(void)
{
    RUN(blocks_keep_what_is_written_to_them);
    RUN(memory_for_small_blocks_is_used_again_and_given_back);
    RUN(a_new_block_of_no_bytes_is_none);
    RUN(a_block_shrinks_also_where_there_is_no_memory);
    return check_report();
}
