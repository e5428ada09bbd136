/* SPDX-License-Identifier: MIT */
#include "engine/value.h"

#include <stdlib.h>
#include <string.h>

#include "engine/arena.h"
#include "engine/live.h"

/* A table that occurs often in itself, as it were, is copied for each time it occurs; so there is
 * an end to what a value may hold. */
#define MOST_CELLS ((size_t)1 << 24)

/* A scratch buffer larger than this is given back after use. */
#define KEEP_BYTES ((size_t)1 << 20)

#define IMMORTAL(cell_kind, truth)                                                                 \
    {                                                                                              \
        .references = 1, .home = TI_IMMORTAL, .bytes = sizeof(ti_cell), .root = {                  \
            .kind = (cell_kind),                                                                   \
            .as.boolean = (truth)                                                                  \
        }                                                                                          \
    }

static ti_value immortal_nil = IMMORTAL(TI_NIL, false);
static ti_value immortal_null = IMMORTAL(TI_NULL, false);
static ti_value immortal_false = IMMORTAL(TI_BOOLEAN, false);
static ti_value immortal_true = IMMORTAL(TI_BOOLEAN, true);

#ifndef NDEBUG
atomic_int ti_live[TI_LIVE_ENGINES + 1];
#endif

_Static_assert(offsetof(ti_block, data) >= TI_PACKED * TI_ARENA_GRAIN, "homes are distinct");

static ti_block *block_of(ti_value *value)
{
    return (ti_block *)(void *)((char *)value - (size_t)value->home * TI_ARENA_GRAIN);
}

/* In the arena, or else on the heap. */
static ti_value *allocate(ti_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX - sizeof(ti_value))
        return NULL;
    size_t size = offsetof(ti_value, root) + bytes;
    ti_block *block;
    ti_value *value = arena ? ti_arena_take(arena, size, &block) : NULL;
    if (value) {
        value->home = (uint32_t)((size_t)((char *)value - (char *)block) / TI_ARENA_GRAIN);
    } else {
        if (!(value = malloc(size)))
            return NULL;
        value->home = TI_HEAP;
        ti_live_add(TI_LIVE_VALUES, 1);
    }
    atomic_init(&value->references, 1);
    value->bytes = bytes;
    return value;
}

static ti_cell sized(ti_kind kind, size_t size, size_t offset)
{
    ti_cell cell = {.as.offset = offset};
    cell.kind = kind & 15;
    cell.size = size & (UINT64_MAX >> 4);
    return cell;
}

ti_value *ti_value_nil(void)
{
    return &immortal_nil;
}

ti_value *ti_value_null(void)
{
    return &immortal_null;
}

ti_value *ti_value_boolean(bool boolean)
{
    return boolean ? &immortal_true : &immortal_false;
}

static ti_value *number(ti_arena *arena, const ti_cell *cell)
{
    ti_value *value = allocate(arena, sizeof *cell);
    if (value)
        value->root = *cell;
    return value;
}

ti_value *ti_value_integer(int64_t integer)
{
    return number(NULL, &(ti_cell){.kind = TI_INTEGER, .as.integer = integer});
}

ti_value *ti_value_float(double real)
{
    return number(NULL, &(ti_cell){.kind = TI_FLOAT, .as.number = real});
}

ti_value *ti_value_scalar_in(ti_arena *arena, const ti_cell *scalar)
{
    switch ((ti_kind)scalar->kind) {
    case TI_NULL:
        return ti_value_null();
    case TI_BOOLEAN:
        return ti_value_boolean(scalar->as.boolean);
    case TI_INTEGER:
    case TI_FLOAT:
        return number(arena, scalar);
    default:
        return ti_value_nil();
    }
}

ti_value *ti_value_string(const char *bytes, size_t size)
{
    return ti_value_string_in(NULL, bytes, size);
}

ti_value *ti_value_string_in(ti_arena *arena, const char *bytes, size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    ti_value *value = allocate(arena, sizeof(ti_cell) + size + 1);
    if (!value)
        return NULL;
    value->root = sized(TI_STRING, size, sizeof(ti_cell));
    char *copy = (char *)(&value->root + 1);
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    return value;
}

ti_value *ti_value_retain(ti_value *value)
{
    if (value && value->home != TI_IMMORTAL)
        ti_add_relaxed(value->home ? &block_of(value)->references : &value->references, 1);
    return value;
}

