-- SPDX-License-Identifier: MIT
-- Lua values, results and comparisons -> JSON, always valid and always the same text for the same value.
--
-- Keys are sorted. tidemill.null, nan and the infinities become null. A table with the keys 1..n is an array, an
-- empty one is []; any other is an object, whose keys are written as strings. Bytes that are no UTF-8 become U+FFFD:
-- the exact bytes of a payload come from --format payload.

local printable = require "tidemill.printable"

local json = {}

local NULL = {}
local math_type = math.type or function() end

-- Marks a table that is an object even when it is empty.
local Object = {}

local function as_object(value)
  return setmetatable(value, Object)
end

local ESCAPES = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}

local function escape(char)
  return ESCAPES[char] or ("\\u%04x"):format(char:byte())
end

local function quoted(text)
  if text:find "[\128-\255]" then text = printable.utf8(text) end
  if text:find '[%c"\\]' then text = text:gsub('[%c"\\]', escape) end
  return '"' .. text .. '"'
end

local function is_array(value)
  local count, greatest = 0, 0
  for key in pairs(value) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then return false end
    count, greatest = count + 1, math.max(greatest, key)
  end
  return count == greatest
end

local add

local function add_array(parts, value)
  parts[#parts + 1] = "["
  for i = 1, #value do
    if i > 1 then parts[#parts + 1] = "," end
    add(parts, value[i])
  end
  parts[#parts + 1] = "]"
end

local function key_text(key)
  return type(key) == "number" and printable.number(key) or tostring(key)
end

-- The texts of the keys, in order, and the keys by their texts. Where two keys have the same text, as 1 and "1" do, the
-- string is the one that stays.
local function key_texts(value)
  local texts, keys = {}, {}
  for key in pairs(value) do
    local text = type(key) == "string" and key or key_text(key)
    if keys[text] == nil then texts[#texts + 1] = text end
    if keys[text] == nil or type(key) == "string" then keys[text] = key end
  end
  if texts[2] then table.sort(texts) end
  return texts, keys
end

local function add_object(parts, value)
  local texts, keys = key_texts(value)
  for i, text in ipairs(texts) do
    parts[#parts + 1] = (i == 1 and "{" or ",") .. quoted(text) .. ":"
    add(parts, value[keys[text]])
  end
  parts[#parts + 1] = #texts == 0 and "{}" or "}"
end

local function number_text(x)
  if math_type(x) == "integer" then return ("%d"):format(x) end
  if x ~= x or x == math.huge or x == -math.huge then return "null" end
  return printable.number(x)
end

function add(parts, value)
  local kind = type(value)
  if kind == "string" then
    parts[#parts + 1] = quoted(value)
  elseif kind == "number" then
    parts[#parts + 1] = number_text(value)
  elseif kind == "boolean" then
    parts[#parts + 1] = tostring(value)
  elseif kind ~= "table" or value == NULL then
    parts[#parts + 1] = "null"   -- tidemill.null, too
  elseif getmetatable(value) ~= Object and is_array(value) then
    add_array(parts, value)
  else
    add_object(parts, value)
  end
end

function json.encode(value)
  local parts = {}
  add(parts, value)
  return table.concat(parts)
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
  if value == nil then return NULL end
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
  local parts = { '{"error":' }
  add(parts, plain_error(err))
  parts[#parts + 1] = ',"failures":'
  add(parts, err and map(result.failures or err.failures, plain_error) or {})
  parts[#parts + 1] = (',"%s":%d,"metadata":'):format(noun, number)
  add_object(parts, result.metadata or {})
  parts[#parts + 1] = (',"ok":%s,"payload":'):format(tostring(err == nil))
  add(parts, result.payload)
  parts[#parts + 1] = "}"
  return table.concat(parts)
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
