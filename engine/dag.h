/* SPDX-License-Identifier: MIT */
/* A DAG as it is declared: processors by id, in order. ti_plan_compile checks it and freezes it.
 * Used by one thread. */
#ifndef TI_DAG_H
#define TI_DAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/value.h"

#define TI_NONE UINT32_MAX

typedef enum ti_intent { TI_TRANSFORM, TI_ANALYZE } ti_intent;

typedef enum ti_failure_strategy {
    TI_FAIL_FAST,
    TI_CONTINUE_ON_ERROR,
    TI_BEST_EFFORT
} ti_failure_strategy;

/* Where a ready processor goes; see executor.h. */
typedef enum ti_strategy { TI_REACTIVE, TI_WORK_QUEUE, TI_LEVEL } ti_strategy;

/* How often a failed processor is tried again, and when: after `backoff` nanoseconds, then each
 * time `factor` times as long, but never longer than `most`. */
typedef struct ti_retry {
    uint32_t max; /* attempts after the first */
    uint64_t backoff, most;
    double factor;
    double jitter; /* up to this part of a wait is taken off at random: 0 .. 1 */
    uint64_t seed;
} ti_retry;

/* Limits per DAG. */
#define TI_MOST_LIMITS 64

typedef struct ti_limit {
    ti_text name;
    uint32_t count;
} ti_limit;

typedef struct ti_declared {
    ti_text id;
    ti_intent intent;
    uint8_t backend;                         /* who runs it: an index into the engine's backends */
    ti_text payload_from;                    /* bytes NULL: the canonical rule */
    uint32_t first_dependency, dependencies; /* into ti_dag.dependencies */
    uint32_t first_use, uses;                /* into ti_dag.uses */
    bool conditional;                        /* its backend asks a condition before it calls it */
    uint64_t timeout;                        /* ns; 0: none */
    ti_retry retry;
} ti_declared;

typedef struct ti_dag {
    char *name; /* or NULL */
    ti_failure_strategy failure_strategy;
    uint32_t max_concurrency; /* 0: no bound but the workers */
    bool profile;             /* what a run does that does not say */
    ti_strategy strategy;     /* likewise */
    uint64_t timeout;         /* of a run, in ns; 0: none; likewise */
    ti_limit limits[TI_MOST_LIMITS];
    uint32_t limit_count;
    ti_declared *processors;
    uint32_t count, capacity;
    ti_text *dependencies;
    uint32_t edges, edge_capacity;
    ti_text *uses;
    uint32_t use_count, use_capacity;
    bool failed; /* an allocation failed on the way; compiling says so */
    struct ti_text_block *texts;
} ti_dag;

/* What is wrong with a DAG, one problem at a time, in the order found. */
typedef struct ti_problem {
    uint32_t processor; /* declaration index, or TI_NONE: about the whole */
    char *text;
} ti_problem;

typedef struct ti_problems {
    ti_problem *list;
    size_t count, capacity;
    bool failed; /* some could not be stored */
} ti_problems;

/* NULL: no memory. */
ti_dag *ti_dag_new(const char *name, size_t name_size);
void ti_dag_free(ti_dag *dag);

/* Adds a processor, copying the id, and returns its declaration index. Dependencies that follow are
 * its own. */
uint32_t ti_dag_add(ti_dag *dag, const char *id, size_t size, ti_intent intent, uint8_t backend);
void ti_dag_depends_on(ti_dag *dag, const char *id, size_t size);
void ti_dag_payload_from(ti_dag *dag, const char *id, size_t size);
void ti_dag_uses(ti_dag *dag, const char *limit, size_t size);

/* Declares a limit; false: there are too many. */
bool ti_dag_limit(ti_dag *dag, const char *name, size_t size, uint32_t count);

void ti_problems_add(ti_problems *problems, uint32_t processor, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void ti_problems_clear(ti_problems *problems);

#endif
