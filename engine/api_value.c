/* SPDX-License-Identifier: MIT */
/* Values of the C interface: making them and looking at them. */
#include <string.h>

#include "engine/api.h"

#define SAME(name) _Static_assert((int)TIDE_##name == (int)TI_##name, "kinds stand in order")
SAME(NIL);
SAME(NULL);
SAME(BOOLEAN);
SAME(INTEGER);
SAME(FLOAT);
SAME(STRING);
SAME(ARRAY);
SAME(MAP);

tide_value *tide_nil(void)
{
    return ti_value_out(ti_value_nil());
}

tide_value *tide_null(void)
{
    return ti_value_out(ti_value_null());
}

tide_value *tide_boolean(bool boolean)
{
    return ti_value_out(ti_value_boolean(boolean));
}

tide_value *tide_integer(int64_t integer)
{
    return ti_value_out(ti_value_integer(integer));
}

tide_value *tide_float(double number)
{
    return ti_value_out(ti_value_float(number));
}

tide_value *tide_string(const void *bytes, size_t size)
{
    return ti_value_out(ti_value_string(bytes ? bytes : "", bytes ? size : 0));
}

tide_value *tide_text(const char *text)
{
    return tide_string(text, text ? strlen(text) : 0);
}

tide_value *tide_value_retain(const tide_value *value)
{
    return ti_value_out(ti_value_retain(ti_value_in(value)));
}

void tide_value_release(tide_value *value)
{
    ti_value_release(ti_value_in(value));
}

bool tide_value_equal(const tide_value *a, const tide_value *b)
{
    if (!a || !b)
        return a == b;
    return ti_value_equal(&ti_value_in(a)->root, &ti_value_in(b)->root);
}

const tide_view *tide_value_view(const tide_value *value)
{
    return value ? ti_view_out(&ti_value_in(value)->root) : NULL;
}

const char *tide_value_string(const tide_value *value, size_t *size)
{
    return tide_view_string(tide_value_view(value), size);
}

/* The cell, if it is of that kind. */
static const ti_cell *of_kind(const tide_view *view, ti_kind kind)
{
    const ti_cell *cell = ti_view_in(view);
    return cell && cell->kind == kind ? cell : NULL;
}

tide_kind tide_view_kind(const tide_view *view)
{
    return view ? (tide_kind)ti_view_in(view)->kind : TIDE_NIL;
}

bool tide_view_boolean(const tide_view *view)
{
    const ti_cell *cell = of_kind(view, TI_BOOLEAN);
    return cell && cell->as.boolean;
}

int64_t tide_view_integer(const tide_view *view)
{
    const ti_cell *cell = of_kind(view, TI_FLOAT);
    if (cell) {
        double number = cell->as.number;
        return ti_api_is_whole(number) ? (int64_t)number : 0;
    }
    cell = of_kind(view, TI_INTEGER);
    return cell ? cell->as.integer : 0;
}

double tide_view_number(const tide_view *view)
{
    const ti_cell *cell = of_kind(view, TI_FLOAT);
    if (cell)
        return cell->as.number;
    cell = of_kind(view, TI_INTEGER);
    return cell ? (double)cell->as.integer : 0;
}

const char *tide_view_string(const tide_view *view, size_t *size)
{
    const ti_cell *cell = of_kind(view, TI_STRING);
    if (size)
        *size = cell ? cell->size : 0;
    return cell ? ti_cell_string(cell) : NULL;
}

size_t tide_view_count(const tide_view *view)
{
    const ti_cell *cell = ti_view_in(view);
    return cell && (cell->kind == TI_ARRAY || cell->kind == TI_MAP) ? cell->size : 0;
}

const tide_view *tide_view_item(const tide_view *view, size_t index)
{
    const ti_cell *cell = ti_view_in(view);
    if (index >= tide_view_count(view))
        return NULL;
    const ti_cell *items = ti_cell_items(cell);
    return ti_view_out(cell->kind == TI_MAP ? &items[2 * index + 1] : &items[index]);
}

const tide_view *tide_view_key(const tide_view *view, size_t index)
{
    const ti_cell *cell = of_kind(view, TI_MAP);
    return cell && index < cell->size ? ti_view_out(&ti_cell_items(cell)[2 * index]) : NULL;
}

const tide_view *tide_view_field(const tide_view *view, const char *key)
{
    const ti_cell *cell = of_kind(view, TI_MAP);
    size_t size = key ? strlen(key) : 0;
    for (size_t i = 0; cell && key && i < cell->size; i++) {
        const ti_cell *pair = &ti_cell_items(cell)[2 * i];
        if (pair->kind == TI_STRING && pair->size == size &&
            memcmp(ti_cell_string(pair), key, size) == 0)
            return ti_view_out(pair + 1);
    }
    return NULL;
}
