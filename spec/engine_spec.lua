-- SPDX-License-Identifier: MIT
-- Engines: their options, their life and their end.
local core = require "tidemill.core"
local tm = require "tidemill"
local util = require "spec.support.util"

local function keep(payload) return payload end

local function identity()
  return tm.dag { name = "identity", tm.transform("it", keep) }
end

local function collect()
  collectgarbage()
  collectgarbage()
end

describe("The module", function()
  it("has a version", function()
    assert.matches("^%d+%.%d+%.%d+", tm.version)
  end)

  it("is what require returns each time", function()
    assert.equal(tm, require "tidemill")
  end)

  it("sets no globals", function()
    assert.is_nil(rawget(_G, "tidemill"))
  end)
end)

describe("tm.engine", function()
  after_each(util.cleanup)

  it("starts as many workers as it is told", function()
    assert.equal(3, util.engine(3).workers)
  end)

  it("starts one worker at least, if it is told nothing", function()
    local engine = tm.engine()
    finally(function() engine:close() end)
    assert.is_true(engine.workers >= 1)
  end)

  it("takes an empty table for nothing", function()
    local engine = tm.engine {}
    finally(function() engine:close() end)
    assert.is_true(engine.workers >= 1)
  end)

  it("does not change its options", function()
    local options = { workers = 2 }
    tm.engine(options):close()
    assert.same({ workers = 2 }, options)
  end)

  for _, value in ipairs { 0, -1, 1.5, 1025, 10000, 2 ^ 53, math.huge, 0 / 0, "x", true, {} } do
    local text = type(value) == "table" and "a table" or tostring(value)
    it("raises at the caller's line for workers = " .. text, function()
      util.assert_raises_here(function() tm.engine { workers = value } end, "workers")
    end)
  end

  it("tells a string from a number", function()
    util.assert_raises_here(function() tm.engine { workers = "2" } end, 'from 1 to 1024, but it is "2"')
    util.assert_raises_here(function() tm.engine { workers = {} } end, "from 1 to 1024, but it is a table")
  end)

  it("raises at the caller's line for an unknown option", function()
    util.assert_raises_here(function() tm.engine { color = "red" } end, "color")
  end)

  it("names the option that was meant", function()
    util.assert_raises_here(function() tm.engine { worker = 2 } end, "'worker'", "workers")
  end)

  it("raises at the caller's line for options that are no table", function()
    util.assert_raises_here(function() tm.engine(4) end, "number")
  end)
end)

describe("An engine", function()
  after_each(util.cleanup)

  it("runs several DAGs", function()
    local engine = util.engine()
    local upper = assert(engine:dag(tm.dag { tm.transform("it", function(p) return p:upper() end) }))
    local lower = assert(engine:dag(tm.dag { tm.transform("it", function(p) return p:lower() end) }))
    assert.same({ "ABC", "abc", "ABC" }, {
      util.run(upper, "aBc").payload, util.run(lower, "aBc").payload, util.run(upper, "aBc").payload,
    })
  end)

  it("runs the same DAG again and again, with equal results", function()
    local dag = util.dag(tm.dag {
      tm.transform("a", function(p) return p .. "a", { n = 1 } end),
      tm.transform("b", { depends_on = "a", run = function(p) return p .. "b" end }),
    })
    for index = 1, 1000 do
      assert.equal(index .. "ab", util.run(dag, tostring(index)).payload)
    end
  end)

  it("may live beside others", function()
    local first, second = util.engine(1), util.engine(3)
    local a, b = assert(first:dag(identity())), assert(second:dag(identity()))
    assert.same({ 1, 2 }, { util.run(a, 1).payload, util.run(b, 2).payload })
  end)

  it("keeps its globals apart from another engine's", function()
    local set = util.dag(tm.dag { tm.transform("it", function() only_here = 1 return 1 end) }, 1) -- luacheck: ignore
    local get = util.dag(tm.dag { tm.transform("it", function() return type(only_here) end) }, 1) -- luacheck: ignore
    util.run(set)
    assert.equal("nil", util.run(get).payload)
  end)

  it("runs DAGs that run DAGs of another engine in their callbacks", function()
    local dag = util.one(function(payload)
      local tidemill = require "tidemill"
      local inner = tidemill.engine { workers = 1 }
      local result = inner:dag(tidemill.dag { tidemill.transform("in", function(p) return p .. "!" end) }):run(payload)
      inner:close()
      return result.payload
    end)
    assert.equal("p!", util.run(dag, "p").payload)
  end)

  it("takes one declaration as two DAGs", function()
    local engine, declaration = util.engine(), identity()
    local a, b = assert(engine:dag(declaration)), assert(engine:dag(declaration))
    assert.same({ 1, 2 }, { util.run(a, 1).payload, util.run(b, 2).payload })
  end)
end)

