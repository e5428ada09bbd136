-- SPDX-License-Identifier: MIT
-- Lua's collector does not see the memory that results hold in C, and has to be told.
local core = require "tidemill.core"
local tm = require "tidemill"
local util = require "spec.support.util"

local MIB = 2 ^ 20
local RUNS = 100
-- Each run has an input and a new payload of a MiB, and 16 MiB and as much as Lua has itself may wait to be collected.
local MOST_VALUES = 60

local MODES = { "incremental" }
if _VERSION >= "Lua 5.4" then MODES[2] = "generational" end

local function shorten(payload) return payload:sub(2) end
local function fail(payload) error { text = payload } end

-- Values that live, beside those that earlier specs have left.
local before = 0
local function values() return core.live().values - before end

local function begin_counting()
  collectgarbage()
  collectgarbage()
  if core.live() then before = core.live().values end
end

local function most_values(drop_a_result)
  local most = 0
  for round = 1, RUNS do
    drop_a_result(round)
    most = math.max(most, values())
  end
  return most
end

local function in_mode(mode, body)
  if not MODES[2] then return body() end
  local usual = collectgarbage(mode)
  local most = body()
  collectgarbage(usual)
  return most
end

for _, mode in ipairs(MODES) do
  describe("Results that are dropped, with a collector that is " .. mode .. ",", function()
    local dag, failing
    local payload = ("x"):rep(MIB)

    before_each(function()
      begin_counting()
      local engine = util.engine(1)
      dag = assert(engine:dag(tm.dag { tm.transform("shorten", shorten) }))
      failing = assert(engine:dag(tm.dag { tm.transform("fail", { retry = { max = 1 }, run = fail }) }))
    end)
    after_each(util.cleanup)

    -- What a loop does with a result, and how many values live at most while it is repeated.
    local function they(what, drop_a_result)
      it("do not pile up when they " .. what, function()
        if not core.live() then return pending "nobody counts values in this build" end
        local most = in_mode(mode, function() return most_values(drop_a_result) end)
        assert.is_true(most < MOST_VALUES, most .. " values")
      end)
    end

    they("are returned by dag:run", function()
      assert(dag:run(payload))
    end)

    they("have stayed for a while", function(round)
      local result = assert(dag:run(payload))
      collectgarbage("step", 0)
      collectgarbage("step", 0)
      assert.equal(MIB - 1, #result.payload, round)
    end)

    they("were waited for", function()
      assert(assert(dag:start(payload)):wait())
    end)

    they("are of runs that nobody waits for", function()
      local run = assert(dag:start(payload))
      while run.status == "running" do end
    end)

    they("are errors, also of earlier attempts", function()
      local result, err = failing:run(payload)
      assert.is_nil(result)
      assert.equal(MIB, #err.cause.text)
    end)

    they("come out of a stream", function()
      local left = 2
      local function source()
        left = left - 1
        return left >= 0 and payload or nil
      end
      for _, result in dag:stream(source) do assert.is_true(result.ok) end
    end)
  end)
end

-- Results are freed in bundles.
describe("A result that is kept", function()
  after_each(util.cleanup)

  local function count(payload) return { size = #payload } end

  local function keeps_nothing_else(what, results_of)
    it("keeps no other run of " .. what, function()
      if not core.live() then return pending "nobody counts values in this build" end
      begin_counting()
      local dag = util.dag(tm.dag { tm.analyze("count", count) }, 1)
      local kept = {}
      results_of(dag, function(number, result)
        if number % 32 == 1 then kept[#kept + 1] = result end
      end)
      collectgarbage()
      collectgarbage()
      local most = 2 * (#kept + 2) -- an input and metadata of each, and of a neighbour or two
      assert.is_true(values() <= most, values() .. " values for " .. #kept .. " results")
    end)
  end

  keeps_nothing_else("dag:run", function(dag, look)
    for number = 1, 160 do look(number, dag:run(("x"):rep(MIB / 8))) end
  end)

  keeps_nothing_else("a stream", function(dag, look)
    local number = 0
    local function source()
      number = number + 1
      return number <= 160 and ("x"):rep(MIB / 8) or nil
    end
    local taken = 0
    for _, result in dag:stream(source) do
      taken = taken + 1
      look(taken, result)
    end
  end)
end)

describe("DAGs that are dropped", function()
  after_each(util.cleanup)

  it("do not pile up, though all that they hold is in workers", function()
    if not core.live() then return pending "nobody counts programs in this build" end
    local script = util.script [[
      local tm = require "tidemill"
      local big = {}
      for i = 1, 2 ^ 17 do big[i] = i end
      return tm.dag { tm.transform("big", function() return #big end) }
    ]]
    local engine = util.engine(2)
    begin_counting()
    local most, others = 0, core.live().programs
    for _ = 1, 40 do
      assert(engine:load(script))
      most = math.max(most, core.live().programs - others)
    end
    assert.is_true(most < 20, most .. " programs")
  end)
end)
