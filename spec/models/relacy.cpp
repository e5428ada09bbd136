/* SPDX-License-Identifier: MIT */
/* engine/deque.h, engine/inbox.h and engine/parking.h, which are compiled here as they are, on
 * Relacy's atomics and locks: as many schedules as there is time for, in the memory of C11.
 *
 * Built with another order for one kind of access (SC_LOAD, SC_STORE, SC_RMW, RELEASE), with a
 * mistake here (MUTANT) or one in the headers it must fail; see check.sh. Arguments name tests: they
 * alone are run, until one fails. MUTANT:
 *   1 a sender wakes before it publishes
 *   2 who leaves a seat does not look
 *   3 a worker that has work for others wakes nobody
 *   4 who gets a place back does not look whether a thread was asked for
 */
#include <cstring>
#include <fstream>

#include <relacy/relacy.hpp>

#define TI_ATOMICS_H
#define TI_BLOCKING_H
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
#define ti_add_sc(p, n) (dawdle(), (p)->fetch_add((n), SC_RMW, $))
#define ti_sub_sc(p, n) (dawdle(), (p)->fetch_sub((n), SC_RMW, $))
#define ti_cas_sc(p, expected, desired)                                                            \
    (dawdle(), (p)->compare_exchange_strong(*(expected), (desired), SC_RMW, $))

/* A thread seldom falls far behind the others when chance decides each step alone. */
static inline void dawdle()
{
    if (rl::ctx().rand(16, rl::sched_type_user) == 0)
        for (unsigned steps = rl::ctx().rand(40, rl::sched_type_user); steps > 0; steps--)
            rl::yield(1, $);
}

#define _Atomic(T) rl::atomic<T>
#define _Alignas(n)
#define atomic_int_fast64_t rl::atomic<int64_t>
#define atomic_uint rl::atomic<unsigned>
#define atomic_uchar rl::atomic<unsigned char>

#ifndef SCHEDULES
#define SCHEDULES 200000
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

struct ti_mutex {
    rl::mutex it;
};

struct ti_semaphore {
    rl::semaphore<ti_semaphore> it;
    ti_semaphore()
    {
        it.init(false, 0, 100, $);
    }
    ~ti_semaphore()
    {
        it.deinit($);
    }
};

#define ti_mutex_lock(m) (m)->it.lock($)
#define ti_mutex_unlock(m) (m)->it.unlock($)
#define ti_semaphore_wait(s) (s)->it.wait(false, false, $)
#define ti_semaphore_post(s) (s)->it.signal($)

struct ti_node {
    rl::var<int> outcome; /* what a thread left for the one that gets the node */
    ti_node *next;
};

#include "engine/deque.h"
#include "engine/inbox.h"
#include "engine/parking.h"

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

enum { WORKERS = 2, PARENT = 0, CHILD, OTHER, TASKS };

/* As much of an engine as parking has to do with: seats, and what is published in the inbox and on
 * deques. The functions are those of engine.c, worker.c and pool.c without all else.
 *
 * The parent leaves its child on its deque, and does not end before the child has: so somebody has
 * to steal it. Whatever was sent and is never done leaves everybody waiting, which Relacy finds. */
struct tiny_engine {
    struct worker {
        rl::atomic<unsigned char> seated, offers;
        ti_deque deque;
    } seats[WORKERS];
    ti_inbox inbox;
    ti_parking parking;
    ti_node tasks[TASKS];
    ti_semaphore child_done, all_done;
    rl::atomic<unsigned> left;

    void open(const ti_parking_calls *calls, void *pool)
    {
        for (int i = 0; i < WORKERS; i++) {
            seats[i].seated.store(0, rl::mo_relaxed, $);
            seats[i].offers.store(0, rl::mo_relaxed, $);
            seats[i].deque.top.store(0, rl::mo_relaxed, $);
            seats[i].deque.bottom.store(0, rl::mo_relaxed, $);
        }
        for (int i = 0; i < TASKS; i++)
            tasks[i].outcome($) = 0;
        inbox.newest.store(NULL, rl::mo_relaxed, $);
        left.store(TASKS, rl::mo_relaxed, $);
        parking.calls = calls;
        parking.pool = pool;
        parking.parked = NULL;
        parking.closing = parking.asked = false;
        parking.idle.store(WORKERS, rl::mo_relaxed, $);
        parking.searching.store(0, rl::mo_relaxed, $);
    }

    bool beckons()
    {
        bool work = !ti_inbox_empty(&inbox), seat = false;
        for (int i = 0; i < WORKERS; i++) {
            work = work || (ti_load_sc(&seats[i].offers) && ti_deque_count(&seats[i].deque) > 0);
            seat = seat || !ti_load_sc(&seats[i].seated);
        }
        return work && seat;
    }

