/* SPDX-License-Identifier: MIT */
/* What must come of a run, worked out from the DAG as it was declared, one processor after the
 * other. What a clock or a cancellation decided is taken from the result, if it may be. */
#include "calls.h"

enum { NOBODY = -1 };

/* What became of a processor. */
typedef struct found {
    tide_status status;
    tide_code code; /* of a failure */
    int root;       /* whose failure kept it from completing, or NOBODY */
    int out;        /* whose payload it passes on; NOBODY: the input */
    unsigned attempts;
    const calls_text *in;
    calls_text answer; /* of a transform that completed */
} found;

_Noreturn void calls_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    abort();
}

bool calls_rank(calls_plan *plan)
{
    unsigned placed = 0;
    for (unsigned i = 0; i < plan->count; i++)
        plan->nodes[i].rank = 0;
    for (unsigned round = 0; round <= plan->count; round++)
        for (unsigned i = 0; i < plan->count; i++)
            for (unsigned j = 0; j < plan->count; j++)
                if (plan->nodes[i].depends >> j & 1 && plan->nodes[i].rank <= plan->nodes[j].rank)
                    plan->nodes[i].rank = plan->nodes[j].rank + 1;
    for (unsigned rank = 0; rank < plan->count; rank++)
        for (unsigned i = 0; i < plan->count; i++)
            if (plan->nodes[i].rank == rank)
                plan->order[placed++] = i;
    return placed == plan->count; /* on a cycle, ranks grow beyond the count */
}

/* `a` stands before `b` in canonical order; nobody stands before all. */
static bool before(const calls_plan *plan, int a, int b)
{
    if (a == NOBODY || b == NOBODY)
        return a == NOBODY && b != NOBODY;
    unsigned first = plan->nodes[a].rank, second = plan->nodes[b].rank;
    return first != second ? first < second : a < b;
}

static const calls_text *text_of(const calls_run *run, const found *all, int out)
{
    return out == NOBODY ? &run->input : &all[out].answer;
}

/* What it sees, and the first failure among its ancestors. */
static void look_back(const calls_run *run, found *all, unsigned i)
{
    const calls_plan *plan = run->plan;
    const calls_node *node = &plan->nodes[i];
    all[i].root = all[i].out = NOBODY;
    for (int j = 0; j < (int)plan->count; j++) {
        if (!(node->depends >> j & 1))
            continue;
        bool fixed = node->payload_from >= 0;
        if (fixed ? j == node->payload_from : before(plan, all[i].out, all[j].out))
            all[i].out = all[j].out;
        if (all[j].root != NOBODY &&
            (all[i].root == NOBODY || before(plan, all[j].root, all[i].root)))
            all[i].root = all[j].root;
    }
    all[i].in = text_of(run, all, all[i].out);
}

/* The code that an error has which was made with this one. */
static tide_code known(tide_code code)
{
    return code > TIDE_OK && code <= TIDE_E_INTERNAL ? code : TIDE_E_PROCESSOR_FAILED;
}

/* What its last attempt fails with; TIDE_OK: it does not. */
static tide_code failure_of(const calls_node *node, const found *it)
{
    const calls_processor *processor = node->processor;
    bool nil = it->in->size == 1 && it->in->bytes[0] == 'n';
    switch (processor->act) {
    case FAIL:
        return known(processor->code);
    case RETRY:
        return processor->need > node->retries ? known(processor->code) : TIDE_OK;
    case NOTHING:
        return processor->transform ? TIDE_E_INVALID_RESPONSE : TIDE_OK;
    case PASS: /* nil is no payload to answer with */
        return processor->transform && nil ? TIDE_E_INVALID_RESPONSE : TIDE_OK;
    case WRAP: /* nor can it be in an array */
        return nil                    ? TIDE_E_INVALID_PAYLOAD
               : processor->transform ? TIDE_OK
                                      : TIDE_E_INVALID_RESPONSE;
    case BAD_METADATA:
        return TIDE_E_INVALID_RESPONSE;
    default:
        return TIDE_OK;
    }
}

static void write_answer(const calls_node *node, unsigned i, found *it)
{
    calls_act act = node->processor->act;
    calls_text raw = {0};
    if (act == WRAP)
        calls_add_format(&it->answer, "[");
    if (act == WRAP || act == PASS)
        calls_add_text(&it->answer, it->in->bytes, it->in->size);
    if (act == WRAP)
        calls_add_format(&it->answer, "i%u;]", i);
    if (act != ANSWER && act != RETRY)
        return;
    calls_add_format(&raw, "p%u(", i);
    calls_add_text(&raw, it->in->bytes, it->in->size);
    calls_add_format(&raw, ")");
    calls_render_string(&it->answer, &raw);
    calls_free_text(&raw);
}

/* What the callback answers in the end, if nothing stops it. */
static void act(const calls_node *node, unsigned i, found *it)
{
    it->code = failure_of(node, it);
    it->status = it->code                       ? TIDE_FAILED
                 : node->processor->act == SKIP ? TIDE_SKIPPED
                                                : TIDE_COMPLETED;
    it->attempts = 1;
    if (it->code)
        it->attempts += node->retries;
    else if (node->processor->act == RETRY)
        it->attempts += node->processor->need;
    if (it->status == TIDE_COMPLETED && node->processor->transform)
        write_answer(node, i, it);
}

