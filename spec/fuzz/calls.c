/* SPDX-License-Identifier: MIT */
/* Sequences of calls of the C interface: each byte decides which call is next of those that
 * tidemill.h permits, and what with. What comes back is held against a model of what there is; at
 * the end of an input nothing lives any more. Built with libFuzzer, or with replay.c. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "calls.h"
#include "engine/live.h"

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { ENGINES = 2, BUILDERS = 2, DAGS = 3, RUNS = 6, RESULTS = 3, STREAMS = 2, VALUES = 3 };
enum { HELPERS = 3, MOST_PUSHED = 6, HANG_MS = 15000 };

typedef struct engine {
    tide_engine *it; /* NULL: nobody has a handle */
    calls_engine *is;
    unsigned handles;
    int fd; /* -1: nobody has asked */
} engine;

typedef struct builder {
    tide_builder *it;
    calls_plan plan;
} builder;

typedef struct dag {
    tide_dag *it;
    calls_plan *plan;
    calls_engine *engine;
    unsigned handles;
} dag;

typedef struct run {
    tide_run *it;
    calls_run *is;
    unsigned handles;
} run;

typedef struct result {
    tide_result *it;
    const calls_run *is;
} result;

typedef struct stream {
    tide_stream *it;
    calls_plan *plan;
    calls_engine *engine;
    calls_run *pushed[MOST_PUSHED]; /* and not taken, in order */
    unsigned most, count, flags;
} stream;

typedef struct value {
    tide_value *it;
    calls_text text;
} value;

/* What is to be run: taken by the call that runs it. */
typedef struct order {
    calls_run *is;
    tide_value *payload, *metadata;
    tide_run_options options;
} order;

/* Something that another thread does meanwhile, with references of its own. */
typedef struct helper {
    bool there;
    pthread_t thread;
    enum { CLOSES, CANCELS, WAITS, RUNS_IT, TAKES, ADDS, LETS_GO, HELPS } kind;
    engine engine;
    dag dag;
    run run;
    builder builder;
    calls_plan *plan;
    order order;
} helper;

static struct world {
    calls_reader reader;
    bool elsewhere; /* this thread is not the first one */
    engine engines[ENGINES];
    builder builders[BUILDERS];
    dag dags[DAGS];
    run runs[RUNS];
    result results[RESULTS];
    stream streams[STREAMS];
    value values[VALUES];
    helper helpers[HELPERS];
    pthread_t opener; /* of the gates */
    bool opening;
    /* the model, which outlives what it is of */
    calls_engine all_engines[MOST_ENGINES];
    calls_plan all_plans[MOST_PLANS];
    calls_processor all_processors[MOST_PROCESSORS];
    calls_run all_runs[MOST_RUNS];
    unsigned engine_count, plan_count, processor_count, run_count;
} w;

static unsigned byte(void)
{
    return calls_byte(&w.reader);
}

static unsigned below(unsigned count)
{
    return calls_below(&w.reader, count);
}

calls_run *calls_find_run(int64_t number)
{
    return number > 0 && number <= MOST_RUNS ? &w.all_runs[number - 1] : NULL;
}

/* ---- Errors: none but where a call fails ---- */

static char nothing;
#define UNTOUCHED ((tide_error *)(void *)&nothing)

typedef struct trap {
    tide_error *error, **at;
} trap;

static trap *set(trap *into)
{
    into->error = UNTOUCHED;
    into->at = below(8) ? &into->error : NULL;
    return into;
}

/* The call must fail so if it failed, and it may fail only if there is a code for it. */
static void spring(trap *it, bool failed, uint64_t codes)
{
    MUST(!failed || codes);
    if (failed && it->at)
        calls_check_error(it->error, codes);
    else
        MUST(it->error == UNTOUCHED);
}

/* ---- Waiting: callbacks at a gate must be let go first, or meanwhile ---- */

static void *open_later(void *wanted)
{
    usleep(50);
    calls_open_gates((unsigned)(uintptr_t)wanted);
    return NULL;
}

static void let_go(unsigned gates)
{
    if (below(4))
        calls_open_gates(gates);
    else
        MUST(w.opening = !pthread_create(&w.opener, NULL, open_later, (void *)(uintptr_t)gates));
}

static void waited(void)
{
    if (w.opening)
        pthread_join(w.opener, NULL);
    w.opening = false;
}

/* ---- Engines ---- */

static bool is_alone(void)
{
    for (int i = 0; i < HELPERS; i++)
        if (w.helpers[i].there)
            return false;
    return true;
}

static void check_pending(const engine *self)
{
    if (self->it && is_alone())
        MUST((int)tide_engine_pending(self->it) == atomic_load(&self->is->pending));
}

static void open_engine(engine *self)
{
    tide_options options = TIDE_OPTIONS;
    trap t;
    unsigned how = byte();
    if (w.engine_count == MOST_ENGINES)
        return;
    options.workers = 1 + how % 3;
    options.pool = how / 4 % 4 == 3 ? TIDE_POOL_SHARED : TIDE_POOL_PRIVATE;
    bool wrong = how >= 240;
    if (wrong && how % 4 == 0)
        options.size = 0;
    else if (wrong && how % 4 == 1)
        options.workers = 100000;
    else if (wrong && how % 4 == 2)
        options.kill_grace = how % 8 < 4 ? -1 : 1e300;
    else if (wrong && how % 8 == 3)
        options.preempt = (tide_preempt)99;
    else if (wrong)
        options.pool = TIDE_POOL_SHARED, options.kill_grace = 1;
    tide_engine *opened = tide_engine_open(&options, set(&t)->at);
    MUST((opened == NULL) == wrong);
    spring(&t, !opened, code_bit(TIDE_E_MISUSE));
    if (!opened)
        return;
    *self = (engine){opened, &w.all_engines[w.engine_count++], 1, -1};
    self->is->shared = options.pool == TIDE_POOL_SHARED;
    MUST(tide_engine_workers(opened) == options.workers);
}

