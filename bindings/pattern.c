/* SPDX-License-Identifier: MIT */
/* Lua's patterns for sandboxes: what Lua's own matcher does, but a match that takes long can be
 * stopped, and its steps count as instructions. */
#include <ctype.h>
#include <string.h>

#include "bindings/state.h"

#define MOST_CAPTURES 32
#define MOST_DEPTH 200
#define CHARGED 1024 /* steps at a time */
#define ESCAPE '%'

enum { OPEN = -1, POSITION = -2 };

typedef struct ti_match {
    lua_State *L;
    const char *subject, *end;
    const char *pattern_end;
    uint32_t steps;
    int depth, count;
    struct {
        const char *from;
        ptrdiff_t size; /* or OPEN, POSITION */
    } captures[MOST_CAPTURES];
} ti_match;

static void work(ti_match *match, size_t steps)
{
    match->steps += (uint32_t)steps;
    if (match->steps >= CHARGED) {
        uint32_t done = match->steps;
        match->steps = 0;
        ti_stop_charge(match->L, done);
    }
}

/* Behind the class, set or character that begins at `p`. */
static const char *item_end(ti_match *match, const char *p)
{
    char c = *p++;
    if (c == ESCAPE) {
        if (p == match->pattern_end)
            luaL_error(match->L, "malformed pattern (ends with '%%')");
        return p + 1;
    }
    if (c != '[')
        return p;
    if (p < match->pattern_end && *p == '^')
        p++;
    do {
        if (p == match->pattern_end)
            luaL_error(match->L, "malformed pattern (missing ']')");
        if (*p++ == ESCAPE) {
            if (p == match->pattern_end)
                luaL_error(match->L, "malformed pattern (missing ']')");
            p++;
        }
    } while (p == match->pattern_end || *p != ']');
    return p + 1;
}

static bool in_class(int c, int class)
{
    bool found;
    switch (tolower(class)) {
    case 'a':
        found = isalpha(c);
        break;
    case 'c':
        found = iscntrl(c);
        break;
    case 'd':
        found = isdigit(c);
        break;
#if LUA_VERSION_NUM >= 502 || defined(LUAJIT_VERSION_NUM)
    case 'g':
        found = isgraph(c);
        break;
#endif
    case 'l':
        found = islower(c);
        break;
    case 'p':
        found = ispunct(c);
        break;
    case 's':
        found = isspace(c);
        break;
    case 'u':
        found = isupper(c);
        break;
    case 'w':
        found = isalnum(c);
        break;
    case 'x':
        found = isxdigit(c);
        break;
    case 'z':
        found = c == 0;
        break;
    default:
        return class == c;
    }
    return isupper(class) ? !found : found;
}

/* `p` is at '[' and `last` at its ']'. */
static bool in_set(int c, const char *p, const char *last)
{
    bool inside = true;
    if (p[1] == '^') {
        inside = false;
        p++;
    }
    while (++p < last) {
        if (*p == ESCAPE) {
            if (in_class(c, (unsigned char)*++p))
                return inside;
        } else if (p[1] == '-' && p + 2 < last) {
            if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2])
                return inside;
            p += 2;
        } else if ((unsigned char)*p == c) {
            return inside;
        }
    }
    return !inside;
}

static bool one_matches(ti_match *match, const char *s, const char *p, const char *end)
{
    work(match, *p == '[' ? (size_t)(end - p) / 2 : 1);
    if (s >= match->end)
        return false;
    int c = (unsigned char)*s;
    switch (*p) {
    case '.':
        return true;
    case ESCAPE:
        return in_class(c, (unsigned char)p[1]);
    case '[':
        return in_set(c, p, end - 1);
    default:
        return (unsigned char)*p == c;
    }
}

static const char *match_here(ti_match *match, const char *s, const char *p);

/* %bxy */
static const char *balanced(ti_match *match, const char *s, const char *p)
{
    if (match->pattern_end - p < 2)
        luaL_error(match->L, "malformed pattern (missing arguments to '%%b')");
    if (s >= match->end || *s != *p)
        return NULL;
    int open = 1;
    while (++s < match->end) {
        work(match, 1);
        if (*s == p[1]) {
            if (--open == 0)
                return s + 1;
        } else if (*s == p[0]) {
            open++;
        }
    }
    return NULL;
}

/* `item` as often as it can be, then less and less. */
static const char *greedy(ti_match *match, const char *s, const char *item, const char *end)
{
    ptrdiff_t count = 0;
    while (one_matches(match, s + count, item, end))
        count++;
    for (; count >= 0; count--) {
        const char *found = match_here(match, s + count, end + 1);
        if (found)
            return found;
    }
    return NULL;
}

static const char *lazy(ti_match *match, const char *s, const char *item, const char *end)
{
    for (;;) {
        const char *found = match_here(match, s, end + 1);
        if (found)
            return found;
        if (!one_matches(match, s, item, end))
            return NULL;
        s++;
    }
}

