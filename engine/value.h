/* SPDX-License-Identifier: MIT */
/* Values: what flows between processors. Immutable, reference-counted from any thread, one piece of
 * memory each, however deeply nested.
 *
 * A value is a block of cells. A cell is 16 bytes: a kind, a size, and either a scalar or the
 * distance in bytes to what it holds (the bytes of a string, the cells of an array or a map). The
 * distances are relative to the cell, so a block can be built in a scratch buffer and moved. */
#ifndef TI_VALUE_H
#define TI_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/atomics.h"

/* Tables nested deeper than this are refused: every walk over a value may recurse. */
#define TI_MAX_DEPTH 100

/* Bytes that belong to somebody else. */
typedef struct ti_text {
    const char *bytes;
    size_t size;
} ti_text;

typedef enum ti_kind {
    TI_NIL,
    TI_NULL, /* a null that can be stored in a table */
    TI_BOOLEAN,
    TI_INTEGER,
    TI_FLOAT,
    TI_STRING,
    TI_ARRAY, /* `size` cells */
    TI_MAP,   /* `size` pairs of cells: key, value, key, value... keys are unique */
} ti_kind;

typedef struct ti_cell {
    uint64_t kind : 4;
    uint64_t size : 60;
    union {
        bool boolean;
        int64_t integer;
        double number;
        uint64_t offset;
    } as;
} ti_cell;

/* Where a value lies. */
typedef enum ti_home {
    TI_HEAP,
    TI_IMMORTAL, /* one of the few static ones */
    TI_PACKED,   /* from here on: in a ti_block, so many grains from its beginning */
} ti_home;

typedef struct ti_value {
    atomic_uint references; /* [atomic] of one on the heap */
    uint32_t home;          /* [const] ti_home */
    size_t bytes;           /* [const] of `root` and all that follows it */
    ti_cell root;           /* [const] */
} ti_value;

struct ti_arena;

static inline const char *ti_cell_string(const ti_cell *cell)
{
    return (const char *)cell + cell->as.offset;
}

static inline const ti_cell *ti_cell_items(const ti_cell *cell)
{
    return (const ti_cell *)(const void *)((const char *)cell + cell->as.offset);
}

/* All makers return a new reference, or NULL when there is no memory. */
ti_value *ti_value_nil(void);
ti_value *ti_value_null(void);
ti_value *ti_value_boolean(bool boolean);
ti_value *ti_value_integer(int64_t integer);
ti_value *ti_value_float(double number);
/* Copies `size` bytes, any bytes; the copy has a NUL after them. */
ti_value *ti_value_string(const char *bytes, size_t size);

/* The same where an arena has room for it; then it is packed, and nobody has a reference: it lives
 * as long as the arena's run. On the heap if the arena is NULL or the value large. */
ti_value *ti_value_string_in(struct ti_arena *arena, const char *bytes, size_t size);
ti_value *ti_value_scalar_in(struct ti_arena *arena, const ti_cell *scalar);

static inline bool ti_value_is_packed(const ti_value *value)
{
    return value->home >= TI_PACKED;
}

/* From any thread. NULL is fine. */
ti_value *ti_value_retain(ti_value *value);
void ti_value_release(ti_value *value);

/* Same kind and content; floats by value, and a NaN equals a NaN. Maps have no order. */
bool ti_value_equal(const ti_cell *a, const ti_cell *b);

/* Builds nested values in a growing scratch buffer that can be used again. Not for two threads at
 * once. Cells are named by their offset, since the buffer moves as it grows. The root is at 0. */
typedef struct ti_builder {
    char *data;
    size_t used, capacity;
    size_t cells; /* in tables so far */
    size_t most;  /* bytes, beyond which there is "no memory"; 0: any number */
} ti_builder;

/* Forgets what was built and makes room for the root. False: no memory. */
bool ti_builder_begin(ti_builder *builder);

/* The cell at an offset; good until the next call that may grow the buffer. */
static inline ti_cell *ti_builder_cell(ti_builder *builder, size_t at)
{
    return (ti_cell *)(void *)(builder->data + at);
}

/* Makes the cell at `at` a string, or an array or map of `count` items or pairs, all nil for now;
 * *items is the offset of the first. False: no memory. */
bool ti_builder_string(ti_builder *builder, size_t at, const char *bytes, size_t size);
bool ti_builder_table(ti_builder *builder, size_t at, ti_kind kind, size_t count, size_t *items);

/* The value built, as a new reference, or in an arena (or NULL); NULL: no memory. */
ti_value *ti_builder_finish(ti_builder *builder, struct ti_arena *arena);

/* Gives the buffer back if it has grown past what is worth keeping, or `all` of it. */
void ti_builder_trim(ti_builder *builder, bool all);

#endif
