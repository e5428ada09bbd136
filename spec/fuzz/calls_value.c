/* SPDX-License-Identifier: MIT */
/* Values as texts, and a writer that is told beside the real one. */
#include <math.h>
#include <stdarg.h>

#include "calls.h"

enum { MOST_DEPTH = 100, MOST_BYTES = 1500 };

unsigned calls_byte(calls_reader *reader)
{
    return reader->at < reader->size ? reader->bytes[reader->at++] : 0;
}

unsigned calls_below(calls_reader *reader, unsigned count)
{
    return calls_byte(reader) % count;
}

void calls_add_text(calls_text *text, const char *bytes, size_t size)
{
    if (text->room < text->size + size + 1) {
        text->room = 2 * (text->size + size + 1);
        MUST(text->bytes = realloc(text->bytes, text->room));
    }
    if (size)
        memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    text->bytes[text->size] = '\0';
}

void calls_add_format(calls_text *text, const char *format, ...)
{
    char line[64];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    MUST(size >= 0 && size < (int)sizeof line);
    calls_add_text(text, line, (size_t)size);
}

bool calls_same_text(const calls_text *a, const calls_text *b)
{
    return a->size == b->size && (!a->size || memcmp(a->bytes, b->bytes, a->size) == 0);
}

void calls_free_text(calls_text *text)
{
    free(text->bytes);
    *text = (calls_text){0};
}

void calls_render_string(calls_text *text, const calls_text *bytes)
{
    calls_add_format(text, "s%zu:", bytes->size);
    calls_add_text(text, bytes->bytes, bytes->size);
}

static void render_table(calls_text *text, const tide_view *view, bool map)
{
    size_t count = tide_view_count(view);
    calls_add_format(text, map ? "{" : "[");
    for (size_t i = 0; i < count; i++) {
        if (map)
            calls_render(text, tide_view_key(view, i));
        else
            MUST(!tide_view_key(view, i));
        MUST(tide_view_item(view, i));
        calls_render(text, tide_view_item(view, i));
    }
    MUST(!tide_view_item(view, count) && !tide_view_key(view, count));
    calls_add_format(text, map ? "}" : "]");
}

void calls_render(calls_text *text, const tide_view *view)
{
    size_t size = 0;
    const char *bytes;
    switch (tide_view_kind(view)) {
    case TIDE_NIL:
        calls_add_format(text, "n");
        break;
    case TIDE_NULL:
        calls_add_format(text, "~");
        break;
    case TIDE_BOOLEAN:
        calls_add_format(text, tide_view_boolean(view) ? "t" : "f");
        break;
    case TIDE_INTEGER:
        calls_add_format(text, "i%lld;", (long long)tide_view_integer(view));
        break;
    case TIDE_FLOAT:
        calls_add_format(text, "d%a;", tide_view_number(view));
        break;
    case TIDE_STRING:
        bytes = tide_view_string(view, &size);
        MUST(bytes && bytes[size] == '\0');
        calls_add_format(text, "s%zu:", size);
        calls_add_text(text, bytes, size);
        break;
    case TIDE_ARRAY:
    case TIDE_MAP:
        render_table(text, view, tide_view_kind(view) == TIDE_MAP);
        break;
    }
}

unsigned calls_depth(const tide_view *view)
{
    unsigned deepest = 0;
    for (size_t i = 0; i < tide_view_count(view); i++) {
        unsigned depth = calls_depth(tide_view_item(view, i));
        deepest = depth > deepest ? depth : deepest;
    }
    tide_kind kind = tide_view_kind(view);
    return deepest + (kind == TIDE_ARRAY || kind == TIDE_MAP);
}

/* ---- The writer's double ---- */

typedef struct table {
    bool map;
    size_t items;
    calls_text keys; /* each with a NUL behind: no two may be alike */
} table;

typedef struct scribe {
    tide_writer *writer;
    calls_text *text;
    table open[MOST_DEPTH];
    unsigned depth;
    bool written, wrong;
} scribe;

static bool has_key(const table *in, const calls_text *key)
{
    for (size_t at = 0; at < in->keys.size;) {
        size_t size;
        memcpy(&size, in->keys.bytes + at, sizeof size);
        at += sizeof size;
        if (size == key->size && memcmp(in->keys.bytes + at, key->bytes, size) == 0)
            return true;
        at += size;
    }
    return false;
}

