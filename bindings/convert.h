/* SPDX-License-Identifier: MIT */
/* Lua values to and from engine values. The only file that does. */
#ifndef TI_CONVERT_H
#define TI_CONVERT_H

#include "bindings/compat.h"
#include "engine/error.h"

typedef struct ti_conversion {
    ti_builder *scratch;    /* owned by somebody who outlives a Lua error */
    struct ti_arena *arena; /* where the value goes; NULL: the heap */
    const char *root;       /* how the path in a message begins: "payload" */
    ti_text name;           /* and goes on: ".words"; bytes NULL: it does not */
    ti_code code;           /* after a failure: TI_E_INVALID_PAYLOAD or TI_E_MEMORY_LIMIT */
    char message[400];      /* "payload.items[3].callback is a function" */
} ti_conversion;

/* Sets what must be set; the rest is large. */
static inline void ti_convert_begin(ti_conversion *conversion, ti_builder *scratch,
                                    const char *root)
{
    conversion->scratch = scratch;
    conversion->arena = NULL;
    conversion->root = root;
    conversion->name = (ti_text){NULL, 0};
    conversion->code = TI_OK;
}

/* The value at a stack index, a new reference unless it is packed. NULL: it cannot travel, and
 * `conversion` says why.
 * Looks at tables raw. May raise (only for lack of Lua memory) and then owns nothing. */
ti_value *ti_convert_to(lua_State *L, int index, ti_conversion *conversion);

/* Pushes a value, borrowed; tables are built anew. May raise for lack of memory. */
void ti_convert_push(lua_State *L, const ti_cell *cell);

#endif
