/* SPDX-License-Identifier: MIT */
/* A work-stealing deque of ready processors, after Chase and Lev, "Dynamic circular work-stealing
 * deque" (2005), with the orders of Lê et al. (2013) except that seq_cst accesses stand where they
 * have fences. The ring has a fixed size and is never replaced, so pushing cannot run out of memory
 * and thieves never read a freed ring: what does not fit stays with the owner (see worker.c). */
#ifndef TI_DEQUE_H
#define TI_DEQUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/atomics.h"

#ifndef TI_DEQUE_SIZE
#define TI_DEQUE_SIZE 256 /* a power of two */
#endif

struct ti_node;

typedef struct ti_deque {
    _Alignas(TI_CACHE_LINE)
        atomic_int_fast64_t top; /* [atomic] grows: thieves, and the owner's last item */
    _Alignas(TI_CACHE_LINE) atomic_int_fast64_t bottom; /* [atomic] written by the owner only */
    _Atomic(struct ti_node *) ring[TI_DEQUE_SIZE];      /* [atomic] */
} ti_deque;

/* How many items it seems to hold; exact for the owner while there are no thieves. */
static inline int64_t ti_deque_count(ti_deque *deque)
{
    return ti_load_relaxed(&deque->bottom) - ti_load_relaxed(&deque->top);
}

/* Owner only. False: it is full. */
static inline bool ti_deque_push(ti_deque *deque, struct ti_node *node)
{
    int64_t bottom = ti_load_relaxed(&deque->bottom);
    if (bottom - ti_load_acquire(&deque->top) >= TI_DEQUE_SIZE)
        return false;
    ti_store_relaxed(&deque->ring[bottom & (TI_DEQUE_SIZE - 1)], node);
    ti_store_release(&deque->bottom, bottom + 1);
    return true;
}

/* Owner only: the newest item, or NULL. */
static inline struct ti_node *ti_deque_pop(ti_deque *deque)
{
    int64_t bottom = ti_load_relaxed(&deque->bottom) - 1;
    if (bottom < ti_load_relaxed(&deque->top))
        return NULL; /* only the owner adds items, so empty now is empty */
    ti_store_sc(&deque->bottom, bottom);
    int64_t top = ti_load_sc(&deque->top);
    struct ti_node *node = NULL;
    if (top <= bottom)
        node = ti_load_relaxed(&deque->ring[bottom & (TI_DEQUE_SIZE - 1)]);
    if (top < bottom)
        return node;
    if (top == bottom && !ti_cas_sc(&deque->top, &top, top + 1))
        node = NULL; /* a thief was faster */
    ti_store_relaxed(&deque->bottom, bottom + 1);
    return node;
}

/* Any thread: the oldest item, or NULL when it is empty or another thread was faster. */
static inline struct ti_node *ti_deque_steal(ti_deque *deque)
{
    int64_t top = ti_load_sc(&deque->top);
    if (top >= ti_load_sc(&deque->bottom))
        return NULL;
    struct ti_node *node = ti_load_relaxed(&deque->ring[top & (TI_DEQUE_SIZE - 1)]);
    return ti_cas_sc(&deque->top, &top, top + 1) ? node : NULL;
}

#endif
