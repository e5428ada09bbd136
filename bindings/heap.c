/* SPDX-License-Identifier: MIT */
#include "bindings/heap.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Small blocks come in steps of GRAIN, up to SMALL. */
#define GRAIN 16
#define SMALL 512
#define CLASSES (SMALL / GRAIN)

/* A chunk is aligned to its size, so that the page of a block is found by its address. */
#define PAGE ((size_t)8 << 10)
#define PAGES 32
#define CHUNK (PAGES * PAGE)

/* Pages without a block that are kept, from when on a chunk of such is given back. */
#define SPARE (2 * PAGES)

typedef struct ti_free {
    struct ti_free *next;
} ti_free;

typedef struct ti_page {
    ti_free *free;                   /* blocks that were used before */
    struct ti_page *next, *previous; /* in the list of its class, unless it is full; or of empty
                                        pages */
    char *blocks;
    uint16_t used, carved, capacity; /* in blocks; carved: used at least once */
    uint16_t size;                   /* of a block, in grains; 0: the page is empty */
} ti_page;

typedef struct ti_chunk {
    struct ti_chunk *next, *previous;
    uint32_t busy; /* pages with blocks */
    ti_page pages[PAGES];
} ti_chunk;

/* The first page holds the chunk, too. The other pages do not all begin at the same place, so that
 * their first blocks do not compete for the same lines of a cache. */
#define FIRST ((sizeof(ti_chunk) + GRAIN - 1) & ~(size_t)(GRAIN - 1))
#define COLORS 8
#define COLOR 64

_Static_assert(FIRST + SMALL <= PAGE, "every page has room for a block");

struct ti_heap {
    ti_page *open[CLASSES + 1]; /* by size in grains: pages with room */
    ti_page *empty;
    uint32_t empties;
    ti_chunk *chunks;
};

static ti_chunk *chunk_of(const void *address)
{
    return (ti_chunk *)((uintptr_t)address & ~(uintptr_t)(CHUNK - 1));
}

static ti_page *page_of(const void *block)
{
    ti_chunk *chunk = chunk_of(block);
    return &chunk->pages[((uintptr_t)block & (CHUNK - 1)) / PAGE];
}

static void link_page(ti_page **list, ti_page *page)
{
    page->previous = NULL;
    page->next = *list;
    if (*list)
        (*list)->previous = page;
    *list = page;
}

static void unlink_page(ti_page **list, ti_page *page)
{
    if (page->previous)
        page->previous->next = page->next;
    else
        *list = page->next;
    if (page->next)
        page->next->previous = page->previous;
}

static void add_empty(ti_heap *heap, ti_page *page)
{
    page->size = 0;
    link_page(&heap->empty, page);
    heap->empties++;
}

static bool add_chunk(ti_heap *heap)
{
    ti_chunk *chunk = aligned_alloc(CHUNK, CHUNK);
    if (!chunk)
        return false;
    chunk->busy = 0;
    chunk->previous = NULL;
    chunk->next = heap->chunks;
    if (chunk->next)
        chunk->next->previous = chunk;
    heap->chunks = chunk;
    for (int i = PAGES; i-- > 0;)
        add_empty(heap, &chunk->pages[i]);
    return true;
}

static void drop_chunk(ti_heap *heap, ti_chunk *chunk)
{
    for (int i = 0; i < PAGES; i++)
        unlink_page(&heap->empty, &chunk->pages[i]);
    heap->empties -= PAGES;
    if (chunk->previous)
        chunk->previous->next = chunk->next;
    else
        heap->chunks = chunk->next;
    if (chunk->next)
        chunk->next->previous = chunk->previous;
    free(chunk);
}

