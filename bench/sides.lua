-- SPDX-License-Identifier: MIT
-- The sides that are compared. Each function returns a side for bench/measure.lua: `sample` gives
-- seconds per processor (or per run, where it says so), `close` ends what the side had started.
-- A side that is not to be had here (a peer that is not installed) is nil.
--
-- What they take: a shape of bench/graphs.lua, the name of a callback in bench/callbacks.lua, and
-- perhaps { workers = n, payload = what goes in, calls = processors in a sample }.
local bench = bench -- luacheck: ignore 113
local tm = require "tidemill"
local callbacks = require "bench.callbacks"
local graphs = require "bench.graphs"
local loop_peer = require "bench.loop_peer"
local luv_peer = require "bench.luv_peer"
local measure = require "bench.measure"

local M = {}

local CALLS = 5000
local PAYLOAD = "0123456789abcdef0123456789abcdef"

local function nothing() end

-- A side that calls `call` as often as it takes to run `what.calls` processors; or four times at least, since one run
-- alone is not what runs cost in the long run: memory is used again.
local function repeating(side, shape, call, what)
  local runs = math.max(what.calls and 1 or 4, math.floor((what.calls or CALLS) / #shape))
  side.call = call
  side.sample = function() return measure.time(call, runs) / #shape end
  side.close = side.close or nothing
  return side
end

local function require_if_there(name)
  local ok, module = pcall(require, name)
  return ok and module or nil
end

-- A payload of a number of fields is a table of integers by string keys.
local function payload_of(what)
  local payload = what.payload or PAYLOAD
  if type(payload) ~= "number" then return payload end
  local fields = {}
  for i = 1, payload do fields["field" .. i] = i end
  return fields
end

local function in_c(name, method, callback, what)
  local floor = bench.floor(callbacks[callback], what and what.payload or PAYLOAD)
  local calls = what and what.calls or CALLS
  local function call(n) floor[method](floor, n) end
  return { name = name, call = call, close = nothing, sample = function()
    call(math.ceil(calls / 10))
    local began = bench.now()
    call(calls)
    return (bench.now() - began) / calls
  end }
end

function M.floor(name, what) return in_c("floor", "call", name, what) end

-- The callback alone, called from C.
function M.bare(name, what) return in_c("bare call", "bare", name, what) end

local function always(value)
  return function() return value end
end

function M.tidemill(shape, name, what)
  local engine = tm.engine { workers = what.workers }
  local run_of = what.run_of or always(callbacks.load(callbacks[name]))
  local dag = assert(engine:dag(graphs.declare(shape, run_of)))
  local payload = payload_of(what)
  local function call() assert(dag:run(payload)) end
  for _ = 1, what.warm or 20 do call() end -- until the engine has learned what the callbacks cost
  return repeating({
    name = "tidemill", workers = what.workers,
    answer = function() return dag:run(payload).payload end,
    close = function() engine:close() end,
  }, shape, call, what)
end

-- A stream of small runs; seconds per run.
function M.stream(shape, name, what)
  local engine = tm.engine { workers = what.workers }
  local dag = assert(engine:dag(graphs.declare(shape, always(callbacks.load(callbacks[name])))))
  local payload, runs = payload_of(what), what.runs or 2000
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
    name = "tidemill", workers = what.workers, call = call,
    sample = function()
      call(50)
      local began = bench.now()
      call(runs)
      return (bench.now() - began) / runs
    end,
    close = function() engine:close() end,
  }
end

-- oneTBB's flow graph with a Lua state per thread; with empty tasks where `name` is nil
function M.tbb(shape, name, what)
  local tbb = require_if_there "bench.tbb"
  if not tbb then return end
  local graph, payload = tbb(shape, callbacks[name], what.workers), payload_of(what)
  return repeating({
    name = name and "oneTBB + Lua" or "oneTBB, empty", workers = what.workers,
    answer = function()
      graph:run(payload)
      return graph:payload()
    end,
    close = function() graph:close() end,
  }, shape, function() graph:run(payload) end, what)
end

local function native_side(name, graph, shape, what)
  local payload = payload_of(what)
  local function call() graph:run(payload) end
  for _ = 1, 20 do call() end
  return repeating({
    name = name, workers = what.workers,
    answer = function() return graph:payload(payload) end,
    close = function() graph:close() end,
  }, shape, call, what)
end

-- tidemill through its C interface, with processors in C that hand on their payload
function M.native(shape, _, what)
  local native = require_if_there "bench.native"
  return native and native_side("tidemill, all C", native(shape, what.workers), shape, what)
end

-- tidemill through its C interface, with a script; `workload` names a function of bench/graphs.lua
function M.native_script(workload, name, what)
  local native = require_if_there "bench.native"
  if not native then return end
  local path = ("build/bench/%s.dag.lua"):format(workload)
  local file = assert(io.open(path, "w"))
  file:write(([[
    local callbacks, graphs = require "bench.callbacks", require "bench.graphs"
    local run = callbacks.load(callbacks[%q])
    return graphs.declare(graphs[%q](), function() return run end)
  ]]):format(name, workload))
  file:close()
  return native_side("tidemill, from C", native(path, what.workers), graphs[workload](), what)
end

-- What a peer in Lua wants to know: how many dependencies each has, who depends on it, which
-- dependency has its payload, and who has none.
local function plan(shape)
  local made = { size = #shape, pending = {}, dependents = {}, source = {}, entries = {} }
  local rank = {}
  for i, depends_on in ipairs(shape) do
    made.pending[i], made.dependents[i], rank[i] = #depends_on, {}, 0
    if #depends_on == 0 then made.entries[#made.entries + 1] = i end
    for _, on in ipairs(depends_on) do
      table.insert(made.dependents[on], i)
      if rank[on] >= rank[i] then rank[i], made.source[i] = rank[on] + 1, on end
      if rank[on] + 1 == rank[i] and on > made.source[i] then made.source[i] = on end
    end
  end
  return made
end

function M.luv(shape, name, what)
  if not require_if_there "luv" then return end
  local run, payload = luv_peer.graph(plan(shape), name), payload_of(what)
  local function call() return run(payload) end
  return repeating({
    name = "luv new_work", workers = 2, every = what.every, answer = call, crowded = true,
  }, shape, call, { calls = 1 })
end

function M.loop(shape, name, what)
  local run, payload = loop_peer.graph(plan(shape), callbacks.load(callbacks[name])), payload_of(what)
  local function call() return run(payload) end
  return repeating({ name = "Lua loop", answer = call }, shape, call, what)
end

-- What the C interface says about memory: bytes that a plan keeps, and bytes that a run keeps.
function M.native_memory(shape)
  local native = require_if_there "bench.native"
  if not native then return end
  local graph, plan_bytes, run_bytes = native(shape, 1)
  graph:close()
  return plan_bytes, run_bytes
end

-- Processes that share nothing and call the callback calls / n times each; seconds per call.
function M.processes(name, n, calls)
  return { name = n == 1 and "a process" or n .. " processes", close = nothing, sample = function()
    local took, waited = bench.processes(callbacks[name], n, calls / n)
    return took / calls, waited
  end }
end

return M
