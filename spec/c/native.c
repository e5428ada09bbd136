/* SPDX-License-Identifier: MIT */
#include "native.h"

#include "check.h"

typedef struct tt_context {
    tt_house *house;
    uint32_t worker;
    uint64_t calls; /* not atomic, so that TSan sees two threads on one seat */
} tt_context;

static void enter(atomic_uint *running, atomic_uint *most)
{
    unsigned now = atomic_fetch_add(running, 1) + 1, before = atomic_load(most);
    while (now > before && !atomic_compare_exchange_weak(most, &before, now))
        ;
}

static void *open_context(void *shared, uint32_t worker, ti_error **error)
{
    tt_house *house = shared;
    if (worker + 1 == house->refuses) {
        *error = ti_error_format(TI_E_INTERNAL, "worker %u refuses", worker);
        return NULL;
    }
    tt_context *context = malloc(sizeof *context);
    if (!context) {
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return NULL;
    }
    *context = (tt_context){.house = house, .worker = worker};
    atomic_fetch_add(&house->opened, 1);
    return context;
}

static void close_context(void *data)
{
    tt_context *context = data;
    atomic_fetch_add(&context->house->closed, 1);
    free(context);
}

static tt_answer call(tt_context *context, const ti_task *task)
{
    tt_native *native = (tt_native *)(uintptr_t)task->run->program->key;
    tt_house *house = context->house;
    context->calls++;
    atomic_fetch_add(&native->called, 1);
    enter(&native->running, &native->most);
    enter(&house->running, &house->most);
    tt_call one = native->calls ? native->calls[task->step->slot] : native->call;
    tt_answer answer = one(task, native->data);
    atomic_fetch_sub(&house->running, 1);
    atomic_fetch_sub(&native->running, 1);
    return answer;
}

static void serve(void *data, ti_worker *worker)
{
    tt_context *context = data;
    const ti_task *task;
    while ((task = ti_worker_next(worker))) {
        tt_answer answer = call(context, task);
        if (answer.error)
            ti_worker_fail(worker, answer.error, true);
        else if (answer.skip)
            ti_worker_skip(worker);
        else
            ti_worker_complete(worker, answer.payload, answer.metadata,
                               answer.payload == task->payload
                                   ? TI_OWNS_METADATA
                                   : TI_OWNS_PAYLOAD | TI_OWNS_METADATA);
    }
}

static void forget(void *data, uint64_t key)
{
    tt_context *context = data;
    tt_native *native = (tt_native *)(uintptr_t)key;
    context->calls++;
    atomic_fetch_add(&native->forgotten, 1);
}

const ti_backend tt_backend = {
    .name = "native",
    .open = open_context,
    .serve = serve,
    .forget = forget,
    .close = close_context,
};

bool tt_shared;

static void __attribute__((constructor)) choose_pool(void)
{
    const char *pool = getenv("TIDEMILL_POOL");
    tt_shared = pool && strcmp(pool, "shared") == 0;
}

ti_engine *tt_try_open(uint32_t workers, const ti_backend_choice *choices, uint32_t count,
                       ti_error **error)
{
    const ti_engine_config config = {
        .workers = workers, .preempt = TI_PREEMPT_NONE, .shared = tt_shared};
    return ti_engine_open(&config, choices, count, error);
}

ti_engine *tt_open(tt_house *house, uint32_t workers)
{
    ti_error *error = NULL;
    *house = (tt_house){0};
    const ti_backend_choice choice = {&tt_backend, house};
    ti_engine *engine = tt_try_open(workers, &choice, 1, &error);
    if (!engine)
        check_fail(__FILE__, __LINE__, "%s", error->message);
    REQUIRE(engine);
    return engine;
}

uint32_t tt_in_flight(ti_engine *engine)
{
    uint32_t count = 0;
    uv_mutex_lock(&engine->lock);
    for (ti_run *run = engine->runs[TI_ALL]; run; run = run->in[TI_ALL].next) {
        unsigned phase = ti_load_sc(&run->phase);
        count += phase == TI_IN_FLIGHT || phase == TI_AWAITED;
    }
    uv_mutex_unlock(&engine->lock);
    return count;
}

void tt_close(ti_engine *engine, tt_house *house)
{
    uint32_t workers = engine->workers;
    ti_engine_close(engine);
    ti_engine_release(engine);
    CHECK_INT(house->opened, workers);
    CHECK_INT(house->closed, workers);
    CHECK_INT(house->running, 0);
    CHECK(house->most <= workers);
}