    worker *sit(unsigned preferred)
    {
        for (unsigned i = 0; i < WORKERS; i++) {
            worker *it = &seats[(preferred + i) % WORKERS];
            unsigned char nobody = 0;
            if (!ti_load_relaxed(&it->seated) && ti_cas_sc(&it->seated, &nobody, 1))
                return it;
        }
        return NULL;
    }

    void leave(worker *it)
    {
        ti_store_sc(&it->seated, 0);
        if (MUTANT != 2 && beckons())
            ti_parking_wake(&parking);
    }

    void send(int task)
    {
        tasks[task].outcome($) = 1;
        if (MUTANT == 1)
            ti_parking_wake(&parking);
        ti_inbox_send(&inbox, &tasks[task], &tasks[task]);
        if (MUTANT != 1)
            ti_parking_wake(&parking);
    }

    void offer(worker *it)
    {
        bool wanted = ti_deque_count(&it->deque) > 0;
        if (wanted != ti_load_relaxed(&it->offers))
            ti_store_sc(&it->offers, wanted);
        if (wanted && MUTANT != 3)
            ti_parking_wake(&parking);
    }

    void perform(worker *it, ti_node *task)
    {
        RL_ASSERT(task->outcome($) == 1);
        task->outcome($) = 2;
        if (task == &tasks[PARENT]) {
            tasks[CHILD].outcome($) = 1;
            RL_ASSERT(ti_deque_push(&it->deque, &tasks[CHILD]));
        }
        offer(it);
        if (task == &tasks[PARENT])
            ti_semaphore_wait(&child_done);
        if (task == &tasks[CHILD])
            ti_semaphore_post(&child_done);
        if (ti_sub_sc(&left, 1u) == 1)
            ti_semaphore_post(&all_done);
    }

    bool find(worker *it, ti_node *&hot)
    {
        ti_node *chain = ti_inbox_take(&inbox);
        for (; chain && chain->next; chain = chain->next)
            ti_deque_push(&it->deque, chain);
        hot = chain;
        for (int i = 0; i < WORKERS && !hot; i++)
            if (&seats[i] != it && ti_load_sc(&seats[i].offers))
                hot = ti_deque_steal(&seats[i].deque);
        return hot;
    }

    void work(unsigned preferred)
    {
        ti_node *hot;
        worker *it = sit(preferred);
        while (it && find(it, hot)) {
            ti_parking_hand_on(&parking);
            for (; hot; hot = ti_deque_pop(&it->deque))
                perform(it, hot);
            ti_store_relaxed(&it->offers, 0);
            ti_parking_search(&parking);
        }
        if (it)
            leave(it);
    }

    void check_done()
    {
        for (int i = 0; i < TASKS; i++)
            RL_ASSERT(tasks[i].outcome($) == 2);
        RL_ASSERT(!beckons());
        RL_ASSERT(!parking.asked);
        RL_ASSERT(ti_load_sc(&parking.searching) == 0);
    }
};

/* Threads of the engine's own. Two send; when all is done, one closes. The other one takes a seat
 * for a while. */
struct park_test : rl::test_suite<park_test, WORKERS + 2> {
    tiny_engine engine;
    ti_place places[WORKERS];
    ti_semaphore begun[WORKERS];
    unsigned started;
    rl::atomic<unsigned> over;

    static bool beckons(void *pool)
    {
        return ((park_test *)pool)->engine.beckons();
    }

    static void prepare(void *)
    {
    }

    static bool start(void *pool)
    {
        park_test *self = (park_test *)pool;
        if (self->started == WORKERS || self->engine.parking.closing)
            return false;
        ti_semaphore_post(&self->begun[self->started++]);
        return true;
    }

    void before()
    {
        static const ti_parking_calls calls = {beckons, prepare, start};
        engine.open(&calls, this);
        started = 0;
        over.store(0, rl::mo_relaxed, $);
    }

    void run_thread(unsigned index)
    {
        ti_semaphore_wait(&begun[index]);
        if (ti_load_acquire(&over))
            return; /* it never was a thread */
        do
            engine.work(index);
        while (ti_parking_park(&engine.parking, &places[index]));
    }

    void close()
    {
        ti_parking_close(&engine.parking);
        ti_store_release(&over, 1);
        for (unsigned i = started; i < WORKERS; i++)
            ti_semaphore_post(&begun[i]);
    }

    void thread(unsigned index)
    {
        if (index < WORKERS) {
            run_thread(index);
        } else if (index == WORKERS) {
            engine.send(PARENT);
            ti_semaphore_wait(&engine.all_done);
            close();
        } else {
            tiny_engine::worker *seat = engine.sit(0);
            engine.send(OTHER);
            if (seat)
                engine.leave(seat);
        }
    }

