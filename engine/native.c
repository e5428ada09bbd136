/* SPDX-License-Identifier: MIT */
#include "engine/native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/api.h"
#include "engine/frame.h"
#include "engine/suggest.h"
#include "engine/worker.h"

struct ti_native {
    atomic_uint references;   /* [atomic] */
    tide_processor processor; /* [const] */
};

/* A processor that has a name. */
typedef struct ti_named {
    struct ti_named *next;
    ti_native *native;
    char name[];
} ti_named;

struct ti_natives {
    ti_engine *engine; /* [const] once it is attached */
    uv_mutex_t lock;
    ti_named *named;   /* [lock:natives] */
    uint32_t contexts; /* [lock:natives] that are open */
};

/* One use of a processor, in one worker. */
typedef struct ti_use {
    ti_native *native; /* NULL: the processor of this slot is not native, or not open */
    void *state;
} ti_use;

/* The uses of one program, by declaration index. */
typedef struct ti_installed {
    uint64_t key;
    uint32_t count;
    ti_value **options; /* NULL: no use has any */
    ti_use uses[];
} ti_installed;

/* [seat] */
typedef struct ti_native_context {
    ti_natives *natives; /* [const] */
    ti_installed **list; /* by key, ascending */
    uint32_t count, capacity;
    ti_installed *last; /* the one used last, or NULL */
    uint64_t *marks;    /* work space of ti_native_is_ancestor: bits for the largest program */
    uint32_t mark_room; /* in words */
} ti_native_context;

ti_native *ti_native_new(const tide_processor *processor)
{
    ti_native *native = malloc(sizeof *native);
    if (!native)
        return NULL;
    native->processor = *processor;
    atomic_init(&native->references, 1);
    return native;
}

ti_native *ti_native_same(ti_native *native, const tide_processor *processor)
{
    bool same =
        native && !processor->drop && memcmp(&native->processor, processor, sizeof *processor) == 0;
    return same ? ti_native_retain(native) : NULL;
}

ti_native *ti_native_retain(ti_native *native)
{
    ti_add_relaxed(&native->references, 1);
    return native;
}

void ti_native_release(ti_native *native)
{
    if (!native || !ti_drop_reference(&native->references))
        return;
    if (native->processor.drop)
        native->processor.drop(native->processor.data);
    free(native);
}

void ti_native_disown(ti_native *native)
{
    free(native);
}

ti_natives *ti_natives_new(void)
{
    ti_natives *natives = calloc(1, sizeof *natives);
    if (natives && uv_mutex_init(&natives->lock)) {
        free(natives);
        return NULL;
    }
    return natives;
}

static void forget_names(ti_natives *natives)
{
    uv_mutex_lock(&natives->lock);
    ti_named *named = natives->named;
    natives->named = NULL;
    uv_mutex_unlock(&natives->lock);
    while (named) {
        ti_named *next = named->next;
        ti_native_release(named->native);
        free(named);
        named = next;
    }
}

void ti_natives_free(ti_natives *natives)
{
    if (!natives)
        return;
    forget_names(natives);
    uv_mutex_destroy(&natives->lock);
    free(natives);
}

void ti_natives_attach(ti_natives *natives, ti_engine *engine)
{
    natives->engine = engine;
}

uint8_t ti_natives_backend(const ti_engine *engine)
{
    uint8_t b = 0;
    while (b < engine->backends && engine->backend[b].vtable != &ti_native_backend)
        b++;
    return b;
}

ti_natives *ti_natives_of(ti_engine *engine)
{
    uint8_t b = ti_natives_backend(engine);
    return b < engine->backends ? engine->backend[b].shared : NULL;
}

/* With the lock. */
static ti_named *find_named(const ti_natives *natives, const char *name, size_t size)
{
    for (ti_named *named = natives->named; named; named = named->next)
        if (strlen(named->name) == size && memcmp(named->name, name, size) == 0)
            return named;
    return NULL;
}

