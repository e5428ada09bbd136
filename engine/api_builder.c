/* SPDX-License-Identifier: MIT */
/* Declaring a DAG in C. What is wrong is noted, and told when the DAG is added. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/api.h"
#include "engine/native.h"

#define MOST_SECONDS 1e9
#define MOST_RETRIES 60000

/* Beside each processor of the DAG, by declaration index. */
typedef struct part {
    ti_native *native;
    ti_value *options;
} part;

struct tide_builder {
    ti_dag *dag;
    ti_problems problems;
    part *parts;
    uint32_t capacity;
};

tide_builder *tide_builder_new(const char *name)
{
    tide_builder *builder = calloc(1, sizeof *builder);
    if (!builder)
        return NULL;
    builder->dag = ti_dag_new(name, name ? strlen(name) : 0);
    if (builder->dag)
        return builder;
    free(builder);
    return NULL;
}

void tide_builder_free(tide_builder *builder)
{
    if (!builder)
        return;
    for (uint32_t i = 0; i < builder->dag->count; i++) {
        ti_native_release(builder->parts[i].native);
        ti_value_release(builder->parts[i].options);
    }
    ti_dag_free(builder->dag);
    ti_problems_clear(&builder->problems);
    free(builder->parts);
    free(builder);
}

#define problem(builder, ...) ti_problems_add(&(builder)->problems, __VA_ARGS__)

/* The processor declared last, after saying that there is none where there is none; or NULL. */
static ti_declared *last(tide_builder *builder, const char *what)
{
    if (!builder || builder->dag->failed)
        return NULL;
    if (builder->dag->count)
        return &builder->dag->processors[builder->dag->count - 1];
    problem(builder, TI_NONE, "%s comes before the first processor", what);
    return NULL;
}

static uint32_t last_index(const tide_builder *builder)
{
    return builder->dag->count - 1;
}

/* Nanoseconds; 0 after saying that it is no time. */
static uint64_t read_time(tide_builder *builder, uint32_t processor, const char *what,
                          double seconds)
{
    if (seconds > 0 && seconds <= MOST_SECONDS)
        return (uint64_t)(seconds * 1e9) + 1;
    problem(builder, processor, "%s must be a positive number of seconds, but it is %g", what,
            seconds);
    return 0;
}

void tide_builder_failure_strategy(tide_builder *builder, tide_failure_strategy strategy)
{
    static const ti_failure_strategy strategies[] = {
        [TIDE_FAIL_FAST] = TI_FAIL_FAST,
        [TIDE_CONTINUE_ON_ERROR] = TI_CONTINUE_ON_ERROR,
        [TIDE_BEST_EFFORT] = TI_BEST_EFFORT,
    };
    if (!builder)
        return;
    if ((unsigned)strategy > TIDE_BEST_EFFORT)
        problem(builder, TI_NONE, "failure_strategy is none of tide_failure_strategy");
    else
        builder->dag->failure_strategy = strategies[strategy];
}

void tide_builder_strategy(tide_builder *builder, tide_strategy strategy)
{
    if (!builder)
        return;
    if ((unsigned)strategy > TIDE_LEVEL)
        problem(builder, TI_NONE, "strategy is none of tide_strategy");
    else
        builder->dag->strategy =
            strategy == TIDE_STRATEGY_DEFAULT ? TI_REACTIVE : (ti_strategy)(strategy - 1);
}

void tide_builder_max_concurrency(tide_builder *builder, uint32_t most)
{
    if (builder)
        builder->dag->max_concurrency = most;
}

void tide_builder_timeout(tide_builder *builder, double seconds)
{
    if (builder)
        builder->dag->timeout = read_time(builder, TI_NONE, "timeout", seconds);
}

void tide_builder_profile(tide_builder *builder, bool profile)
{
    if (builder)
        builder->dag->profile = profile;
}

void tide_builder_limit(tide_builder *builder, const char *name, uint32_t count)
{
    if (!builder || builder->dag->failed)
        return;
    const ti_dag *dag = builder->dag;
    for (uint32_t i = 0; name && i < dag->limit_count; i++)
        if (dag->limits[i].name.size == strlen(name) &&
            memcmp(dag->limits[i].name.bytes, name, strlen(name)) == 0) {
            problem(builder, TI_NONE, "limit '%s' is declared twice", name);
            return;
        }
    if (!name || !count)
        problem(builder, TI_NONE, "a limit needs a name and a count from 1 on");
    else if (!ti_dag_limit(builder->dag, name, strlen(name), count))
        problem(builder, TI_NONE, "there are more than %d limits", TI_MOST_LIMITS);
}

/* Room for one more part; false marks the DAG as failed. */
static bool reserve(tide_builder *builder)
{
    if (builder->dag->count < builder->capacity)
        return true;
    uint32_t capacity = builder->capacity ? 2 * builder->capacity : 16;
    part *parts = realloc(builder->parts, capacity * sizeof *parts);
    if (!parts)
        return !(builder->dag->failed = true);
    builder->parts = parts;
    builder->capacity = capacity;
    return true;
}