    void after()
    {
        engine.check_done();
        RL_ASSERT(!engine.parking.parked);
        RL_ASSERT(ti_load_sc(&engine.parking.idle) == WORKERS - started);
    }
};

/* Threads borrowed from a pool, by requests that one loop makes: pool_shared.c in small. Two send;
 * when all is done, one has the loop end, which waits until all has been given back. */
struct lend_test : rl::test_suite<lend_test, WORKERS + 3> {
    enum { LOOP = WORKERS, SENDER };

    tiny_engine engine;
    ti_mutex lock; /* of what the pool and the loop have between them */
    ti_semaphore requests, events;
    unsigned queued, given_back; /* [lock] */
    bool closing;                /* [lock] */
    unsigned places;             /* [loop] */
    rl::atomic<unsigned> over;

    static bool beckons(void *pool)
    {
        return ((lend_test *)pool)->engine.beckons();
    }

    static void prepare(void *)
    {
    }

    static bool start(void *pool)
    {
        lend_test *self = (lend_test *)pool;
        ti_parking_ask(&self->engine.parking);
        ti_semaphore_post(&self->events);
        return true;
    }

    void before()
    {
        static const ti_parking_calls calls = {beckons, prepare, start};
        engine.open(&calls, this);
        queued = given_back = 0;
        places = WORKERS;
        closing = false;
        over.store(0, rl::mo_relaxed, $);
    }

    void run_thread(unsigned index)
    {
        for (;;) {
            ti_semaphore_wait(&requests);
            if (ti_load_acquire(&over))
                return;
            ti_mutex_lock(&lock);
            queued--;
            ti_mutex_unlock(&lock);
            engine.work(index);
            ti_parking_return(&engine.parking);
            ti_mutex_lock(&lock);
            given_back++;
            ti_mutex_unlock(&lock);
            ti_semaphore_post(&events);
        }
    }

    void lend()
    {
        if (!ti_parking_lend(&engine.parking, places > 0))
            return;
        places--;
        ti_mutex_lock(&lock);
        RL_ASSERT(queued == 0); /* one at a time */
        queued++;
        ti_mutex_unlock(&lock);
        ti_semaphore_post(&requests);
    }

    /* True: the loop is to end. */
    bool turn()
    {
        ti_semaphore_wait(&events);
        ti_mutex_lock(&lock);
        unsigned back = given_back;
        given_back = 0;
        bool ends = closing;
        ti_mutex_unlock(&lock);
        places += back;
        if (MUTANT != 4 || !back)
            lend();
        return ends && places == WORKERS;
    }

    void thread(unsigned index)
    {
        if (index < WORKERS) {
            run_thread(index);
        } else if (index == LOOP) {
            while (!turn())
                ;
            ti_store_release(&over, 1);
            for (int i = 0; i < WORKERS; i++)
                ti_semaphore_post(&requests);
        } else if (index == SENDER) {
            engine.send(PARENT);
            ti_semaphore_wait(&engine.all_done);
            ti_mutex_lock(&lock);
            closing = true;
            ti_mutex_unlock(&lock);
            ti_semaphore_post(&events);
        } else {
            engine.send(OTHER);
        }
    }

    void after()
    {
        if (ti_parking_take_back(&engine.parking))
            ti_parking_return(&engine.parking); /* nobody needs it */
        engine.check_done();
        RL_ASSERT(ti_load_sc(&engine.parking.idle) == WORKERS);
    }
};

template <typename test> static bool holds(const char *name)
{
    rl::test_params parameters;
    static std::ofstream output("/dev/null"); /* the history of what fails */
    parameters.iteration_count = SCHEDULES;
    parameters.output_stream = &output;
    parameters.progress_stream = &output;
    bool passed = rl::simulate<test>(parameters);
    printf("relacy: %s: %s, %llu schedules\n", name,
           passed ? "holds" : rl::test_result_str(parameters.test_result),
           (unsigned long long)parameters.stop_iteration);
    return passed;
}

int main(int count, char **names)
{
    static const struct {
        const char *name;
        bool (*holds)(const char *name);
    } tests[] = {
        {"deque", holds<deque_test>},
        {"inbox", holds<inbox_test>},
        {"park", holds<park_test>},
        {"lend", holds<lend_test>},
    };
    bool good = true;
    for (const auto &test : tests) {
        bool named = count == 1;
        for (int i = 1; i < count; i++)
            named = named || strcmp(names[i], test.name) == 0;
        if (named && (good || count == 1))
            good = test.holds(test.name) && good;
    }
    return good ? 0 : 1;
}