ti_code ti_natives_register(ti_natives *natives, const char *name, ti_native *native)
{
    size_t size = strlen(name);
    ti_named *named = malloc(sizeof *named + size + 1);
    if (!named)
        return TI_E_MEMORY_LIMIT;
    memcpy(named->name, name, size + 1);
    named->native = native;
    uv_mutex_lock(&natives->lock);
    bool taken = find_named(natives, name, size), closed = natives->contexts == 0;
    if (!taken && !closed) {
        named->next = natives->named;
        natives->named = named;
    }
    uv_mutex_unlock(&natives->lock);
    if (!taken && !closed)
        return TI_OK;
    free(named);
    return closed ? TI_E_CLOSED : TI_E_INTERNAL;
}

ti_native *ti_natives_find(ti_natives *natives, const char *name, size_t size)
{
    uv_mutex_lock(&natives->lock);
    const ti_named *named = find_named(natives, name, size);
    ti_native *native = named ? ti_native_retain(named->native) : NULL;
    uv_mutex_unlock(&natives->lock);
    return native;
}

void ti_natives_unknown(ti_natives *natives, const char *name, size_t name_size, char *text,
                        size_t size)
{
    size_t limit = ti_suggest_limit(name_size);
    const ti_named *best = NULL;
    uv_mutex_lock(&natives->lock);
    for (const ti_named *named = natives->named; named; named = named->next) {
        size_t distance =
            ti_edit_distance(name, name_size, named->name, strlen(named->name), limit);
        if (distance <= limit) {
            best = named;
            if (distance == 0)
                break;
            limit = distance - 1;
        }
    }
    if (best)
        snprintf(text, size, "there is no native processor '%s' (did you mean '%s'?)", name,
                 best->name);
    else
        snprintf(text, size, "there is no native processor '%s': the host must register it first",
                 name);
    uv_mutex_unlock(&natives->lock);
}

static void *open_context(void *shared, uint32_t worker, ti_error **error)
{
    ti_natives *natives = shared;
    ti_native_context *context = calloc(1, sizeof *context);
    (void)worker;
    if (!context) {
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return NULL;
    }
    context->natives = natives;
    uv_mutex_lock(&natives->lock);
    natives->contexts++;
    uv_mutex_unlock(&natives->lock);
    return context;
}

static void close_use(ti_use *use)
{
    if (!use->native)
        return;
    if (use->native->processor.open && use->native->processor.close)
        use->native->processor.close(use->state);
    ti_native_release(use->native);
}

/* NULL is fine. */
static void close_installed(const ti_natives *natives, ti_installed *installed)
{
    ti_frame frame;
    if (!installed)
        return;
    ti_frame_enter(&frame, natives->engine);
    for (uint32_t i = installed->count; i-- > 0;)
        close_use(&installed->uses[i]);
    ti_frame_leave(&frame);
    for (uint32_t i = 0; installed->options && i < installed->count; i++)
        ti_value_release(installed->options[i]);
    free(installed->options);
    free(installed);
}

static void close_context(void *data)
{
    ti_native_context *context = data;
    ti_natives *natives = context->natives;
    for (uint32_t i = context->count; i-- > 0;)
        close_installed(natives, context->list[i]);
    uv_mutex_lock(&natives->lock);
    bool last = --natives->contexts == 0;
    uv_mutex_unlock(&natives->lock);
    if (last) {
        ti_frame frame;
        ti_frame_enter(&frame, natives->engine);
        forget_names(natives);
        ti_frame_leave(&frame);
    }
    free(context->list);
    free(context->marks);
    free(context);
}

