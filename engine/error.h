/* SPDX-License-Identifier: MIT */
/* Error codes and error records. */
#ifndef TI_ERROR_H
#define TI_ERROR_H

#include <stddef.h>
#include <stdint.h>

#include "engine/value.h"

/* code, name as scripts see it, what it says when nothing better is known */
#define TI_ERROR_MAP(X)                                                                            \
    X(INVALID_DAG, "invalid_dag", "the DAG is not valid")                                          \
    X(PROCESSOR_FAILED, "processor_failed", "the processor failed")                                \
    X(DEPENDENCY_FAILED, "dependency_failed", "a processor it depends on failed")                  \
    X(TIMEOUT, "timeout", "it took too long")                                                      \
    X(CANCELLED, "cancelled", "the run was cancelled")                                             \
    X(INVALID_RESPONSE, "invalid_response",                                                        \
      "the callback returned what its intent does not allow")                                      \
    X(INVALID_PAYLOAD, "invalid_payload", "the value cannot travel between Lua states")            \
    X(MEMORY_LIMIT, "memory_limit", "not enough memory")                                           \
    X(QUEUE_FULL, "queue_full", "too much is in flight")                                           \
    X(CLOSED, "closed", "the engine is closed")                                                    \
    X(INTERNAL, "internal", "the engine could not go on")

typedef enum ti_code {
    TI_OK = 0,
#define X(code, name, text) TI_E_##code,
    TI_ERROR_MAP(X)
#undef X
} ti_code;

/* "processor_failed"; "ok" for TI_OK. Static. */
const char *ti_code_name(ti_code code);

/* One sentence for people. Static. */
const char *ti_code_text(ti_code code);

/* Immutable once made; one owner, no reference count. All strings are inside the record. */
typedef struct ti_error {
    ti_code code;
    uint32_t attempt;
    const char *message; /* never NULL; `message_size` bytes and a NUL */
    size_t message_size;
    const char *traceback; /* NULL where nothing was raised */
    size_t traceback_size;
    ti_value *cause;           /* what was raised, where that was a table; else NULL */
    struct ti_error *previous; /* of the attempt before; freed with this one */
} ti_error;

/* Makes a record; `message` NULL stands for the code's own text, `traceback` may be NULL. Takes the
 * caller's reference to `cause`. Never NULL: without memory it is a static record of MEMORY_LIMIT.
 */
ti_error *ti_error_new(ti_code code, const char *message, size_t message_size,
                       const char *traceback, size_t traceback_size, ti_value *cause);

/* printf-style, without traceback or cause. */
ti_error *ti_error_format(ti_code code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Says which attempt an error is of, and puts those of the attempts before behind it. */
ti_error *ti_error_chain(ti_error *error, ti_error *previous, uint32_t attempt);

/* What it holds, with those of attempts before. */
size_t ti_error_bytes(const ti_error *error);

/* NULL is fine. */
void ti_error_free(ti_error *error);

#endif
