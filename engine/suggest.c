/* SPDX-License-Identifier: MIT */
#include "engine/suggest.h"

#include <string.h>

#define LONGEST 64

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t ti_suggest_limit(size_t size)
{
    return size < 3 ? 1 : size < 6 ? 2 : 3;
}

size_t ti_edit_distance(const char *a, size_t a_size, const char *b, size_t b_size, size_t limit)
{
    size_t gap = a_size > b_size ? a_size - b_size : b_size - a_size;
    if (a_size > LONGEST || b_size > LONGEST || gap > limit)
        return limit + 1;
    size_t rows[3][LONGEST + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_size; j++)
        above[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t cost = a[i - 1] != b[j - 1];
            row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
        size_t *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return above[b_size];
}
