/* SPDX-License-Identifier: MIT */
/* The memory orders of engine/deque.h and engine/inbox.h, which are compiled here as they are, on
 * Relacy's atomics; and those of parking and waking, in the words of engine/pool.c.
 *
 * Built with another order for one kind of access (SC_LOAD, SC_STORE, SC_RMW, RELEASE) it
 * must fail; see check.sh. */
#include <fstream>

#include <relacy/relacy.hpp>

#define TI_ATOMICS_H
#define TI_RUN_H
#define TI_CACHE_LINE 64
#define TI_DEQUE_SIZE 2

#ifndef SC_LOAD
#define SC_LOAD rl::mo_seq_cst
#endif
#ifndef SC_STORE
#define SC_STORE rl::mo_seq_cst
#endif
#ifndef SC_RMW
#define SC_RMW rl::mo_seq_cst
#endif
#ifndef RELEASE
#define RELEASE rl::mo_release
#endif

#define ti_load_relaxed(p) (p)->load(rl::mo_relaxed, $)
#define ti_load_acquire(p) (p)->load(rl::mo_acquire, $)
#define ti_load_sc(p) (p)->load(SC_LOAD, $)
#define ti_store_relaxed(p, v) (p)->store((v), rl::mo_relaxed, $)
#define ti_store_release(p, v) (p)->store((v), RELEASE, $)
#define ti_store_sc(p, v) (p)->store((v), SC_STORE, $)
#define ti_exchange_sc(p, v) (p)->exchange((v), SC_RMW, $)
#define ti_add_sc(p, n) (p)->fetch_add((n), SC_RMW, $)
#define ti_sub_sc(p, n) (p)->fetch_sub((n), SC_RMW, $)
#define ti_cas_sc(p, expected, desired)                                                            \
    (p)->compare_exchange_strong(*(expected), (desired), SC_RMW, $)

#define _Atomic(T) rl::atomic<T>
#define _Alignas(n)
#define atomic_int_fast64_t rl::atomic<int64_t>

struct ti_node {
    rl::var<int> outcome; /* what a thread left for the one that gets the node */
    ti_node *next;
};

#include "engine/deque.h"
#include "engine/inbox.h"

enum { NODES = 3 };

/* The owner pushes and pops, and two thieves steal: everything is had once, with what is in it. */
struct deque_test : rl::test_suite<deque_test, 3> {
    ti_deque deque;
    ti_node nodes[NODES];
    rl::var<int> had[NODES];
    int taken; /* not part of what is checked */

    void before()
    {
        deque.top.store(0, rl::mo_relaxed, $);
        deque.bottom.store(0, rl::mo_relaxed, $);
        for (int i = 0; i < NODES; i++)
            had[i]($) = 0;
        taken = 0;
    }

    void take(ti_node *node)
    {
        if (!node)
            return;
        int i = (int)(node - nodes);
        RL_ASSERT(node->outcome($) == i + 1);
        RL_ASSERT(had[i]($) == 0);
        had[i]($) = 1;
        taken++;
    }

    void thread(unsigned index)
    {
        if (index) {
            take(ti_deque_steal(&deque));
            return;
        }
        for (int i = 0; i < NODES; i++) {
            nodes[i].outcome($) = i + 1;
            if (!ti_deque_push(&deque, &nodes[i]))
                take(&nodes[i]);
            if (i == 1)
                take(ti_deque_pop(&deque));
        }
        for (ti_node *node; (node = ti_deque_pop(&deque));)
            take(node);
    }

    void after()
    {
        RL_ASSERT(taken == NODES);
    }
};

/* Two send, one takes twice; the rest is taken afterwards. */
struct inbox_test : rl::test_suite<inbox_test, 3> {
    ti_inbox inbox;
    ti_node nodes[2];
    int taken;

    void before()
    {
        inbox.newest.store(NULL, rl::mo_relaxed, $);
        taken = 0;
    }

    void take(ti_node *node)
    {
        for (; node; node = node->next, taken++)
            RL_ASSERT(node->outcome($) == 7);
    }

    void thread(unsigned index)
    {
        if (index == 2) {
            take(ti_inbox_take(&inbox));
            take(ti_inbox_take(&inbox));
            return;
        }
        nodes[index].outcome($) = 7;
        ti_inbox_send(&inbox, &nodes[index], &nodes[index]);
    }

    void after()
    {
        take(ti_inbox_take(&inbox));
        RL_ASSERT(taken == 2);
    }
};

/* One thread parks, another publishes: whatever happens, somebody sees the other. */
struct park_test : rl::test_suite<park_test, 2> {
    rl::atomic<unsigned> searching, idle;
    ti_inbox inbox;
    ti_node node;
    bool woken, seen;

    void before()
    {
        searching.store(1, rl::mo_relaxed, $);
        idle.store(0, rl::mo_relaxed, $);
        inbox.newest.store(NULL, rl::mo_relaxed, $);
        woken = seen = false;
    }

    void park()
    {
        ti_add_sc(&idle, 1u);
        ti_sub_sc(&searching, 1u);
        seen = !ti_inbox_empty(&inbox);
    }

    void publish()
    {
        unsigned none = 0;
        ti_inbox_send(&inbox, &node, &node);
        if (ti_add_sc(&searching, 0u) == 0 && ti_load_sc(&idle) > 0 &&
            ti_cas_sc(&searching, &none, 1u))
            woken = true;
    }

    void thread(unsigned index)
    {
        if (index)
            publish();
        else
            park();
    }

    void after()
    {
        RL_ASSERT(woken || seen);
    }
};

template <typename test> static bool holds(const char *name, rl::scheduler_type_e scheduler)
{
    rl::test_params parameters;
    static std::ofstream output("/dev/null"); /* the history of what fails */
    parameters.search_type = scheduler;
    parameters.iteration_count = 200000;
    parameters.output_stream = &output;
    parameters.progress_stream = &output;
    bool passed = rl::simulate<test>(parameters);
    printf("relacy: %s: %s, %llu schedules\n", name, passed ? "holds" : "FAILS",
           (unsigned long long)parameters.stop_iteration);
    return passed;
}

int main()
{
    bool deque = holds<deque_test>("deque", rl::sched_random);
    bool inbox = holds<inbox_test>("inbox", rl::sched_random);
    bool park = holds<park_test>("park", rl::sched_full);
    return deque && inbox && park ? 0 : 1;
}
