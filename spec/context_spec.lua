-- SPDX-License-Identifier: MIT
-- ctx: what a callback is told besides its payload.
local tm = require "tidemill"
local util = require "spec.support.util"

local function analyze(id, depends_on, run)
  return tm.analyze(id, { depends_on = depends_on, run = run })
end

local function tell(id, depends_on)
  return tm.analyze(id, { depends_on = depends_on, run = function() return { told = id } end })
end

local function append(id, depends_on)
  return tm.transform(id, { depends_on = depends_on, run = function(payload) return payload .. id end })
end

-- The metadata that the processor "seen" gathers at the end of such a DAG.
local function seen_in(declaration, options)
  return util.run(util.dag(tm.dag(declaration)), "p", options).metadata.seen
end

describe("ctx.id", function()
  after_each(util.cleanup)

  it("is the processor's id", function()
    assert.equal("it", util.through(function(_, ctx) return ctx.id end))
  end)

  it("is each processor's own, for a callback that several share", function()
    local function whoami(_, ctx) return { id = ctx.id } end
    local result = util.run(util.dag(tm.dag { tm.analyze("a", whoami), tm.analyze("b", whoami) }))
    assert.same({ a = { id = "a" }, b = { id = "b" } }, result.metadata)
  end)
end)

describe("ctx.attempt", function()
  after_each(util.cleanup)

  it("is 1", function()
    util.assert_identical(1, util.through(function(_, ctx) return ctx.attempt end))
  end)
end)

describe("ctx.options", function()
  after_each(util.cleanup)

  local function options_of(options)
    return util.run(util.dag(tm.dag { tm.transform("it", {
      options = options,
      run = function(_, ctx) return ctx.options end,
    }) })).payload
  end

  it("is the declared table", function()
    util.assert_identical({ model = "small", list = { 1, 2, { deep = true } } }, options_of {
      model = "small", list = { 1, 2, { deep = true } },
    })
  end)

  it("is an empty table or nil where none are declared", function()
    assert.same({}, util.through(function(_, ctx) return ctx.options or {} end))
  end)

  it("is each processor's own", function()
    local function size(_, ctx) return { size = ctx.options.size } end
    local result = util.run(util.dag(tm.dag {
      tm.analyze("a", { options = { size = 1 }, run = size }),
      tm.analyze("b", { options = { size = 2 }, run = size }),
    }))
    assert.same({ a = { size = 1 }, b = { size = 2 } }, result.metadata)
  end)

  it("does not change when the host changes the table it declared", function()
    local options = { size = 1 }
    local dag = util.dag(tm.dag { tm.transform("it", {
      options = options, run = function(_, ctx) return ctx.options.size end,
    }) })
    options.size = 2
    assert.equal(1, util.run(dag).payload)
  end)
end)

describe("ctx.state", function()
  after_each(util.cleanup)

  it("is what setup returned", function()
    local dag = util.dag(tm.dag { tm.transform("it", {
      setup = function() return { greeting = "hello" } end,
      run = function(payload, ctx) return ctx.state.greeting .. " " .. payload end,
    }) })
    assert.equal("hello you", util.run(dag, "you").payload)
  end)

  it("may be something that can't travel, such as a function", function()
    local dag = util.dag(tm.dag { tm.transform("it", {
      setup = function() return string.upper end,
      run = function(payload, ctx) return ctx.state(payload) end,
    }) })
    assert.equal("LOUD", util.run(dag, "loud").payload)
  end)

  it("is made from the options", function()
    local dag = util.dag(tm.dag { tm.transform("it", {
      options = { factor = 3 },
      setup = function(options) return function(n) return n * options.factor end end,
      run = function(payload, ctx) return ctx.state(payload) end,
    }) })
    util.assert_identical(21, util.run(dag, 7).payload)
  end)

  it("lives on from run to run, per worker", function()
    local dag = util.dag(tm.dag { tm.transform("it", {
      setup = function() return { runs = 0 } end,
      run = function(_, ctx)
        ctx.state.runs = ctx.state.runs + 1
        return ctx.state.runs
      end,
    }) }, 1)
    util.run(dag)
    util.run(dag)
    assert.equal(3, util.run(dag).payload)
  end)

  it("is each processor's own", function()
    local function setup(options) return options.name end
    local function run(_, ctx) return { state = ctx.state } end
    local result = util.run(util.dag(tm.dag {
      tm.analyze("a", { options = { name = "x" }, setup = setup, run = run }),
      tm.analyze("b", { options = { name = "y" }, setup = setup, run = run }),
    }))
    assert.same({ a = { state = "x" }, b = { state = "y" } }, result.metadata)
  end)

  it("is nil without setup", function()
    assert.equal("nil", util.through(function(_, ctx) return type(ctx.state) end))
  end)
end)