/* Where the program is in the list, or would be. */
static uint32_t place_of(const ti_native_context *context, uint64_t key)
{
    uint32_t low = 0, high = context->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (context->list[middle]->key < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The task's use and, in *options, its options. NULL: it is not in this worker. */
static const ti_use *find_use(ti_native_context *context, const ti_task *task,
                              const ti_value **options)
{
    uint64_t key = task->run->program->key;
    uint32_t slot = task->step->slot;
    if (!context->last || context->last->key != key) {
        uint32_t at = place_of(context, key);
        bool there = at < context->count && context->list[at]->key == key;
        context->last = there ? context->list[at] : NULL;
    }
    if (!context->last || slot >= context->last->count || !context->last->uses[slot].native)
        return NULL;
    *options = context->last->options ? context->last->options[slot] : NULL;
    return &context->last->uses[slot];
}

static void fail(ti_worker *worker, ti_error *error)
{
    ti_worker_fail(worker, error, true);
}

/* What is wrong with an answer, or NULL. */
static const char *check(const ti_task *task, const ti_value *payload, const ti_value *metadata)
{
    bool transform = task->step->intent == TI_TRANSFORM;
    if (!transform && payload)
        return "an analyze cannot change the payload, but it answered with one";
    if (transform && (!payload || payload->root.kind == TI_NIL))
        return payload ? "a transform must answer with the next payload, but it is nil"
                       : "a transform must answer with the next payload, but there is none";
    if (!metadata || metadata->root.kind == TI_MAP ||
        (metadata->root.kind == TI_ARRAY && metadata->root.size == 0))
        return NULL;
    return "metadata must be a map";
}

/* Gives the engine what the processor answered; takes all of it. */
static void settle(ti_worker *worker, const ti_task *task, tide_answer *answer)
{
    ti_value *payload = ti_value_in(answer->payload), *metadata = ti_value_in(answer->metadata);
    const char *wrong = answer->error || answer->skip ? NULL : check(task, payload, metadata);
    if (answer->error || answer->skip || wrong) {
        ti_value_release(payload);
        ti_value_release(metadata);
    }
    if (answer->error)
        fail(worker, ti_api_error_take(answer->error));
    else if (answer->skip)
        ti_worker_skip(worker);
    else if (wrong)
        fail(worker, ti_error_format(TI_E_INVALID_RESPONSE, "%s", wrong));
    else {
        bool same = payload == task->payload;
        if (same)
            ti_value_release(payload); /* the engine takes that one without a reference */
        ti_worker_complete(worker, payload, metadata,
                           same ? TI_OWNS_METADATA : TI_OWNS_PAYLOAD | TI_OWNS_METADATA);
    }
}

static void serve(void *data, ti_worker *worker)
{
    ti_native_context *context = data;
    const ti_task *task;
    while ((task = ti_worker_next(worker))) {
        const ti_value *options = NULL;
        const ti_use *use = find_use(context, task, &options);
        tide_answer answer = {0};
        if (!use) {
            fail(worker, ti_error_format(TI_E_INTERNAL, "it is not in this worker"));
            continue;
        }
        const tide_task call = {task, worker, options, context};
        use->native->processor.call(use->state, &call, &answer);
        settle(worker, task, &answer);
    }
}

static void forget(void *data, uint64_t key)
{
    ti_native_context *context = data;
    uint32_t at = place_of(context, key);
    if (at == context->count || context->list[at]->key != key)
        return;
    ti_installed *installed = context->list[at];
    context->count--;
    memmove(&context->list[at], &context->list[at + 1],
            (context->count - at) * sizeof *context->list);
    if (context->last == installed)
        context->last = NULL;
    close_installed(context->natives, installed);
}

static void discard(void *shared)
{
    ti_natives_free(shared);
}

const ti_backend ti_native_backend = {
    .name = "native",
    .open = open_context,
    .serve = serve,
    .forget = forget,
    .close = close_context,
    .discard = discard,
};

/* False with *error: the processor refuses. */
static bool open_use(const ti_natives *natives, ti_use *use, const ti_native_use *from,
                     ti_error **error)
{
    const tide_processor *processor = &from->native->processor;
    tide_error *why = NULL;
    void *state = processor->data;
    ti_frame frame;
    ti_frame_enter(&frame, natives->engine);
    bool opened = !processor->open ||
                  processor->open(processor->data, ti_value_out(from->options), &state, &why);
    ti_frame_leave(&frame);
    if (!opened) {
        *error = ti_api_error_prefix(why, "processor '%s': open: %s", from->id,
                                     why ? tide_error_message(why) : "it failed");
        return false;
    }
    tide_error_free(why);
    *use = (ti_use){.native = ti_native_retain(from->native), .state = state};
    return true;
}

/* False: no memory. */
static bool keep_options(ti_installed *installed, const ti_native_use *uses, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!uses[i].options)
            continue;
        if (!installed->options &&
            !(installed->options = calloc(installed->count, sizeof *installed->options)))
            return false;
        installed->options[uses[i].slot] = ti_value_retain(uses[i].options);
    }
    return true;
}

