/* SPDX-License-Identifier: MIT */
/* An allocator in front of the real one, for a whole program and the libraries it loads: it counts
 * what is alive, and refuses when told to. One source of a program includes this, before all else.
 * libuv, which aborts where it gets no memory for a loop, goes past it: allocator_open. */
#ifndef ALLOCATOR_H
#define ALLOCATOR_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <uv.h>

/* Called before the sanitizers are ready; and libraries must find it. */
#define EARLY __attribute__((no_sanitize_thread))
#define WRAPPER __attribute__((no_sanitize_thread, visibility("default")))

static atomic_long live, made;      /* blocks not freed, and allocations so far */
static atomic_long fail_at = -1;    /* the allocation that fails, counted by `made`; -1: none */
static atomic_bool fail_ever_after; /* and all after it */

EARLY static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

/* A sanitizer allocates for itself: it does not bear a refusal on another thread, and it spoils the
 * count of what is alive, but has its own way to find leaks. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

static pthread_t starved;

EARLY static bool refuse(void)
{
    long number = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed);
    long at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    bool ever_after = atomic_load_explicit(&fail_ever_after, memory_order_relaxed);
    return at >= 0 && (ever_after ? number >= at : number == at) &&
           (!SANITIZED || pthread_equal(pthread_self(), starved));
}

EARLY static void *count(void *block)
{
    if (block)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    else
        errno = ENOMEM;
    return block;
}

WRAPPER void *malloc(size_t size)
{
    static void *(*next)(size_t);
    if (!next)
        next = (void *(*)(size_t))real("malloc");
    return refuse() ? count(NULL) : count(next(size));
}

WRAPPER void *calloc(size_t items, size_t size)
{
    static void *(*next)(size_t, size_t);
    if (!next)
        next = (void *(*)(size_t, size_t))real("calloc");
    return refuse() ? count(NULL) : count(next(items, size));
}

WRAPPER void *aligned_alloc(size_t alignment, size_t size)
{
    static void *(*next)(size_t, size_t);
    if (!next)
        next = (void *(*)(size_t, size_t))real("aligned_alloc");
    return refuse() ? count(NULL) : count(next(alignment, size));
}

WRAPPER void *realloc(void *block, size_t size)
{
    static void *(*next)(void *, size_t);
    if (!next)
        next = (void *(*)(void *, size_t))real("realloc");
    void *moved = refuse() ? NULL : next(block, size);
    return block ? moved : count(moved);
}

WRAPPER void free(void *block)
{
    static void (*next)(void *);
    static bool asking; /* dlsym frees what dlerror would have said before */
    if (!next) {
        if (asking)
            return;
        asking = true;
        next = (void (*)(void *))real("free");
    }
    if (block)
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    next(block);
}

/* 0, or a libuv error. On the thread that is starved where only one can be. */
static inline int allocator_open(void)
{
    starved = pthread_self();
    return uv_replace_allocator((uv_malloc_func)real("malloc"), (uv_realloc_func)real("realloc"),
                                (uv_calloc_func)real("calloc"), (uv_free_func)real("free"));
}

#endif