/* A key of this kind is written next, or a value. False: that is wrong. */
static bool take_key(table *in, tide_kind kind, const calls_text *item)
{
    if (kind != TIDE_BOOLEAN && kind != TIDE_INTEGER && kind != TIDE_FLOAT && kind != TIDE_STRING)
        return false;
    if (has_key(in, item))
        return false;
    calls_add_text(&in->keys, (const char *)&item->size, sizeof item->size);
    calls_add_text(&in->keys, item->bytes, item->size);
    return true;
}

static bool at_key(const scribe *self)
{
    return self->depth && self->open[self->depth - 1].map &&
           self->open[self->depth - 1].items % 2 == 0;
}

/* What was just written; `item` is its beginning at least. */
static void note(scribe *self, tide_kind kind, const calls_text *item)
{
    if (self->depth) {
        table *in = &self->open[self->depth - 1];
        if (kind == TIDE_NIL || (at_key(self) && !take_key(in, kind, item)))
            self->wrong = true;
        in->items++;
    } else {
        self->wrong = self->wrong || self->written;
        self->written = true;
    }
    calls_add_text(self->text, item->bytes, item->size);
}

static void begin(scribe *self, bool map)
{
    calls_text item = {0};
    calls_add_format(&item, map ? "{" : "[");
    note(self, map ? TIDE_MAP : TIDE_ARRAY, &item);
    calls_free_text(&item);
    if (self->depth == MOST_DEPTH)
        self->wrong = true;
    else
        self->open[self->depth++] = (table){.map = map};
}

static void end(scribe *self)
{
    if (!self->depth) {
        self->wrong = true;
        return;
    }
    table *in = &self->open[--self->depth];
    if (in->map && in->items % 2)
        self->wrong = true;
    calls_add_format(self->text, in->map ? "}" : "]");
    calls_free_text(&in->keys);
}

static void note_number(scribe *self, double number)
{
    calls_text item = {0};
    bool key = at_key(self), whole = number == floor(number) && fabs(number) < 1e15;
    if (key && whole)
        calls_add_format(&item, "i%lld;", (long long)number);
    else
        calls_add_format(&item, "d%a;", number);
    note(self, TIDE_FLOAT, &item);
    self->wrong = self->wrong || (key && isnan(number));
    calls_free_text(&item);
}

/* As the writer does it: piece by piece. */
static void note_view(scribe *self, const tide_view *view)
{
    tide_kind kind = tide_view_kind(view);
    calls_text item = {0};
    if (kind == TIDE_FLOAT) {
        note_number(self, tide_view_number(view));
    } else if (kind == TIDE_ARRAY || kind == TIDE_MAP) {
        begin(self, kind == TIDE_MAP);
        for (size_t i = 0; i < tide_view_count(view) && !self->wrong; i++) {
            if (kind == TIDE_MAP)
                note_view(self, tide_view_key(view, i));
            note_view(self, tide_view_item(view, i));
        }
        if (!self->wrong)
            end(self);
    } else {
        calls_render(&item, view);
        note(self, kind, &item);
    }
    calls_free_text(&item);
}

static const double numbers[] = {0, 1, 0.5, -3, 1e300, INFINITY, NAN, 9.3e18};

static void write_string(scribe *self, calls_reader *reader)
{
    size_t size = calls_below(reader, 6), left = reader->size - reader->at;
    const char *bytes = (const char *)reader->bytes + reader->at;
    calls_text raw = {0}, item = {0};
    size = size < left ? size : left;
    reader->at += size;
    calls_add_text(&raw, bytes, size);
    calls_render_string(&item, &raw);
    if (size)
        tide_write_string(self->writer, bytes, size);
    else
        tide_write_text(self->writer, NULL);
    note(self, TIDE_STRING, &item);
    calls_free_text(&raw);
    calls_free_text(&item);
}

