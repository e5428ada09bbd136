/* SPDX-License-Identifier: MIT */
/* Where the threads of parking.h come from. For those that are borrowed and go back instead of
 * sleeping, see pool_shared.c. */
#include "engine/pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "engine/clock.h"
#include "engine/engine.h"
#include "engine/thread.h"

/* The system may refuse a thread for a moment; but each wake would ask it again. */
#define PATIENCE_NS ((uint64_t)100000000)

struct ti_thread {
    ti_pool *pool;  /* [const] */
    uint32_t index; /* [const] */
    uv_thread_t id; /* [lock:parking] */
    bool runs;      /* [lock:parking] there is one */
    ti_place place;
};

/* Was a thread refused just now, somebody has to ask for it again, even if nothing happens that
 * would wake one: all threads there are may be in callbacks that take long. */
static void mind_refusal(ti_pool *pool)
{
    if (ti_load_relaxed(&pool->refused) && ti_exchange_sc(&pool->refused, 0))
        ti_control_expect(&pool->engine->control, ti_now() + PATIENCE_NS);
}

/* A seat that lacks a context gets it, though there may be no work for it yet. That may take long,
 * so it counts as work: others look meanwhile. */
static void mend(ti_pool *pool)
{
    ti_engine *engine = pool->engine;
    ti_worker *worker = ti_engine_closed(engine) ? NULL : ti_engine_sit_bare(engine);
    if (!worker)
        return;
    ti_parking_hand_on(&pool->parking);
    if (ti_engine_equip(engine, worker))
        ti_engine_leave(engine, worker);
    ti_parking_search(&pool->parking);
}

void ti_pool_work(ti_pool *pool, uint32_t seat, uint64_t until)
{
    mend(pool);
    ti_worker *worker = ti_engine_sit(pool->engine, seat);
    while (worker) {
        if (!ti_worker_find(worker, NULL))
            break;
        ti_parking_hand_on(&pool->parking);
        mind_refusal(pool);
        ti_worker_drain(worker);
        ti_parking_search(&pool->parking);
        if (ti_load_relaxed(&worker->claims) || (until != UINT64_MAX && uv_hrtime() > until))
            break;
        ti_engine_catch_up(pool->engine, worker);
    }
    if (worker)
        ti_engine_leave(pool->engine, worker);
}

static void run_thread(void *data)
{
    ti_thread *thread = data;
    ti_pool *pool = thread->pool;
    ti_thread_mask_signals(NULL);
    do
        ti_pool_work(pool, pool->limit - 1 - thread->index, UINT64_MAX);
    while (ti_parking_park(&pool->parking, &thread->place));
}

/* With the lock, and a share of `searching` for the new thread. */
static bool run(ti_pool *pool, ti_thread *thread)
{
    thread->runs = ti_thread_create(&thread->id, run_thread, thread) == 0;
    pool->started += thread->runs;
    pool->again = thread->runs ? 0 : ti_now() + PATIENCE_NS;
    if (!thread->runs)
        ti_store_sc(&pool->refused, 1);
    return thread->runs;
}

/* With the lock, and a share of `searching` for the new thread. */
static bool start_thread(ti_pool *pool)
{
    if (pool->started == pool->limit || pool->parking.closing ||
        (pool->again && ti_now() < pool->again))
        return false;
    uint32_t place = 0;
    while (pool->threads[place].runs)
        place++;
    return run(pool, &pool->threads[place]);
}

static bool beckons(void *data)
{
    ti_pool *pool = data;
    return ti_engine_beckons(pool->engine);
}

static void prepare(void *data)
{
    ti_pool *pool = data;
    if (pool->borrows)
        ti_control_ensure(&pool->engine->control); /* if it cannot be, asking fails */
}

static bool start(void *data)
{
    ti_pool *pool = data;
    if (!pool->sharing && start_thread(pool))
        return true;
    pool->sharing = pool->borrows; /* perhaps the system gives no thread to close with */
    return pool->sharing && ti_lender_ask(pool);
}

/* With the lock. NULL: it is none of the pool's. */
static ti_thread *find(ti_pool *pool, uv_thread_t id)
{
    for (uint32_t i = 0; i < pool->limit; i++)
        if (pool->threads[i].runs && uv_thread_equal(&pool->threads[i].id, &id))
            return &pool->threads[i];
    return NULL;
}

