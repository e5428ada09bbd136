/* SPDX-License-Identifier: MIT */
/* The life of a processor on a worker: ready, begin, serve, finish, and the events it sends.
 *
 * What pays. A thread that has to be woken costs 5 to 25 µs, and two that share tiny tasks are
 * slower than one. So a worker runs its own ready work without telling anyone, unless it is about
 * to spend long in a callback, or has much queued: then it *offers* its deque, and wakes a thread.
 * Which callbacks are long is learned: the clock is read around each callback in a program's first
 * runs and in one run of sixteen afterwards (and in every profiled run). Whatever is not known to
 * be light counts as heavy.
 *
 * What was learned may be wrong this time. So while a worker keeps ready work to itself, the
 * control loop watches whether it gets on, and after a millisecond or two in one callback makes the
 * offer in its place. Offers only decide how parallel a run is: the work is always done by its
 * owner if nobody else takes it. */
#include "engine/worker.h"

#include "engine/clock.h"
#include "engine/engine.h"
#include "engine/limits.h"

/* A callback this long is worth waking a thread for what waits behind it, and so is this much light
 * work. */
#define HEAVY_NS 10000u
#define OFFER_NS 100000u

/* What is known of a step: a count, heavy from HEAVY on, as it is at first. One long call among
 * short ones may be the system's doing, so it only makes the step SUSPECT. A heavy step is light
 * again after some light runs in a row. */
enum { SUSPECT = 1, HEAVY = TI_HEAVY_AT_FIRST, HEAVY_MEMORY = 8 };

#ifndef FIND_ROUNDS
#define FIND_ROUNDS 100
#endif

static void set_aside(ti_worker *worker, ti_node *node)
{
    node->next = worker->overflow;
    worker->overflow = node;
    worker->overflows++;
}

static ti_node *pop_overflow(ti_worker *worker)
{
    ti_node *node = worker->overflow;
    worker->overflow = node->next;
    worker->overflows--;
    return node;
}

static void refill(ti_worker *worker)
{
    for (int room = TI_DEQUE_SIZE / 2; room > 0 && worker->overflow; room--) {
        uint32_t before = worker->overflows;
        ti_worker_push(worker, pop_overflow(worker));
        if (worker->overflows == before)
            return; /* the ring is full */
    }
}

static ti_node *take_ticket(ti_worker *worker)
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

__attribute__((noinline, cold)) static bool may_leave(ti_worker *worker)
{
    return !worker->guest || ti_pool_ensure(&worker->engine->pool);
}

/* Somebody waits for this seat, and gets it after the current callback. To look before each one
 * costs no miss: `offers`, which is read then, lies in the same line. */
static inline bool is_claimed(ti_worker *worker)
{
    return __builtin_expect(ti_load_relaxed(&worker->claims) != 0, 0) && may_leave(worker);
}

/* The next node to run. It may be none for a claim; but what was chosen runs anyway, so no sitting
 * is in vain. */
static inline ti_node *take(ti_worker *worker, bool yields)
{
    ti_node *node = worker->chosen;
    worker->chosen = NULL;
    if (!node && !(yields && is_claimed(worker)) && (node = take_ticket(worker)) &&
        node->run->executor->take)
        node = node->run->executor->take(node);
    return node;
}

/* True: that was all. A count that equals ours can only be ours. */
static bool take_from_remaining(ti_run *run, uint32_t tally)
{
    if (ti_load_acquire(&run->remaining) != tally)
        return ti_sub_acq_rel(&run->remaining, tally) == tally;
    ti_store_relaxed(&run->remaining, 0);
    return true;
}

/* Takes what finished here from the run's count; whoever takes the last settles it. Afterwards the
 * run may be gone. */
static void fold(ti_worker *worker)
{
    ti_run *run = worker->tally_run;
    ti_store_relaxed(&worker->running, NULL);
    uint32_t tally = worker->tally;
    worker->tally_run = NULL;
    worker->tally = 0;
    ti_arena_return(&worker->arena);
    if (worker->tally_bytes) {
        ti_add_relaxed(&run->bytes, worker->tally_bytes);
        worker->tally_bytes = 0;
    }
    if (tally && take_from_remaining(run, tally))
        ti_engine_settle(worker->engine, run);
}

/* A node is about to be somebody else's. If nothing else of its run is in hand here, the run may
 * settle and be freed meanwhile, and must not be what this worker is found to run. */
static void let_go(ti_worker *worker)
{
    if (!worker->tally)
        fold(worker);
}

/* A guest works for its own runs alone, as long as there is somebody for the others. */
static bool belongs_here(const ti_worker *worker, const ti_node *node)
{
    return !worker->guest || node->run->group == worker->guest ||
           !ti_pool_ensure(&worker->engine->pool);
}