static void write_scalar(scribe *self, calls_reader *reader, unsigned kind)
{
    calls_text item = {0};
    int64_t number = (int64_t)calls_byte(reader);
    if (kind == 0) {
        tide_write_null(self->writer);
        calls_add_format(&item, "~");
        note(self, TIDE_NULL, &item);
    } else if (kind == 1) {
        tide_write_boolean(self->writer, number % 2);
        calls_add_format(&item, number % 2 ? "t" : "f");
        note(self, TIDE_BOOLEAN, &item);
    } else if (kind == 2) {
        number = number == 255 ? INT64_MIN : number % 16;
        tide_write_integer(self->writer, number);
        calls_add_format(&item, "i%lld;", (long long)number);
        note(self, TIDE_INTEGER, &item);
    } else {
        tide_write_float(self->writer, numbers[number % 8]);
        note_number(self, numbers[number % 8]);
    }
    calls_free_text(&item);
}

static void write_one(scribe *self, calls_reader *reader, const tide_value *other)
{
    unsigned what = calls_below(reader, 10);
    if (what < 4) {
        write_scalar(self, reader, what);
    } else if (what == 4) {
        write_string(self, reader);
    } else if (what == 5 || what == 6) {
        if (what == 5)
            tide_write_array(self->writer);
        else
            tide_write_map(self->writer);
        begin(self, what == 6);
    } else if (what == 7) {
        tide_write_view(self->writer, tide_value_view(other));
        note_view(self, tide_value_view(other));
    } else if (what == 8 && self->depth) {
        for (unsigned count = calls_byte(reader); count && !self->wrong; count--) {
            tide_write_array(self->writer); /* deep */
            begin(self, false);
        }
    } else {
        tide_write_end(self->writer);
        end(self);
    }
}

/* A value by a writer; NULL: it was refused, as it had to be. */
static tide_value *write_all(calls_reader *reader, const tide_value *other, calls_text *text)
{
    scribe self = {.writer = tide_writer_new(), .text = text};
    tide_error *error = NULL;
    bool wild = calls_below(reader, 4) == 0; /* may be wrong to the end */
    for (unsigned left = calls_below(reader, 24); left && !self.wrong && text->size < MOST_BYTES;
         left--)
        write_one(&self, reader, other);
    while (!wild && self.depth && !self.wrong) {
        if (self.open[self.depth - 1].items % 2)
            write_scalar(&self, reader, 0);
        tide_write_end(self.writer);
        end(&self);
    }
    bool good = !self.wrong && !self.depth && self.written;
    while (self.depth)
        calls_free_text(&self.open[--self.depth].keys);
    if (wild && calls_below(reader, 8) == 0) {
        tide_writer_free(self.writer);
        return NULL;
    }
    tide_value *value = tide_writer_finish(self.writer, &error);
    MUST(good == (value != NULL));
    if (!value)
        calls_check_error(error, code_bit(TIDE_E_INVALID_PAYLOAD));
    return value;
}

static tide_value *make_scalar(calls_reader *reader, unsigned kind, calls_text *text)
{
    unsigned number = calls_byte(reader);
    if (kind == 0) {
        calls_add_format(text, "i%u;", number);
        return tide_integer(number);
    }
    if (kind == 1) {
        calls_text raw = {0};
        calls_add_format(&raw, "text %u", number);
        calls_render_string(text, &raw);
        tide_value *value = number % 2 ? tide_text(raw.bytes) : tide_string(raw.bytes, raw.size);
        calls_free_text(&raw);
        return value;
    }
    if (kind == 2) {
        calls_add_format(text, "d%a;", numbers[number % 8]);
        return tide_float(numbers[number % 8]);
    }
    calls_add_format(text, number % 4 == 0 ? "n" : number % 4 == 1 ? "~" : number % 2 ? "t" : "f");
    return number % 4 == 0 ? tide_nil() : number % 4 == 1 ? tide_null() : tide_boolean(number % 2);
}

tide_value *calls_make_value(calls_reader *reader, const tide_value *other, calls_text *text)
{
    unsigned kind = calls_below(reader, 6);
    calls_text seen = {0};
    tide_value *value = kind < 4 ? make_scalar(reader, kind, text) : write_all(reader, other, text);
    if (!value) { /* refused: anything else */
        calls_free_text(text);
        return make_scalar(reader, 0, text);
    }
    calls_render(&seen, tide_value_view(value));
    MUST(calls_same_text(&seen, text));
    MUST(tide_value_equal(value, value));
    if (other && tide_view_kind(tide_value_view(other)) != tide_view_kind(tide_value_view(value)))
        MUST(!tide_value_equal(value, other));
    calls_free_text(&seen);
    return value;
}