static const char *begin_capture(ti_match *match, const char *s, const char *p, ptrdiff_t kind)
{
    if (match->count >= MOST_CAPTURES)
        luaL_error(match->L, "too many captures");
    match->captures[match->count].from = s;
    match->captures[match->count++].size = kind;
    const char *found = match_here(match, s, p);
    if (!found)
        match->count--;
    return found;
}

static const char *end_capture(ti_match *match, const char *s, const char *p)
{
    int at = match->count - 1;
    while (at >= 0 && match->captures[at].size != OPEN)
        at--;
    if (at < 0)
        luaL_error(match->L, "invalid pattern capture");
    match->captures[at].size = s - match->captures[at].from;
    const char *found = match_here(match, s, p);
    if (!found)
        match->captures[at].size = OPEN;
    return found;
}

/* %1: what a capture has. Behind it, or NULL. */
static const char *again(ti_match *match, const char *s, int digit)
{
    int at = digit - '1';
    if (at < 0 || at >= match->count || match->captures[at].size == OPEN)
        luaL_error(match->L, "invalid capture index %%%d in pattern", at + 1);
    ptrdiff_t size = match->captures[at].size;
    if (size == POSITION)
        return NULL;
    work(match, (size_t)size / 16);
    if (match->end - s < size || memcmp(match->captures[at].from, s, (size_t)size) != 0)
        return NULL;
    return s + size;
}

/* %f[set]: the set begins here. */
static bool is_frontier(ti_match *match, const char *s, const char *p, const char *end)
{
    int before = s == match->subject ? 0 : (unsigned char)s[-1];
    int here = s < match->end ? (unsigned char)*s : 0;
    work(match, (size_t)(end - p));
    return !in_set(before, p, end - 1) && in_set(here, p, end - 1);
}

/* An item and what may follow it: `*s` and `*p` go on. False: *s is the answer. */
static bool match_item(ti_match *match, const char **s, const char **p)
{
    const char *end = item_end(match, *p);
    char repeat = '\0';
    if (end < match->pattern_end)
        repeat = *end;
    if (repeat == '*' || repeat == '-') {
        *s = repeat == '*' ? greedy(match, *s, *p, end) : lazy(match, *s, *p, end);
        return false;
    }
    bool matches = one_matches(match, *s, *p, end);
    if (repeat == '?') {
        const char *found = matches ? match_here(match, *s + 1, end + 1) : NULL;
        if (found)
            *s = found;
        *p = end + 1;
        return !found;
    }
    if (!matches) {
        *s = NULL;
        return false;
    }
    (*s)++;
    if (repeat == '+') {
        *s = greedy(match, *s, *p, end);
        return false;
    }
    *p = end;
    return true;
}

/* %b, %f and %1 to %9. False: it is none of them. */
static bool match_special(ti_match *match, const char **s, const char **p)
{
    if (match->pattern_end - *p < 2)
        return false;
    char kind = (*p)[1];
    if (kind == 'b') {
        *s = balanced(match, *s, *p + 2);
        *p += 4;
    } else if (kind == 'f') {
        const char *set = *p + 2;
        if (set == match->pattern_end || *set != '[')
            luaL_error(match->L, "missing '[' after '%%f' in pattern");
        const char *end = item_end(match, set);
        if (!is_frontier(match, *s, set, end))
            *s = NULL;
        *p = end;
    } else if (isdigit((unsigned char)kind)) {
        *s = again(match, *s, kind);
        *p += 2;
    } else {
        return false;
    }
    return true;
}

static const char *walk(ti_match *match, const char *s, const char *p)
{
    while (s && p < match->pattern_end) {
        work(match, 1);
        if (*p == '(') {
            bool position = p + 1 < match->pattern_end && p[1] == ')';
            return begin_capture(match, s, position ? p + 2 : p + 1, position ? POSITION : OPEN);
        }
        if (*p == ')')
            return end_capture(match, s, p + 1);
        if (*p == '$' && p + 1 == match->pattern_end)
            return s == match->end ? s : NULL;
        if (*p == ESCAPE && match_special(match, &s, &p))
            continue;
        if (!match_item(match, &s, &p))
            return s;
    }
    return s;
}

static const char *match_here(ti_match *match, const char *s, const char *p)
{
    if (match->depth++ == MOST_DEPTH)
        luaL_error(match->L, "pattern too complex");
    const char *found = walk(match, s, p);
    match->depth--;
    return found;
}

/* The first match from `*s` on whose end is not `not_here`. *s is where it begins. */
static const char *search(ti_match *match, const char **s, const char *p, bool anchored,
                          const char *not_here)
{
    for (;; (*s)++) {
        match->count = match->depth = 0;
        const char *found = match_here(match, *s, p);
        if (found && found != not_here)
            return found;
        if (anchored || *s >= match->end)
            return NULL;
    }
}

static void push_capture(ti_match *match, int at)
{
    lua_State *L = match->L;
    ptrdiff_t size = match->captures[at].size;
    if (size == OPEN)
        luaL_error(L, "unfinished capture");
    if (size == POSITION)
        lua_pushinteger(L, (lua_Integer)(match->captures[at].from - match->subject + 1));
    else
        lua_pushlstring(L, match->captures[at].from, (size_t)size);
}

