-- SPDX-License-Identifier: MIT
-- For whoever works on the engine: the five graphs and a stream against the floor, in half a minute.
--   make bench-quick WORKLOADS="chain stream" SECONDS=20 BASE=build/bench/before.json
local graphs = require "bench.graphs"
local json = require "dkjson"
local measure = require "bench.measure"
local sides = require "bench.sides"

local SECONDS = tonumber(os.getenv "SECONDS") or 36
local SAVED = "build/bench/quick.json"
local ALL = { "chain", "fanout", "ladder", "layered", "diamond", "stream" }

local function side_of(name, callback, workers)
  if name == "stream" then return sides.stream(graphs.diamond(), callback, { workers = workers }) end
  return sides.tidemill(graphs[name](), callback, { workers = workers })
end

local function read(path)
  local file = path and assert(io.open(path))
  if not file then return {} end
  local content = json.decode(file:read "*a")
  file:close()
  return content
end

local function print_row(name, side, floor, old, saved)
  local time = measure.spread(side.times)
  if side == floor then
    return print(("%-8s %7s %8.1f %8.1f"):format(name, "floor", time.median * 1e9, time.lowest * 1e9))
  end
  local ratio = measure.ratio(side, floor, name == "stream" and 4 or 1)
  local key, x = ("%s, %d"):format(name, side.workers), ratio.median
  saved[key] = x
  print(("%-8s %7d %8.1f %8.1f   %7.2f %7.2f %7.2f   %s%s"):format(name, side.workers, time.median * 1e9,
    time.lowest * 1e9, x, ratio.q1, ratio.q3, old[key] and ("%.2f"):format(x / old[key]) or "",
    measure.unsure(side) and " ?" or ""))
end

local function measure_workload(name, callback, seconds, old, saved)
  local floor = sides.floor(callback)
  local list = { floor, side_of(name, callback, 1), side_of(name, callback, 2) }
  measure.rounds(list, seconds)
  for _, side in ipairs(list) do
    print_row(name, side, floor, old, saved)
    side.close()
  end
end

local wanted, old, saved = ... and { ... } or ALL, read(os.getenv "BASE"), {}
print((rawget(_G, "jit") and jit.version or _VERSION)
  .. "; ns per processor (stream: per run of 4); ? is where other programs had the cores")
for _, callback in ipairs { "identity", "new string" } do
  print(("\n%-8s %7s %8s %8s   %7s %15s   %s"):format(callback, "workers", "ns", "lowest", "x floor", "(middle half)",
    "x before"))
  local results = {}
  old[callback], saved[callback] = old[callback] or {}, results
  for _, name in ipairs(wanted) do
    measure_workload(name, callback, SECONDS / 2 / #wanted, old[callback], results)
  end
end

local file = assert(io.open(SAVED, "w"))
file:write(json.encode(saved, { indent = true }), "\n")
file:close()
print("\nSaved in " .. SAVED .. "; BASE=<a copy of it> adds the column x before.")
