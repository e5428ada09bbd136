-- SPDX-License-Identifier: MIT
-- What becomes of a run when processors fail: the three failure strategies, and what dag:run returns.
local tm = require "tidemill"
local util = require "spec.support.util"

local function append(id, depends_on)
  return tm.transform(id, { depends_on = depends_on, run = function(payload) return payload .. id end })
end

local function refuse(id, depends_on)
  return tm.transform(id, { depends_on = depends_on, run = function() return nil, "no " .. id end })
end

local function tell(id, depends_on)
  return tm.analyze(id, { depends_on = depends_on, run = function() return { told = id } end })
end

-- Returns what dag:run returns, for a DAG with this strategy.
local function run(strategy, declaration, workers)
  declaration.failure_strategy = strategy
  return util.dag(tm.dag(declaration), workers):run("")
end

describe("A run without failures", function()
  after_each(util.cleanup)

  for _, strategy in ipairs { "fail_fast", "continue_on_error", "best_effort" } do
    describe("under " .. strategy, function()
      it("returns a result and no error", function()
        local result, err = run(strategy, { append "a", append("b", "a") })
        assert.equal("ab", result.payload)
        assert.is_nil(err)
      end)

      it("is ok", function()
        assert.is_true(run(strategy, { append "a" }).ok)
      end)

      it("lists no failures", function()
        assert.same({}, run(strategy, { append "a" }).failures)
      end)

      it("has completed every processor", function()
        local result = run(strategy, { append "a", tell("b", "a") })
        assert.same({ a = "completed", b = "completed" }, util.statuses(result))
      end)

      it("has run every processor once", function()
        local result = run(strategy, { append "a", tell("b", "a") })
        assert.same({ 1, 1 }, { result.outcomes.a.attempts, result.outcomes.b.attempts })
      end)

      it("has no error in any outcome", function()
        assert.is_nil(run(strategy, { append "a" }).outcomes.a.error)
      end)
    end)
  end
end)

describe("fail_fast", function()
  after_each(util.cleanup)

  it("is the default", function()
    local dag = util.dag(tm.dag { append "a" })
    assert.equal("fail_fast", dag.failure_strategy)
  end)

  it("returns nil and an error", function()
    local result, err = run("fail_fast", { refuse "a" })
    assert.is_nil(result)
    assert.equal("processor_failed", err.code)
  end)

  it("names the processor that failed", function()
    local _, err = run("fail_fast", { append "a", refuse("b", "a") })
    assert.equal("b", err.processor)
  end)

  it("keeps what had completed in err.result", function()
    local _, err = run("fail_fast", { append "a", refuse("b", "a") })
    assert.equal("completed", err.result.outcomes.a.status)
    assert.equal("a", err.result.outcomes.a.payload)
  end)

  it("keeps the metadata of what had completed in err.result", function()
    local _, err = run("fail_fast", { tell "a", refuse("b", "a") })
    assert.same({ a = { told = "a" } }, err.result.metadata)
  end)

  it("has the canonical payload of what had completed in err.result", function()
    local _, err = run("fail_fast", { append "a", append("b", "a"), refuse("c", "b"), append("d", "c") })
    assert.equal("ab", err.result.payload)
  end)

  it("has a result that is not ok", function()
    local _, err = run("fail_fast", { refuse "a" })
    assert.is_false(err.result.ok)
  end)

  it("never starts the dependents of the failed processor", function()
    local _, err = run("fail_fast", { refuse "a", append("b", "a"), append("c", "b") })
    assert.same({ a = "failed", b = "cancelled", c = "cancelled" }, util.statuses(err.result))
  end)

  it("gives what never started an error with the code cancelled", function()
    local _, err = run("fail_fast", { refuse "a", append("b", "a") })
    assert.equal("cancelled", err.result.outcomes.b.error.code)
  end)

  it("gives what never started no attempt", function()
    local _, err = run("fail_fast", { refuse "a", append("b", "a") })
    assert.same({ 1, 0 }, { err.result.outcomes.a.attempts, err.result.outcomes.b.attempts })
  end)

  it("does not call what was cancelled a failure", function()
    local _, err = run("fail_fast", { refuse "a", append("b", "a") })
    assert.same({ "a" }, util.ids(err.failures))
  end)

  it("starts nothing new in other branches", function()
    -- "slow" runs until the failure has tripped the run, so "after" can't have been started before.
    local slow = tm.transform("slow", function(payload, ctx)
      local deadline = os.time() + 60
      repeat until ctx.cancelled() or os.time() > deadline
      return payload
    end)
    local _, err = run("fail_fast", { slow, append("after", "slow"), refuse "bad" }, 2)
    assert.equal("cancelled", err.result.outcomes.after.status)
  end)

  it("tells running callbacks through ctx.cancelled()", function()
    local slow = tm.transform("slow", function(payload, ctx)
      local deadline = os.time() + 60
      repeat until ctx.cancelled() or os.time() > deadline
      return payload
    end)
    local _, err = run("fail_fast", { slow, refuse "bad" }, 2)
    assert.equal("cancelled", err.result.outcomes.slow.status)
  end)

  it("reports one of the processors that failed, where several would", function()
    for _ = 1, 20 do
      local _, err = run("fail_fast", { refuse "a", refuse "b", refuse "c" }, 4)
      assert.equal(err.failures[1].processor, err.processor)
    end
  end)

  it("leaves the DAG ready for the next run", function()
    local dag = util.dag(tm.dag { tm.transform("only", function(payload)
      if payload == "bad" then return nil, "bad" end
      return payload
    end) })
    assert.is_nil((dag:run "bad"))
    assert.equal("good", util.run(dag, "good").payload)
  end)
end)

