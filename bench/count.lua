-- SPDX-License-Identifier: MIT
-- Instructions per processor (stream: per run), on one worker, as callgrind counts them: they
-- repeat where clocks do not. One file for each workload, for callgrind_annotate.
--   make bench-count WORKLOADS="chain stream"
local bench = bench -- luacheck: ignore 113
local graphs = require "bench.graphs"
local sides = require "bench.sides"

local OUT = "build/bench/callgrind.out"
local MANY, FEW = 2048, 32 -- runs; multiples of 16, since one run in sixteen reads the clock
local ALL = { "chain", "fanout", "ladder", "layered", "diamond", "stream" }

assert(bench.counting(), "run this with `make bench-count`")

local dumps = 0
local function count(name, call)
  dumps = dumps + 1
  collectgarbage()
  bench.count(name, call)
  local path = ("%s.%d"):format(OUT, dumps)
  for line in io.lines(path) do
    local total = line:match "^totals: (%d+)"
    if total then return tonumber(total), path end
  end
  error("no totals in " .. path)
end

local function repeated(call, runs)
  return function() for _ = 1, runs do call() end end
end

local function per_unit(name, callback)
  if name == "stream" then
    local side = sides.stream(graphs.diamond(), callback, { workers = 1 })
    local total, path = count(name, function() side.call(MANY) end)
    side.close()
    return total / MANY, path
  end
  local shape = graphs[name]()
  local runs = #shape > 4 and FEW or MANY
  local side = sides.tidemill(shape, callback, { workers = 1 })
  local total, path = count(name, repeated(side.call, runs))
  side.close()
  return total / runs / #shape, path
end

local wanted = ... and { ... } or ALL
for _, callback in ipairs { "identity", "new string" } do
  local floor = sides.floor(callback)
  local bare = count("floor", function() floor.call(5000) end) / 5000
  print(("%-10s %12s %8s"):format(callback, "instructions", "x floor"))
  print(("%-10s %12.1f"):format("floor", bare))
  for _, name in ipairs(wanted) do
    local each, path = per_unit(name, callback)
    print(("%-10s %12.1f %8.2f   callgrind_annotate %s"):format(name, each,
      each / bare / (name == "stream" and 4 or 1), path))
  end
end
