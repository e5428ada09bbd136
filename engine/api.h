/* SPDX-License-Identifier: MIT */
/* What the files of the C interface (api_*.c) share. Public objects are the engine's own under
 * other names: a tide_engine is a ti_engine, a tide_dag a ti_program, a tide_run and a tide_result
 * a ti_run, an outcome a ti_node, a view a ti_cell. Only errors, builders, writers and streams are
 * objects of the interface. */
#ifndef TI_API_H
#define TI_API_H

#include "engine/engine.h"
#include "engine/include/tidemill.h"

#define TI_API_PAIR(public, internal, in, out)                                                     \
    static inline internal *in(const public *object)                                               \
    {                                                                                              \
        return (internal *)(uintptr_t)object;                                                      \
    }                                                                                              \
    static inline public *out(const internal *object)                                              \
    {                                                                                              \
        return (public *)(uintptr_t)object;                                                        \
    }

TI_API_PAIR(tide_value, ti_value, ti_value_in, ti_value_out)
TI_API_PAIR(tide_view, ti_cell, ti_view_in, ti_view_out)
TI_API_PAIR(tide_engine, ti_engine, ti_engine_in, ti_engine_out)
TI_API_PAIR(tide_dag, ti_program, ti_dag_in, ti_dag_out)
TI_API_PAIR(tide_run, ti_run, ti_run_in, ti_run_out)
TI_API_PAIR(tide_result, ti_run, ti_result_in, ti_result_out)
TI_API_PAIR(tide_outcome, ti_node, ti_outcome_in, ti_outcome_out)

/* Owns all that is in it. */
struct tide_error {
    tide_code code;
    ti_error *record;
    char *processor, *root, *text; /* or NULL */
    ti_problems problems;
};

/* Takes the record. Never NULL. Ids whose bytes are NULL: none. */
tide_error *ti_api_error_new(tide_code code, ti_error *record, ti_text processor, ti_text root);

/* A copy of what is in a run. */
tide_error *ti_api_error_copy(const ti_error *record, ti_text processor);

/* The record of an error that a host made; takes the error. */
ti_error *ti_api_error_take(tide_error *error);

/* A record for an error within `open`; takes the error (NULL: there is none). */
ti_error *ti_api_error_prefix(tide_error *why, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Leave an error at *error, unless `error` is NULL. */
void ti_api_fail(tide_error **error, ti_error *record); /* takes the record */
void ti_api_fail_format(tide_error **error, ti_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void ti_api_misuse(tide_error **error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What an engine answers with where nothing more is known: TI_E_CLOSED, TI_E_INTERNAL,
 * TI_E_MEMORY_LIMIT. */
void ti_api_fail_code(tide_error **error, ti_code code);

/* An int64_t can be the same number. */
static inline bool ti_api_is_whole(double number)
{
    const double most = 9223372036854775808.0; /* one more than that */
    return number >= -most && number < most && (double)(int64_t)number == number;
}

/* Reads a struct that begins with its size into one whose defaults are set. False: misuse. */
bool ti_api_read(void *into, size_t known, const void *from, const char *type, tide_error **error);

/* NULL stands for the defaults. */
bool ti_api_read_options(tide_options *options, const tide_options *from, tide_error **error);

/* False, with an error: waiting here would be for the caller itself. */
bool ti_api_may_wait(ti_engine *engine, const char *function, tide_error **error);

/* Seconds that are no bound, or too many to matter, are UINT64_MAX. */
uint64_t ti_api_patience(double seconds);

/* A run of a DAG, ready to start; takes the payload. NULL, with an error. */
ti_run *ti_api_run_new(ti_program *program, ti_value *payload, const tide_run_options *options,
                       tide_error **error);

#endif
