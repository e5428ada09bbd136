/* SPDX-License-Identifier: MIT */
/* Writing arrays and maps. What is written is noted first, since a table is built of the number of
 * its items; `finish` builds the value from the notes. */
#include <stdlib.h>
#include <string.h>

#include "engine/api.h"

typedef struct note {
    ti_kind kind;
    size_t size; /* of a string; how many notes are directly within an array or map */
    union {
        bool boolean;
        int64_t integer;
        double number;
        size_t at; /* of a string in `bytes` */
    } as;
} note;

struct tide_writer {
    note *notes;
    size_t count, capacity;
    char *bytes;
    size_t used, room;
    size_t open[TI_MAX_DEPTH]; /* notes of what has begun and not ended */
    uint32_t depth;
    const char *problem; /* the first one, or NULL; what is written after it is dropped */
    bool no_memory;
};

tide_writer *tide_writer_new(void)
{
    return calloc(1, sizeof(tide_writer));
}

void tide_writer_free(tide_writer *writer)
{
    if (!writer)
        return;
    free(writer->notes);
    free(writer->bytes);
    free(writer);
}

static bool refuse(tide_writer *writer, const char *problem)
{
    writer->problem = problem;
    return false;
}

static note *innermost(tide_writer *writer)
{
    return writer->depth ? &writer->notes[writer->open[writer->depth - 1]] : NULL;
}

static bool may_follow(tide_writer *writer, const note *next)
{
    const note *table = innermost(writer);
    if (!table)
        return !writer->count || refuse(writer, "more than one value was written");
    if (next->kind == TI_NIL)
        return refuse(writer, "nil cannot be in an array or map; write null");
    if (table->kind == TI_ARRAY || table->size % 2)
        return true;
    if (next->kind == TI_FLOAT && next->as.number != next->as.number)
        return refuse(writer, "a NaN cannot be a key");
    bool key = next->kind == TI_BOOLEAN || next->kind == TI_INTEGER || next->kind == TI_FLOAT ||
               next->kind == TI_STRING;
    return key || refuse(writer, "a key is a string, a number or a boolean");
}

/* A float that is whole is the same key as that integer, as it is in Lua. */
static void make_key(note *key)
{
    double number = key->as.number;
    if (key->kind != TI_FLOAT || !ti_api_is_whole(number))
        return;
    key->kind = TI_INTEGER;
    key->as.integer = (int64_t)number;
}

static bool add(tide_writer *writer, note next)
{
    if (!writer || writer->problem || writer->no_memory || !may_follow(writer, &next))
        return false;
    if (writer->count == writer->capacity) {
        size_t capacity = writer->capacity ? 2 * writer->capacity : 16;
        note *notes = realloc(writer->notes, capacity * sizeof *notes);
        if (!notes)
            return !(writer->no_memory = true);
        writer->notes = notes;
        writer->capacity = capacity;
    }
    note *table = innermost(writer);
    if (table && table->kind == TI_MAP && table->size % 2 == 0)
        make_key(&next);
    if (table)
        table->size++;
    writer->notes[writer->count++] = next;
    return true;
}

static void begin(tide_writer *writer, ti_kind kind)
{
    if (!add(writer, (note){.kind = kind}))
        return;
    if (writer->depth == TI_MAX_DEPTH)
        refuse(writer, "arrays and maps are nested too deep (100 at most)");
    else
        writer->open[writer->depth++] = writer->count - 1;
}

void tide_write_array(tide_writer *writer)
{
    begin(writer, TI_ARRAY);
}

void tide_write_map(tide_writer *writer)
{
    begin(writer, TI_MAP);
}

void tide_write_end(tide_writer *writer)
{
    if (!writer || writer->problem || writer->no_memory)
        return;
    note *table = innermost(writer);
    if (!table)
        refuse(writer, "an end without a begin");
    else if (table->kind == TI_MAP && table->size % 2)
        refuse(writer, "a map ended between a key and its value");
    else
        writer->depth--;
}

void tide_write_null(tide_writer *writer)
{
    add(writer, (note){.kind = TI_NULL});
}

void tide_write_boolean(tide_writer *writer, bool boolean)
{
    add(writer, (note){.kind = TI_BOOLEAN, .as.boolean = boolean});
}

void tide_write_integer(tide_writer *writer, int64_t integer)
{
    add(writer, (note){.kind = TI_INTEGER, .as.integer = integer});
}

void tide_write_float(tide_writer *writer, double number)
{
    add(writer, (note){.kind = TI_FLOAT, .as.number = number});
}

/* Room for `size` bytes more; false: no memory. */
static bool make_room(tide_writer *writer, size_t size)
{
    if (size <= writer->room - writer->used)
        return true;
    size_t room = writer->room ? writer->room : 64;
    while (room - writer->used < size && room <= SIZE_MAX / 2)
        room *= 2;
    char *bytes = room - writer->used < size ? NULL : realloc(writer->bytes, room);
    if (!bytes)
        return !(writer->no_memory = true);
    writer->bytes = bytes;
    writer->room = room;
    return true;
}

