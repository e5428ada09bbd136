-- SPDX-License-Identifier: MIT
-- pool = "shared": threads are borrowed from libuv's pool, and given back. Only where they come from differs.
local tm = require "tidemill"
local oracle = require "spec.support.oracle"
local process = require "spec.support.process"
local random_dag = require "spec.support.random_dag"
local util = require "spec.support.util"

local EXECUTORS = { "reactive", "work_queue", "level" }
local has_luv = pcall(require, "luv")

local engines = {}

local function open(pool, workers)
  local engine = assert(tm.engine { workers = workers or 4, pool = pool })
  engines[#engines + 1] = engine
  return engine
end

local function cleanup()
  while #engines > 0 do table.remove(engines):close() end
  util.cleanup()
end

local function threads()
  for line in io.lines "/proc/self/status" do
    local count = line:match "^Threads:%s+(%d+)"
    if count then return tonumber(count) end
  end
end

-- Asserts that there are so many threads at most. (One that has been joined may be counted a moment longer.)
local function assert_threads(most)
  local deadline = os.time() + 10
  repeat until threads() <= most or os.time() > deadline
  assert.is_true(threads() <= most, ("%d threads, not %d"):format(threads(), most))
end

describe("The option pool", function()
  after_each(cleanup)

  for _, pool in ipairs { "private", "shared" } do
    it(("may be %q"):format(pool), function()
      local dag = assert(open(pool):dag(tm.dag { tm.transform("it", function(p) return p .. "!" end) }))
      assert.equal("p!", util.run(dag, "p").payload)
      assert.equal("p!", dag:start("p"):wait().payload)
    end)
  end

  for _, value in ipairs { "common", "", 1, true, false } do
    it("may not be " .. tostring(value), function()
      util.assert_raises_here(function() tm.engine { pool = value } end, "pool", '"private" or "shared"')
    end)
  end

  it("does not go with kill_grace: what is borrowed cannot be given up", function()
    util.assert_raises_here(function() tm.engine { pool = "shared", kill_grace = 2 } end, "kill_grace", "shared")
  end)
end)

describe("An engine with pool = \"shared\"", function()
  after_each(cleanup)

  local function declare(description)
    local declaration = { failure_strategy = description.failure_strategy }
    for index, processor in ipairs(description.processors) do
      declaration[index] = tm[processor.intent](processor.id, {
        depends_on = processor.depends_on, payload_from = processor.payload_from,
        run = processor.run, when = processor.when,
      })
    end
    return tm.dag(declaration)
  end

  -- All that a run yields but texts.
  local function yield_of(result)
    local yield = { ok = result.ok, payload = result.payload, metadata = result.metadata, outcomes = {}, failures = {} }
    for id, outcome in pairs(result.outcomes) do
      yield.outcomes[id] = { outcome.status, outcome.payload, outcome.metadata, outcome.attempts,
        outcome.error and outcome.error.code }
    end
    for index, failure in ipairs(result.failures) do yield.failures[index] = failure.processor end
    return yield
  end

  for _, strategy in ipairs { "continue_on_error", "best_effort" } do
    it("yields the same as others for any DAG by any executor, under " .. strategy, function()
      local private, shared = open("private", 1), open "shared"
      for seed = 1, 60 do
        local description = random_dag.new(seed)
        description.failure_strategy = strategy
        local expected = assert(private:dag(declare(description)))
          :run(description.payload, { metadata = description.metadata })
        local dag = assert(shared:dag(declare(description)))
        assert.equal(oracle.run(description, description.payload, description.metadata).ok, expected.ok)
        local runs = {}
        for time = 1, 2 * #EXECUTORS do
          local options = { metadata = description.metadata, strategy = EXECUTORS[1 + time % #EXECUTORS] }
          runs[time] = dag:start(description.payload, options)
        end
        for _, run in ipairs(runs) do util.assert_identical(yield_of(expected), yield_of((run:wait()))) end
      end
    end)
  end

  it("retries, and keeps to limits", function()
    local dag = assert(open "shared":dag(tm.dag {
      limits = { one = 1 }, failure_strategy = "continue_on_error",
      tm.transform("a", { uses = "one", retry = { max = 3, backoff = 0.001 }, run = function(p, ctx)
        if ctx.attempt < 3 then return nil, "not yet" end
        return p .. ctx.attempt
      end }),
      tm.analyze("b", { uses = "one", run = function() return { b = true } end }),
    }))
    local runs = {}
    for index = 1, 20 do runs[index] = dag:start(tostring(index)) end
    for index, run in ipairs(runs) do assert.equal(index .. "3", assert(run:wait()).payload) end
  end)

  it("stops a callback that spins when its run is cancelled", function()
    local started = util.path ".started"
    os.remove(started)
    local dag = assert(open "shared":dag(tm.dag { tm.transform("spins", function()
      io.open(started, "w"):close()
      while true do pcall(function() while true do end end) end
    end) }))
    local run = dag:start "p"
    util.await(started)
    run:cancel "enough"
    local result, err = run:wait()
    assert.is_nil(result)
    assert.equal("cancelled", err.code)
  end)

  it("stops a callback that spins when its time is over", function()
    local dag = assert(open "shared":dag(tm.dag { tm.transform("spins", { timeout = 0.02, run = function()
      while true do pcall(function() while true do end end) end
    end }) }))
    local _, started = dag:start("p"):wait()
    local _, run = dag:run "p"
    assert.same({ "timeout", "timeout" }, { started.code, run.code })
  end)

  it("ends a run when its time is over", function()
    local dag = assert(open "shared":dag(tm.dag { tm.transform("spins", { timeout = 60, run = function()
      while true do pcall(function() while true do end end) end
    end }) }))
    local _, err = dag:start("p", { timeout = 0.02 }):wait()
    assert.equal("timeout", err.code)
  end)

  it("may be closed while runs are in flight, which are then cancelled", function()
    for _ = 1, 20 do
      local engine = open "shared"
      local dag = assert(engine:dag(tm.dag { tm.transform("spins", function() while true do end end) }))
      local runs = {}
      for index = 1, 8 do runs[index] = dag:start "p" end
      engine:close()
      for _, run in ipairs(runs) do
        local _, err = run:wait()
        assert.equal("cancelled", err.code)
      end
    end
  end)

  it("keeps no threads, however many such engines there were", function()
    local function come_and_go()
      local engine = open("shared", 2)
      local dag = assert(engine:dag(tm.dag { tm.transform("it", function(p) return p end) }))
      assert.equal("p", dag:start("p"):wait().payload)
      table.remove(engines):close()
    end
    come_and_go() -- libuv starts its pool
    local before = threads()
    for _ = 1, 200 do come_and_go() end
    assert_threads(before)
  end)

  it("adds no thread for a worker", function()
    open("shared"):dag(tm.dag { tm.transform("it", function(p) return p end) }):start("p"):wait()
    local before, gate, started = threads(), util.gate(), {}
    local wait, declaration = gate.wait, {}
    for index = 1, 4 do
      local path = util.path()
      os.remove(path)
      started[index] = path
      declaration[index] = tm.transform("held" .. index, function(p)
        io.open(path, "w"):close()
        wait()
        return p
      end)
    end
    local run = assert(open("shared", 4):dag(tm.dag(declaration))):start "p"
    for _, path in ipairs(started) do util.await(path) end
    assert_threads(before + 1) -- its control loop
    gate.open()
    assert(run:wait())
  end)
end)

-- Programs of their own, in which libuv's pool has so many threads.
local function program(size, text)
  return function()
    local path = util.write(util.path ".lua", ([[
      local tm = require "tidemill"
      local function engine(workers) return assert(tm.engine { workers = workers, pool = "shared" }) end
    ]]):gsub("%s*\n%s*", " ") .. text)
    local finished = process.lua { path, util.path ".fifo", env = { UV_THREADPOOL_SIZE = size } }
    assert.same({ stdout = "fine\n", stderr = "", status = 0 }, finished)
  end
end

describe("With a single thread to borrow", function()
  after_each(cleanup)

  it("four workers settle all runs", program("1", [[
    local engine = engine(4)
    local dag = assert(engine:dag(tm.dag {
      tm.transform("a", function(p) return p .. "a" end),
      tm.transform("b", { depends_on = "a", retry = { max = 1, backoff = 0.001 }, run = function(p, ctx)
        if ctx.attempt == 1 then return nil, "no" end
        return p .. "b"
      end }),
      tm.transform("c", { depends_on = "a", timeout = 60, run = function(p) return p .. "c" end }),
      tm.transform("d", { depends_on = { "b", "c" }, run = function(p) return p .. "d" end }),
    }))
    local runs = {}
    for i = 1, 200 do
      runs[i] = dag:start(i)
      if i % 10 == 0 then assert(dag:run(i).payload == i .. "acd") end
    end
    for i = 1, 200 do assert(runs[i]:wait().payload == i .. "acd") end
    engine:close()
    print "fine"
  ]]))

  it("a callback may wait for an engine of its own, which then has its own threads", program("1", [[
    local engine = engine(2)
    local dag = assert(engine:dag(tm.dag { tm.transform("outer", function(p)
      local tm = require "tidemill"
      local inner = tm.engine { workers = 1, pool = "shared" }
      local dag = inner:dag(tm.dag { tm.transform("inner", function(q) return q .. "!" end) })
      local payload = dag:start(p):wait().payload
      inner:close()
      return payload
    end) }))
    assert(dag:start("p"):wait().payload == "p!")
    engine:close()
    print "fine"
  ]]))

  it("a program may end without closing its engine", program("1", [[
    local engine = engine(4)
    local dag = assert(engine:dag(tm.dag { tm.transform("spins", function() while true do end end) }))
    for _ = 1, 4 do dag:start "p" end
    print "fine"
  ]]))
end)

describe("Beside luv", function()
  if not has_luv then return pending "there is no luv for this Lua" end
  after_each(cleanup)

  for _, size in ipairs { "1", "4" } do
    it(("runs and file system requests complete, on threads that number %s"):format(size), program(size, [[
      local uv = require "luv"
      local engine = engine(4)
      local dag = assert(engine:dag(tm.dag {
        tm.transform("a", function(p) local n = 0 for i = 1, 20000 do n = n + i end return p .. n end),
        tm.transform("b", { depends_on = "a", run = function(p) return p .. "b" end }),
      }))
      local settled, stats = 0, 0
      local function stat(left)
        uv.fs_stat(".", function(err)
          assert(not err, err)
          stats = stats + 1
          if left > 1 then stat(left - 1) end
        end)
      end
      for i = 1, 200 do
        dag:start(i, function(err, result)
          assert(result.payload == i .. "200010000b", err)
          settled = settled + 1
        end)
        if i % 20 == 0 then stat(10) end
      end
      local deadline = os.time() + 60
      repeat
        uv.run "nowait"
        engine:step()
      until (settled == 200 and stats == 100) or os.time() > deadline
      assert(settled == 200, settled)
      assert(stats == 100, stats)
      engine:close()
      print "fine"
    ]]))
  end

  it("an idle engine has no thread that a request would need", program("1", [[
    local uv = require "luv"
    local engine = engine(4)
    local dag = assert(engine:dag(tm.dag { tm.transform("it", function(p) return p end) }))
    for _ = 1, 50 do
      dag:start("p"):wait()
      local done
      uv.fs_stat(".", function() done = true end)
      uv.run()
      assert(done)
    end
    engine:close()
    print "fine"
  ]]))

  it("a request has its turn though there is always work", program("1", [[
    local uv = require "luv"
    local engine = engine(2)
    local dag = assert(engine:dag(tm.dag { tm.transform("it", function(p)
      local n = 0
      for i = 1, 50000 do n = n + i end
      return n
    end) }))
    local done, in_flight = false, 0
    local function start()
      in_flight = in_flight + 1
      dag:start("p", function() in_flight = in_flight - 1 end)
    end
    for _ = 1, 64 do start() end
    uv.fs_stat(".", function() done = true end)
    local deadline = os.time() + 60
    repeat
      engine:step()
      while in_flight < 64 do start() end
      uv.run "nowait"
    until done or os.time() > deadline
    assert(done)
    engine:close()
    print "fine"
  ]]))

  -- Opening a FIFO blocks the one thread until somebody opens the other end.
  it("dag:run and engine:close wait for no request of the host", program("1", [[
    local uv = require "luv"
    local fifo = arg[1]
    assert(os.execute("mkfifo " .. fifo))
    local opened
    uv.fs_open(fifo, "r", 0, function(err, fd) opened = assert(fd, err) end)
    local engine = engine(4)
    local dag = assert(engine:dag(tm.dag {
      tm.transform("a", function(p) return p .. "a" end), tm.transform("b", function(p) return p .. "b" end),
    }))
    local run = dag:start "p"
    assert(dag:run("p").payload == "pb")
    assert(run.status == "running")
    engine:close()
    local result, err = run:wait()
    assert(not result and err.code == "cancelled")
    uv.run "nowait"
    assert(not opened)
    io.open(fifo, "w"):close()
    uv.run()
    assert(opened)
    print "fine"
  ]]))
end)