static engine *some_engine(void)
{
    engine *self = &w.engines[below(ENGINES)];
    if (!self->it)
        open_engine(self);
    return self->it ? self : NULL;
}

/* Every run of it that somebody has a handle of has settled. */
static void check_closed(const calls_engine *is)
{
    for (int i = 0; i < RUNS; i++)
        if (w.runs[i].it && w.runs[i].is->engine == is)
            MUST(tide_run_status(w.runs[i].it) != TIDE_RUNNING);
}

static void close_engine(void)
{
    engine *self = &w.engines[below(ENGINES)];
    trap t;
    let_go(below(2) ? ALL_GATES : STUBBORN_GATE);
    if (self->it)
        atomic_store(&self->is->closing, true);
    MUST(tide_engine_close(self->it, set(&t)->at));
    spring(&t, false, 0);
    waited();
    if (!self->it)
        return;
    atomic_store(&self->is->closed, true);
    check_closed(self->is);
    check_pending(self);
}

static void release_engine(engine *self)
{
    if (!self->it)
        return;
    tide_engine_release(self->it);
    if (--self->handles == 0)
        *self = (engine){.fd = -1};
}

static void count_engine(void)
{
    engine *self = some_engine();
    if (!self)
        return;
    if (below(2)) {
        MUST(tide_engine_retain(self->it) == self->it);
        self->handles++;
    } else {
        release_engine(self);
    }
}

static void register_name(void)
{
    engine *self = some_engine();
    unsigned how = byte(), name = how % 4;
    char text[] = {(char)('a' + name), '\0'};
    trap t;
    if (!self || w.processor_count == MOST_PROCESSORS)
        return;
    calls_processor *made = &w.all_processors[w.processor_count];
    made->drops = true;
    tide_processor processor = calls_make_processor(made);
    bool wrong = how >= 224;
    if (wrong && how % 2)
        processor.size = 3;
    else if (wrong)
        processor.call = NULL;
    bool taken = self->is->names >> name & 1,
         done = tide_engine_register(self->it, how == 255 ? "" : text, &processor, set(&t)->at);
    bool closing = atomic_load(&self->is->closing);
    uint64_t codes =
        (wrong || taken ? code_bit(TIDE_E_MISUSE) : 0) | (closing ? code_bit(TIDE_E_CLOSED) : 0);
    MUST(!done || !(wrong || (taken && !closing) || atomic_load(&self->is->closed)));
    spring(&t, !done, codes);
    if (done) {
        w.processor_count++;
        self->is->names |= 1u << name;
    } else {
        made->drops = false;
    }
}

/* ---- DAGs ---- */

static calls_act some_act(void)
{
    static const calls_act acts[16] = {SKIP, ANSWER, ANSWER,  ANSWER,      ANSWER, PASS,
                                       PASS, PASS,   WRAP,    WRAP,        RETRY,  RETRY,
                                       FAIL, SKIP,   NOTHING, BAD_METADATA};
    return acts[below(16)];
}

static calls_manner some_manner(void)
{
    static const calls_manner manners[8] = {AT_ONCE, AT_ONCE, AT_ONCE, TOO_LATE,
                                            SLOWLY,  AT_GATE, AT_GATE, STUBBORN};
    return manners[below(8)];
}

static calls_processor *make_processor(void)
{
    calls_processor *self = &w.all_processors[w.processor_count++];
    unsigned how = byte();
    self->transform = how % 4 != 0;
    self->opens = how / 4 % 2;
    self->drops = how / 8 % 2;
    self->refuses = how >= 248 ? 1 + how % 4 : 0;
    self->when = how / 16 % 3;
    self->act = some_act();
    self->manner = some_manner();
    if (self->act == FAIL || self->act == RETRY) {
        self->code = (tide_code)below(20);
        self->need = 1 + below(3);
    }
    return self;
}

static void choose_dependencies(builder *self, unsigned i)
{
    calls_node *node = &self->plan.nodes[i];
    unsigned how = byte();
    char id[ID_ROOM];
    node->depends = how & ((1u << i) - 1);
    if (how >= 240) /* one that is declared later, or never, or itself */
        node->depends |= 1u << below(MOST_NODES);
    for (unsigned j = 0; j < MOST_NODES; j++)
        if (node->depends >> j & 1) {
            calls_name(id, j);
            tide_builder_depends_on(self->it, id);
        }
    node->payload_from = how % 8 == 7 ? (int)below(MOST_NODES) : -1;
    if (node->payload_from >= 0) {
        calls_name(id, (unsigned)node->payload_from);
        tide_builder_payload_from(self->it, id);
    }
}

static void choose_rest(builder *self, calls_node *node)
{
    unsigned how = byte();
    if (how % 4 == 1) {
        const tide_retry retry = {.max = 1 + how / 4 % 3, .backoff = how / 16 % 4 * 1e-5};
        node->retries = retry.max;
        tide_builder_retry(self->it, &retry);
    }
    if (how / 4 % 4 == 2 && self->plan.permits) {
        node->limited = true;
        tide_builder_uses(self->it, "l");
    }
    if (how / 16 % 4 == 3) {
        node->options = 1 + how;
        tide_builder_options(self->it, tide_integer(node->options));
    }
    if (how >= 192) {
        node->bounded = true;
        node->timed = how % 2;
        tide_builder_call_timeout(self->it, node->timed ? 0.0005 : 100);
    }
}

