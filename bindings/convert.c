/* SPDX-License-Identifier: MIT */
#include "bindings/convert.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define MOST_STEP 128                 /* bytes by which a path goes on; what is longer is cut */
#define MOST_ITEMS 9007199254740992.0 /* 2^53: a number stands for one integer up to here */

/* One walk over a table. The path of a failure is put together from the inside out, as the walk
 * unwinds, so that it costs nothing when all goes well. */
typedef struct ti_walk {
    lua_State *L;
    ti_conversion *conversion;
    int depth;
    const void *open[TI_MAX_DEPTH]; /* the tables around the current one */
    char path[256];                 /* ".items[3].callback", at the end of the buffer */
    size_t path_size;
    bool path_cut;       /* its beginning had no room */
    const char *problem; /* " is a function"; NULL: no memory */
    char described[96];
} ti_walk;

static bool refuse(ti_walk *walk, const char *problem)
{
    walk->problem = problem;
    return false;
}

static bool refuse_type(ti_walk *walk, int index)
{
    snprintf(walk->described, sizeof walk->described, " is a %s",
             lua_typename(walk->L, lua_type(walk->L, index)));
    return refuse(walk, walk->described);
}

/* Puts a step in front of the path. */
static void prepend(ti_walk *walk, const char *step)
{
    size_t size = strlen(step);
    walk->path_cut = walk->path_cut || walk->path_size + size > sizeof walk->path;
    if (walk->path_cut)
        return;
    walk->path_size += size;
    memcpy(walk->path + sizeof walk->path - walk->path_size, step, size);
}

static bool is_name(const char *text, size_t size)
{
    bool name = size > 0 && !isdigit((unsigned char)*text);
    for (size_t i = 0; name && i < size; i++)
        name = isalnum((unsigned char)text[i]) || text[i] == '_';
    return name;
}

static void name_position(ti_walk *walk, double position)
{
    char step[64];
    snprintf(step, sizeof step, "[%.14g]", position);
    prepend(walk, step);
}

/* The bytes of the character that `text` begins with. What is no UTF-8 is cut into some. */
static size_t character_size(const char *text, size_t size)
{
    size_t count = 1;
    while ((*text & 0x80) && count < 4 && count < size && (text[count] & 0xC0) == 0x80)
        count++;
    return count;
}

/* Writes a byte as it is between quotes in Lua, and on one line; its length there. */
static size_t escape(char escaped[5], unsigned char byte, bool before_digit)
{
    if (byte == '"' || byte == '\\')
        return (size_t)snprintf(escaped, 5, "\\%c", byte);
    if (byte < ' ' || byte == 127)
        return (size_t)snprintf(escaped, 5, before_digit ? "\\%03d" : "\\%d", byte);
    *escaped = (char)byte;
    return 1;
}

/* The walk has failed at the value of that key. */
static void name_string(ti_walk *walk, const char *key, size_t size)
{
    char step[MOST_STEP], escaped[5];
    bool name = is_name(key, size);
    size_t used = (size_t)snprintf(step, sizeof step, name ? "." : "[\""), at = 0, count;
    for (; at < size; at += count) {
        count = character_size(key + at, size - at);
        bool before_digit = at + 1 < size && isdigit((unsigned char)key[at + 1]);
        size_t length = count > 1 ? count : escape(escaped, (unsigned char)key[at], before_digit);
        if (used + length > sizeof step - sizeof "...\"]")
            break;
        memcpy(step + used, count > 1 ? key + at : escaped, length);
        used += length;
    }
    snprintf(step + used, sizeof step - used, "%s%s", at < size ? "..." : "", name ? "" : "\"]");
    prepend(walk, step);
}

/* The walk has failed at the value of the key at `index`. */
static void name_key(ti_walk *walk, int index)
{
    lua_State *L = walk->L;
    size_t size;
    switch (lua_type(L, index)) {
    case LUA_TNUMBER:
        name_position(walk, (double)lua_tonumber(L, index));
        break;
    case LUA_TBOOLEAN:
        prepend(walk, lua_toboolean(L, index) ? "[true]" : "[false]");
        break;
    default: {
        const char *key = lua_tolstring(L, index, &size);
        name_string(walk, key, size);
    }
    }
}

static bool convert(ti_walk *walk, int index, size_t at);