/* The states of one worker, by slot. */
static ti_installed *open_uses(const ti_natives *natives, uint64_t key, const ti_native_use *uses,
                               uint32_t count, ti_error **error)
{
    uint32_t slots = 0;
    for (uint32_t i = 0; i < count; i++)
        slots = uses[i].slot < slots ? slots : uses[i].slot + 1;
    ti_installed *installed = calloc(1, sizeof *installed + slots * sizeof *installed->uses);
    if (!installed) {
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return NULL;
    }
    installed->key = key;
    installed->count = slots;
    if (!keep_options(installed, uses, count)) {
        close_installed(natives, installed);
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++)
        if (!open_use(natives, &installed->uses[uses[i].slot], &uses[i], error)) {
            close_installed(natives, installed);
            return NULL;
        }
    return installed;
}

/* With the seat. */
static bool make_marks(ti_native_context *context, uint32_t steps)
{
    uint32_t words = steps / 64 + 1;
    if (context->mark_room >= words)
        return true;
    uint64_t *marks = realloc(context->marks, words * sizeof *marks);
    if (!marks)
        return false;
    context->marks = marks;
    context->mark_room = words;
    return true;
}

static bool insert(ti_native_context *context, ti_installed *installed)
{
    if (context->count == context->capacity) {
        uint32_t capacity = context->capacity ? 2 * context->capacity : 4;
        ti_installed **list = realloc(context->list, capacity * sizeof(ti_installed *));
        if (!list)
            return false;
        context->list = list;
        context->capacity = capacity;
    }
    uint32_t at = place_of(context, installed->key);
    memmove(&context->list[at + 1], &context->list[at],
            (context->count - at) * sizeof *context->list);
    context->list[at] = installed;
    context->count++;
    return true;
}

static bool install_in(ti_engine *engine, uint32_t index, uint32_t steps, ti_installed *installed,
                       ti_error **error)
{
    ti_worker *worker = ti_engine_claim(engine, index);
    if (!worker) {
        *error = ti_error_format(TI_E_CLOSED, "the engine is closed");
        return false;
    }
    ti_native_context *context = ti_worker_context(worker, ti_natives_backend(engine));
    bool done = make_marks(context, steps) && insert(context, installed);
    ti_engine_leave(engine, worker);
    if (!done)
        *error = ti_error_new(TI_E_MEMORY_LIMIT, NULL, 0, NULL, 0, NULL);
    return done;
}

bool ti_native_install(ti_engine *engine, uint64_t key, uint32_t steps, const ti_native_use *uses,
                       uint32_t count, ti_error **error)
{
    ti_natives *natives = ti_natives_of(engine);
    for (uint32_t w = 0; count && w < engine->workers; w++) {
        ti_installed *installed = open_uses(natives, key, uses, count, error);
        if (installed && install_in(engine, w, steps, installed, error))
            continue;
        close_installed(natives, installed);
        ti_engine_forget(engine, key);
        return false;
    }
    return true;
}

static void mark(uint64_t *marks, uint32_t step)
{
    marks[step / 64] |= (uint64_t)1 << step % 64;
}

static bool is_marked(const uint64_t *marks, uint32_t step)
{
    return marks[step / 64] >> step % 64 & 1;
}

/* Marks the dependencies of one step after the other, from the task's down: a step stands behind
 * all its ancestors, so one pass is enough. */
bool ti_native_is_ancestor(const tide_task *call, uint32_t step)
{
    uint64_t *marks = call->context->marks;
    const ti_task *task = call->task;
    const ti_plan *plan = task->run->plan;
    if (step >= task->index)
        return false;
    memset(marks, 0, (task->index / 64 + 1) * sizeof *marks);
    mark(marks, task->index);
    for (uint32_t s = task->index; s > step; s--) {
        if (!is_marked(marks, s))
            continue;
        for (uint32_t k = plan->steps[s].first_dependency; k < plan->steps[s + 1].first_dependency;
             k++)
            mark(marks, plan->dependencies[k]);
    }
    return is_marked(marks, step);
}