static void add_node(builder *self)
{
    unsigned i = self->plan.count;
    char id[ID_ROOM];
    if (i == MOST_NODES || w.processor_count == MOST_PROCESSORS || self->plan.broken)
        return;
    calls_node *node = &self->plan.nodes[i];
    *node = (calls_node){.processor = make_processor(), .payload_from = -1};
    self->plan.count++;
    const tide_processor processor = calls_make_processor(node->processor);
    calls_name(id, i);
    if (node->processor->transform)
        tide_builder_transform(self->it, id, &processor);
    else
        tide_builder_analyze(self->it, id, &processor);
    choose_dependencies(self, i);
    choose_rest(self, node);
}

static void choose_whole(builder *self)
{
    calls_plan *plan = &self->plan;
    unsigned how = byte();
    plan->strategy = (tide_failure_strategy)(how % 3);
    tide_builder_failure_strategy(self->it, plan->strategy);
    tide_builder_strategy(self->it, (tide_strategy)(how / 4 % 4));
    tide_builder_profile(self->it, plan->profiled = how / 8 % 2);
    if (how / 16 % 4 == 1)
        tide_builder_max_concurrency(self->it, plan->most = 1 + how % 2);
    if (how / 16 % 4 == 2 && !plan->permits)
        tide_builder_limit(self->it, "l", plan->permits = 1 + how % 2);
    if (how >= 240) {
        plan->timed = true;
        tide_builder_timeout(self->it, 0.001);
    }
}

/* Any of these makes a DAG that is refused for good. */
static void mistake(builder *self)
{
    const tide_retry retry = {.max = 0};
    tide_processor processor = {.size = sizeof processor};
    self->plan.broken = true;
    switch (below(12)) {
    case 0:
        tide_builder_transform(self->it, "p0", NULL);
        break;
    case 1:
        tide_builder_transform(self->it, NULL, &processor);
        break;
    case 2:
        processor.size = below(2) ? 1 : 100000;
        tide_builder_analyze(self->it, "", &processor);
        break;
    case 3:
        if (w.processor_count < MOST_PROCESSORS) {
            processor = calls_make_processor(make_processor());
            processor.call = NULL; /* `drop` is called nevertheless */
        }
        tide_builder_analyze(self->it, "again", &processor);
        break;
    case 4:
        tide_builder_timeout(self->it, -1);
        break;
    case 5:
        tide_builder_retry(self->it, below(2) ? &retry : NULL);
        break;
    case 6:
        tide_builder_limit(self->it, below(2) ? "none" : NULL, 0);
        tide_builder_limit(self->it, "twice", 1);
        tide_builder_limit(self->it, "twice", 1);
        break;
    case 7:
        tide_builder_uses(self->it, "unknown");
        tide_builder_options(self->it, tide_integer(1));
        break;
    case 8:
        tide_builder_depends_on(self->it, below(2) ? NULL : "unknown");
        break;
    case 9:
        tide_builder_failure_strategy(self->it, (tide_failure_strategy)77);
        tide_builder_strategy(self->it, (tide_strategy)77);
        break;
    case 10:
        tide_builder_call_timeout(self->it, 0);
        break;
    default:
        tide_builder_payload_from(self->it, "unknown");
        break;
    }
}

static void declare(builder *self)
{
    *self = (builder){.it = tide_builder_new(below(2) ? "it" : NULL)};
    choose_whole(self);
    for (unsigned left = below(5); left; left--)
        add_node(self);
}

static void extend(void)
{
    builder *self = &w.builders[below(BUILDERS)];
    unsigned how = byte();
    if (!self->it)
        declare(self);
    else if (how % 16 == 15)
        mistake(self);
    else if (how % 4 == 3)
        choose_whole(self);
    else
        add_node(self);
}

static void free_builder(void)
{
    builder *self = &w.builders[below(BUILDERS)];
    tide_builder_free(self->it);
    self->it = NULL;
}

static bool is_good(calls_plan *plan)
{
    if (plan->broken || !plan->count)
        return false;
    for (unsigned i = 0; i < plan->count; i++) {
        const calls_node *node = &plan->nodes[i];
        if (node->depends >> plan->count || node->depends >> i & 1)
            return false;
        if (node->payload_from >= 0 && !(node->depends >> node->payload_from & 1))
            return false;
    }
    return calls_rank(plan);
}

static bool may_refuse(const calls_plan *plan)
{
    for (unsigned i = 0; i < plan->count; i++)
        if (plan->nodes[i].processor->refuses)
            return true;
    return false;
}

static void check_dag(const tide_dag *it, const calls_plan *plan)
{
    char id[ID_ROOM];
    MUST(tide_dag_count(it) == plan->count && !tide_dag_id(it, plan->count));
    for (unsigned k = 0; k < plan->count; k++) {
        calls_name(id, plan->order[k]);
        MUST(strcmp(tide_dag_id(it, k), id) == 0);
    }
}

/* On any thread; `plan` becomes a copy of the builder's. */
static dag add_dag(tide_engine *to, calls_engine *is, builder *from, calls_plan *plan, trap *t)
{
    memcpy(plan, &from->plan, sizeof *plan);
    bool good = is_good(plan), closed = atomic_load(&is->closed);
    tide_dag *it = tide_engine_add(to, from->it, t->at);
    uint64_t codes = good ? 0 : code_bit(TIDE_E_INVALID_DAG);
    if (may_refuse(plan))
        codes = code_bit(TIDE_E_INVALID_DAG) | code_bit(TIDE_E_MEMORY_LIMIT);
    if (atomic_load(&is->closing))
        codes |= code_bit(TIDE_E_CLOSED);
    MUST(!it || (good && !closed));
    spring(t, !it, codes);
    if (it)
        check_dag(it, plan);
    return (dag){it, plan, is, 1};
}

