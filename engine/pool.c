/* SPDX-License-Identifier: MIT */
/* Where the threads of parking.h come from. For those that are borrowed and go back instead of
 * sleeping, see pool_shared.c. */
#include "engine/pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "engine/engine.h"

#define LINE_NS 1000000u

struct ti_thread {
    ti_pool *pool;  /* [const] */
    uint32_t index; /* [const] */
    uv_thread_t id; /* [lock:parking] */
    bool lost;      /* [lock:parking] nobody has its place */
    ti_place place;
};

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

/* There is work, and others claim this seat. They may come all the time, and then nobody just finds
 * it free. */
static bool is_crowded(ti_pool *pool, uint32_t seat)
{
    ti_worker *worker = ti_engine_worker(pool->engine, seat);
    return !ti_inbox_empty(&pool->engine->inbox) &&
           (ti_load_relaxed(&worker->claims) || ti_load_relaxed(&worker->seated) == TI_VISITOR);
}

/* Not for long: another seat may become free. */
static ti_worker *stand_in_line(ti_pool *pool, uint32_t seat)
{
    ti_parking_hand_on(&pool->parking);
    ti_worker *worker = ti_engine_stand_in_line(pool->engine, seat, LINE_NS);
    ti_parking_search(&pool->parking);
    return worker;
}

static bool is_over(uint64_t until)
{
    return until != UINT64_MAX && uv_hrtime() > until;
}

/* Works on a seat until nothing is found, or the time is over; or the seat is claimed: then true,
 * and there may be more to do. */
static bool work_at(ti_pool *pool, ti_worker *worker, uint64_t until)
{
    while (ti_worker_find(worker, NULL)) {
        ti_parking_hand_on(&pool->parking);
        ti_worker_drain(worker);
        ti_parking_search(&pool->parking);
        if (is_over(until))
            return false;
        if (ti_load_relaxed(&worker->claims))
            return true;
        ti_engine_catch_up(pool->engine, worker);
    }
    return false;
}

void ti_pool_work(ti_pool *pool, uint32_t seat, uint64_t until)
{
    bool more = true;
    mend(pool);
    while (more) {
        ti_worker *worker = ti_engine_sit(pool->engine, seat);
        bool crowded = !worker && is_crowded(pool, seat);
        if (crowded)
            worker = stand_in_line(pool, seat);
        more = worker ? work_at(pool, worker, until) : crowded && !is_over(until);
        if (worker)
            ti_engine_leave(pool->engine, worker);
    }
}

/* All are the host's, but for those that a thread raises itself by a mistake: where they are
 * blocked, the host's own handlers for them are not called. */
void ti_pool_mask_signals(sigset_t *before)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGURG); /* see preempt.c */
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

static void run_thread(void *data)
{
    ti_thread *thread = data;
    ti_pool *pool = thread->pool;
    ti_pool_mask_signals(NULL);
    do
        ti_pool_work(pool, pool->limit - 1 - thread->index, UINT64_MAX);
    while (ti_parking_park(&pool->parking, &thread->place));
}

/* With the lock, and a share of `searching` for the new thread. */
static bool start_thread(ti_pool *pool)
{
    if (pool->started == pool->limit || pool->refused || pool->parking.closing)
        return false;
    ti_thread *thread = &pool->threads[pool->started];
    const uv_thread_options_t options = {.flags = UV_THREAD_NO_FLAGS};
    if (uv_thread_create_ex(&thread->id, &options, run_thread, thread)) {
        pool->refused = true;
        return false;
    }
    pool->started++;
    return true;
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

void ti_pool_replace(ti_pool *pool, uv_thread_t lost)
{
    const uv_thread_options_t options = {.flags = UV_THREAD_NO_FLAGS};
    uv_mutex_lock(&pool->parking.lock);
    for (uint32_t i = 0; i < pool->started; i++) {
        ti_thread *thread = &pool->threads[i];
        if (thread->lost || !uv_thread_equal(&thread->id, &lost))
            continue;
        pthread_detach(lost);
        ti_parking_search(&pool->parking);
        thread->lost = uv_thread_create_ex(&thread->id, &options, run_thread, thread) != 0;
        if (thread->lost)
            ti_parking_give_up(&pool->parking);
        break;
    }
    uv_mutex_unlock(&pool->parking.lock);
}

void ti_pool_wake(ti_pool *pool)
{
    ti_parking_wake(&pool->parking);
}

bool ti_pool_ensure(ti_pool *pool)
{
    if (pool->borrows)
        return ti_control_ensure(&pool->engine->control);
    uv_mutex_lock(&pool->parking.lock);
    bool runs = pool->started > 0;
    if (!runs) {
        pool->refused = false; /* it may be different now */
        ti_parking_search(&pool->parking);
        runs = ti_parking_start(&pool->parking);
    }
    uv_mutex_unlock(&pool->parking.lock);
    return runs;
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
    for (uint32_t i = 0; i < pool->started; i++)
        if (!pool->threads[i].lost)
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
