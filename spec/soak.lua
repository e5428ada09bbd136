-- SPDX-License-Identifier: MIT
-- soak.lua [MINUTES] [SEED]: weeks in minutes. Round after round an engine of some kind is opened; DAGs are loaded,
-- loaded again and dropped in it while streams, maps and runs of them are under way, which fail, are tried again, time
-- out, are stopped and cancelled; and it is closed or dropped, whatever is in flight.
--
-- Every input has one outcome, in order where that was asked for, and a plain evaluation in Lua comes to the same.
-- Between rounds nothing is left alive. Memory, descriptors and threads do not grow. A seed makes the same choices
-- again, though not on the same schedule.
--
-- Memory is what the system says, so the allocator has to give back what is free: `make soak` sees to that.
local core = require "tidemill.core"
local oracle = require "spec.support.oracle"
local random = require "spec.support.random"
local render = require "spec.support.render"
local tm = require "tidemill"
local troubles = require "spec.support.troubles"

local minutes, seed = tonumber(arg[1]) or 1, tonumber(arg[2]) or os.time() % 1000000
local rng = random.new(seed)
local JIT = rawget(_G, "jit") -- luacheck: ignore 113

local WARM_UP = 1 / 6 -- of the time
local TOLERANCE = { MiB = 3, descriptors = 0, threads = 0 } -- by how much a late median may exceed an early one
if package.cpath:find "[at]san" then TOLERANCE.MiB = math.huge end -- sanitizers keep what is freed
local LEAST_SAMPLES, MOST_SAMPLES = 12, 240 -- each may keep a page of memory from being given back
local PATIENCE = 60 -- seconds for what must happen

local function chance(times) return rng:once_in(times) end
local function maybe(times, value) return chance(times) and value or nil end

local count = { inputs = 0, results = 0, failures = 0, cancelled = 0, excused = 0, engines = 0, loads = 0, streams = 0 }

-- What is declared ---------------------------------------------------------------------------------------------------

local version = 0