static void put_dag(dag made)
{
    dag *self = &w.dags[below(DAGS)];
    for (; self->it && self->handles; self->handles--)
        tide_dag_release(self->it);
    *self = made;
}

static void add_to(engine *to, builder *from)
{
    trap t;
    if (w.plan_count == MOST_PLANS)
        return;
    let_go(ALL_GATES);
    dag made = add_dag(to->it, to->is, from, &w.all_plans[w.plan_count++], set(&t));
    waited();
    if (made.it)
        put_dag(made);
}

static void add(void)
{
    builder *from = &w.builders[below(BUILDERS)];
    engine *to = some_engine();
    if (!from->it)
        declare(from);
    if (to)
        add_to(to, from);
}

/* Any there is from a place on, else one that is made for it. */
static dag *some_dag(void)
{
    unsigned first = byte();
    for (unsigned i = 0; i < DAGS; i++)
        if (w.dags[(first + i) % DAGS].it)
            return &w.dags[(first + i) % DAGS];
    add();
    for (unsigned i = 0; i < DAGS; i++)
        if (w.dags[i].it)
            return &w.dags[i];
    return NULL;
}

static void count_dag(void)
{
    dag *self = &w.dags[below(DAGS)];
    if (!self->it)
        return;
    if (below(2)) {
        tide_dag_retain(self->it);
        self->handles++;
    } else {
        tide_dag_release(self->it);
        if (--self->handles == 0)
            self->it = NULL;
    }
}

/* ---- Runs ---- */

static tide_value *make_metadata(unsigned number)
{
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    tide_write_text(writer, "run"), tide_write_integer(writer, number);
    tide_write_end(writer);
    return tide_writer_finish(writer, NULL);
}

/* A payload that a slot has, or of its own. */
static tide_value *some_payload(calls_text *text)
{
    const value *from = &w.values[below(VALUES)];
    if (from->it && calls_depth(tide_value_view(from->it)) < 90) {
        calls_add_text(text, from->text.bytes, from->text.size);
        return tide_value_retain(from->it);
    }
    unsigned number = byte();
    calls_add_format(text, "i%u;", number);
    return tide_integer(number);
}

/* A run with options as bytes say; false: there were too many. */
static bool prepare(order *self, calls_plan *plan, calls_engine *on)
{
    unsigned how = byte();
    if (w.run_count == MOST_RUNS)
        return false;
    unsigned number = ++w.run_count;
    calls_run *is = &w.all_runs[number - 1];
    *self = (order){.is = is, .options = TIDE_RUN_OPTIONS};
    is->plan = plan;
    is->engine = on;
    is->traced = how % 8 != 7;
    is->timed = plan->timed;
    self->payload = some_payload(&is->input);
    self->metadata = is->traced ? make_metadata(number) : NULL;
    self->options.metadata = self->metadata;
    self->options.tag = is;
    self->options.strategy = (tide_strategy)(how / 8 % 4);
    self->options.profile = (int)(how / 32 % 3) - 1;
    is->profiled = self->options.profile ? self->options.profile > 0 : plan->profiled;
    if (how >= 240)
        self->options.timeout = 100; /* in place of the DAG's */
    else if (how >= 224)
        self->options.timeout = 0.0007;
    if (self->options.timeout > 0)
        is->timed = self->options.timeout < 1;
    is->bounded = is->timed || self->options.timeout > 0;
    atomic_store(&is->may_stop, is->timed);
    return true;
}

static uint64_t start_codes(const calls_engine *is)
{
    return atomic_load(&is->closing) ? code_bit(TIDE_E_CLOSED) : 0;
}

/* It was not started after all. */
static void give_up(calls_run *is)
{
    atomic_store(&is->may_stop, true);
}

static void put_result(tide_result *it, const calls_run *is)
{
    result *self = &w.results[below(RESULTS)];
    MUST(tide_result_tag(it) == is);
    calls_check_result(is, it);
    tide_result_release(self->it);
    *self = (result){it, is};
}

static void put_run(tide_run *it, calls_run *is)
{
    run *self = &w.runs[below(RUNS)];
    MUST(tide_run_tag(it) == is);
    for (; self->it && self->handles; self->handles--)
        tide_run_release(self->it);
    *self = (run){it, is, 1};
}

static void run_dag(void)
{
    const dag *of = some_dag();
    order it;
    trap t;
    if (!of || !prepare(&it, of->plan, of->engine))
        return;
    it.options.notify = below(8) == 7; /* which says nothing here */
    let_go(ALL_GATES);
    bool closed = atomic_load(&of->engine->closed);
    tide_result *made = tide_dag_run(of->it, it.payload, &it.options, set(&t)->at);
    waited();
    MUST(!made || !closed);
    spring(&t, !made, start_codes(of->engine));
    tide_value_release(it.metadata);
    if (made)
        put_result(made, it.is);
    else
        give_up(it.is);
}

static void start(void)
{
    const dag *of = some_dag();
    order it;
    trap t;
    if (!of || !prepare(&it, of->plan, of->engine))
        return;
    it.is->notifies = it.options.notify = below(2);
    bool closed = atomic_load(&of->engine->closed);
    tide_run *made = tide_dag_start(of->it, it.payload, &it.options, set(&t)->at);
    MUST(!made || !closed);
    spring(&t, !made, start_codes(of->engine));
    tide_value_release(it.metadata);
    if (!made) {
        give_up(it.is);
        return;
    }
    if (it.is->notifies) {
        atomic_fetch_add(&of->engine->pending, 1);
        atomic_fetch_add(&of->engine->listed, 1);
    }
    if (below(4)) {
        put_run(made, it.is);
    } else {
        tide_run_release(made); /* it goes on */
    }
}

