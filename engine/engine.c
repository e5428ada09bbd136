/* SPDX-License-Identifier: MIT */
#include "engine/engine.h"

#include <stdlib.h>

static void close_contexts(ti_engine *engine)
{
    for (uint32_t w = 0; w < engine->workers; w++)
        for (uint32_t b = 0; b < engine->backends; b++)
            if (engine->seats[w].contexts[b]) {
                engine->backend[b].vtable->close(engine->seats[w].contexts[b]);
                engine->seats[w].contexts[b] = NULL;
            }
    for (uint32_t w = 0; w < engine->workers; w++) {
        free(engine->seats[w].forget);
        engine->seats[w].forget = NULL;
    }
}

static bool open_contexts(ti_engine *engine, ti_error **error)
{
    for (uint32_t w = 0; w < engine->workers; w++)
        for (uint32_t b = 0; b < engine->backends; b++) {
            void *context = engine->backend[b].vtable->open(engine->backend[b].shared, w, error);
            if (!context)
                return false;
            engine->seats[w].contexts[b] = context;
        }
    return true;
}

static void open_seats(ti_engine *engine)
{
    for (uint32_t i = 0; i < engine->workers; i++) {
        engine->seats[i] = (ti_worker){.engine = engine, .index = i, .random = i + 1};
        atomic_init(&engine->seats[i].deque.top, 0);
        atomic_init(&engine->seats[i].deque.bottom, 0);
    }
}

uint32_t ti_engine_default_workers(void)
{
    unsigned cores = uv_available_parallelism();
    return cores < TI_MOST_WORKERS ? cores : TI_MOST_WORKERS;
}

/* 0, or a libuv error, and then nothing is left open. */
static int open_threading(ti_engine *engine)
{
    int status = uv_mutex_init(&engine->lock);
    if (status)
        return status;
    if (!(status = uv_cond_init(&engine->changed))) {
        if (!(status = ti_pool_open(&engine->pool, engine, engine->workers)))
            return 0;
        uv_cond_destroy(&engine->changed);
    }
    uv_mutex_destroy(&engine->lock);
    return status;
}

ti_engine *ti_engine_open(uint32_t workers, const ti_backend_choice *choices, uint32_t count,
                          ti_error **error)
{
    ti_engine *engine = aligned_alloc(TI_CACHE_LINE, sizeof *engine);
    ti_worker *seats = aligned_alloc(TI_CACHE_LINE, workers * sizeof *seats);
    if (!engine || !seats) {
        free(engine);
        free(seats);
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return NULL;
    }
    *engine = (ti_engine){.workers = workers, .seats = seats, .backends = count};
    for (uint32_t b = 0; b < count; b++) {
        engine->backend[b].vtable = choices[b].vtable;
        engine->backend[b].shared = choices[b].shared;
    }
    atomic_init(&engine->references, 1);
    open_seats(engine);
    int status = open_threading(engine);
    if (status) {
        *error = ti_error_format(TI_E_INTERNAL, "cannot set up threads: %s", uv_strerror(status));
        free(seats);
        free(engine);
        return NULL;
    }
    if (!open_contexts(engine, error)) {
        ti_engine_release(engine);
        return NULL;
    }
    return engine;
}

static void cancel_all(ti_engine *engine)
{
    static const char reason[] = "the engine is closing";
    for (ti_run *run = engine->runs; run; run = run->next)
        ti_run_cancel(run, reason, sizeof reason - 1);
}

static bool try_to_sit(ti_worker *worker)
{
    unsigned char nobody = 0;
    return ti_cas_sc(&worker->seated, &nobody, 1);
}

ti_worker *ti_engine_claim(ti_engine *engine, uint32_t index)
{
    ti_worker *worker = &engine->seats[index];
    bool taken;
    ti_add_sc(&worker->claims, 1);
    uv_mutex_lock(&engine->lock);
    while (!(taken = try_to_sit(worker)) && !engine->closed)
        uv_cond_wait(&engine->changed, &engine->lock);
    uv_mutex_unlock(&engine->lock);
    ti_sub_sc(&worker->claims, 1);
    if (!taken)
        return NULL;
    ti_engine_catch_up(engine, worker);
    return worker;
}

void ti_engine_close(ti_engine *engine)
{
    uv_mutex_lock(&engine->lock);
    if (engine->closers++) {
        while (!engine->closed)
            uv_cond_wait(&engine->changed, &engine->lock);
        uv_mutex_unlock(&engine->lock);
        return;
    }
    ti_store_sc(&engine->closing, 1);
    cancel_all(engine);
    while (ti_load_sc(&engine->in_flight) > 0)
        uv_cond_wait(&engine->changed, &engine->lock);
    uv_mutex_unlock(&engine->lock);
    ti_pool_close(&engine->pool);
    for (uint32_t i = 0; i < engine->workers; i++)
        ti_engine_claim(engine, i);
    close_contexts(engine);
    uv_mutex_lock(&engine->lock);
    engine->closed = true;
    uv_cond_broadcast(&engine->changed);
    uv_mutex_unlock(&engine->lock);
}

