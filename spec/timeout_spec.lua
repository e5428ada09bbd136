-- SPDX-License-Identifier: MIT
-- Timeouts of processors and of runs, and what ctx says of them. What is stopped, and how, is in stop_spec.lua.
local tm = require "tidemill"
local util = require "spec.support.util"

local PATIENCE = 20

local function spin(id, fields)
  local deadline = os.time() + PATIENCE
  fields = fields or {}
  fields.run = function(payload)
    while os.time() < deadline do end
    return payload
  end
  return tm.transform(id, fields)
end

local function append(id, depends_on)
  return tm.transform(id, { depends_on = depends_on, run = function(payload) return payload .. id end })
end

local function run(declaration, payload, options, workers)
  return util.dag(tm.dag(declaration), workers):run(payload or "", options)
end

describe("The timeout of a processor", function()
  after_each(util.cleanup)

  it("does nothing to a callback that is faster", function()
    local result, err = run { tm.transform("a", { timeout = 30, run = function(payload) return payload .. "a" end }) }
    assert.is_nil(err)
    assert.equal("a", result.payload)
  end)

  it("fails the processor with the code timeout", function()
    local _, err = run { spin("a", { timeout = 0.03 }) }
    assert.same({ "timeout", "a", 1 }, { err.code, err.processor, err.attempt })
    assert.same({ "failed", 1 }, { err.result.outcomes.a.status, err.result.outcomes.a.attempts })
    assert.equal("timeout", err.result.outcomes.a.error.code)
  end)

  it("tells how long it was", function()
    local _, err = run { spin("a", { timeout = 0.03 }) }
    util.assert_contains(err.message, "0.03")
  end)

  it("trips fail_fast as any failure", function()
    local _, err = run { spin("a", { timeout = 0.03 }), append("b", "a") }
    assert.equal("cancelled", err.result.outcomes.b.status)
  end)

  it("skips dependents under continue_on_error", function()
    local result, err = run {
      failure_strategy = "continue_on_error", spin("a", { timeout = 0.03 }), append("b", "a"), append "c",
    }
    assert.equal("timeout", err.code)
    assert.same({ "skipped", "a" }, { result.outcomes.b.status, result.outcomes.b.error.root })
    assert.equal("c", result.payload)
  end)

  it("is passed by under best_effort", function()
    local result, err = run { failure_strategy = "best_effort", spin("a", { timeout = 0.03 }), append("b", "a") }
    assert.equal("timeout", err.code)
    assert.equal("b", result.payload)
  end)

  it("is one attempt's, so that each attempt has all of it", function()
    local deadline = os.time() + PATIENCE
    local result = assert(run { tm.transform("a", {
      timeout = 0.05, retry = { max = 2 },
      run = function(_, ctx)
        if ctx.attempt < 3 then while os.time() < deadline do end end
        return ctx.attempt
      end,
    }) })
    assert.equal(3, result.payload)
    assert.same({ "timeout", "timeout" }, { result.outcomes.a.errors[1].code, result.outcomes.a.errors[2].code })
  end)

  it("does not count the wait for a permit", function()
    local function busy(id)
      return tm.transform(id, { timeout = 1, uses = "one", run = function(payload)
        local began = os.clock()
        while os.clock() - began < 0.15 do end
        return payload
      end })
    end
    local declaration = { limits = { one = 1 } }
    for number = 1, 10 do declaration[number] = busy("p" .. number) end
    assert(run(declaration, "", nil, 4))
  end)

  it("stops its condition too", function()
    local deadline = os.time() + PATIENCE
    local _, err = run { tm.transform("a", {
      timeout = 0.03, when = function() while os.time() < deadline do end end, run = function() return 1 end,
    }) }
    assert.equal("timeout", err.code)
  end)

  it("stops several processors at once", function()
    local result, err = run({
      failure_strategy = "continue_on_error", spin("a", { timeout = 0.03 }), spin("b", { timeout = 0.05 }),
      spin("c", { timeout = 0.02 }), append "d",
    }, "", nil, 4)
    assert.same({ "a", "b", "c" }, util.ids(err.failures))
    assert.equal("d", result.payload)
  end)

  it("fails what comes too late without preemption", function()
    local engine = tm.engine { workers = 1, preempt = false }
    local dag = assert(engine:dag(tm.dag { tm.transform("a", { timeout = 0.02, run = function(payload, ctx)
      local deadline = os.time() + PATIENCE
      repeat until ctx.cancelled() or os.time() > deadline
      return payload
    end }) }))
    local _, err = dag:run ""
    engine:close()
    assert.equal("timeout", err.code)
  end)
end)