static run *some_run(void)
{
    unsigned first = byte();
    for (unsigned i = 0; i < RUNS; i++)
        if (w.runs[(first + i) % RUNS].it)
            return &w.runs[(first + i) % RUNS];
    return NULL;
}

static void wait_for(const run *self, double seconds)
{
    trap t;
    if (seconds < 0)
        let_go(ALL_GATES);
    bool settled = tide_run_status(self->it) != TIDE_RUNNING;
    tide_result *made = tide_run_wait(self->it, seconds, set(&t)->at);
    waited();
    MUST(made || !(settled || seconds < 0));
    spring(&t, !made, code_bit(TIDE_E_TIMEOUT));
    if (made)
        put_result(made, self->is);
}

static void wait_run(void)
{
    static const double seconds[4] = {-1, 0, 0.0003, 1e-9};
    const run *self = some_run();
    if (self)
        wait_for(self, seconds[below(4)]);
}

static bool may_time_out(const calls_run *is)
{
    for (unsigned i = 0; i < is->plan->count; i++)
        if (is->plan->nodes[i].timed)
            return true;
    return is->timed;
}

/* Some callback of it stands at a gate that stays closed. */
static bool surely_waits(const calls_run *is)
{
    return is_alone() && !calls_gates_open() && is->traced && !may_time_out(is) &&
           atomic_load(&is->waiting) > 0;
}

static void cancel(void)
{
    run *self = some_run();
    unsigned how = below(4);
    if (!self)
        return;
    for (int i = 0; how / 2 && i < 20 && !surely_waits(self->is); i++)
        usleep(20);
    bool waits = surely_waits(self->is), settled = tide_run_status(self->it) != TIDE_RUNNING;
    atomic_store(&self->is->may_stop, true);
    bool cancelled = tide_run_cancel(self->it, how % 2 ? "for fun" : NULL);
    MUST(!cancelled || !settled);
    MUST(!waits || cancelled);
    if (waits)
        atomic_store(&self->is->must_stop, true);
}

static void count_run(void)
{
    run *self = some_run();
    if (!self)
        return;
    if (below(2)) {
        tide_run_retain(self->it);
        self->handles++;
    } else {
        tide_run_release(self->it);
        if (--self->handles == 0)
            self->it = NULL;
    }
}

static void look_at_result(void)
{
    result *self = &w.results[below(RESULTS)];
    if (!self->it)
        return;
    if (below(2)) {
        tide_result *again = tide_result_retain(self->it);
        calls_check_result(self->is, self->it);
        tide_result_release(again);
    } else {
        tide_result_release(self->it);
        self->it = NULL;
    }
}

/* ---- What has settled ---- */

static bool is_readable(const engine *self, int milliseconds)
{
    struct pollfd polled = {.fd = self->fd, .events = POLLIN};
    int ready;
    while ((ready = poll(&polled, 1, milliseconds)) < 0 && errno == EINTR)
        ; /* libFuzzer's alarm */
    return ready == 1;
}

/* Some run that is to be told of has settled and was not taken, as far as one can know. */
static bool has_settled(const engine *self)
{
    for (int i = 0; is_alone() && i < RUNS; i++) {
        const run *one = &w.runs[i];
        if (one->it && one->is->engine == self->is && one->is->notifies &&
            !atomic_load(&one->is->taken) && tide_run_status(one->it) != TIDE_RUNNING)
            return true;
    }
    return false;
}

/* On any thread. NULL: none. */
static tide_result *take_one(tide_engine *it, calls_engine *is)
{
    tide_result *made = tide_engine_next_settled(it);
    calls_run *of = tide_result_tag(made);
    if (!made)
        return NULL;
    MUST(of && of->engine == is && of->notifies && atomic_fetch_add(&of->taken, 1) == 0);
    atomic_fetch_sub(&is->pending, 1);
    atomic_fetch_sub(&is->listed, 1);
    calls_check_result(of, made);
    return made;
}

static void take(void)
{
    engine *self = some_engine();
    if (!self)
        return;
    bool must = has_settled(self);
    tide_result *made = take_one(self->it, self->is);
    MUST(made || !must);
    if (made)
        put_result(made, tide_result_tag(made));
    else if (self->fd >= 0 && is_alone() && !atomic_load(&self->is->pending))
        MUST(!is_readable(self, 0));
    check_pending(self);
}

static void poll_engine(void)
{
    engine *self = some_engine();
    trap t;
    if (!self)
        return;
    self->fd = tide_engine_pollfd(self->it, set(&t)->at);
    spring(&t, false, 0);
    MUST(self->fd >= 0);
    if (has_settled(self))
        MUST(is_readable(self, 0));
    if (below(2) || !is_alone() || !atomic_load(&self->is->listed))
        return;
    let_go(ALL_GATES);
    MUST(is_readable(self, HANG_MS));
    waited();
}

/* ---- Streams ---- */

static stream *some_stream(void)
{
    stream *self = &w.streams[below(STREAMS)];
    const dag *of = self->it ? NULL : some_dag();
    trap t;
    if (!of)
        return self->it ? self : NULL;
    unsigned how = byte(), most = how % (MOST_PUSHED + 1);
    *self = (stream){.plan = of->plan, .engine = of->engine, .most = most, .flags = how / 8 % 4};
    self->it = tide_stream_open(of->it, most, self->flags, set(&t)->at);
    MUST((self->it != NULL) == (most > 0));
    spring(&t, !self->it, code_bit(TIDE_E_MISUSE));
    return self->it ? self : NULL;
}

