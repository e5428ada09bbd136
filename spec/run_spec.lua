-- SPDX-License-Identifier: MIT
-- Runs: started, awaited, cancelled, profiled; input metadata; bounds on concurrency.
local tm = require "tidemill"
local util = require "spec.support.util"

local function keep(payload) return payload end

local function identity()
  return tm.dag { tm.transform("it", keep) }
end

-- A DAG whose "held" runs until the gate opens or its run is cancelled.
local function held_by(gate)
  local wait = gate.wait
  return tm.dag {
    tm.transform("before", function(payload) return payload .. "!" end),
    tm.transform("held", { depends_on = "before", run = function(payload, ctx)
      while not ctx.cancelled() do
        if wait() then break end
      end
      return payload
    end }),
    tm.transform("after", { depends_on = "held", run = function(payload) return payload .. "?" end }),
  }
end

-- The same without a gate: only a cancellation ends it. "held" says by a file that it runs.
local function endless(started)
  return tm.dag {
    tm.transform("before", function(payload) return payload .. "!" end),
    tm.transform("held", { depends_on = "before", run = function(payload, ctx)
      if started then io.open(started, "w"):close() end
      local deadline = os.time() + 60
      repeat until ctx.cancelled() or os.time() > deadline
      return payload
    end }),
    tm.transform("after", { depends_on = "held", run = function(payload) return payload .. "?" end }),
  }
end

describe("dag:start", function()
  after_each(util.cleanup)

  it("returns a run whose wait returns what dag:run would", function()
    local result, err = util.dag(identity()):start("p"):wait()
    assert.equal("p", result.payload)
    assert.is_nil(err)
  end)

  it("returns before the run has ended", function()
    local gate = util.gate()
    local run = util.dag(held_by(gate)):start "p"
    assert.equal("running", run.status)
    gate.open()
    assert.equal("p!?", run:wait().payload)
  end)

  it("takes input metadata as dag:run does", function()
    local result = util.dag(identity()):start("p", { metadata = { source = "cli" } }):wait()
    assert.same({ source = "cli" }, result.metadata)
  end)

  it("may be called again while runs are in flight", function()
    local dag, runs = util.dag(identity(), 4), {}
    for index = 1, 100 do runs[index] = dag:start(index) end
    for index = 100, 1, -1 do assert.equal(index, runs[index]:wait().payload) end
  end)

  it("may be mixed with dag:run", function()
    local gate = util.gate()
    local engine = util.engine(2)
    local held, other = assert(engine:dag(held_by(gate))), assert(engine:dag(identity()))
    local run = held:start "p"
    assert.equal("q", util.run(other, "q").payload)
    gate.open()
    assert.equal("p!?", run:wait().payload)
  end)

  it("refuses a payload that can't travel as dag:run does", function()
    local run, err = util.dag(identity()):start(print)
    if run then run, err = run:wait() end
    assert.is_nil(run)
    assert.equal("invalid_payload", err.code)
  end)
end)

describe("run:wait", function()
  after_each(util.cleanup)

  it("returns the same again", function()
    local run = util.dag(identity()):start "p"
    local first, second = run:wait(), run:wait()
    assert.same({ "p", "p" }, { first.payload, second.payload })
  end)

  it("returns nil and the error of a run that failed fast", function()
    local run = util.dag(tm.dag { tm.transform("it", function() return nil, "why" end) }):start "p"
    local result, err = run:wait()
    assert.is_nil(result)
    assert.equal("why", err.message)
  end)

  it("returns the result and the error of a run that went on", function()
    local run = util.dag(tm.dag {
      failure_strategy = "continue_on_error", tm.transform("it", function() return nil, "why" end),
    }):start "p"
    local result, err = run:wait()
    assert.is_false(result.ok)
    assert.equal("why", err.message)
  end)
end)

