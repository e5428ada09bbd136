-- SPDX-License-Identifier: MIT
-- How DAGs are declared: tm.dag, tm.transform and tm.analyze, and the check of what was written.
--
-- Declaring never fails. `describe` turns a declaration into plain data that can travel, without its
-- functions, and lists what is wrong with it; the engine adds what is wrong with the graph.
local core = require "tidemill.core"

local M = {}

local Dag = core.metatable "tidemill.declaration"
local Processor = core.metatable "tidemill.processor"
local Native = core.metatable "tidemill.native"
Dag.__name = "tidemill.declaration"
Processor.__name = "tidemill.processor"
Native.__name = "tidemill.native"
for _, meta in ipairs { Dag, Processor, Native } do meta.__metatable = meta.__name end -- scripts share them

local failure_strategies = { "fail_fast", "continue_on_error", "best_effort" }
local strategies = { "reactive", "work_queue", "level" }

local function contains(list, value)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

local where = core.where

local function is_native(value)
  return debug.getmetatable(value) == Native
end

local function declare(intent, id, body, place)
  if type(body) == "function" or is_native(body) then body = { run = body } end
  return setmetatable({ intent = intent, id = id, body = body, where = place }, Processor)
end

-- tm.transform "id" alone: what follows is the body.
function Processor.__call(self, body)
  return declare(self.intent, self.id, body == nil and false or body, where(2) or self.where)
end

--- A processor whose return value is the next payload: tm.transform("id", fn), or
-- tm.transform "id" { run = fn, ... }.
function M.transform(id, body)
  return declare("transform", id, body, where(2))
end

--- A processor that contributes metadata only; declared as tm.transform is.
function M.analyze(id, body)
  return declare("analyze", id, body, where(2))
end

--- A DAG: options by name, processors in the array part.
function M.dag(fields)
  if type(fields) ~= "table" then
    error(("tm.dag takes a table, but it got a %s"):format(type(fields)), 2)
  end
  return setmetatable({ fields = fields, where = where(2) }, Dag)
end

--- A processor that the host has registered under this name, in place of a function: run = tm.native "resize".
function M.native(name)
  if type(name) ~= "string" or name == "" then
    error(("tm.native takes the name of a processor, but it got %s"):format(
      name == "" and "an empty string" or "a " .. type(name)), 2)
  end
  return setmetatable({ name = name }, Native)
end

function M.is_dag(value)
  return debug.getmetatable(value) == Dag
end

-- "a function", "nothing"; no type begins with a vowel sound
local function kind(value)
  if value == nil then return "nothing" end
  local name = type(value)
  return "a " .. name
end

local function quoted(list)
  return '"' .. table.concat(list, '", "') .. '"'
end

-- Checks of one value: each returns what is wrong with it, or nil.

local function a(expected)
  return function(value)
    if type(value) ~= expected then
      return ("must be %s, but it is %s"):format(kind(({
        ["function"] = print, string = "", boolean = true, table = {},
      })[expected]), kind(value))
    end
  end
end

local function one_of(list)
  return function(value)
    if contains(list, value) then return nil end
    local near = type(value) == "string" and core.nearest(value, list)
    return ("must be one of %s, but it is %s%s"):format(quoted(list),
      type(value) == "string" and ("%q"):format(value) or kind(value),
      near and (" (did you mean %q?)"):format(near) or "")
  end
end

local a_function, a_table, a_string, a_boolean = a "function", a "table", a "string", a "boolean"

local function positive_integer(value)
  if type(value) ~= "number" then return "must be a number, but it is " .. kind(value) end
  if value < 1 or value > 2 ^ 31 or value % 1 ~= 0 then
    return ("must be a whole number from 1 on, but it is %s"):format(tostring(value))
  end
end

local function one_or_more(what)
  local list = ("must be a list of %ss, but "):format(what)
  return function(value)
    if type(value) == "string" then return nil end
    if type(value) ~= "table" then
      return ("must be a %s or a list of %ss, but it is %s"):format(what, what, kind(value))
    end
    for key, item in pairs(value) do
      if type(key) ~= "number" then
        return list .. ("it has the key %q"):format(tostring(key))
      elseif type(item) ~= "string" then
        return list .. ("item %s is %s"):format(tostring(key), kind(item))
      elseif key ~= 1 and value[key - 1] == nil then
        return list .. ("it has a hole before item %s"):format(tostring(key))
      end
    end
  end
end

local MOST_SECONDS = 1e9
local MOST_RETRIES = 60000

local function number_in(least, most, what)
  return function(value)
    if type(value) ~= "number" then return "must be a number, but it is " .. kind(value) end
    if not (value >= least and value <= most) then
      return ("must be %s, but it is %s"):format(what, tostring(value))
    end
  end
end

local timeout = number_in(1e-9, MOST_SECONDS, "a positive number of seconds")