/* Nodes, of any run, that got their permits. */
static void ready_all(ti_worker *worker, ti_node *chain)
{
    while (chain) {
        ti_node *node = chain;
        chain = node->next;
        node->next = NULL;
        if (belongs_here(worker, node))
            ti_worker_ready(worker, node);
        else
            ti_engine_queue(worker->engine, node);
    }
}

static void give_permits_back(ti_worker *worker, ti_node *node)
{
    if (node->flags & TI_HAS_PERMIT)
        ready_all(worker, ti_limits_release(node->run->program->limits, node));
}

static inline void finish(ti_worker *worker, ti_node *node, const ti_step *step, ti_status status)
{
    ti_run *run = node->run;
    node->status = (uint8_t)status;
    give_permits_back(worker, node);
    if (run->executor->finished)
        run->executor->finished(worker, run, step);
    else
        ti_worker_send_events(worker, run, step);
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
    return ti_load_relaxed(&run->program->heavy[index]) >= HEAVY ||
           queued * run->light_ns > OFFER_NS;
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
    else if (waiting && worker->engine->workers > 1)
        ti_control_watch(&worker->engine->control);
}

/* A call with a timeout: numbered, and with a deadline that the control loop watches. */
static void arm(ti_worker *worker, const ti_task *task)
{
    uint64_t deadline = worker->task_began + task->run->plan->timeouts[task->index];
    ti_store_sc(&worker->call, ti_load_relaxed(&worker->call) + 1);
    ti_store_sc(&worker->deadline, deadline);
    ti_control_expect(&worker->engine->control, deadline);
}

/* The call is over; true: it took too long. */
static bool disarm(ti_worker *worker)
{
    uint64_t call = ti_load_relaxed(&worker->call);
    ti_store_sc(&worker->deadline, 0);
    bool late = ti_load_sc(&worker->interrupted) == call;
    ti_store_sc(&worker->call, call + 1);
    return late;
}

static void work_for(ti_worker *worker, ti_run *run)
{
    if (worker->tally_run == run)
        return;
    fold(worker);
    worker->tally_run = run;
    worker->arena.blocks = &run->blocks;
    ti_store_relaxed(&worker->running, run);
}

/* How a node that needs a permit goes on; TI_READY: it waits for one, and belongs to whoever frees
 * it. */
static ti_status admit(ti_worker *worker, ti_run *run, ti_node *node)
{
    let_go(worker);
    if (!ti_limits_acquire(run->program->limits, node))
        return TI_READY;
    work_for(worker, run);
    return node->flags & TI_HAS_PERMIT ? TI_RUNNING : TI_CANCELLED; /* told to stop just now */
}

/* True: its callback is to be called. False: it has finished, or waits for a permit. */
static bool begin(ti_worker *worker, ti_node *node, uint32_t index)
{
    ti_run *run = node->run;
    const ti_step *step = &run->plan->steps[index];
    work_for(worker, run);
    node->payload = NULL; /* it was `next` while the node was queued */
    read_slots(run, node, step);
    ti_status status = verdict(run, node);
    if (status == TI_RUNNING && run->bounded && !(node->flags & TI_HAS_PERMIT))
        status = admit(worker, run, node);
    if (status == TI_READY)
        return false;
    if (status != TI_RUNNING) {
        finish(worker, node, step, status);
        return false;
    }
    ti_store_relaxed(&worker->progress, ti_load_relaxed(&worker->progress) + 1);
    offer(worker, run, index);
    node->status = TI_RUNNING;
    node->attempts++;
    worker->task = (ti_task){
        .run = run,
        .node = node,
        .step = step,
        .index = index,
        .source = node->source,
        .payload = ti_run_value(run, node->source),
    };
    if (run->timed)
        worker->task_began = ti_now();
    if (step->flags & TI_STEP_TIMEOUT)
        arm(worker, &worker->task);
    worker->serves = true;
    return true;
}

/* A node that another backend has to serve is the next to be taken. */
static void leave_for_later(ti_worker *worker, ti_node *node)
{
    worker->serving = node->run->plan->steps[node - node->run->nodes].backend;
    worker->chosen = node;
}