describe("run.status", function()
  after_each(util.cleanup)

  local function status_after(declaration)
    local run = util.dag(declaration):start "p"
    run:wait()
    return run.status
  end

  it("is completed when all went well", function()
    assert.equal("completed", status_after(identity()))
  end)

  it("is failed when the run failed fast", function()
    assert.equal("failed", status_after(tm.dag { tm.transform("it", function() end) }))
  end)

  it("is cancelled when the run was cancelled", function()
    local run = util.dag(endless()):start "p"
    run:cancel()
    run:wait()
    assert.equal("cancelled", run.status)
  end)
end)

describe("run:cancel", function()
  after_each(util.cleanup)

  -- A run that was cancelled while "held" ran.
  local function cancelled(reason)
    local started = util.path ".started"
    local run = util.dag(endless(started), 1):start "p"
    util.await(started)
    run:cancel(reason)
    local result, err = run:wait()
    assert.is_nil(result)
    return err, run
  end

  it("makes wait return nil and an error with the code cancelled", function()
    assert.equal("cancelled", cancelled().code)
  end)

  it("has its reason in the message", function()
    util.assert_contains(cancelled("no longer needed").message, "no longer needed")
  end)

  it("has what became of each processor in err.result", function()
    assert.same({ "after", "before", "held" }, util.keys(cancelled().result.outcomes))
  end)

  it("never starts what had not started", function()
    local outcome = cancelled().result.outcomes.after
    assert.same({ "cancelled", 0 }, { outcome.status, outcome.attempts })
  end)

  it("cancels what runs, even if that returns as if nothing were", function()
    assert.equal("cancelled", cancelled().result.outcomes.held.status)
  end)

  it("has a result that is not ok", function()
    assert.is_false(cancelled().result.ok)
  end)

  it("keeps what had completed", function()
    local result = cancelled().result
    assert.equal("completed", result.outcomes.before.status)
    assert.equal("p!", result.payload)
  end)

  it("may be called again, and the first reason stays", function()
    local run = util.dag(endless(), 1):start "p"
    run:cancel "first"
    run:cancel "second"
    local _, err = run:wait()
    util.assert_contains(err.message, "first")
  end)

  it("may be called after the run was cancelled and awaited", function()
    local _, run = cancelled()
    assert.has_no.errors(function() run:cancel "late" end)
    assert.equal("cancelled", run.status)
  end)

  it("changes nothing of a run that has completed", function()
    local run = util.dag(identity()):start "p"
    run:wait()
    run:cancel "late"
    assert.equal("completed", run.status)
    assert.equal("p", run:wait().payload)
  end)

  it("changes nothing of a run that has failed", function()
    local run = util.dag(tm.dag { tm.transform("it", function() return nil, "why" end) }):start "p"
    run:wait()
    run:cancel "late"
    local _, err = run:wait()
    assert.equal("failed", run.status)
    assert.equal("why", err.message)
  end)

  it("cancels no other run of the DAG", function()
    local gate = util.gate()
    local dag = util.dag(held_by(gate), 4)
    local first, second = dag:start "a", dag:start "b"
    gate.open()
    first:cancel()
    first:wait()
    assert.equal("b!?", second:wait().payload)
  end)

  it("leaves the DAG ready for the next run", function()
    local dag = util.dag(tm.dag { tm.transform("it", function(payload, ctx)
      local deadline = os.time() + 60
      while payload == "hold" and not ctx.cancelled() and os.time() <= deadline do end -- luacheck: ignore
      return payload
    end) }, 1)
    local run = dag:start "hold"
    run:cancel()
    run:wait()
    assert.equal("next", util.run(dag, "next").payload)
  end)

  it("settles a run exactly once, whoever is first", function()
    local dag = util.dag(identity(), 4)
    for _ = 1, 200 do
      local run = dag:start "p"
      run:cancel "race"
      local result, err = run:wait()
      assert.equal(result and "completed" or "cancelled", run.status)
      assert.equal(result == nil, err ~= nil)
    end
  end)

  it("applies to every strategy", function()
    for _, strategy in ipairs { "continue_on_error", "best_effort" } do
      local run = util.dag(tm.dag {
        failure_strategy = strategy,
        tm.transform("held", function(payload, ctx)
          local deadline = os.time() + 60
          repeat until ctx.cancelled() or os.time() > deadline
          return payload
        end),
        tm.transform("after", { depends_on = "held", run = keep }),
      }):start "p"
      run:cancel()
      local result, err = run:wait()
      assert.is_nil(result)
      assert.equal("cancelled", err.result.outcomes.after.status)
    end
  end)
end)