describe("continue_on_error", function()
  after_each(util.cleanup)

  local function continue(declaration)
    return run("continue_on_error", declaration)
  end

  it("returns a result together with the error", function()
    local result, err = continue { refuse "a", append "b" }
    assert.equal("b", result.payload)
    assert.equal("a", err.processor)
  end)

  it("returns a result that is not ok", function()
    assert.is_false(continue { refuse "a" }.ok)
  end)

  it("links the same result from the error", function()
    local result, err = continue { append "a", refuse("b", "a") }
    assert.equal(result.payload, err.result.payload)
    assert.same(util.statuses(result), util.statuses(err.result))
  end)

  it("runs other branches to their end", function()
    local result = continue { refuse "a", append "b", append("c", "b") }
    assert.same({ a = "failed", b = "completed", c = "completed" }, util.statuses(result))
  end)

  it("skips the dependents of a failed processor, transitively", function()
    local result = continue { refuse "a", append("b", "a"), tell("c", "b") }
    assert.same({ a = "failed", b = "skipped", c = "skipped" }, util.statuses(result))
  end)

  it("skips a processor of which only one dependency failed", function()
    local result = continue { refuse "a", append "b", append("c", { "a", "b" }) }
    assert.equal("skipped", result.outcomes.c.status)
  end)

  it("gives a skipped processor no attempt", function()
    local result = continue { refuse "a", append("b", "a") }
    assert.equal(0, result.outcomes.b.attempts)
  end)

  it("gives a skipped processor a dependency_failed error", function()
    local result = continue { refuse "a", append("b", "a") }
    assert.equal("dependency_failed", result.outcomes.b.error.code)
  end)

  it("says in that error which processor was skipped", function()
    local result = continue { refuse "a", append("b", "a") }
    assert.equal("b", result.outcomes.b.error.processor)
  end)

  it("names the processor at the root, however far away", function()
    local result = continue { refuse "origin", append("b", "origin"), append("c", "b"), append("d", "c") }
    assert.equal("origin", result.outcomes.d.error.root)
    util.assert_contains(result.outcomes.d.error.message, "origin")
  end)

  it("names the root of the least rank, where several failed", function()
    local result = continue {
      append "a", refuse("deep", "a"), refuse "shallow", append("join", { "deep", "shallow" }), append("end", "join"),
    }
    assert.equal("shallow", result.outcomes.join.error.root)
    assert.equal("shallow", result.outcomes["end"].error.root)
  end)

  it("names the root declared first, where several of the same rank failed", function()
    local result = continue { refuse "x", refuse "b", append("join", { "b", "x" }) }
    assert.equal("x", result.outcomes.join.error.root)
  end)

  it("names the root declared first, even if another one is nearer", function()
    local result = continue {
      refuse "far", refuse "near", append("one", "far"), append("two", "one"), append("join", { "two", "near" }),
    }
    assert.equal("far", result.outcomes.join.error.root)
  end)

  it("does not count what was skipped among the failures", function()
    local result = continue { refuse "a", append("b", "a") }
    assert.same({ "a" }, util.ids(result.failures))
  end)

  it("lists failures by rank, then by declaration", function()
    local result = continue {
      append "root", refuse("late", "root"), refuse("later", "root"), refuse "second", refuse "third",
    }
    assert.same({ "second", "third", "late", "later" }, util.ids(result.failures))
  end)

  it("returns the first of the failures", function()
    local _, err = continue { append "root", refuse("deep", "root"), refuse "early" }
    assert.equal("early", err.processor)
  end)

  it("has all failures in the error too", function()
    local result, err = continue { append "root", refuse("deep", "root"), refuse "early" }
    assert.same(util.ids(result.failures), util.ids(err.failures))
  end)

  it("passes on what came before a failure as the run's payload", function()
    local result = continue { append "a", append("b", "a"), refuse("c", "b") }
    assert.equal("ab", result.payload)
  end)

  it("has no metadata of failed and skipped processors", function()
    local result = continue { refuse "a", tell("b", "a"), tell "c" }
    assert.same({ c = { told = "c" } }, result.metadata)
  end)

  it("gives a failed processor's outcome neither payload nor metadata", function()
    local outcome = continue({ refuse "a" }).outcomes.a
    assert.is_nil(outcome.payload)
    assert.is_nil(outcome.metadata)
  end)
end)

