/* SPDX-License-Identifier: MIT */
/* What the files of the fuzz target for the C interface share: a model of what a host has made, to
 * hold against what tidemill.h says. It includes nothing of the engine but that and live.h. */
#ifndef CALLS_H
#define CALLS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/include/tidemill.h"

/* A finding: says where, and ends the process. */
#define MUST(condition) ((condition) ? (void)0 : calls_fail(__FILE__, __LINE__, #condition))
_Noreturn void calls_fail(const char *file, int line, const char *what);

/* ---- Bytes of the input: where they end, everything is 0. ---- */

typedef struct calls_reader {
    const uint8_t *bytes;
    size_t size, at;
} calls_reader;

unsigned calls_byte(calls_reader *reader);
unsigned calls_below(calls_reader *reader, unsigned count); /* less than that */

/* ---- Values, and what they are as a text: the model's idea of them ---- */

typedef struct calls_text {
    char *bytes; /* NULL: empty */
    size_t size, room;
} calls_text;

void calls_add_text(calls_text *text, const char *bytes, size_t size);
void calls_add_format(calls_text *text, const char *format, ...) TIDE_FORMAT(2, 3);
bool calls_same_text(const calls_text *a, const calls_text *b);
void calls_free_text(calls_text *text);

/* "i5;", "s2:ab", "[...]": what it says of a value is all there is to it. */
void calls_render(calls_text *text, const tide_view *view);
void calls_render_string(calls_text *text, const calls_text *bytes);

/* How deep arrays and maps are nested. */
unsigned calls_depth(const tide_view *view);

/* A value, and the text that stands for it without having asked. `other` (NULL: nil) may be copied
 * into it. */
tide_value *calls_make_value(calls_reader *reader, const tide_value *other, calls_text *text);

/* ---- DAGs ---- */

enum { MOST_NODES = 6, MOST_ENGINES = 4, MOST_PLANS = 24, MOST_PROCESSORS = 64, MOST_RUNS = 96 };

/* What a processor answers. */
typedef enum calls_act {
    ANSWER, /* a payload that has the id and all of the one it saw; an analyze, metadata */
    PASS,   /* the payload it saw; an analyze, nothing */
    WRAP,   /* an array with the payload it saw; an analyze, too, which is wrong */
    RETRY,  /* fails `need` times, then answers */
    FAIL,
    SKIP,
    NOTHING,      /* wrong for a transform */
    BAD_METADATA, /* wrong */
    ACTS
} calls_act;

/* And when: at once; after a while; when a gate opens or it was cancelled; when a gate opens,
 * whoever cancels it; when its time is over, if it ends soon. */
typedef enum calls_manner { AT_ONCE, SLOWLY, AT_GATE, STUBBORN, TOO_LATE } calls_manner;

/* What a callback finds, does something with that needs no waiting, and lets go. */
typedef struct calls_gift {
    const struct calls_engine *of; /* of whose engine the object is */
    tide_engine *engine;
    tide_dag *dag;
    tide_run *run;
} calls_gift;

typedef struct calls_processor {
    bool transform;
    calls_act act;
    calls_manner manner;
    tide_code code; /* that it fails with, which need not be one */
    unsigned need;
    bool opens, drops;
    unsigned refuses; /* the so-manieth `open` fails; 0: none */
    atomic_uint opened, dropped;
    atomic_int states;
    enum { IN_CALL, IN_CLOSE, IN_DROP } when; /* it opens the gift */
    _Atomic(calls_gift *) gift;
} calls_processor;

typedef struct calls_node {
    calls_processor *processor;
    bool limited;
    bool bounded;     /* a call has a timeout, */
    bool timed;       /* which it may well exceed */
    unsigned depends; /* bits */
    int payload_from; /* or -1 */
    unsigned retries;
    int64_t options; /* or 0: none */
    unsigned rank;
} calls_node;

/* Processors are called p0, p1, ... */
enum { ID_ROOM = 16 };
void calls_name(char id[ID_ROOM], unsigned i);

/* A DAG as declared. */
typedef struct calls_plan {
    unsigned count;
    calls_node nodes[MOST_NODES];
    unsigned order[MOST_NODES]; /* canonical */
    tide_failure_strategy strategy;
    unsigned most;    /* max_concurrency, or 0 */
    unsigned permits; /* of the limit "l", or 0: there is none */
    bool profiled, timed, broken;
    atomic_int used; /* permits now */
} calls_plan;

/* Finds ranks and order; false: there is a cycle. */
bool calls_rank(calls_plan *plan);

typedef struct calls_engine {
    atomic_bool closing, closed;
    atomic_int pending; /* what tide_engine_pending must say */
    atomic_int listed;  /* what tide_engine_next_settled must still return */
    bool shared;
    unsigned names; /* bits: registered */
} calls_engine;

/* A run that was started, for good; it says in its metadata which one it is. */
typedef struct calls_run {
    calls_plan *plan;
    calls_engine *engine;
    calls_text input;
    bool profiled, notifies, traced;
    bool bounded, timed;   /* as a node */
    atomic_bool may_stop;  /* somebody may have cancelled it */
    atomic_bool must_stop; /* somebody has while a callback waited */
    atomic_int taken, inside, waiting, calls[MOST_NODES];
} calls_run;

/* A result is what the naive evaluation yields, but where it says itself that it was cut short, and
 * somebody has cut it. */
void calls_check_result(const calls_run *run, const tide_result *result);

/* Nobody has seen a result of it, but if nothing stopped it, all of it was called. */
void calls_check_unseen(const calls_run *run);

/* ---- Processors ---- */

/* No callback runs, and what they all did has happened before. */
bool calls_quiet(void);

tide_processor calls_make_processor(calls_processor *processor);
void calls_open_gift(calls_gift *gift, const calls_engine *here);

enum { OBEDIENT_GATE = 1, STUBBORN_GATE = 2, ALL_GATES = 3 };
void calls_open_gates(unsigned gates);
void calls_close_gates(unsigned gates);
bool calls_gates_open(void); /* either of them */

/* The run of a number; NULL: there is none. */
calls_run *calls_find_run(int64_t number);

/* ---- Errors ---- */

/* As a bit. */
static inline uint64_t code_bit(tide_code code)
{
    return UINT64_C(1) << (code == TIDE_E_MISUSE ? 63u : (unsigned)code);
}

/* Has one of these codes, and says why; frees it. */
void calls_check_error(tide_error *error, uint64_t codes);

#endif
