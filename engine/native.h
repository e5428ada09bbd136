/* SPDX-License-Identifier: MIT */
/* Processors in C: the engine's native backend. A host's vtable (tide_processor) becomes a
 * ti_native; each use of one in a program has a state per worker, made when the program is
 * installed and closed when it is forgotten or the engine closes. */
#ifndef TI_NATIVE_H
#define TI_NATIVE_H

#include "engine/engine.h"
#include "engine/include/tidemill.h"

/* A copy of a host's struct. Counted, from any thread; the last reference calls its `drop`. */
typedef struct ti_native ti_native;

/* With one reference; NULL: no memory. */
ti_native *ti_native_new(const tide_processor *processor);
/* Another reference to it, if it is a copy of the same struct and there is nothing to drop, so that
 * nobody can tell it from a new one; else NULL. NULL is fine. */
ti_native *ti_native_same(ti_native *native, const tide_processor *processor);
ti_native *ti_native_retain(ti_native *native);
void ti_native_release(ti_native *native); /* NULL is fine */

/* Frees it without calling `drop`: it was never taken over. */
void ti_native_disown(ti_native *native);

/* What the contexts of one engine share: the processors that have names. */
typedef struct ti_natives ti_natives;

/* NULL: no memory. An engine that opened with it frees it. */
ti_natives *ti_natives_new(void);
void ti_natives_free(ti_natives *natives);

/* Says whose it is. Before anybody else knows the engine. */
void ti_natives_attach(ti_natives *natives, ti_engine *engine);

/* Of an engine; NULL: it has no native backend. */
ti_natives *ti_natives_of(ti_engine *engine);
/* Which of its backends that is. */
uint8_t ti_natives_backend(const ti_engine *engine);

/* Takes the reference if it succeeds: TI_OK. TI_E_CLOSED, TI_E_MEMORY_LIMIT, TI_E_INTERNAL: the
 * name is taken. */
ti_code ti_natives_register(ti_natives *natives, const char *name, ti_native *native);

/* With a reference; NULL: there is none of that name. */
ti_native *ti_natives_find(ti_natives *natives, const char *name, size_t size);

/* Writes what is wrong with a name that is not there, with "did you mean". */
void ti_natives_unknown(ti_natives *natives, const char *name, size_t name_size, char *text,
                        size_t size);

/* A processor of a program that is native. */
typedef struct ti_native_use {
    uint32_t slot;     /* declaration index */
    ti_native *native; /* borrowed; so are */
    ti_value *options; /* or NULL */
    const char *id;    /* for messages */
} ti_native_use;

/* Opens the states of a program with `steps` steps in every worker; on failure, none is left and
 * *error says why. Waits for each seat. */
bool ti_native_install(ti_engine *engine, uint64_t key, uint32_t steps, const ti_native_use *uses,
                       uint32_t count, ti_error **error);

extern const ti_backend ti_native_backend;

/* A call, as tide_task_* see it. */
struct tide_task {
    const ti_task *task;
    ti_worker *worker;
    const ti_value *options;
    struct ti_native_context *context;
};

/* The task's step depends on `step`, directly or not. */
bool ti_native_is_ancestor(const tide_task *task, uint32_t step);

#endif
