/* SPDX-License-Identifier: MIT */
#include "engine/dag.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)16 << 10)

/* Copies of ids, many to a block; they live as long as the DAG. */
typedef struct ti_text_block {
    struct ti_text_block *next;
    size_t used, capacity;
    char bytes[];
} ti_text_block;

ti_dag *ti_dag_new(const char *name, size_t name_size)
{
    ti_dag *dag = calloc(1, sizeof *dag);
    if (!dag)
        return NULL;
    if (name) {
        dag->name = malloc(name_size + 1);
        if (!dag->name) {
            free(dag);
            return NULL;
        }
        memcpy(dag->name, name, name_size);
        dag->name[name_size] = '\0';
    }
    return dag;
}

void ti_dag_free(ti_dag *dag)
{
    if (!dag)
        return;
    for (ti_text_block *block = dag->texts, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(dag->processors);
    free(dag->dependencies);
    free(dag->uses);
    free(dag->name);
    free(dag);
}

static ti_text keep(ti_dag *dag, const char *bytes, size_t size)
{
    ti_text_block *block = dag->texts;
    if (!block || block->capacity - block->used < size) {
        size_t capacity = size > BLOCK_BYTES ? size : BLOCK_BYTES;
        block = malloc(sizeof *block + capacity);
        if (!block) {
            dag->failed = true;
            return (ti_text){"", 0};
        }
        *block = (ti_text_block){.next = dag->texts, .capacity = capacity};
        dag->texts = block;
    }
    char *copy = block->bytes + block->used;
    memcpy(copy, bytes, size);
    block->used += size;
    return (ti_text){copy, size};
}

/* Room for one more item of `size` bytes; false marks the DAG as failed. */
static bool reserve(ti_dag *dag, void **items, uint32_t count, uint32_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    uint32_t more = *capacity ? *capacity * 2 : 16;
    void *grown = more > *capacity ? realloc(*items, more * size) : NULL;
    if (!grown) {
        dag->failed = true;
        return false;
    }
    *items = grown;
    *capacity = more;
    return true;
}

uint32_t ti_dag_add(ti_dag *dag, const char *id, size_t size, ti_intent intent, uint8_t backend)
{
    void *items = dag->processors;
    if (!reserve(dag, &items, dag->count, &dag->capacity, sizeof *dag->processors))
        return TI_NONE;
    dag->processors = items;
    dag->processors[dag->count] = (ti_declared){
        .id = keep(dag, id, size),
        .intent = intent,
        .backend = backend,
        .first_dependency = dag->edges,
        .first_use = dag->use_count,
    };
    return dag->count++;
}

void ti_dag_depends_on(ti_dag *dag, const char *id, size_t size)
{
    void *items = dag->dependencies;
    if (dag->failed ||
        !reserve(dag, &items, dag->edges, &dag->edge_capacity, sizeof *dag->dependencies))
        return;
    dag->dependencies = items;
    dag->dependencies[dag->edges++] = keep(dag, id, size);
    dag->processors[dag->count - 1].dependencies++;
}

void ti_dag_payload_from(ti_dag *dag, const char *id, size_t size)
{
    if (!dag->failed)
        dag->processors[dag->count - 1].payload_from = keep(dag, id, size);
}

void ti_dag_uses(ti_dag *dag, const char *limit, size_t size)
{
    void *items = dag->uses;
    if (dag->failed || !reserve(dag, &items, dag->use_count, &dag->use_capacity, sizeof *dag->uses))
        return;
    dag->uses = items;
    dag->uses[dag->use_count++] = keep(dag, limit, size);
    dag->processors[dag->count - 1].uses++;
}

bool ti_dag_limit(ti_dag *dag, const char *name, size_t size, uint32_t count)
{
    if (dag->limit_count == TI_MOST_LIMITS)
        return false;
    dag->limits[dag->limit_count++] = (ti_limit){keep(dag, name, size), count};
    return true;
}

void ti_problems_add(ti_problems *problems, uint32_t processor, const char *format, ...)
{
    if (problems->count == problems->capacity) {
        size_t capacity = problems->capacity ? problems->capacity * 2 : 8;
        ti_problem *list = realloc(problems->list, capacity * sizeof *list);
        if (!list) {
            problems->failed = true;
            return;
        }
        problems->list = list;
        problems->capacity = capacity;
    }
    va_list arguments;
    va_start(arguments, format);
    char *text = NULL;
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (size >= 0 && (text = malloc((size_t)size + 1))) {
        va_start(arguments, format);
        vsnprintf(text, (size_t)size + 1, format, arguments);
        va_end(arguments);
        problems->list[problems->count++] = (ti_problem){processor, text};
    } else {
        problems->failed = true;
    }
}

void ti_problems_clear(ti_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        free(problems->list[i].text);
    free(problems->list);
    *problems = (ti_problems){0};
}