local function counts(value)
  if type(value) ~= "table" then return "must be a table, but it is " .. kind(value) end
  for name, count in pairs(value) do
    if type(name) ~= "string" then
      return ("must have names as keys, but it has %s"):format(tostring(name))
    end
    local problem = positive_integer(count)
    if problem then return (".%s %s"):format(name, problem) end
  end
end

local function plain_table(value)
  return a_table(value) or core.why_not(value, "options")
end

local retry_keys = {
  backoff = number_in(0, MOST_SECONDS, "a number of seconds"),
  factor = number_in(1, 1e6, "a factor from 1 on"),
  max_backoff = number_in(0, MOST_SECONDS, "a number of seconds"),
  jitter = number_in(0, 1, "between 0 and 1"),
  seed = number_in(-2 ^ 53, 2 ^ 53, "a number"),
  when = a_function,
}

local few_enough = number_in(1, MOST_RETRIES, "at most " .. MOST_RETRIES)

retry_keys.max = function(value)
  return positive_integer(value) or few_enough(value)
end

local function retry_plan(value)
  if type(value) ~= "table" then return "must be a table, but it is " .. kind(value) end
  local problems = {}
  M.check_keys(value, retry_keys, function(text) problems[#problems + 1] = text end)
  if value.max == nil then problems[#problems + 1] = "has no max" end
  return problems[1] and "is wrong: " .. table.concat(problems, "; ")
end

local dag_keys = {
  name = a_string,
  strategy = one_of(strategies),
  failure_strategy = one_of(failure_strategies),
  max_concurrency = positive_integer,
  timeout = timeout,
  limits = counts,
  profile = a_boolean,
}

local function callback(value)
  if not is_native(value) then return a_function(value) end
end

local processor_keys = {
  run = callback,
  when = a_function,
  setup = a_function,
  depends_on = one_or_more "id",
  payload_from = a_string,
  uses = one_or_more "limit",
  timeout = timeout,
  retry = retry_plan,
  options = plain_table,
}

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(x, y) return tostring(x) < tostring(y) end)
  return keys
end

local function unknown(key, known)
  local names = sorted_keys(known)
  local near = type(key) == "string" and core.nearest(key, names)
  return ("unknown key %s%s"):format(
    type(key) == "string" and ("'%s'"):format(key) or ("[%s]"):format(tostring(key)),
    near and (" (did you mean '%s'?)"):format(near) or " (there are " .. table.concat(names, ", ") .. ")")
end

local nothing = {}

local function all_right(fields, known, skip_items)
  for key, value in pairs(fields) do
    local check = known[key]
    if check then
      if check(value) then return false end
    elseif not (skip_items and type(key) == "number") then
      return false
    end
  end
  return true
end

-- Checks the named keys of `fields`; `report` gets each problem. Array items are skipped. Returns the set of keys
-- whose value is wrong.
function M.check_keys(fields, known, report, skip_items)
  if all_right(fields, known, skip_items) then return nothing end -- mostly, and without a sort
  local wrong = {}
  for _, key in ipairs(sorted_keys(fields)) do
    local check = known[key]
    if check then
      local problem = check(fields[key])
      if problem then
        report(("%s %s"):format(key, problem))
        wrong[key] = true
      end
    elseif not (skip_items and type(key) == "number") then
      report(unknown(key, known))
    end
  end
  return wrong
end

-- The fields that are not wrong.
local function without(fields, wrong)
  if not next(wrong) then return fields end
  local right = {}
  for key, value in pairs(fields) do
    if not wrong[key] then right[key] = value end
  end
  return right
end

-- A name or a list of names, as it was written; what is wrong with it is left out.
local function names_in(value, is_wrong)
  if type(value) == "string" or value == nil then return value end
  if not is_wrong and not debug.getmetatable(value) then return value end
  local list = {}
  for _, item in ipairs(type(value) == "table" and value or nothing) do
    if type(item) == "string" then list[#list + 1] = item end
  end
  return list
end

-- With defaults, and without its function.
local function describe_retry(retry)
  return retry and {
    max = retry.max, backoff = retry.backoff or 0, factor = retry.factor or 2,
    max_backoff = retry.max_backoff or MOST_SECONDS, jitter = retry.jitter or 0,
    seed = retry.seed or 0,
  }
end

-- The named counts as a list by name, so that equal declarations are equal lists.
local function describe_limits(limits)
  local list = {}
  for name, count in pairs(limits or nothing) do list[#list + 1] = { name = name, count = count } end
  table.sort(list, function(x, y) return x.name < y.name end)
  return list
end

local function put(list, index, value)
  if value ~= nil then list[index] = value end
end

local function lists(names)
  local made = {}
  for _, name in ipairs(names) do made[name] = {} end
  return made
end

local described = {
  "id", "analyze", "depends_on", "payload_from", "uses", "timeout", "retry", "conditional", "native", "options",
  "where",
}

-- Adds what travels of a processor, but for what is wrong with it.
local function describe_processor(to, index, item, wrong)
  local written = type(item.body) == "table" and item.body or nothing
  local body = without(written, wrong)
  to.id[index] = type(item.id) == "string" and item.id ~= "" and item.id or ("#%d"):format(index)
  put(to.where, index, item.where)
  put(to.depends_on, index, names_in(written.depends_on, wrong.depends_on))
  if item.intent == "analyze" then to.analyze[index] = true end
  if is_native(body.run) then to.native[index] = body.run.name end
  if body.when ~= nil then to.conditional[index] = true end
  put(to.uses, index, names_in(written.uses, wrong.uses))
  put(to.payload_from, index, body.payload_from)
  put(to.timeout, index, body.timeout)
  put(to.retry, index, describe_retry(body.retry))
  put(to.options, index, body.options)
end

-- What needs a Lua state, which a native processor is never in.
local function check_native(body, report)
  if not is_native(body.run) then return end
  if body.when ~= nil then
    report "when does not go with tm.native: a native processor decides itself whether it skips"
  end
  if body.setup ~= nil then report "setup does not go with tm.native: the host opens its state" end
  if type(body.retry) == "table" and body.retry.when ~= nil then
    report "retry.when does not go with tm.native: every error is tried again"
  end
end

-- Returns the set of keys whose value is wrong.
local function check_processor(item, report)
  if type(item.id) ~= "string" then
    report(("its id must be a string, but it is %s"):format(kind(item.id)))
  elseif item.id == "" then
    report "its id is empty"
  end
  if item.body == nil then
    report(("has no body: write tm.%s %q { run = function ... }"):format(item.intent,
      tostring(item.id)))
  elseif type(item.body) ~= "table" then
    report(("needs a function or a table, but it got %s"):format(kind(item.body or nil)))
  else
    local wrong = M.check_keys(item.body, processor_keys, report)
    if item.body.run == nil then report "has no run function" end
    check_native(item.body, report)
    return wrong
  end
  return nothing
end

local function count_items(fields)
  local count, last = 0, 0
  for key in pairs(fields) do
    if type(key) == "number" then
      count = count + 1
      if key > last then last = key end
    end
  end
  return count, last
end

--- description, items, problems. The description is plain data. Its `processors` are a list for each field, by
-- position, most of them with many holes: a hundred thousand processors are a dozen tables. Items are the processors
-- as they were declared, in the same order; problems are { processor = index or nil, text = ... }.
function M.describe(dag)
  local fields, problems, items, current = dag.fields, {}, {}, nil
  local function report(text) problems[#problems + 1] = { processor = current, text = text } end
  local right = without(fields, M.check_keys(fields, dag_keys, report, true))
  local count, last = count_items(fields)
  if count ~= last then
    report(("the list of processors has a hole: %d items, the last one at %s"):format(count, tostring(last)))
  end
  local processors = lists(described)
  for i = 1, count do
    local item = fields[i]
    if debug.getmetatable(item) == Processor then
      current = #items + 1
      items[current] = item
      describe_processor(processors, current, item, check_processor(item, report))
      current = nil
    elseif item ~= nil then
      report(("item %d is %s, not a processor (tm.transform or tm.analyze)"):format(i, kind(item)))
    end
  end
  local limits = describe_limits(right.limits)
  if #limits > 64 then report "limits has more than 64 entries" end
  return {
    name = right.name,
    failure_strategy = right.failure_strategy or "fail_fast",
    strategy = right.strategy or "reactive",
    max_concurrency = right.max_concurrency,
    timeout = right.timeout,
    limits = limits,
    profile = fields.profile == true,
    where = dag.where,
    processors = processors,
  }, items, problems
end

--- What a worker keeps of the processors, in lists like those of a description: the callbacks, and what they need.
M.kept = { "run", "when", "setup", "options", "retry_when" }

--- The lists of M.kept for these items; ids where there is a setup, which may fail; and which have a timeout.
function M.functions(items)
  local to = lists(M.kept)
  to.count, to.id, to.timed = #items, {}, {}
  for i, item in ipairs(items) do
    local body = type(item.body) == "table" and item.body or nothing
    if not is_native(body.run) then put(to.run, i, body.run) end
    put(to.when, i, body.when)
    put(to.setup, i, body.setup)
    put(to.options, i, body.options)
    if type(body.retry) == "table" then put(to.retry_when, i, body.retry.when) end
    if body.setup ~= nil then to.id[i] = item.id end
    if body.timeout ~= nil then to.timed[i] = true end
  end
  return to
end

--- One line for a problem of a description.
function M.line(description, problem)
  local index, processors = problem.processor, description.processors
  if not index then return problem.text end
  local place = processors.where[index]
  return ("processor '%s'%s: %s"):format(processors.id[index], place and (" (%s)"):format(place) or "", problem.text)
end

return M
