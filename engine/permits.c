/* SPDX-License-Identifier: MIT */
#include "engine/permits.h"

#include <stdlib.h>
#include <uv.h>

#include "engine/run.h"

struct ti_permits {
    uv_mutex_t lock;
    uint32_t available;    /* [lock:permits] */
    ti_node *first, *last; /* [lock:permits] waiting; only while none is available */
};

ti_permits *ti_permits_new(uint32_t count)
{
    ti_permits *permits = malloc(sizeof *permits);
    if (!permits)
        return NULL;
    *permits = (ti_permits){.available = count};
    if (uv_mutex_init(&permits->lock)) {
        free(permits);
        return NULL;
    }
    return permits;
}

void ti_permits_free(ti_permits *permits)
{
    if (!permits)
        return;
    uv_mutex_destroy(&permits->lock);
    free(permits);
}

bool ti_permits_acquire(ti_permits *permits, ti_node *node)
{
    uv_mutex_lock(&permits->lock);
    bool taken = permits->available > 0;
    if (taken) {
        permits->available--;
    } else {
        node->next = NULL;
        if (permits->first)
            permits->last->next = node;
        else
            permits->first = node;
        permits->last = node;
    }
    uv_mutex_unlock(&permits->lock);
    return taken;
}

ti_node *ti_permits_release(ti_permits *permits)
{
    uv_mutex_lock(&permits->lock);
    ti_node *node = permits->first;
    if (node)
        permits->first = node->next;
    else
        permits->available++;
    uv_mutex_unlock(&permits->lock);
    return node;
}
