/* SPDX-License-Identifier: MIT */
/* A worker's Lua state: the engine's Lua backend. */
#ifndef TI_STATE_H
#define TI_STATE_H

#include "bindings/convert.h"
#include "bindings/memory.h"
#include "engine/engine.h"

/* The metatable of errors in Lua; the module tidemill.error fills it. */
#define TI_ERROR_TYPE "tidemill.error"

/* Most payload strings that a state has at hand as Lua strings while it serves: a power of two. */
#define TI_STATE_PAYLOADS 256

/* Most bytes of them; what is kept beyond would only drive others out of the caches. */
#define TI_STATE_KEPT ((size_t)1 << 20)

typedef struct ti_state_config ti_state_config;

typedef struct ti_state {
    lua_State *L;
    uint32_t worker;            /* [const] */
    ti_state_config *config;    /* [const] */
    bool bounded;               /* [const] there is a limit of memory or instructions */
    uint64_t instruction_limit; /* [const] as in `config`, which may be gone when a thread that was
                                   given up ends */

    /* all else: [seat] */
    ti_memory *memory; /* NULL: no limit */
    bool recovering;   /* it is collected, or replaced */
    bool invoking;     /* in ti_state_invoke */
    uint32_t nested;   /* coroutines in coroutines */
    bool loading;      /* a program is loaded, and its instructions are counted */
    uint64_t spent;    /* instructions, by the call `spender` */
    uint64_t spender;
    ti_worker *serving;  /* while in `serve` */
    const ti_task *task; /* while a callback runs, else NULL */
    volatile bool
        abandoned;          /* the engine has given it up; it belongs to the thread that is in it */
    volatile bool leavable; /* `call` is in a callback, and can leave the state behind */
    volatile bool stoppable; /* script code of the task runs; read by a signal handler */
    uint64_t call;           /* its number */
    bool touched;            /* it has looked at its ctx, which is spent now */
    lua_State
        *volatile running; /* the coroutine that runs; read by a signal handler of its thread */
    uint32_t missing;      /* programs that it should have and could not load ... */
    uint64_t tried;        /* ... when it tried, as uv_hrtime says */
    uint64_t selected;     /* key of the program whose callbacks are on the stack; 0: none */
    uint64_t prepared;     /* serial of the run that the stack is prepared for; 0: none */
    uint32_t place; /* where the string of the task's payload is, or would be, in `payloads` */
    ti_value *unanswered; /* a payload on the heap that is ours until the task is answered */
    bool warns, warning;  /* `warn` is on; a message of it is going on */
    ti_builder scratch;
    uint32_t *ancestors;    /* work space of the ancestor walk */
    uint32_t ancestor_room; /* in processors */
    uint32_t ancestor_mark; /* of the last walk */
    size_t kept;            /* bytes of the strings that these had since they were all empty */
    uint32_t payload_bits;  /* 1 << this many of these are in use */
    struct {
        uint64_t serial; /* of the run; values of others may have the same address */
        const ti_value *value;
        const char *bytes; /* of the Lua string */
    } payloads[TI_STATE_PAYLOADS];
} ti_state;

/* What the states of an engine are made from, also when one has to be replaced. */
struct ti_state_config {
    char *path, *cpath;         /* [const] package.path and package.cpath of the states */
    lua_CFunction core;         /* [const] luaopen_tidemill_core */
    char *preempt;              /* [const] "signal", "hook", "none", or "auto" */
    ti_preempt mode;            /* [const] what that comes to */
    const char *sandbox;        /* [const] "trusted", "sandbox" or "pure" */
    double callback_timeout;    /* [const] seconds that a call may take at most; 0: any */
    size_t memory_limit;        /* [const] bytes per state; 0: none */
    uint64_t instruction_limit; /* [const] per callback; 0: none */
    uv_mutex_t lock;
    struct ti_install *installs; /* [lock:config] the programs that there are, the newest first */
    struct ti_loader *loader; /* [lock:config] NULL: no C host has loaded anything; see embed.c */
};

/* In embed.c. NULL is fine. */
void ti_loader_free(struct ti_loader *loader);

/* Copies the strings. NULL: no memory. */
ti_state_config *ti_state_config_new(const char *path, const char *cpath, const char *preempt,
                                     ti_preempt mode, lua_CFunction core);
void ti_state_config_free(ti_state_config *config);

/* A new state will have the program, too, by tidemill.worker's "commit" with this source, which is
 * retained. False: no memory. */
bool ti_state_config_install(ti_state_config *config, uint64_t key, ti_value *source);

/* Opened with a ti_state_config, which must outlive the engine's close. */
extern const ti_backend ti_state_backend;

/* Calls a function of the Lua module tidemill.worker with a program's key and a value, and returns
 * what that returns as a new reference. NULL: *error says why. With the seat taken. */
ti_value *ti_state_invoke(ti_state *state, const char *function, uint64_t key,
                          const ti_value *argument, ti_error **error);

/* What its Lua state uses. With the seat taken. */
size_t ti_state_bytes(const ti_state *state);

/* For context.c: pushes the list that a program keeps under `field`, at the place of one callback:
 * its options, or its state. */
void ti_state_push_kept(lua_State *L, const ti_state *state, const char *field);

/* The state that a worker's Lua state belongs to; NULL: it is not a worker's. */
ti_state *ti_state_of(lua_State *L);

/* In context.c: pushes a fresh ctx; the metadata of all ancestors of the task. May raise. */
void ti_context_push(lua_State *L, ti_state *state);
/* When a state is opened: what ti_context_push needs, so that it is whole or there is no state. */
void ti_context_open(lua_State *L);
void ti_context_push_metadata(lua_State *L, ti_state *state);

/* In stop.c: what stops callbacks. */
void ti_stop_open(lua_State *L, ti_preempt mode, bool bounded); /* may raise */
void ti_stop_reset(ti_state *state);                            /* drops hooks that scripts left */
void ti_stop_interrupt(ti_state *state);                        /* in a signal handler */
bool ti_stop_abandon(ti_state *state); /* likewise; as ti_backend.abandon */

/* In the allocator of the state: it is short of memory. */
void ti_stop_alarm(void *state);
/* Collects, so that it shows whether it is; may raise what finalizers do. */
void ti_stop_judge(lua_State *L, ti_memory *memory);
/* Counts work that a C function has done in the place of instructions, and raises if the callback
 * must stop. May raise, so nothing may be owned. */
void ti_stop_charge(lua_State *L, uint64_t instructions);
/* From here on the instructions of a program that is being loaded count. */
void ti_stop_meter(lua_State *L, ti_state *state);
/* The current callback, or the program being loaded, has spent too many instructions; what it fails
 * with then. */
bool ti_stop_spent(const ti_state *state);
ti_error *ti_stop_spent_error(const ti_state *state);

/* In pattern.c: pushes a table of functions for sandboxes: find, match, scan, charge. May raise. */
void ti_pattern_open(lua_State *L);

/* In context.c: pushes an error as scripts see it. May raise. */
void ti_error_push(lua_State *L, ti_text processor, const ti_error *error);

#endif