static void check_stream(const stream *self)
{
    MUST(tide_stream_in_flight(self->it) == self->count);
    MUST(tide_stream_room(self->it) == self->most - self->count);
}

static void push(void)
{
    stream *self = some_stream();
    order it;
    trap t;
    if (!self || !prepare(&it, self->plan, self->engine))
        return;
    it.options.notify = below(8) == 7; /* which says nothing here */
    bool full = self->count == self->most, closed = atomic_load(&self->engine->closed);
    bool done = tide_stream_push(self->it, it.payload, &it.options, set(&t)->at);
    tide_value_release(it.metadata);
    MUST(!done || !(full || closed));
    spring(&t, !done, full ? code_bit(TIDE_E_QUEUE_FULL) : start_codes(self->engine));
    if (!done) {
        give_up(it.is);
        return;
    }
    self->pushed[self->count++] = it.is;
    if (self->flags & TIDE_STREAM_BACKGROUND)
        atomic_fetch_add(&self->engine->pending, 1);
    check_stream(self);
}

static unsigned place_of(const stream *self, const calls_run *is)
{
    for (unsigned i = 0; i < self->count; i++)
        if (self->pushed[i] == is)
            return i;
    MUST(!"what a stream returns was pushed into it");
}

static void next_of(stream *self, double seconds)
{
    trap t;
    let_go(ALL_GATES);
    tide_result *made = tide_stream_next(self->it, seconds, set(&t)->at);
    waited();
    spring(&t, !made && self->count, seconds < 0 ? 0 : code_bit(TIDE_E_TIMEOUT));
    if (made) {
        calls_run *is = tide_result_tag(made);
        unsigned at = place_of(self, is);
        MUST(at == 0 || self->flags & TIDE_STREAM_UNORDERED);
        self->count--;
        memmove(&self->pushed[at], &self->pushed[at + 1],
                (self->count - at) * sizeof self->pushed[0]);
        if (self->flags & TIDE_STREAM_BACKGROUND)
            atomic_fetch_sub(&self->engine->pending, 1);
        put_result(made, is);
    }
    check_stream(self);
}

static void next(void)
{
    static const double seconds[4] = {-1, -1, 0, 0.0003};
    stream *self = some_stream();
    if (self)
        next_of(self, seconds[below(4)]);
}

static void close_stream(stream *self)
{
    for (unsigned i = 0; i < self->count; i++)
        atomic_store(&self->pushed[i]->may_stop, true);
    if (self->it && self->flags & TIDE_STREAM_BACKGROUND)
        atomic_fetch_sub(&self->engine->pending, (int)self->count);
    tide_stream_close(self->it);
    *self = (stream){0};
}

/* ---- Values ---- */

static void make_value(void)
{
    value *self = &w.values[below(VALUES)], *other = &w.values[below(VALUES)];
    calls_text text = {0};
    tide_value *made = calls_make_value(&w.reader, other->it, &text);
    tide_value_release(self->it);
    calls_free_text(&self->text);
    *self = (value){made, text};
}

/* ---- Helpers ---- */

static void help_take(helper *self)
{
    for (int i = 0; i < 3; i++)
        tide_result_release(take_one(self->engine.it, self->engine.is));
}

static void help_run(helper *self)
{
    tide_error *error = NULL;
    tide_result *made =
        tide_dag_run(self->dag.it, self->order.payload, &self->order.options, &error);
    if (made) {
        calls_check_result(self->order.is, made);
    } else {
        give_up(self->order.is);
        calls_check_error(error, start_codes(self->dag.engine));
    }
    tide_value_release(self->order.metadata);
    tide_result_release(made);
}

static void help_add(helper *self)
{
    trap t = {UNTOUCHED, &t.error};
    self->dag = add_dag(self->engine.it, self->engine.is, &self->builder, self->plan, &t);
    tide_builder_free(self->builder.it);
}

static void *help(void *data)
{
    helper *self = data;
    switch (self->kind) {
    case CLOSES:
        MUST(tide_engine_close(self->engine.it, NULL));
        atomic_store(&self->engine.is->closed, true);
        break;
    case CANCELS:
        tide_run_cancel(self->run.it, "from elsewhere");
        break;
    case WAITS: {
        tide_result *made = tide_run_wait(self->run.it, -1, NULL);
        calls_check_result(self->run.is, made);
        tide_result_release(made);
        break;
    }
    case RUNS_IT:
        help_run(self);
        break;
    case TAKES:
        help_take(self);
        break;
    case ADDS:
        help_add(self);
        break;
    default: /* it only lets go, at some time */
        usleep(30);
        break;
    }
    tide_run_release(self->run.it);
    tide_engine_release(self->engine.it);
    if (self->kind != ADDS)
        tide_dag_release(self->dag.it);
    return NULL;
}

static void join(helper *self)
{
    if (!self->there)
        return;
    let_go(ALL_GATES);
    pthread_join(self->thread, NULL);
    waited();
    self->there = false;
    if (self->kind == ADDS && self->dag.it)
        put_dag(self->dag);
}

/* Takes a builder away from its slot. */
static bool equip_adder(helper *self)
{
    builder *from = &w.builders[below(BUILDERS)];
    if (!from->it || w.plan_count == MOST_PLANS)
        return false;
    self->builder = *from;
    self->plan = &w.all_plans[w.plan_count++];
    from->it = NULL;
    return true;
}

