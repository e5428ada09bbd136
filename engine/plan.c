/* SPDX-License-Identifier: MIT */
#include "engine/plan.h"

#include <stdlib.h>
#include <string.h>

#include "engine/suggest.h"

/* A DAG with thousands of misspelt names gets this many suggestions; each costs a walk over all. */
#define MOST_SUGGESTIONS 20

/* What compiling works with; all indices are declaration indices, except in `order`. */
typedef struct ti_draft {
    const ti_dag *dag;
    ti_problems *problems;
    uint32_t suggestions;
    uint32_t bucket_count;
    uint32_t *buckets; /* declaration index by id */
    uint32_t *targets; /* per declared edge: what it depends on, or TI_NONE */
    uint32_t *pending; /* per processor: dependencies without a rank yet */
    uint32_t *heads;   /* count + 1: dependents of each, as ranges of `dependents` */
    uint32_t *dependents;
    uint32_t *ranks;
    uint32_t *queue;
    uint32_t *order; /* step of each processor */
    uint32_t *marks;
} ti_draft;

static uint32_t hash(const char *bytes, size_t size)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        h = (h ^ (unsigned char)bytes[i]) * 16777619u;
    return (h ^ h >> 15) * 2654435769u;
}

/* A third stays empty, so that a search ends soon. */
static uint32_t buckets_for(uint32_t count)
{
    return count + count / 2 + 1;
}

/* The bucket where the search for an id begins: by the high bits of its hash. */
static uint32_t first_bucket(const char *id, size_t size, uint32_t buckets)
{
    return (uint32_t)((uint64_t)hash(id, size) * buckets >> 32);
}

static uint32_t next_bucket(uint32_t at, uint32_t buckets)
{
    return at + 1 == buckets ? 0 : at + 1;
}

static bool same(ti_text a, ti_text b)
{
    return a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0;
}

/* The bucket that holds `id`, or the empty one where it belongs. */
static uint32_t *locate(const ti_draft *draft, ti_text id)
{
    uint32_t at = first_bucket(id.bytes, id.size, draft->bucket_count);
    while (draft->buckets[at] != TI_NONE &&
           !same(draft->dag->processors[draft->buckets[at]].id, id))
        at = next_bucket(at, draft->bucket_count);
    return &draft->buckets[at];
}

static void index_ids(ti_draft *draft)
{
    for (uint32_t i = 0; i < draft->dag->count; i++) {
        ti_text id = draft->dag->processors[i].id;
        uint32_t *bucket = locate(draft, id);
        if (*bucket == TI_NONE)
            *bucket = i;
        else
            ti_problems_add(draft->problems, i, "is declared twice; processor %u has the same id",
                            *bucket + 1);
    }
}

/* The nearest id to an unknown one, for processor `self`; bytes NULL: none is near. */
static ti_text nearest(ti_draft *draft, uint32_t self, ti_text id)
{
    ti_text best = {NULL, 0};
    size_t limit = ti_suggest_limit(id.size);
    if (draft->suggestions++ >= MOST_SUGGESTIONS)
        return best;
    for (uint32_t i = 0; i < draft->dag->count; i++) {
        ti_text other = draft->dag->processors[i].id;
        size_t distance = ti_edit_distance(id.bytes, id.size, other.bytes, other.size, limit);
        if (i != self && distance <= limit) {
            best = other;
            if (distance == 0)
                break;
            limit = distance - 1;
        }
    }
    return best;
}

/* The bit of a limit, or 0 after saying what is wrong. */
static uint64_t limit_bit(ti_draft *draft, uint32_t self, ti_text name, uint64_t before)
{
    const ti_dag *dag = draft->dag;
    for (uint32_t i = 0; i < dag->limit_count; i++) {
        if (!same(dag->limits[i].name, name))
            continue;
        if (before & (uint64_t)1 << i)
            ti_problems_add(draft->problems, self, "uses limit '%.*s' twice", (int)name.size,
                            name.bytes);
        return (uint64_t)1 << i;
    }
    for (uint32_t i = 0; i < dag->limit_count; i++) {
        ti_text other = dag->limits[i].name;
        size_t limit = ti_suggest_limit(name.size);
        if (ti_edit_distance(name.bytes, name.size, other.bytes, other.size, limit) <= limit) {
            ti_problems_add(draft->problems, self,
                            "uses unknown limit '%.*s' (did you mean '%.*s'?)", (int)name.size,
                            name.bytes, (int)other.size, other.bytes);
            return 0;
        }
    }
    ti_problems_add(draft->problems, self, "uses unknown limit '%.*s'", (int)name.size, name.bytes);
    return 0;
}

