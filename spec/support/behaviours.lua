-- SPDX-License-Identifier: MIT
-- Callbacks made from data. behaviours.transform.append { tag = "x", rank = 2, spin = 100 } is a function that may run
-- in the host as well as in a worker: its upvalues are plain values and other such functions, and what it answers
-- depends on its payload and its ctx alone.

local behaviours = { transform = {}, analyze = {}, failing_transform = {}, failing_analyze = {}, condition = {} }

local transform, analyze = behaviours.transform, behaviours.analyze
local failing_transform, failing_analyze = behaviours.failing_transform, behaviours.failing_analyze
local condition = behaviours.condition

local function spin(count)
  local sum = 0
  for step = 1, count do sum = (sum + step) % 7 end
  return sum
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

-- One text per value, whatever the order in which its keys come.
local function canonical(value)
  if type(value) ~= "table" then return type(value) .. ":" .. tostring(value) end
  local parts = {}
  for _, key in ipairs(sorted_keys(value)) do
    parts[#parts + 1] = canonical(key) .. "=" .. canonical(value[key])
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function digest(value)
  local text, hash = canonical(value), 17
  for position = 1, #text do hash = (hash * 31 + text:byte(position)) % 2147483647 end
  return ("%d"):format(hash)
end

-- Adds a piece to a payload of any kind; a table is changed in place, which nobody else may notice.
local function fold(payload, piece)
  if type(payload) == "string" then return payload .. piece end
  if type(payload) ~= "table" then return tostring(payload) .. piece end
  payload[#payload + 1] = piece
  return payload
end

local function signature(b)
  return "|" .. b.tag .. ":" .. b.rank
end

local function dependencies_digest(dependencies)
  local seen = {}
  for _, id in ipairs(sorted_keys(dependencies)) do
    local dependency = dependencies[id]
    local failure = dependency.error or {}
    seen[id] = {
      status = dependency.status,
      payload = dependency.payload,
      metadata = dependency.metadata,
      code = failure.code,
      processor = failure.processor,
    }
  end
  return digest(seen)
end

-- Breaks everything within reach.
local function vandalise(map)
  for _, key in ipairs(sorted_keys(map)) do
    if type(map[key]) == "table" then vandalise(map[key]) end
    map[key] = nil
  end
  map.vandalised = true
end

function transform.append(b)
  return function(payload)
    spin(b.spin)
    return fold(payload, signature(b))
  end
end

function transform.append_and_tell(b)
  return function(payload, ctx)
    spin(b.spin)
    return fold(payload, signature(b)), { tag = b.tag, id = ctx.id, attempt = ctx.attempt, list = { b.rank, b.tag } }
  end
end

function transform.keep(b)
  return function(payload)
    spin(b.spin)
    return payload
  end
end

function transform.replace(b)
  return function()
    spin(b.spin)
    return b.value
  end
end

function transform.fold_metadata(b)
  return function(payload, ctx)
    spin(b.spin)
    local seen = digest(ctx.metadata)
    return fold(payload, signature(b) .. "#" .. seen), { seen = seen }
  end
end

function transform.fold_dependencies(b)
  return function(payload, ctx)
    spin(b.spin)
    return fold(payload, signature(b) .. "@" .. dependencies_digest(ctx.dependencies))
  end
end

function transform.vandal(b)
  return function(payload, ctx)
    spin(b.spin)
    local text = signature(b) .. "~" .. digest(payload)
    if type(payload) == "table" then vandalise(payload) end
    vandalise(ctx.metadata)
    vandalise(ctx.dependencies)
    return text, {}
  end
end

function analyze.measure(b)
  return function(payload)
    spin(b.spin)
    return { tag = b.tag, seen = digest(payload), nested = { list = { 1, 2, b.rank }, flag = true } }
  end
end

function analyze.silent(b)
  return function() spin(b.spin) end
end

function analyze.return_nil(b)
  return function()
    spin(b.spin)
    return nil
  end
end

function analyze.fold_metadata(b)
  return function(_, ctx)
    spin(b.spin)
    return { seen = digest(ctx.metadata) }
  end
end

function analyze.fold_dependencies(b)
  return function(_, ctx)
    spin(b.spin)
    return { seen = dependencies_digest(ctx.dependencies) }
  end
end

function analyze.vandal(b)
  return function(payload, ctx)
    spin(b.spin)
    if type(payload) == "table" then vandalise(payload) end
    vandalise(ctx.metadata)
    vandalise(ctx.dependencies)
    return { tag = b.tag }
  end
end

local function raise_string(b)
  return function()
    spin(b.spin)
    error("raised by " .. b.tag)
  end
end

local function raise_bare_string(b)
  return function()
    spin(b.spin)
    error("raised by " .. b.tag, 0)
  end
end

local function raise_table(b)
  return function()
    spin(b.spin)
    error { tag = b.tag, rank = b.rank, list = { 1, 2, 3 } }
  end
end

local function refuse(b)
  return function()
    spin(b.spin)
    return nil, "refused by " .. b.tag
  end
end

local function return_function_inside_metadata(b)
  return function() return { deep = { list = { b.tag, print } } } end
end

failing_transform.raise_string = raise_string
failing_transform.raise_bare_string = raise_bare_string
failing_transform.raise_table = raise_table
failing_transform.refuse = refuse
failing_analyze.raise_string = raise_string
failing_analyze.raise_bare_string = raise_bare_string
failing_analyze.raise_table = raise_table
failing_analyze.refuse = refuse
failing_analyze.return_function_inside = return_function_inside_metadata

function failing_transform.return_nothing(b)
  return function() spin(b.spin) end
end

function failing_transform.return_wrong_metadata(b)
  return function(payload) return payload, b.rank end
end

function failing_transform.return_too_much(b)
  return function(payload) return payload, {}, b.tag end
end

function failing_transform.return_function_inside(b)
  return function() return { items = { 1, 2, { [b.tag] = print } } } end
end

function failing_analyze.return_string(b)
  return function() return b.tag end
end

function failing_analyze.return_too_much(b)
  return function() return {}, b.tag end
end

-- Conditions: functions of the metadata and the payload.

function condition.always()
  return function() return true end
end

function condition.never()
  return function() return false end
end

function condition.answer_nothing()
  return function() end
end

function condition.by_payload()
  return function(_, payload) return digest(payload):byte(-1) % 2 == 0 end
end

function condition.by_metadata()
  return function(metadata) return digest(metadata):byte(-1) % 2 == 0 end
end

function condition.vandal()
  return function(metadata, payload)
    vandalise(metadata)
    if type(payload) == "table" then vandalise(payload) end
    return "yes"
  end
end

behaviours.failing_condition = { raise_string = raise_string, raise_table = raise_table }

return behaviours
