/* SPDX-License-Identifier: MIT */
/* The life of a processor on a worker: ready, begin, serve, finish, and the events it sends.
 *
 * What pays. A thread that has to be woken costs 5 to 25 µs, and two that share tiny tasks are slower
 * than one. So a worker runs its own ready work without telling anyone, unless it is about to spend
 * long in a callback, or has much queued: then it *offers* its deque, and wakes a thread. Which
 * callbacks are long is learned: the clock is read around each callback in a program's first runs and
 * in one run of sixteen afterwards (and in every profiled run). Whatever is not known to be light
 * counts as heavy. Offers only decide how parallel a run is: the work is always done by its owner if
 * nobody else takes it. */
#include "engine/worker.h"

#include <uv.h>

#include "engine/engine.h"
#include "engine/permits.h"

#define HEAVY_NS 10000u   /* a callback this long is worth waking a thread for what waits behind it */
#define OFFER_NS 100000u  /* and so is this much light work */
#define HEAVY_MEMORY 8    /* a heavy step is light again after this many light runs in a row */
#define FIND_ROUNDS 100

static ti_node *pop_overflow(ti_worker *worker)
{
    ti_node *node = worker->overflow;
    worker->overflow = node->next;
    worker->overflows--;
    return node;
}

static void push(ti_worker *worker, ti_node *node)
{
    node->status = TI_READY;
    if (!ti_deque_push(&worker->deque, node)) {
        node->next = worker->overflow;
        worker->overflow = node;
        worker->overflows++;
    }
}

/* The newest ready processor goes first and is not queued at all. */
static void ready(ti_worker *worker, ti_node *node)
{
    if (worker->hot)
        push(worker, node);
    else
        worker->hot = node;
}

static void refill(ti_worker *worker)
{
    for (int room = TI_DEQUE_SIZE / 2; room > 0 && worker->overflow; room--) {
        ti_node *node = pop_overflow(worker);
        if (!ti_deque_push(&worker->deque, node)) {
            node->next = worker->overflow;
            worker->overflow = node;
            worker->overflows++;
            return;
        }
    }
}

static ti_node *take(ti_worker *worker)
{
    ti_node *node = worker->hot;
    if (node) {
        worker->hot = NULL;
        return node;
    }
    node = ti_deque_pop(&worker->deque);
    if (!node && worker->overflow) {
        node = pop_overflow(worker);
        refill(worker);
    }
    return node;
}

/* Takes what finished here from the run's count; whoever takes the last settles it. Afterwards the
 * run may be gone. */
static void fold(ti_worker *worker)
{
    ti_run *run = worker->tally_run;
    uint32_t tally = worker->tally;
    worker->tally_run = NULL;
    worker->tally = 0;
    if (worker->tally_bytes) {
        ti_add_relaxed(&run->bytes, worker->tally_bytes);
        worker->tally_bytes = 0;
    }
    if (tally && ti_sub_acq_rel(&run->remaining, tally) == tally)
        ti_engine_settle(worker->engine, run);
}

/* Delivers one event; true if it was the last the node waited for. A count of one can only be ours:
 * then nobody else will touch it. */
static bool deliver(ti_node *node)
{
    return ti_load_acquire(&node->pending) == 1 || ti_sub_acq_rel(&node->pending, 1) == 1;
}

static void send_events(ti_worker *worker, const ti_run *run, const ti_step *step)
{
    const uint32_t *dependent = run->plan->dependents + step[0].first_dependent;
    const uint32_t *end = run->plan->dependents + step[1].first_dependent;
    for (; dependent < end; dependent++) {
        ti_node *node = &run->nodes[*dependent];
        if (deliver(node))
            ready(worker, node);
    }
}

static void hand_over_permit(ti_worker *worker, ti_run *run)
{
    ti_node *next = ti_permits_release(run->permits);
    if (next) {
        next->flags |= TI_HAS_PERMIT;
        ready(worker, next);
    }
}

static void finish(ti_worker *worker, ti_node *node, const ti_step *step, ti_status status)
{
    ti_run *run = node->run;
    bool permit = node->flags & TI_HAS_PERMIT;
    node->status = (uint8_t)status;
    send_events(worker, run, step);
    if (permit)
        hand_over_permit(worker, run);
    worker->tally++;
}

