/* SPDX-License-Identifier: MIT */
#include "engine/arena.h"

#include <stdbool.h>
#include <stdlib.h>

#include "engine/live.h"

/* A block has room for so much per processor: a short string each. */
#define PER_PROCESSOR 96u
#define LEAST ((size_t)1 << 10)
#define MOST ((size_t)64 << 10)

/* What takes more than this part of a block has an allocation of its own, so little is wasted. */
#define PARTS 4

/* A run keeps so many blocks for its next flight: to allocate large pieces and give them back all
 * the time would also have malloc tidy up what is small, over and over. */
#define KEPT 2

/* The address sanitizer sees what is read after it was given back, or beyond its end. */
#if defined(__SANITIZE_ADDRESS__)
void __asan_poison_memory_region(void const volatile *bytes, size_t size);
void __asan_unpoison_memory_region(void const volatile *bytes, size_t size);
#define GAP TI_ARENA_GRAIN
#define hide(bytes, size) __asan_poison_memory_region((bytes), (size))
#define show(bytes, size) __asan_unpoison_memory_region((bytes), (size))
#else
#define GAP 0
#define hide(bytes, size) ((void)0)
#define show(bytes, size) ((void)0)
#endif

void ti_blocks_open(ti_blocks *blocks, uint32_t processors)
{
    size_t size = (size_t)processors * PER_PROCESSOR;
    atomic_init(&blocks->trails, NULL);
    blocks->size = (uint32_t)(size < LEAST ? LEAST : size > MOST ? MOST : size);
}

static ti_block *new_block(size_t size)
{
    ti_block *block = malloc(sizeof *block + size);
    if (!block)
        return NULL;
    *block = (ti_block){.size = (uint32_t)size};
    atomic_init(&block->references, 1);
    hide(block->data, size);
    ti_live_add(TI_LIVE_BLOCKS, 1);
    return block;
}

static void free_block(ti_block *block)
{
    ti_live_add(TI_LIVE_BLOCKS, -1);
    show(block->data, block->size);
    free(block);
}

void ti_block_release(ti_block *block)
{
    if (ti_drop_reference(&block->references))
        free_block(block);
}

static void put_back(ti_blocks *blocks, ti_block *first, ti_block *last)
{
    ti_block *top = ti_load_relaxed(&blocks->trails);
    do
        last->next = top;
    while (!ti_cas_sc(&blocks->trails, &top, first));
}

/* Takes them all and puts all but one back, so nobody takes one that was put back meanwhile for the
 * one it saw before. */
static ti_block *take_trail(ti_blocks *blocks)
{
    ti_block *first =
        ti_load_relaxed(&blocks->trails) ? ti_exchange_sc(&blocks->trails, NULL) : NULL;
    ti_block *rest = first ? first->next : NULL, *last = rest;
    while (last && last->next)
        last = last->next;
    if (rest)
        put_back(blocks, rest, last);
    return first;
}

void ti_arena_return(ti_arena *arena)
{
    if (arena->trail)
        put_back(arena->blocks, arena->trail, arena->trail);
    arena->trail = NULL;
}

static bool has_room(const ti_block *block, size_t bytes)
{
    return block && bytes <= block->size - block->used;
}

static void put_before(ti_arena *arena, ti_block *trail)
{
    ti_block *last = trail;
    while (last->older)
        last = last->older;
    last->older = arena->trail;
    arena->trail = trail;
}

/* False: no memory. */
static bool make_room(ti_arena *arena, size_t bytes)
{
    ti_block *block;
    while ((block = take_trail(arena->blocks))) {
        put_before(arena, block);
        if (has_room(block, bytes))
            return true;
    }
    if (!(block = new_block(arena->blocks->size)))
        return false;
    put_before(arena, block);
    return true;
}

void *ti_arena_take(ti_arena *arena, size_t bytes, ti_block **block)
{
    if (bytes > arena->blocks->size / PARTS)
        return NULL;
    size_t grains = (bytes + GAP + TI_ARENA_GRAIN - 1) & ~(size_t)(TI_ARENA_GRAIN - 1);
    if (!has_room(arena->trail, grains) && !make_room(arena, grains))
        return NULL;
    *block = arena->trail;
    void *room = arena->trail->data + arena->trail->used;
    arena->trail->used += (uint32_t)grains;
    show(room, bytes);
    return room;
}

/* False: somebody holds it, and it goes with the last reference. */
static bool recycle(ti_block *block)
{
    if (ti_load_acquire(&block->references) > 1)
        return false;
    hide(block->data, block->size);
    block->used = 0;
    block->older = NULL;
    return true;
}

/* Keeps so many, each as a trail of its own. */
static void clear(ti_blocks *blocks, int most)
{
    ti_block *trail = ti_load_relaxed(&blocks->trails), *kept = NULL, *next_trail, *older;
    for (; trail; trail = next_trail) {
        next_trail = trail->next;
        for (ti_block *block = trail; block; block = older) {
            older = block->older;
            if (most > 0 && recycle(block)) {
                block->next = kept;
                kept = block;
                most--;
            } else {
                ti_block_release(block);
            }
        }
    }
    ti_store_relaxed(&blocks->trails, kept);
}

void ti_blocks_clear(ti_blocks *blocks)
{
    if (ti_load_relaxed(&blocks->trails))
        clear(blocks, KEPT);
}

void ti_blocks_free(ti_blocks *blocks)
{
    clear(blocks, 0);
}
