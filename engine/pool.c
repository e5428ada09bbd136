/* SPDX-License-Identifier: MIT */
/* Parking. A thread that finds nothing counts itself idle, gives up its share of `searching`, and
 * only then looks once more at what is published (ti_engine_beckons) before it sleeps. Whoever
 * publishes does so first and then reads `searching` and `idle`, all in one total order: so either
 * the publisher sees that somebody must be woken, or the parker sees what was published. For
 * threads that are borrowed and go back instead of sleeping, see pool_shared.c. */
#include "engine/pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "engine/engine.h"

struct ti_thread {
    ti_pool *pool;   /* [const] */
    uint32_t index;  /* [const] */
    uv_thread_t id;  /* [lock:pool] */
    bool lost;       /* [lock:pool] nobody has its place */
    uv_sem_t wake;   /* posted once for each time it is taken off `parked` */
    ti_thread *next; /* [lock:pool] */
    bool is_parked;  /* [lock:pool] */
};

static void give_up_search(ti_pool *pool)
{
    ti_sub_sc(&pool->searching, 1);
}

static void unlink_parked(ti_pool *pool, ti_thread *thread)
{
    ti_thread **link = &pool->parked;
    while (*link != thread)
        link = &(*link)->next;
    *link = thread->next;
    thread->is_parked = false;
    ti_sub_sc(&pool->idle, 1);
}

void ti_pool_work(ti_pool *pool, uint32_t seat, uint64_t until)
{
    ti_worker *worker = ti_engine_sit(pool->engine, seat);
    while (worker) {
        if (!ti_worker_find(worker, NULL))
            break;
        give_up_search(pool);
        if (ti_engine_beckons(pool->engine))
            ti_pool_wake(pool); /* there was more than this one took */
        ti_worker_drain(worker);
        ti_add_sc(&pool->searching, 1);
        if (ti_load_relaxed(&worker->claims) || (until != UINT64_MAX && uv_hrtime() > until))
            break;
        ti_engine_catch_up(pool->engine, worker);
    }
    if (worker)
        ti_engine_leave(pool->engine, worker);
}

/* Sleeps until woken to search. False: the pool closes and there is nothing left. Comes with a
 * share of `searching` and, when true, returns with one. */
static bool park(ti_pool *pool, ti_thread *thread)
{
    uv_mutex_lock(&pool->lock);
    thread->next = pool->parked;
    thread->is_parked = true;
    pool->parked = thread;
    ti_add_sc(&pool->idle, 1);
    bool closing = pool->closing;
    uv_mutex_unlock(&pool->lock);
    give_up_search(pool);
    bool beckons = ti_engine_beckons(pool->engine);
    if (beckons || closing) {
        uv_mutex_lock(&pool->lock);
        bool back = thread->is_parked;
        if (back)
            unlink_parked(pool, thread);
        uv_mutex_unlock(&pool->lock);
        if (back) {
            ti_add_sc(&pool->searching, 1);
            return beckons || !closing;
        }
    }
    uv_sem_wait(&thread->wake);
    return true;
}

void ti_pool_return(ti_pool *pool)
{
    uv_mutex_lock(&pool->lock);
    ti_add_sc(&pool->idle, 1);
    uv_mutex_unlock(&pool->lock);
    give_up_search(pool);
    if (ti_engine_beckons(pool->engine))
        ti_pool_wake(pool);
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
    while (park(pool, thread));
    give_up_search(pool);
}

/* With the lock, and a share of `searching` for the new thread. */
static bool start_thread(ti_pool *pool)
{
    if (pool->started == pool->limit || pool->refused || pool->closing)
        return false;
    ti_thread *thread = &pool->threads[pool->started];
    const uv_thread_options_t options = {.flags = UV_THREAD_NO_FLAGS};
    if (uv_thread_create_ex(&thread->id, &options, run_thread, thread)) {
        pool->refused = true;
        return false;
    }
    pool->started++;
    ti_sub_sc(&pool->idle, 1);
    return true;
}

/* With the lock, and a share of `searching` for the thread. */
static bool get_thread(ti_pool *pool)
{
    if (ti_load_sc(&pool->idle) == 0)
        return false;
    if (!pool->sharing && start_thread(pool))
        return true;
    pool->sharing = pool->borrows; /* perhaps the system gives no thread to close with */
    if (!pool->sharing || !ti_lender_ask(pool))
        return false;
    ti_sub_sc(&pool->idle, 1);
    return true;
}