bool ti_engine_closed(ti_engine *engine)
{
    return ti_load_acquire(&engine->closing);
}

ti_engine *ti_engine_retain(ti_engine *engine)
{
    ti_add_relaxed(&engine->references, 1);
    return engine;
}

void ti_engine_release(ti_engine *engine)
{
    if (!engine || !ti_drop_reference(&engine->references))
        return;
    ti_engine_close(engine);
    uv_cond_destroy(&engine->changed);
    uv_mutex_destroy(&engine->lock);
    free(engine->seats);
    free(engine);
}

ti_worker *ti_engine_sit(ti_engine *engine, uint32_t preferred)
{
    for (uint32_t i = 0; i < engine->workers; i++) {
        uint32_t at = preferred + i < engine->workers ? preferred + i
                                                      : preferred + i - engine->workers;
        ti_worker *worker = &engine->seats[at];
        if (!ti_load_relaxed(&worker->seated) && !ti_load_relaxed(&worker->claims) &&
            try_to_sit(worker)) {
            ti_engine_catch_up(engine, worker);
            return worker;
        }
    }
    return NULL;
}

void ti_engine_leave(ti_engine *engine, ti_worker *worker)
{
    worker->guest = NULL;
    ti_store_sc(&worker->seated, 0);
    if (ti_load_sc(&worker->claims)) {
        uv_mutex_lock(&engine->lock);
        uv_cond_broadcast(&engine->changed);
        uv_mutex_unlock(&engine->lock);
    }
    if (ti_load_sc(&engine->in_flight) > 0 && ti_engine_beckons(engine))
        ti_pool_wake(&engine->pool);
}

bool ti_engine_beckons(ti_engine *engine)
{
    bool work = !ti_inbox_empty(&engine->inbox), seat = false;
    for (uint32_t i = 0; i < engine->workers && !(work && seat); i++) {
        ti_worker *worker = &engine->seats[i];
        work = work || (ti_load_sc(&worker->offers) && ti_deque_count(&worker->deque) > 0);
        seat = seat || (!ti_load_sc(&worker->seated) && !ti_load_sc(&worker->claims));
    }
    return work && seat;
}

/* Counts the run as in flight unless the engine closes. The count goes up before `closing` is read,
 * and the closer reads it after it has set that. */
static bool launch(ti_engine *engine, ti_run *run)
{
    ti_program *program = run->program;
    ti_add_sc(&engine->in_flight, 1);
    ti_store_sc(&run->phase, TI_IN_FLIGHT);
    if (ti_load_sc(&engine->closing)) {
        ti_store_relaxed(&run->phase, TI_IDLE);
        if (ti_sub_sc(&engine->in_flight, 1) == 1) {
            uv_mutex_lock(&engine->lock);
            uv_cond_broadcast(&engine->changed);
            uv_mutex_unlock(&engine->lock);
        }
        return false;
    }
    uint32_t number = ti_add_relaxed(&program->started, 1);
    run->serial = ti_add_relaxed(&engine->launched, 1) + 1;
    run->timed = run->profile || number < 4 || number % 16 == 0;
    run->light_ns = ti_load_relaxed(&program->light_ns);
    if (run->timed)
        run->began = uv_hrtime();
    ti_run_retain(run);
    return true;
}

void ti_engine_settle(ti_engine *engine, ti_run *run)
{
    if (run->profile)
        run->ended = uv_hrtime();
    run->verdict = ti_load_relaxed(&run->stop);
    bool awaited = ti_exchange_sc(&run->phase, TI_SETTLED) == TI_AWAITED;
    bool last = ti_sub_sc(&engine->in_flight, 1) == 1 && ti_load_sc(&engine->closing);
    if (awaited || last) {
        uv_mutex_lock(&engine->lock);
        uv_cond_broadcast(&engine->changed);
        uv_mutex_unlock(&engine->lock);
    }
    ti_run_release(run);
}

/* Leaves the entry points in the inbox for whoever comes. */
static void send_entries(ti_engine *engine, ti_run *run)
{
    uint32_t entries = run->plan->entries;
    for (uint32_t i = 0; i < entries; i++) {
        run->nodes[i].status = TI_READY;
        run->nodes[i].next = i + 1 < entries ? &run->nodes[i + 1] : NULL;
    }
    ti_inbox_send(&engine->inbox, &run->nodes[0], &run->nodes[entries - 1]);
    ti_pool_wake(&engine->pool);
}

