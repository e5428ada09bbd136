-- SPDX-License-Identifier: MIT
-- Random DAGs, run by the engine and by the oracle, must agree in everything that is determined.
--   TIDEMILL_ORACLE_DAGS=5000   how many DAGs
--   TIDEMILL_ORACLE_SEED=17     only this one, many times
local tm = require "tidemill"
local oracle = require "spec.support.oracle"
local random_dag = require "spec.support.random_dag"
local render = require "spec.support.render"

local ONLY = tonumber(os.getenv "TIDEMILL_ORACLE_SEED" or "")
local FIRST = ONLY or 1
local LAST = ONLY or tonumber(os.getenv "TIDEMILL_ORACLE_DAGS" or "") or 200
local TIMES = ONLY and 100 or 4

local STRATEGIES = { "fail_fast", "continue_on_error", "best_effort" }
local EXECUTORS = { "reactive", "work_queue", "level" }

-- Differences between what was expected and what came.
local Differences = {}
Differences.__index = Differences

function Differences:note(what, expected, actual)
  self[#self + 1] = ("%s: expected %s, got %s"):format(what, expected, actual)
end

function Differences:same(what, expected, actual)
  local wanted, got = render(expected), render(actual)
  if wanted ~= got then self:note(what, wanted, got) end
end

-- A message the oracle leaves open must still be the same in every run of the DAG, with any number of workers. (What a
-- cancelled processor says may depend on who tripped the run, hence on a clock.)
function Differences:same_as_ever(what, text)
  local known = self.texts[what]
  self.texts[what] = known or text
  if known and known ~= text then self:note(what .. " (in an earlier run)", known, text) end
end

local function compare_message(differences, what, expected, message)
  if type(message) ~= "string" then return differences:note(what, "a string", type(message)) end
  if expected.message then return differences:same(what, expected.message, message) end
  if expected.code == "cancelled" then return end
  differences:same_as_ever(what, message)
  if expected.mentions and not message:find(expected.mentions, 1, true) then
    differences:note(what, "a text with " .. expected.mentions, message)
  end
end

local function compare_error(differences, what, expected, err)
  if not expected or not err then return differences:same(what, expected and "an error", err and tostring(err)) end
  differences:same(what .. ".code", expected.code, err.code)
  differences:same(what .. ".processor", expected.processor, err.processor)
  differences:same(what .. ".root", expected.root, err.root)
  differences:same(what .. ".cause", expected.cause, err.cause)
  differences:same(what .. ".traceback", expected.raised and "string" or "nil", type(err.traceback))
  compare_message(differences, what .. ".message", expected, err.message)
end

local function compare_outcome(differences, id, expected, outcome)
  differences:same(id .. ".status", expected.status, outcome.status)
  differences:same(id .. ".payload", expected.payload, outcome.payload)
  differences:same(id .. ".metadata", expected.metadata, outcome.metadata)
  if expected.attempts then differences:same(id .. ".attempts", expected.attempts, outcome.attempts) end
  compare_error(differences, id .. ".error", expected.error, outcome.error)
end

local function compare_outcomes(differences, expected, outcomes)
  for id, outcome in pairs(expected) do
    if outcomes[id] then
      compare_outcome(differences, id, outcome, outcomes[id])
    else
      differences:note(id, "an outcome", "none")
    end
  end
  for id in pairs(outcomes) do
    if not expected[id] then differences:note(id, "no such processor", "an outcome") end
  end
end

local function ids_of(failures)
  local ids = {}
  for index, failure in ipairs(failures or {}) do ids[index] = failure.processor end
  return ids
end

local function compare_failures(differences, expected, result, err)
  differences:same("result.failures", expected.failures, ids_of(result.failures))
  for _, failure in ipairs(result.failures) do
    compare_error(differences, "failure of " .. failure.processor, expected.outcomes[failure.processor].error, failure)
  end
  if expected.ok then return differences:same("err", nil, err) end
  differences:same("err.processor", expected.error, err and err.processor)
  differences:same("err.failures", expected.failures, err and ids_of(err.failures))
end

local function compare_result(differences, expected, result, err)
  differences:same("ok", expected.ok, result.ok)
  differences:same("payload", expected.payload, result.payload)
  differences:same("metadata", expected.metadata, result.metadata)
  compare_outcomes(differences, expected.outcomes, result.outcomes)
  compare_failures(differences, expected, result, err)
end

local function statuses_of(result)
  local statuses = {}
  for id, outcome in pairs(result.outcomes) do statuses[id] = outcome.status end
  return statuses
end

-- fail_fast with a failure: the oracle says what must follow from what has run.
local function compare_failed_fast(differences, expected, result, err)
  differences:same("result", nil, result)
  if not err or not err.result then return differences:note("err.result", "a result", "none") end
  local view, why = oracle.given(expected, statuses_of(err.result))
  if not view then return differences:note("statuses", "a possible set", why) end
  compare_result(differences, view, err.result, err)
end

local function compare(expected, texts, result, err)
  local differences = setmetatable({ texts = texts }, Differences)
  if expected.failing then
    compare_failed_fast(differences, expected, result, err)
  elseif not result then
    differences:note("result", "a result", "nil, " .. tostring(err))
  else
    compare_result(differences, expected, result, err)
  end
  return differences
end

local function report(description, workers, executor, differences)
  local text = "%s\nunder %s by %s with %d workers:\n  %s\nreplay: TIDEMILL_ORACLE_SEED=%d busted spec/oracle_spec.lua"
  return text:format(
    random_dag.describe(description), description.failure_strategy, executor, workers,
    table.concat(differences, "\n  "), description.seed
  )
end

describe("Any DAG", function()
  local engines

  setup(function()
    engines = { tm.engine { workers = 1 }, tm.engine { workers = 2 }, tm.engine { workers = 4 } }
  end)

  teardown(function()
    for _, engine in ipairs(engines) do engine:close() end
  end)

  local function check(engine, description, expected, texts)
    local dag, why = engine:dag(random_dag.declare(description))
    if not dag then error(report(description, engine.workers, "none", { tostring(why) }), 0) end
    for time = 1, TIMES do -- by each executor at least once
      local executor = EXECUTORS[1 + (description.seed + time) % #EXECUTORS]
      local differences = compare(expected, texts,
        dag:run(description.payload, { metadata = description.metadata, strategy = executor }))
      if #differences > 0 then error(report(description, engine.workers, executor, differences), 0) end
    end
  end

  for _, strategy in ipairs(STRATEGIES) do
    it("yields what the definitions say under " .. strategy .. ", by any executor and number of workers", function()
      for seed = FIRST, LAST do
        local description = random_dag.new(seed)
        description.failure_strategy = strategy
        local expected, texts = oracle.run(description, description.payload, description.metadata), {}
        for _, engine in ipairs(engines) do check(engine, description, expected, texts) end
      end
    end)
  end

  it("shows the ranks that the definitions say", function()
    local engine = tm.engine { workers = 1 }
    for seed = FIRST, math.min(LAST, FIRST + 50) do
      local description = random_dag.new(seed)
      local dag = assert(engine:dag(random_dag.declare(description)))
      local ranks = {}
      for _, processor in ipairs(dag.processors) do ranks[processor.id] = processor.rank end
      assert.same(oracle.ranks(description), ranks)
    end
    engine:close()
  end)
end)

-- The oracle itself, on examples whose answers can be seen by eye.
describe("The oracle", function()
  local function append(text)
    return function(payload) return payload .. text end
  end

  local function transform(id, depends_on, run)
    return { id = id, intent = "transform", depends_on = depends_on, run = run or append(id) }
  end

  local function analyze(id, depends_on, run)
    return { id = id, intent = "analyze", depends_on = depends_on, run = run }
  end

  local function fail() return nil, "no" end

  local function run(strategy, processors, metadata)
    return oracle.run({ failure_strategy = strategy, processors = processors }, "", metadata)
  end

  it("follows a chain", function()
    local expected = run("fail_fast", { transform("a", {}), transform("b", { "a" }), transform("c", { "b" }) })
    assert.equal("abc", expected.payload)
  end)

  it("does not care for the order of declaration along a chain", function()
    local expected = run("fail_fast", { transform("c", { "b" }), transform("b", { "a" }), transform("a", {}) })
    assert.equal("abc", expected.payload)
  end)

  it("lets the branch declared later win at equal depth", function()
    local expected = run("fail_fast", {
      transform("a", {}), transform("c", { "a" }), transform("b", { "a" }), transform("d", { "b", "c" }),
    })
    assert.equal("abd", expected.payload)
  end)

  it("lets the deeper branch win, wherever it is declared", function()
    local expected = run("fail_fast", {
      transform("deep", { "b" }), transform("b", { "a" }), transform("a", {}), transform("c", { "a" }),
      transform("d", { "c", "deep" }),
    })
    assert.equal("abdeepd", expected.payload)
  end)

  it("takes the rank of an analyze into account, not its payload", function()
    local silent = function() end
    local expected = run("fail_fast", {
      transform("t", {}), analyze("x", {}, silent), analyze("y", { "x" }, silent), transform("z", { "t", "y" }),
    })
    assert.equal("tz", expected.payload)
  end)

  it("knows ranks as longest paths", function()
    local ranks = oracle.ranks { processors = {
      transform("a", {}), transform("b", { "a" }), transform("c", { "a", "b" }), transform("d", { "a" }),
    } }
    assert.same({ a = 0, b = 1, c = 2, d = 1 }, ranks)
  end)

  it("shows a processor the metadata of its ancestors alone", function()
    local seen
    local tell = function(_, ctx) return { id = ctx.id } end
    run("fail_fast", {
      analyze("a", {}, tell), analyze("b", { "a" }, tell), analyze("beside", {}, tell),
      analyze("c", { "b" }, function(_, ctx) seen = ctx.metadata end),
    }, { source = "x" })
    assert.same({ a = { id = "a" }, b = { id = "b" }, source = "x" }, seen)
  end)

  it("names the least failed root of a skipped processor", function()
    local expected = run("continue_on_error", {
      transform("late", { "fine" }, fail), transform("fine", {}), transform("early", {}, fail),
      transform("last", { "late", "early" }), transform("beyond", { "last" }),
    })
    assert.same({ "early", "late" }, expected.failures)
    assert.equal("early", expected.outcomes.last.error.root)
    assert.equal("early", expected.outcomes.beyond.error.root)
    assert.equal("fine", expected.payload)
  end)

  it("passes by what failed under best_effort", function()
    local expected = run("best_effort", {
      transform("a", {}), transform("b", { "a" }, fail), transform("c", { "b" }),
    })
    assert.equal("ac", expected.payload)
    assert.is_false(expected.ok)
  end)

  it("passes by what its condition skips, whose dependents go on", function()
    local never = transform("b", { "a" })
    never.when = function() return false end
    local expected = run("continue_on_error", { transform("a", {}), never, transform("c", { "b" }) })
    assert.equal("ac", expected.payload)
    assert.same({ status = "skipped", attempts = 0 }, expected.outcomes.b)
    assert.is_true(expected.ok)
  end)

  describe("under fail_fast", function()
    local expected = run("fail_fast", {
      transform("a", {}), transform("x", { "a" }, fail), transform("y", {}, fail), transform("z", { "x" }),
      transform("w", {}),
    })

    local function given(a, x, y, z, w)
      return oracle.given(expected, { a = a, x = x, y = y, z = z, w = w })
    end

    it("knows which could fail", function()
      assert.same({ "y", "x" }, expected.failing)
    end)

    it("accepts that only one had its turn", function()
      local view = given("completed", "failed", "cancelled", "cancelled", "cancelled")
      assert.same({ "x" }, view.failures)
      assert.equal("a", view.payload)
    end)

    it("puts the least one first when both had", function()
      assert.equal("y", given("completed", "failed", "failed", "cancelled", "completed").error)
    end)

    it("refuses a dependent of a failed processor that ran", function()
      assert.is_nil((given("completed", "failed", "cancelled", "completed", "cancelled")))
    end)

    it("refuses a failure before its ancestors completed", function()
      assert.is_nil((given("cancelled", "failed", "cancelled", "cancelled", "cancelled")))
    end)

    it("refuses that nothing failed", function()
      assert.is_nil((given("completed", "cancelled", "cancelled", "cancelled", "cancelled")))
    end)

    it("refuses a success where the processor fails", function()
      assert.is_nil((given("completed", "completed", "failed", "cancelled", "completed")))
    end)
  end)

  it("describes equal random DAGs for equal seeds", function()
    for seed = 1, 20 do
      assert.equal(random_dag.describe(random_dag.new(seed)), random_dag.describe(random_dag.new(seed)))
    end
  end)

  it("describes the same random DAGs on every Lua", function()
    local text = random_dag.describe(random_dag.new(4))
    local hash = 0
    for position = 1, #text do hash = (hash * 31 + text:byte(position)) % 2147483647 end
    assert.equal(1299418049, hash)
  end)
end)
