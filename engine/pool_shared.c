/* SPDX-License-Identifier: MIT */
/* Who wants a thread asks the control loop for it (parking.h). At most one request waits in libuv's
 * queue, however much there is to do: the first to come asks for the second. When libuv's pool is
 * smaller than the engine, or full of other people's requests, that one waits its turn, and nothing
 * else does.
 *
 * A request can be asked for before libuv is done with the last of the `limit` there are: then it
 * is made when that is given back. It is, as its thread has counted itself idle.
 *
 * Nobody is given up here: libuv joins its threads when the process exits. */
#include "engine/pool_shared.h"

#include <stdlib.h>

#include "engine/engine.h"
#include "engine/thread.h"

/* A borrowed thread goes back after so many nanoseconds, as soon as its worker has drained; if
 * there is more to do, another request stands at the end of libuv's queue by then. */
#define LENT_NS 10000000u

static void give_back(uv_work_t *request, int status);

/* On a thread of libuv's. */
static void work(uv_work_t *request)
{
    ti_loan *loan = request->data;
    ti_pool *pool = loan->pool;
    sigset_t before;
    ti_thread_mask_signals(&before);
    ti_pool_work(pool, pool->limit - 1 - loan->index, uv_hrtime() + LENT_NS);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ti_parking_return(&pool->parking);
}

/* Makes the request that was asked for, if there is one to make it with. */
static void lend(ti_pool *pool)
{
    ti_lender *lender = &pool->lender;
    if (!ti_parking_lend(&pool->parking, lender->free != NULL))
        return;
    ti_loan *loan = lender->free;
    lender->free = loan->next;
    lender->last = loan;
    uv_queue_work(lender->ask.loop, &loan->request, work, give_back);
}

static void give_back(uv_work_t *request, int status)
{
    ti_loan *loan = request->data;
    ti_lender *lender = &loan->pool->lender;
    loan->next = lender->free;
    lender->free = loan;
    if (lender->last == loan)
        lender->last = NULL;
    if (status == UV_ECANCELED)
        ti_parking_return(&loan->pool->parking); /* as the thread would have done */
    lend(loan->pool);
}

static void on_ask(uv_async_t *ask)
{
    ti_pool *pool = ask->data;
    ti_lender *lender = &pool->lender;
    uv_mutex_lock(&pool->parking.lock);
    bool withdrawn = lender->withdrawn;
    lender->withdrawn = false;
    uv_mutex_unlock(&pool->parking.lock);
    lend(pool);
    if (withdrawn && lender->last)
        uv_cancel((uv_req_t *)&lender->last->request);
}

bool ti_lender_ask(ti_pool *pool)
{
    ti_lender *lender = &pool->lender;
    if (!lender->attached)
        return false;
    ti_parking_ask(&pool->parking);
    uv_async_send(&lender->ask);
    return true;
}

void ti_lender_withdraw(ti_pool *pool)
{
    ti_lender *lender = &pool->lender;
    if (!lender->attached)
        return;
    lender->withdrawn = true;
    uv_async_send(&lender->ask);
}

int ti_lender_attach(ti_pool *pool, uv_loop_t *loop)
{
    ti_lender *lender = &pool->lender;
    if (!lender->loans)
        return 0;
    int status = uv_async_init(loop, &lender->ask, on_ask);
    lender->ask.data = pool;
    if (status)
        return status;
    uv_mutex_lock(&pool->parking.lock);
    lender->attached = true;
    uv_mutex_unlock(&pool->parking.lock);
    return 0;
}

void ti_lender_detach(ti_pool *pool)
{
    ti_lender *lender = &pool->lender;
    uv_mutex_lock(&pool->parking.lock);
    bool attached = lender->attached;
    lender->attached = false;
    bool asked = ti_parking_take_back(&pool->parking);
    uv_mutex_unlock(&pool->parking.lock);
    if (!attached)
        return;
    uv_close((uv_handle_t *)&lender->ask, NULL);
    if (asked)
        ti_parking_return(&pool->parking);
    if (lender->last)
        uv_cancel((uv_req_t *)&lender->last->request);
}

bool ti_lender_open(ti_pool *pool)
{
    ti_lender *lender = &pool->lender;
    lender->loans = calloc(pool->limit, sizeof *lender->loans);
    if (!lender->loans)
        return false;
    for (uint32_t i = pool->limit; i-- > 0;) {
        ti_loan *loan = &lender->loans[i];
        loan->pool = pool;
        loan->index = i;
        loan->request.data = loan;
        loan->next = lender->free;
        lender->free = loan;
    }
    return true;
}

void ti_lender_free(ti_pool *pool)
{
    free(pool->lender.loans);
}
