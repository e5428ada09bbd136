/* SPDX-License-Identifier: MIT */
/* The atomics the engine uses, under names that say the order. One thin layer, so that a model
 * checker or another compiler can take their place.
 *
 * There are no fences: where two threads each write one word and then read the other's (deque
 * against thief, parker against waker), both words are read and written with ti_*_sc. That is as
 * cheap on x86 and ARMv8, and the thread sanitizer understands it. */
#ifndef TI_ATOMICS_H
#define TI_ATOMICS_H

#include <stdatomic.h>

#define TI_CACHE_LINE 64

#define ti_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define ti_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define ti_load_sc(p) atomic_load_explicit((p), memory_order_seq_cst)
#define ti_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define ti_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define ti_store_sc(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define ti_exchange_sc(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define ti_add_relaxed(p, n) atomic_fetch_add_explicit((p), (n), memory_order_relaxed)
#define ti_add_sc(p, n) atomic_fetch_add_explicit((p), (n), memory_order_seq_cst)
#define ti_sub_acq_rel(p, n) atomic_fetch_sub_explicit((p), (n), memory_order_acq_rel)
#define ti_sub_sc(p, n) atomic_fetch_sub_explicit((p), (n), memory_order_seq_cst)

/* True when *p held *expected and now holds `desired`; otherwise *expected is what it holds. */
#define ti_cas_sc(p, expected, desired)                                                            \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_seq_cst,      \
                                            memory_order_seq_cst)

/* Tells the core that this is a spin loop. */
static inline void ti_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Drops one of `count` references and says whether it was the last. A holder that sees itself
 * alone needs no read-modify-write: nobody else can take a reference from a count of one. */
static inline int ti_drop_reference(atomic_uint *count)
{
    return ti_load_acquire(count) == 1 || ti_sub_acq_rel(count, 1) == 1;
}

#endif