static uint64_t limit_bits(ti_draft *draft, uint32_t self)
{
    const ti_declared *declared = &draft->dag->processors[self];
    uint64_t bits = 0;
    for (uint32_t i = 0; i < declared->uses; i++)
        bits |= limit_bit(draft, self, draft->dag->uses[declared->first_use + i], bits);
    return bits;
}

static void unknown(ti_draft *draft, uint32_t self, ti_text id)
{
    ti_text near = nearest(draft, self, id);
    if (near.bytes)
        ti_problems_add(draft->problems, self,
                        "depends on unknown processor '%.*s' (did you mean '%.*s'?)", (int)id.size,
                        id.bytes, (int)near.size, near.bytes);
    else
        ti_problems_add(draft->problems, self, "depends on unknown processor '%.*s'", (int)id.size,
                        id.bytes);
}

/* What one declared dependency of `self` points to, or TI_NONE after saying why not. */
static uint32_t resolve(ti_draft *draft, uint32_t self, ti_text id)
{
    uint32_t target = *locate(draft, id);
    const char *problem = NULL;
    if (target == TI_NONE)
        unknown(draft, self, id);
    else if (same(draft->dag->processors[self].id, id))
        problem = "depends on itself";
    else if (draft->marks[target] == self)
        problem = "depends on '%.*s' twice";
    else
        draft->marks[target] = self;
    if (!problem)
        return target;
    ti_problems_add(draft->problems, self, problem, (int)id.size, id.bytes);
    return TI_NONE;
}

static void check_payload_from(ti_draft *draft, uint32_t self)
{
    const ti_declared *declared = &draft->dag->processors[self];
    ti_text from = declared->payload_from;
    if (!from.bytes)
        return;
    for (uint32_t i = 0; i < declared->dependencies; i++)
        if (same(draft->dag->dependencies[declared->first_dependency + i], from))
            return;
    ti_problems_add(draft->problems, self,
                    "payload_from is '%.*s', which is not one of its dependencies", (int)from.size,
                    from.bytes);
}

static void resolve_all(ti_draft *draft)
{
    const ti_dag *dag = draft->dag;
    memset(draft->marks, 0xff, dag->count * sizeof *draft->marks);
    for (uint32_t i = 0; i < dag->count; i++) {
        const ti_declared *declared = &dag->processors[i];
        for (uint32_t k = 0; k < declared->dependencies; k++) {
            uint32_t edge = declared->first_dependency + k;
            draft->targets[edge] = resolve(draft, i, dag->dependencies[edge]);
            if (draft->targets[edge] != TI_NONE)
                draft->pending[i]++;
        }
        check_payload_from(draft, i);
        limit_bits(draft, i);
    }
}

/* Turns the edges around: who depends on each processor, in declaration order. */
static void invert(ti_draft *draft)
{
    const ti_dag *dag = draft->dag;
    for (uint32_t edge = 0; edge < dag->edges; edge++)
        if (draft->targets[edge] != TI_NONE)
            draft->heads[draft->targets[edge] + 1]++;
    for (uint32_t i = 0; i < dag->count; i++)
        draft->heads[i + 1] += draft->heads[i];
    memcpy(draft->queue, draft->heads, dag->count * sizeof *draft->queue);
    for (uint32_t i = 0; i < dag->count; i++)
        for (uint32_t k = 0; k < dag->processors[i].dependencies; k++) {
            uint32_t target = draft->targets[dag->processors[i].first_dependency + k];
            if (target != TI_NONE)
                draft->dependents[draft->queue[target]++] = i;
        }
}

/* Returns how many processors got a rank; the rest are on cycles or behind them. */
static uint32_t rank_all(ti_draft *draft)
{
    uint32_t head = 0, tail = 0;
    for (uint32_t i = 0; i < draft->dag->count; i++)
        if (draft->pending[i] == 0)
            draft->queue[tail++] = i;
    while (head < tail) {
        uint32_t i = draft->queue[head++];
        for (uint32_t k = draft->heads[i]; k < draft->heads[i + 1]; k++) {
            uint32_t dependent = draft->dependents[k];
            if (draft->ranks[dependent] < draft->ranks[i] + 1)
                draft->ranks[dependent] = draft->ranks[i] + 1;
            if (--draft->pending[dependent] == 0)
                draft->queue[tail++] = dependent;
        }
    }
    return tail;
}