/* NULL after saying what is wrong with it. */
static ti_native *read_processor(tide_builder *builder, uint32_t index, const tide_processor *from)
{
    tide_processor processor = {0};
    tide_error *error = NULL;
    if (!from) {
        problem(builder, index, "has no processor");
        return NULL;
    }
    if (!ti_api_read(&processor, sizeof processor, from, "tide_processor", &error)) {
        problem(builder, index, "%s", tide_error_message(error));
        tide_error_free(error);
        return NULL;
    }
    if (!processor.call)
        problem(builder, index, "has no call function");
    ti_native *before = index ? builder->parts[index - 1].native : NULL;
    ti_native *native = ti_native_same(before, &processor);
    if (native || (native = ti_native_new(&processor)))
        return native;
    builder->dag->failed = true;
    if (processor.drop)
        processor.drop(processor.data);
    return NULL;
}

static void declare(tide_builder *builder, const char *id, ti_intent intent,
                    const tide_processor *processor)
{
    if (!builder || builder->dag->failed || !reserve(builder)) {
        if (processor && processor->drop)
            processor->drop(processor->data);
        return;
    }
    uint32_t index = builder->dag->count;
    ti_native *native = read_processor(builder, index, processor);
    if (ti_dag_add(builder->dag, id ? id : "", id ? strlen(id) : 0, intent, 0) == TI_NONE) {
        ti_native_release(native);
        return;
    }
    builder->parts[index] = (part){.native = native};
    if (!id || !*id)
        problem(builder, index, "its id is %s", id ? "empty" : "NULL");
}

void tide_builder_transform(tide_builder *builder, const char *id, const tide_processor *processor)
{
    declare(builder, id, TI_TRANSFORM, processor);
}

void tide_builder_analyze(tide_builder *builder, const char *id, const tide_processor *processor)
{
    declare(builder, id, TI_ANALYZE, processor);
}

/* Hands a name to a function of ti_dag. */
static void name_one(tide_builder *builder, const char *what, const char *name,
                     void (*take)(ti_dag *dag, const char *name, size_t size))
{
    if (!last(builder, what))
        return;
    if (name)
        take(builder->dag, name, strlen(name));
    else
        problem(builder, last_index(builder), "%s is NULL", what);
}

void tide_builder_depends_on(tide_builder *builder, const char *id)
{
    name_one(builder, "depends_on", id, ti_dag_depends_on);
}

void tide_builder_payload_from(tide_builder *builder, const char *id)
{
    name_one(builder, "payload_from", id, ti_dag_payload_from);
}

void tide_builder_uses(tide_builder *builder, const char *limit)
{
    name_one(builder, "uses", limit, ti_dag_uses);
}

void tide_builder_call_timeout(tide_builder *builder, double seconds)
{
    ti_declared *declared = last(builder, "call_timeout");
    if (declared)
        declared->timeout = read_time(builder, last_index(builder), "call_timeout", seconds);
}

void tide_builder_retry(tide_builder *builder, const tide_retry *retry)
{
    ti_declared *declared = last(builder, "retry");
    if (!declared)
        return;
    bool good = retry && retry->max >= 1 && retry->max <= MOST_RETRIES && retry->backoff >= 0 &&
                retry->backoff <= MOST_SECONDS && retry->max_backoff >= 0 &&
                retry->max_backoff <= MOST_SECONDS && retry->jitter >= 0 && retry->jitter <= 1 &&
                (retry->factor == 0 || (retry->factor >= 1 && retry->factor <= 1e6));
    if (!good) {
        problem(builder, last_index(builder),
                "retry needs max from 1 to %d, times that are not negative, a factor from 1 on "
                "and jitter from 0 to 1",
                MOST_RETRIES);
        return;
    }
    declared->retry = (ti_retry){
        .max = retry->max,
        .backoff = (uint64_t)(retry->backoff * 1e9),
        .most = (uint64_t)((retry->max_backoff > 0 ? retry->max_backoff : MOST_SECONDS) * 1e9),
        .factor = retry->factor > 0 ? retry->factor : 2,
        .jitter = retry->jitter,
        .seed = retry->seed,
    };
}

void tide_builder_options(tide_builder *builder, tide_value *options)
{
    if (!last(builder, "options")) {
        tide_value_release(options);
        return;
    }
    part *it = &builder->parts[last_index(builder)];
    if (!options)
        builder->dag->failed = true; /* there was no memory to make them */
    ti_value_release(it->options);
    it->options = ti_value_in(options);
}

/* "processor 'id': text" */
static void add_line(ti_problems *lines, const ti_dag *dag, const ti_problem *it)
{
    if (it->processor == TI_NONE) {
        ti_problems_add(lines, TI_NONE, "%s", it->text);
        return;
    }
    ti_text id = dag->processors[it->processor].id;
    if (id.size)
        ti_problems_add(lines, TI_NONE, "processor '%.*s': %s", (int)id.size, id.bytes, it->text);
    else
        ti_problems_add(lines, TI_NONE, "processor #%u: %s", it->processor + 1, it->text);
}

