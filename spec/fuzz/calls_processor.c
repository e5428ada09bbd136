/* SPDX-License-Identifier: MIT */
/* The processors of the fuzz target: what they answer and when is in their data. */
#include <sched.h>
#include <unistd.h>

#include "calls.h"

typedef struct state {
    calls_processor *processor;
    atomic_bool busy; /* a worker makes one call at a time */
} state;

static atomic_bool gates[2];
static atomic_int callbacks; /* that run */

bool calls_quiet(void)
{
    return atomic_load(&callbacks) == 0;
}

void calls_open_gates(unsigned which)
{
    for (unsigned i = 0; i < 2; i++)
        if (which >> i & 1)
            atomic_store(&gates[i], true);
}

void calls_close_gates(unsigned which)
{
    for (unsigned i = 0; i < 2; i++)
        if (which >> i & 1)
            atomic_store(&gates[i], false);
}

bool calls_gates_open(void)
{
    return atomic_load(&gates[0]) || atomic_load(&gates[1]);
}

/* What may be done anywhere, and what must not be done here. */
void calls_open_gift(calls_gift *gift, const calls_engine *here)
{
    tide_error *error = NULL;
    bool same = gift->of == here;
    if (gift->engine && same) {
        MUST(!tide_engine_close(gift->engine, &error));
        calls_check_error(error, code_bit(TIDE_E_MISUSE));
    }
    if (gift->dag && same) {
        MUST(!tide_dag_run(gift->dag, tide_integer(1), NULL, &error));
        calls_check_error(error, code_bit(TIDE_E_MISUSE));
    }
    error = NULL;
    if (gift->dag) {
        tide_run *run = tide_dag_start(gift->dag, tide_integer(1), NULL, &error);
        MUST((run != NULL) == !error);
        if (error)
            calls_check_error(error, code_bit(TIDE_E_CLOSED));
        tide_run_release(run);
    }
    error = NULL;
    if (gift->run) {
        tide_result *result = tide_run_wait(gift->run, same ? -1 : 0, &error);
        MUST((result != NULL) == !error);
        if (error)
            calls_check_error(error, code_bit(same ? TIDE_E_MISUSE : TIDE_E_TIMEOUT));
        tide_result_release(result);
        tide_run_cancel(gift->run, "a gift");
    }
    tide_run_release(gift->run);
    tide_dag_release(gift->dag);
    tide_engine_release(gift->engine);
    free(gift);
}

/* Of no engine in particular: nothing is tried that would have to be refused. */
static void open_elsewhere(calls_processor *processor)
{
    calls_gift *gift = atomic_exchange(&processor->gift, NULL);
    if (gift)
        calls_open_gift(gift, NULL);
}

static bool open_state(void *data, const tide_value *options, void **into, tide_error **error)
{
    calls_processor *processor = data;
    unsigned number = atomic_fetch_add(&processor->opened, 1) + 1;
    MUST(!options || tide_view_integer(tide_value_view(options)) > 0);
    if (number == processor->refuses) {
        if (number % 2)
            *error = tide_error_new(processor->code, "no state for number %u", number);
        return false;
    }
    state *self = calloc(1, sizeof *self);
    MUST(self);
    self->processor = processor;
    atomic_fetch_add(&processor->states, 1);
    *into = self;
    return true;
}

static void close_state(void *data)
{
    atomic_fetch_add(&callbacks, 1);
    state *self = data;
    calls_processor *processor = self->processor;
    MUST(!atomic_exchange(&self->busy, true));
    if (processor->when == IN_CLOSE)
        open_elsewhere(processor);
    free(self);
    atomic_fetch_sub(&processor->states, 1);
    atomic_fetch_sub(&callbacks, 1);
}