/* References of its own to what it works with; false: there is nothing. */
static bool equip(helper *self)
{
    bool wants_engine = self->kind == CLOSES || self->kind == TAKES || self->kind == ADDS;
    bool wants_run = self->kind == CANCELS || self->kind == WAITS;
    const engine *at = wants_engine || self->kind == LETS_GO ? some_engine() : NULL;
    const run *of = wants_run || self->kind == LETS_GO ? some_run() : NULL;
    const dag *runs = self->kind == RUNS_IT || self->kind == LETS_GO ? some_dag() : NULL;
    if ((wants_engine && !at) || (wants_run && !of) || (self->kind == RUNS_IT && !runs))
        return false;
    if (self->kind == RUNS_IT && !prepare(&self->order, runs->plan, runs->engine))
        return false;
    if (self->kind == ADDS && !equip_adder(self))
        return false;
    self->engine = at ? *at : (engine){0};
    self->run = of ? *of : (run){0};
    self->dag = runs ? *runs : (dag){0};
    tide_engine_retain(self->engine.it);
    tide_run_retain(self->run.it);
    tide_dag_retain(self->dag.it);
    if (self->kind == CLOSES)
        atomic_store(&at->is->closing, true);
    if (self->kind == CANCELS)
        atomic_store(&of->is->may_stop, true);
    return true;
}

static void spawn(void)
{
    helper *self = &w.helpers[below(HELPERS)];
    join(self);
    *self = (helper){.kind = below(HELPS)};
    if (!equip(self))
        return;
    self->there = true;
    MUST(!pthread_create(&self->thread, NULL, help, self));
}

/* ---- Gifts ---- */

static void give(void)
{
    unsigned kind = below(3);
    calls_gift *gift = calloc(1, sizeof *gift);
    const engine *at = kind == 0 ? some_engine() : NULL;
    const dag *of = kind == 1 ? some_dag() : NULL;
    const run *runs = kind == 2 ? some_run() : NULL;
    MUST(gift);
    if (at)
        *gift = (calls_gift){.of = at->is, .engine = tide_engine_retain(at->it)};
    if (of)
        *gift = (calls_gift){.of = of->engine, .dag = tide_dag_retain(of->it)};
    if (runs) {
        *gift = (calls_gift){.of = runs->is->engine, .run = tide_run_retain(runs->it)};
        atomic_store(&runs->is->may_stop, true);
    }
    unsigned to = w.processor_count ? below(w.processor_count) : MOST_PROCESSORS;
    if (to < w.processor_count && gift->of)
        gift = atomic_exchange(&w.all_processors[to].gift, gift);
    if (gift)
        calls_open_gift(gift, NULL);
}

/* ---- Misuse ---- */

/* {key: 1} */
static tide_value *make_map(bool text)
{
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    if (text)
        tide_write_text(writer, "p0"); /* the name of a processor */
    else
        tide_write_integer(writer, 1);
    tide_write_integer(writer, 1);
    tide_write_end(writer);
    return tide_writer_finish(writer, NULL);
}

static void misuse_run(const dag *of)
{
    struct {
        tide_run_options known;
        size_t unknown;
    } newer = {TIDE_RUN_OPTIONS, 1};
    tide_run_options options = TIDE_RUN_OPTIONS;
    tide_value *payload = tide_integer(1), *metadata = NULL;
    uint64_t codes = code_bit(TIDE_E_MISUSE);
    tide_dag *it = of->it;
    trap t;
    switch (below(8)) {
    case 0:
        options.size = below(8);
        break;
    case 1:
        options.timeout = below(2) ? -1 : 1e300;
        break;
    case 2:
        options.strategy = (tide_strategy)44;
        break;
    case 3:
        options.metadata = metadata = tide_text("no map");
        codes = code_bit(TIDE_E_INVALID_PAYLOAD);
        break;
    case 4:
        options.metadata = metadata = make_map(below(2));
        codes = code_bit(TIDE_E_INVALID_PAYLOAD);
        break;
    case 5:
        tide_value_release(payload);
        payload = NULL;
        codes = code_bit(TIDE_E_MEMORY_LIMIT);
        break;
    case 6:
        newer.known.size = sizeof newer;
        break;
    default:
        it = NULL;
        break;
    }
    const tide_run_options *given = newer.known.size == sizeof newer ? &newer.known : &options;
    bool failed = below(2) ? !tide_dag_run(it, payload, given, set(&t)->at)
                           : !tide_dag_start(it, payload, given, set(&t)->at);
    MUST(failed);
    spring(&t, true, codes | start_codes(of->engine));
    tide_value_release(metadata);
}

static void misuse(void)
{
    const dag *of = some_dag();
    trap t;
    if (of && below(2)) {
        misuse_run(of);
        return;
    }
    MUST(!tide_engine_add(NULL, NULL, set(&t)->at));
    spring(&t, true, code_bit(TIDE_E_MISUSE));
    MUST(!tide_run_wait(NULL, -1, set(&t)->at));
    spring(&t, true, code_bit(TIDE_E_MISUSE));
    MUST(tide_engine_pollfd(NULL, set(&t)->at) == -1);
    spring(&t, true, code_bit(TIDE_E_MISUSE));
    MUST(!tide_stream_push(NULL, tide_integer(1), NULL, set(&t)->at));
    spring(&t, true, code_bit(TIDE_E_MISUSE));
    MUST(!tide_run_cancel(NULL, NULL) && !tide_engine_next_settled(NULL));
    MUST(!tide_stream_next(NULL, -1, NULL) && !tide_engine_pending(NULL));
    tide_write_map(NULL), tide_write_end(NULL), tide_builder_depends_on(NULL, "p0");
    tide_run_release(NULL), tide_result_release(NULL), tide_error_free(NULL);
}

