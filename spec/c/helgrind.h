/* SPDX-License-Identifier: MIT */
/* Tells Helgrind, which knows locks but not C11's atomics, what those order. Given to the compiler
 * for each source of a build (-include): the variant helgrind-5.4.
 *
 * An atomic word itself is not checked. Whoever acquires it comes after all who released it so far,
 * whichever value is read. That is more order than C11 gives, and never less: what Helgrind reports
 * is no false alarm, but it may miss what the thread sanitizer finds. */
#ifndef HELGRIND_H
#define HELGRIND_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* -include comes before any source can ask for it */
#endif

#include <stdatomic.h>
#include <stdint.h>
#include <valgrind/helgrind.h>

#pragma GCC diagnostic ignored "-Wshadow" /* they nest, as arguments of each other */

#define HG_BEFORE(order)                                                                           \
    VALGRIND_HG_DISABLE_CHECKING((void *)(uintptr_t)hg, sizeof *hg);                               \
    if ((order) == __ATOMIC_RELEASE || (order) >= __ATOMIC_ACQ_REL)                                \
    ANNOTATE_HAPPENS_BEFORE((void *)(uintptr_t)hg)
#define HG_AFTER(order)                                                                            \
    if ((order) == __ATOMIC_ACQUIRE || (order) >= __ATOMIC_ACQ_REL)                                \
    ANNOTATE_HAPPENS_AFTER((void *)(uintptr_t)hg)
#define HG_CHANGE(p, order, change)                                                                \
    __extension__({                                                                                \
        __auto_type hg = (p);                                                                      \
        HG_BEFORE(order);                                                                          \
        __auto_type hg_result = change;                                                            \
        HG_AFTER(order);                                                                           \
        hg_result;                                                                                 \
    })

#undef atomic_load_explicit
#define atomic_load_explicit(p, order)                                                             \
    __extension__({                                                                                \
        __auto_type hg = (p);                                                                      \
        __typeof__((void)0, *hg) hg_result;                                                        \
        HG_BEFORE(__ATOMIC_RELAXED);                                                               \
        __atomic_load(hg, &hg_result, (order));                                                    \
        HG_AFTER(order);                                                                           \
        hg_result;                                                                                 \
    })

#undef atomic_store_explicit
#define atomic_store_explicit(p, value, order)                                                     \
    __extension__({                                                                                \
        __auto_type hg = (p);                                                                      \
        __typeof__((void)0, *hg) hg_value = (value);                                               \
        HG_BEFORE(order);                                                                          \
        __atomic_store(hg, &hg_value, (order));                                                    \
    })

#undef atomic_exchange_explicit
#define atomic_exchange_explicit(p, value, order)                                                  \
    __extension__({                                                                                \
        __auto_type hg = (p);                                                                      \
        __typeof__((void)0, *hg) hg_value = (value), hg_result;                                    \
        HG_BEFORE(order);                                                                          \
        __atomic_exchange(hg, &hg_value, &hg_result, (order));                                     \
        HG_AFTER(order);                                                                           \
        hg_result;                                                                                 \
    })

#undef atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_strong_explicit(p, expected, value, order, failure)                \
    __extension__({                                                                                \
        __auto_type hg = (p);                                                                      \
        __typeof__((void)0, *hg) hg_value = (value);                                               \
        HG_BEFORE(order);                                                                          \
        _Bool hg_result = __atomic_compare_exchange(hg, (expected), &hg_value, 0, order, failure); \
        HG_AFTER(order);                                                                           \
        hg_result;                                                                                 \
    })

#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub_explicit
#define atomic_fetch_add_explicit(p, n, order)                                                     \
    HG_CHANGE(p, order, __atomic_fetch_add(hg, (n), (order)))
#define atomic_fetch_sub_explicit(p, n, order)                                                     \
    HG_CHANGE(p, order, __atomic_fetch_sub(hg, (n), (order)))

#undef atomic_load
#undef atomic_store
#undef atomic_exchange
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#undef atomic_fetch_add
#undef atomic_fetch_sub
#define atomic_load(p) atomic_load_explicit(p, __ATOMIC_SEQ_CST)
#define atomic_store(p, value) atomic_store_explicit(p, value, __ATOMIC_SEQ_CST)
#define atomic_exchange(p, value) atomic_exchange_explicit(p, value, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_strong(p, expected, value)                                         \
    atomic_compare_exchange_strong_explicit(p, expected, value, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_weak atomic_compare_exchange_strong
#define atomic_fetch_add(p, n) atomic_fetch_add_explicit(p, n, __ATOMIC_SEQ_CST)
#define atomic_fetch_sub(p, n) atomic_fetch_sub_explicit(p, n, __ATOMIC_SEQ_CST)

#endif