describe("A profile", function()
  after_each(util.cleanup)

  local function profiled(declaration, workers)
    declaration.profile = true
    return util.run(util.dag(tm.dag(declaration), workers), "p")
  end

  local function spin(id, depends_on)
    return tm.analyze(id, { depends_on = depends_on, run = function()
      local sum = 0
      for step = 1, 50000 do sum = (sum + step) % 7 end
      return { sum = sum }
    end })
  end

  it("has when each processor started and finished", function()
    local outcome = profiled({ spin "a" }).outcomes.a
    assert.is_true(0 <= outcome.started and outcome.started <= outcome.finished)
  end)

  it("has the duration of the run, within which all of them lie", function()
    local result = profiled { spin "a", spin("b", "a") }
    assert.is_true(result.outcomes.b.finished <= result.duration)
  end)

  it("has no dependent started before its dependencies finished", function()
    local outcomes = profiled({ spin "a", spin "b", spin("c", { "a", "b" }) }, 4).outcomes
    assert.is_true(outcomes.c.started >= outcomes.a.finished and outcomes.c.started >= outcomes.b.finished)
  end)

  it("has the worker, counted from 1", function()
    for _, outcome in pairs(profiled({ spin "a", spin "b", spin "c", spin "d" }, 3).outcomes) do
      assert.is_true(outcome.worker >= 1 and outcome.worker <= 3)
    end
  end)

  it("has the only worker there is", function()
    assert.equal(1, profiled({ spin "a" }, 1).outcomes.a.worker)
  end)

  it("is absent unless it was asked for", function()
    local result = util.run(util.dag(tm.dag { spin "a" }))
    local outcome = result.outcomes.a
    assert.same({}, { outcome.started, outcome.finished, outcome.worker, result.duration })
  end)

  it("may be asked for per run", function()
    local dag = util.dag(tm.dag { spin "a" })
    assert.is_number(util.run(dag, "p", { profile = true }).duration)
    assert.is_nil(util.run(dag, "p").duration)
  end)

  it("may be declined per run", function()
    local dag = util.dag(tm.dag { profile = true, spin "a" })
    assert.is_nil(util.run(dag, "p", { profile = false }).duration)
  end)

  it("has no times for a processor that never started", function()
    local dag = util.dag(tm.dag {
      profile = true,
      failure_strategy = "continue_on_error",
      tm.transform("bad", function() return nil, "why" end),
      spin("after", "bad"),
    })
    local result = dag:run "p"
    assert.is_number(result.outcomes.bad.started)
    assert.is_nil(result.outcomes.after.started)
  end)

  -- The most intervals that overlap; one that ends when another begins does not overlap it.
  local function most_at_once(outcomes)
    local most = 0
    for _, one in pairs(outcomes) do
      local count = 0
      for _, other in pairs(outcomes) do
        if other.started <= one.started and one.started < other.finished then count = count + 1 end
      end
      most = math.max(most, count)
    end
    return most
  end

  local function many(count, more)
    local declaration = more or {}
    for index = 1, count do declaration[index] = spin("p" .. index) end
    return declaration
  end

  it("never shows more processors at once than there are workers", function()
    assert.is_true(most_at_once(profiled(many(12), 2).outcomes) <= 2)
  end)

  it("never shows more processors at once than max_concurrency", function()
    assert.is_true(most_at_once(profiled(many(12, { max_concurrency = 2 }), 4).outcomes) <= 2)
  end)

  it("shows one after the other with max_concurrency = 1", function()
    assert.is_true(most_at_once(profiled(many(8, { max_concurrency = 1 }), 4).outcomes) <= 1)
  end)
end)

