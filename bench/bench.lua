-- SPDX-License-Identifier: MIT
-- What a processor costs over the bare call of its callback. Run by bench/bench.c, which provides the
-- floor; all sides are measured in turn, round after round, and medians are compared.
local bench = bench -- luacheck: ignore 113
local tm = require "tidemill"
local graphs = require "bench.graphs"

local ROUNDS = tonumber(os.getenv "TIDEMILL_BENCH_ROUNDS") or 25
local CALLS = 20000 -- per round, of each

local callbacks = {
  { name = "identity", source = "return function(p) return p end",
    run = function(p) return p end },
  { name = "new string",
    source = "local n = 0; return function(p) n = n + 1; return ('%032d'):format(n) end",
    run = (function() local n = 0; return function() n = n + 1; return ("%032d"):format(n) end end)() },
}

local workloads = { "chain", "fanout", "ladder", "layered", "diamond" }

local function median(list)
  table.sort(list)
  return list[math.floor(#list / 2) + 1]
end

local function time_runs(dag, runs)
  local payload = "0123456789abcdef0123456789abcdef"
  collectgarbage()
  local began = bench.now()
  for _ = 1, runs do dag:run(payload) end
  return (bench.now() - began) / runs
end

local function measure(callback, worker_counts)
  local sides, engines = {}, {}
  for _, workers in ipairs(worker_counts) do
    for _, name in ipairs(workloads) do
      local engine = tm.engine { workers = workers }
      engines[#engines + 1] = engine
      local list = graphs[name](callback.run)
      local dag = assert(engine:dag(tm.dag(list)))
      local side = { name = name, workers = workers, dag = dag, nodes = #list, times = {} }
      side.runs = math.ceil(CALLS / side.nodes)
      time_runs(dag, 20)
      sides[#sides + 1] = side
    end
  end
  local floors = {}
  for round = 1, ROUNDS do
    floors[round] = bench.floor(callback.source, CALLS)
    for _, side in ipairs(sides) do
      side.times[round] = time_runs(side.dag, side.runs) / side.nodes
    end
  end
  for _, engine in ipairs(engines) do engine:close() end
  return median(floors), sides
end

local function report(callback, floor, sides)
  print(("%s: the floor is %.0f ns per call"):format(callback.name, floor * 1e9))
  print(("  %-8s %8s %12s %8s %s"):format("graph", "workers", "ns/processor", "x floor", "(lowest, highest)"))
  for _, side in ipairs(sides) do
    local mid = median(side.times)
    print(("  %-8s %8d %12.1f %8.2f (%.2f, %.2f)"):format(side.name, side.workers, mid * 1e9,
      mid / floor, side.times[1] / floor, side.times[#side.times] / floor))
  end
end

print(("%s, medians of %d rounds"):format(rawget(_G, "jit") and jit.version or _VERSION, ROUNDS))
for _, callback in ipairs(callbacks) do
  report(callback, measure(callback, { 1, 2 }))
end