static bool was_cut(const calls_run *run)
{
    return atomic_load(&run->may_stop) || atomic_load(&run->engine->closing);
}

/* Some dependency has this status. */
static bool depends_on_one(const calls_node *node, const found *all, tide_status status)
{
    for (unsigned j = 0; j < MOST_NODES; j++)
        if (node->depends >> j & 1 && all[j].status == status)
            return true;
    return false;
}

/* Fills in what became of one, whose dependencies are known; `actual` says what only it can know.
 */
static void expect(const calls_run *run, found *all, unsigned i, const tide_outcome *actual)
{
    const calls_plan *plan = run->plan;
    const calls_node *node = &plan->nodes[i];
    tide_status status = tide_outcome_status(actual);
    found *it = &all[i];
    bool fast = plan->strategy == TIDE_FAIL_FAST;
    look_back(run, all, i);
    bool doomed = depends_on_one(node, all, TIDE_CANCELLED) ||
                  (fast && depends_on_one(node, all, TIDE_FAILED));
    MUST(!doomed || status == TIDE_CANCELLED);
    if (status == TIDE_CANCELLED) { /* whether it may be is told by the whole */
        it->status = TIDE_CANCELLED;
        return;
    }
    if (it->root != NOBODY && plan->strategy == TIDE_CONTINUE_ON_ERROR) {
        it->status = TIDE_SKIPPED;
        return;
    }
    it->root = NOBODY;
    act(node, i, it);
    tide_error *error = tide_outcome_error(actual);
    if (node->timed && status == TIDE_FAILED && tide_error_code(error) == TIDE_E_TIMEOUT) {
        it->status = TIDE_FAILED;
        it->code = TIDE_E_TIMEOUT;
        it->attempts = node->retries + 1;
        calls_free_text(&it->answer);
    }
    tide_error_free(error);
    if (it->status == TIDE_FAILED)
        it->root = (int)i;
    else if (it->status == TIDE_COMPLETED && node->processor->transform)
        it->out = (int)i;
}

static void check_value(const tide_value *value, const calls_text *expected)
{
    calls_text seen = {0};
    calls_render(&seen, tide_value_view(value));
    MUST(calls_same_text(&seen, expected));
    calls_free_text(&seen);
}

/* {"seen": all of what it saw as a string} */
static void check_metadata(const calls_node *node, const found *it, const tide_value *metadata)
{
    bool answers = node->processor->act == ANSWER || node->processor->act == RETRY;
    if (it->status != TIDE_COMPLETED || !answers) {
        MUST(!metadata);
        return;
    }
    size_t size = 0;
    const tide_view *seen = tide_view_field(tide_value_view(metadata), "seen");
    const char *bytes = tide_view_string(seen, &size);
    MUST(bytes && size == it->in->size && memcmp(bytes, it->in->bytes, size) == 0);
}

void calls_name(char id[ID_ROOM], unsigned i)
{
    snprintf(id, ID_ROOM, "p%u", i);
}

static void check_outcome_error(const calls_node *node, const found *it, unsigned i,
                                const tide_outcome *outcome)
{
    tide_error *error = tide_outcome_error(outcome);
    char id[ID_ROOM];
    calls_name(id, i);
    if (it->status == TIDE_COMPLETED || (it->status == TIDE_SKIPPED && it->root == NOBODY)) {
        MUST(!error);
        return;
    }
    MUST(error && strcmp(tide_error_processor(error), id) == 0);
    if (it->status == TIDE_SKIPPED) {
        calls_name(id, (unsigned)it->root);
        MUST(tide_error_root(error) && strcmp(tide_error_root(error), id) == 0);
    }
    if (it->status == TIDE_FAILED && !node->timed)
        MUST(tide_error_attempt(error) == it->attempts);
    calls_check_error(error, it->status == TIDE_SKIPPED     ? code_bit(TIDE_E_DEPENDENCY_FAILED)
                             : it->status == TIDE_CANCELLED ? code_bit(TIDE_E_CANCELLED)
                                                            : code_bit(it->code));
}

static void check_outcome(const calls_run *run, const found *all, unsigned i,
                          const tide_outcome *outcome)
{
    const calls_node *node = &run->plan->nodes[i];
    const found *it = &all[i];
    unsigned attempts = tide_outcome_attempts(outcome);
    MUST(tide_outcome_status(outcome) == it->status);
    MUST(attempts <= node->retries + 1);
    if (it->status == TIDE_COMPLETED || it->status == TIDE_FAILED)
        MUST(node->timed ? attempts >= 1 : attempts == it->attempts);
    if (it->status == TIDE_SKIPPED && it->root != NOBODY)
        MUST(attempts == 0);
    if (it->status == TIDE_COMPLETED && node->processor->transform)
        check_value(tide_outcome_payload(outcome), &it->answer);
    else
        MUST(!tide_outcome_payload(outcome));
    MUST(tide_outcome_passed(outcome));
    if (it->status != TIDE_CANCELLED)
        check_value(tide_outcome_passed(outcome), text_of(run, all, it->out));
    check_metadata(node, it, tide_outcome_metadata(outcome));
    check_outcome_error(node, it, i, outcome);
    double started = tide_outcome_started(outcome), finished = tide_outcome_finished(outcome);
    MUST(run->profiled && attempts ? started >= 0 && finished >= started
                                   : started < 0 && finished < 0);
}

