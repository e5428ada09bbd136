/* SPDX-License-Identifier: MIT */
/* A counting semaphore that nobody blocks on: a processor that gets no permit waits in a list, and
 * the worker goes on. First come, first served. From any thread. */
#ifndef TI_PERMITS_H
#define TI_PERMITS_H

#include <stdbool.h>
#include <stdint.h>

struct ti_node;
typedef struct ti_permits ti_permits;

/* NULL: no memory. */
ti_permits *ti_permits_new(uint32_t count);
void ti_permits_free(ti_permits *permits);

/* True: a permit is taken. False: the node waits, and no longer belongs to the caller. */
bool ti_permits_acquire(ti_permits *permits, struct ti_node *node);

/* Gives a permit back. If a node waits, it has the permit now and the caller must see to it. */
struct ti_node *ti_permits_release(ti_permits *permits);

#endif