/* A dependency of `i` that has no rank either: there is one whenever `i` has none. */
static uint32_t unranked_dependency(const ti_draft *draft, uint32_t i)
{
    const ti_declared *declared = &draft->dag->processors[i];
    for (uint32_t k = 0; k < declared->dependencies; k++) {
        uint32_t target = draft->targets[declared->first_dependency + k];
        if (target != TI_NONE && draft->pending[target] > 0)
            return target;
    }
    return TI_NONE;
}

static void append(char **text, size_t *size, ti_text piece)
{
    char *longer = *size == SIZE_MAX ? NULL : realloc(*text, *size + piece.size + 5);
    if (!longer) {
        *size = SIZE_MAX;
        return;
    }
    if (*size) {
        memcpy(longer + *size, " -> ", 4);
        *size += 4;
    }
    memcpy(longer + *size, piece.bytes, piece.size);
    *size += piece.size;
    longer[*size] = '\0';
    *text = longer;
}

/* Prints the cycle that `start` is on, beginning with the one declared first. */
static void report_cycle(ti_draft *draft, uint32_t start)
{
    uint32_t first = start;
    for (uint32_t i = unranked_dependency(draft, start); i != start;
         i = unranked_dependency(draft, i))
        if (i < first)
            first = i;
    char *text = NULL;
    size_t size = 0;
    uint32_t i = first;
    do {
        append(&text, &size, draft->dag->processors[i].id);
        i = unranked_dependency(draft, i);
    } while (i != first);
    append(&text, &size, draft->dag->processors[first].id);
    if (size == SIZE_MAX)
        draft->problems->failed = true;
    else
        ti_problems_add(draft->problems, first, "depends on itself through a cycle: %s", text);
    free(text);
}

/* Takes the end of a path, a cycle, out of the graph, and whatever only waited for that. No ranks
 * are needed any more, so their array is the stack. */
static void remove_cycle(ti_draft *draft, const uint32_t *cycle, uint32_t length)
{
    uint32_t *stack = draft->ranks, top = 0;
    for (uint32_t i = 0; i < length; i++) {
        draft->pending[cycle[i]] = 0;
        stack[top++] = cycle[i];
    }
    while (top > 0) {
        uint32_t i = stack[--top];
        for (uint32_t k = draft->heads[i]; k < draft->heads[i + 1]; k++) {
            uint32_t dependent = draft->dependents[k];
            if (draft->pending[dependent] > 0 && --draft->pending[dependent] == 0)
                stack[top++] = dependent;
        }
    }
}

/* From each processor without a rank, goes from dependency to dependency until it meets its own
 * path: that is a cycle, which is reported and removed, and the way goes on from where it began.
 * Whatever lies on cycles is removed in the end, so each knot of them is reported. */
static void find_cycles(ti_draft *draft)
{
    uint32_t *path = draft->queue, *places = draft->marks;
    memset(places, 0xff, draft->dag->count * sizeof *places);
    for (uint32_t i = 0; i < draft->dag->count; i++) {
        uint32_t length = 0;
        places[i] = length;
        path[length++] = i;
        while (length > 0) {
            uint32_t at = path[length - 1];
            uint32_t next = draft->pending[at] ? unranked_dependency(draft, at) : TI_NONE;
            if (next == TI_NONE) {
                places[at] = TI_NONE;
                length--;
            } else if (places[next] == TI_NONE) {
                places[next] = length;
                path[length++] = next;
            } else {
                report_cycle(draft, next);
                remove_cycle(draft, path + places[next], length - places[next]);
            }
        }
    }
}

static void check(ti_draft *draft)
{
    if (draft->dag->count == 0)
        ti_problems_add(draft->problems, TI_NONE, "has no processors");
    index_ids(draft);
    resolve_all(draft);
    invert(draft);
    if (rank_all(draft) < draft->dag->count)
        find_cycles(draft);
}

/* Counting sort by rank; stable, so declaration order is kept within a rank. */
static void put_in_order(ti_draft *draft)
{
    uint32_t count = draft->dag->count, *starts = draft->marks;
    memset(starts, 0, count * sizeof *starts);
    for (uint32_t i = 0; i < count; i++)
        if (draft->ranks[i] + 1 < count)
            starts[draft->ranks[i] + 1]++;
    for (uint32_t rank = 1; rank < count; rank++)
        starts[rank] += starts[rank - 1];
    for (uint32_t i = 0; i < count; i++)
        draft->order[i] = starts[draft->ranks[i]]++;
}

