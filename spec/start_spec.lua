-- SPDX-License-Identifier: MIT
-- dag:start, what it returns, and engine:step.
local tm = require "tidemill"
local util = require "spec.support.util"

local function append(id)
  return tm.transform(id, function(payload) return payload .. id end)
end

local function refuse(id)
  return tm.transform(id, function() return nil, "no " .. id end)
end

-- A DAG of one transform that ends when the gate opens.
local function gated(engine)
  local gate = util.gate()
  local wait = gate.wait
  return assert(engine:dag(tm.dag { tm.transform("a", function(payload)
    wait()
    return payload
  end) })), gate
end

-- Steps until so many callbacks were called.
local function step(engine, count)
  local called, deadline = 0, os.time() + 30
  while called < count and os.time() < deadline do called = called + engine:step() end
  return called
end

describe("dag:start", function()
  after_each(util.cleanup)

  it("returns a run at once", function()
    local dag, gate = gated(util.engine(1))
    local run = dag:start "x"
    assert.equal("running", run.status)
    gate.open()
    assert.equal("x", assert(run:wait(30)).payload)
    assert.equal("completed", run.status)
  end)

  it("returns nil and an error for what cannot travel", function()
    local run, err = util.dag(tm.dag { append "a" }):start(print, nil, function() error "called" end)
    assert.is_nil(run)
    assert.equal("invalid_payload", err.code)
  end)

  it("returns nil and an error after the engine has closed", function()
    local engine = tm.engine { workers = 1 }
    local dag = assert(engine:dag(tm.dag { append "a" }))
    engine:close()
    local run, err = dag:start("x", function() end)
    assert.is_nil(run)
    assert.equal("closed", err.code)
  end)

  it("refuses misuse at the caller's line", function()
    local dag = util.dag(tm.dag { append "a" })
    util.assert_raises_here(function() dag:start("x", { nope = 1 }) end, "nope")
    util.assert_raises_here(function() dag:start("x", 42) end)
    util.assert_raises_here(function() dag:start("x", { timeout = "1" }) end, "timeout")
    util.assert_raises_here(function() dag.start("x") end)
  end)

  it("refuses a callback that is none at the caller's line", function()
    local dag = util.dag(tm.dag { append "a" })
    util.assert_raises_here(function() dag:start("x", {}, 42) end)
  end)

  it("tells the status of what failed", function()
    local run = util.dag(tm.dag { refuse "a" }):start "x"
    local result, err = run:wait(30)
    assert.is_nil(result)
    assert.same({ "processor_failed", "failed" }, { err.code, run.status })
  end)
end)

describe("run:wait", function()
  after_each(util.cleanup)

  it("answers nil and an error with the code timeout while the run goes on", function()
    local dag, gate = gated(util.engine(1))
    local run = dag:start "x"
    local result, err = run:wait(0.01)
    assert.is_nil(result)
    assert.equal("timeout", err.code)
    assert.is_nil(err.result)
    assert.equal("running", run.status)
    gate.open()
    assert.equal("x", assert(run:wait(30)).payload)
  end)

  it("may be given no time at all", function()
    local dag, gate = gated(util.engine(1))
    local run = dag:start "x"
    assert.equal("timeout", select(2, run:wait(0)).code)
    gate.open()
    assert(run:wait())
    assert.equal("x", assert(run:wait(0)).payload)
  end)

  it("answers the same each time", function()
    local run = util.dag(tm.dag { failure_strategy = "continue_on_error", refuse "a", append "b" }):start ""
    for _ = 1, 3 do
      local result, err = run:wait(30)
      assert.same({ "b", "no a" }, { result.payload, err.message })
    end
  end)

  it("may be waited for after the DAG and the engine are forgotten", function()
    local run
    do
      local engine = tm.engine { workers = 1 }
      run = assert(engine:dag(tm.dag { append "a" })):start "x"
    end
    collectgarbage()
    collectgarbage()
    local result = run:wait(30)
    assert.equal("xa", result and result.payload)
  end)

  it("refuses what is no number of seconds", function()
    local run = util.dag(tm.dag { append "a" }):start "x"
    local takes = "run:wait takes a number of seconds, but it got "
    util.assert_raises_here(function() run:wait("soon") return 1 end, takes .. "a string")
    util.assert_raises_here(function() run:wait(0 / 0) return 1 end, takes .. "nan, which is not a number")
    util.assert_raises_here(function() run:wait(-1) return 1 end, takes .. "one below 0")
    assert.same({ false, takes .. "a table" }, { pcall(run.wait, run, {}) })
  end)
end)