const ti_task *ti_worker_next(ti_worker *worker)
{
    ti_node *node;
    while ((node = take(worker, true))) {
        const ti_run *run = node->run;
        uint32_t index = (uint32_t)(node - run->nodes);
        if (run->plan->steps[index].backend != worker->serving) {
            leave_for_later(worker, node);
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
        ti_store_relaxed(heavy, before ? HEAVY_MEMORY : SUSPECT);
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
    uint64_t now = ti_now(), began = task->run->began;
    learn(task->run->program, task->index, now - worker->task_began);
    if (task->run->profile)
        task->run->times[task->index] = (ti_times){
            .started = worker->task_began - began,
            .finished = now - began,
            .worker = worker->index,
        };
}

/* What every answer begins with; true: the call took too long. */
static inline bool end_call(ti_worker *worker)
{
    const ti_task *task = &worker->task;
    worker->serves = false;
    if (task->run->timed)
        note_time(worker);
    return task->step->flags & TI_STEP_TIMEOUT && disarm(worker);
}

/* Under fail_fast, one failure stops the run. False: it was stopped before, and that is the outcome
 * of whatever still ran. */
static bool trip(ti_worker *worker, ti_run *run)
{
    unsigned char go = TI_GO;
    if (run->plan->failure_strategy != TI_FAIL_FAST)
        return ti_load_relaxed(&run->stop) == TI_GO;
    if (!ti_cas_sc(&run->stop, &go, TI_STOP_FAILED))
        return false;
    ti_engine_stop(worker->engine, run, worker);
    return true;
}

static bool has_attempts(const ti_task *task)
{
    return task->step->flags & TI_STEP_RETRY &&
           task->node->attempts <= task->run->plan->retries[task->index].max;
}

static bool stopped(const ti_run *run)
{
    return ti_load_relaxed(&run->stop) != TI_GO;
}

/* The attempt has failed, and the control loop makes the node ready again when it is due. */
static void try_again(ti_worker *worker, ti_error *error)
{
    const ti_task *task = &worker->task;
    ti_attempts *attempts = &task->run->attempts[task->index];
    uint32_t made = task->node->attempts;
    worker->tally_bytes += ti_error_bytes(error);
    attempts->errors = ti_error_chain(error, attempts->errors, made);
    attempts->due =
        ti_now() + ti_backoff(&task->run->plan->retries[task->index], task->index, made);
    task->node->status = TI_READY;
    give_permits_back(worker, task->node);
    let_go(worker);
    ti_control_delay(&worker->engine->control, attempts);
}

static void settle_failure(ti_worker *worker, ti_error *error, bool retryable)
{
    const ti_task *task = &worker->task;
    ti_node *node = task->node;
    if (retryable && has_attempts(task) && !stopped(task->run)) {
        try_again(worker, error);
        return;
    }
    if (!trip(worker, task->run)) {
        ti_error_free(error);
        finish(worker, node, task->step, TI_CANCELLED);
        return;
    }
    worker->tally_bytes += ti_error_bytes(error);
    ti_error *before = NULL;
    if (task->run->attempts) {
        before = task->run->attempts[task->index].errors;
        task->run->attempts[task->index].errors = NULL;
    }
    ti_store_relaxed(&task->run->failed, 1);
    node->error = ti_error_chain(error, before, node->attempts);
    node->root = task->index;
    finish(worker, node, task->step, TI_FAILED);
}

static ti_error *timeout_error(const ti_task *task)
{
    double seconds = (double)task->run->plan->timeouts[task->index] / 1e9;
    return ti_error_format(TI_E_TIMEOUT, "it took longer than %g s", seconds);
}

ti_error *ti_worker_timeout_error(const ti_worker *worker)
{
    return stopped(worker->task.run) ? NULL : timeout_error(&worker->task);
}

static void time_out(ti_worker *worker)
{
    settle_failure(worker, timeout_error(&worker->task), true);
}

/* Whatever a callback returned that was told to stop is dropped. */
static void drop(ti_value *payload, ti_value *metadata, unsigned owned)
{
    if (owned & TI_OWNS_PAYLOAD)
        ti_value_release(payload);
    if (owned & TI_OWNS_METADATA)
        ti_value_release(metadata);
}

ti_arena *ti_worker_arena(ti_worker *worker)
{
    return &worker->arena;
}

bool ti_worker_complete(ti_worker *worker, ti_value *payload, ti_value *metadata, unsigned owned)
{
    const ti_task *task = &worker->task;
    ti_node *node = task->node;
    bool late = end_call(worker);
    if (late || stopped(task->run)) {
        drop(payload, metadata, owned);
        if (stopped(task->run))
            finish(worker, node, task->step, TI_CANCELLED);
        else
            time_out(worker);
        return false;
    }
    if (task->step->intent == TI_TRANSFORM) {
        if (payload != task->payload)
            worker->tally_bytes += payload->bytes;
        node->payload = payload;
        node->source = task->index + 1;
    }
    node->metadata = metadata;
    node->flags |= (uint8_t)owned;
    if (metadata)
        worker->tally_bytes += metadata->bytes;
    finish(worker, node, task->step, TI_COMPLETED);
    return true;
}

void ti_worker_skip(ti_worker *worker)
{
    const ti_task *task = &worker->task;
    if (end_call(worker) && !stopped(task->run)) {
        time_out(worker); /* and that was an attempt */
        return;
    }
    task->node->attempts--; /* its callback was not called */
    finish(worker, task->node, task->step, stopped(task->run) ? TI_CANCELLED : TI_SKIPPED);
}

void ti_worker_stop(ti_worker *worker)
{
    bool late = end_call(worker);
    if (late && !stopped(worker->task.run))
        time_out(worker);
    else
        finish(worker, worker->task.node, worker->task.step, TI_CANCELLED);
}

void ti_worker_fail(ti_worker *worker, ti_error *error, bool retryable)
{
    bool late = end_call(worker);
    if (late && error->code != TI_E_TIMEOUT) {
        ti_error_free(error);
        error = timeout_error(&worker->task);
    }
    settle_failure(worker, error, retryable);
}

bool ti_worker_may_retry(const ti_worker *worker)
{
    return has_attempts(&worker->task) && !stopped(worker->task.run);
}

bool ti_worker_must_stop(ti_worker *worker)
{
    return worker->serves &&
           (stopped(worker->task.run) ||
            (worker->task.step->flags & TI_STEP_TIMEOUT &&
             ti_load_relaxed(&worker->interrupted) == ti_load_relaxed(&worker->call)));
}

double ti_worker_time_left(const ti_worker *worker)
{
    uint64_t deadline = ti_load_relaxed(&worker->task.run->deadline), now = ti_now();
    if (worker->task.step->flags & TI_STEP_TIMEOUT) {
        uint64_t own = ti_load_relaxed(&worker->deadline);
        deadline = deadline && deadline < own ? deadline : own;
    }
    if (!deadline)
        return -1;
    return deadline > now ? (double)(deadline - now) / 1e9 : 0;
}

void ti_worker_drain(ti_worker *worker)
{
    ti_node *node, *rest = NULL;
    while (!rest && (node = take(worker, false))) {
        worker->chosen = node;
        worker->serving = node->run->plan->steps[node - node->run->nodes].backend;
        ti_engine_backend(worker->engine, worker->serving)
            ->serve(ti_worker_context(worker, worker->serving), worker);
        if (is_claimed(worker))
            rest = ti_worker_scatter(worker);
    }
    if (ti_load_relaxed(&worker->offers))
        ti_store_relaxed(&worker->offers, 0);
    fold(worker);
    ti_engine_queue(worker->engine, rest);
}

ti_node *ti_worker_scatter(ti_worker *worker)
{
    ti_node *chain = NULL, *node;
    while ((node = take(worker, false))) {
        node->next = chain;
        chain = node;
    }
    fold(worker);
    return chain;
}

/* Takes over a chain of tickets, of one at least. The last is to run first, so it is hot, and what
 * the ring has no room for is set aside before. With nothing hot. */
static void take_over(ti_worker *worker, ti_node *node)
{
    int64_t excess = -(int64_t)(TI_DEQUE_SIZE / 2);
    for (const ti_node *each = node; each; each = each->next)
        excess++;
    for (ti_node *next; (next = node->next); excess--) {
        if (excess > 0)
            set_aside(worker, node);
        else
            ti_worker_push(worker, node);
        node = next;
    }
    worker->hot = node;
}

void ti_worker_enter(ti_worker *worker, ti_node *chain)
{
    ti_node *last;
    take_over(worker, ti_executor_queue(chain, &last));
}

static bool take_inbox(ti_worker *worker)
{
    ti_node *chain = ti_inbox_take(&worker->engine->inbox);
    if (chain)
        take_over(worker, chain);
    return chain != NULL;
}

/* A guest that took what is not of its group gives it to the engine's threads. */
static bool keep(ti_worker *worker, ti_node *node)
{
    if (belongs_here(worker, node)) {
        worker->hot = node;
        return true;
    }
    ti_inbox_send(&worker->engine->inbox, node, node);
    ti_pool_wake(&worker->engine->pool);
    return false;
}

/* Takes the oldest ready node of another worker, and about half of the others with it: to come back
 * for each would cost both of them more than a short callback does. */
static bool steal_from(ti_worker *worker, ti_worker *victim)
{
    ti_node *node = ti_deque_steal(&victim->deque);
    if (!node || !keep(worker, node))
        return false;
    int64_t more = worker->guest ? 0 : ti_deque_count(&victim->deque) / 2;
    while (more-- > 0 && (node = ti_deque_steal(&victim->deque)))
        ti_worker_push(worker, node);
    return true;
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
        if (steal_from(worker, victim))
            return true;
    }
    return false;
}

bool ti_worker_find(ti_worker *worker, ti_run *until)
{
    for (int round = 0; round < FIND_ROUNDS; round++) {
        if (until && ti_run_settled(until))
            return false;
        if ((!worker->guest && take_inbox(worker)) || steal(worker))
            return true;
        ti_relax();
    }
    return false;
}