static bool allocate(ti_plan *plan, size_t id_bytes)
{
    size_t count = plan->count, edges = plan->edges;
    plan->steps = calloc(count + 1, sizeof *plan->steps);
    plan->dependencies = malloc((edges + 1) * sizeof *plan->dependencies);
    plan->dependents = malloc((edges + 1) * sizeof *plan->dependents);
    plan->id_ends = malloc(count * sizeof *plan->id_ends);
    plan->ids = malloc(id_bytes + count + 1);
    plan->buckets = malloc(plan->bucket_count * sizeof *plan->buckets);
    return plan->steps && plan->dependencies && plan->dependents && plan->id_ends && plan->ids &&
           plan->buckets;
}

static void fill_steps(ti_plan *plan, const ti_draft *draft)
{
    const ti_dag *dag = draft->dag;
    for (uint32_t i = 0; i < dag->count; i++) {
        const ti_declared *declared = &dag->processors[i];
        ti_step *step = &plan->steps[draft->order[i]];
        step->slot = i;
        step->rank = draft->ranks[i];
        step->intent = (uint8_t)declared->intent;
        step->backend = declared->backend;
        plan->entries += step->rank == 0;
    }
}

static void fill_edges(ti_plan *plan, const ti_draft *draft)
{
    uint32_t in = 0, out = 0;
    for (uint32_t s = 0; s < plan->count; s++) {
        ti_step *step = &plan->steps[s];
        const ti_declared *declared = &draft->dag->processors[step->slot];
        step->first_dependency = in;
        step->first_dependent = out;
        for (uint32_t k = 0; k < declared->dependencies; k++)
            plan->dependencies[in++] = draft->order[draft->targets[declared->first_dependency + k]];
        for (uint32_t k = draft->heads[step->slot]; k < draft->heads[step->slot + 1]; k++)
            plan->dependents[out++] = draft->order[draft->dependents[k]];
    }
    plan->steps[plan->count].first_dependency = in;
    plan->steps[plan->count].first_dependent = out;
}

static void fill_ids(ti_plan *plan, const ti_draft *draft)
{
    uint32_t end = 0;
    for (uint32_t s = 0; s < plan->count; s++) {
        ti_text id = draft->dag->processors[plan->steps[s].slot].id;
        memcpy(plan->ids + end, id.bytes, id.size);
        end += (uint32_t)id.size;
        plan->id_ends[s] = end;
        plan->ids[end++] = '\0';
    }
    for (uint32_t at = 0; at < plan->bucket_count; at++) {
        uint32_t i = draft->buckets[at];
        plan->buckets[at] = i == TI_NONE ? TI_NONE : draft->order[i];
    }
}

static void fill_payload_from(ti_plan *plan, const ti_draft *draft)
{
    for (uint32_t s = 0; s < plan->count; s++) {
        ti_text from = draft->dag->processors[plan->steps[s].slot].payload_from;
        plan->steps[s].payload_from = from.bytes ? draft->order[*locate(draft, from)] : TI_NONE;
    }
}

/* The arrays that most plans do without. */
static bool fill_extras(ti_plan *plan, ti_draft *draft)
{
    const ti_dag *dag = draft->dag;
    bool timeouts = false, retries = false;
    for (uint32_t i = 0; i < dag->count; i++) {
        timeouts = timeouts || dag->processors[i].timeout;
        retries = retries || dag->processors[i].retry.max;
    }
    plan->timeouts = timeouts ? calloc(dag->count, sizeof *plan->timeouts) : NULL;
    plan->retries = retries ? calloc(dag->count, sizeof *plan->retries) : NULL;
    plan->uses = dag->limit_count ? calloc(dag->count, sizeof *plan->uses) : NULL;
    if ((timeouts && !plan->timeouts) || (retries && !plan->retries) ||
        (dag->limit_count && !plan->uses))
        return false;
    for (uint32_t s = 0; s < plan->count; s++) {
        ti_step *step = &plan->steps[s];
        const ti_declared *declared = &dag->processors[step->slot];
        if (declared->timeout) {
            step->flags |= TI_STEP_TIMEOUT;
            plan->timeouts[s] = declared->timeout;
        }
        if (declared->retry.max) {
            step->flags |= TI_STEP_RETRY;
            plan->retries[s] = declared->retry;
        }
        if (declared->conditional)
            step->flags |= TI_STEP_CONDITION;
        if (declared->uses) {
            step->flags |= TI_STEP_USES;
            plan->uses[s] = limit_bits(draft, step->slot);
        }
    }
    plan->limit_count = dag->limit_count;
    for (uint32_t i = 0; i < dag->limit_count; i++)
        plan->limits[i] = dag->limits[i].count;
    return true;
}