static void work_as_guest(ti_engine *engine, ti_worker *worker, ti_run *run)
{
    worker->guest = run;
    ti_worker_enter(worker, run);
    do
        ti_worker_drain(worker);
    while (!ti_run_settled(run) && ti_worker_find(worker));
    ti_engine_leave(engine, worker);
}

bool ti_engine_run(ti_engine *engine, ti_run *run)
{
    if (!launch(engine, run))
        return false;
    ti_worker *worker = ti_engine_sit(engine, 0);
    if (!worker && !ti_pool_ensure(&engine->pool))
        worker = ti_engine_claim(engine, 0); /* nobody else would do it */
    if (worker)
        work_as_guest(engine, worker, run);
    else
        send_entries(engine, run);
    ti_engine_wait(engine, run);
    return true;
}

ti_code ti_engine_start(ti_engine *engine, ti_run *run)
{
    if (ti_engine_closed(engine))
        return TI_E_CLOSED;
    if (!ti_pool_ensure(&engine->pool))
        return TI_E_INTERNAL;
    if (!launch(engine, run))
        return TI_E_CLOSED;
    send_entries(engine, run);
    return TI_OK;
}

void ti_engine_wait(ti_engine *engine, ti_run *run)
{
    if (ti_run_settled(run))
        return;
    uv_mutex_lock(&engine->lock);
    unsigned phase = TI_IN_FLIGHT;
    ti_cas_sc(&run->phase, &phase, TI_AWAITED);
    while (!ti_run_settled(run))
        uv_cond_wait(&engine->changed, &engine->lock);
    uv_mutex_unlock(&engine->lock);
}

void ti_engine_enlist(ti_engine *engine, ti_run *run)
{
    uv_mutex_lock(&engine->lock);
    run->next = engine->runs;
    if (run->next)
        run->next->previous = run;
    engine->runs = run;
    uv_mutex_unlock(&engine->lock);
}

void ti_engine_delist(ti_engine *engine, ti_run *run)
{
    uv_mutex_lock(&engine->lock);
    if (run->previous)
        run->previous->next = run->next;
    else
        engine->runs = run->next;
    if (run->next)
        run->next->previous = run->previous;
    uv_mutex_unlock(&engine->lock);
}

ti_run *ti_engine_pop_idle(ti_engine *engine, ti_program *program)
{
    uv_mutex_lock(&engine->lock);
    ti_run *run = program->idle;
    if (run)
        program->idle = run->next_idle;
    uv_mutex_unlock(&engine->lock);
    return run;
}

void ti_engine_push_idle(ti_engine *engine, ti_program *program, ti_run *run)
{
    uv_mutex_lock(&engine->lock);
    run->next_idle = program->idle;
    program->idle = run;
    uv_mutex_unlock(&engine->lock);
}

static void forget(ti_engine *engine, ti_worker *worker, uint64_t key)
{
    for (uint32_t b = 0; b < engine->backends; b++)
        if (engine->backend[b].vtable->forget && worker->contexts[b])
            engine->backend[b].vtable->forget(worker->contexts[b], key);
}

static void note_forget(ti_engine *engine, ti_worker *worker, uint64_t key)
{
    uv_mutex_lock(&engine->lock);
    uint32_t count = ti_load_relaxed(&worker->forgetful);
    if (count == worker->forget_capacity) {
        uint32_t capacity = count ? 2 * count : 8;
        uint64_t *keys = realloc(worker->forget, capacity * sizeof *keys);
        if (keys) {
            worker->forget = keys;
            worker->forget_capacity = capacity;
        }
    }
    if (count < worker->forget_capacity) {
        worker->forget[count] = key;
        ti_store_sc(&worker->forgetful, count + 1);
    }
    uv_mutex_unlock(&engine->lock);
}

void ti_engine_forget(ti_engine *engine, uint64_t key)
{
    for (uint32_t i = 0; i < engine->workers; i++) {
        ti_worker *worker = &engine->seats[i];
        if (try_to_sit(worker)) {
            forget(engine, worker, key);
            ti_engine_leave(engine, worker);
        } else if (!ti_engine_closed(engine)) {
            note_forget(engine, worker, key);
        }
    }
}

void ti_engine_catch_up(ti_engine *engine, ti_worker *worker)
{
    while (ti_load_relaxed(&worker->forgetful)) {
        uv_mutex_lock(&engine->lock);
        uint32_t last = ti_load_relaxed(&worker->forgetful) - 1;
        uint64_t key = worker->forget[last];
        ti_store_relaxed(&worker->forgetful, last);
        uv_mutex_unlock(&engine->lock);
        forget(engine, worker, key);
    }
}