describe("ctx.metadata", function()
  after_each(util.cleanup)

  it("is an empty table for an entry point", function()
    assert.same({}, util.run(util.dag(tm.dag {
      tm.transform("it", function(_, ctx) return ctx.metadata end),
    })).payload)
  end)

  it("has what a dependency contributed, under its id", function()
    assert.equal("a", seen_in({ tell "a", analyze("seen", "a", function(_, ctx)
      return { a = ctx.metadata.a.told }
    end) }).a)
  end)

  it("has what a transform contributed", function()
    assert.equal(7, seen_in({
      tm.transform("t", function(payload) return payload, { n = 7 } end),
      analyze("seen", "t", function(_, ctx) return { n = ctx.metadata.t.n } end),
    }).n)
  end)

  it("has what all ancestors contributed, not only dependencies", function()
    assert.same({ ids = { "a", "b", "c" } }, seen_in {
      tell "a", tell("b", "a"), tell("c", "b"),
      analyze("seen", "c", function(_, ctx)
        local ids = {}
        for id in pairs(ctx.metadata) do ids[#ids + 1] = id end
        table.sort(ids)
        return { ids = ids }
      end),
    })
  end)

  it("has nothing of processors that are no ancestors", function()
    assert.is_true(seen_in({
      tell "a", tell "beside", tell("after", "a"),
      analyze("seen", "a", function(_, ctx)
        return { alone = ctx.metadata.beside == nil and ctx.metadata.after == nil }
      end),
    }).alone)
  end)

  it("has no entry for an ancestor that contributed none", function()
    assert.is_true(seen_in({
      analyze("quiet", nil, function() end),
      analyze("seen", "quiet", function(_, ctx) return { none = ctx.metadata.quiet == nil } end),
    }).none)
  end)

  it("has the run's input metadata at the top level", function()
    local seen = seen_in({ analyze("seen", nil, function(_, ctx)
      return { source = ctx.metadata.source }
    end) }, { metadata = { source = { name = "cli" } } })
    assert.same({ source = { name = "cli" } }, seen)
  end)

  it("has the input metadata for processors of every rank", function()
    local seen = seen_in({ tell "a", tell("b", "a"), analyze("seen", "b", function(_, ctx)
      return { source = ctx.metadata.source, b = ctx.metadata.b.told }
    end) }, { metadata = { source = "cli" } })
    assert.same({ source = "cli", b = "b" }, seen)
  end)

  it("keeps a processor's fields apart from another's of the same name", function()
    assert.same({ x = "x", y = "y" }, seen_in {
      tell "x", tell "y",
      analyze("seen", { "x", "y" }, function(_, ctx)
        return { x = ctx.metadata.x.told, y = ctx.metadata.y.told }
      end),
    })
  end)
end)

describe("ctx.dependencies", function()
  after_each(util.cleanup)

  it("is an empty table for an entry point", function()
    assert.same({}, util.through(function(_, ctx) return ctx.dependencies end))
  end)

  it("has the direct dependencies and no others", function()
    assert.same({ ids = { "b", "c" } }, seen_in {
      append "a", append("b", "a"), append "c",
      analyze("seen", { "b", "c" }, function(_, ctx)
        local ids = {}
        for id in pairs(ctx.dependencies) do ids[#ids + 1] = id end
        table.sort(ids)
        return { ids = ids }
      end),
    })
  end)

  it("has the status of a dependency", function()
    assert.equal("completed", seen_in({ append "a", analyze("seen", "a", function(_, ctx)
      return { status = ctx.dependencies.a.status }
    end) }).status)
  end)

  it("has the payload that a dependency passed on", function()
    assert.equal("pa", seen_in({ append "a", append "b", analyze("seen", { "a", "b" }, function(_, ctx)
      return { payload = ctx.dependencies.a.payload }
    end) }).payload)
  end)

  it("has the metadata of a dependency", function()
    assert.equal("a", seen_in({ tell "a", analyze("seen", "a", function(_, ctx)
      return { told = ctx.dependencies.a.metadata.told }
    end) }).told)
  end)

  it("has no metadata where a dependency contributed none", function()
    assert.is_true(seen_in({ append "a", analyze("seen", "a", function(_, ctx)
      return { none = ctx.dependencies.a.metadata == nil }
    end) }).none)
  end)

  it("has no error where a dependency completed", function()
    assert.is_true(seen_in({ append "a", analyze("seen", "a", function(_, ctx)
      return { none = ctx.dependencies.a.error == nil }
    end) }).none)
  end)

  it("has the error of a dependency that failed under best_effort", function()
    local dag = util.dag(tm.dag {
      failure_strategy = "best_effort",
      tm.transform("bad", function() return nil, "why" end),
      analyze("seen", "bad", function(_, ctx)
        local err = ctx.dependencies.bad.error
        return { code = err.code, message = err.message, processor = err.processor }
      end),
    })
    assert.same(
      { code = "processor_failed", message = "why", processor = "bad" },
      dag:run("p").metadata.seen
    )
  end)
end)

describe("ctx.cancelled", function()
  after_each(util.cleanup)

  it("is false in a run that goes on", function()
    util.assert_identical(false, util.through(function(_, ctx) return ctx.cancelled() end))
  end)
end)

describe("A callback that changes its tables", function()
  after_each(util.cleanup)

  local function vandal(id, depends_on)
    return analyze(id, depends_on, function(payload, ctx)
      payload.list[1] = "changed"
      payload.added = true
      ctx.metadata.source = "changed"
      ctx.metadata.first.told = "changed"
      ctx.dependencies.first.payload = "changed"
      ctx.dependencies.first.status = "changed"
      ctx.dependencies.first.metadata.told = "changed"
    end)
  end

  local function witness(id, depends_on)
    return analyze(id, depends_on, function(payload, ctx)
      return {
        payload = payload,
        source = ctx.metadata.source,
        told = ctx.metadata.first.told,
        status = (ctx.dependencies.first or {}).status,
      }
    end)
  end

  local function run(...)
    local dag = util.dag(tm.dag { tell "first", ... }, 1)
    return util.run(dag, { list = { 1, 2 } }, { metadata = { source = "cli" } })
  end

  it("does not change them for a sibling", function()
    assert.same(
      { payload = { list = { 1, 2 } }, source = "cli", told = "first", status = "completed" },
      run(vandal("a", "first"), witness("b", "first"), vandal("c", "first")).metadata.b
    )
  end)

  it("does not change them for a dependent", function()
    assert.same(
      { payload = { list = { 1, 2 } }, source = "cli", told = "first", status = "completed" },
      run(vandal("a", "first"), witness("b", { "a", "first" })).metadata.b
    )
  end)

  it("does not change them for the result", function()
    local result = run(vandal("a", "first"))
    assert.same({ list = { 1, 2 } }, result.payload)
    assert.same({ source = "cli", first = { told = "first" } }, result.metadata)
  end)

  it("does not change them for the next run", function()
    local dag = util.dag(tm.dag { tell "first", vandal("a", "first"), witness("b", { "a", "first" }) }, 1)
    local function once()
      return util.run(dag, { list = { 1, 2 } }, { metadata = { source = "cli" } }).metadata.b
    end
    assert.same(once(), once())
    assert.equal("cli", once().source)
  end)

  it("does not change the metadata that it has already returned", function()
    local kept
    local dag = util.dag(tm.dag {
      analyze("a", nil, function()
        kept = { n = 1 }
        return kept
      end),
      analyze("b", "a", function()
        kept.n = 2
      end),
    }, 1)
    assert.equal(1, util.run(dag).metadata.a.n)
  end)

  it("sees its own changes while it runs", function()
    assert.equal("changed", util.through(function(_, ctx)
      ctx.metadata.mine = "changed"
      return ctx.metadata.mine
    end))
  end)
end)

describe("A ctx that is kept after its callback returned", function()
  after_each(util.cleanup)

  -- The first run keeps ctx in an upvalue that lives in the only worker; the second one tries to use it.
  local function late_use(use)
    local kept, kept_tables
    local dag = util.dag(tm.dag { tm.transform("it", function(_, ctx)
      if not kept then
        kept = ctx
        kept_tables = { ctx.metadata, ctx.dependencies }
        return "kept"
      end
      local ok, message = pcall(use, kept)
      return { ok = ok, message = type(message), tables = #kept_tables }
    end) }, 1)
    assert.equal("kept", util.run(dag).payload)
    return util.run(dag).payload
  end

  it("raises when its id is read", function()
    assert.same({ ok = false, message = "string", tables = 2 }, late_use(function(ctx) return ctx.id end))
  end)

  it("raises when metadata is read that was read in time before", function()
    assert.same({ ok = false, message = "string", tables = 2 }, late_use(function(ctx) return ctx.metadata end))
  end)

  it("raises when its dependencies are read", function()
    assert.same({ ok = false, message = "string", tables = 2 }, late_use(function(ctx) return ctx.dependencies end))
  end)

  it("raises when it is asked whether the run is cancelled", function()
    assert.same({ ok = false, message = "string", tables = 2 }, late_use(function(ctx) return ctx.cancelled() end))
  end)
end)