static uint32_t greatest(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* in(n), and the first failure among the ancestors. */
static void read_slots(const ti_run *run, ti_node *node, const ti_step *step)
{
    const uint32_t *dependency = run->plan->dependencies + step[0].first_dependency;
    const uint32_t *end = run->plan->dependencies + step[1].first_dependency;
    uint32_t source = 0, root = TI_NONE;
    for (; dependency < end; dependency++) {
        const ti_node *slot = &run->nodes[*dependency];
        source = greatest(source, slot->source);
        root = least(root, slot->root);
    }
    if (step->payload_from != TI_NONE)
        source = run->nodes[step->payload_from].source;
    node->source = source;
    node->root = root;
}

/* How the node ends without its callback being called; TI_RUNNING: it does not. */
static ti_status verdict(ti_run *run, ti_node *node)
{
    if (ti_load_relaxed(&run->stop))
        return TI_CANCELLED;
    if (node->root != TI_NONE && run->plan->failure_strategy == TI_CONTINUE_ON_ERROR)
        return TI_SKIPPED;
    node->root = TI_NONE;
    return TI_RUNNING;
}

static bool pays(ti_worker *worker, const ti_run *run, uint32_t index)
{
    uint64_t queued = (uint64_t)ti_deque_count(&worker->deque) + worker->overflows;
    return ti_load_relaxed(&run->program->heavy[index]) || queued * run->light_ns > OFFER_NS;
}

/* Before a callback: tells other threads whether what waits behind it is theirs to take. */
static void offer(ti_worker *worker, const ti_run *run, uint32_t index)
{
    bool waiting = ti_deque_count(&worker->deque) > 0 || worker->overflow;
    bool wanted = waiting && worker->engine->workers > 1 && pays(worker, run, index);
    if (wanted && worker->overflow && ti_deque_count(&worker->deque) < TI_DEQUE_SIZE / 2)
        refill(worker);
    if (wanted != ti_load_relaxed(&worker->offers))
        ti_store_sc(&worker->offers, wanted);
    if (wanted)
        ti_pool_wake(&worker->engine->pool);
}

static bool admit(ti_run *run, ti_node *node)
{
    if (!run->permits || node->flags & TI_HAS_PERMIT)
        return true;
    if (!ti_permits_acquire(run->permits, node))
        return false;
    node->flags |= TI_HAS_PERMIT;
    return true;
}

/* True: its callback is to be called. False: it has finished, or waits for a permit. */
static bool begin(ti_worker *worker, ti_node *node, uint32_t index)
{
    ti_run *run = node->run;
    const ti_step *step = &run->plan->steps[index];
    if (worker->tally_run != run) {
        fold(worker);
        worker->tally_run = run;
    }
    node->payload = NULL; /* it was `next` while the node was queued */
    read_slots(run, node, step);
    ti_status status = verdict(run, node);
    if (status != TI_RUNNING) {
        finish(worker, node, step, status);
        return false;
    }
    if (!admit(run, node))
        return false;
    offer(worker, run, index);
    node->status = TI_RUNNING;
    node->attempts = 1;
    worker->task = (ti_task){
        .run = run,
        .node = node,
        .step = step,
        .index = index,
        .source = node->source,
        .payload = ti_run_value(run, node->source),
    };
    if (run->timed)
        worker->task_began = uv_hrtime();
    return true;
}

const ti_task *ti_worker_next(ti_worker *worker)
{
    ti_node *node;
    while ((node = take(worker))) {
        const ti_run *run = node->run;
        uint32_t index = (uint32_t)(node - run->nodes);
        if (run->plan->steps[index].backend != worker->serving) {
            worker->hot = node;
            return NULL;
        }
        if (begin(worker, node, index))
            return &worker->task;
    }
    return NULL;
}

static void learn(ti_program *program, uint32_t index, uint64_t elapsed)
{
    atomic_uchar *heavy = &program->heavy[index];
    unsigned char before = ti_load_relaxed(heavy);
    if (elapsed >= HEAVY_NS) {
        ti_store_relaxed(heavy, HEAVY_MEMORY);
        return;
    }
    if (before)
        ti_store_relaxed(heavy, (unsigned char)(before - 1));
    uint32_t mean = ti_load_relaxed(&program->light_ns);
    ti_store_relaxed(&program->light_ns, mean - mean / 8 + (uint32_t)elapsed / 8);
}

static void note_time(ti_worker *worker)
{
    const ti_task *task = &worker->task;
    uint64_t now = uv_hrtime(), began = task->run->began;
    learn(task->run->program, task->index, now - worker->task_began);
    if (task->run->profile)
        task->run->times[task->index] = (ti_times){
            .started = worker->task_began - began,
            .finished = now - began,
            .worker = worker->index,
        };
}

/* A run that was told to stop while the callback ran: whatever that returned is dropped. */
static void abandon(ti_worker *worker, ti_value *payload, ti_value *metadata)
{
    const ti_task *task = &worker->task;
    if (task->step->intent == TI_TRANSFORM && payload != task->payload)
        ti_value_release(payload);
    ti_value_release(metadata);
    finish(worker, task->node, task->step, TI_CANCELLED);
}

void ti_worker_complete(ti_worker *worker, ti_value *payload, ti_value *metadata)
{
    const ti_task *task = &worker->task;
    ti_node *node = task->node;
    if (task->run->timed)
        note_time(worker);
    if (ti_load_relaxed(&task->run->stop)) {
        abandon(worker, payload, metadata);
        return;
    }
    if (task->step->intent == TI_TRANSFORM) {
        if (payload != task->payload) {
            node->flags |= TI_OWNS_PAYLOAD;
            worker->tally_bytes += payload->bytes;
        }
        node->payload = payload;
        node->source = task->index + 1;
    }
    node->metadata = metadata;
    if (metadata)
        worker->tally_bytes += metadata->bytes;
    finish(worker, node, task->step, TI_COMPLETED);
}

/* Trips fail_fast. False: the run was cancelled before, and that is the outcome. */
static bool trip(ti_run *run)
{
    unsigned char stop = TI_GO;
    if (run->plan->failure_strategy == TI_FAIL_FAST)
        ti_cas_sc(&run->stop, &stop, TI_STOP_FAILED);
    return ti_load_relaxed(&run->stop) != TI_STOP_CANCELLED;
}

void ti_worker_fail(ti_worker *worker, ti_error *error)
{
    const ti_task *task = &worker->task;
    ti_node *node = task->node;
    if (task->run->timed)
        note_time(worker);
    if (!trip(task->run)) {
        ti_error_free(error);
        finish(worker, node, task->step, TI_CANCELLED);
        return;
    }
    node->error = error;
    node->root = task->index;
    finish(worker, node, task->step, TI_FAILED);
}

void ti_worker_enter(ti_worker *worker, ti_run *run)
{
    for (uint32_t i = run->plan->entries; i > 1; i--)
        push(worker, &run->nodes[i - 1]);
    ready(worker, &run->nodes[0]);
}

void ti_worker_drain(ti_worker *worker)
{
    ti_node *node;
    while ((node = take(worker))) {
        const ti_run *run = node->run;
        worker->hot = node;
        worker->serving = run->plan->steps[node - run->nodes].backend;
        ti_engine_backend(worker->engine, worker->serving)
            ->serve(worker->contexts[worker->serving], worker);
    }
    if (ti_load_relaxed(&worker->offers))
        ti_store_relaxed(&worker->offers, 0);
    fold(worker);
}

/* Takes over a chain of nodes, the newest first. */
static void take_over(ti_worker *worker, ti_node *node)
{
    while (node) {
        ti_node *next = node->next;
        push(worker, node);
        node = next;
    }
}

/* A guest that took what is not of its run gives it to the engine's threads. */
static bool keep(ti_worker *worker, ti_node *node)
{
    if (!worker->guest || node->run == worker->guest) {
        worker->hot = node;
        return true;
    }
    ti_inbox_send(&worker->engine->inbox, node, node);
    ti_pool_wake(&worker->engine->pool);
    return false;
}

static bool steal(ti_worker *worker)
{
    ti_engine *engine = worker->engine;
    worker->random = worker->random * 1664525u + 1013904223u;
    uint32_t first = (worker->random >> 8) % engine->workers;
    for (uint32_t i = 0; i < engine->workers; i++) {
        uint32_t at = first + i < engine->workers ? first + i : first + i - engine->workers;
        ti_worker *victim = ti_engine_worker(engine, at);
        if (victim == worker || !ti_load_sc(&victim->offers))
            continue;
        ti_node *node = ti_deque_steal(&victim->deque);
        if (node)
            return keep(worker, node);
    }
    return false;
}

bool ti_worker_find(ti_worker *worker)
{
    ti_engine *engine = worker->engine;
    for (int round = 0; round < FIND_ROUNDS; round++) {
        if (worker->guest && ti_run_settled(worker->guest))
            return false;
        if (!worker->guest && !ti_inbox_empty(&engine->inbox)) {
            take_over(worker, ti_inbox_take(&engine->inbox));
            return true;
        }
        if (steal(worker))
            return true;
        ti_relax();
    }
    return false;
}
