-- SPDX-License-Identifier: MIT
-- The sides that are compared. Each function returns a side for bench/measure.lua; `sample` gives
-- seconds per processor, and `close` ends what the side had started.
local bench = bench -- luacheck: ignore 113
local tm = require "tidemill"
local callbacks = require "bench.callbacks"
local measure = require "bench.measure"

local M = {}

local CALLS = 5000 -- processors in a sample, where nothing else is said

M.PAYLOAD = "0123456789abcdef0123456789abcdef"

function M.runs(shape, calls)
  return math.max(1, math.floor((calls or CALLS) / #shape))
end

function M.floor(source, payload, calls)
  local floor = bench.floor(source, payload or M.PAYLOAD)
  calls = calls or CALLS
  return { name = "floor", sample = function()
    floor:call(math.ceil(calls / 10))
    local began = bench.now()
    floor:call(calls)
    return (bench.now() - began) / calls
  end, call = function(n) floor:call(n) end, close = function() end }
end

function M.declare(shape, run)
  local list = {}
  for i, depends_on in ipairs(shape) do
    local ids = {}
    for k, position in ipairs(depends_on) do ids[k] = "n" .. position end
    list[i] = tm.transform("n" .. i, { depends_on = ids, run = run })
  end
  return tm.dag(list)
end

-- what = { workers, payload, calls, engine = more options of tm.engine }
function M.tidemill(shape, source, what)
  what = what or {}
  local engine = tm.engine { workers = what.workers or 1 }
  local dag = assert(engine:dag(M.declare(shape, callbacks.load(source))))
  local payload, runs = what.payload or M.PAYLOAD, M.runs(shape, what.calls)
  local function call() assert(dag:run(payload)) end
  for _ = 1, 20 do call() end -- until the engine has learned what the callbacks cost
  return {
    name = "tidemill", workers = what.workers or 1, call = call,
    sample = function() return measure.time(call, runs) / #shape end,
    close = function() engine:close() end,
  }
end

-- A stream of small runs; nil while there is no such thing. Per run, not per processor.
function M.stream(shape, source, what)
  local engine = tm.engine { workers = what.workers or 1 }
  local dag = assert(engine:dag(M.declare(shape, callbacks.load(source))))
  local ok, stream = pcall(function() return dag.stream end)
  if not ok or not stream then return engine:close() end
  local payload, runs = what.payload or M.PAYLOAD, what.runs or 2000
  local options = { max_in_flight = what.max_in_flight or 64, ordered = what.ordered ~= false }
  local function call(n)
    local left, settled = n, 0
    for _, result, err in dag:stream(function()
      left = left - 1
      if left >= 0 then return payload end
    end, options) do
      settled = settled + 1
      if err or not result.ok then error(err) end
    end
    assert(settled == n, "a stream lost runs")
  end
  call(500)
  return {
    name = "tidemill", workers = what.workers or 1, call = call,
    sample = function()
      call(50)
      local began = bench.now()
      call(runs)
      return (bench.now() - began) / runs
    end,
    close = function() engine:close() end,
  }
end

return M
