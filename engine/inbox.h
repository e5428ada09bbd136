/* SPDX-License-Identifier: MIT */
/* The one door by which ready processors reach the workers from other threads. Senders never block
 * and never allocate: the nodes themselves are the list (Treiber, 1986). A receiver takes all there
 * is, so the usual ABA hazard of popping one does not exist. */
#ifndef TI_INBOX_H
#define TI_INBOX_H

#include "engine/run.h"

typedef struct ti_inbox {
    _Alignas(TI_CACHE_LINE) _Atomic(ti_node *) newest; /* [atomic] linked by ti_node.next */
} ti_inbox;

/* Sends a chain of nodes, `first` to `last`, linked by `next`. */
static inline void ti_inbox_send(ti_inbox *inbox, ti_node *first, ti_node *last)
{
    ti_node *newest = ti_load_relaxed(&inbox->newest);
    do
        last->next = newest;
    while (!ti_cas_sc(&inbox->newest, &newest, first));
}

static inline int ti_inbox_empty(ti_inbox *inbox)
{
    return ti_load_sc(&inbox->newest) == NULL;
}

/* All nodes as a chain, the newest first; NULL: none. */
static inline ti_node *ti_inbox_take(ti_inbox *inbox)
{
    return ti_inbox_empty(inbox) ? NULL : ti_exchange_sc(&inbox->newest, NULL);
}

#endif
