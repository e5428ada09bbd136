/* SPDX-License-Identifier: MIT */
#include "engine/limits.h"

#include <stdlib.h>
#include <uv.h>

struct ti_limits {
    uv_mutex_t lock;
    ti_node *first, **end;              /* [lock:limits] waiting, in order */
    uint32_t count;                     /* [const] */
    uint32_t available[TI_MOST_LIMITS]; /* [lock:limits] permits */
    uint32_t waiting[TI_MOST_LIMITS];   /* [lock:limits] nodes in the list that use the limit */
};

ti_limits *ti_limits_new(const ti_plan *plan)
{
    ti_limits *limits = calloc(1, sizeof *limits);
    if (!limits)
        return NULL;
    limits->end = &limits->first;
    limits->count = plan->limit_count;
    for (uint32_t i = 0; i < plan->limit_count; i++)
        limits->available[i] = plan->limits[i];
    if (uv_mutex_init(&limits->lock)) {
        free(limits);
        return NULL;
    }
    return limits;
}

void ti_limits_free(ti_limits *limits)
{
    if (!limits)
        return;
    uv_mutex_destroy(&limits->lock);
    free(limits);
}

static uint64_t uses(const ti_node *node)
{
    const ti_plan *plan = node->run->plan;
    return plan->uses ? plan->uses[node - node->run->nodes] : 0;
}

/* The limits in `wanted` without a permit to give. */
static uint64_t exhausted(const ti_limits *limits, uint64_t wanted)
{
    uint64_t without = 0;
    for (uint32_t i = 0; i < limits->count; i++)
        if (limits->available[i] == 0)
            without |= (uint64_t)1 << i;
    return wanted & without;
}

static bool has_slot(const ti_run *run)
{
    return !run->plan->max_concurrency || run->slots > 0;
}

/* The limits in `wanted` that others wait for. */
static uint64_t waited_for(const ti_limits *limits, uint64_t wanted)
{
    uint64_t busy = 0;
    for (uint32_t i = 0; i < limits->count; i++)
        if (limits->waiting[i] > 0)
            busy |= (uint64_t)1 << i;
    if (!(wanted & busy))
        return 0;
    busy = 0;
    for (const ti_node *node = limits->first; node; node = node->next)
        if (has_slot(node->run))
            busy |= uses(node);
    return wanted & busy;
}

/* Adds `by` (which may be -1) to the counts of the limits in `bits`. */
static void count(uint32_t *counts, uint64_t bits, uint32_t by)
{
    for (uint32_t i = 0; bits; i++, bits >>= 1)
        if (bits & 1)
            counts[i] += by;
}

static void grant(ti_limits *limits, ti_node *node)
{
    count(limits->available, uses(node), (uint32_t)-1);
    node->run->slots--;
    node->flags |= TI_HAS_PERMIT;
}

static void wait(ti_limits *limits, ti_node *node)
{
    count(limits->waiting, uses(node), 1);
    node->run->slot_waiters++;
    node->next = NULL;
    *limits->end = node;
    limits->end = &node->next;
}

/* Takes the node at `link` off the list. */
static ti_node *unlink_at(ti_limits *limits, ti_node **link)
{
    ti_node *node = *link;
    *link = node->next;
    if (limits->end == &node->next)
        limits->end = link;
    count(limits->waiting, uses(node), (uint32_t)-1);
    node->run->slot_waiters--;
    return node;
}

bool ti_limits_acquire(ti_limits *limits, ti_node *node)
{
    uint64_t wanted = uses(node);
    ti_run *run = node->run;
    uv_mutex_lock(&limits->lock);
    bool stopped = ti_load_sc(&run->stop) != TI_GO;
    bool free_now = has_slot(run) && (!run->plan->max_concurrency || !run->slot_waiters) &&
                    !exhausted(limits, wanted) && !waited_for(limits, wanted);
    if (!stopped && free_now)
        grant(limits, node);
    else if (!stopped)
        wait(limits, node);
    uv_mutex_unlock(&limits->lock);
    return stopped || free_now;
}

/* Appends to a chain. */
static ti_node **append(ti_node **end, ti_node *node)
{
    node->next = NULL;
    *end = node;
    return &node->next;
}

static uint64_t all(const ti_limits *limits)
{
    return limits->count == TI_MOST_LIMITS ? UINT64_MAX : ((uint64_t)1 << limits->count) - 1;
}

/* Gives what is there to those who wait, in their order. `freed` and the slot of `run` are what
 * there may be more of than before: when all of that is spoken for, nobody further back can be
 * helped. */
static ti_node *grant_waiting(ti_limits *limits, uint64_t freed, const ti_run *run)
{
    ti_node *granted = NULL, **granted_end = &granted, **link = &limits->first;
    uint64_t reserved = 0;
    bool slot = run->plan->max_concurrency && run->slot_waiters;
    while (*link && (slot || (freed & ~reserved & ~exhausted(limits, freed)))) {
        ti_node *node = *link;
        uint64_t wanted = uses(node);
        if (has_slot(node->run) && !(wanted & reserved) && !exhausted(limits, wanted)) {
            unlink_at(limits, link);
            grant(limits, node);
            granted_end = append(granted_end, node);
        } else {
            if (has_slot(node->run)) /* else the limits are not what it waits for */
                reserved |= wanted;
            link = &node->next;
        }
        slot = slot && run->slots && run->slot_waiters;
    }
    return granted;
}

ti_node *ti_limits_release(ti_limits *limits, ti_node *node)
{
    uint64_t freed = uses(node);
    ti_run *run = node->run;
    uv_mutex_lock(&limits->lock);
    node->flags &= (uint8_t)~TI_HAS_PERMIT;
    count(limits->available, freed, 1);
    run->slots++;
    ti_node *granted = limits->first ? grant_waiting(limits, freed, run) : NULL;
    uv_mutex_unlock(&limits->lock);
    return granted;
}

ti_node *ti_limits_flush(ti_limits *limits, const ti_run *run)
{
    ti_node *flushed = NULL, **end = &flushed;
    uv_mutex_lock(&limits->lock);
    for (ti_node **link = &limits->first; *link;)
        if (ti_load_sc(&(*link)->run->stop) != TI_GO)
            end = append(end, unlink_at(limits, link));
        else
            link = &(*link)->next;
    *end =
        flushed ? grant_waiting(limits, all(limits), run) : NULL; /* what they kept from others */
    uv_mutex_unlock(&limits->lock);
    return flushed;
}