static int push_captures(ti_match *match)
{
    luaL_checkstack(match->L, match->count, "too many captures");
    for (int i = 0; i < match->count; i++)
        push_capture(match, i);
    return match->count;
}

/* Where to begin; false: behind the subject's end, where nothing is found. */
static bool start_at(lua_State *L, int index, size_t size, size_t *start)
{
    lua_Integer init = luaL_optinteger(L, index, 1);
    if (init < 0)
        init = init < -(lua_Integer)size ? 1 : (lua_Integer)size + init + 1;
    else if (init == 0)
        init = 1;
    bool behind = init > (lua_Integer)size + 1;
    *start = behind ? size : (size_t)init - 1;
    return !behind || LUA_VERSION_NUM < 502;
}

static bool is_plain(const char *pattern, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (pattern[i] && strchr("^$*+?.([%-", pattern[i]))
            return false;
    return true;
}

static int find_plain(ti_match *match, size_t start, const char *text, size_t size)
{
    const char *at = match->subject + start;
    while (size && (size_t)(match->end - at) >= size) {
        const char *first = memchr(at, *text, (size_t)(match->end - at) - size + 1);
        work(match, first ? (size_t)(first - at) / 16 + size / 16 + 1 : 1);
        if (!first)
            break;
        if (memcmp(first, text, size) == 0) {
            at = first;
            break;
        }
        at = first + 1;
    }
    bool found = (size_t)(match->end - at) >= size && memcmp(at, text, size) == 0;
    if (!found)
        return 0;
    lua_pushinteger(match->L, (lua_Integer)(at - match->subject + 1));
    lua_pushinteger(match->L, (lua_Integer)((size_t)(at - match->subject) + size));
    return 2;
}

static ti_match open_match(lua_State *L, const char **pattern, size_t *subject_size)
{
    size_t pattern_size;
    const char *subject = luaL_checklstring(L, 1, subject_size);
    *pattern = luaL_checklstring(L, 2, &pattern_size);
    return (ti_match){
        .L = L,
        .subject = subject,
        .end = subject + *subject_size,
        .pattern_end = *pattern + pattern_size,
    };
}

/* string.find or string.match */
static int find_or_match(lua_State *L, bool find)
{
    size_t size, start;
    const char *pattern;
    ti_match match = open_match(L, &pattern, &size);
    size_t pattern_size = (size_t)(match.pattern_end - pattern);
    int results = 0;
    if (!start_at(L, 3, size, &start)) {
        lua_pushnil(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || is_plain(pattern, pattern_size))) {
        results = find_plain(&match, start, pattern, pattern_size);
    } else {
        bool anchored = pattern_size && *pattern == '^';
        const char *at = match.subject + start;
        const char *end = search(&match, &at, pattern + anchored, anchored, NULL);
        if (end && find) {
            lua_pushinteger(L, (lua_Integer)(at - match.subject + 1));
            lua_pushinteger(L, (lua_Integer)(end - match.subject));
            results = 2 + push_captures(&match);
        } else if (end && !match.count) {
            lua_pushlstring(L, at, (size_t)(end - at));
            results = 1;
        } else if (end) {
            results = push_captures(&match);
        }
    }
    ti_stop_charge(L, match.steps);
    if (!results)
        lua_pushnil(L);
    return results ? results : 1;
}

static int pattern_find(lua_State *L)
{
    return find_or_match(L, true);
}

static int pattern_match(lua_State *L)
{
    return find_or_match(L, false);
}

/* scan(subject, pattern, from, not_here, anchors) -> where the next match begins, where the subject
 * goes on behind it, captures | nil. `not_here`, or 0: no match that ends there; `anchors`: ^ is
 * one.
 */
static int pattern_scan(lua_State *L)
{
    size_t size;
    const char *pattern;
    ti_match match = open_match(L, &pattern, &size);
    const char *at = match.subject + luaL_checkinteger(L, 3) - 1;
    lua_Integer not_here = luaL_checkinteger(L, 4);
    bool anchored = lua_toboolean(L, 5) && pattern < match.pattern_end && *pattern == '^';
    if (at < match.subject || at > match.end)
        return 0;
    const char *end = search(&match, &at, pattern + anchored, anchored,
                             not_here ? match.subject + not_here - 1 : NULL);
    ti_stop_charge(L, match.steps);
    if (!end)
        return 0;
    lua_pushinteger(L, (lua_Integer)(at - match.subject + 1));
    lua_pushinteger(L, (lua_Integer)(end - match.subject + 1));
    return 2 + push_captures(&match);
}

static int charge(lua_State *L)
{
    ti_stop_charge(L, (uint64_t)luaL_checkinteger(L, 1));
    return 0;
}

void ti_pattern_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"find", pattern_find}, {"match", pattern_match},
        {"scan", pattern_scan}, {"charge", charge},
        {NULL, NULL},
    };
    lua_newtable(L);
    tl_set_functions(L, functions);
}
