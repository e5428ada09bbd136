/* SPDX-License-Identifier: MIT */
/* The atomics of engine/atomics.h with a call of HOOK before each. */
#ifndef HOOKED_H
#define HOOKED_H

#include "engine/atomics.h"

#undef ti_load_relaxed
#undef ti_load_acquire
#undef ti_load_sc
#undef ti_store_relaxed
#undef ti_store_release
#undef ti_store_sc
#undef ti_exchange_sc
#undef ti_add_relaxed
#undef ti_add_sc
#undef ti_sub_acq_rel
#undef ti_sub_sc
#undef ti_cas_sc

#define ti_load_relaxed(p) (HOOK(), atomic_load_explicit((p), memory_order_relaxed))
#define ti_load_acquire(p) (HOOK(), atomic_load_explicit((p), memory_order_acquire))
#define ti_load_sc(p) (HOOK(), atomic_load_explicit((p), memory_order_seq_cst))
#define ti_store_relaxed(p, v) (HOOK(), atomic_store_explicit((p), (v), memory_order_relaxed))
#define ti_store_release(p, v) (HOOK(), atomic_store_explicit((p), (v), memory_order_release))
#define ti_store_sc(p, v) (HOOK(), atomic_store_explicit((p), (v), memory_order_seq_cst))
#define ti_exchange_sc(p, v) (HOOK(), atomic_exchange_explicit((p), (v), memory_order_seq_cst))
#define ti_add_relaxed(p, n) (HOOK(), atomic_fetch_add_explicit((p), (n), memory_order_relaxed))
#define ti_add_sc(p, n) (HOOK(), atomic_fetch_add_explicit((p), (n), memory_order_seq_cst))
#define ti_sub_acq_rel(p, n) (HOOK(), atomic_fetch_sub_explicit((p), (n), memory_order_acq_rel))
#define ti_sub_sc(p, n) (HOOK(), atomic_fetch_sub_explicit((p), (n), memory_order_seq_cst))
#define ti_cas_sc(p, expected, desired)                                                            \
    (HOOK(), atomic_compare_exchange_strong_explicit((p), (expected), (desired),                   \
                                                     memory_order_seq_cst, memory_order_seq_cst))

#endif
