-- SPDX-License-Identifier: MIT
-- retry = { max, backoff, factor, max_backoff, jitter, seed, when }: trying again what failed.
local tm = require "tidemill"
local util = require "spec.support.util"

-- A transform "it" that fails until its attempt is `good`.
local function flaky(good, retry, fields)
  fields = fields or {}
  fields.retry = retry
  fields.run = fields.run or function(payload, ctx)
    if ctx.attempt < good then return nil, "attempt " .. ctx.attempt end
    return payload .. ctx.attempt
  end
  return tm.transform("it", fields)
end

local function run(declaration, payload, options, workers)
  return util.dag(tm.dag(declaration), workers):run(payload or "", options)
end

local function messages(errors)
  local list = {}
  for index, err in ipairs(errors) do list[index] = err.message end
  return list
end

describe("A processor with retries", function()
  after_each(util.cleanup)

  it("is called once when it does not fail", function()
    local outcome = assert(run { flaky(1, { max = 3 }) }).outcomes.it
    assert.same({ "completed", 1 }, { outcome.status, outcome.attempts })
    assert.is_nil(outcome.errors)
  end)

  for _, workers in ipairs { 1, 2, 4 } do
    it(("completes at the first attempt that succeeds, with %d workers"):format(workers), function()
      local result, err = run({ flaky(3, { max = 5 }) }, "x", nil, workers)
      assert.is_nil(err)
      assert.equal("x3", result.payload)
      assert.equal(3, result.outcomes.it.attempts)
    end)
  end

  it("completes without an error, but with the errors of the failed attempts in order", function()
    local outcome = assert(run { flaky(3, { max = 5 }) }).outcomes.it
    assert.is_nil(outcome.error)
    assert.same({ "attempt 1", "attempt 2" }, messages(outcome.errors))
    assert.same({ 1, 2 }, { outcome.errors[1].attempt, outcome.errors[2].attempt })
  end)

  it("fails after one attempt and max more", function()
    local _, err = run { flaky(9, { max = 2 }) }
    local outcome = err.result.outcomes.it
    assert.same({ "failed", 3, "attempt 3", 3 }, { outcome.status, outcome.attempts, err.message, err.attempt })
    assert.same({ "attempt 1", "attempt 2", "attempt 3" }, messages(outcome.errors))
  end)

  it("is one failure, however often it failed", function()
    local _, err = run { flaky(9, { max = 2 }) }
    assert.same({ "it" }, util.ids(err.failures))
  end)

  it("keeps the traceback and the cause of each attempt", function()
    local _, err = run { flaky(9, { max = 1 }, { run = function(_, ctx) error { number = ctx.attempt } end }) }
    for number, failure in ipairs(err.result.outcomes.it.errors) do
      assert.is_string(failure.traceback)
      assert.same({ number = number }, failure.cause)
    end
  end)

  for name, misbehave in pairs {
    ["raises"] = function() error "no" end,
    ["returns nothing"] = function() end,
    ["returns what cannot travel"] = function() return print end,
    ["returns too much"] = function() return 1, {}, 3 end,
  } do
    it("is tried again when it " .. name, function()
      local result = assert(run { flaky(2, { max = 1 }, { run = function(_, ctx)
        if ctx.attempt == 1 then return misbehave() end
        return "fine"
      end }) })
      assert.equal("fine", result.payload)
    end)
  end

  it("is tried again when its condition raises", function()
    local path = util.path()
    local result = assert(run { flaky(1, { max = 1 }, { when = function()
      local file = io.open(path, "a+")
      file:seek "set"
      local before = file:read "*a"
      file:write "x"
      file:close()
      if before == "" then error "no condition" end
      return true
    end }) })
    assert.equal(2, result.outcomes.it.attempts)
  end)

  it("gets the same payload each time", function()
    local result = assert(run({ flaky(1, { max = 2 }, { run = function(payload, ctx)
      payload.list[#payload.list + 1] = "changed"
      if ctx.attempt < 3 then return nil, "no" end
      return payload
    end }) }, { list = { "one" } }))
    assert.same({ list = { "one", "changed" } }, result.payload)
  end)

  it("may be an analyze", function()
    local result = assert(run { tm.analyze("it", { retry = { max = 1 }, run = function(_, ctx)
      if ctx.attempt == 1 then error "no" end
      return { attempt = ctx.attempt }
    end }) })
    assert.same({ attempt = 2 }, result.metadata.it)
  end)

  it("lets dependents start after the last attempt only", function()
    local result = assert(run({ flaky(3, { max = 5 }), tm.transform("after", {
      depends_on = "it", run = function(payload, ctx) return payload .. ctx.dependencies.it.status end,
    }) }, "x"))
    assert.equal("x3completed", result.payload)
  end)

  it("shows a dependent the last error under best_effort", function()
    local result = run { failure_strategy = "best_effort", flaky(9, { max = 2 }), tm.analyze("after", {
      depends_on = "it", run = function(_, ctx) return { seen = ctx.dependencies.it.error.message } end,
    }) }
    assert.same({ seen = "attempt 3" }, result.metadata.after)
  end)

  it("does not trip fail_fast before the last attempt", function()
    local result = assert(run({ flaky(3, { max = 2, backoff = 0.01 }), tm.analyze("other", function() end) }, ""))
    assert.equal("completed", result.outcomes.other.status)
  end)

  it("comes out equal run after run, many at once", function()
    local dag, runs = util.dag(tm.dag { flaky(4, { max = 3 }) }, 3), {}
    for number = 1, 100 do runs[number] = dag:start("x" .. number .. "-") end
    for number = 1, 100 do
      local result = assert(runs[number]:wait(30))
      assert.equal(("x%d-4"):format(number), result.payload)
      assert.equal(3, #result.outcomes.it.errors)
    end
  end)

  for _, strategy in ipairs { "reactive", "work_queue", "level" } do
    it("is tried again under " .. strategy, function()
      local result = assert(run({
        strategy = strategy, flaky(3, { max = 2 }), tm.transform("beside", function(payload) return payload end),
        tm.transform("after", { depends_on = "it", run = function(payload) return payload .. "!" end }),
      }, "x"))
      assert.equal("x3!", result.payload)
    end)
  end
end)

describe("Backoff", function()
  after_each(util.cleanup)

  -- How long a DAG of `it` alone takes that fails `max` times, in seconds.
  local function duration(retry)
    local result = assert(run({ flaky(retry.max + 1, retry) }, "", { profile = true }))
    return result.duration
  end

  it("is none unless asked for", function()
    assert.is_true(duration { max = 20 } < 5)
  end)

  it("waits before each attempt", function()
    assert.is_true(duration { max = 2, backoff = 0.05, factor = 1 } >= 0.1)
  end)

  it("doubles unless told otherwise", function()
    assert.is_true(duration { max = 3, backoff = 0.02 } >= 0.02 + 0.04 + 0.08)
  end)

  it("grows by the factor", function()
    assert.is_true(duration { max = 3, backoff = 0.01, factor = 3 } >= 0.01 + 0.03 + 0.09)
  end)

  it("never waits longer than max_backoff", function()
    local took = duration { max = 4, backoff = 0.01, factor = 1000, max_backoff = 0.02 }
    assert.is_true(took >= 0.01 + 3 * 0.02 and took < 5)
  end)

  it("waits no longer with jitter", function()
    assert.is_true(duration { max = 1, backoff = 0.02, jitter = 1 } < 5)
    assert.is_true(duration { max = 1, backoff = 0.05, jitter = 0.5 } >= 0.025)
  end)

  it("lets the worker go on with other processors meanwhile", function()
    local result = assert(run({
      flaky(2, { max = 1, backoff = 0.1 }), tm.transform("other", function(payload) return payload end),
    }, "", { profile = true }, 1))
    assert.is_true(result.outcomes.other.finished < result.outcomes.it.started)
  end)
end)

describe("A retry that waits", function()
  after_each(util.cleanup)

  local function waiting(fields)
    local path = util.path()
    os.remove(path)
    fields = fields or {}
    fields[#fields + 1] = flaky(2, { max = 1, backoff = 3600 }, { run = function()
      io.open(path, "w"):close()
      return nil, "not yet"
    end })
    return tm.dag(fields), path
  end

  for _, preempt in ipairs { "hook", "signal", false } do
    it(("ends at once when its run is cancelled, with preempt %s"):format(tostring(preempt)), function()
      local engine = tm.engine { workers = 1, preempt = preempt }
      local declaration, path = waiting()
      local run_ = assert(engine:dag(declaration)):start ""
      util.await(path)
      assert.is_nil(run_:wait(0.05))
      run_:cancel()
      local _, err = run_:wait(30)
      engine:close()
      assert.equal("cancelled", err.code)
      local outcome = err.result.outcomes.it
      assert.same({ "cancelled", 1 }, { outcome.status, outcome.attempts })
      assert.same({ "not yet" }, messages(outcome.errors))
    end)

    it(("ends at once when its run is cancelled just as it begins to wait, with preempt %s")
      :format(tostring(preempt)), function()
      local engine = tm.engine { workers = 2, preempt = preempt }
      local dag = assert(engine:dag(tm.dag { tm.transform("it", {
        retry = { max = 1, backoff = 3600 },
        run = function(payload)
          for _ = 1, payload do os.time() end
          return nil, "not yet"
        end,
      }) }))
      for number = 1, 400 do
        local run_ = dag:start(number)
        for _ = 1, (number * 7919) % 2000 do os.time() end
        run_:cancel()
        local _, err = run_:wait(10)
        assert.equal("cancelled", err.code)
      end
      engine:close()
    end)
  end

  it("ends at once when its run has a timeout", function()
    local _, err = util.dag((waiting())):run("", { timeout = 0.05 })
    assert.equal("timeout", err.code)
    assert.equal("cancelled", err.result.outcomes.it.status)
  end)

  it("ends at once when another processor fails under fail_fast", function()
    local declaration, path = waiting()
    local fields = declaration.fields
    fields[#fields + 1] = tm.transform("bad", function()
      local deadline = os.time() + 30
      repeat
        local file = io.open(path)
        if file then
          file:close()
          return nil, "bad"
        end
      until os.time() > deadline
    end)
    local _, err = util.dag(declaration, 2):run ""
    assert.equal("bad", err.processor)
    assert.equal("cancelled", err.result.outcomes.it.status)
  end)

  it("ends with its engine", function()
    local declaration, path = waiting()
    local engine = tm.engine { workers = 1 }
    local run_ = assert(engine:dag(declaration)):start ""
    util.await(path)
    engine:close()
    assert.equal("cancelled", run_.status)
  end)
end)

describe("retry.when", function()
  after_each(util.cleanup)

  it("sees each error", function()
    local path = util.path()
    local _, err = run { flaky(9, { max = 2, when = function(failure)
      local file = io.open(path, "a")
      file:write(failure.code, " ", failure.processor, " ", failure.message, " ", failure.attempt, "\n")
      file:close()
      return true
    end }) }
    assert.equal(3, err.attempt)
    assert.equal("processor_failed it attempt 1 1\nprocessor_failed it attempt 2 2\n", util.read(path))
  end)

  it("ends the attempts when it answers false", function()
    local _, err = run { flaky(9, { max = 5, when = function(failure) return failure.attempt < 2 end }) }
    assert.same({ 2, "attempt 2" }, { err.result.outcomes.it.attempts, err.message })
  end)

  it("sees what was raised", function()
    local _, err = run { flaky(9, { max = 5, when = function(failure) return failure.cause.again end }, {
      run = function(_, ctx) error { again = ctx.attempt < 3 } end,
    }) }
    assert.equal(3, err.result.outcomes.it.attempts)
  end)

  it("is asked about a timeout too", function()
    local deadline = os.time() + 20
    local _, err = run { flaky(9, { max = 2, when = function(failure) return failure.code ~= "timeout" end }, {
      timeout = 0.03, run = function() while os.time() < deadline do end end,
    }) }
    assert.same({ "timeout", 1 }, { err.code, err.result.outcomes.it.attempts })
  end)

  it("that raises ends the attempts and is reported", function()
    local _, err = run { flaky(9, { max = 5, when = function() error("broken", 0) end }) }
    assert.equal("processor_failed", err.code)
    util.assert_contains(err.message, "retry.when: ", "broken")
    assert.equal(1, err.result.outcomes.it.attempts)
  end)

  it("that raises keeps the error it was asked about", function()
    local _, err = run { flaky(9, { max = 5, when = function() error("broken", 0) end }) }
    local errors = err.result.outcomes.it.errors
    assert.equal("attempt 1", errors[1].message)
    util.assert_contains(errors[#errors].message, "retry.when: ")
  end)

  it("may be declared in a script", function()
    local dag = assert(util.load [[
      local tm = require "tidemill"
      local again = { yes = true }
      return tm.dag { tm.transform("it", {
        retry = { max = 3, when = function(err) return again[err.message] end },
        run = function(_, ctx) return nil, ctx.attempt < 2 and "yes" or "no" end,
      }) }
    ]])
    local _, err = dag:run ""
    assert.same({ 2, "no" }, { err.result.outcomes.it.attempts, err.message })
  end)
end)

describe("A declaration's retry", function()
  after_each(util.cleanup)

  local function problem(retry, ...)
    util.assert_problem(tm.dag { tm.transform("a", { run = print, retry = retry }) }, "'a'", "retry", ...)
  end

  it("must be a table", function() problem(3, "table") end)
  it("must have a max", function() problem({ backoff = 1 }, "max") end)
  it("has a whole number as its max", function() problem({ max = 1.5 }, "max", "1.5") end)
  it("has a max from 1 on", function() problem({ max = 0 }, "max") end)
  it("has no negative backoff", function() problem({ max = 1, backoff = -1 }, "backoff") end)
  it("has no factor below 1", function() problem({ max = 1, factor = 0.5 }, "factor") end)
  it("has no negative max_backoff", function() problem({ max = 1, max_backoff = -1 }, "max_backoff") end)
  it("has a jitter from 0 to 1", function() problem({ max = 1, jitter = 1.5 }, "jitter") end)
  it("has no jitter that is no number", function() problem({ max = 1, jitter = 0 / 0 }, "jitter") end)
  it("has a number as its seed", function() problem({ max = 1, seed = "x" }, "seed") end)
  it("has a function as its when", function() problem({ max = 1, when = true }, "when", "function") end)
  it("knows what was probably meant", function() problem({ max = 1, backof = 1 }, "backof", "backoff") end)

  it("tells all that is wrong at once", function()
    problem({ backoff = -1, jitter = 2 }, "max", "backoff", "jitter")
  end)

  it("has a when that can travel", function()
    local file = io.stdout
    local retry = { max = 1, when = function() return file end }
    util.assert_problem(tm.dag { tm.transform("a", { run = print, retry = retry }) }, "'a'", "when", "file")
  end)

  it("takes any seed", function()
    for _, seed in ipairs { -1, 0, 1.5, 2 ^ 53, -2 ^ 53 } do
      assert(run { flaky(2, { max = 1, backoff = 0.001, jitter = 1, seed = seed }) })
    end
  end)

  it("has no max that nobody could count", function() problem({ max = 2 ^ 31 }, "max") end)

  it("takes as many attempts as its max says", function()
    assert.equal(2001, assert(run { flaky(2001, { max = 2000 }) }).outcomes.it.attempts)
  end)
end)
