-- SPDX-License-Identifier: MIT
-- strategy = "reactive" | "work_queue" | "level": equal results, by different orders. That results are equal is also
-- what oracle_spec.lua says.
local tm = require "tidemill"
local oracle = require "spec.support.oracle"
local random_dag = require "spec.support.random_dag"
local util = require "spec.support.util"

local STRATEGIES = { "reactive", "work_queue", "level" }

local function transform(id, depends_on)
  return tm.transform(id, { depends_on = depends_on, run = function(payload) return payload .. id end })
end

local function analyze(id, depends_on)
  return tm.analyze(id, { depends_on = depends_on, run = function() end })
end

-- The ids in the order in which they started.
local function order(outcomes)
  local ids = {}
  for id, outcome in pairs(outcomes) do
    if outcome.started then ids[#ids + 1] = id end
  end
  table.sort(ids, function(a, b) return outcomes[a].started < outcomes[b].started end)
  return ids
end

local function declare(description)
  local declaration = { failure_strategy = "best_effort" }
  for index, processor in ipairs(description.processors) do
    declaration[index] = tm[processor.intent](processor.id, { depends_on = processor.depends_on, run = processor.run })
  end
  return tm.dag(declaration)
end

-- The order of the definition: of all that is ready, the one with the longest way to go, transforms, as declared.
local function expected_order(description)
  local nodes, ready, ids = {}, {}, {}
  for index, processor in ipairs(description.processors) do
    nodes[processor.id] =
      { id = processor.id, index = index, intent = processor.intent, left = #processor.depends_on, dependents = {} }
  end
  for _, processor in ipairs(description.processors) do
    for _, id in ipairs(processor.depends_on) do table.insert(nodes[id].dependents, nodes[processor.id]) end
  end
  local function way(node)
    if node.way then return node.way end
    node.way = 0
    for _, dependent in ipairs(node.dependents) do node.way = math.max(node.way, way(dependent) + 1) end
    return node.way
  end
  local function before(a, b)
    if way(a) ~= way(b) then return way(a) > way(b) end
    if a.intent ~= b.intent then return a.intent == "transform" end
    return a.index < b.index
  end
  for _, node in pairs(nodes) do
    if node.left == 0 then ready[#ready + 1] = node end
  end
  while #ready > 0 do
    table.sort(ready, before)
    local node = table.remove(ready, 1)
    ids[#ids + 1] = node.id
    for _, dependent in ipairs(node.dependents) do
      dependent.left = dependent.left - 1
      if dependent.left == 0 then ready[#ready + 1] = dependent end
    end
  end
  return ids
end

describe("work_queue with one worker", function()
  after_each(util.cleanup)

  local function started(declaration, start)
    declaration.strategy, declaration.profile = "work_queue", true
    local dag = util.dag(tm.dag(declaration), 1)
    local result = start and assert(dag:start(""):wait(30)) or util.run(dag, "")
    return order(result.outcomes)
  end

  for _, start in ipairs { false, true } do
    describe(start and "by dag:start" or "by dag:run", function()
      it("begins with the longest way to go", function()
        assert.same({ "one", "two", "short", "three" },
          started({ transform "short", transform("three", "two"), transform("two", "one"), transform "one" }, start))
      end)

      it("puts transforms before analyzes with an equally long way to go", function()
        assert.same({ "c", "a", "b" }, started({ analyze "a", analyze "b", transform "c" }, start))
      end)

      it("puts a longer way before a transform", function()
        assert.same({ "a", "c", "b" }, started({ transform "c", analyze "a", analyze("b", "a") }, start))
      end)

      it("goes by declaration otherwise", function()
        assert.same({ "c", "a", "d", "b" },
          started({ transform "c", transform "a", transform "d", transform "b" }, start))
      end)

      it("looks at what became ready as well", function()
        assert.same({ "a", "deep", "x", "side", "deeper" }, started({
          transform("side", "x"), transform "a", transform("deep", "a"), transform("deeper", "deep"), transform "x",
        }, start))
      end)
    end)
  end

  it("follows the definition on random DAGs", function()
    local engine = util.engine(1)
    for seed = 1, 60 do
      local description = random_dag.new(seed)
      for _, processor in ipairs(description.processors) do processor.when = nil end
      local result = assert(engine:dag(declare(description)))
        :run(description.payload, { strategy = "work_queue", profile = true })
      assert.same(expected_order(description), order(result.outcomes), random_dag.describe(description))
    end
  end)
end)

describe("level", function()
  after_each(util.cleanup)

  local function check(description, result)
    local ranks, first, last = oracle.ranks(description), {}, {}
    for id, outcome in pairs(result.outcomes) do
      local rank = ranks[id]
      first[rank] = math.min(first[rank] or math.huge, outcome.started)
      last[rank] = math.max(last[rank] or 0, outcome.finished)
    end
    for rank = 1, #first do
      local early = first[rank] < last[rank - 1]
      assert.is_false(early, ("rank %d began early\n%s"):format(rank, random_dag.describe(description)))
    end
  end

  for _, workers in ipairs { 1, 4 } do
    it(("starts nothing of a rank before the rank before has finished, with %d workers"):format(workers), function()
      local engine = util.engine(workers)
      for seed = 1, 60 do
        local description = random_dag.new(seed)
        for _, processor in ipairs(description.processors) do processor.when = nil end
        local result = assert(engine:dag(declare(description)))
          :run(description.payload, { strategy = "level", profile = true })
        check(description, result)
      end
    end)
  end

  it("holds back what reactive would start", function()
    local declaration = { profile = true, transform "a", transform("b", "a"), transform "c" }
    local dag = util.dag(tm.dag(declaration), 1)
    local level = util.run(dag, "", { strategy = "level" }).outcomes
    assert.is_true(level.b.started >= level.c.finished)
  end)

  it("waits for a retry of the rank before", function()
    local dag = util.dag(tm.dag {
      strategy = "level", profile = true, transform "a", transform("b", "a"),
      tm.transform("again", { retry = { max = 1, backoff = 0.05 }, run = function(payload, ctx)
        if ctx.attempt == 1 then return nil, "no" end
        return payload
      end }),
    }, 2)
    local outcomes = util.run(dag, "").outcomes
    assert.is_true(outcomes.b.started >= outcomes.again.finished)
  end)

  it("goes on past what failed or was skipped", function()
    local dag = util.dag(tm.dag {
      strategy = "level", failure_strategy = "continue_on_error", transform "a",
      tm.transform("bad", function() return nil, "no" end), transform("skipped", "bad"),
      tm.transform("never", { depends_on = "a", when = function() return false end, run = print }),
      transform("b", "never"),
    }, 2)
    local result = dag:run ""
    assert.same({ a = "completed", bad = "failed", skipped = "skipped", never = "skipped", b = "completed" },
      util.statuses(result))
  end)
end)

describe("A strategy", function()
  after_each(util.cleanup)

  for _, strategy in ipairs(STRATEGIES) do
    it(("may be %s"):format(strategy), function()
      local dag = util.dag(tm.dag { strategy = strategy, transform "a", transform("b", "a") })
      assert.equal(strategy, dag.strategy)
      assert.equal("ab", util.run(dag, "").payload)
    end)

    it(("may be %s for one run"):format(strategy), function()
      local dag = util.dag(tm.dag { transform "a", transform("b", "a") })
      assert.equal("ab", util.run(dag, "", { strategy = strategy }).payload)
      assert.equal("ab", assert(dag:start("", { strategy = strategy }):wait(30)).payload)
    end)
  end

  it("is reactive unless told otherwise", function()
    assert.equal("reactive", util.dag(tm.dag { transform "a" }).strategy)
  end)

  it("may change from run to run of one DAG, many in flight", function()
    local dag, runs = util.dag(tm.dag {
      transform "a", transform("b", "a"), transform("c", "a"), transform("d", { "b", "c" }),
    }, 4), {}
    for number = 1, 300 do
      runs[number] = dag:start("", { strategy = STRATEGIES[1 + number % 3], profile = number % 2 == 0 })
    end
    for number = 1, 300 do assert.equal("acd", assert(runs[number]:wait(30)).payload) end
  end)

  it("that nobody knows is a problem of the declaration", function()
    util.assert_problem(tm.dag { strategy = "levle", transform "a" }, "strategy", "did you mean", "level")
  end)

  it("that nobody knows is refused at the caller's line for a run", function()
    local dag = util.dag(tm.dag { transform "a" })
    util.assert_raises_here(function() dag:run("", { strategy = "levle" }) end, "strategy", "level")
    util.assert_raises_here(function() dag:run("", { strategy = 3 }) end, "strategy")
  end)
end)