static ti_plan *freeze(ti_draft *draft)
{
    const ti_dag *dag = draft->dag;
    size_t id_bytes = 0;
    for (uint32_t i = 0; i < dag->count; i++)
        id_bytes += dag->processors[i].id.size;
    ti_plan *plan = id_bytes + dag->count < UINT32_MAX ? calloc(1, sizeof *plan) : NULL;
    if (!plan)
        return NULL;
    atomic_init(&plan->references, 1);
    plan->count = dag->count;
    plan->edges = dag->edges;
    plan->failure_strategy = dag->failure_strategy;
    plan->max_concurrency = dag->max_concurrency;
    plan->profile = dag->profile;
    plan->strategy = dag->strategy;
    plan->timeout = dag->timeout;
    plan->bucket_count = draft->bucket_count;
    if (!allocate(plan, id_bytes) || (dag->name && !(plan->name = strdup(dag->name)))) {
        ti_plan_release(plan);
        return NULL;
    }
    put_in_order(draft);
    fill_steps(plan, draft);
    fill_edges(plan, draft);
    fill_ids(plan, draft);
    fill_payload_from(plan, draft);
    if (!fill_extras(plan, draft)) {
        ti_plan_release(plan);
        return NULL;
    }
    return plan;
}

/* One block of zeros holds all the draft's arrays. */
static uint32_t *take(uint32_t **block, size_t count)
{
    uint32_t *array = *block;
    *block += count;
    return array;
}

ti_plan *ti_plan_compile(const ti_dag *dag, ti_problems *problems)
{
    size_t count = dag->count, edges = dag->edges;
    ti_draft draft = {.dag = dag, .problems = problems, .bucket_count = buckets_for(dag->count)};
    size_t words = draft.bucket_count + 2 * edges + 6 * count + 1;
    uint32_t *memory = dag->failed ? NULL : calloc(words, sizeof *memory), *block = memory;
    if (!memory)
        return NULL;
    draft.buckets = take(&block, draft.bucket_count);
    draft.targets = take(&block, edges);
    draft.dependents = take(&block, edges);
    draft.pending = take(&block, count);
    draft.heads = take(&block, count + 1);
    draft.ranks = take(&block, count);
    draft.queue = take(&block, count);
    draft.order = take(&block, count);
    draft.marks = take(&block, count);
    memset(draft.buckets, 0xff, draft.bucket_count * sizeof *draft.buckets);
    check(&draft);
    ti_plan *plan = problems->count == 0 && !problems->failed ? freeze(&draft) : NULL;
    free(memory);
    return plan;
}

ti_plan *ti_plan_retain(ti_plan *plan)
{
    ti_add_relaxed(&plan->references, 1);
    return plan;
}

void ti_plan_release(ti_plan *plan)
{
    if (!plan || !ti_drop_reference(&plan->references))
        return;
    free(plan->steps);
    free(plan->dependencies);
    free(plan->dependents);
    free(plan->timeouts);
    free(plan->retries);
    free(plan->uses);
    free(plan->id_ends);
    free(plan->ids);
    free(plan->buckets);
    free(plan->name);
    free(plan);
}

ti_text ti_plan_id(const ti_plan *plan, uint32_t step)
{
    uint32_t begin = step ? plan->id_ends[step - 1] + 1 : 0;
    return (ti_text){plan->ids + begin, plan->id_ends[step] - begin};
}

uint32_t ti_plan_find(const ti_plan *plan, const char *id, size_t size)
{
    uint32_t at = first_bucket(id, size, plan->bucket_count);
    for (; plan->buckets[at] != TI_NONE; at = next_bucket(at, plan->bucket_count))
        if (same(ti_plan_id(plan, plan->buckets[at]), (ti_text){id, size}))
            return plan->buckets[at];
    return TI_NONE;
}