describe("The timeout of a run", function()
  after_each(util.cleanup)

  it("does nothing to a run that is faster", function()
    assert.equal("a", assert(run({ timeout = 30, append "a" }, "", { timeout = 20 })).payload)
  end)

  it("may be the DAG's", function()
    local result, err = run { timeout = 0.05, append "a", spin("b", { depends_on = "a" }), append("c", "b") }
    assert.is_nil(result)
    assert.equal("timeout", err.code)
    assert.is_nil(err.processor)
    assert.same({ a = "completed", b = "cancelled", c = "cancelled" }, util.statuses(err.result))
  end)

  it("may be one run's, which goes before the DAG's", function()
    local _, err = run({ timeout = 1000, spin "a" }, "", { timeout = 0.04 })
    assert.equal("timeout", err.code)
    util.assert_contains(err.message, "0.04")
  end)

  it("may be longer for one run than the DAG's", function()
    local dag = util.dag(tm.dag { timeout = 0.02, tm.transform("a", function(payload)
      local began = os.clock()
      while os.clock() - began < 0.1 do end
      return payload
    end) })
    assert.equal("timeout", select(2, dag:run "x").code)
    assert.equal("x", util.run(dag, "x", { timeout = 60 }).payload)
  end)

  it("keeps what had completed in err.result", function()
    local _, err = run({ append "a", spin("b", { depends_on = "a" }) }, "", { timeout = 0.05 })
    assert.equal("a", err.result.payload)
    assert.is_false(err.result.ok)
    assert.same({}, err.failures)
  end)

  it("leaves the DAG ready for the next run", function()
    local dag = util.dag(tm.dag { tm.transform("a", function(payload)
      local deadline = os.time() + PATIENCE
      if payload == "spin" then while os.time() < deadline do end end
      return payload
    end) })
    for _ = 1, 5 do
      assert.equal("timeout", select(2, dag:run("spin", { timeout = 0.02 })).code)
      assert.equal("x", util.run(dag, "x").payload)
    end
  end)

  it("is a run's status of cancelled", function()
    local started = util.dag(tm.dag { spin "a" }):start("", { timeout = 0.03 })
    local _, err = started:wait(PATIENCE)
    assert.same({ "timeout", "cancelled" }, { err.code, started.status })
  end)

  it("ends many runs, each at its time", function()
    local dag, runs = util.dag(tm.dag { spin "a" }, 2), {}
    for number = 1, 30 do runs[number] = dag:start("", { timeout = 0.01 * (1 + number % 5) }) end
    for number = 1, 30 do assert.equal("timeout", select(2, runs[number]:wait(PATIENCE)).code) end
  end)

  it("must be a positive number of seconds, and is refused at the caller's line", function()
    local dag = util.dag(tm.dag { append "a" })
    util.assert_raises_here(function() dag:run("", { timeout = 0 }) end, "timeout")
    util.assert_raises_here(function() dag:run("", { timeout = -1 }) end, "timeout")
    util.assert_raises_here(function() dag:run("", { timeout = 0 / 0 }) end, "timeout")
    util.assert_raises_here(function() dag:run("", { timeout = "1" }) end, "timeout")
  end)

  it("is a timeout however short it is", function()
    local _, err = run({ spin "a" }, "", { timeout = 1e-12 })
    assert.equal("timeout", err and err.code)
  end)
end)

describe("ctx.remaining()", function()
  after_each(util.cleanup)

  local function remaining(fields, options)
    local declaration = { timeout = fields.dag_timeout }
    declaration[1] = tm.transform("a", {
      timeout = fields.timeout, run = function(_, ctx) return { seconds = ctx.remaining() } end,
    })
    return assert(run(declaration, "", options)).payload.seconds
  end

  it("is nil without a deadline", function()
    assert.is_nil(remaining {})
  end)

  it("is nil, and not nothing, without a deadline", function()
    local dag = util.one(function(_, ctx) return select("#", ctx.remaining()) end)
    assert.equal(1, util.run(dag, "").payload)
  end)

  it("is what is left of the processor's timeout", function()
    local seconds = remaining { timeout = 50 }
    assert.is_true(seconds > 20 and seconds <= 50)
  end)

  it("is what is left of the DAG's timeout", function()
    local seconds = remaining { dag_timeout = 50 }
    assert.is_true(seconds > 20 and seconds <= 50)
  end)

  it("is what is left of the run's timeout", function()
    local seconds = remaining({}, { timeout = 50 })
    assert.is_true(seconds > 20 and seconds <= 50)
  end)

  it("is the least of them", function()
    assert.is_true(remaining({ timeout = 50, dag_timeout = 1000 }) <= 50)
    assert.is_true(remaining({ timeout = 1000, dag_timeout = 50 }) <= 50)
  end)

  it("goes down, to zero and no further", function()
    local engine = tm.engine { workers = 1, preempt = false }
    local path = util.path()
    local dag = assert(engine:dag(tm.dag { tm.transform("a", { timeout = 0.05, run = function(payload, ctx)
      local deadline, before, rose = os.time() + PATIENCE, ctx.remaining(), false
      repeat
        local now = ctx.remaining()
        before, rose = now, rose or now > before
      until ctx.cancelled() or os.time() > deadline
      local file = io.open(path, "w")
      file:write(("%g %s"):format(ctx.remaining(), tostring(rose)))
      file:close()
      return payload
    end }) }))
    local _, err = dag:run ""
    engine:close()
    assert.equal("timeout", err.code)
    assert.equal("0 false", util.read(path))
  end)
end)

describe("A declaration's timeout", function()
  after_each(util.cleanup)

  for name, value in pairs { ["zero"] = 0, ["negative"] = -1, ["not a number"] = 0 / 0, ["infinite"] = math.huge } do
    it(("may not be %s"):format(name), function()
      util.assert_problem(tm.dag { timeout = value, append "a" }, "timeout")
      util.assert_problem(tm.dag { spin("a", { timeout = value }) }, "'a'", "timeout")
    end)
  end

  it("must be a number", function()
    util.assert_problem(tm.dag { timeout = "1", append "a" }, "timeout", "number")
    util.assert_problem(tm.dag { spin("a", { timeout = true }) }, "'a'", "timeout", "number")
  end)
end)