void ti_pool_replace(ti_pool *pool, uv_thread_t lost)
{
    uv_mutex_lock(&pool->parking.lock);
    ti_thread *thread = find(pool, lost);
    bool refused = false;
    if (thread) {
        pthread_detach(lost);
        pool->started--;
        ti_parking_search(&pool->parking);
        refused = !run(pool, thread);
    }
    uv_mutex_unlock(&pool->parking.lock);
    if (refused)
        ti_parking_return(&pool->parking);
}

void ti_pool_wake(ti_pool *pool)
{
    ti_parking_wake(&pool->parking);
    mind_refusal(pool);
}

bool ti_pool_ensure(ti_pool *pool)
{
    if (pool->borrows)
        return ti_control_ensure(&pool->engine->control);
    uv_mutex_lock(&pool->parking.lock);
    bool runs = pool->started > 0;
    if (!runs) {
        pool->again = 0; /* nobody else would do what the caller has */
        ti_parking_search(&pool->parking);
        runs = ti_parking_start(&pool->parking);
    }
    uv_mutex_unlock(&pool->parking.lock);
    return runs;
}

uint64_t ti_pool_ask_again(ti_pool *pool, uint64_t now)
{
    uv_mutex_lock(&pool->parking.lock);
    uint64_t again = pool->again;
    bool asks = again && again <= now;
    if (asks)
        pool->again = 0; /* who publishes from here on asks himself */
    uv_mutex_unlock(&pool->parking.lock);
    if (asks && ti_engine_beckons(pool->engine))
        ti_pool_wake(pool);
    return again && !asks ? again : UINT64_MAX;
}

void ti_pool_stop_sharing(ti_pool *pool)
{
    uv_mutex_lock(&pool->parking.lock);
    pool->sharing = false;
    bool asked = ti_parking_take_back(&pool->parking); /* before the requests are withdrawn */
    ti_lender_withdraw(pool);
    uv_mutex_unlock(&pool->parking.lock);
    if (asked)
        ti_parking_return(&pool->parking);
}

/* 0, or a libuv error, and then nothing is left open. */
static int open_threads(ti_pool *pool)
{
    int status = uv_mutex_init(&pool->parking.lock);
    if (status)
        return status;
    for (uint32_t i = 0; i < pool->limit; i++) {
        pool->threads[i].pool = pool;
        pool->threads[i].index = i;
        if (!(status = uv_sem_init(&pool->threads[i].place.wake, 0)))
            continue;
        while (i-- > 0)
            uv_sem_destroy(&pool->threads[i].place.wake);
        uv_mutex_destroy(&pool->parking.lock);
        return status;
    }
    return 0;
}

int ti_pool_open(ti_pool *pool, ti_engine *engine, uint32_t limit, bool borrows)
{
    static const ti_parking_calls calls = {beckons, prepare, start};
    pool->engine = engine;
    pool->limit = limit;
    pool->borrows = pool->sharing = borrows;
    pool->parking.calls = &calls;
    pool->parking.pool = pool;
    atomic_init(&pool->refused, 0);
    atomic_init(&pool->parking.idle, limit);
    atomic_init(&pool->parking.searching, 0);
    pool->threads = calloc(limit, sizeof *pool->threads);
    int status = UV_ENOMEM;
    if (pool->threads && (!borrows || ti_lender_open(pool)) && !(status = open_threads(pool)))
        return 0;
    ti_lender_free(pool);
    free(pool->threads);
    return status;
}

void ti_pool_close(ti_pool *pool)
{
    ti_parking_close(&pool->parking);
    for (uint32_t i = 0; i < pool->limit; i++)
        if (pool->threads[i].runs)
            uv_thread_join(&pool->threads[i].id);
}

void ti_pool_free(ti_pool *pool)
{
    for (uint32_t i = 0; i < pool->limit; i++)
        uv_sem_destroy(&pool->threads[i].place.wake);
    uv_mutex_destroy(&pool->parking.lock);
    ti_lender_free(pool);
    free(pool->threads);
}
