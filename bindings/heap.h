/* SPDX-License-Identifier: MIT */
/* Memory for one Lua state, which one thread uses at a time. Lua makes and frees small objects all
 * the time: here that takes a dozen instructions, without a lock or a look at other threads, and
 * what a state uses lies close together. After Leijen, Zorn and de Moura, "Mimalloc: Free List
 * Sharding in Action" (2019): pages of blocks of one size, each page with a free list of its own.
 * Large blocks are malloc's. */
#ifndef TI_HEAP_H
#define TI_HEAP_H

#include <stddef.h>

typedef struct ti_heap ti_heap;

/* NULL: no memory. */
ti_heap *ti_heap_new(void);

/* With all that is still allocated, except large blocks; lua_close frees those. NULL is fine. */
void ti_heap_free(ti_heap *heap);

/* A lua_Alloc: `context` is the heap. Making a block that was small smaller never fails. */
void *ti_heap_allocate(void *context, void *block, size_t old_size, size_t size);

/* How much it has from the system for small blocks, in bytes. */
size_t ti_heap_reserved(const ti_heap *heap);

#endif