ti_program *tt_install(ti_engine *engine, ti_dag *dag, tt_native *native)
{
    ti_problems problems = {0};
    ti_plan *plan = ti_plan_compile(dag, &problems);
    ti_dag_free(dag);
    REQUIRE(plan);
    ti_program *program = ti_program_new(engine, plan, (uint64_t)(uintptr_t)native);
    REQUIRE(program);
    return program;
}

void tt_await_forgotten(ti_engine *engine, tt_native *native)
{
    while (atomic_load(&native->forgotten) < engine->workers)
        for (uint32_t w = 0; w < engine->workers; w++)
            ti_engine_leave(engine, ti_engine_claim(engine, w));
    CHECK_INT(native->forgotten, engine->workers);
}

void tt_add(ti_dag *dag, const char *id, ti_intent intent)
{
    ti_dag_add(dag, id, strlen(id), intent, 0);
}

void tt_depends(ti_dag *dag, const char *id)
{
    ti_dag_depends_on(dag, id, strlen(id));
}

static ti_dag *fan_or_chain(uint32_t count, bool chain)
{
    ti_dag *dag = ti_dag_new(NULL, 0);
    char id[16];
    REQUIRE(dag);
    for (uint32_t i = 0; i < count; i++) {
        tt_add(dag, (sprintf(id, "p%u", i), id), TI_TRANSFORM);
        if (chain && i)
            tt_depends(dag, (sprintf(id, "p%u", i - 1), id));
    }
    return dag;
}

ti_dag *tt_fan(uint32_t count)
{
    return fan_or_chain(count, false);
}

ti_dag *tt_chain(uint32_t count)
{
    return fan_or_chain(count, true);
}

ti_value *tt_number(uint64_t number)
{
    ti_value *value = ti_value_integer((int64_t)number);
    REQUIRE(value);
    return value;
}

uint64_t tt_number_of(const ti_value *value)
{
    CHECK_INT(value->root.kind, TI_INTEGER);
    return (uint64_t)value->root.as.integer;
}

ti_run *tt_run_new(ti_program *program, uint64_t input)
{
    ti_run_options options = ti_run_defaults(program->plan);
    ti_run *run = ti_run_new(program, tt_number(input), NULL, &options);
    REQUIRE(run);
    return run;
}

void tt_start(ti_run *run)
{
    ti_code code = ti_engine_start(run->program->engine, run);
    CHECK_TEXT(ti_code_name(code), "ok");
    REQUIRE(code == TI_OK);
}

void tt_wait(ti_run *run)
{
    CHECK(ti_engine_wait(run->program->engine, run, UINT64_MAX));
}

void tt_start_and_wait(ti_program *program)
{
    ti_run *run = tt_run_new(program, 1);
    tt_start(run);
    tt_wait(run);
    ti_run_release(run);
}

uint64_t tt_result(const ti_run *run)
{
    return tt_number_of(ti_run_value(run, ti_run_source(run)));
}

const ti_node *tt_node(const ti_run *run, const char *id)
{
    uint32_t step = ti_plan_find(run->plan, id, strlen(id));
    REQUIRE(step != TI_NONE);
    return &run->nodes[step];
}

uint32_t tt_step(const ti_plan *plan, uint32_t processor)
{
    uint32_t step = 0;
    while (step < plan->count && plan->steps[step].slot != processor)
        step++;
    REQUIRE(step < plan->count);
    return step;
}

uint64_t tt_compute(ti_program *program, uint64_t input)
{
    ti_run *run = tt_run_new(program, input);
    REQUIRE(ti_engine_run(program->engine, run) == TI_OK);
    CHECK_INT(ti_run_status(run), TI_COMPLETED);
    uint64_t result = tt_result(run);
    ti_run_release(run);
    return result;
}

tt_answer tt_return(uint64_t number)
{
    return (tt_answer){.payload = tt_number(number)};
}

tt_answer tt_error(const char *message)
{
    return (tt_answer){
        .error = ti_error_new(TI_E_PROCESSOR_FAILED, message, strlen(message), NULL, 0, NULL)};
}

tt_answer tt_increment(const ti_task *task, void *data)
{
    (void)data;
    return tt_return(tt_number_of(task->payload) + 1);
}

tt_answer tt_pass(const ti_task *task, void *data)
{
    (void)data;
    return (tt_answer){.payload = task->payload};
}

tt_answer tt_note(const ti_task *task, void *data)
{
    (void)data;
    return (tt_answer){.metadata = tt_number(tt_number_of(task->payload))};
}

tt_answer tt_fail(const ti_task *task, void *data)
{
    (void)task, (void)data;
    return tt_error("it fails");
}
