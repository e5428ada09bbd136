-- SPDX-License-Identifier: MIT
-- Callbacks of an inline DAG, in a worker's state: what tidemill.carry packed. A module of its own, because the
-- collector of each worker has to walk over what is loaded there.
local core = require "tidemill.core"
local join = require "tidemill.join"

-- A module that lacks the field here, or a module that cannot be loaded, is an error of the load.
local function by_name(require_module, module, field)
  local ok, value = pcall(require_module, module)
  if not ok then
    error(("an upvalue refers to module '%s', which a worker cannot load: %s"):format(module,
      tostring(value)), 0)
  end
  if field then value = value[field] end
  if value == nil then error(("%s.%s does not exist in a worker"):format(module, field), 0) end
  return value
end

local function confine(functions, environment)
  local set_environment = rawget(_G, "setfenv") -- luacheck: ignore 113
  local jit = rawget(_G, "jit") -- luacheck: ignore 113
  for _, fn in ipairs(functions) do
    if set_environment then set_environment(fn, environment) end
    if jit then jit.off(fn, true) end
  end
end

--- What a bundle was packed from; in an environment that has its own `require`, or nil: in that of the state.
return function(bundle, environment)
  local functions = join.load(bundle.functions, #bundle.cells)
  local require_module = environment and environment.require or require
  if environment then confine(functions, environment) end
  local tables = {}
  for i = 1, #bundle.tables do tables[i] = {} end
  local function decode(value)
    if type(value) ~= "table" then return value end
    local tag = value[1]
    if tag == "function" then return functions[value[2]] end
    if tag == "table" then return tables[value[2]] end
    if tag == "null" then return core.null end
    return by_name(require_module, value[2], value[3])
  end
  for i, entries in ipairs(bundle.tables) do
    for at = 1, #entries, 2 do tables[i][decode(entries[at])] = decode(entries[at + 1]) end
  end
  for number, entry in ipairs(bundle.functions) do
    for index, cell in ipairs(entry.cells) do
      debug.setupvalue(functions[number], index, decode(bundle.cells[cell].value))
    end
  end
  local values = {}
  for number, value in ipairs(bundle.values) do values[number] = decode(value) end
  local unpacked = { count = bundle.count, id = bundle.id, timed = bundle.timed }
  for field, numbers in pairs(bundle.kept) do
    local list = {}
    for index, number in pairs(numbers) do list[index] = values[number] end
    unpacked[field] = list
  end
  return unpacked
end
