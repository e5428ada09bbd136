/* SPDX-License-Identifier: MIT */
/* Random DAGs, and what DESIGN.md says becomes of them, worked out the slow and obvious way: by a
 * matrix, without steps, counts or events. */
#ifndef GRAPH_H
#define GRAPH_H

#include "engine/dag.h"
#include "engine/run.h"

#define GRAPH_MOST 40
#define GRAPH_NOBODY UINT32_MAX

/* What a processor's callback does. */
typedef enum tt_act {
    GRAPH_ANSWER, /* a transform returns a new payload, an analyze returns metadata */
    GRAPH_PASS,   /* a transform returns the payload it got, an analyze nothing */
    GRAPH_SKIP,   /* its condition is false */
    GRAPH_FAIL,
    GRAPH_RETRY, /* fails twice, then answers */
} tt_act;

/* What a run should make of one processor. */
typedef struct tt_outcome {
    ti_status status;
    uint32_t root;  /* whose failure skipped it, or itself when failed; or GRAPH_NOBODY */
    uint32_t out;   /* whose payload out(n) is, or GRAPH_NOBODY: the run's input */
    uint64_t value; /* the number that payload is */
    uint64_t in;    /* the number in(n) is */
} tt_outcome;

typedef struct tt_graph {
    uint32_t count;
    bool depends[GRAPH_MOST][GRAPH_MOST]; /* [i][j]: i depends on j */
    uint32_t payload_from[GRAPH_MOST];    /* or GRAPH_NOBODY */
    ti_intent intent[GRAPH_MOST];
    tt_act act[GRAPH_MOST];
    ti_failure_strategy strategy;
    uint32_t permits;          /* of a limit, or 0: there is none */
    bool uses[GRAPH_MOST];     /* that limit */
    uint32_t rank[GRAPH_MOST]; /* by graph_rank_all */
} tt_graph;

#define GRAPH_RETRIES 2

/* A DAG, whose dependencies may be declared before or after; some of the processors fail if
 * `failing`. */
void graph_random(tt_graph *graph, uint32_t *seed, bool failing);

/* Ranks; false: there is a cycle. */
bool graph_rank_all(tt_graph *graph);

/* As it would be declared; processor 7 is called "p7". */
ti_dag *graph_declare(const tt_graph *graph);

/* What a transform that answers makes of a payload. */
uint64_t graph_answer(uint32_t processor, uint64_t payload);

/* Outcomes as under continue_on_error or best_effort, by processor, and of the whole run: `out` and
 * `value` of the run's payload; its root is the first failure. */
tt_outcome graph_expect(const tt_graph *graph, uint64_t input, tt_outcome *outcomes);

#endif
