-- SPDX-License-Identifier: MIT
-- when = function(metadata, payload): whether a processor takes part in a run.
local tm = require "tidemill"
local util = require "spec.support.util"

local function append(id, fields)
  fields = fields or {}
  fields.run = function(payload) return payload .. id, { told = id } end
  return tm.transform(id, fields)
end

local function never() return false end

local function run(declaration, payload, options)
  return util.dag(tm.dag(declaration)):run(payload or "", options)
end

describe("A condition", function()
  after_each(util.cleanup)

  for name, condition in pairs {
    ["true"] = function() return true end,
    ["zero"] = function() return 0 end,
    ["an empty string"] = function() return "" end,
    ["a table"] = function() return {} end,
  } do
    it(("that answers %s lets the processor run"):format(name), function()
      local result = assert(run { append("a", { when = condition }) })
      assert.equal("a", result.payload)
      assert.equal("completed", result.outcomes.a.status)
    end)
  end

  for name, condition in pairs {
    ["false"] = never,
    ["nil"] = function() return nil end,
    ["nothing"] = function() end,
  } do
    it(("that answers %s skips the processor"):format(name), function()
      local result, err = run { append("a", { when = condition }) }
      assert.is_nil(err)
      assert.same({ status = "skipped", attempts = 0 }, result.outcomes.a)
    end)
  end

  it("that skips leaves the run ok, without failures", function()
    local result = assert(run { append("a", { when = never }) })
    assert.is_true(result.ok)
    assert.same({}, result.failures)
  end)

  it("that skips keeps the callback from being called", function()
    local path = util.path()
    os.remove(path)
    assert(run { tm.analyze("a", { when = never, run = function() io.open(path, "w"):close() end }) })
    assert.is_nil(io.open(path))
  end)

  it("that skips contributes neither payload nor metadata", function()
    local result = assert(run { append "a", append("b", { depends_on = "a", when = never }) })
    assert.equal("a", result.payload)
    assert.same({ a = { told = "a" } }, result.metadata)
  end)

  it("that skips lets dependents go on with what the skipped one would have seen", function()
    local result = assert(run {
      append "a", append("b", { depends_on = "a", when = never }), append("c", { depends_on = "b" }),
    })
    assert.equal("ac", result.payload)
    assert.same({ a = "completed", b = "skipped", c = "completed" }, util.statuses(result))
  end)

  it("that skips hands on the payload of payload_from", function()
    local result = assert(run {
      append "a", append("b", { depends_on = "a" }),
      append("c", { depends_on = { "a", "b" }, payload_from = "a", when = never }), append("d", { depends_on = "c" }),
    })
    assert.equal("ad", result.outcomes.d.payload)
  end)

  it("that skips is seen by dependents as skipped, with a payload and nothing else", function()
    local result = assert(run({
      append("a", { when = never }),
      tm.analyze("b", { depends_on = "a", run = function(_, ctx) return { seen = ctx.dependencies.a } end }),
    }, "in"))
    assert.same({ status = "skipped", payload = "in" }, result.metadata.b.seen)
  end)

  it("that skips all lets the run return its input", function()
    assert.equal("in", assert(run({ append("a", { when = never }) }, "in")).payload)
  end)

  for _, strategy in ipairs { "fail_fast", "continue_on_error", "best_effort" } do
    it("that skips does not skip dependents, under " .. strategy, function()
      local result, err = run {
        failure_strategy = strategy, append("a", { when = never }), append("b", { depends_on = "a" }),
      }
      assert.is_nil(err)
      assert.equal("b", result.payload)
    end)
  end

  it("sees the metadata of all ancestors and of the run, and of nobody else", function()
    local result = assert(run({
      append "a", append("b", { depends_on = "a" }), append "beside",
      append("c", { depends_on = "b", when = function(metadata)
        local keys = {}
        for key in pairs(metadata) do keys[#keys + 1] = key end
        table.sort(keys)
        return table.concat(keys, " ") == "a b source" and metadata.a.told == "a" and metadata.source == "spec"
      end }),
    }, "", { metadata = { source = "spec" } }))
    assert.equal("completed", result.outcomes.c.status)
  end)

  it("does not see the metadata of a skipped ancestor", function()
    local result = assert(run {
      append("a", { when = never }), append("b", { depends_on = "a", when = function(metadata) return metadata.a end }),
    })
    assert.equal("skipped", result.outcomes.b.status)
  end)

  it("sees the payload that the callback would get", function()
    local result = assert(run {
      append "a", append("b", { depends_on = "a" }),
      append("c", {
        depends_on = { "a", "b" }, payload_from = "a", when = function(_, payload) return payload == "a" end,
      }),
    })
    assert.equal("ac", result.outcomes.c.payload)
  end)

  it("cannot change the payload or the metadata that the callback gets", function()
    local result = assert(run({
      tm.analyze("a", function() return { kept = true } end),
      tm.transform("b", {
        depends_on = "a",
        when = function(metadata, payload)
          metadata.a.kept, metadata.new, payload.list[1], payload.more = false, 1, "changed", 1
          return true
        end,
        run = function(payload, ctx) return { payload = payload, metadata = ctx.metadata } end,
      }),
    }, { list = { "one" } }))
    assert.same({ payload = { list = { "one" } }, metadata = { a = { kept = true } } }, result.payload)
  end)

  it("may be an analyze's", function()
    local result = assert(run { tm.analyze("a", { when = never, run = function() return { x = 1 } end }) })
    assert.same({}, result.metadata)
    assert.equal("skipped", result.outcomes.a.status)
  end)

  it("keeps its upvalues", function()
    local limit = 3
    local dag = util.dag(tm.dag { append("a", { when = function(_, payload) return #payload > limit end }) })
    assert.equal("skipped", util.run(dag, "abc").outcomes.a.status)
    assert.equal("completed", util.run(dag, "abcd").outcomes.a.status)
  end)

  it("may be declared in a script", function()
    local dag = assert(util.load [[
      local tm = require "tidemill"
      local wanted = "yes"
      return tm.dag { tm.transform("a", {
        when = function(_, payload) return payload == wanted end, run = function() return "ran" end,
      }) }
    ]])
    assert.equal("ran", util.run(dag, "yes").payload)
    assert.equal("no", util.run(dag, "no").payload)
  end)

  it("is asked once per run", function()
    local path = util.path()
    local dag = util.dag(tm.dag { append("a", { when = function()
      local file = io.open(path, "a")
      file:write "x"
      file:close()
      return true
    end }) })
    for _ = 1, 3 do util.run(dag, "") end
    assert.equal("xxx", util.read(path))
  end)
end)

describe("A condition that raises", function()
  after_each(util.cleanup)

  local function broken() error "no condition" end

  it("fails the processor, with a traceback", function()
    local result, err = run { append("a", { when = broken }) }
    assert.is_nil(result)
    assert.same({ "processor_failed", "a" }, { err.code, err.processor })
    util.assert_contains(err.message, "no condition")
    assert.is_string(err.traceback)
    assert.equal("failed", err.result.outcomes.a.status)
  end)

  it("may raise a table", function()
    local _, err = run { append("a", { when = function() error { reason = 7 } end }) }
    assert.same({ reason = 7 }, err.cause)
  end)

  it("skips the dependents under continue_on_error, with the processor as their root", function()
    local result = run {
      failure_strategy = "continue_on_error", append("a", { when = broken }), append("b", { depends_on = "a" }),
    }
    assert.same({ "skipped", "dependency_failed", "a" },
      { result.outcomes.b.status, result.outcomes.b.error.code, result.outcomes.b.error.root })
  end)

  it("is passed by under best_effort", function()
    local result = run {
      failure_strategy = "best_effort", append("a", { when = broken }), append("b", { depends_on = "a" }),
    }
    assert.equal("b", result.payload)
  end)
end)

describe("A condition of a processor that cannot run", function()
  after_each(util.cleanup)

  it("is not asked under continue_on_error", function()
    local path = util.path()
    os.remove(path)
    local result = run {
      failure_strategy = "continue_on_error",
      tm.transform("a", function() return nil, "no" end),
      append("b", { depends_on = "a", when = function() io.open(path, "w"):close() return true end }),
    }
    assert.equal("dependency_failed", result.outcomes.b.error.code)
    assert.is_nil(io.open(path))
  end)

  it("does not keep dependents of its own from being skipped", function()
    local result = run {
      failure_strategy = "continue_on_error",
      tm.transform("a", function() return nil, "no" end), append("b", { depends_on = "a", when = never }),
      append("c", { depends_on = "b" }),
    }
    assert.same({ a = "failed", b = "skipped", c = "skipped" }, util.statuses(result))
    assert.equal("a", result.outcomes.c.error.root)
  end)
end)

describe("A declaration's when", function()
  after_each(util.cleanup)

  it("must be a function", function()
    util.assert_problem(tm.dag { tm.transform("a", { run = print, when = true }) }, "'a'", "when", "function")
  end)

  it("must be able to travel", function()
    local file = io.stdout
    util.assert_problem(tm.dag { append("a", { when = function() return file end }) }, "'a'", "when", "file")
  end)
end)
