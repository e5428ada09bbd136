/* SPDX-License-Identifier: MIT */
/* The plan: a DAG checked and frozen. Immutable, so any number of threads and runs share it.
 *
 * Steps stand in canonical order: by rank, and within a rank as declared. Everything that has to be
 * decided by "the greatest or least (rank, index)" is therefore decided by comparing two step
 * numbers: which payload wins a join, which error is reported first. Entry points come first. */
#ifndef TI_PLAN_H
#define TI_PLAN_H

#include "engine/atomics.h"
#include "engine/dag.h"

/* 24 bytes: what the hot path reads of a step lies together. */
typedef struct ti_step {
    uint32_t first_dependency; /* into ti_plan.dependencies; the next step's is the end */
    uint32_t first_dependent;  /* into ti_plan.dependents; likewise */
    uint32_t slot;             /* declaration index: how a backend finds the callback */
    uint32_t payload_from;     /* a step, or TI_NONE */
    uint32_t rank;
    uint8_t intent; /* ti_intent */
    uint8_t backend;
    uint8_t flags; /* TI_STEP_*: which of the rarer arrays below say something about it */
} ti_step;

enum { TI_STEP_TIMEOUT = 1, TI_STEP_RETRY = 2, TI_STEP_USES = 4, TI_STEP_CONDITION = 8 };

typedef struct ti_plan {
    atomic_uint references; /* [atomic] all else is [const] */
    uint32_t count, edges;
    uint32_t entries; /* steps 0 .. entries - 1 depend on nothing */
    ti_failure_strategy failure_strategy;
    uint32_t max_concurrency;
    bool profile;
    char *name;             /* or NULL */
    ti_step *steps;         /* count + 1; the last one ends the ranges */
    uint32_t *dependencies; /* steps, by the step that depends on them */
    uint32_t *dependents;   /* steps, by the step they depend on */
    uint64_t *timeouts;     /* of each step, in ns; NULL: no step has one */
    ti_retry *retries;      /* likewise */
    uint64_t *uses;         /* the limits each step uses, as bits; NULL: there are no limits */
    uint32_t limit_count;
    uint32_t limits[TI_MOST_LIMITS];
    ti_strategy strategy;
    uint64_t timeout;  /* of a run */
    uint32_t *id_ends; /* where each step's id ends in `ids`, with a NUL */
    char *ids;
    uint32_t *buckets; /* open addressing: step of an id, or TI_NONE */
    uint32_t bucket_count;
} ti_plan;

/* Checks all of the DAG and adds every problem it has; freezes it when it has none. NULL: there are
 * problems, or (and then there are none) no memory. The ranks are by Kahn (1962). */
ti_plan *ti_plan_compile(const ti_dag *dag, ti_problems *problems);

ti_plan *ti_plan_retain(ti_plan *plan);
void ti_plan_release(ti_plan *plan);

/* With a NUL after it. */
ti_text ti_plan_id(const ti_plan *plan, uint32_t step);

/* The step with that id, or TI_NONE. */
uint32_t ti_plan_find(const ti_plan *plan, const char *id, size_t size);

static inline uint32_t ti_plan_indegree(const ti_plan *plan, uint32_t step)
{
    return plan->steps[step + 1].first_dependency - plan->steps[step].first_dependency;
}

#endif
