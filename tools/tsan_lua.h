/* SPDX-License-Identifier: MIT */
/* What tools/tsan_lua.sh puts before each source of Lua.
 *
 * Lua's core takes a lock whenever it is entered and gives it back when it is left: around each
 * function of its API, except while a C function runs. Lua itself defines that lock as nothing.
 * Here it is an assertion that nobody else is inside. It is relaxed, on purpose: a lock that orders
 * anything would hide from the sanitizer what nothing else orders. */
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static inline void come_in(void *extra_space)
{
    pthread_t *inside = extra_space, self = pthread_self(), there = 0;
    if (__atomic_compare_exchange_n(inside, &there, self, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED) ||
        there == self) /* a warning function may set another one from within */
        return;
    fprintf(stderr, "two threads are in one Lua state: 0x%lx, and 0x%lx, which comes here:\n",
            (unsigned long)there, (unsigned long)self);
    __sanitizer_print_stack_trace();
    abort();
}

static inline void go_out(void *extra_space)
{
    __atomic_store_n((pthread_t *)extra_space, 0, __ATOMIC_RELAXED);
}

/* Nobody else here uses the space that Lua leaves to its host before each coroutine. */
#define INSIDE(L) lua_getextraspace(G(L)->mainthread)
#define luai_userstateopen(L) go_out(INSIDE(L))
#define lua_lock(L) come_in(INSIDE(L))
#define lua_unlock(L) go_out(INSIDE(L))

/* The sanitizer follows these, but not _setjmp and _longjmp, which Lua would choose. */
#define LUAI_THROW(L, c) longjmp((c)->b, 1)
#define LUAI_TRY(L, c, a)                                                                          \
    if (setjmp((c)->b) == 0) {                                                                     \
        a                                                                                          \
    }
#define luai_jmpbuf jmp_buf