/* ---- The interpreter ---- */

static void step(void);

static void *step_elsewhere(void *data)
{
    (void)data;
    step();
    return NULL;
}

/* The next call comes from another thread. */
static void elsewhere(void)
{
    pthread_t thread;
    if (w.elsewhere)
        return;
    w.elsewhere = true;
    MUST(!pthread_create(&thread, NULL, step_elsewhere, NULL));
    pthread_join(thread, NULL);
    w.elsewhere = false;
}

static void move_gate(void)
{
    unsigned how = byte();
    if (how % 4 == 0)
        calls_close_gates(1 + how / 4 % 3);
    else if (how % 4 == 1)
        calls_open_gates(1 + how / 4 % 3);
    else if (how % 4 == 2)
        sched_yield();
    else
        usleep(100);
}

static void step(void)
{
    static void (*const calls[])(void) = {
        start,     start,          start,        run_dag,      wait_run,     wait_run,      cancel,
        push,      push,           push,         next,         next,         take,          take,
        add,       extend,         extend,       make_value,   poll_engine,  spawn,         spawn,
        count_dag, give,           move_gate,    move_gate,    count_run,    elsewhere,     misuse,
        give,      look_at_result, count_engine, close_engine, free_builder, register_name,
    };
    unsigned which = byte();
    if (which == 255)
        close_stream(&w.streams[below(STREAMS)]);
    else if (which == 254)
        join(&w.helpers[below(HELPERS)]);
    else
        calls[which % (sizeof calls / sizeof *calls)]();
}

/* ---- The end ---- */

static void finish_runs(unsigned how)
{
    for (int i = 0; i < RUNS; i++) {
        run *self = &w.runs[i];
        if (self->it && how & 1)
            wait_for(self, -1);
        for (; self->it && self->handles; self->handles--)
            tide_run_release(self->it);
    }
    for (int i = 0; i < STREAMS; i++) {
        stream *self = &w.streams[i];
        while (self->it && how & 2 && self->count)
            next_of(self, -1);
        close_stream(self);
    }
}

/* Takes all that is to be told of, as an event loop does. */
static void drain(engine *self)
{
    while (self->it && atomic_load(&self->is->listed)) {
        self->fd = tide_engine_pollfd(self->it, NULL);
        MUST(is_readable(self, HANG_MS));
        for (tide_result *made; (made = take_one(self->it, self->is));)
            tide_result_release(made);
    }
    check_pending(self);
}

static void release_dags(void)
{
    for (int i = 0; i < DAGS; i++)
        for (dag *self = &w.dags[i]; self->it && self->handles; self->handles--)
            tide_dag_release(self->it);
}

static void release_engines(unsigned how)
{
    for (int i = 0; i < ENGINES; i++) {
        engine *self = &w.engines[i];
        if (how & 4)
            drain(self);
        if (self->it && how & 8) {
            atomic_store(&self->is->closing, true);
            MUST(tide_engine_close(self->it, NULL));
            atomic_store(&self->is->closed, true);
        }
        while (self->it)
            release_engine(self);
    }
}

static void take_gifts_back(void)
{
    for (unsigned i = 0; i < w.processor_count; i++) {
        calls_gift *gift = atomic_exchange(&w.all_processors[i].gift, NULL);
        if (gift)
            calls_open_gift(gift, NULL);
    }
}

/* Engines may still close themselves on threads of their own. */
static void check_nothing_lives(void)
{
    for (int i = 0; i < HANG_MS * 20 && atomic_load(&ti_live[TI_LIVE_ENGINES]); i++) {
        usleep(50);
        take_gifts_back();
    }
    MUST(calls_quiet());
    for (unsigned i = 0; i <= TI_LIVE_ENGINES; i++)
        MUST(atomic_load(&ti_live[i]) == 0);
    for (unsigned i = 0; i < w.processor_count; i++) {
        const calls_processor *processor = &w.all_processors[i];
        MUST(atomic_load(&processor->states) == 0);
        MUST(atomic_load(&processor->dropped) == processor->drops);
    }
    for (unsigned i = 0; i < w.run_count; i++)
        calls_check_unseen(&w.all_runs[i]);
}

/* In one order or another. */
static void finish(unsigned how)
{
    calls_open_gates(ALL_GATES);
    for (int i = 0; i < HELPERS; i++)
        join(&w.helpers[i]);
    for (int i = 0; i < ENGINES; i++)
        check_pending(&w.engines[i]);
    if (how & 16)
        release_dags(), finish_runs(how), release_engines(how);
    else
        finish_runs(how), release_engines(how), release_dags();
    for (int i = 0; i < RESULTS; i++)
        tide_result_release(w.results[i].it);
    for (int i = 0; i < BUILDERS; i++)
        tide_builder_free(w.builders[i].it);
    for (int i = 0; i < VALUES; i++) {
        tide_value_release(w.values[i].it);
        calls_free_text(&w.values[i].text);
    }
    take_gifts_back();
    check_nothing_lives();
    for (unsigned i = 0; i < w.run_count; i++)
        calls_free_text(&w.all_runs[i].input);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    setenv("UV_THREADPOOL_SIZE", "2", 1);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    memset(&w, 0, sizeof w);
    w.reader = (calls_reader){bytes, size, 0};
    for (int i = 0; i < ENGINES; i++)
        w.engines[i].fd = -1;
    calls_open_gates(ALL_GATES);
    unsigned how = byte();
    calls_close_gates(how % 4);
    while (w.reader.at < w.reader.size)
        step();
    finish(how / 4);
    return 0;
}
