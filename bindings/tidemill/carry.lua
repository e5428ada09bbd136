-- SPDX-License-Identifier: MIT
-- Carries callbacks of an inline DAG into the worker states: bytecode, with upvalues copied.
--
-- `pack` runs in the host's state and makes a bundle of plain data; tidemill.unpack undoes it in each worker. In a
-- bundle, functions, tables and upvalues ("cells") are listed once and referred to by number, so what
-- was shared or cyclic stays so; and so are the callbacks and options of the processors ("values"). A
-- scalar stands for itself; anything else is { tag, ... }:
--   { "function", n }  { "table", n }  { "module", name }  { "field", module, name }  { "null" }
--
-- What is in the standard library or in a loaded module travels by name: the worker requires it.
local core = require "tidemill.core"
local join = require "tidemill.join"
local kept = require "tidemill.declare".kept

local M = {}

-- Fields of the modules that are loaded: function -> { module, name }, table -> module name.
local function index_modules()
  local functions, tables = {}, {}
  local names = {}
  for name in next, package.loaded do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names, function(x, y) return #x == #y and x < y or #x < #y end)
  for _, name in ipairs(names) do
    local module = package.loaded[name]
    if type(module) == "table" and not tables[module] then
      tables[module] = name
      for field, value in next, module do
        if type(field) == "string" and type(value) == "function" and not functions[value] then
          functions[value] = { name, field }
        end
      end
    end
  end
  return functions, tables
end

-- In LuaJIT, some of the standard library is bytecode that cannot be dumped.
local standard = {
  _G = true, string = true, table = true, math = true, os = true, io = true, coroutine = true,
  debug = true, utf8 = true, bit = true, bit32 = true, package = true,
}

local function travels_by_name(fn, origin)
  if not origin then return false end
  return debug.getinfo(fn, "S").what == "C" or (rawget(_G, "jit") and standard[origin[1]])
end

-- How a field is named in problems.
local labels = {}
for _, field in ipairs(kept) do labels[field] = field:gsub("_", ".") .. ":" end

local Packer = {}
Packer.__index = Packer

-- A trail is the way to a value, from the inside out: linked, so that a step costs the same however
-- long the way is.
local function path(trail)
  local texts = {}
  while trail do
    table.insert(texts, 1, trail.text)
    trail = trail.before
  end
  return table.concat(texts)
end

-- Notes what cannot travel; nil takes its place, and there will be no DAG.
function Packer:refuse(trail, what)
  self.problems[#self.problems + 1] = {
    processor = self.processor,
    text = ("%s%s%s cannot travel to a worker; use a script"):format(path(trail),
      trail.before and ": " or " ", what),
  }
  return nil
end

local function step(trail, text)
  return { before = trail, text = text }
end

-- Lists a function, table or upvalue once, under its number, and fills it. What has a problem is
-- forgotten again, so that every processor that wants it reports it.
function Packer:once(kind, value, entry, fill)
  local numbers, list = self.numbers[kind], self.bundle[kind]
  if not numbers[value] then
    local before = #self.problems
    list[#list + 1] = entry
    numbers[value] = #list
    fill()
    if #self.problems > before then
      numbers[value] = nil
      return nil
    end
  end
  return numbers[value]
end

function Packer:table(value, trail)
  local name = self.module_of[value]
  if name then return { "module", name } end
  if debug.getmetatable(value) then return self:refuse(trail, "a table with a metatable") end
  local entries = {}
  return { "table", self:once("tables", value, entries, function()
    for key, item in next, value do
      local name_of_key = type(key) == "string" and "." .. key or ("[%s]"):format(tostring(key))
      entries[#entries + 1] = self:encode(key, step(trail, " with a key"))
      entries[#entries + 1] = self:encode(item, step(trail, name_of_key))
    end
  end) }
end

-- What `_ENV` (in 5.1, a function's environment) holds becomes the worker's globals: so it must be the
-- globals here, or something that stands in for them through a metatable, as test runners have it.
local function is_globals(environment)
  return environment == _G or debug.getmetatable(environment) ~= nil
end

function Packer:cell(fn, index, name, value, trail)
  local cell = {}
  return self:once("cells", self.identify(fn, index), cell, function()
    if name == "_ENV" and is_globals(value) then value = _G end
    cell.value = self:encode(value, step(trail, (" upvalue '%s'"):format(name)))
  end)
end

function Packer:upvalues(fn, trail)
  local cells, index = {}, 1
  while true do
    local name, value = debug.getupvalue(fn, index)
    if not name then return cells end
    cells[index] = self:cell(fn, index, name == "" and "?" or name, value, trail)
    index = index + 1
  end
end

local function has_other_globals(fn)
  return rawget(_G, "getfenv") and not is_globals(getfenv(fn)) -- luacheck: ignore 113
end

function Packer:fn(value, trail)
  local origin = self.origin_of[value]
  if travels_by_name(value, origin) then return { "field", origin[1], origin[2] } end
  if debug.getinfo(value, "S").what == "C" then return self:refuse(trail, "a C function") end
  if has_other_globals(value) then
    return self:refuse(trail, "a function with an environment of its own")
  end
  local entry = {}
  return { "function", self:once("functions", value, entry, function()
    entry.code = string.dump(value)
    entry.cells = self:upvalues(value, trail)
  end) }
end

function Packer:encode(value, trail)
  local kind = type(value)
  if value == core.null then return { "null" } end
  if kind == "function" then return self:fn(value, trail) end
  if kind == "table" then return self:table(value, trail) end
  if kind ~= "nil" and kind ~= "boolean" and kind ~= "number" and kind ~= "string" then
    return self:refuse(trail, "a " .. kind)
  end
  return value
end

-- Upvalues that are nested very deep overflow the stack, which is a problem like others.
function Packer:guarded(value, label)
  local ok, encoded = pcall(self.encode, self, value, { text = label })
  if ok then return encoded end
  if not tostring(encoded):find "overflow" then error(encoded, 0) end
  return self:refuse({ text = label }, "a value that is nested this deep")
end

-- The number of what a processor has in a field. Most processors of a large DAG have what others have, too.
function Packer:number(value, label)
  local number = self.known[value]
  if number then return number end
  local before, values = #self.problems, self.bundle.values
  values[#values + 1] = self:guarded(value, label)
  if #self.problems > before then return nil end
  if value == value then self.known[value] = #values end
  return #values
end

--- The bundle for callbacks as declare.functions lists them, and the problems there are. Its `kept` has the same
-- lists, with numbers of `values` in the place of functions and options.
function M.pack(functions)
  local origin_of, module_of = index_modules()
  local packer = setmetatable({
    bundle = { functions = {}, tables = {}, cells = {}, values = {}, kept = {} },
    numbers = { functions = {}, tables = {}, cells = {} }, known = {},
    problems = {}, identify = join.identifier(), origin_of = origin_of, module_of = module_of,
  }, Packer)
  local bundle = packer.bundle
  bundle.count, bundle.id, bundle.timed = functions.count, functions.id, functions.timed
  local fields = {}
  for _, field in ipairs(kept) do
    bundle.kept[field] = {}
    if next(functions[field]) ~= nil then fields[#fields + 1] = field end
  end
  for index = 1, functions.count do
    packer.processor = index
    for _, field in ipairs(fields) do
      local value = functions[field][index]
      if value ~= nil then bundle.kept[field][index] = packer:number(value, labels[field]) end
    end
  end
  return bundle, packer.problems
end

return M
