/* SPDX-License-Identifier: MIT */
/* What a Lua state may use: its allocator, wrapped in one that counts and refuses. A state without
 * a limit keeps its own allocator and has no ti_memory.
 *
 * Lua 5.2 and later collect before they give up on a new object, so there the limit holds for
 * objects as they are made. Elsewhere (blocks that grow, buffers of the auxiliary library, anything
 * in 5.1 and LuaJIT) a refusal is final, whatever garbage there is; that comes at twice the limit.
 * What exceeds the limit otherwise raises the alarm, and is looked at after a full collection, at
 * the next instruction. */
#ifndef TI_MEMORY_H
#define TI_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "bindings/compat.h"
#include "engine/error.h"

/* All fields: [seat] of the state. */
typedef struct ti_memory {
    lua_Alloc allocate; /* the state's own */
    void *own;
    lua_State *const *running;  /* the coroutine that runs */
    void (*alarm)(void *owner); /* called by the allocator when it gets `strained` */
    void *owner;
    size_t limit, most; /* refused is what exceeds `most` */
    size_t used;
    bool strained; /* something was refused, or `used` exceeded the limit */
    bool refused;  /* for good */
    bool tried;    /* Lua may try this again, and do no other allocation before: */
    const void *block;
    size_t size;
    size_t refused_used, refused_size; /* at the first refusal */
} ti_memory;

/* Starts to count and to refuse; `limit` is in bytes. NULL: no memory, or *used, what the state
 * uses already, is more than the limit. */
ti_memory *ti_memory_arm(lua_State *L, size_t limit, size_t *used);

/* After a full collection: what is left and exceeds the limit is refused. */
void ti_memory_judge(ti_memory *memory);

/* Gives the state its own allocator back, for lua_close. NULL is fine. */
void ti_memory_disarm(lua_State *L, ti_memory *memory);

/* Something was refused, and not granted when it was asked for again. */
bool ti_memory_refused(const ti_memory *memory);

void ti_memory_forgive(ti_memory *memory);

/* After a full collection. False: what is kept is so much that the state should be replaced. */
bool ti_memory_is_sound(const ti_memory *memory);

/* What was refused, as the error of whoever wanted it. */
ti_error *ti_memory_error(const ti_memory *memory);

#endif