static void check_whole_error(const calls_run *run, const tide_result *result, int first)
{
    tide_error *error = tide_result_error(result);
    tide_status status = tide_result_status(result);
    char id[ID_ROOM];
    if (status == TIDE_COMPLETED) {
        MUST(!error);
        return;
    }
    if (status == TIDE_FAILED) {
        calls_name(id, (unsigned)first);
        MUST(strcmp(tide_error_processor(error), id) == 0);
        calls_check_error(error, ~UINT64_C(0));
        return;
    }
    tide_code code = tide_error_code(error);
    MUST(!tide_error_processor(error));
    MUST(code != TIDE_E_TIMEOUT || run->timed || run->plan->timed);
    calls_check_error(error, code_bit(TIDE_E_TIMEOUT) | code_bit(TIDE_E_CANCELLED));
}

static void check_whole(const calls_run *run, const tide_result *result, const found *all)
{
    const calls_plan *plan = run->plan;
    tide_status status = tide_result_status(result);
    const tide_outcome *failure = NULL;
    int first = NOBODY, out = NOBODY;
    unsigned failed = 0, cancelled = 0;
    for (unsigned k = 0; k < plan->count; k++) {
        unsigned i = plan->order[k];
        cancelled += all[i].status == TIDE_CANCELLED;
        if (all[i].status == TIDE_COMPLETED && before(plan, out, all[i].out))
            out = all[i].out;
        if (all[i].status != TIDE_FAILED)
            continue;
        first = failed++ ? first : (int)i;
        failure = tide_result_next_failure(result, failure);
        MUST(failure && failure == tide_result_at(result, k));
    }
    MUST(!tide_result_next_failure(result, failure) || (!failure && !failed));
    bool fast = plan->strategy == TIDE_FAIL_FAST;
    MUST(status == TIDE_COMPLETED || status == TIDE_FAILED || status == TIDE_CANCELLED);
    MUST(status != TIDE_CANCELLED || was_cut(run));
    MUST(status != TIDE_COMPLETED || !(failed || cancelled));
    MUST(status != TIDE_FAILED || failed);
    MUST(status != TIDE_FAILED || fast || !cancelled);
    MUST(!fast || failed <= 1);
    MUST(!atomic_load(&run->must_stop) || status == TIDE_CANCELLED || (fast && failed));
    check_value(tide_result_payload(result), text_of(run, all, out));
    check_whole_error(run, result, first);
}

void calls_check_result(const calls_run *run, const tide_result *result)
{
    const calls_plan *plan = run->plan;
    found all[MOST_NODES] = {0};
    char id[ID_ROOM];
    MUST(tide_result_count(result) == plan->count && !tide_result_at(result, plan->count));
    for (unsigned k = 0; k < plan->count; k++)
        expect(run, all, plan->order[k], tide_result_at(result, k));
    for (unsigned k = 0; k < plan->count; k++) {
        unsigned i = plan->order[k];
        const tide_outcome *outcome = tide_result_at(result, k);
        calls_name(id, i);
        MUST(strcmp(tide_outcome_id(outcome), id) == 0);
        MUST(tide_result_outcome(result, id) == outcome);
        check_outcome(run, all, i, outcome);
    }
    check_whole(run, result, all);
    MUST((tide_result_duration(result) >= 0) == run->profiled);
    MUST(!tide_result_outcome(result, "nobody") && !tide_result_metadata(result, "nobody"));
    MUST((tide_result_input_metadata(result) != NULL) == run->traced);
    for (unsigned i = 0; i < plan->count; i++)
        calls_free_text(&all[i].answer);
}

void calls_check_unseen(const calls_run *run)
{
    const calls_plan *plan = run->plan;
    bool certain = run->traced && !was_cut(run) && plan->strategy == TIDE_BEST_EFFORT;
    for (unsigned i = 0; i < plan->count; i++) {
        const calls_node *node = &plan->nodes[i];
        int called = atomic_load(&run->calls[i]);
        MUST(called <= (int)node->retries + 1);
        MUST(!certain || called >= 1);
    }
    MUST(atomic_load(&run->inside) == 0);
}

void calls_check_error(tide_error *error, uint64_t codes)
{
    tide_code code = tide_error_code(error);
    MUST(error && code != TIDE_OK && code_bit(code) & codes);
    MUST(strcmp(tide_code_name(code), "unknown") != 0);
    MUST(*tide_error_message(error) && strstr(tide_error_text(error), tide_error_message(error)));
    MUST((tide_error_problems(error) > 0) == (tide_error_problem(error, 0) != NULL));
    MUST(!tide_error_problem(error, tide_error_problems(error)));
    tide_error_free(error);
}
