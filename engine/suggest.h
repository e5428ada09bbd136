/* SPDX-License-Identifier: MIT */
/* "Did you mean": the nearest name to a misspelt one. */
#ifndef TI_SUGGEST_H
#define TI_SUGGEST_H

#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`, or limit + 1 when it
 * takes more than `limit`; names longer than 64 bytes are never near. Optimal string alignment
 * distance, after Damerau (1964) and Wagner and Fischer (1974), one row at a time. */
size_t ti_edit_distance(const char *a, size_t a_size, const char *b, size_t b_size, size_t limit);

/* How many edits a misspelling of a name of `size` bytes may be away. */
size_t ti_suggest_limit(size_t size);

#endif
