/* SPDX-License-Identifier: MIT */
/* Room for the values that the callbacks of one run make, in blocks. It is given back when the run
 * is cleared, all at once: such values are neither counted nor freed one by one, and whoever
 * retains one of them holds its block.
 *
 * The blocks of a run hang in trails: chains of which only the first has room. A worker takes a
 * trail from the run when it makes its first value, and puts it back when it turns to another run,
 * before it accounts for what it did: so when a run has settled, it has all of its blocks. */
#ifndef TI_ARENA_H
#define TI_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "engine/atomics.h"

/* What is taken from a block is a multiple of this, and so aligned. */
#define TI_ARENA_GRAIN 16u

typedef struct ti_block {
    atomic_uint references; /* [atomic] the run's, and what ti_value_retain takes */
    uint32_t used;          /* [trail] bytes of `data`: by who has taken its trail */
    uint32_t size;          /* [const] */
    struct ti_block *older; /* [trail] the next one of the trail */
    struct ti_block *next;  /* [trail] while it heads a trail of ti_blocks: the next trail */
    _Alignas(TI_ARENA_GRAIN) char data[];
} ti_block;

/* A run's blocks. */
typedef struct ti_blocks {
    _Atomic(ti_block *) trails; /* [atomic] those that nobody has taken */
    uint32_t size;              /* [const] of a new block */
} ti_blocks;

/* Where a worker makes values for the run that it works for. */
typedef struct ti_arena {
    ti_blocks *blocks; /* [seat] */
    ti_block *trail;   /* [seat] taken from there, or NULL */
} ti_arena;

/* For runs of so many processors. */
void ti_blocks_open(ti_blocks *blocks, uint32_t processors);
/* Nobody but holders of references uses what is in the blocks any more; a few blocks stay. */
void ti_blocks_clear(ti_blocks *blocks);
/* They go, too. */
void ti_blocks_free(ti_blocks *blocks);

/* Room for so many bytes in *block. NULL: there is no memory, or they are too many for a block. */
void *ti_arena_take(ti_arena *arena, size_t bytes, ti_block **block);

/* Puts the trail back, if there is one. */
void ti_arena_return(ti_arena *arena);

/* One reference less. */
void ti_block_release(ti_block *block);

#endif