void tide_write_string(tide_writer *writer, const void *bytes, size_t size)
{
    size = bytes ? size : 0;
    if (!writer || !make_room(writer, size) ||
        !add(writer, (note){.kind = TI_STRING, .size = size, .as.at = writer->used}))
        return;
    if (size)
        memcpy(writer->bytes + writer->used, bytes, size);
    writer->used += size;
}

void tide_write_text(tide_writer *writer, const char *text)
{
    tide_write_string(writer, text, text ? strlen(text) : 0);
}

void tide_write_view(tide_writer *writer, const tide_view *view)
{
    const ti_cell *cell = ti_view_in(view);
    switch (tide_view_kind(view)) {
    case TIDE_NIL:
    case TIDE_NULL:
        add(writer, (note){.kind = cell ? (ti_kind)cell->kind : TI_NIL});
        break;
    case TIDE_BOOLEAN:
        tide_write_boolean(writer, cell->as.boolean);
        break;
    case TIDE_INTEGER:
        tide_write_integer(writer, cell->as.integer);
        break;
    case TIDE_FLOAT:
        tide_write_float(writer, cell->as.number);
        break;
    case TIDE_STRING:
        tide_write_string(writer, ti_cell_string(cell), cell->size);
        break;
    case TIDE_ARRAY:
    case TIDE_MAP:
        begin(writer, (ti_kind)cell->kind);
        for (size_t i = 0; i < cell->size; i++) {
            if (cell->kind == TI_MAP)
                tide_write_view(writer, tide_view_key(view, i));
            tide_write_view(writer, tide_view_item(view, i));
        }
        tide_write_end(writer);
        break;
    }
}

static int order(const ti_cell *a, const ti_cell *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    switch ((ti_kind)a->kind) {
    case TI_BOOLEAN:
        return (int)a->as.boolean - (int)b->as.boolean;
    case TI_INTEGER:
        return (a->as.integer > b->as.integer) - (a->as.integer < b->as.integer);
    case TI_FLOAT:
        return (a->as.number > b->as.number) - (a->as.number < b->as.number);
    default:
        break;
    }
    int order = memcmp(ti_cell_string(a), ti_cell_string(b), a->size < b->size ? a->size : b->size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

static int compare_keys(const void *a, const void *b)
{
    return order(*(const ti_cell *const *)a, *(const ti_cell *const *)b);
}

static bool keys_are_unique(tide_writer *writer, const ti_cell *pairs, size_t count)
{
    bool unique = true;
    const ti_cell **keys = malloc((count + 1) * sizeof *keys);
    if (!keys)
        return !(writer->no_memory = true);
    for (size_t i = 0; i < count; i++)
        keys[i] = &pairs[2 * i];
    qsort(keys, count, sizeof *keys, compare_keys);
    for (size_t i = 1; i < count && unique; i++)
        unique = order(keys[i - 1], keys[i]) != 0;
    free(keys);
    return unique || refuse(writer, "a map has the same key twice");
}

/* Builds the note at *next, and what is within it, in the cell at `at`. */
static bool build(tide_writer *writer, ti_builder *builder, size_t *next, size_t at)
{
    note it = writer->notes[(*next)++];
    ti_cell cell = {.kind = it.kind & 15};
    size_t items = 0;
    if (it.kind == TI_STRING)
        return ti_builder_string(builder, at, writer->bytes ? writer->bytes + it.as.at : "",
                                 it.size);
    if (it.kind == TI_ARRAY || it.kind == TI_MAP) {
        size_t count = it.kind == TI_MAP ? it.size / 2 : it.size;
        if (!ti_builder_table(builder, at, it.kind, count, &items))
            return false;
        for (size_t i = 0; i < it.size; i++)
            if (!build(writer, builder, next, items + i * sizeof(ti_cell)))
                return false;
        return it.kind == TI_ARRAY ||
               keys_are_unique(writer, ti_builder_cell(builder, items), count);
    }
    if (it.kind == TI_BOOLEAN)
        cell.as.boolean = it.as.boolean;
    else if (it.kind == TI_INTEGER)
        cell.as.integer = it.as.integer;
    else if (it.kind == TI_FLOAT)
        cell.as.number = it.as.number;
    *ti_builder_cell(builder, at) = cell;
    return true;
}

tide_value *tide_writer_finish(tide_writer *writer, tide_error **error)
{
    ti_builder builder = {0};
    ti_value *value = NULL;
    size_t next = 0;
    if (writer && !writer->problem && writer->depth)
        refuse(writer, "an array or map was not ended");
    if (writer && !writer->problem && !writer->count && !writer->no_memory)
        refuse(writer, "nothing was written");
    if (writer && !writer->problem && !writer->no_memory && ti_builder_begin(&builder) &&
        build(writer, &builder, &next, 0))
        value = ti_builder_finish(&builder, NULL);
    ti_builder_trim(&builder, true);
    if (!value && writer && writer->problem)
        ti_api_fail_format(error, TI_E_INVALID_PAYLOAD, "%s", writer->problem);
    else if (!value)
        ti_api_fail_code(error, TI_E_MEMORY_LIMIT);
    tide_writer_free(writer);
    return ti_value_out(value);
}
