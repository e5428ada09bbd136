-- SPDX-License-Identifier: MIT
-- How long it takes from run:cancel until the run has settled, while a callback fights back.
-- Run by bench/bench.c, for its clock: build/release-5.4/bench/bench bench/stop.lua [cancels per row]
local bench = bench -- luacheck: ignore 113
local tm = require "tidemill"
local stubborn = require "spec.support.stubborn"

local CANCELS = tonumber((...)) or 100

local bodies = {}
for _, item in ipairs(stubborn) do bodies[item.name] = item.body end

local function once(dag, delay)
  local run = dag:start "x"
  run:wait(delay)
  local began = bench.now()
  run:cancel()
  local _, err = run:wait(30)
  assert(err and err.code == "cancelled", tostring(err))
  return (bench.now() - began) * 1000
end

local function row(mode, name)
  local engine = tm.engine { workers = 2, preempt = mode }
  local body, deadline = bodies[name], os.time() + 600
  local dag = assert(engine:dag(tm.dag { tm.transform("it", function(payload)
    body(deadline)
    return payload
  end) }))
  local times = {}
  for number = 1, CANCELS do times[number] = once(dag, 0.001 + number % 7 / 1000) end
  engine:close()
  table.sort(times)
  print(("%-8s %-45s %8.3f %8.3f %8.3f"):format(mode, name, times[math.ceil(#times / 2)],
    times[math.ceil(#times * 0.95)], times[#times]))
end

print(("%-8s %-45s %8s %8s %8s"):format("preempt", "callback", "median", "95 %", "worst ms"))
for _, mode in ipairs { "signal", "hook" } do
  for _, name in ipairs {
    "a loop", "pcall in a loop", "a coroutine that swallows the stop", "string.gsub with a replacement that spins",
    "an xpcall whose handler spins after an error", "table.sort with a comparator that spins",
  } do row(mode, name) end
end
