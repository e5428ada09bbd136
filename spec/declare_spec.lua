-- SPDX-License-Identifier: MIT
-- Declaring processors and DAGs: the forms that are right, and what is said about each kind of wrong one.
local tm = require "tidemill"
local util = require "spec.support.util"

local assert_problem = util.assert_problem

local function keep(payload) return payload end

local function transform(id, depends_on)
  return tm.transform(id, { depends_on = depends_on, run = keep })
end

-- A DAG of one processor "trim" with the given fields, besides a proper `run`.
local function trim(fields)
  fields.run = fields.run or keep
  return tm.dag { tm.transform("trim", fields) }
end

describe("A processor", function()
  after_each(util.cleanup)

  local function payload_of(processor)
    return util.run(util.dag(tm.dag { processor }), "p").payload
  end

  it("may be declared with its id and its callback", function()
    assert.equal("p!", payload_of(tm.transform("t", function(p) return p .. "!" end)))
  end)

  it("may be declared with its id and a table", function()
    assert.equal("p!", payload_of(tm.transform("t", { run = function(p) return p .. "!" end })))
  end)

  it("may be declared with its id, followed by a table", function()
    assert.equal("p!", payload_of(tm.transform "t" { run = function(p) return p .. "!" end }))
  end)

  it("may be declared with its id, followed by its callback", function()
    assert.equal("p!", payload_of(tm.transform "t" (function(p) return p .. "!" end)))
  end)

  it("may be an analyze in all of these forms", function()
    local function tell() return { told = true } end
    local result = util.run(util.dag(tm.dag {
      tm.analyze("a", tell), tm.analyze("b", { run = tell }), tm.analyze "c" { run = tell }, tm.analyze "d" (tell),
    }))
    local told = { told = true }
    assert.same({ a = told, b = told, c = told, d = told }, result.metadata)
  end)

  it("may depend on one id", function()
    local dag = util.dag(tm.dag { transform "a", transform("b", "a") })
    assert.same({ "a" }, dag.processors[2].depends_on)
  end)

  it("may depend on a list of ids", function()
    local dag = util.dag(tm.dag { transform "a", transform "b", transform("c", { "b", "a" }) })
    assert.same({ "b", "a" }, dag.processors[3].depends_on)
  end)

  it("may depend on an empty list, and is then an entry point", function()
    assert.equal(0, util.dag(tm.dag { transform("a", {}) }).processors[1].rank)
  end)

  it("may depend on one declared later", function()
    assert.equal(1, util.dag(tm.dag { transform("b", "a"), transform "a" }).processors[1].rank)
  end)

  it("may have any string as its id", function()
    local dag = util.dag(tm.dag { transform "step 1: trim", transform("größer", "step 1: trim") })
    assert.equal("completed", util.run(dag, "p").outcomes["größer"].status)
  end)

  it("may be part of several DAGs", function()
    local shared = transform "shared"
    local engine = util.engine()
    local first, second = engine:dag(tm.dag { shared }), engine:dag(tm.dag { transform "a", shared })
    assert.same({ 1, 2 }, { #first.processors, #second.processors })
  end)
end)

describe("A DAG", function()
  after_each(util.cleanup)

  it("shows its name", function()
    assert.equal("article", util.dag(tm.dag { name = "article", transform "a" }).name)
  end)

  it("shows its failure strategy", function()
    local dag = util.dag(tm.dag { failure_strategy = "best_effort", transform "a" })
    assert.equal("best_effort", dag.failure_strategy)
  end)

  it("shows its processors in the order of declaration", function()
    local dag = util.dag(tm.dag { transform("z", "a"), transform "a", transform "m" })
    local ids = {}
    for index, processor in ipairs(dag.processors) do ids[index] = processor.id end
    assert.same({ "z", "a", "m" }, ids)
  end)

  it("shows what each processor is", function()
    local dag = util.dag(tm.dag { transform "a", tm.analyze("b", { depends_on = "a", run = keep }) })
    assert.same({ id = "b", intent = "analyze", depends_on = { "a" }, rank = 1 }, {
      id = dag.processors[2].id,
      intent = dag.processors[2].intent,
      depends_on = dag.processors[2].depends_on,
      rank = dag.processors[2].rank,
    })
  end)

  it("shows the intent of a transform", function()
    assert.equal("transform", util.dag(tm.dag { transform "a" }).processors[1].intent)
  end)

  it("shows ranks as the lengths of the longest paths", function()
    local dag = util.dag(tm.dag {
      transform "a", transform("b", "a"), transform("c", { "a", "b" }), transform("d", "a"),
    })
    local ranks = {}
    for index, processor in ipairs(dag.processors) do ranks[index] = processor.rank end
    assert.same({ 0, 1, 2, 1 }, ranks)
  end)

  it("shows its processors by the same table each time", function()
    local dag = util.dag(tm.dag { transform "a" })
    assert.equal(dag.processors, dag.processors)
  end)

  it("shows its processors when its engine is closed, too", function()
    local engine = util.engine()
    local dag = assert(engine:dag(tm.dag { transform "a" }))
    engine:close()
    assert.equal("a", dag.processors[1].id)
  end)

  it("shows dependencies in the order in which they are written", function()
    local declaration = tm.dag { transform("d", { "c", "a", "b" }), transform "a", transform "b", transform("c", "a") }
    local dag = util.dag(declaration)
    assert.same({ "c", "a", "b" }, dag.processors[1].depends_on)
  end)

  it("shows an empty list for an entry point's dependencies", function()
    assert.same({}, util.dag(tm.dag { transform "a" }).processors[1].depends_on)
  end)

  it("may name the reactive strategy", function()
    assert.equal("p", util.run(util.dag(tm.dag { strategy = "reactive", transform "a" }), "p").payload)
  end)

  it("is not changed by changes to its tables after it was made", function()
    local depends_on = { "a" }
    local dag = util.dag(tm.dag { transform "a", transform "b", transform("c", depends_on) })
    depends_on[1] = "b"
    assert.same({ "a" }, dag.processors[3].depends_on)
  end)

  it("may have a thousand processors", function()
    local declaration = {}
    for index = 1, 1000 do
      declaration[index] = transform("p" .. index, index > 1 and "p" .. index - 1 or nil)
    end
    assert.equal(999, util.dag(tm.dag(declaration)).processors[1000].rank)
  end)
end)

describe("A wrong declaration", function()
  after_each(util.cleanup)

  it("is an error of engine:dag, not of tm.dag", function()
    local declaration = tm.dag { tm.transform("trim", { rnu = keep }) }
    local dag, err = util.engine(1):dag(declaration)
    assert.is_nil(dag)
    assert.equal("invalid_dag", err.code)
  end)

  it("prints with all of its problems", function()
    local problems, _, err = util.problems(tm.dag { transform("a", "x"), transform("b", "y") })
    util.assert_contains(tostring(err), problems[1], problems[2])
  end)

  it("prints with the name of the DAG", function()
    local _, _, err = util.problems(tm.dag { name = "article", transform("a", "x") })
    util.assert_contains(tostring(err), "article")
  end)

  describe("of a processor's fields", function()
    it("may have an unknown key", function()
      assert_problem(trim { color = "red" }, "trim", "color")
    end)

    it("may have an unknown key that is nearly one, and is asked whether that was meant", function()
      assert_problem(trim { depend_on = "a" }, "trim", "depend_on", "did you mean", "depends_on")
    end)

    it("is asked nothing where no key is near", function()
      local _, text = util.problems(trim { zzzzzzzzzz = 1 })
      assert.is_nil(text:find("did you mean", 1, true))
    end)

    it("may have keys by position", function()
      assert_problem(tm.dag { tm.transform("trim", { keep }) }, "trim", "1")
    end)

    it("may lack its callback", function()
      assert_problem(tm.dag { tm.transform("trim", {}) }, "trim", "run")
    end)

    it("may have a callback that is no function", function()
      assert_problem(trim { run = "keep" }, "trim", "run", "function", "string")
    end)

    it("may have a callback that is a callable table", function()
      assert_problem(trim { run = setmetatable({}, { __call = keep }) }, "trim", "run", "function", "table")
    end)

    it("may have dependencies of a wrong type", function()
      assert_problem(trim { depends_on = 42 }, "trim", "depends_on", "number")
    end)

    it("may have a dependency of a wrong type in the list", function()
      assert_problem(trim { depends_on = { true } }, "trim", "depends_on", "boolean")
    end)

    it("may have dependencies by name instead of by position", function()
      assert_problem(trim { depends_on = { other = true } }, "trim", "depends_on")
    end)

    it("may have wrong dependencies in a list among others, which count", function()
      local declaration = trim { depends_on = { "nowhere", 5 } }
      assert_problem(declaration, "trim", "depends_on", "item 2", "number")
      assert_problem(declaration, "trim", "unknown", "nowhere")
    end)

    it("may have options that are not even a number", function()
      assert_problem(trim { options = 0 / 0 }, "trim", "options", "table", "number")
    end)

    it("may have options of a wrong type", function()
      assert_problem(trim { options = "small" }, "trim", "options", "table", "string")
    end)

    it("may have options that can't travel", function()
      assert_problem(trim { options = { open = print } }, "trim", "options.open", "function")
    end)

    it("may have a setup of a wrong type", function()
      assert_problem(trim { setup = {} }, "trim", "setup", "function", "table")
    end)

    it("may have a payload_from of a wrong type", function()
      assert_problem(trim { payload_from = 1 }, "trim", "payload_from", "string", "number")
    end)

    it("may take the payload from a processor that is no dependency", function()
      local other = tm.transform("trim", { depends_on = "a", payload_from = "b", run = keep })
      assert_problem(tm.dag { transform "a", transform "b", other }, "trim", "payload_from", "b")
    end)

    it("may take the payload from another one without any dependency", function()
      assert_problem(tm.dag {
        transform "a", tm.transform("trim", { payload_from = "a", run = keep }),
      }, "trim", "payload_from", "a")
    end)

    it("may have an empty id", function()
      assert_problem(tm.dag { transform "" }, "id", "empty")
    end)
  end)

  describe("of dependencies", function()
    it("may name an unknown one", function()
      assert_problem(tm.dag { transform("b", "nowhere") }, "b", "nowhere", "unknown")
    end)

    it("may name an unknown one that is nearly a known one, and is asked whether that was meant", function()
      assert_problem(
        tm.dag { transform "headline", transform("b", "haedline") }, "b", "haedline", "did you mean", "headline"
      )
    end)

    it("may be of a processor on itself", function()
      assert_problem(tm.dag { transform("b", "b") }, "b", "itself")
    end)

    -- A cycle may be walked along the dependencies or against them.
    local function has_cycle(declaration, one_way, other_way)
      local _, text = util.problems(declaration)
      return text:find(one_way, 1, true) or text:find(other_way, 1, true)
    end

    it("may form a cycle, which is printed", function()
      assert.is_truthy(has_cycle(
        tm.dag { transform("a", "c"), transform("b", "a"), transform("c", "b") },
        "a -> b -> c -> a", "a -> c -> b -> a"
      ))
    end)

    it("may form a cycle of two", function()
      assert.is_truthy(has_cycle(tm.dag { transform("a", "b"), transform("b", "a") }, "a -> b -> a", "a -> b -> a"))
    end)

    it("may form a cycle, and only that is printed, not what leads to it or away from it", function()
      local _, text = util.problems(tm.dag {
        transform "before", transform("a", { "before", "b" }), transform("b", "a"), transform("after", "b"),
      })
      util.assert_contains(text, "a -> b -> a")
      assert.is_nil(text:find("before", 1, true))
      assert.is_nil(text:find("after", 1, true))
    end)

    it("may form several cycles, of which each is printed", function()
      local _, text = util.problems(tm.dag {
        transform("a", "b"), transform("b", "a"), transform("x", "y"), transform("y", "x"),
      })
      util.assert_contains(text, "a -> b -> a", "x -> y -> x")
    end)

    it("may form a cycle of ten thousand", function()
      local declaration = {}
      for index = 1, 10000 do declaration[index] = transform("p" .. index, "p" .. index % 10000 + 1) end
      assert_problem(tm.dag(declaration), "p1 -> ")
    end)
  end)

  describe("of a DAG", function()
    it("may be empty", function()
      assert_problem(tm.dag {}, "no processors")
    end)

    it("may be empty but for its name", function()
      assert_problem(tm.dag { name = "article" }, "no processors")
    end)

    it("may have the same id twice", function()
      assert_problem(tm.dag { transform "a", transform "b", transform "a" }, "a", "twice")
    end)

    it("may have a hole in its list", function()
      local declaration = { transform "a" }
      declaration[3] = transform "b"
      assert_problem(tm.dag(declaration), "2")
    end)

    it("may hold something that is no processor", function()
      assert_problem(tm.dag { transform "a", "trim" }, "2", "string")
    end)

    it("may hold a plain table instead of a processor", function()
      assert_problem(tm.dag { { id = "a", run = keep } }, "1", "processor")
    end)

    it("may hold a processor of which only the id was given", function()
      assert_problem(tm.dag { tm.transform "lonely" }, "lonely")
    end)

    it("may have an unknown key", function()
      assert_problem(tm.dag { color = "red", transform "a" }, "color")
    end)

    it("may have an unknown key that is nearly one, and is asked whether that was meant", function()
      assert_problem(
        tm.dag { failure_stategy = "best_effort", transform "a" }, "failure_stategy", "did you mean", "failure_strategy"
      )
    end)

    it("may have a processor by name instead of by position", function()
      assert_problem(tm.dag { first = transform "a", transform "b" }, "first")
    end)

    it("may have a name that is no string", function()
      assert_problem(tm.dag { name = 42, transform "a" }, "name", "string", "number")
    end)

    it("may have an unknown failure strategy", function()
      assert_problem(tm.dag { failure_strategy = "panic", transform "a" }, "failure_strategy", "panic")
    end)

    it("may have an unknown failure strategy, and is told which there are", function()
      assert_problem(
        tm.dag { failure_strategy = "panic", transform "a" }, "fail_fast", "continue_on_error", "best_effort"
      )
    end)

    it("may have a failure strategy that is no string", function()
      assert_problem(tm.dag { failure_strategy = true, transform "a" }, "failure_strategy", "boolean")
    end)

    it("may have an unknown strategy", function()
      assert_problem(tm.dag { strategy = "lazy", transform "a" }, "strategy", "lazy")
    end)

    for _, value in ipairs { 0, -1, 1.5, "2", true, {}, math.huge, 0 / 0 } do
      it(("may have %s (%s) as max_concurrency"):format(tostring(value):gsub(":.*", ""), type(value)), function()
        assert_problem(tm.dag { max_concurrency = value, transform "a" }, "max_concurrency")
      end)
    end

    it("may have a profile that is no boolean", function()
      assert_problem(tm.dag { profile = "yes", transform "a" }, "profile", "boolean", "string")
    end)
  end)

  describe("with several problems", function()
    local function everything_wrong()
      return tm.dag {
        colour = "red",
        failure_strategy = "panic",
        max_concurrency = 0,
        tm.transform("one", { rnu = keep }),
        transform("two", "nowhere"),
        transform("three", "three"),
        transform("four", "five"), transform("five", "four"),
        transform "six", transform "six",
        tm.analyze("seven", { run = keep, depends_on = "six", payload_from = "one", options = 7 }),
        "eight",
      }
    end

    for _, parts in ipairs {
      { "colour" }, { "failure_strategy", "panic" }, { "max_concurrency" }, { "one", "rnu" }, { "two", "nowhere" },
      { "three", "itself" }, { "four -> five -> four" }, { "six", "twice" }, { "seven", "payload_from" },
      { "seven", "options" }, { "string" },
    } do
      it("has all of them reported together: " .. table.concat(parts, ", "), function()
        assert_problem(everything_wrong(), (table.unpack or unpack)(parts))
      end)
    end

    it("has one problem for each, in a list", function()
      assert.is_true(#util.problems(everything_wrong()) >= 11)
    end)

    it("has the problems of one processor reported together", function()
      local declaration = trim { color = "red", options = 1, setup = 2 }
      assert_problem(declaration, "trim", "color")
      assert_problem(declaration, "trim", "options")
      assert_problem(declaration, "trim", "setup")
    end)

    it("has them in the same order each time", function()
      local _, first = util.problems(everything_wrong())
      local _, second = util.problems(everything_wrong())
      assert.equal(first, second)
    end)

    it("has none of them twice", function()
      local seen = {}
      for _, problem in ipairs(util.problems(everything_wrong())) do
        assert.is_nil(seen[problem], problem)
        seen[problem] = true
      end
    end)
  end)

  it("does not keep the engine from taking a right one", function()
    local engine = util.engine(1)
    assert.is_nil((engine:dag(tm.dag {})))
    assert.equal("p", util.run(engine:dag(tm.dag { transform "a" }), "p").payload)
  end)
end)

describe("Misuse of the declaring functions raises at the caller's line:", function()
  after_each(util.cleanup)

  it("tm.dag of a number", function()
    util.assert_raises_here(function() tm.dag(42) end, "number")
  end)

  it("tm.dag of nothing", function()
    util.assert_raises_here(function() tm.dag() end)
  end)

  it("engine:dag of a number", function()
    local engine = util.engine(1)
    util.assert_raises_here(function() engine:dag(42) end, "number")
  end)

  it("engine:dag of a plain table", function()
    local engine = util.engine(1)
    util.assert_raises_here(function() engine:dag { transform "a" } end, "tm.dag")
  end)
end)