/* With a share of `searching`, which goes to the thread, or back if there is none. */
static bool send_one(ti_pool *pool)
{
    if (pool->borrows)
        ti_control_ensure(&pool->engine->control); /* if it cannot be, asking fails */
    uv_mutex_lock(&pool->lock);
    ti_thread *thread = pool->parked;
    bool sent = thread != NULL;
    if (thread)
        unlink_parked(pool, thread);
    else
        sent = get_thread(pool);
    if (!sent)
        give_up_search(pool); /* with the lock: who parks from here on looks again afterwards */
    uv_mutex_unlock(&pool->lock);
    if (thread)
        uv_sem_post(&thread->wake);
    return sent;
}

void ti_pool_replace(ti_pool *pool, uv_thread_t lost)
{
    const uv_thread_options_t options = {.flags = UV_THREAD_NO_FLAGS};
    uv_mutex_lock(&pool->lock);
    for (uint32_t i = 0; i < pool->started; i++) {
        ti_thread *thread = &pool->threads[i];
        if (thread->lost || !uv_thread_equal(&thread->id, &lost))
            continue;
        pthread_detach(lost);
        ti_add_sc(&pool->searching, 1);
        thread->lost = uv_thread_create_ex(&thread->id, &options, run_thread, thread) != 0;
        if (thread->lost)
            give_up_search(pool);
        break;
    }
    uv_mutex_unlock(&pool->lock);
}

void ti_pool_wake(ti_pool *pool)
{
    unsigned none = 0;
    /* A read-modify-write even where it changes nothing: the searcher that gives up its share reads
     * from it or is read by it, and so sees what was published before. */
    if (ti_add_sc(&pool->searching, 0) == 0 && ti_load_sc(&pool->idle) > 0 &&
        ti_cas_sc(&pool->searching, &none, 1))
        send_one(pool);
}

bool ti_pool_ensure(ti_pool *pool)
{
    if (pool->borrows)
        return ti_control_ensure(&pool->engine->control);
    uv_mutex_lock(&pool->lock);
    bool runs = pool->started > 0;
    if (!runs) {
        pool->refused = false; /* it may be different now */
        ti_add_sc(&pool->searching, 1);
        runs = start_thread(pool);
        if (!runs)
            give_up_search(pool);
    }
    uv_mutex_unlock(&pool->lock);
    return runs;
}

void ti_pool_stop_sharing(ti_pool *pool)
{
    uv_mutex_lock(&pool->lock);
    pool->sharing = false;
    ti_lender_withdraw(pool);
    uv_mutex_unlock(&pool->lock);
}

/* 0, or a libuv error, and then nothing is left open. */
static int open_threads(ti_pool *pool)
{
    int status = uv_mutex_init(&pool->lock);
    if (status)
        return status;
    for (uint32_t i = 0; i < pool->limit; i++) {
        pool->threads[i].pool = pool;
        pool->threads[i].index = i;
        if (!(status = uv_sem_init(&pool->threads[i].wake, 0)))
            continue;
        while (i-- > 0)
            uv_sem_destroy(&pool->threads[i].wake);
        uv_mutex_destroy(&pool->lock);
        return status;
    }
    return 0;
}

int ti_pool_open(ti_pool *pool, ti_engine *engine, uint32_t limit, bool borrows)
{
    pool->engine = engine;
    pool->limit = limit;
    pool->borrows = pool->sharing = borrows;
    atomic_init(&pool->idle, limit);
    atomic_init(&pool->searching, 0);
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
    uv_mutex_lock(&pool->lock);
    pool->closing = true;
    while (pool->parked) {
        ti_thread *thread = pool->parked;
        unlink_parked(pool, thread);
        ti_add_sc(&pool->searching, 1);
        uv_sem_post(&thread->wake);
    }
    uv_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->started; i++)
        if (!pool->threads[i].lost)
            uv_thread_join(&pool->threads[i].id);
}

void ti_pool_free(ti_pool *pool)
{
    for (uint32_t i = 0; i < pool->limit; i++)
        uv_sem_destroy(&pool->threads[i].wake);
    uv_mutex_destroy(&pool->lock);
    ti_lender_free(pool);
    free(pool->threads);
}
