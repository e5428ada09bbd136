/* SPDX-License-Identifier: MIT */
#include "engine/engine.h"

#include <pthread.h>
#include <stdlib.h>

#include "engine/clock.h"
#include "engine/executor.h"
#include "engine/frame.h"
#include "engine/limits.h"
#include "engine/live.h"
#include "engine/preempt.h"
#include "engine/thread.h"

/* Forks that led to this process. A child has none of an engine's threads, so it must keep off. */
static atomic_uint forks;

static void count_fork(void)
{
    ti_add_relaxed(&forks, 1);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

bool ti_engine_forked(const ti_engine *engine)
{
    return ti_load_relaxed(&forks) != engine->forks;
}

/* So much is kept for runs to come, and by each program two runs per worker anyway; a collector
 * that frees results gives back many at once, and a burst must not be paid for ever. */
#define IDLE_BYTES ((size_t)16 << 20)

static void close_contexts(ti_engine *engine)
{
    for (uint32_t w = 0; w < engine->workers; w++)
        for (uint32_t b = 0; b < engine->backends; b++) {
            void *context = ti_worker_context(&engine->seats[w], b);
            if (context)
                engine->backend[b].vtable->close(context);
            engine->seats[w].contexts[b] = NULL;
        }
}

/* Opens the contexts that a worker lacks: all of them at first, and one where there was no memory
 * for it when the worker was given up. False: *error says why. */
static bool open_contexts(ti_engine *engine, ti_worker *worker, ti_error **error)
{
    for (uint32_t b = 0; b < engine->backends; b++) {
        if (!worker->contexts[b])
            worker->contexts[b] =
                engine->backend[b].vtable->open(engine->backend[b].shared, worker->index, error);
        if (!worker->contexts[b])
            return false;
    }
    return true;
}

static bool open_all_contexts(ti_engine *engine, ti_error **error)
{
    for (uint32_t w = 0; w < engine->workers; w++)
        if (!open_contexts(engine, &engine->seats[w], error))
            return false;
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

static void close_conditions(ti_engine *engine, int crowds)
{
    while (crowds-- > 0)
        uv_cond_destroy(&engine->crowds[crowds]);
    uv_cond_destroy(&engine->changed);
}

/* 0, or a libuv error, and then there are none. */
static int open_conditions(ti_engine *engine)
{
    int made = 0, status = uv_cond_init(&engine->changed);
    if (status)
        return status;
    while (made < TI_ENGINE_CROWDS && !(status = uv_cond_init(&engine->crowds[made])))
        made++;
    if (status)
        close_conditions(engine, made);
    return status;
}

/* Where somebody waits for a run: by its number, so that seeded schedules are the same again. */
static uv_cond_t *crowd_of(ti_engine *engine, const ti_run *run)
{
    return &engine->crowds[(run->serial >> 32) % TI_ENGINE_CROWDS];
}

/* 0, or a libuv error, and then nothing is left open. */
static int open_threading(ti_engine *engine, bool shared)
{
    int status = uv_mutex_init(&engine->lock);
    if (status)
        return status;
    if (!(status = open_conditions(engine))) {
        if (!(status = ti_control_open(&engine->control, engine))) {
            if (!(status = ti_pool_open(&engine->pool, engine, engine->workers, shared)))
                return 0;
            ti_control_free(&engine->control);
        }
        close_conditions(engine, TI_ENGINE_CROWDS);
    }
    uv_mutex_destroy(&engine->lock);
    return status;
}

ti_engine *ti_engine_open(const ti_engine_config *config, const ti_backend_choice *choices,
                          uint32_t count, ti_error **error)
{
    uint32_t workers = config->workers;
    ti_engine *engine = aligned_alloc(TI_CACHE_LINE, sizeof *engine);
    ti_worker *seats = aligned_alloc(TI_CACHE_LINE, workers * sizeof *seats);
    if (!engine || !seats) {
        free(engine);
        free(seats);
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return NULL;
    }
    bool signals = config->preempt == TI_PREEMPT_SIGNAL && ti_preempt_prepare();
    *engine = (ti_engine){
        .workers = workers,
        .preempt =
            config->preempt == TI_PREEMPT_SIGNAL && !signals ? TI_PREEMPT_HOOK : config->preempt,
        .grace = config->shared ? 0 : config->grace,
        .stubborn = config->stubborn && !config->shared,
        .seats = seats,
        .backends = count,
    };
    for (uint32_t b = 0; b < count; b++) {
        engine->backend[b].vtable = choices[b].vtable;
        engine->backend[b].shared = choices[b].shared;
    }
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    engine->forks = ti_load_relaxed(&forks);
    engine->descriptor = TI_NO_DESCRIPTOR;
    atomic_init(&engine->references, 1);
    atomic_init(&engine->handles, 1);
    open_seats(engine);
    int status = open_threading(engine, config->shared);
    if (status) {
        *error = ti_error_format(TI_E_INTERNAL, "cannot set up threads: %s", uv_strerror(status));
        free(seats);
        free(engine);
        return NULL;
    }
    ti_live_add(TI_LIVE_ENGINES, 1);
    if (!open_all_contexts(engine, error)) {
        ti_engine_close(engine);
        engine->backends = 0; /* what they share is still the caller's */
        ti_engine_release(engine);
        return NULL;
    }
    return engine;
}

static bool is_in_flight(ti_run *run)
{
    unsigned phase = ti_load_sc(&run->phase);
    return phase == TI_IN_FLIGHT || phase == TI_AWAITED;
}

/* With the lock. True: there was one. */
static bool cancel_all(ti_engine *engine)
{
    static const char reason[] = "the engine is closing";
    bool any = false;
    for (ti_run *run = engine->runs[TI_ALL]; run; run = run->in[TI_ALL].next)
        any = ti_run_stop(run, TI_STOP_CANCELLED, reason, sizeof reason - 1) || any;
    return any;
}

/* Attempts that wait, and are of runs that were told to stop, are ready. */
static void flush_attempts(ti_engine *engine)
{
    ti_engine_queue(engine, ti_control_flush(&engine->control));
}

/* A signal may have missed a callback that began in that moment. */
static void look_again(ti_engine *engine)
{
    if (engine->preempt == TI_PREEMPT_SIGNAL)
        ti_control_expect(&engine->control, ti_now() + 1000000);
}

/* As ti_engine_stop, for what cancel_all has stopped. */
static void enforce_all(ti_engine *engine)
{
    uv_mutex_lock(&engine->lock);
    for (ti_run *run = engine->runs[TI_ALL]; run; run = run->in[TI_ALL].next)
        if (run->bounded && is_in_flight(run))
            ti_engine_queue(engine, ti_limits_flush(run->program->limits, run));
    uv_mutex_unlock(&engine->lock);
    flush_attempts(engine);
    ti_engine_enforce(engine);
    look_again(engine);
}

/* With the lock. */
static bool any_in_flight(ti_engine *engine)
{
    for (ti_run *run = engine->runs[TI_ALL]; run; run = run->in[TI_ALL].next)
        if (is_in_flight(run))
            return true;
    return false;
}

static bool try_to_sit(ti_worker *worker)
{
    unsigned char nobody = 0;
    if (!ti_cas_sc(&worker->seated, &nobody, 1))
        return false;
    worker->thread = uv_thread_self();
    ti_preempt_enter(worker);
    return true;
}

bool ti_engine_equip(ti_engine *engine, ti_worker *worker)
{
    ti_error *error = NULL;
    bool equipped = open_contexts(engine, worker, &error);
    ti_error_free(error);
    if (!equipped) {
        uv_sleep(1); /* so that threads which want this seat do not ask for memory all the time */
        ti_engine_leave(engine, worker);
        return false;
    }
    if (ti_load_relaxed(&worker->bare))
        ti_store_relaxed(&worker->bare, 0);
    ti_engine_catch_up(engine, worker);
    return true;
}

/* Whatever it lacks. */
static ti_worker *claim(ti_engine *engine, uint32_t index)
{
    ti_worker *worker = &engine->seats[index];
    bool taken;
    if (ti_engine_forked(engine))
        return NULL;
    ti_add_sc(&worker->claims, 1);
    uv_mutex_lock(&engine->lock);
    while (!(taken = try_to_sit(worker)) && !engine->closed)
        uv_cond_wait(&engine->changed, &engine->lock);
    uv_mutex_unlock(&engine->lock);
    ti_sub_sc(&worker->claims, 1);
    return taken ? worker : NULL;
}

ti_worker *ti_engine_claim(ti_engine *engine, uint32_t index)
{
    ti_worker *worker = claim(engine, index);
    return worker && ti_engine_equip(engine, worker) ? worker : NULL;
}

/* Keeps the seat taken for good, though this thread does not sit there. */
static void stand_by(ti_engine *engine, ti_worker *worker)
{
    if (!worker)
        return;
    ti_engine_catch_up(engine, worker);
    ti_preempt_leave(worker);
}

void ti_engine_close(ti_engine *engine)
{
    if (ti_engine_forked(engine))
        return;
    uv_mutex_lock(&engine->lock);
    if (engine->closers++) {
        while (!engine->closed)
            uv_cond_wait(&engine->changed, &engine->lock);
        uv_mutex_unlock(&engine->lock);
        return;
    }
    ti_store_sc(&engine->closing, 1);
    bool any = cancel_all(engine);
    uv_mutex_unlock(&engine->lock);
    ti_pool_stop_sharing(&engine->pool);
    if (any)
        enforce_all(engine);
    uv_mutex_lock(&engine->lock);
    while (any_in_flight(engine))
        uv_cond_wait(&engine->changed, &engine->lock);
    uv_mutex_unlock(&engine->lock);
    ti_control_close(&engine->control);
    ti_pool_close(&engine->pool);
    for (uint32_t i = 0; i < engine->workers; i++)
        stand_by(engine, claim(engine, i));
    close_contexts(engine);
    uv_mutex_lock(&engine->lock);
    engine->closed = true;
    uv_cond_broadcast(&engine->changed);
    uv_mutex_unlock(&engine->lock);
}

bool ti_engine_closed(ti_engine *engine)
{
    return ti_load_acquire(&engine->closing) || ti_engine_forked(engine);
}

ti_engine *ti_engine_retain(ti_engine *engine)
{
    ti_add_relaxed(&engine->references, 1);
    return engine;
}

static void destroy(void *data)
{
    ti_engine *engine = data;
    ti_engine_close(engine);
    ti_descriptor_close(&engine->descriptor);
    ti_pool_free(&engine->pool);
    ti_control_free(&engine->control);
    close_conditions(engine, TI_ENGINE_CROWDS);
    uv_mutex_destroy(&engine->lock);
    for (uint32_t b = 0; b < engine->backends; b++)
        if (engine->backend[b].vtable->discard)
            engine->backend[b].vtable->discard(engine->backend[b].shared);
    for (uint32_t i = 0; i < engine->workers; i++)
        free(engine->seats[i].forget); /* notes may come until now */
    free(engine->seats);
    ti_live_add(TI_LIVE_ENGINES, -1);
    free(engine);
}

bool ti_engine_inside(ti_engine *engine)
{
    return ti_preempt_sits(engine) || ti_frame_inside(engine) || ti_control_here(&engine->control);
}

void ti_engine_release(ti_engine *engine)
{
    if (!engine || !ti_drop_reference(&engine->references) || ti_engine_forked(engine))
        return;
    uv_thread_t undertaker;
    if (!ti_engine_inside(engine))
        destroy(engine);
    else if (!ti_thread_create(&undertaker, destroy, engine)) /* else it stays: no thread */
        pthread_detach(undertaker);
}

/* A free seat, of those that lack a context or of the others; NULL: there is none. */
static ti_worker *take_seat(ti_engine *engine, uint32_t preferred, bool bare)
{
    for (uint32_t i = 0; i < engine->workers; i++) {
        uint32_t at =
            preferred + i < engine->workers ? preferred + i : preferred + i - engine->workers;
        ti_worker *worker = &engine->seats[at];
        if (!ti_load_relaxed(&worker->seated) && !ti_load_relaxed(&worker->claims) &&
            ti_load_relaxed(&worker->bare) == bare && try_to_sit(worker))
            return worker;
    }
    return NULL;
}

ti_worker *ti_engine_sit(ti_engine *engine, uint32_t preferred)
{
    ti_worker *worker = take_seat(engine, preferred, false);
    if (!worker)
        worker = take_seat(engine, preferred, true);
    return worker && ti_engine_equip(engine, worker) ? worker : NULL;
}

ti_worker *ti_engine_sit_bare(ti_engine *engine)
{
    return take_seat(engine, 0, true);
}

void ti_engine_leave(ti_engine *engine, ti_worker *worker)
{
    worker->guest = NULL;
    ti_preempt_leave(worker);
    ti_store_sc(&worker->seated, 0);
    if (ti_load_sc(&worker->claims)) {
        uv_mutex_lock(&engine->lock);
        uv_cond_broadcast(&engine->changed);
        uv_mutex_unlock(&engine->lock);
    }
    if (ti_engine_beckons(engine))
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

static void broadcast(ti_engine *engine, uv_cond_t *crowd)
{
    uv_mutex_lock(&engine->lock);
    uv_cond_broadcast(&engine->changed);
    uv_cond_broadcast(crowd);
    uv_mutex_unlock(&engine->lock);
}

/* Puts the run in flight unless the engine closes: `phase` says so before `closing` is read, and
 * the closer looks at it after it has set that. */
static bool enter_flight(ti_engine *engine, ti_run *run)
{
    ti_store_sc(&run->phase, TI_IN_FLIGHT);
    if (!ti_load_sc(&engine->closing))
        return true;
    ti_store_sc(&run->phase, TI_IDLE);
    broadcast(engine, crowd_of(engine, run));
    return false;
}

/* How often the program was started, about: it decides which runs are timed. */
static uint32_t count_start(ti_program *program)
{
    uint32_t number = ti_load_relaxed(&program->started);
    ti_store_relaxed(&program->started, number + 1);
    return number;
}

static void enlist(ti_engine *engine, ti_run *run, int list)
{
    uv_mutex_lock(&engine->lock);
    ti_run *next = engine->runs[list];
    run->in[list].previous = NULL;
    run->in[list].next = next;
    if (next)
        next->in[list].previous = run;
    engine->runs[list] = run;
    uv_mutex_unlock(&engine->lock);
}

static void delist(ti_engine *engine, ti_run *run, int list)
{
    uv_mutex_lock(&engine->lock);
    ti_run *previous = run->in[list].previous, *next = run->in[list].next;
    if (previous)
        previous->in[list].next = next;
    else
        engine->runs[list] = next;
    if (next)
        next->in[list].previous = previous;
    uv_mutex_unlock(&engine->lock);
}

ti_code ti_engine_launch(ti_engine *engine, ti_run *run)
{
    ti_program *program = run->program;
    const ti_plan *plan = run->plan;
    if (ti_engine_closed(engine))
        return TI_E_CLOSED;
    if ((plan->timeouts || plan->retries || run->timeout) && !ti_control_ensure(&engine->control))
        return ti_engine_closed(engine) ? TI_E_CLOSED : TI_E_INTERNAL;
    uint32_t number = count_start(program);
    run->serial++;
    run->timed = run->profile || plan->timeouts || number < 4 || number % 16 == 0;
    run->light_ns = ti_load_relaxed(&program->light_ns);
    if (run->timed || run->timeout)
        run->began = ti_now();
    if (run->timeout || ti_load_relaxed(&run->deadline))
        ti_store_sc(&run->deadline, run->timeout ? run->began + run->timeout : 0);
    if (!enter_flight(engine, run))
        return TI_E_CLOSED;
    if (!run->held)
        ti_run_retain(run);
    if (run->signals && run->group == run) /* else its stream counts it */
        ti_add_sc(&engine->pending, 1);
    if (run->timeout) {
        enlist(engine, run, TI_TIMED);
        ti_control_expect(&engine->control, run->began + run->timeout);
    }
    return TI_OK;
}

void ti_engine_add_handle(ti_engine *engine)
{
    ti_add_relaxed(&engine->handles, 1);
}

void ti_engine_drop_handle(ti_engine *engine)
{
    if (ti_sub_acq_rel(&engine->handles, 1) != 1 || ti_engine_forked(engine))
        return;
    uv_mutex_lock(&engine->lock);
    engine->deaf = true;
    ti_run *settled = engine->settled.first;
    engine->settled.first = NULL;
    uv_mutex_unlock(&engine->lock);
    for (ti_run *next; settled; settled = next) {
        next = settled->next_settled;
        ti_run_release(settled);
    }
}

void ti_engine_subscribe(ti_engine *engine, ti_run *run)
{
    run->signals = run->listed = true;
    run->list = &engine->settled;
}

ti_run *ti_engine_next_settled(ti_engine *engine)
{
    if (ti_engine_forked(engine))
        return NULL;
    uv_mutex_lock(&engine->lock);
    ti_run *run = ti_settled_take(&engine->settled);
    if (!run)
        ti_descriptor_clear(&engine->descriptor);
    uv_mutex_unlock(&engine->lock);
    if (run)
        ti_sub_sc(&engine->pending, 1);
    return run;
}

int ti_engine_pollfd(ti_engine *engine)
{
    if (ti_engine_forked(engine))
        return -1;
    uv_mutex_lock(&engine->lock);
    int fd = ti_descriptor_open(&engine->descriptor, ti_load_sc(&engine->pending) > 0);
    uv_mutex_unlock(&engine->lock);
    return fd;
}

uint32_t ti_engine_pending(ti_engine *engine)
{
    return ti_load_sc(&engine->pending);
}

void ti_engine_unlist(ti_engine *engine, ti_settled *list, ti_run *runs)
{
    if (ti_engine_forked(engine))
        return;
    uv_mutex_lock(&engine->lock);
    for (ti_run *run = runs; run; run = run->after)
        run->list = NULL;
    for (ti_run *run; (run = ti_settled_take(list));)
        ti_run_release(run); /* never the last reference: it is one of `runs` */
    uv_mutex_unlock(&engine->lock);
}

/* The run has settled; true: somebody waits for it. Who sees that by its phase finds it in its
 * list, too, because that needs the lock. */
static bool announce(ti_engine *engine, ti_run *run)
{
    uv_mutex_lock(&engine->lock);
    bool awaited = ti_exchange_sc(&run->phase, TI_SETTLED) == TI_AWAITED;
    if (run->listed && run->list && !(engine->deaf && run->list == &engine->settled)) {
        ti_settled_add(run->list, ti_run_retain(run));
        awaited = awaited || run->list->awaited;
    }
    if (run->signals)
        ti_descriptor_signal(&engine->descriptor);
    uv_mutex_unlock(&engine->lock);
    return awaited;
}

static bool set_settled(ti_engine *engine, ti_run *run)
{
    if ((run->listed || run->signals) && !ti_engine_forked(engine))
        return announce(engine, run);
    return ti_exchange_sc(&run->phase, TI_SETTLED) == TI_AWAITED;
}

void ti_engine_settle(ti_engine *engine, ti_run *run)
{
    if (run->timed)
        run->ended = ti_now();
    if (run->timeout && !ti_engine_forked(engine))
        delist(engine, run, TI_TIMED);
    if (!run->held && !run->listed && run->group == run)
        ti_add_relaxed(&engine->unseen, ti_load_relaxed(&run->bytes));
    run->verdict = ti_load_relaxed(&run->stop);
    uv_cond_t *crowd = crowd_of(engine, run);
    bool held = run->held; /* and from when it is settled, perhaps gone */
    bool awaited = set_settled(engine, run);
    if (awaited || ti_load_sc(&engine->closing))
        broadcast(engine, crowd);
    if (!held)
        ti_run_release(run);
}

size_t ti_engine_take_unseen(ti_engine *engine)
{
    size_t bytes = ti_load_relaxed(&engine->unseen);
    if (bytes)
        ti_sub_acq_rel(&engine->unseen, bytes);
    return bytes;
}

void ti_engine_refuse(ti_engine *engine, ti_run *run)
{
    for (uint32_t i = 0; i < run->plan->count; i++)
        run->nodes[i].status = TI_CANCELLED;
    run->verdict = TI_STOP_CANCELLED;
    run->began = run->ended = 0;
    set_settled(engine, run);
}

void ti_engine_queue(ti_engine *engine, ti_node *chain)
{
    ti_node *last;
    if (!chain)
        return;
    chain = ti_executor_queue(chain, &last); /* from here on they may run */
    ti_inbox_send(&engine->inbox, chain, last);
    ti_pool_wake(&engine->pool);
}

/* What it runs must stop. */
static void tell(ti_engine *engine, ti_worker *worker)
{
    ti_store_sc(&worker->told, 1);
    if (engine->preempt == TI_PREEMPT_SIGNAL)
        ti_preempt_kick(worker);
}

static void interrupt(ti_engine *engine, const ti_run *run, const ti_worker *self)
{
    for (uint32_t i = 0; i < engine->workers; i++) {
        ti_worker *worker = &engine->seats[i];
        if (worker != self && ti_load_sc(&worker->running) == run)
            tell(engine, worker);
    }
}

/* A run is not freed without the lock, nor before all workers have let go of it. */
bool ti_engine_enforce(ti_engine *engine)
{
    bool runs = false;
    uv_mutex_lock(&engine->lock);
    for (uint32_t i = 0; i < engine->workers; i++) {
        ti_worker *worker = &engine->seats[i];
        const ti_run *run = ti_load_sc(&worker->running);
        if (!run || ti_load_sc(&run->stop) == TI_GO)
            continue;
        runs = true;
        tell(engine, worker);
    }
    uv_mutex_unlock(&engine->lock);
    return runs && engine->preempt == TI_PREEMPT_SIGNAL;
}

/* What waits for permits and other attempts, and is stopped, is ready, and so cancelled. */
static void flush(ti_engine *engine, const ti_run *run)
{
    if (run->bounded)
        ti_engine_queue(engine, ti_limits_flush(run->program->limits, run));
    flush_attempts(engine);
}

void ti_engine_stop(ti_engine *engine, const ti_run *run, const ti_worker *self)
{
    if (ti_engine_forked(engine))
        return;
    flush(engine, run);
    interrupt(engine, run, self);
    if (engine->workers > (self ? 1 : 0)) /* else nobody else can be in a callback */
        look_again(engine);
}

/* The runs that are past their deadline, retained, linked by `next_late`. *next is when the next
 * one is. */
static ti_run *find_late(ti_engine *engine, uint64_t now, uint64_t *next)
{
    ti_run *late = NULL;
    uv_mutex_lock(&engine->lock);
    for (ti_run *run = engine->runs[TI_TIMED]; run; run = run->in[TI_TIMED].next) {
        uint64_t deadline = ti_load_sc(&run->deadline);
        if (deadline > now) {
            *next = deadline < *next ? deadline : *next;
        } else if (ti_load_sc(&run->stop) == TI_GO && ti_run_retain_live(run)) {
            run->next_late = late;
            late = run;
        }
    }
    uv_mutex_unlock(&engine->lock);
    return late;
}

static void stop_late(ti_engine *engine, ti_run *run, uint64_t now)
{
    while (run) {
        ti_run *next = run->next_late;
        uint64_t deadline = ti_load_sc(&run->deadline); /* it may be another flight of it by now */
        if (deadline && deadline <= now && ti_run_stop(run, TI_STOP_TIMEOUT, NULL, 0))
            flush(engine, run); /* ti_engine_enforce comes next */
        ti_run_release(run);
        run = next;
    }
}

/* True: the callback that runs there is late, and is told to stop. */
static bool check_call(ti_engine *engine, ti_worker *worker, uint64_t now, uint64_t *next)
{
    uint64_t deadline = ti_load_sc(&worker->deadline);
    if (!deadline)
        return false;
    if (deadline > now) {
        *next = deadline < *next ? deadline : *next;
        return false;
    }
    uint64_t call = ti_load_sc(&worker->call);
    if (ti_load_sc(&worker->deadline) != deadline)
        return false; /* over, and `call` may be the next one */
    ti_store_sc(&worker->interrupted, call);
    ti_store_sc(&worker->told, 1);
    if (engine->preempt == TI_PREEMPT_SIGNAL)
        ti_preempt_kick(worker);
    return true;
}

uint64_t ti_engine_check_deadlines(ti_engine *engine, uint64_t now, bool *late)
{
    uint64_t next = UINT64_MAX;
    stop_late(engine, find_late(engine, now, &next), now);
    for (uint32_t i = 0; i < engine->workers; i++)
        *late = check_call(engine, &engine->seats[i], now, &next) || *late;
    return next;
}

bool ti_engine_check_progress(ti_engine *engine)
{
    bool kept = false;
    for (uint32_t i = 0; i < engine->workers; i++) {
        ti_worker *worker = &engine->seats[i];
        uint32_t progress = ti_load_relaxed(&worker->progress), seen = worker->seen;
        worker->seen = progress;
        if (ti_deque_count(&worker->deque) <= 0)
            continue;
        kept = true;
        if (progress != seen)
            continue;
        ti_store_sc(&worker->offers, 1);
        ti_pool_wake(&engine->pool);
    }
    return kept;
}

/* Told to stop and in the same callback for longer than the grace: the next signal gives it up. */
static void consider(ti_engine *engine, ti_worker *worker, uint64_t now)
{
    uint32_t progress = ti_load_relaxed(&worker->progress);
    if (!ti_exchange_sc(&worker->told, 0)) {
        worker->told_since = 0;
    } else if (!worker->told_since || worker->told_progress != progress) {
        worker->told_since = now;
        worker->told_progress = progress;
    } else if (now - worker->told_since > engine->grace) {
        ti_store_sc(&worker->give_up, progress);
        ti_preempt_kick(worker);
    }
}

/* The seat belongs to the calling thread from here on: who sat there left it in its signal handler.
 * A context may take long to open, and this is the control loop: so whoever sits down next does
 * that, which is the new thread if nobody else comes. */
static void replace(ti_engine *engine, ti_worker *worker)
{
    uv_thread_t lost = worker->thread;
    ti_preempt_disown(worker);
    worker->thread = uv_thread_self();
    worker->contexts[worker->serving] = NULL; /* it is the thread's that was given up */
    ti_store_relaxed(&worker->bare, 1);
    ti_worker_stop(worker);
    ti_engine_queue(engine, ti_worker_scatter(worker));
    ti_store_sc(&worker->offers, 0);
    ti_store_sc(&worker->give_up, 0);
    ti_store_sc(&worker->abandoned, 0);
    ti_engine_leave(engine, worker);
    ti_pool_replace(&engine->pool, lost);
}

void ti_engine_give_up(ti_engine *engine, uint64_t now)
{
    if (engine->preempt != TI_PREEMPT_SIGNAL || !engine->grace)
        return;
    for (uint32_t i = 0; i < engine->workers; i++) {
        ti_worker *worker = &engine->seats[i];
        if (ti_load_sc(&worker->abandoned))
            replace(engine, worker);
        else
            consider(engine, worker, now);
    }
}

static void work_as_guest(ti_engine *engine, ti_worker *worker, ti_run *run)
{
    worker->guest = run->group;
    ti_worker_enter(worker, ti_run_entries(run, NULL));
    do
        ti_worker_drain(worker);
    while (!ti_run_settled(run) && !ti_load_relaxed(&worker->claims) &&
           ti_worker_find(worker, run));
    ti_engine_leave(engine, worker);
}

ti_code ti_engine_run(ti_engine *engine, ti_run *run)
{
    run->held = !run->signals; /* else it is still announced when the caller may have let it go */
    ti_code code = ti_engine_launch(engine, run);
    if (code)
        return code;
    bool keep_off =
        engine->stubborn && (run->timeout || run->plan->timeouts) && ti_pool_ensure(&engine->pool);
    ti_worker *worker = keep_off ? NULL : ti_engine_sit(engine, 0);
    if (!worker && !ti_pool_ensure(&engine->pool))
        worker = ti_engine_claim(engine, 0); /* nobody else would do it */
    if (worker)
        work_as_guest(engine, worker, run);
    else
        ti_engine_queue(engine, ti_run_entries(run, NULL));
    ti_engine_wait(engine, run, UINT64_MAX);
    return TI_OK;
}

ti_code ti_engine_start(ti_engine *engine, ti_run *run)
{
    if (ti_engine_closed(engine))
        return TI_E_CLOSED;
    if (!ti_pool_ensure(&engine->pool))
        return ti_engine_closed(engine) ? TI_E_CLOSED : TI_E_INTERNAL;
    ti_code code = ti_engine_launch(engine, run);
    if (!code)
        ti_engine_queue(engine, ti_run_entries(run, NULL));
    return code;
}

/* With the lock; `limit` is what ti_engine_wait takes. False: that is over. */
static bool wait_for(ti_engine *engine, uv_cond_t *change, uint64_t began, uint64_t limit)
{
    uint64_t spent = limit == 0 || limit == UINT64_MAX ? 0 : uv_hrtime() - began;
    if (spent >= limit)
        return false;
    if (limit == UINT64_MAX)
        uv_cond_wait(change, &engine->lock);
    else
        uv_cond_timedwait(change, &engine->lock, limit - spent);
    return true;
}

bool ti_engine_wait(ti_engine *engine, ti_run *run, uint64_t nanoseconds)
{
    if (nanoseconds == 0 || ti_run_settled(run) || ti_engine_forked(engine))
        return ti_run_settled(run);
    uint64_t began = uv_hrtime();
    unsigned phase = TI_IN_FLIGHT;
    uv_mutex_lock(&engine->lock);
    ti_cas_sc(&run->phase, &phase, TI_AWAITED);
    while (!ti_run_settled(run) && wait_for(engine, crowd_of(engine, run), began, nanoseconds))
        ;
    uv_mutex_unlock(&engine->lock);
    return ti_run_settled(run);
}

ti_run *ti_engine_wait_for_any(ti_engine *engine, ti_settled *list, uint64_t nanoseconds)
{
    if (ti_engine_forked(engine))
        return NULL;
    uint64_t began = nanoseconds ? uv_hrtime() : 0;
    uv_mutex_lock(&engine->lock);
    list->awaited = true;
    while (!list->first && wait_for(engine, &engine->changed, began, nanoseconds))
        ;
    list->awaited = false;
    ti_run *run = ti_settled_take(list);
    uv_mutex_unlock(&engine->lock);
    return run;
}

void ti_engine_enlist(ti_engine *engine, ti_run *run)
{
    run->serial = ti_add_relaxed(&engine->made, 1) << 32;
    enlist(engine, run, TI_ALL);
}

void ti_engine_delist(ti_engine *engine, ti_run *run)
{
    delist(engine, run, TI_ALL);
}

/* What an idle run holds, about. */
static size_t idle_bytes(const ti_run *run)
{
    size_t each = sizeof *run->nodes + (run->times ? sizeof *run->times : 0) +
                  (run->attempts ? sizeof *run->attempts : 0);
    return sizeof *run + run->plan->count * each + run->blocks.size;
}

ti_run *ti_engine_pop_idle(ti_engine *engine, ti_program *program)
{
    uv_mutex_lock(&engine->lock);
    ti_run *run = program->idle;
    if (run) {
        program->idle = run->next_idle;
        program->idle_count--;
        engine->idle_bytes -= idle_bytes(run);
        run->next_idle = NULL;
    }
    uv_mutex_unlock(&engine->lock);
    return run;
}

/* With the lock. */
static bool keeps(const ti_engine *engine, const ti_program *program, const ti_run *run)
{
    return program->idle_count < 2 * engine->workers ||
           engine->idle_bytes + idle_bytes(run) < IDLE_BYTES;
}

void ti_engine_push_idle(ti_engine *engine, ti_program *program, ti_run *runs)
{
    uv_mutex_lock(&engine->lock);
    while (runs && keeps(engine, program, runs)) {
        ti_run *run = runs;
        runs = run->next_idle;
        run->next_idle = program->idle;
        program->idle = run;
        program->idle_count++;
        engine->idle_bytes += idle_bytes(run);
    }
    uv_mutex_unlock(&engine->lock);
    while (runs) {
        ti_run *run = runs;
        runs = run->next_idle;
        ti_run_destroy(run);
    }
}

static void forget(ti_engine *engine, ti_worker *worker, uint64_t key)
{
    for (uint32_t b = 0; b < engine->backends; b++) {
        void *context = ti_worker_context(worker, b);
        if (engine->backend[b].vtable->forget && context)
            engine->backend[b].vtable->forget(context, key);
    }
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
        bool sits = try_to_sit(worker), bare = sits && ti_load_relaxed(&worker->bare);
        if (sits && !bare)
            forget(engine, worker, key);
        else if (!ti_engine_closed(engine))
            note_forget(engine, worker, key);
        if (sits)
            ti_engine_leave(engine, worker);
    }
}

void ti_engine_catch_up(ti_engine *engine, ti_worker *worker)
{
    while (ti_load_relaxed(&worker->forgetful) && !ti_load_relaxed(&worker->bare)) {
        uv_mutex_lock(&engine->lock);
        uint32_t last = ti_load_relaxed(&worker->forgetful) - 1;
        uint64_t key = worker->forget[last];
        ti_store_relaxed(&worker->forgetful, last);
        uv_mutex_unlock(&engine->lock);
        forget(engine, worker, key);
    }
}
