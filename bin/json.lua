-- SPDX-License-Identifier: MIT
-- Lua values, results and comparisons -> JSON, always valid and always the same text for the same value.
--
-- Keys are sorted. tidemill.null, nan and the infinities become null. A table with the keys 1..n is an array, an
-- empty one is []; any other is an object, whose keys are written as strings. Bytes that are no UTF-8 become U+FFFD:
-- the exact bytes of a payload come from --format payload.

local dkjson = require "dkjson"
local printable = require "tidemill.printable"

local json = {}

-- dkjson writes numbers with tostring, which loses digits; through this it writes them as they are.
local Number = {
  __tojson = function(self) return self.text end,
}

local function from_number(x)
  if x ~= x or x == math.huge or x == -math.huge then return dkjson.null end
  return setmetatable({ text = printable.number(x) }, Number)
end

local function is_array(value)
  local count, greatest = 0, 0
  for key in pairs(value) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then return false end
    count, greatest = count + 1, math.max(greatest, key)
  end
  return count == greatest
end

-- Marks a table that is an object even when it is empty.
local Object = {}

local function as_object(value)
  return setmetatable(value, Object)
end

local function key_text(key)
  return type(key) == "number" and printable.number(key) or printable.utf8(tostring(key))
end

local prepare

local function prepare_array(value)
  local array = {}
  for i = 1, #value do array[i] = prepare(value[i]) end
  return setmetatable(array, { __jsontype = "array" })
end

-- Where two keys become the same text, as 1 and "1" do, the string's value is the one that stays.
local function prepare_object(value)
  local object, order = {}, {}
  for key, item in pairs(value) do
    local text = key_text(key)
    if object[text] == nil then order[#order + 1] = text end
    if object[text] == nil or text == key then object[text] = prepare(item) end
  end
  table.sort(order)
  return setmetatable(object, { __jsontype = "object", __jsonorder = order })
end

local function prepare_table(value)
  if value == dkjson.null then return value end
  local array = getmetatable(value) ~= Object and is_array(value)
  return array and prepare_array(value) or prepare_object(value)
end

function prepare(value)
  local kind = type(value)
  if kind == "string" then return printable.utf8(value) end
  if kind == "number" then return from_number(value) end
  if kind == "boolean" then return value end
  if kind == "table" then return prepare_table(value) end
  return dkjson.null   -- nil and tidemill.null
end

function json.encode(value)
  return dkjson.encode(prepare(value))
end

local function plain_error(err)
  return err and as_object {
    code = err.code, processor = err.processor, message = err.message, traceback = err.traceback,
    attempt = err.attempt, cause = err.cause, root = err.root, problems = err.problems,
  }
end

local function map(list, transform)
  local mapped = {}
  for key, value in pairs(list or {}) do mapped[key] = transform(value) end
  return mapped
end

local function plain_outcome(outcome)
  local plain = as_object {}
  for key, value in pairs(outcome) do plain[key] = value end
  plain.error = plain_error(outcome.error)
  plain.errors = outcome.errors and map(outcome.errors, plain_error)
  return plain
end

local function or_null(value)
  if value == nil then return dkjson.null end
  return value
end

-- What a run came to, as one object with the same names as the result in Lua. Without a result, because the script did
-- not load, it has the error alone.
function json.report(name, result, err)
  result = result or {}
  local metadata = map(result.metadata, function(value) return value end)
  return json.encode(as_object {
    dag = or_null(name),
    duration = result.duration,
    error = or_null(plain_error(err)),
    failures = map(result.failures, plain_error),
    metadata = as_object(metadata),
    ok = err == nil,
    outcomes = as_object(map(result.outcomes, plain_outcome)),
    payload = or_null(result.payload),
  })
end

-- What became of one item of an input, as one object.
function json.item(noun, number, result, err)
  result = result or {}
  return json.encode(as_object {
    [noun] = number,
    error = or_null(plain_error(err)),
    failures = map(result.failures or err and err.failures, plain_error),
    metadata = as_object(map(result.metadata, function(value) return value end)),
    ok = err == nil,
    payload = or_null(result.payload),
  })
end

local function plain_difference(difference)
  return {
    path = difference.path, expected = or_null(difference.expected), actual = or_null(difference.actual),
  }
end

local function plain_strategy(it)
  local plain = as_object {}
  for key, value in pairs(it) do plain[key] = value end
  local differences = it.differences or { count = 0 }
  plain.differences = { count = differences.count, first = map(differences.first, plain_difference) }
  return plain
end

-- What tidemill.compare found, and the error of the first run that had one. Without a comparison, because the script
-- did not load or a run had no result, it has the error alone.
function json.comparison(name, comparison, err, strategy)
  comparison = comparison or {}
  return json.encode(as_object {
    dag = or_null(name),
    equal = or_null(comparison.equal),
    error = or_null(plain_error(err)),
    failed_under = or_null(strategy),
    ok = err == nil and comparison.equal,
    runs = comparison.runs,
    strategies = map(comparison.strategies, plain_strategy),
    workers = comparison.workers,
  })
end

return json