/* All lines, as one text; NULL: no memory. */
static char *join(const char *label, const ti_problems *lines)
{
    size_t size = strlen(label) + 64, at;
    for (size_t i = 0; i < lines->count; i++)
        size += strlen(lines->list[i].text) + 4;
    char *text = malloc(size);
    if (!text)
        return NULL;
    if (lines->count == 1) {
        snprintf(text, size, "%s: %s", label, lines->list[0].text);
        return text;
    }
    at = (size_t)snprintf(text, size, "%s: %zu problems:", label, lines->count);
    for (size_t i = 0; i < lines->count; i++)
        at += (size_t)snprintf(text + at, size - at, "\n  %s", lines->list[i].text);
    return text;
}

static void tell(tide_error **error, const ti_dag *dag, const ti_problems *problems)
{
    const ti_text none = {NULL, 0};
    ti_problems lines = {0};
    if (!error)
        return;
    for (size_t i = 0; i < problems->count; i++)
        add_line(&lines, dag, &problems->list[i]);
    char *text = join(dag->name ? dag->name : "dag", &lines);
    if (text) {
        ti_error *record = ti_error_new(TI_E_INVALID_DAG, text, strlen(text), NULL, 0, NULL);
        *error = ti_api_error_new(TIDE_E_INVALID_DAG, record, none, none);
    } else {
        ti_api_fail_code(error, TI_E_MEMORY_LIMIT);
    }
    if (text && (*error)->code == TIDE_E_INVALID_DAG)
        (*error)->problems = lines;
    else
        ti_problems_clear(&lines);
    free(text);
}

static ti_plan *compile(ti_engine *engine, tide_builder *builder, tide_error **error)
{
    ti_problems problems = {0};
    for (size_t i = 0; i < builder->problems.count; i++)
        ti_problems_add(&problems, builder->problems.list[i].processor, "%s",
                        builder->problems.list[i].text);
    problems.failed = problems.failed || builder->problems.failed;
    for (uint32_t i = 0; i < builder->dag->count; i++)
        builder->dag->processors[i].backend = ti_natives_backend(engine);
    ti_plan *plan = ti_plan_compile(builder->dag, &problems);
    if (!plan && problems.count && !problems.failed)
        tell(error, builder->dag, &problems);
    else if (!plan)
        ti_api_fail_code(error, TI_E_MEMORY_LIMIT);
    ti_problems_clear(&problems);
    return plan;
}

/* Opens the states of all processors in all workers. */
static bool install(ti_engine *engine, uint64_t key, const ti_plan *plan,
                    const tide_builder *builder, ti_error **error)
{
    ti_native_use *uses = malloc(plan->count * sizeof *uses);
    if (!uses) {
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return false;
    }
    for (uint32_t s = 0; s < plan->count; s++) {
        uint32_t slot = plan->steps[s].slot;
        uses[slot] = (ti_native_use){
            .slot = slot,
            .native = builder->parts[slot].native,
            .options = builder->parts[slot].options,
            .id = ti_plan_id(plan, s).bytes,
        };
    }
    bool done = ti_native_install(engine, key, plan->count, uses, plan->count, error);
    free(uses);
    return done;
}

tide_dag *tide_engine_add(tide_engine *handle, tide_builder *builder, tide_error **error)
{
    ti_engine *engine = ti_engine_in(handle);
    ti_error *why = NULL;
    if (!engine || !builder || !ti_natives_of(engine)) {
        ti_api_misuse(error, "tide_engine_add needs an engine and a builder");
        return NULL;
    }
    if (!ti_api_may_wait(engine, "tide_engine_add", error))
        return NULL;
    ti_plan *plan = compile(engine, builder, error);
    if (!plan)
        return NULL;
    uint64_t key = ti_program_new_key();
    if (!install(engine, key, plan, builder, &why)) {
        ti_plan_release(plan);
        ti_api_fail(error, why);
        return NULL;
    }
    ti_program *program = ti_program_new(engine, plan, key);
    if (!program) {
        ti_engine_forget(engine, key);
        ti_api_fail_code(error, TI_E_MEMORY_LIMIT);
    }
    return ti_dag_out(program);
}

tide_dag *tide_dag_retain(tide_dag *dag)
{
    return dag ? ti_dag_out(ti_program_retain(ti_dag_in(dag))) : NULL;
}

void tide_dag_release(tide_dag *dag)
{
    ti_program_release(ti_dag_in(dag));
}

const char *tide_dag_name(const tide_dag *dag)
{
    return dag ? ti_dag_in(dag)->plan->name : NULL;
}

size_t tide_dag_count(const tide_dag *dag)
{
    return dag ? ti_dag_in(dag)->plan->count : 0;
}

const char *tide_dag_id(const tide_dag *dag, size_t index)
{
    return index < tide_dag_count(dag) ? ti_plan_id(ti_dag_in(dag)->plan, (uint32_t)index).bytes
                                       : NULL;
}
