-- SPDX-License-Identifier: MIT
-- Environments for scripts that nobody has read. In a worker's state only.
--
-- A callback is stopped between two instructions of Lua, so nothing here may stay inside C for long: what
-- could is written in Lua, matches in steps that count (core.pattern), or refuses sizes beyond the bounds
-- below. Functions are shared by all scripts of a state and cannot be changed; tables are made for each.
local core = require "tidemill.core"

local getmetatable = debug.getmetatable -- the real one
local byte, len, sub, native_rep = string.byte, string.len, string.sub, string.rep
local concat, native_insert, native_remove = table.concat, table.insert, table.remove
local error, select, type, tostring, tonumber = error, select, type, tostring, tonumber
local pcall, rawget, rawset, setmetatable = pcall, rawget, rawset, setmetatable
local find, match, scan, charge = core.pattern.find, core.pattern.match, core.pattern.scan, core.pattern.charge

local jit, setfenv = rawget(_G, "jit"), rawget(_G, "setfenv") -- luacheck: ignore 113
if jit then jit.off(true, true) end -- hooks are not looked at in compiled code

local M = {}

-- Bounds, in bytes and items. The slowest of what is within them takes some tenths of a second.
local MOST_BYTES = 2 ^ 24 -- that string.rep or a padding of string.pack make
local MOST_SOURCE = 2 ^ 20 -- that load compiles
local MOST_MOVED = 2 ^ 16 -- that a table function moves inside C

local RAW = _VERSION == "Lua 5.1" -- its table functions and gsub know no metamethods, and match differently

local function bad_argument(index, name, wanted, value)
  error(("bad argument #%d to '%s' (%s expected, got %s)"):format(index, name, wanted,
    value == nil and "no value" or type(value)), 3)
end

-- As the string functions read their arguments: numbers are strings, too.
local function to_text(index, name, value)
  if type(value) == "string" then return value end
  if type(value) ~= "number" then bad_argument(index, name, "string", value) end
  return tostring(value)
end

local methods = {}

for _, name in ipairs { "byte", "char", "format", "len", "lower", "reverse", "sub", "unpack", "upper" } do
  methods[name] = string[name]
end
methods.find, methods.match = find, match

function methods.rep(text, count, separator)
  local size = len(text) + (separator and len(separator) or 0)
  local times = tonumber(count)
  if times and times > 0 then
    if size == 0 then return "" end -- Lua's own counts to the end
    if size * times > MOST_BYTES then
      error(("string.rep makes at most %d bytes in a sandbox"):format(MOST_BYTES), 2)
    end
  end
  if separator == nil then return native_rep(text, count) end
  return native_rep(text, count, separator)
end

-- Padding ("c1000000") makes much out of little.
if string.pack then -- luacheck: ignore 143
  local pack, packsize = string.pack, string.packsize -- luacheck: ignore 143
  local function check(form)
    local at, total = 1, 0
    while true do
      local _, stop, digits = find(form, "c(%d+)", at)
      if not stop then return end
      total, at = total + tonumber(digits), stop + 1
      if total > MOST_BYTES then error(("string.pack pads at most %d bytes in a sandbox"):format(MOST_BYTES), 3) end
    end
  end
  function methods.pack(form, ...)
    check(to_text(1, "pack", form))
    return pack(form, ...)
  end
  methods.packsize = packsize
end