describe("A closed engine", function()
  after_each(util.cleanup)

  it("may be closed again", function()
    local engine = util.engine()
    engine:close()
    assert.has_no.errors(function() engine:close() end)
  end)

  it("returns nil and an error from dag:run", function()
    local engine = util.engine()
    local dag = assert(engine:dag(identity()))
    engine:close()
    local result, err = dag:run "p"
    assert.is_nil(result)
    assert.equal("closed", err.code)
  end)

  it("returns nil and an error from engine:dag", function()
    local engine = util.engine()
    engine:close()
    local dag, err = engine:dag(identity())
    assert.is_nil(dag)
    assert.equal("closed", err.code)
  end)

  it("returns nil and an error from engine:load", function()
    local engine = util.engine()
    engine:close()
    local dag, err = engine:load(util.script "return require 'tidemill'.dag {}")
    assert.is_nil(dag)
    assert.equal("closed", err.code)
  end)

  it("yields nil and an error from a run that is started", function()
    local engine = util.engine()
    local dag = assert(engine:dag(identity()))
    engine:close()
    local run, err = dag:start "p"
    if run then run, err = run:wait() end
    assert.is_nil(run)
    assert.equal("closed", err.code)
  end)

  it("leaves the results of its runs readable", function()
    local engine = util.engine()
    local result = util.run(assert(engine:dag(identity())), { "kept" })
    engine:close()
    assert.same({ "kept" }, result.payload)
    assert.equal("completed", result.outcomes.it.status)
  end)

  it("leaves the errors of its runs readable", function()
    local engine = util.engine()
    local dag = assert(engine:dag(tm.dag { tm.transform("it", function() return nil, "why" end) }))
    local _, err = dag:run()
    engine:close()
    assert.equal("failed", err.result.outcomes.it.status)
    util.assert_contains(tostring(err), "why")
  end)

  it("leaves its DAGs' descriptions readable", function()
    local engine = util.engine()
    local dag = assert(engine:dag(identity()))
    engine:close()
    assert.equal("identity", dag.name)
    assert.equal("it", dag.processors[1].id)
  end)

  it("has settled the runs that were in flight", function()
    local engine, gate = util.engine(2), util.gate()
    local wait = gate.wait
    local dag = assert(engine:dag(tm.dag {
      tm.transform("held", function(payload, ctx)
        repeat until ctx.cancelled() or wait()
        return payload
      end),
      tm.transform("after", { depends_on = "held", run = function(p) return p end }),
    }))
    local run = dag:start "p"
    gate.open()
    engine:close()
    assert.are_not.equal("running", run.status)
  end)

  it("answers run:wait() for a run that was in flight", function()
    local engine = util.engine(1)
    local dag = assert(engine:dag(tm.dag { tm.transform("held", function(payload, ctx)
      local deadline = os.time() + 60
      repeat until ctx.cancelled() or os.time() > deadline
      return payload
    end) }))
    local run = dag:start "p"
    engine:close()
    local result, err = run:wait()
    assert.is_nil(result)
    assert.is_true(err.code == "cancelled" or err.code == "closed")
  end)

  it("prints as one", function()
    local engine = util.engine()
    engine:close()
    util.assert_contains(tostring(engine), "closed")
  end)
end)

describe("Garbage collection", function()
  after_each(util.cleanup)

  it("may take an engine that was never closed", function()
    assert.has_no.errors(function()
      for _ = 1, 5 do tm.engine { workers = 2 } end
      collect()
    end)
  end)

  it("does not take an engine whose DAG is still in use", function()
    local dag = assert(tm.engine({ workers = 2 }):dag(identity()))
    collect()
    assert.equal("p", util.run(dag, "p").payload)
  end)

  it("does not take what a run in flight needs", function()
    local run = tm.engine({ workers = 2 }):dag(identity()):start "p"
    collect()
    assert.equal("p", run:wait().payload)
  end)

  it("leaves a result readable when engine and DAG are gone", function()
    local result = tm.engine({ workers = 2 }):dag(identity()):run { "kept" }
    collect()
    assert.same({ "kept" }, result.payload)
    assert.equal("completed", result.outcomes.it.status)
  end)

  it("leaves an error readable when engine and DAG are gone", function()
    local _, err = tm.engine({ workers = 2 }):dag(tm.dag { tm.transform("it", function() error "why" end) }):run()
    collect()
    util.assert_contains(err.message, "why")
    assert.equal("failed", err.result.outcomes.it.status)
  end)

  it("may take engine, DAG, run and result in any order", function()
    for order = 0, 23 do
      local things = { engine = tm.engine { workers = 1 } }
      things.dag = assert(things.engine:dag(identity()))
      things.run = things.dag:start "p"
      things.result = things.run:wait()
      local names = { "engine", "dag", "run", "result" }
      local left = order
      for count = 4, 1, -1 do
        things[table.remove(names, left % count + 1)] = nil
        left = math.floor(left / count)
        collect()
        if things.result then assert.equal("p", things.result.payload) end
      end
    end
  end)

  it("may take a run in flight that nobody waits for", function()
    local engine = util.engine(2)
    local dag = assert(engine:dag(identity()))
    for index = 1, 100 do dag:start(index) end
    collect()
    assert.equal("p", util.run(dag, "p").payload)
  end)

  it("may take an engine with a run in flight, which is then cancelled", function()
    local started, stopped = util.path ".started", util.path ".stopped"
    local function leave_running()
      local engine = tm.engine { workers = 2, preempt = false }
      local dag = assert(engine:dag(tm.dag { tm.transform("held", function(payload, ctx)
        io.open(started, "w"):close()
        local deadline = os.time() + 60
        repeat until ctx.cancelled() or os.time() > deadline
        if ctx.cancelled() then io.open(stopped, "w"):close() end
        return payload
      end) }))
      dag:start "p"
      util.await(started)
    end
    leave_running()
    collect()
    assert.is_truthy(io.open(stopped))
  end)
end)