describe("max_concurrency", function()
  after_each(util.cleanup)

  -- Each processor of rank 0 says that it is there, and waits for all of the `count` that shall be there with it.
  local function meeting(count, options)
    local paths, declaration = {}, options
    for index = 1, count do paths[index] = util.path ".here" end
    for index = 1, count do
      declaration[index] = tm.analyze("p" .. index, function(_, ctx)
        io.open(paths[index], "w"):close()
        local deadline, met = os.time() + 20
        repeat
          met = 0
          for _, path in ipairs(paths) do
            local file = io.open(path)
            if file then
              file:close()
              met = met + 1
            end
          end
        until met == count or ctx.cancelled() or os.time() > deadline
        return { met = met }
      end)
    end
    return tm.dag(declaration)
  end

  it("lets that many run at once", function()
    local result = util.run(util.dag(meeting(3, { max_concurrency = 3 }), 4))
    assert.equal(3, result.metadata.p1.met)
  end)

  it("is no bound where it is not given: all workers run", function()
    local result = util.run(util.dag(meeting(4, {}), 4))
    assert.equal(4, result.metadata.p1.met)
  end)

  it("may be larger than the number of workers", function()
    local dag = util.dag(tm.dag { max_concurrency = 100, tm.transform("it", keep) }, 2)
    assert.equal("p", util.run(dag, "p").payload)
  end)

  it("changes no result", function()
    local function chain(options)
      options[1] = tm.transform("a", function(p) return p .. "a" end)
      options[2] = tm.transform("b", function(p) return p .. "b" end)
      options[3] = tm.transform("c", { depends_on = { "a", "b" }, run = function(p) return p .. "c" end })
      return util.run(util.dag(tm.dag(options), 4), "p").payload
    end
    assert.equal(chain {}, chain { max_concurrency = 1 })
  end)

  it("bounds each run on its own", function()
    local gate = util.gate()
    local wait = gate.wait
    local dag = util.dag(tm.dag { max_concurrency = 1, tm.transform("it", function(payload)
      if payload == "held" then wait() end
      return payload
    end) }, 2)
    local held = dag:start "held"
    assert.equal("free", util.run(dag, "free").payload)
    gate.open()
    assert.equal("held", held:wait().payload)
  end)
end)

describe("Input metadata", function()
  after_each(util.cleanup)

  it("is at the top level of the result's metadata", function()
    local result = util.run(util.dag(identity()), "p", { metadata = { source = "cli", list = { 1, 2 } } })
    util.assert_identical({ source = "cli", list = { 1, 2 } }, result.metadata)
  end)

  it("is beside what processors contributed", function()
    local dag = util.dag(tm.dag { tm.analyze("words", function() return { count = 1 } end) })
    assert.same(
      { source = "cli", words = { count = 1 } },
      util.run(dag, "p", { metadata = { source = "cli" } }).metadata
    )
  end)

  it("is not left over for the next run", function()
    local dag = util.dag(identity())
    util.run(dag, "p", { metadata = { source = "cli" } })
    assert.same({}, util.run(dag, "p").metadata)
  end)

  it("is in err.result too", function()
    local dag = util.dag(tm.dag { tm.transform("it", function() return nil, "why" end) })
    local _, err = dag:run("p", { metadata = { source = "cli" } })
    assert.same({ source = "cli" }, err.result.metadata)
  end)

  it("may not have a processor's id as a key", function()
    local result, err = util.dag(identity()):run("p", { metadata = { it = {} } })
    assert.is_nil(result)
    assert.equal("invalid_payload", err.code)
    util.assert_contains(err.message, "it")
  end)

  it("may not have a processor's id as a key, even of one that contributes nothing", function()
    local dag = util.dag(tm.dag { tm.transform("plain", keep) })
    local _, err = dag:run("p", { metadata = { plain = 1 } })
    util.assert_contains(err.message, "plain")
  end)

  it("is not changed in the host's table", function()
    local metadata = { source = { "cli" } }
    util.run(util.dag(tm.dag { tm.analyze("words", function(_, ctx)
      ctx.metadata.source[1] = "changed"
      return { count = 1 }
    end) }), "p", { metadata = metadata })
    assert.same({ source = { "cli" } }, metadata)
  end)
end)
