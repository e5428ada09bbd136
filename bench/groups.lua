-- SPDX-License-Identifier: MIT
-- What is measured, and what it should be. Each function fills a group (bench/suite.lua):
-- group:compare measures sides in turn, group:row and group:fact keep figures, group:goal judges.
local bench = bench -- luacheck: ignore 113
local tm = require "tidemill"
local callbacks = require "bench.callbacks"
local graphs = require "bench.graphs"
local measure = require "bench.measure"
local sides = require "bench.sides"

local M = {}

local WORKLOADS = { "chain", "fanout", "ladder", "layered", "diamond" }
local KIB, MIB = 1024, 1024 * 1024

-- The same for every payload: a second worker does no harm, and peers are slower. Where the callback
-- alone takes longer than the goal allows, no engine on one core can meet it.
local function goals_against_peers(group, workload, by)
  group:goal_ratio(workload .. ": 2 workers / 1", by["tidemill 2"], by["tidemill 1"], 1.05)
  for workers = 1, 2 do
    group:goal_ratio(("%s: %d / oneTBB + Lua"):format(workload, workers), by["tidemill " .. workers],
      by["oneTBB + Lua " .. workers], 0.6, "at most", by["bare call "])
  end
  group:goal_ratio(workload .. ": 2 workers / luv", by["tidemill 2"], by["luv new_work 2"], 0.1, "at most",
    by["bare call "])
end