void ti_value_release(ti_value *value)
{
    if (!value || value->home == TI_IMMORTAL)
        return;
    if (ti_value_is_packed(value)) {
        ti_block_release(block_of(value));
    } else if (ti_drop_reference(&value->references)) {
        ti_live_add(TI_LIVE_VALUES, -1);
        free(value);
    }
}

static bool scalar_equal(const ti_cell *a, const ti_cell *b)
{
    switch ((ti_kind)a->kind) {
    case TI_BOOLEAN:
        return a->as.boolean == b->as.boolean;
    case TI_INTEGER:
        return a->as.integer == b->as.integer;
    case TI_FLOAT:
        return a->as.number == b->as.number ||
               (a->as.number != a->as.number && b->as.number != b->as.number);
    case TI_STRING:
        return memcmp(ti_cell_string(a), ti_cell_string(b), a->size) == 0;
    default:
        return true;
    }
}

/* The value of a key; that of pair `first` is most likely. */
static const ti_cell *find(const ti_cell *map, const ti_cell *key, size_t first)
{
    for (size_t i = 0; i < map->size; i++) {
        const ti_cell *pair = ti_cell_items(map) + 2 * ((first + i) % map->size);
        if (ti_value_equal(pair, key))
            return pair + 1;
    }
    return NULL;
}

static bool tables_equal(const ti_cell *a, const ti_cell *b)
{
    const ti_cell *items = ti_cell_items(a), *others = ti_cell_items(b);
    for (size_t i = 0; i < a->size; i++) {
        const ti_cell *item, *other;
        if (a->kind == TI_ARRAY) {
            item = &items[i];
            other = &others[i];
        } else {
            item = &items[2 * i + 1];
            other = find(b, &items[2 * i], i);
        }
        if (!other || !ti_value_equal(item, other))
            return false;
    }
    return true;
}

bool ti_value_equal(const ti_cell *a, const ti_cell *b)
{
    if (a->kind != b->kind || a->size != b->size)
        return false;
    if (a == b)
        return true;
    if (a->kind == TI_ARRAY || a->kind == TI_MAP)
        return tables_equal(a, b);
    return scalar_equal(a, b);
}

/* Room for `bytes` more, rounded up so that what follows is aligned for cells. */
static bool grow(ti_builder *builder, size_t bytes, size_t *at)
{
    const size_t align = _Alignof(ti_cell) - 1;
    if (bytes > SIZE_MAX / 4 || builder->used > SIZE_MAX / 4)
        return false;
    size_t need = builder->used + ((bytes + align) & ~align);
    if (builder->most && need > builder->most)
        return false;
    if (need > builder->capacity) {
        size_t capacity = builder->capacity ? builder->capacity : 256;
        while (capacity < need)
            capacity *= 2;
        char *data = realloc(builder->data, capacity);
        if (!data)
            return false;
        builder->data = data;
        builder->capacity = capacity;
    }
    *at = builder->used;
    builder->used = need;
    return true;
}

bool ti_builder_begin(ti_builder *builder)
{
    size_t root;
    builder->used = builder->cells = 0;
    if (!grow(builder, sizeof(ti_cell), &root))
        return false;
    *ti_builder_cell(builder, root) = (ti_cell){.kind = TI_NIL};
    return true;
}

bool ti_builder_string(ti_builder *builder, size_t at, const char *bytes, size_t size)
{
    size_t copy;
    if (!grow(builder, size + 1, &copy))
        return false;
    memcpy(builder->data + copy, bytes, size);
    builder->data[copy + size] = '\0';
    *ti_builder_cell(builder, at) = sized(TI_STRING, size, copy - at);
    return true;
}

bool ti_builder_table(ti_builder *builder, size_t at, ti_kind kind, size_t count, size_t *items)
{
    size_t cells = kind == TI_MAP ? 2 * count : count;
    builder->cells += cells;
    if (count > MOST_CELLS || builder->cells > MOST_CELLS ||
        !grow(builder, cells * sizeof(ti_cell), items))
        return false;
    memset(builder->data + *items, 0, cells * sizeof(ti_cell));
    *ti_builder_cell(builder, at) = sized(kind, count, *items - at);
    return true;
}

ti_value *ti_builder_finish(ti_builder *builder, ti_arena *arena)
{
    ti_value *value = allocate(arena, builder->used);
    if (value)
        memcpy(&value->root, builder->data, builder->used);
    return value;
}

void ti_builder_trim(ti_builder *builder, bool all)
{
    if (!all && builder->capacity <= KEEP_BYTES)
        return;
    free(builder->data);
    *builder = (ti_builder){.most = builder->most};
}
