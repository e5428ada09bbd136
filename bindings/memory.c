/* SPDX-License-Identifier: MIT */
#include "bindings/memory.h"

#include <stdint.h>
#include <stdlib.h>

#define PAUSE 150 /* percent, in 5.1 and LuaJIT: so that a cycle ends before twice the limit */

/* Lua 5.2 and later say for what type of object a new block is, and ask again for those after a
 * collection. */
static bool is_object(const void *block, size_t type)
{
    return LUA_VERSION_NUM >= 502 && !block && type;
}

static void strain(ti_memory *memory)
{
    if (!memory->strained && memory->alarm) {
        memory->strained = true;
        memory->alarm(memory->owner);
    }
}

/* LuaJIT before 2023 corrupts its stack when it runs out of memory in an instruction, but not in a
 * C function. */
static bool may_refuse(const ti_memory *memory)
{
#ifdef LUAJIT_VERSION_NUM
    lua_Debug top;
    lua_State *L = memory->running ? *memory->running : NULL;
    return !L || !lua_getstack(L, 0, &top) || !lua_getinfo(L, "S", &top) || top.what[0] == 'C';
#else
    (void)memory;
    return true;
#endif
}

static void *refuse(ti_memory *memory, const void *block, size_t old, size_t size)
{
    if (!ti_memory_refused(memory)) {
        memory->refused_used = memory->used;
        memory->refused_size = size - old;
    }
    memory->refused = memory->refused || memory->tried;
    memory->tried = true;
    memory->block = block;
    memory->size = size;
    strain(memory);
    return NULL;
}

/* A block that is made or grows. */
static bool fits(ti_memory *memory, const void *block, size_t type, size_t old, size_t size)
{
    size_t most = is_object(block, type) ? memory->limit : memory->most, more = size - old;
    if (more > most || memory->used > most - more)
        return false;
    if (!memory->tried)
        return true;
    memory->tried = false;
    if (memory->block != block || memory->size != size)
        memory->refused = true; /* that was not tried again */
    memory->strained = memory->refused;
    return true;
}

static void *allocate(void *context, void *block, size_t old, size_t size)
{
    ti_memory *memory = context;
    size_t type = old;
    if (!block)
        old = 0;
    if (size > old && !fits(memory, block, type, old, size) && may_refuse(memory))
        return refuse(memory, block, old, size);
    void *made = memory->allocate(memory->own, block, type, size);
    if (!made && size)
        return NULL;
    memory->used += size - old;
    if (memory->used > memory->limit)
        strain(memory);
    return made;
}

ti_memory *ti_memory_arm(lua_State *L, size_t limit, size_t *used)
{
    ti_memory *memory = calloc(1, sizeof *memory);
    if (!memory)
        return NULL;
    *used = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
    memory->allocate = lua_getallocf(L, &memory->own);
    memory->used = *used;
    memory->limit = limit;
    memory->most = limit > SIZE_MAX / 2 ? limit : 2 * limit;
    if (*used > limit) {
        free(memory);
        return NULL;
    }
    if (LUA_VERSION_NUM < 502)
        lua_gc(L, LUA_GCSETPAUSE, PAUSE);
    lua_setallocf(L, allocate, memory);
    return memory;
}

void ti_memory_disarm(lua_State *L, ti_memory *memory)
{
    if (!memory)
        return;
    lua_setallocf(L, memory->allocate, memory->own);
    free(memory);
}

bool ti_memory_refused(const ti_memory *memory)
{
    return memory->refused || memory->tried;
}

void ti_memory_judge(ti_memory *memory)
{
    if (!ti_memory_refused(memory) && memory->used > memory->limit) {
        memory->refused = true;
        memory->refused_used = memory->used;
        memory->refused_size = 0;
    }
    memory->strained = ti_memory_refused(memory);
}

void ti_memory_forgive(ti_memory *memory)
{
    memory->refused = memory->tried = memory->strained = false;
}

bool ti_memory_is_sound(const ti_memory *memory)
{
    return memory->used <= memory->limit / 2;
}

ti_error *ti_memory_error(const ti_memory *memory)
{
    if (memory->refused_size)
        return ti_error_format(
            TI_E_MEMORY_LIMIT,
            "its Lua state may use %zu bytes (memory_limit): %zu were in use when "
            "%zu more were asked for",
            memory->limit, memory->refused_used, memory->refused_size);
    return ti_error_format(TI_E_MEMORY_LIMIT,
                           "its Lua state may use %zu bytes (memory_limit): %zu were in use",
                           memory->limit, memory->refused_used);
}