/* How many pairs, and whether their keys are 1 .. count. */
static bool measure(ti_walk *walk, int table, size_t *count, ti_kind *kind)
{
    lua_State *L = walk->L;
    size_t pairs = 0, counted = 0;
    lua_Number greatest = 0;
    lua_pushnil(L);
    while (lua_next(L, table)) {
        int type = lua_type(L, -2);
        if (type == LUA_TNUMBER) {
            lua_Number key = lua_tonumber(L, -2);
            counted += key >= 1 && key <= MOST_ITEMS && key == (lua_Number)(size_t)key;
            greatest = key > greatest ? key : greatest;
        } else if (type != LUA_TSTRING && type != LUA_TBOOLEAN) {
            snprintf(walk->described, sizeof walk->described,
                     " has a key that is neither string, number nor boolean: a %s",
                     lua_typename(L, type));
            lua_pop(L, 2);
            return refuse(walk, walk->described);
        }
        pairs++;
        lua_pop(L, 1);
    }
    *count = pairs;
    *kind = counted == pairs && greatest == (lua_Number)pairs ? TI_ARRAY : TI_MAP;
    return true;
}

static bool fill_array(ti_walk *walk, int table, size_t count, size_t items)
{
    lua_State *L = walk->L;
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, table, (int)(i + 1));
        if (!convert(walk, lua_gettop(L), items + i * sizeof(ti_cell))) {
            name_position(walk, (double)(i + 1));
            return false;
        }
        lua_pop(L, 1);
    }
    return true;
}

static bool fill_map(ti_walk *walk, int table, size_t items)
{
    lua_State *L = walk->L;
    lua_pushnil(L);
    for (size_t at = items; lua_next(L, table); at += 2 * sizeof(ti_cell)) {
        int key = lua_gettop(L) - 1;
        if (!convert(walk, key, at) || !convert(walk, key + 1, at + sizeof(ti_cell))) {
            name_key(walk, key);
            return false;
        }
        lua_pop(L, 1);
    }
    return true;
}

static bool convert_table(ti_walk *walk, int table, size_t at)
{
    lua_State *L = walk->L;
    size_t count, items;
    ti_kind kind;
    const void *self = lua_topointer(L, table);
    for (int i = 0; i < walk->depth; i++)
        if (walk->open[i] == self)
            return refuse(walk, " is a cycle: the table contains itself");
    if (walk->depth == TI_MAX_DEPTH)
        return refuse(walk, " is nested too deep (100 tables at most)");
    if (lua_getmetatable(L, table)) {
        lua_pop(L, 1);
        return refuse(walk, " is a table with a metatable");
    }
    luaL_checkstack(L, 6, "nested tables");
    if (!measure(walk, table, &count, &kind))
        return false;
    if (!ti_builder_table(walk->conversion->scratch, at, kind, count, &items))
        return refuse(walk, NULL);
    walk->open[walk->depth++] = self;
    bool done =
        kind == TI_ARRAY ? fill_array(walk, table, count, items) : fill_map(walk, table, items);
    walk->depth--;
    return done;
}

static bool is_null(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TLIGHTUSERDATA && !lua_touserdata(L, index);
}

static bool scalar(lua_State *L, int index, ti_cell *cell)
{
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        *cell = (ti_cell){.kind = TI_NIL};
        return true;
    case LUA_TBOOLEAN:
        *cell = (ti_cell){.kind = TI_BOOLEAN, .as.boolean = lua_toboolean(L, index)};
        return true;
    case LUA_TNUMBER:
        if (tl_is_integer(L, index))
            *cell = (ti_cell){.kind = TI_INTEGER, .as.integer = tl_to_integer(L, index)};
        else
            *cell = (ti_cell){.kind = TI_FLOAT, .as.number = lua_tonumber(L, index)};
        return true;
    case LUA_TLIGHTUSERDATA:
        *cell = (ti_cell){.kind = TI_NULL};
        return is_null(L, index);
    default:
        return false;
    }
}

/* `index` is absolute. Leaves garbage on the stack when it fails. */
static bool convert(ti_walk *walk, int index, size_t at)
{
    lua_State *L = walk->L;
    ti_builder *scratch = walk->conversion->scratch;
    size_t size;
    ti_cell cell;
    switch (lua_type(L, index)) {
    case LUA_TTABLE:
        return convert_table(walk, index, at);
    case LUA_TSTRING: {
        const char *bytes = lua_tolstring(L, index, &size);
        return ti_builder_string(scratch, at, bytes, size) || refuse(walk, NULL);
    }
    default:
        if (!scalar(L, index, &cell))
            return refuse_type(walk, index);
        *ti_builder_cell(scratch, at) = cell;
        return true;
    }
}