-- Results share what frees their runs. Lua 5.1 and LuaJIT finalize that while they still keep, for one more cycle, what
-- other finalized objects refer to.
describe("A result that goes together with an engine that refers to it", function()
  after_each(util.cleanup)

  it("takes no later result along", function()
    local dag = assert(util.engine(1):dag(identity()))
    local function leave_garbage()
      local other = tm.engine { workers = 1 }
      local result = dag:run "kept by a callback that is never called"
      assert(other:dag(identity())):start("x", function() return result end)
    end
    collect()
    local before = core.live()
    coroutine.wrap(leave_garbage)() -- on a stack of its own, of which nothing is left
    collectgarbage()
    dag:run "later"
    collect()
    collect()
    if before then assert.same(before.values, core.live().values) end
  end)
end)

describe("Metamethods that are called by hand", function()
  after_each(util.cleanup)

  it("raise for what is none of theirs", function()
    local engine = util.engine(1)
    local dag = assert(engine:dag(identity()))
    for _, object in ipairs { engine, dag, dag:stream(print) } do
      local index = getmetatable(object).__index
      for _, other in ipairs { 12, {}, "x", io.stdout, dag == object and engine or dag } do
        assert.has_error(function() return index(other, "no such field") end)
      end
      assert.has_error(function() return setmetatable({}, getmetatable(object)).ok end)
    end
  end)
end)

describe("tostring", function()
  after_each(util.cleanup)

  it("says of an engine what it is", function()
    util.assert_contains(tostring(util.engine(2)), "engine")
  end)

  it("says of a DAG what it is and its name", function()
    util.assert_contains(tostring(util.dag(identity())), "dag", "identity")
  end)

  it("says of a run what it is", function()
    local run = util.dag(identity()):start "p"
    run:wait()
    util.assert_contains(tostring(run), "run")
  end)

  it("says of a run how it ended", function()
    local run = util.dag(identity()):start "p"
    run:wait()
    util.assert_contains(tostring(run), "completed")
  end)
end)

describe("Misuse raises at the caller's line:", function()
  after_each(util.cleanup)

  it("dag.run without a DAG", function()
    local dag = util.dag(identity())
    util.assert_raises_here(function() dag.run(nil) end)
  end)

  it("dag.run of an engine", function()
    local engine = util.engine()
    local dag = assert(engine:dag(identity()))
    util.assert_raises_here(function() dag.run(engine) end)
  end)

  it("engine.dag of a DAG", function()
    local engine = util.engine()
    local dag = assert(engine:dag(identity()))
    util.assert_raises_here(function() engine.dag(dag, identity()) end)
  end)

  it("engine.close of a table", function()
    local engine = util.engine()
    util.assert_raises_here(function() engine.close {} end)
  end)

  it("run.wait of a DAG", function()
    local dag = util.dag(identity())
    local run = dag:start "p"
    run:wait()
    util.assert_raises_here(function() run.wait(dag) end)
  end)

  it("run.cancel without a run", function()
    local run = util.dag(identity()):start "p"
    run:wait()
    util.assert_raises_here(function() run.cancel() end)
  end)

  it("options of dag:run that are no table", function()
    local dag = util.dag(identity())
    util.assert_raises_here(function() dag:run("p", 42) end)
  end)

  it("an unknown option of dag:run", function()
    local dag = util.dag(identity())
    util.assert_raises_here(function() dag:run("p", { metdata = {} }) end, "metdata")
  end)

  it("metadata of dag:run that is no table", function()
    local dag = util.dag(identity())
    util.assert_raises_here(function() dag:run("p", { metadata = "x" }) end, "metadata")
  end)

  it("a profile of dag:run that is no boolean", function()
    local dag = util.dag(identity())
    util.assert_raises_here(function() dag:run("p", { profile = 1 }) end, "profile")
  end)
end)