local function describe_processor(index, earlier, engine)
  local it = {
    id = "p" .. index, intent = chance(3) and "analyze" or "transform", depends_on = {},
    uses = maybe(4, "db"), timeout = engine.timeouts and maybe(3, 0.03) or nil, tries = maybe(3, rng:between(2, 4)),
    asks = chance(3), sets_up = chance(3),
  }
  it.options = { version = version, intent = it.intent }
  for _, id in ipairs(earlier) do
    if chance(2) then it.depends_on[#it.depends_on + 1] = id end
  end
  if #it.depends_on > 0 and chance(5) then it.payload_from = rng:pick(it.depends_on) end
  return it
end

local function describe(engine)
  version = version + 1
  local description = {
    version = version, processors = {}, limits = { db = rng:between(1, 2) },
    failure_strategy = rng:pick { "fail_fast", "continue_on_error", "best_effort" },
    strategy = rng:pick { "reactive", "work_queue", "level" },
    max_concurrency = maybe(4, rng:between(1, 3)), timeout = maybe(12, 0.02),
  }
  local ids = {}
  for index = 1, rng:between(1, 7) do
    description.processors[index] = describe_processor(index, ids, engine)
    ids[index] = "p" .. index
  end
  return description
end

local script_path = os.tmpname()

local function write(text)
  local file = assert(io.open(script_path, "w"))
  assert(file:write(text))
  file:close()
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

-- A script in a sandbox can require nothing from here, so it has the text within it.
local CALLBACKS = read((arg[0]:gsub("soak%.lua$", "support/troubles.lua")))

local SCRIPT = "local troubles = (function()\n%s\nend)()\nreturn troubles.declare(require 'tidemill', %s)"

local BROKEN = {
  "return tm.dag {", "error 'not today'", "return 42", "error({ 'no text' })",
  "local tm = require 'tidemill' return tm.dag { tm.transform 'a' { depends_on = 'b', run = string.upper } }",
  "local tm = require 'tidemill' return tm.dag { tm.transform 'a' { setup = error, run = string.upper } }",
}

-- Loads a DAG in one of the two ways; now and then one that must be refused comes first.
local function load_dag(engine)
  if chance(4) then
    write(rng:pick(BROKEN))
    local dag, err = engine.it:load(script_path)
    assert(dag == nil and err.code == "invalid_dag", tostring(err))
  end
  local description = describe(engine)
  local dag, err
  if chance(2) then
    write(SCRIPT:format(CALLBACKS, render(description)))
    dag, err = engine.it:load(script_path)
  else
    dag, err = engine.it:dag(troubles.declare(tm, description))
  end
  count.loads = count.loads + 1
  return { it = assert(dag, tostring(err)), description = description, engine = engine }
end

-- Inputs and their outcomes -------------------------------------------------------------------------------------------

-- What may happen to a processor in this engine and end without anybody's help.
local function troubles_of(it, engine)
  local list = { "", "raise", "refuse", "nothing", "many", "unfit", "flaky", "dawdle", "skip", "ask" }
  local stoppable = engine.stops or it.timeout and engine.stops_timed
  if stoppable and (it.timeout or engine.options.instruction_limit) then list[#list + 1] = maybe(4, "spin") end
  if engine.options.memory_limit then list[#list + 1] = maybe(4, "hog") end
  if engine.options.kill_grace and it.timeout then list[#list + 1] = maybe(16, "block") end
  return list
end

local function body()
  return ("x"):rep(chance(60) and 2 ^ rng:between(12, 20) or rng:between(0, 300))
end

-- A payload that is its own name, and what is to become of it.
local function make_payload(dag, trouble)
  local it = rng:pick(dag.description.processors)
  trouble = trouble or chance(3) and rng:pick(troubles_of(it, dag.engine)) or ""
  if not chance(3) then return ("%s@%s#%d:%s"):format(trouble, it.id, count.inputs, body()), trouble end
  local list = {}
  for i = 1, rng:between(0, 20) do list[i] = { i, i / 4, i % 2 == 0, tostring(i) } end
  return { trouble = trouble, at = it.id, number = count.inputs, list = list, text = body() }, trouble
end

-- A new input of a use: pulled, pushed or started.
local function input(use, trouble)
  count.inputs = count.inputs + 1
  use.made = use.made + 1
  local item = { index = use.made }
  item.payload, item.trouble = make_payload(use.dag, trouble)
  if not trouble and chance(100) then item.payload, item.trouble = { print }, "refused" end
  use.open[item.payload] = item
  return item
end

local function same(what, expected, actual)
  if expected == actual then return end
  local wanted, got = render(expected), render(actual)
  if wanted ~= got then error(("%s: expected %s, got %s"):format(what, wanted:sub(1, 300), got:sub(1, 300))) end
end

local function by_id(outcomes, get)
  local all = {}
  for id, outcome in pairs(outcomes) do all[id] = get(outcome) end
  return all
end

local function status_of(outcome) return outcome.status end

local function code_of(outcome)
  local err = outcome.error
  return outcome.status == "failed" and (err.cause and err.cause.code or err.code) or nil
end

-- A clock, or what else its worker has done, may fail a processor that has a timeout or a limit.
local function excused(use, item, outcomes)
  local options = use.dag.engine.options
  for _, it in ipairs(use.dag.description.processors) do
    local outcome = outcomes[it.id]
    local code = outcome.status == "failed" and outcome.error.code
    local timed = it.timeout or options.sandbox or options.callback_timeout or options.instruction_limit
    if code == "timeout" and timed and item.trouble ~= "spin" and item.trouble ~= "block"
      or code == "memory_limit" and options.memory_limit and item.trouble ~= "hog" then
      count.excused = count.excused + 1
      return true
    end
  end
end

local function compare(use, item, result, err)
  local view = result or err.result
  local statuses = by_id(view.outcomes, status_of)
  if excused(use, item, view.outcomes) then return end
  local at = item.trouble == "block" and item.payload.at or tostring(item.payload):match "@(%w*)"
  local passed = item.trouble == "block" and statuses[at] == "completed"
  local expected = oracle.run(troubles.plain(use.dag.description, passed), item.payload, use.options.metadata)
  same("is there a result", result == nil, expected.failing ~= nil)
  if expected.failing then expected = assert(oracle.given(expected, statuses)) end
  same("statuses", expected.statuses, statuses)
  same("payload", expected.payload, view.payload)
  same("metadata", expected.metadata, view.metadata)
  same("codes", by_id(expected.outcomes, code_of), by_id(view.outcomes, code_of))
  same("error", expected.error, err and err.processor)
end

-- "results", "failures" or "cancelled"; raises where this input cannot have come to that.
local function judge(use, item, result, err)
  if not err or err.processor then
    compare(use, item, result, err)
    return err and "failures" or "results"
  elseif err.code == "invalid_payload" and item.trouble == "refused" then
    return "failures"
  elseif err.code == "timeout" and (use.options.timeout or use.dag.description.timeout)
    or err.code == "cancelled" and (item.cancelled or use.dag.engine.closed)
    or err.code == "closed" and use.dag.engine.closed then
    return "cancelled"
  end
  error("an input with trouble '" .. item.trouble .. "' came to " .. tostring(err))
end

local function settle(use, payload, result, err)
  if use.dropped then return end
  local item = assert(use.open[payload], "it was handed back twice, or was never given")
  use.open[payload] = nil
  local outcome = judge(use, item, result, err)
  count[outcome] = count[outcome] + 1
end

-- The same for what a stream hands back.
local function hand_back(use, payload, result, err)
  local item = use.open[payload]
  settle(use, payload, result, err)
  assert(not use.ordered or item.index > use.handed, "it is out of order")
  use.handed = item.index
end

-- The use ends; so many may be open, which are lost to whoever left.
local function leave(use, most)
  local left = 0
  for _ in pairs(use.open) do left = left + 1 end
  assert(left <= most, ("%d inputs are lost, %s may be"):format(left, most))
  count.cancelled = count.cancelled + left
  use.open, use.dropped = {}, true
end

-- For errors that are tables, which the assert of Lua 5.1 does not take.
local function must(value, err)
  if not value then error(err, 0) end
  return value
end

-- Uses: coroutines, several in one engine at a time -------------------------------------------------------------------

local uses = {}

local function pause()
  if chance(6) then coroutine.yield() end
end

local function stream_options(use)
  local options = { max_in_flight = maybe(2, rng:between(1, 64)), ordered = not chance(3) }
  for key, value in pairs(use.options) do options[key] = value end
  use.ordered, use.handed = options.ordered, 0
  use.most = options.max_in_flight or 4 * use.dag.engine.options.workers
  return options
end

function uses.pull(use)
  local total, last = rng:between(0, 150), maybe(2, rng:between(1, 100))
  local raises, handed = maybe(5, rng:between(1, 150)), 0
  local options = stream_options(use)
  local function source()
    if use.made == raises then
      use.raised = { "the source raises" }
      error(use.raised)
    end
    return use.made < total and input(use).payload or nil
  end
  count.streams = count.streams + 1
  local stream = must(use.dag.it:stream(source, options))
  for payload, result, err in stream, nil, nil, stream do
    hand_back(use, payload, result, err)
    handed = handed + 1
    if handed == last then break end
    pause()
  end
  if handed == last then
    stream:close()
    leave(use, use.most)
  end
  leave(use, 0)
end

function uses.push(use)
  count.streams = count.streams + 1
  local options = stream_options(use)
  options.background = not chance(4)
  local stream = must(use.dag.it:stream(options))
  for _ = 1, rng:between(1, 200) do
    local item = input(use)
    local key = maybe(3, item)
    local ok, err = stream:push(item.payload, key)
    if ok and key then
      use.open[key], use.open[item.payload] = item, nil
    elseif not ok and err.code == "queue_full" then
      assert(stream:in_flight() == use.most)
      use.open[item.payload], use.made, count.inputs = nil, use.made - 1, count.inputs - 1
      for payload, result, failure in stream:results(maybe(2, 0.01)) do hand_back(use, payload, result, failure) end
    elseif not ok then
      settle(use, item.payload, nil, err)
    end
    pause()
  end
  if chance(2) then
    for payload, result, failure in stream:results() do hand_back(use, payload, result, failure) end
    leave(use, 0)
  end
  stream:close()
  leave(use, use.most)
end

function uses.map(use)
  local list, items = {}, {}
  for i = 1, rng:between(0, 100) do
    items[i] = input(use)
    list[i] = items[i].payload
  end
  local options = stream_options(use)
  options.ordered = nil
  local results, errs = use.dag.it:map(list, options)
  assert(results or use.dag.engine.closed, tostring(errs))
  for i, item in ipairs(items) do
    if results then
      settle(use, item.payload, results[i] or nil, errs and errs[i])
    else
      settle(use, item.payload, nil, errs)
    end
  end
  leave(use, 0)
end

function uses.run(use)
  for _ = 1, rng:between(1, 60) do
    local item = input(use)
    settle(use, item.payload, use.dag.it:run(item.payload, use.options))
    pause()
  end
  leave(use, 0)
end

local function start(use, trouble)
  local item = input(use, trouble)
  item.told = chance(2) -- by a callback; the others are waited for
  local run, err = use.dag.it:start(item.payload, use.options, item.told and function(failure, result)
    settle(use, item.payload, result, failure)
  end or nil)
  if not run then settle(use, item.payload, nil, err) end
  item.run = run
  return item
end

local function cancel(item)
  item.cancelled = true
  if item.run then item.run:cancel "by chance" end
end

-- Until all that was started has settled, and has been told.
local function await(use, items)
  for _, item in ipairs(items) do
    if item.run and not item.told then settle(use, item.payload, item.run:wait()) end
  end
  if chance(4) then use.dag.engine.it:pollfd() end
  local deadline = os.time() + PATIENCE
  while next(use.open) do
    use.dag.engine.it:step()
    assert(os.time() < deadline, "a callback was never called")
  end
  leave(use, 0)
end

function uses.start(use)
  local items = {}
  for i = 1, rng:between(1, 80) do
    items[i] = start(use)
    if chance(10) then cancel(rng:pick(items)) end
    if chance(10) and items[i].run then items[i].run:wait(0.001) end
    if chance(10) then use.dag.engine.it:step() end
    if chance(10) and items[i].told then items[i].run = nil end
    pause()
  end
  await(use, items)
end

-- Callbacks that do not end: from a stream that is closed, and of runs that are cancelled.
function uses.stop(use)
  if not use.dag.engine.stops then return end
  local stream = must(use.dag.it:stream { max_in_flight = 8 })
  local pushed = { dag = use.dag, options = {}, open = {}, made = 0 }
  for _ = 1, rng:between(1, 8) do must(stream:push(input(pushed, "spin").payload)) end
  local items = {}
  for i = 1, rng:between(1, 8) do items[i] = start(use, "spin") end
  for payload, result, err in stream:results(0.002) do settle(pushed, payload, result, err) end
  stream:close()
  leave(pushed, 8)
  for _, item in ipairs(items) do cancel(item) end
  await(use, items)
end

local KINDS = { "pull", "pull", "pull", "push", "push", "map", "run", "start", "start", "stop" }

local function begin(dag)
  local kind = rng:pick(KINDS)
  local use = { kind = kind, dag = dag, open = {}, made = 0, options = {
    timeout = maybe(8, 0.005), metadata = maybe(4, { source = "soak" }), profile = maybe(4, true),
    strategy = maybe(8, rng:pick { "reactive", "work_queue", "level" }),
  } }
  use.body = coroutine.create(uses[kind])
  return use
end

local function closed_on(use, err)
  return type(err) == "table" and err.code == "closed" and use.dag.engine.closed
end

-- Goes on with a use; false: it has ended.
local function resume(use)
  if use.dropped and use.kind ~= "start" then return false end
  local ok, err = coroutine.resume(use.body, use)
  if ok then return coroutine.status(use.body) ~= "dead" end
  if err and err == use.raised then
    leave(use, 0)
  elseif (closed_on(use, err)) then
    leave(use, 1) -- the payload that was pulled when the engine was found closed
  else
    error(debug.traceback(use.body, use.kind .. ": " .. tostring(err)), 0)
  end
  return false
end

-- Rounds --------------------------------------------------------------------------------------------------------------

local function engine_options()
  local options = {
    workers = rng:between(1, 4), pool = rng:pick { "private", "shared" },
    preempt = rng:pick { "auto", "auto", "signal", "hook", false }, callback_timeout = maybe(6, 0.2),
    sandbox = maybe(4, rng:pick { true, "pure" }), memory_limit = maybe(3, 16 * 2 ^ 20),
    instruction_limit = maybe(6, 1e6),
  }
  if options.sandbox and not options.preempt then options.preempt = "signal" end
  if options.preempt == "auto" then options.preempt = nil end
  if options.pool == "private" then options.kill_grace = maybe(3, 0.05) end
  return options
end

local function open_engine()
  local options = engine_options()
  count.engines = count.engines + 1
  local preempts = options.preempt ~= false
  return {
    it = assert(tm.engine(options)), options = options, timeouts = preempts or chance(2),
    stops = preempts and (not JIT or options.preempt ~= nil or options.pool == "shared"),
    stops_timed = preempts,
  }
end

local function finish(running)
  while #running > 0 do
    local at = rng:between(1, #running)
    if not resume(running[at]) then table.remove(running, at) end
  end
end

local function drop(running)
  for _, use in ipairs(running) do
    if not use.dropped then leave(use, use.most or math.huge) end
  end
end

local steps = {}

function steps.load(engine, dags) dags[rng:between(1, 3)] = load_dag(engine) end

function steps.begin(_, dags, running)
  local dag = dags[rng:between(1, 3)]
  if dag and #running < 6 then running[#running + 1] = begin(dag) end
end

function steps.drop(_, _, running)
  for at, use in ipairs(running) do
    if use.kind == "pull" or use.kind == "push" then
      drop { table.remove(running, at) }
      return
    end
  end
end

function steps.go_on(_, _, running)
  for _ = 1, rng:between(1, 20) do
    local at = #running > 0 and rng:between(1, #running)
    if at and not resume(running[at]) then table.remove(running, at) end
  end
end

function steps.collect() collectgarbage() end

local STEPS = { "load", "begin", "begin", "begin", "go_on", "go_on", "go_on", "go_on", "drop", "collect" }

local function round()
  local engine, dags, running = open_engine(), {}, {}
  steps.load(engine, dags)
  for _ = 1, rng:between(10, 60) do steps[rng:pick(STEPS)](engine, dags, running) end
  if chance(5) then return drop(running) end -- and the engine
  if chance(2) then finish(running) end
  engine.closed = true
  engine.it:close()
  finish(running)
end

-- Flatness ------------------------------------------------------------------------------------------------------------

-- Gives what is free back to the system; as a function of Lua it would answer with what is at the top of the stack.
local trim = package.loadlib("libc.so.6", "malloc_trim") or function() end

local function number_of(key)
  return tonumber(read "/proc/self/status":match(key .. ":%s*(%d+)"))
end

local function descriptors()
  os.execute("ls /proc/$PPID/fd | wc -l >" .. script_path)
  return tonumber(read(script_path))
end

local function living()
  local sum = 0
  for _, number in pairs(core.live() or {}) do sum = sum + number end
  return sum
end

local function collect()
  if JIT then JIT.flush() end -- compiled traces keep closures alive
  for _ = 1, 3 do collectgarbage() end
end

-- What there is when all engines are closed. Threads that were given up end when their callbacks do.
local function sample(threads)
  local deadline = os.time() + PATIENCE
  repeat collect() until living() == 0 and number_of "Threads" <= threads or os.time() > deadline
  if living() > 0 then error("what lives between rounds: " .. render(core.live())) end
  trim(0)
  return { at = os.time(), MiB = number_of "VmRSS" / 1024, descriptors = descriptors(), threads = number_of "Threads" }
end

local function median(samples, first, last, key)
  local list = {}
  for i = first, last do list[#list + 1] = samples[i][key] end
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

-- The last third of the samples after the warm-up, against the first.
local function judge_flatness(samples, began)
  local first = 1
  while first < #samples and samples[first].at - began < minutes * 60 * WARM_UP do first = first + 1 end
  first = math.min(first, #samples - 2)
  local third, grown = math.floor((#samples - first + 1) / 3), {}
  for _, key in ipairs { "MiB", "descriptors", "threads" } do
    local early = median(samples, first, first + third - 1, key)
    local late = median(samples, #samples - third + 1, #samples, key)
    print(("soak: %s: %.4g, then %.4g"):format(key, early, late))
    if late > early + TOLERANCE[key] then grown[#grown + 1] = key end
  end
  assert(#grown == 0, "grown: " .. table.concat(grown, ", "))
end

local function tell(began, it)
  print(("soak: %d s, %d engines, %d loads, %d streams: %d inputs = %d results + %d failures + %d cancelled "
    .. "(%d excused); %.1f MiB, %d descriptors, %d threads"):format(os.time() - began, count.engines, count.loads,
    count.streams, count.inputs, count.results, count.failures, count.cancelled, count.excused, it.MiB, it.descriptors,
    it.threads))
  io.stdout:flush()
end

-- Libuv's own threads are started once and stay.
local function threads_that_stay()
  local engine = tm.engine { workers = 1, pool = "shared" }
  engine:dag(tm.dag { tm.transform("it", function() return 1 end) }):start():wait()
  engine:close()
  return number_of "Threads"
end

local function soak()
  local began, threads = os.time(), threads_that_stay()
  local samples, told, kept = {}, began, began
  local last
  print(("soak: %g minutes, seed %d"):format(minutes, seed))
  repeat
    coroutine.wrap(round)() -- on a stack of its own, of which nothing is left
    last = sample(threads)
    assert(count.inputs == count.results + count.failures + count.cancelled, "inputs are lost")
    if last.at - kept >= minutes * 60 / MOST_SAMPLES then
      samples[#samples + 1], kept = last, last.at
    end
    if last.at - told >= 60 then
      tell(began, last)
      told = last.at
    end
  until last.at - began >= minutes * 60 and #samples >= LEAST_SAMPLES
  tell(began, last)
  judge_flatness(samples, began)
end

local ok, why = xpcall(soak, debug.traceback)
os.remove(script_path)
if not ok then
  io.stderr:write(("soak: FAILED (seed %d, engine %d): %s\n"):format(seed, count.engines, tostring(why)))
  os.exit(1)
end
print "soak: flat, and nothing is lost"