local function all_sides(shape, callback, what)
  local function with(workers)
    return { workers = workers, payload = what.payload, calls = what.calls, warm = what.warm }
  end
  local list = { sides.floor(callback, with(1)), sides.bare(callback, with(1)) }
  for _, maker in ipairs { sides.tidemill, sides.tbb } do
    for workers = 1, 2 do list[#list + 1] = maker(shape, callback, with(workers)) end
  end
  list[#list + 1] = sides.luv(shape, callback, { payload = what.payload, every = what.luv_every })
  list[#list + 1] = sides.loop(shape, callback, with(1))
  return list
end

local function graphs_with(group, callback, bounds)
  for _, workload in ipairs(WORKLOADS) do
    local shape = graphs[workload]()
    local by = group:compare(workload, all_sides(shape, callback, { luv_every = #shape > 100 and 10 or 2 }), 1)
    for workers, bound in pairs(bounds[workload]) do
      group:goal_ratio(("%s: %d / floor"):format(workload, workers), by["tidemill " .. workers], by["floor "], bound)
    end
    goals_against_peers(group, workload, by)
  end
end

function M.identity(group)
  group:begin("identity", "Callbacks that return the 32 bytes they were given")
  graphs_with(group, "identity", {
    chain = { 0.8, 0.8 }, ladder = { 0.8, 0.8 }, fanout = { [2] = 0.8 }, layered = { [2] = 0.8 },
    diamond = { 1.5, 1.5 },
  })
end

function M.new_string(group)
  group:begin("new string", "Callbacks that make another 32 bytes each time")
  graphs_with(group, "new string", {
    chain = { 1, 1 }, ladder = { 1, 1 }, fanout = { [2] = 0.8 }, layered = { [2] = 0.8 }, diamond = {},
  })
end

local SIZES = { { "64 KiB", 64 * KIB }, { "1 MiB", MIB } }

-- Graphs of 100, since every string a callback makes lives as long as its run.
function M.large(group)
  group:begin("large", "Long strings: returned as they are (identity), or another one each time, a byte shorter")
  for _, size in ipairs(SIZES) do
    for _, callback in ipairs { "identity", "shorter" } do
      for _, name in ipairs { "chain", "fanout" } do
        local workload = ("%s, %s %s"):format(size[1], name, callback)
        local calls = callback == "identity" and math.floor(20 * MIB / size[2]) or 100
        local what = { payload = ("x"):rep(size[2]), calls = calls, warm = 3, luv_every = 4 }
        local by = group:compare(workload, all_sides(graphs[name](100), callback, what), 0.6)
        goals_against_peers(group, workload, by)
      end
    end
  end
end

local function per_further_processor(long, single)
  return math.max(0, measure.spread(long.times).lowest * 100 - measure.spread(single.times).lowest) / 99
end

-- As a whole, where it counts that the megabyte goes in once; and for each processor but the first.
function M.long_string_chain(group)
  group:begin("1 MiB chain", "1 MiB through a chain of 100 that returns it as it is, one worker")
  local list = {}
  for _, size in ipairs { 32, MIB } do
    for _, length in ipairs { 1, 100 } do
      local calls = size == 32 and 2000 or length * 20
      local side = sides.tidemill(graphs.chain(length), "identity", {
        workers = 1, payload = ("x"):rep(size), calls = calls,
      })
      side.name = ("%s, chain of %d"):format(size == 32 and "32 bytes" or "1 MiB", length)
      list[#list + 1] = side
    end
  end
  group:compare("", list, 1)
  group:goal_ratio("1 MiB / 32 bytes, whole runs of 100", list[4], list[2], 2)
  group:fact("1 MiB / 32 bytes, each processor after the first, at best",
    per_further_processor(list[4], list[3]) / per_further_processor(list[2], list[1]), "times", 2)
end

function M.tables(group)
  group:begin("tables", "Tables of integers by string keys, rebuilt for each callback")
  for _, fields in ipairs { 10, 1000 } do
    for _, callback in ipairs { "identity", "new field" } do
      for _, name in ipairs { "chain", "fanout" } do
        local workload = ("%d fields, %s %s"):format(fields, name, callback)
        local what = { payload = fields, calls = fields > 100 and 100 or 2000, warm = 3 }
        local shape, list = graphs[name](100), {}
        for workers = 1, 2 do
          what.workers = workers
          list[workers] = sides.tidemill(shape, callback, what)
        end
        list[3], list[4] = sides.floor(callback, what), sides.loop(shape, callback, what)
        local by = group:compare(workload, list, 0.4)
        group:goal_ratio(workload .. ": 2 workers / 1", by["tidemill 2"], by["tidemill 1"], 1.05)
      end
    end
  end
end

-- How many turns of a loop keep a core busy for so many seconds.
local function turns_for(seconds)
  local turns, calls = 20000, 50
  local floor = sides.floor(callbacks.busy(turns), { calls = calls })
  floor.call(calls)
  local began = os.clock()
  floor.call(calls)
  return math.floor(turns * seconds * calls / (os.clock() - began))
end

-- A fan-out whose first and last processor do nothing, so that all of the work can be shared.
function M.busy(group)
  group:begin("busy", "Callbacks that keep a core busy, side by side; how much two workers gain")
  for _, kind in ipairs { { "50 µs", 50e-6, 1000 }, { "1 ms", 1e-3, 60 }, { "5 ms", 5e-3, 20 } } do
    local callback, width = callbacks.busy(turns_for(kind[2])), kind[3]
    local busy, light = callbacks.load(callbacks[callback]), callbacks.load(callbacks.identity)
    local shape, list = graphs.fanout(width), {}
    for workers = 1, 2 do
      list[workers] = sides.tidemill(shape, callback, {
        workers = workers, calls = #shape, warm = 5,
        run_of = function(i) return (i == 1 or i == #shape) and light or busy end,
      })
      local sample = list[workers].call
      list[workers].sample = function()
        local began = bench.now()
        sample()
        return (bench.now() - began) / width
      end
    end
    for processes = 1, 2 do list[#list + 1] = sides.processes(callback, processes, width) end
    local by = group:compare(kind[1], list, 2)
    group:goal_ratio(kind[1] .. ": 2 processes / 2 workers", by["2 processes "], by["tidemill 2"], 0.98, "at least")
    group:goal_ratio(kind[1] .. ": 2 workers / 1", by["tidemill 2"], by["tidemill 1"], 1.05)
  end
end

function M.stream(group)
  group:begin("stream", "Streams of small runs: a diamond of 4 for each item; ns per run, x 4 floors", 4)
  for _, ordered in ipairs { true, false } do
    local list = { sides.floor("identity") }
    for workers = 1, 2 do
      list[#list + 1] = sides.stream(graphs.diamond(), "identity", { workers = workers, ordered = ordered })
    end
    local workload = ordered and "ordered" or "as they settle"
    local by = group:compare(workload, list, 1)
    for workers = 1, 2 do
      group:goal(("%s: %d, ns per run"):format(workload, workers), measure.spread(by["tidemill " .. workers].times),
        600, 1e9)
    end
    group:goal_ratio(workload .. ": 2 workers / 1", by["tidemill 2"], by["tidemill 1"], 1.05)
  end
end

-- The C interface with callbacks in Lua; and nothing but the engine, against nothing but oneTBB.
function M.native(group)
  group:begin("C", "The C interface: a script; and processors in C against empty tasks of oneTBB")
  for _, workload in ipairs(WORKLOADS) do
    local shape, list = graphs[workload](), { sides.floor("identity") }
    for _, maker in ipairs { sides.native, sides.tbb } do
      for workers = 1, 2 do list[#list + 1] = maker(shape, nil, { workers = workers }) end
    end
    for workers = 1, 2 do list[#list + 1] = sides.native_script(workload, "identity", { workers = workers }) end
    local by = group:compare(workload, list, 0.8)
    for _, name in ipairs { "tidemill, all C", "tidemill, from C" } do
      group:goal_ratio(("%s: %s, 2 workers / 1"):format(workload, name), by[name .. " 2"], by[name .. " 1"], 1.05)
    end
    if workload == "diamond" then
      group:goal_ratio("diamond: from C, 1 / floor", by["tidemill, from C 1"], by["floor "], 1.5)
    end
  end
end

local function collect()
  collectgarbage()
  collectgarbage()
end

local function allocated_with(result)
  collect()
  return result.ok and bench.allocated()
end

-- Declares, loads and runs a graph; what it took.
local function build(shape)
  local run = callbacks.load(callbacks.identity)
  collect()
  local engine, before, began = tm.engine { workers = 1 }, bench.allocated(), os.clock()
  local declared = graphs.declare(shape, function() return run end)
  local loading = os.clock()
  local dag = assert(engine:dag(declared))
  local loaded = os.clock()
  declared = nil -- luacheck: ignore 311
  collect()
  local with_dag = bench.allocated()
  local with_run = allocated_with(dag:run "x")
  engine:close()
  return {
    declaring = loading - began, loading = loaded - loading, dag = with_dag - before, run = with_run - with_dag,
  }
end

local function build_facts(group, name, shape)
  local got = build(shape)
  group:fact(name .. ": declaring it in Lua", got.declaring / #shape * 1e6, "µs per processor")
  group:fact(name .. ": engine:dag", got.loading / #shape * 1e6, "µs per processor")
  group:fact(name .. ": all that stays, Lua states and ids included", got.dag / #shape, "bytes per processor")
  group:fact(name .. ": a run", got.run / #shape, "bytes per processor", 96)
end

-- The best of some runs, per processor.
local function best_of(side, samples)
  local best = math.huge
  for _ = 1, samples do best = math.min(best, side.sample()) end
  side.close()
  return best
end

local function million_against_thousand(group, side_of, what)
  local small = best_of(side_of(graphs.chain(1000), "identity", { workers = 1 }), 50)
  local large = best_of(side_of(graphs.chain(1000000), "identity", { workers = 1, warm = 1 }), 3)
  group:fact(what .. ", a chain of 1,000,000: best run", large * 1e9, "ns per processor")
  group:fact(what .. ", the same against a chain of 1,000", large / small, "times", 2)
end

function M.size(group)
  group:begin("size", "Large graphs, one worker")
  local chain, layered = graphs.chain(100000), graphs.layered(1000, 100)
  build_facts(group, "chain of 100,000", chain)
  build_facts(group, "layers of 100,000, 3 edges each", layered)
  local plan, run = sides.native_memory(chain)
  if not plan then return end
  group:fact("chain of 100,000: the plan, from C", plan / #chain, "bytes per processor", 64 + 8)
  group:fact("layers of 100,000: the plan, from C", sides.native_memory(layered) / #layered, "bytes per processor",
    64 + 3 * 8)
  group:fact("chain of 100,000: a run, from C", run / #chain, "bytes per processor", 96)
  million_against_thousand(group, sides.native, "from C")
end

function M.million(group)
  group:begin("million", "A chain of 1,000,000 callbacks in Lua, one worker")
  million_against_thousand(group, sides.tidemill, "in Lua")
end

function M.idle(group)
  group:begin("idle", "An engine of two workers that has run and now waits, for two seconds")
  local engine = tm.engine { workers = 2 }
  local dag = assert(engine:dag(graphs.declare(graphs.fanout(), function() return function(p) return p end end)))
  for _ = 1, 50 do assert(dag:run "x") end
  bench.sleep(0.3) -- until the last look at a worker is over
  local before = bench.others()
  bench.sleep(2)
  group:fact("processor time of its threads", (bench.others() - before) / 2 * 1e6, "µs per second", 10)
  engine:close()
end

M.order = {
  "identity", "new_string", "large", "long_string_chain", "tables", "busy", "stream", "native", "idle", "size",
  "million",
}

return M