static void drop(void *data)
{
    atomic_fetch_add(&callbacks, 1);
    calls_processor *processor = data;
    MUST(atomic_load(&processor->states) == 0);
    if (processor->when == IN_DROP)
        open_elsewhere(processor);
    MUST(atomic_fetch_add(&processor->dropped, 1) == 0);
    atomic_fetch_sub(&callbacks, 1);
}

/* Waits as it has to; true: it was told to stop. */
static bool linger(const calls_processor *processor, calls_run *run, const tide_task *task)
{
    bool gated = processor->manner == AT_GATE || processor->manner == STUBBORN;
    if (processor->manner == SLOWLY)
        usleep(100);
    double left = tide_task_remaining(task);
    while (processor->manner == TOO_LATE && left >= 0 && left < 1 && !tide_task_cancelled(task))
        usleep(20);
    if (gated && run)
        atomic_fetch_add(&run->waiting, 1);
    while (gated && !atomic_load(&gates[processor->manner == STUBBORN])) {
        if (processor->manner == AT_GATE && tide_task_cancelled(task))
            break;
        usleep(20);
    }
    if (gated && run)
        atomic_fetch_sub(&run->waiting, 1);
    return tide_task_cancelled(task);
}

static tide_value *make_metadata(const calls_text *seen)
{
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    tide_write_text(writer, "seen");
    tide_write_string(writer, seen->bytes, seen->size);
    tide_write_end(writer);
    return tide_writer_finish(writer, NULL);
}

static tide_value *wrap(const tide_value *payload, unsigned i, tide_error **error)
{
    tide_writer *writer = tide_writer_new();
    tide_write_array(writer);
    tide_write_view(writer, tide_value_view(payload));
    tide_write_integer(writer, i);
    tide_write_end(writer);
    return tide_writer_finish(writer, error);
}

static tide_value *append(const calls_text *seen, unsigned i)
{
    calls_text raw = {0};
    calls_add_format(&raw, "p%u(", i);
    calls_add_text(&raw, seen->bytes, seen->size);
    calls_add_format(&raw, ")");
    tide_value *value = tide_string(raw.bytes, raw.size);
    calls_free_text(&raw);
    return value;
}

static void answer_well(bool transform, const calls_text *seen, unsigned i, tide_answer *answer)
{
    if (transform)
        answer->payload = append(seen, i);
    answer->metadata = make_metadata(seen);
}

static void give_answer(const calls_processor *processor, const tide_task *task, unsigned i,
                        tide_answer *answer)
{
    const tide_value *payload = tide_task_payload(task);
    calls_text seen = {0};
    calls_render(&seen, tide_value_view(payload));
    unsigned attempt = tide_task_attempt(task);
    calls_act act = processor->act;
    if (act == RETRY)
        act = attempt <= processor->need ? FAIL : ANSWER;
    if (act == FAIL || act == SKIP) { /* whatever else there is does not count */
        answer->payload = attempt % 2 ? tide_value_retain(payload) : NULL;
        answer->metadata = tide_integer(1);
    }
    if (act == FAIL)
        answer->error = tide_error_new(processor->code, "attempt %u", attempt);
    else if (act == SKIP)
        answer->skip = true;
    else if (act == WRAP)
        answer->payload = wrap(payload, i, &answer->error);
    else if (act == PASS)
        answer->payload = processor->transform ? tide_value_retain(payload) : NULL;
    else if (act == ANSWER)
        answer_well(processor->transform, &seen, i, answer);
    else if (act == BAD_METADATA) {
        answer_well(processor->transform, &seen, i, answer);
        tide_value_release(answer->metadata);
        answer->metadata = tide_integer(1);
    }
    calls_free_text(&seen);
}