describe("engine:step", function()
  after_each(util.cleanup)

  it("calls nothing and returns 0 when nothing has settled", function()
    local engine = util.engine(1)
    assert.equal(0, engine:step())
    local dag, gate = gated(engine)
    local run = dag:start("x", function() error "called" end)
    assert.equal(0, engine:step())
    gate.open()
    run:wait(30)
    assert.is_false(pcall(engine.step, engine))
  end)

  it("calls back with no error and the result of what completed", function()
    local engine, seen = util.engine(1), nil
    assert(engine:dag(tm.dag { append "a" })):start("x", nil, function(...) seen = { n = select("#", ...), ... } end)
    assert.equal(1, step(engine, 1))
    assert.is_nil(seen[1])
    assert.equal("xa", seen[2].payload)
  end)

  it("calls back with the error of what failed", function()
    local engine, seen = util.engine(1), {}
    local dag = assert(engine:dag(tm.dag { refuse "a" }))
    dag:start("x", function(err, result) seen = { err = err, result = result } end)
    step(engine, 1)
    assert.equal("no a", seen.err.message)
    assert.is_nil(seen.result)
  end)

  it("calls back with both where there are both", function()
    local engine, seen = util.engine(1), {}
    assert(engine:dag(tm.dag { failure_strategy = "best_effort", refuse "a", append "b" }))
      :start("x", {}, function(err, result) seen = { err = err, result = result } end)
    step(engine, 1)
    assert.equal("no a", seen.err.message)
    assert.equal("xb", seen.result.payload)
  end)

  it("calls back with what run:wait answers, for a run that was cancelled", function()
    local engine, seen = util.engine(1), {}
    local dag, gate = gated(engine)
    local run = dag:start("x", function(err, result) seen = { err = err, result = result } end)
    run:cancel "enough"
    gate.open()
    step(engine, 1)
    assert.equal("cancelled", seen.err.code)
    assert.is_nil(seen.result)
  end)

  it("does so on the caller's thread, in the caller's state", function()
    local engine, co = util.engine(1), nil
    assert(engine:dag(tm.dag { append "a" })):start("x", function() co = coroutine.running() end)
    step(engine, 1)
    assert.equal((coroutine.running()), co)
  end)

  it("calls back once for each run, however often it is stepped or waited for", function()
    local engine, calls = util.engine(2), {}
    local dag, runs = assert(engine:dag(tm.dag { append "a" })), {}
    for number = 1, 200 do
      runs[number] = dag:start("x" .. number, function(_, result) calls[#calls + 1] = result.payload end)
    end
    for number = 1, 200, 7 do assert(runs[number]:wait(30)) end
    assert.equal(200, step(engine, 200))
    assert.equal(0, engine:step())
    table.sort(calls)
    local expected = {}
    for number = 1, 200 do expected[number] = "x" .. number .. "a" end
    table.sort(expected)
    assert.same(expected, calls)
  end)

  it("leaves alone what was started without a callback", function()
    local engine = util.engine(1)
    assert(engine:dag(tm.dag { append "a" })):start("x"):wait(30)
    assert.equal(0, engine:step())
  end)

  it("keeps callbacks of runs that were dropped", function()
    local engine, calls = util.engine(2), 0
    do
      local dag = assert(engine:dag(tm.dag { append "a" }))
      for _ = 1, 50 do dag:start("x", function() calls = calls + 1 end) end
    end
    collectgarbage()
    collectgarbage()
    assert.equal(50, step(engine, 50))
    assert.equal(50, calls)
  end)

  it("lets what a callback raises out, and calls the rest with the next step", function()
    local engine, calls = util.engine(1), {}
    local dag, runs = assert(engine:dag(tm.dag { append "a" })), {}
    for number = 1, 3 do
      runs[number] = dag:start("x", function()
        calls[#calls + 1] = number
        if #calls == 1 then error("from the callback", 0) end
      end)
    end
    for _, run in ipairs(runs) do run:wait(30) end
    local ok, message = pcall(engine.step, engine)
    assert.same({ false, "from the callback" }, { ok, message })
    assert.equal(1, #calls)
    assert.equal(2, step(engine, 2))
    assert.equal(3, #calls)
  end)

  it("may be called from a callback, which may start runs", function()
    local engine, calls = util.engine(1), 0
    local dag = assert(engine:dag(tm.dag { append "a" }))
    local function again()
      calls = calls + 1
      if calls < 20 then
        dag:start("x", again)
        engine:step()
      end
    end
    dag:start("x", again)
    local deadline = os.time() + 30
    while calls < 20 and os.time() < deadline do engine:step() end
    assert.equal(20, calls)
  end)

  it("lets a callback close the engine", function()
    local engine = util.engine(1)
    local dag, calls = assert(engine:dag(tm.dag { append "a" })), 0
    local function close()
      calls = calls + 1
      engine:close()
    end
    local runs = { dag:start("x", close), dag:start("x", close) }
    for _, run in ipairs(runs) do run:wait(30) end
    engine:step()
    assert.is_true(calls >= 1)
  end)

  it("calls back once for runs that the closing of the engine cancelled", function()
    local engine, codes = tm.engine { workers = 1 }, {}
    local dag, gate = gated(engine)
    for _ = 1, 3 do dag:start("x", function(err) codes[#codes + 1] = err and err.code or "completed" end) end
    gate.open()
    for _ = 1, 3 do dag:start("x", function() codes[#codes + 1] = "any" end) end
    engine:close()
    engine:step()
    assert.equal(6, #codes)
    assert.equal(0, engine:step())
  end)

  it("is refused without a colon, at the caller's line", function()
    local engine = util.engine(1)
    util.assert_raises_here(function() engine.step() end, "step")
  end)
end)