-- Pieces of a long text. They are joined now and then, so that there are never many.
local function append(buffer, piece)
  local count = buffer.count + 1
  buffer[count] = piece
  if count == 4096 then
    buffer.whole[#buffer.whole + 1] = concat(buffer)
    for i = 1, count do buffer[i] = nil end
    count = 0
  end
  buffer.count = count
end

local function finish(buffer)
  buffer.whole[#buffer.whole + 1] = concat(buffer)
  return concat(buffer.whole)
end

-- What takes the place of a match, for a replacement string: "%1" and the like are filled in.
local function filler(text)
  if not find(text, "%", 1, true) then return function() return text end end
  return function(whole, ...)
    local out, at = { count = 0, whole = {} }, 1
    while true do
      local percent = find(text, "%", at, true)
      append(out, sub(text, at, (percent or 0) - 1))
      if not percent then return finish(out) end
      local what = sub(text, percent + 1, percent + 1)
      local index = find(what, "^%d") and tonumber(what)
      if not index then
        if what ~= "%" and not RAW then error("invalid use of '%' in replacement string", 4) end
        append(out, what)
      elseif index == 0 or (index == 1 and select("#", ...) == 0) then
        append(out, whole)
      elseif index > select("#", ...) then
        error(("invalid capture index %%%d in replacement string"):format(index), 4)
      else
        append(out, (select(index, ...)))
      end
      at = percent + 2
    end
  end
end

local function replacer(replacement)
  local kind = type(replacement)
  if kind == "string" or kind == "number" then return filler(tostring(replacement)) end
  if kind == "function" then
    return function(whole, ...)
      if select("#", ...) == 0 then return replacement(whole) end
      return replacement(...)
    end
  end
  if kind == "table" then
    return function(whole, ...)
      local key = whole
      if select("#", ...) > 0 then key = ... end
      return replacement[key]
    end
  end
  bad_argument(3, "gsub", "string/function/table", replacement)
end

function methods.gsub(text, pattern, replacement, most)
  text, pattern = to_text(1, "gsub", text), to_text(2, "gsub", pattern)
  local replace, anchored = replacer(replacement), byte(pattern) == 94
  if most ~= nil then
    local limit = tonumber(most)
    if not limit then bad_argument(4, "gsub", "number", most) end
    most = limit
  end
  local out, count, at, last, size = { count = 0, whole = {} }, 0, 1, 0, len(text)
  local function step(first, stop, ...)
    if not first then return nil end
    local whole = sub(text, first, stop - 1)
    local value = replace(whole, ...)
    if not value then
      value = whole
    elseif type(value) ~= "string" and type(value) ~= "number" then
      error(("invalid replacement value (a %s)"):format(type(value)), 3)
    end
    return first, stop, value
  end
  while (not most or count < most) and at <= size + 1 do
    local first, stop, value = step(scan(text, pattern, at, last, true))
    if not first then break end
    append(out, sub(text, at, first - 1))
    append(out, value)
    count, at = count + 1, stop
    if not RAW then
      last = stop
    elseif stop == first then -- 5.1 goes on one further
      append(out, sub(text, stop, stop))
      at = stop + 1
    end
    if anchored then break end
  end
  append(out, sub(text, at))
  return finish(out), count
end

function methods.gmatch(text, pattern, init)
  text, pattern = to_text(1, "gmatch", text), to_text(2, "gmatch", pattern)
  local at, last = 1, 0
  if init ~= nil and _VERSION == "Lua 5.4" then
    at = tonumber(init) or bad_argument(3, "gmatch", "number", init)
    if at < 0 then at = at < -len(text) and 1 or len(text) + at + 1 end
    if at == 0 then at = 1 end
  end
  local function step(first, stop, ...)
    if not first then
      at = len(text) + 2
      return nil
    end
    at, last = stop, RAW and 0 or stop
    if RAW and stop == first then at = stop + 1 end
    if select("#", ...) > 0 then return ... end
    return sub(text, first, stop - 1)
  end
  return function()
    if at > len(text) + 1 then return nil end
    return step(scan(text, pattern, at, last, false))
  end
end

--- The methods of strings in this state are the bounded ones from now on, and nobody can change them.
local hardened = false
local function harden()
  if hardened then return end
  hardened = true
  local meta = getmetatable ""
  meta.__index, meta.__metatable = methods, false
end

-- A border of a list may be far beyond what is in it: moving items in C could take for ever.
local function is_short(list, size, at)
  return getmetatable(list) == nil and size - at <= MOST_MOVED
end

-- A position in a list from 1 to `most`.
local function to_position(name, value, most)
  local at = tonumber(value)
  if not at then bad_argument(2, name, "number", value) end
  if at >= 1 and at <= most and at % 1 == 0 then return at end
  error(("bad argument #2 to '%s' (position out of bounds)"):format(name), 3)
end

local get, set = RAW and rawget or function(list, i) return list[i] end,
  RAW and rawset or function(list, i, value) list[i] = value end

local tables = { concat = concat, pack = table.pack, unpack = table.unpack } -- luacheck: ignore 143

local function check_list(name, list)
  if type(list) ~= "table" then bad_argument(1, name, "table", list) end
  return #list
end

function tables.insert(list, ...)
  local size, count = check_list("insert", list), select("#", ...)
  if count == 1 then
    set(list, size + 1, (...))
    return
  end
  if count ~= 2 then error("wrong number of arguments to 'insert'", 2) end
  local at, value = ...
  at = to_position("insert", at, size + 1)
  if is_short(list, size, at) then return native_insert(list, at, value) end
  for i = size, at, -1 do set(list, i + 1, get(list, i)) end
  set(list, at, value)
end

function tables.remove(list, at)
  local size = check_list("remove", list)
  if at == nil then at = size end
  if size == 0 and at == 0 then at = 1 end
  if RAW and type(at) == "number" and not (at >= 1 and at <= size) then return end
  at = to_position("remove", at, size + 1)
  if is_short(list, size, at) then return native_remove(list, at) end
  local value = get(list, at)
  for i = at, size - 1 do set(list, i, get(list, i + 1)) end
  if at <= size then set(list, size, nil) end
  return value
end

if table.move then -- luacheck: ignore 143
  function tables.move(from, first, last, at, to)
    if to == nil then to = from end
    if type(from) ~= "table" then bad_argument(1, "move", "table", from) end
    if type(to) ~= "table" then bad_argument(5, "move", "table", to) end
    first, last, at = tonumber(first), tonumber(last), tonumber(at)
    if not (first and last and at) then error("table.move takes numbers", 2) end
    if at > last or at <= first or from ~= to then
      for i = 0, last - first do to[at + i] = from[first + i] end
    else
      for i = last - first, 0, -1 do to[at + i] = from[first + i] end
    end
    return to
  end
end

-- Merges list[first .. middle - 1], copied to `spare`, with list[middle .. last].
local function merge(list, spare, first, middle, last, less)
  for i = first, middle - 1 do spare[i] = get(list, i) end
  local left, right, at = first, middle, first
  while left < middle do
    if right <= last and less(get(list, right), spare[left]) then
      set(list, at, get(list, right))
      right = right + 1
    else
      set(list, at, spare[left])
      left = left + 1
    end
    at = at + 1
  end
end

local function sort_range(list, spare, first, last, less)
  if last - first < 8 then
    for i = first + 1, last do
      local value, at = get(list, i), i
      while at > first and less(value, get(list, at - 1)) do
        set(list, at, get(list, at - 1))
        at = at - 1
      end
      set(list, at, value)
    end
    return
  end
  local middle = first + (last - first + 1) / 2
  middle = middle - middle % 1
  sort_range(list, spare, first, middle - 1, less)
  sort_range(list, spare, middle, last, less)
  merge(list, spare, first, middle, last, less)
end

local function ascending(x, y) return x < y end

-- In Lua: a comparison may be of long strings, and there may be many of them.
function tables.sort(list, less)
  local size = check_list("sort", list)
  if less ~= nil and type(less) ~= "function" then bad_argument(2, "sort", "function", less) end
  sort_range(list, {}, 1, size, less or ascending)
end

-- Random numbers, for each script its own: L'Ecuyer's combination of two generators, which needs no more
-- than the 53 bits that a number has everywhere.
local function generator()
  local one, two = 1, 1
  local function seed(number)
    number = tonumber(number) or os.time()
    number = number == number and number % 2147483562 or 0
    one = 1 + (number - number % 1)
    two = 1 + one * 69621 % 2147483398
  end
  local function next_number()
    one = one * 40014 % 2147483563
    two = two * 40692 % 2147483399
    return (one - two) % 2147483562 / 2147483562
  end
  local function random(low, high)
    if low == nil then return next_number() end
    if high == nil then low, high = 1, low end
    if type(low) ~= "number" or type(high) ~= "number" then error("math.random takes numbers", 2) end
    if low > high then error("bad argument to 'random' (interval is empty)", 2) end
    local offset = next_number() * (high - low + 1)
    offset = offset - offset % 1
    return math.tointeger and math.tointeger(low + offset) or low + offset -- luacheck: ignore 143
  end
  seed(math.random() * 2147483562)
  return random, seed
end

local function copy(library, names)
  local made = {}
  for _, name in ipairs(names) do made[name] = library[name] end
  return made
end

local numbers = {
  "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge",
  "ldexp", "log", "log10", "max", "maxinteger", "min", "mininteger", "mod", "modf", "pi", "pow", "rad", "sin",
  "sinh", "sqrt", "tan", "tanh", "tointeger", "type", "ult",
}

local function math_library(profile)
  local made = copy(math, numbers)
  if profile ~= "pure" then made.random, made.randomseed = generator() end
  return made
end

-- Libraries that some have.
local others = {
  bit = { "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift", "tobit", "tohex" },
  bit32 = { "arshift", "band", "bnot", "bor", "btest", "bxor", "extract", "lrotate", "lshift", "replace", "rrotate",
    "rshift" },
  utf8 = { "char", "charpattern", "codepoint", "codes", "len", "offset" },
}

-- A coroutine begins with no instructions counted, so it is charged some.
local function coroutine_library()
  local made = copy(coroutine, { "close", "isyieldable", "resume", "running", "status", "yield" })
  local create, wrap = coroutine.create, coroutine.wrap
  function made.create(body)
    charge(100)
    return create(body)
  end
  function made.wrap(body)
    charge(100)
    return wrap(body)
  end
  return made
end

local function guarded_setmetatable(object, meta)
  if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
    error("__gc is not available in a sandbox", 2)
  end
  return setmetatable(object, meta)
end

local native_load = rawget(_G, "loadstring") or load -- luacheck: ignore 113

--- Compiles source, never bytecode, for an environment: the function, or nil and why not.
local function compile(text, name, environment)
  if byte(text) == 27 then return nil, "bytecode is never loaded in a sandbox; use the source" end
  local fn, why
  if setfenv and not jit then
    fn, why = native_load(text, name)
    if fn then setfenv(fn, environment) end
  else
    fn, why = load(text, name, "t", environment)
  end
  if fn and jit then jit.off(fn, true) end
  return fn, why
end

local function read_all(reader)
  local pieces, size = {}, 0
  while true do
    local piece = reader()
    if piece == nil or piece == "" then return concat(pieces) end
    if type(piece) ~= "string" then error("reader function must return a string", 0) end
    size = size + #piece
    if size > MOST_SOURCE then return concat(pieces) .. piece end
    pieces[#pieces + 1] = piece
  end
end

local function loader(environment)
  return function(chunk, name, mode, ...)
    local text = chunk
    if type(chunk) == "function" then
      local ok, read = pcall(read_all, chunk)
      if not ok then return nil, read end
      text, name = read, name or "=(load)"
    end
    if type(text) ~= "string" then bad_argument(1, "load", "string", chunk) end
    if #text > MOST_SOURCE then
      return nil, ("load compiles at most %d bytes in a sandbox"):format(MOST_SOURCE)
    end
    if mode ~= nil and not find(mode, "t", 1, true) then
      return nil, ("attempt to load a text chunk (mode is '%s')"):format(tostring(mode))
    end
    local target = environment
    if select("#", ...) > 0 then target = ... end
    if setfenv and type(target) ~= "table" then bad_argument(4, "load", "table", target) end
    return compile(text, name == nil and text or tostring(name), target)
  end
end

local function read_file(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

-- A module is a file beside the script, and runs in the script's environment.
local function find_module(name, directory)
  if not directory or find(name, "[^%w_%-%.]") or find("." .. name .. ".", "..", 1, true) then return nil end
  local path = directory .. (methods.gsub(name, "%.", "/"))
  for _, file in ipairs { path .. ".lua", path .. "/init.lua" } do
    local text = read_file(file)
    if text then return text, file end
  end
end

local function requirer(environment, loaded, directory)
  local LOADING = {}
  return function(name)
    if type(name) ~= "string" then bad_argument(1, "require", "string", name) end
    if loaded[name] == LOADING then error(("module '%s' requires itself"):format(name), 2) end
    if loaded[name] ~= nil then return loaded[name] end
    local text, file = find_module(name, directory)
    if not text then
      error(("module '%s' not found: a sandboxed script may require tidemill, and files beside it"):format(name), 2)
    end
    local fn, why = compile(text, "@" .. file, environment)
    if not fn then error(("error loading module '%s': %s"):format(name, why), 2) end
    loaded[name] = LOADING
    local ok, value = pcall(fn, name, file)
    loaded[name] = nil
    if not ok then error(value, 0) end
    loaded[name] = value == nil and true or value
    return loaded[name]
  end
end

local function facade()
  return copy(require "tidemill", { "analyze", "dag", "null", "transform", "version" })
end

local plain = {
  "_VERSION", "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget",
  "rawlen", "rawset", "select", "tonumber", "tostring", "type", "xpcall",
}

local function only_count(option)
  if option == nil or option == "collect" or option == "step" then return 0 end
  if option == "count" then return collectgarbage "count" end
  error(("collectgarbage: '%s' is not available in a sandbox"):format(tostring(option)), 2)
end

--- A fresh environment for one script, and what its `require` knows. The script's directory, with a "/" at
-- its end, has its modules; nil: it has none.
function M.environment(profile, directory)
  harden()
  local made = copy(_G, plain)
  local loaded = {
    _G = made, coroutine = coroutine_library(), math = math_library(profile),
    string = copy(methods, { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "pack",
      "packsize", "rep", "reverse", "sub", "unpack", "upper" }),
    table = copy(tables, { "concat", "insert", "move", "pack", "remove", "sort", "unpack" }),
    tidemill = facade(),
  }
  for name, fields in next, others do
    local library = rawget(_G, name)
    if library then loaded[name] = copy(library, fields) end
  end
  if profile ~= "pure" then
    loaded.os = copy(os, { "clock", "date", "difftime", "time" })
    made.collectgarbage = only_count
  end
  for name, library in next, loaded do
    if name ~= "tidemill" then made[name] = library end
  end
  made.setmetatable = guarded_setmetatable
  made.load = loader(made)
  if RAW then
    made.loadstring, made.unpack = made.load, unpack -- luacheck: ignore 113 143
  end
  made.require = requirer(made, loaded, directory)
  return made
end

--- Compiles the text of a script for an environment; raises why it can't.
function M.compile(text, name, environment)
  local fn, why = compile(text, name, environment)
  if not fn then error(why, 0) end
  return fn
end

return M