/* Everything a task may be asked. */
static void look_around(const calls_node *node, const calls_run *run, const tide_task *task,
                        unsigned i)
{
    const tide_outcome *outcome;
    unsigned direct = 0;
    MUST(tide_task_attempt(task) >= 1 && tide_task_attempt(task) <= node->retries + 1);
    MUST(tide_view_integer(tide_value_view(tide_task_options(task))) == node->options);
    for (size_t k = 0; (outcome = tide_task_dependency_at(task, k)); k++) {
        const char *id = tide_outcome_id(outcome);
        MUST(tide_task_dependency(task, id) == outcome);
        MUST(tide_outcome_status(outcome) >= TIDE_COMPLETED);
        MUST(tide_outcome_status(outcome) != TIDE_CANCELLED);
        MUST(tide_task_metadata(task, id) == tide_outcome_metadata(outcome));
        direct |= 1u << atoi(id + 1);
    }
    MUST(direct == node->depends);
    MUST(!tide_task_metadata(task, tide_task_id(task)) && !tide_task_metadata(task, "nobody"));
    for (unsigned j = 0; j < run->plan->count; j++)
        if (run->plan->nodes[j].rank >= run->plan->nodes[i].rank) {
            char id[ID_ROOM];
            calls_name(id, j);
            MUST(!tide_task_metadata(task, id)); /* no ancestor */
        }
    MUST(run->bounded || node->bounded || tide_task_remaining(task) < 0);
}

static void enter(const calls_node *node, calls_run *run, unsigned i)
{
    MUST(!atomic_load(&run->engine->closed));
    MUST(atomic_fetch_add(&run->calls[i], 1) <= (int)node->retries);
    int inside = atomic_fetch_add(&run->inside, 1) + 1;
    MUST(!run->plan->most || inside <= (int)run->plan->most);
    if (node->limited)
        MUST(atomic_fetch_add(&run->plan->used, 1) < (int)run->plan->permits);
}

static void leave(const calls_node *node, calls_run *run)
{
    if (node->limited)
        atomic_fetch_sub(&run->plan->used, 1);
    atomic_fetch_sub(&run->inside, 1);
}

static void check_told(const calls_node *node, const calls_run *run)
{
    MUST(node->timed || atomic_load(&run->may_stop) || atomic_load(&run->engine->closing) ||
         run->plan->strategy == TIDE_FAIL_FAST);
}

static void call(calls_processor *processor, const tide_task *task, tide_answer *answer)
{
    const tide_view *input = tide_value_view(tide_task_input_metadata(task));
    calls_run *run = calls_find_run(tide_view_integer(tide_view_field(input, "run")));
    unsigned i = (unsigned)atoi(tide_task_id(task) + 1);
    const calls_node *node = run ? &run->plan->nodes[i] : NULL;
    if (node) {
        MUST(i < run->plan->count && node->processor == processor);
        enter(node, run, i);
        look_around(node, run, task, i);
    }
    calls_gift *gift =
        processor->when == IN_CALL && run ? atomic_exchange(&processor->gift, NULL) : NULL;
    if (gift)
        calls_open_gift(gift, run->engine);
    bool told = linger(processor, run, task);
    if (told && node)
        check_told(node, run);
    give_answer(processor, task, i, answer);
    if (node)
        leave(node, run);
}

static void call_state(void *data, const tide_task *task, tide_answer *answer)
{
    atomic_fetch_add(&callbacks, 1);
    state *self = data;
    MUST(!atomic_exchange(&self->busy, true));
    call(self->processor, task, answer);
    atomic_store(&self->busy, false);
    atomic_fetch_sub(&callbacks, 1);
}

static void call_data(void *data, const tide_task *task, tide_answer *answer)
{
    atomic_fetch_add(&callbacks, 1);
    call(data, task, answer);
    atomic_fetch_sub(&callbacks, 1);
}

tide_processor calls_make_processor(calls_processor *processor)
{
    return (tide_processor){
        .size = sizeof(tide_processor),
        .open = processor->opens ? open_state : NULL,
        .call = processor->opens ? call_state : call_data,
        .close = processor->opens ? close_state : NULL,
        .drop = processor->drops ? drop : NULL,
        .data = processor,
    };
}