describe("best_effort", function()
  after_each(util.cleanup)

  local function best(declaration)
    return run("best_effort", declaration)
  end

  it("returns a result together with the error", function()
    local result, err = best { refuse "a", append("b", "a") }
    assert.equal("b", result.payload)
    assert.equal("a", err.processor)
  end)

  it("returns a result that is not ok", function()
    assert.is_false(best { refuse "a", append("b", "a") }.ok)
  end)

  it("runs the dependents of a failed processor", function()
    local result = best { refuse "a", append("b", "a"), tell("c", "b") }
    assert.same({ a = "failed", b = "completed", c = "completed" }, util.statuses(result))
  end)

  it("passes a failed transform's input on", function()
    assert.equal("ac", best({ append "a", refuse("b", "a"), append("c", "b") }).payload)
  end)

  it("passes the canonical input on, where branches join in the failed processor", function()
    local result = best { append "a", append "b", refuse("c", { "a", "b" }), append("d", "c") }
    assert.equal("bd", result.payload)
  end)

  it("passes on what payload_from says, where the failed processor has one", function()
    local failing = tm.transform("f", {
      depends_on = { "a", "b" }, payload_from = "a", run = function() return nil, "no" end,
    })
    assert.equal("az", best({ append "a", append "b", failing, append("z", "f") }).payload)
  end)

  it("contributes no metadata for a failed processor", function()
    local reader = tm.analyze("reader", { depends_on = "bad", run = function(_, ctx)
      return { bad = ctx.metadata.bad == nil }
    end })
    assert.is_true(best({ refuse "bad", reader }).metadata.reader.bad)
  end)

  it("shows a dependent that its dependency failed", function()
    local reader = tm.analyze("reader", { depends_on = "bad", run = function(_, ctx)
      local bad = ctx.dependencies.bad
      return { status = bad.status, code = bad.error.code, message = bad.error.message }
    end })
    assert.same(
      { status = "failed", code = "processor_failed", message = "no bad" },
      best({ refuse "bad", reader }).metadata.reader
    )
  end)

  it("lists failures by rank, then by declaration", function()
    local result = best { refuse("c", "a"), refuse("d", "c"), refuse "a", refuse "b" }
    assert.same({ "a", "b", "c", "d" }, util.ids(result.failures))
  end)

  it("returns the first of the failures", function()
    local _, err = best { refuse("c", "a"), refuse "a" }
    assert.equal("a", err.processor)
  end)
end)

describe("The error of a run", function()
  after_each(util.cleanup)

  local function error_of(processor)
    local _, err = run("continue_on_error", { processor })
    return err
  end

  it("has the code processor_failed for `return nil, \"why\"`", function()
    assert.equal("processor_failed", error_of(refuse "a").code)
  end)

  it("has the reason as its message", function()
    assert.equal("no a", error_of(refuse "a").message)
  end)

  it("has no traceback for a reason that was returned", function()
    assert.is_nil(error_of(refuse "a").traceback)
  end)

  it("has a traceback for an error that was raised", function()
    local err = error_of(tm.transform("a", function() error "boom" end))
    util.assert_contains(err.traceback, "failure_spec.lua")
  end)

  it("has the number of the attempt", function()
    assert.equal(1, error_of(refuse "a").attempt)
  end)

  it("prints with the processor and the message", function()
    local fails = tm.transform("checker", function() return nil, "out of luck" end)
    util.assert_contains(tostring(error_of(fails)), "checker", "out of luck")
  end)

  it("prints with its code", function()
    util.assert_contains(tostring(error_of(tm.transform("a", function() end))), "invalid_response")
  end)

  it("works with assert, as a message that can be read", function()
    if _VERSION == "Lua 5.1" and not jit then return pending "assert takes strings alone" end
    local dag = util.dag(tm.dag { refuse "a" })
    local ok, raised = pcall(function() return _G.assert(dag:run "") end)
    assert.is_false(ok)
    util.assert_contains(tostring(raised), "no a")
  end)

  it("is the same in outcomes, in failures and as the second result", function()
    local result, err = run("continue_on_error", { refuse "a" })
    assert.same(
      { "no a", "no a", "no a" },
      { result.outcomes.a.error.message, result.failures[1].message, err.message }
    )
  end)
end)
