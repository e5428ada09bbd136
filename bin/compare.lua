-- SPDX-License-Identifier: MIT
-- Runs a DAG under several strategies: how long each takes, how well it keeps the workers busy, and whether the results
-- are equal, as they are unless a callback depends on more than its payload and its ctx.
--
-- What is expected is what the very first run came to, a warm-up; so the first strategy is checked against itself.

local printable = require "tidemill.printable"

local PARTS = { "payload", "metadata", "outcomes" }
local KEPT = 5   -- differences of a strategy that are kept; the others are counted

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b or a ~= a and b ~= b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

-- An error without its traceback, which tells how Lua came there and not what went wrong.
local function plain_error(err)
  if not err then return nil end
  local plain = {}
  for key, value in pairs(err) do plain[key] = key ~= "traceback" and value or nil end
  return plain
end

local function plain_errors(errors)
  local plain = {}
  for i, err in ipairs(errors or {}) do plain[i] = plain_error(err) end
  return plain
end

-- What must be equal of a result: all of it but the times and the workers.
local function essence(result)
  local outcomes = {}
  for id, outcome in pairs(result.outcomes) do
    outcomes[id] = {
      status = outcome.status, attempts = outcome.attempts, payload = outcome.payload,
      error = plain_error(outcome.error), errors = plain_errors(outcome.errors),
    }
  end
  return { payload = result.payload, metadata = result.metadata, outcomes = outcomes }
end

local function step_text(key)
  if type(key) ~= "string" then return "[" .. tostring(key) .. "]" end
  return key:find "^[%a_][%w_]*$" and "." .. key or ("[%q]"):format(key)
end

local function path_text(trail, depth)
  local steps = { trail[1] }
  for i = 2, depth do steps[i] = step_text(trail[i]) end
  return table.concat(steps)
end

local function union(a, b)
  local both = {}
  for key in pairs(a) do both[key] = true end
  for key in pairs(b) do both[key] = true end
  return both
end

-- Adds every place where two values differ to `found`; the way there is trail[1..depth].
local function add_differences(found, expected, actual, trail, depth)
  if type(expected) == "table" and type(actual) == "table" then
    for _, key in ipairs(printable.sorted_keys(union(expected, actual))) do
      trail[depth + 1] = key
      add_differences(found, expected[key], actual[key], trail, depth + 1)
    end
  elseif not same(expected, actual) then
    found.count = found.count + 1
    if found.count > KEPT then return end
    found.first[found.count] = { path = path_text(trail, depth), expected = expected, actual = actual }
  end
end

-- { count =, first = { { path =, expected =, actual = }, ... } }, or nil where there is no difference.
local function differences(expected, actual)
  if same(expected, actual) then return nil end
  local found = { count = 0, first = {} }
  for _, part in ipairs(PARTS) do add_differences(found, expected[part], actual[part], { part }, 1) end
  return found
end

-- When callbacks began and ended, each in order. Of a processor that was retried, only the last attempt has times.
local function callback_times(outcomes)
  local started, finished = {}, {}
  for _, outcome in pairs(outcomes) do
    started[#started + 1], finished[#finished + 1] = outcome.started, outcome.finished
  end
  table.sort(started)
  table.sort(finished)
  return started, finished
end

-- What ends as another begins is not at once with it.
local function most_at_once(started, finished)
  local most, ended = 0, 0
  for begun, time in ipairs(started) do
    while finished[ended + 1] and finished[ended + 1] <= time do ended = ended + 1 end
    most = math.max(most, begun - ended, 1)
  end
  return most
end

local function sum(list)
  local total = 0
  for _, item in ipairs(list) do total = total + item end
  return total
end

local function measure(tally, result)
  local started, finished = callback_times(result.outcomes)
  tally.durations[#tally.durations + 1] = result.duration
  tally.busy = tally.busy + sum(finished) - sum(started)
  tally.at_once = math.max(tally.at_once, most_at_once(started, finished))
end

local function median(sorted)
  local middle = (#sorted + 1) / 2
  return (sorted[math.floor(middle)] + sorted[math.ceil(middle)]) / 2
end

local function summary(tally, workers)
  local durations = tally.durations
  local available = workers * sum(durations)
  table.sort(durations)
  return {
    strategy = tally.strategy,
    durations = durations, median = median(durations), fastest = durations[1], slowest = durations[#durations],
    idle = available > 0 and math.max(0, 1 - tally.busy / available) or 0,
    at_once = tally.at_once,
    equal = not tally.differences, differences = tally.differences,
  }
end

local function summarize(tallies, options)
  local comparison = { workers = options.workers, runs = options.runs, equal = true, strategies = {} }
  for i, tally in ipairs(tallies) do
    comparison.strategies[i] = summary(tally, options.workers)
    comparison.equal = comparison.equal and not tally.differences
  end
  return comparison
end

local function new_tallies(strategies)
  local tallies = {}
  for i, strategy in ipairs(strategies) do
    tallies[i] = { strategy = strategy, durations = {}, busy = 0, at_once = 0 }
  end
  return tallies
end

-- compare(dag, payload, { strategies = list, runs =, workers =, timeout = seconds? })
--   -> comparison [, failure]  |  nil, failure
-- where the failure is { error =, strategy = } of the first run that had one, and nil comes of a run without a result.
-- Strategies take turns, so that what else the machine does slows them all.
return function(dag, payload, options)
  local tallies = new_tallies(options.strategies)
  local expected, failure
  for round = 0, options.runs do
    for _, tally in ipairs(tallies) do
      local result, err = dag:run(payload, { profile = true, strategy = tally.strategy, timeout = options.timeout })
      if not result then return nil, { error = err, strategy = tally.strategy } end
      if err then failure = failure or { error = err, strategy = tally.strategy } end
      local actual = essence(result)
      expected = expected or actual
      tally.differences = tally.differences or differences(expected, actual)
      if round > 0 then measure(tally, result) end
    end
  end
  return summarize(tallies, options), failure
end