/* Gives an empty page to a class. NULL: no memory. */
static ti_page *open_page(ti_heap *heap, size_t grains)
{
    if (!heap->empty && !add_chunk(heap))
        return NULL;
    ti_page *page = heap->empty;
    ti_chunk *chunk = chunk_of(page);
    size_t at = (size_t)(page - chunk->pages) * PAGE, size = grains * GRAIN;
    size_t begin = at ? at + at / PAGE % COLORS * COLOR : FIRST;
    unlink_page(&heap->empty, page);
    heap->empties--;
    chunk->busy++;
    page->free = NULL;
    page->blocks = (char *)chunk + begin;
    page->used = page->carved = 0;
    page->capacity = (uint16_t)((at + PAGE - begin) / size);
    page->size = (uint16_t)grains;
    link_page(&heap->open[grains], page);
    return page;
}

static void close_page(ti_heap *heap, ti_page *page)
{
    ti_chunk *chunk = chunk_of(page);
    unlink_page(&heap->open[page->size], page);
    add_empty(heap, page);
    if (--chunk->busy == 0 && heap->empties > SPARE)
        drop_chunk(heap, chunk);
}

static void *take(ti_heap *heap, size_t grains)
{
    ti_page *page = heap->open[grains];
    if (!page && !(page = open_page(heap, grains)))
        return NULL;
    ti_free *block = page->free;
    if (block)
        page->free = block->next;
    else
        block = (ti_free *)(void *)(page->blocks + (size_t)page->carved++ * grains * GRAIN);
    if (++page->used == page->capacity)
        unlink_page(&heap->open[grains], page);
    return block;
}

static void give_back(ti_heap *heap, void *data)
{
    ti_page *page = page_of(data);
    ti_free *block = data;
    block->next = page->free;
    page->free = block;
    if (page->used-- == page->capacity)
        link_page(&heap->open[page->size], page);
    if (page->used == 0 && (page->next || page->previous)) /* the last one of its class stays */
        close_page(heap, page);
}

static size_t grains_of(size_t size)
{
    return (size + GRAIN - 1) / GRAIN;
}

/* Where there is no memory for another page, a larger block will do: its page knows what it is. */
static void *take_any(ti_heap *heap, size_t grains)
{
    for (void *block; grains <= CLASSES; grains++)
        if ((block = take(heap, grains)))
            return block;
    return NULL;
}

static void *make(ti_heap *heap, size_t size)
{
    return size > SMALL ? malloc(size) : take_any(heap, grains_of(size));
}

static void drop(ti_heap *heap, void *block, size_t size)
{
    if (size > SMALL)
        free(block);
    else
        give_back(heap, block);
}

static void *move(ti_heap *heap, void *block, size_t old_size, size_t size)
{
    void *moved = make(heap, size);
    if (!moved)
        return NULL;
    memcpy(moved, block, old_size < size ? old_size : size);
    drop(heap, block, old_size);
    return moved;
}

static void *resize(ti_heap *heap, void *block, size_t old_size, size_t size)
{
    if (old_size > SMALL && size > SMALL)
        return realloc(block, size);
    if (old_size <= SMALL && page_of(block)->size == grains_of(size))
        return block;
    void *moved = move(heap, block, old_size, size);
    return moved || size > old_size || old_size > SMALL ? moved : block;
}

void *ti_heap_allocate(void *context, void *block, size_t old_size, size_t size)
{
    ti_heap *heap = context;
    if (size == 0) {
        if (block && old_size)
            drop(heap, block, old_size);
        return NULL;
    }
    return block ? resize(heap, block, old_size, size) : make(heap, size);
}

size_t ti_heap_reserved(const ti_heap *heap)
{
    size_t reserved = 0;
    for (const ti_chunk *chunk = heap->chunks; chunk; chunk = chunk->next)
        reserved += CHUNK;
    return reserved;
}

ti_heap *ti_heap_new(void)
{
    return calloc(1, sizeof(ti_heap));
}

void ti_heap_free(ti_heap *heap)
{
    if (!heap)
        return;
    for (ti_chunk *chunk = heap->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free(heap);
}