static ti_value *fail(const ti_walk *walk, ti_conversion *conversion)
{
    if (!walk->problem) {
        conversion->code = TI_E_MEMORY_LIMIT;
        snprintf(conversion->message, sizeof conversion->message, "not enough memory for the %s",
                 conversion->root);
        return NULL;
    }
    conversion->code = TI_E_INVALID_PAYLOAD;
    ti_text name = conversion->name;
    snprintf(conversion->message, sizeof conversion->message, "%s%s%.*s%s%.*s%s", conversion->root,
             name.bytes ? "." : "", name.bytes ? (int)name.size : 0, name.bytes ? name.bytes : "",
             walk->path_cut ? "..." : "", (int)walk->path_size,
             walk->path + sizeof walk->path - walk->path_size, walk->problem);
    return NULL;
}

/* Not what needs no value to begin with: it is large. */
static void begin(ti_walk *walk, lua_State *L, ti_conversion *conversion)
{
    walk->L = L;
    walk->conversion = conversion;
    walk->depth = 0;
    walk->path_size = 0;
    walk->path_cut = false;
    walk->problem = NULL;
}

static ti_value *to_table(lua_State *L, int index, ti_conversion *conversion)
{
    ti_walk walk;
    begin(&walk, L, conversion);
    int top = lua_gettop(L);
    ti_value *value = NULL;
    if (ti_builder_begin(conversion->scratch) && convert(&walk, index, 0))
        value = ti_builder_finish(conversion->scratch, conversion->arena);
    lua_settop(L, top);
    ti_builder_trim(conversion->scratch, false);
    return value ? value : fail(&walk, conversion);
}

static ti_value *to_scalar(lua_State *L, int index, ti_conversion *conversion)
{
    ti_walk walk;
    ti_value *value = NULL;
    ti_cell cell;
    begin(&walk, L, conversion);
    if (scalar(L, index, &cell))
        value = ti_value_scalar_in(conversion->arena, &cell);
    else
        refuse_type(&walk, index);
    return value ? value : fail(&walk, conversion);
}

static ti_value *to_string(lua_State *L, int index, ti_conversion *conversion)
{
    size_t size;
    const char *bytes = lua_tolstring(L, index, &size);
    ti_value *value = ti_value_string_in(conversion->arena, bytes, size);
    ti_walk walk;
    if (value)
        return value;
    begin(&walk, L, conversion);
    return fail(&walk, conversion);
}

ti_value *ti_convert_to(lua_State *L, int index, ti_conversion *conversion)
{
    int type = lua_type(L, index);
    if (type == LUA_TSTRING)
        return to_string(L, index, conversion);
    if (type == LUA_TTABLE)
        return to_table(L, lua_absindex(L, index), conversion);
    return to_scalar(L, index, conversion);
}

static int hint(uint64_t size)
{
    return size < 1 << 26 ? (int)size : 1 << 26;
}

static void push_array(lua_State *L, const ti_cell *array)
{
    const ti_cell *items = ti_cell_items(array);
    lua_createtable(L, hint(array->size), 0);
    for (size_t i = 0; i < array->size; i++) {
        ti_convert_push(L, &items[i]);
        lua_rawseti(L, -2, (int)(i + 1));
    }
}

static void push_map(lua_State *L, const ti_cell *map)
{
    const ti_cell *pairs = ti_cell_items(map);
    lua_createtable(L, 0, hint(map->size));
    for (size_t i = 0; i < map->size; i++) {
        ti_convert_push(L, &pairs[2 * i]);
        ti_convert_push(L, &pairs[2 * i + 1]);
        lua_rawset(L, -3);
    }
}

void ti_convert_push(lua_State *L, const ti_cell *cell)
{
    switch ((ti_kind)cell->kind) {
    case TI_NIL:
        lua_pushnil(L);
        break;
    case TI_NULL:
        lua_pushlightuserdata(L, NULL);
        break;
    case TI_BOOLEAN:
        lua_pushboolean(L, cell->as.boolean);
        break;
    case TI_INTEGER:
        tl_push_integer(L, cell->as.integer);
        break;
    case TI_FLOAT:
        lua_pushnumber(L, cell->as.number);
        break;
    case TI_STRING:
        lua_pushlstring(L, ti_cell_string(cell), cell->size);
        break;
    case TI_ARRAY:
        luaL_checkstack(L, 4, "nested tables");
        push_array(L, cell);
        break;
    case TI_MAP:
        luaL_checkstack(L, 4, "nested tables");
        push_map(L, cell);
        break;
    }
}
