/* SPDX-License-Identifier: MIT */
#include "engine/suggest.h"

#include "check.h"

#define FAR 100

static size_t distance(const char *a, const char *b)
{
    return ti_edit_distance(a, strlen(a), b, strlen(b), FAR);
}

static void counts_each_kind_of_edit(void)
{
    CHECK_INT(distance("", ""), 0);
    CHECK_INT(distance("trim", "trim"), 0);
    CHECK_INT(distance("trim", "tri"), 1);
    CHECK_INT(distance("trim", "strim"), 1);
    CHECK_INT(distance("trim", "trip"), 1);
    CHECK_INT(distance("trim", "tirm"), 1);
    CHECK_INT(distance("", "abc"), 3);
    CHECK_INT(distance("ca", "abc"), 3); /* no edit inside a swapped pair */
    CHECK_INT(distance("kitten", "sitting"), 3);
}

static void any_byte_is_a_byte(void)
{
    CHECK_INT(ti_edit_distance("a\0b", 3, "a\0c", 3, FAR), 1);
    CHECK_INT(ti_edit_distance("\xff", 1, "\x7f", 1, FAR), 1);
}

/* Never less than the limit admits to: far is far, however it is told. */
static void beyond_the_limit_is_more_than_the_limit(void)
{
    CHECK(ti_edit_distance("abcd", 4, "wxyz", 4, 2) > 2);
    CHECK(ti_edit_distance("a", 1, "abcdef", 6, 3) > 3);
    CHECK_INT(ti_edit_distance("abc", 3, "abd", 3, 1), 1);
    CHECK_INT(ti_edit_distance("abc", 3, "abc", 3, 0), 0);
}

static void long_names_are_never_near(void)
{
    char name[66];
    memset(name, 'n', sizeof name);
    CHECK_INT(ti_edit_distance(name, 64, name, 64, 3), 0);
    CHECK(ti_edit_distance(name, 65, name, 65, 3) > 3);
    CHECK(ti_edit_distance(name, 64, name, 65, 3) > 3);
}

/* The recursive definition, on the ends of both words. */
static size_t naive(const char *a, size_t m, const char *b, size_t n)
{
    if (m == 0 || n == 0)
        return m + n;
    size_t best = naive(a, m - 1, b, n - 1) + (a[m - 1] != b[n - 1]);
    size_t other = naive(a, m - 1, b, n) + 1;
    best = other < best ? other : best;
    other = naive(a, m, b, n - 1) + 1;
    best = other < best ? other : best;
    if (m > 1 && n > 1 && a[m - 1] == b[n - 2] && a[m - 2] == b[n - 1]) {
        other = naive(a, m - 2, b, n - 2) + 1;
        best = other < best ? other : best;
    }
    return best;
}

static void agrees_with_the_definition(void)
{
    uint32_t seed = 1;
    for (int round = 0; round < 300; round++) {
        char a[6], b[6];
        size_t m = check_random(&seed) % 7, n = check_random(&seed) % 7;
        for (size_t i = 0; i < m; i++)
            a[i] = (char)('a' + check_random(&seed) % 3);
        for (size_t i = 0; i < n; i++)
            b[i] = (char)('a' + check_random(&seed) % 3);
        CHECK_INT(ti_edit_distance(a, m, b, n, FAR), naive(a, m, b, n));
        CHECK_INT(ti_edit_distance(b, n, a, m, FAR), naive(a, m, b, n));
    }
}

static void longer_names_may_be_further_away(void)
{
    CHECK(ti_suggest_limit(0) >= 1);
    for (size_t size = 1; size < 100; size++)
        CHECK(ti_suggest_limit(size) >= ti_suggest_limit(size - 1));
    CHECK(ti_suggest_limit(1000) < 5);
}

int main(void)
{
    RUN(counts_each_kind_of_edit);
    RUN(any_byte_is_a_byte);
    RUN(beyond_the_limit_is_more_than_the_limit);
    RUN(long_names_are_never_near);
    RUN(agrees_with_the_definition);
    RUN(longer_names_may_be_further_away);
    return check_report();
}
