-- SPDX-License-Identifier: MIT
-- tm.engine { memory_limit = bytes }: what a worker's Lua state may use. A script that wants more fails, and
-- nobody else notices.
-- luacheck: ignore 241 (what hogs keep, nobody looks at)
local tm = require "tidemill"
local util = require "spec.support.util"

local MB = 2 ^ 20
local LIMIT = 8 * MB

describe("memory_limit", function()
  local engine

  local function open(options)
    engine = assert(tm.engine(options))
    return engine
  end

  before_each(function() open { workers = 1, memory_limit = LIMIT } end)
  after_each(function()
    engine:close()
    util.cleanup()
  end)

  local function one(run)
    return assert(engine:dag(tm.dag { tm.transform("it", run) }))
  end

  local function script(body)
    return engine:load(util.script("local tm = require 'tidemill'\n" .. body))
  end

  -- The engine goes on as if nothing had been.
  local function assert_usable()
    local dag = one(function(payload) return payload:rep(1000) end)
    for _ = 1, 5 do assert.equal(3000, #util.run(dag, "abc").payload) end
  end

  -- Each of them wants far more than there is.
  local hogs = {
    ["one long string"] = function() return #("x"):rep(1e8) end,
    ["a string that grows"] = function(text)
      while true do text = text .. text end
    end,
    ["a table that grows"] = function()
      local list = {}
      for i = 1, math.huge do list[i] = i end
    end,
    ["many small tables"] = function()
      local list = {}
      for i = 1, math.huge do list[i] = { i } end
    end,
    ["many strings"] = function()
      local list = {}
      for i = 1, math.huge do list[i] = "string number " .. i end
    end,
    ["many closures"] = function()
      local list = {}
      for i = 1, math.huge do list[i] = function() return i end end
    end,
    ["many coroutines"] = function()
      local list = {}
      for i = 1, math.huge do
        list[i] = coroutine.wrap(function() coroutine.yield(i) end)
        list[i]()
      end
    end,
    ["a collector that was stopped"] = function()
      collectgarbage "stop"
      local list = {}
      for i = 1, math.huge do list[i] = { i } end
    end,
    ["table.concat"] = function()
      local list = {}
      for i = 1, 1000 do list[i] = "a line of text that is repeated again and again and again" end
      local text = "x"
      while true do
        list[#list + 1] = text
        text = table.concat(list)
      end
    end,
  }

  for name, hog in pairs(hogs) do
    it("stops " .. name, function()
      local dag = one(hog)
      for _ = 1, 3 do
        local result, err = dag:run "payload"
        assert.is_nil(result)
        assert.equal("memory_limit", err.code)
        assert.equal("it", err.processor)
        util.assert_contains(err.message, "memory_limit", ("%d"):format(LIMIT))
        assert_usable()
      end
    end)
  end

  it("is told with what was in use", function()
    local _, err = one(hogs["many small tables"]):run "payload"
    local used = tonumber((err.message:match "(%d+) were in use"))
    assert.is_true(used > LIMIT / 4 and used <= 2 * LIMIT, err.message)
  end)

  it("counts even if the script catches the error", function()
    local dag = one(function(payload)
      local ok = pcall(string.rep, "x", 1e9)
      return payload .. tostring(ok)
    end)
    local result, err = dag:run "payload"
    assert.is_nil(result)
    assert.equal("memory_limit", err.code)
    assert_usable()
  end)

  it("does not count garbage", function()
    local dag = one(function(payload)
      for i = 1, 2000 do payload = ("%d"):format(i):rep(10000):sub(1, 5) end
      return payload
    end)
    for _ = 1, 3 do util.run(dag, "payload") end
  end)

  it("lets the next processor on the same worker run", function()
    local dag = assert(engine:dag(tm.dag {
      failure_strategy = "continue_on_error",
      tm.transform("hog", hogs["many small tables"]),
      tm.transform("fine", function() return "fine" end),
      tm.transform("hog again", hogs["one long string"]),
      tm.transform("fine again", function() return "fine again" end),
    }))
    local result, err = dag:run "payload"
    assert.same({ "hog", "hog again" }, util.ids(err.failures))
    assert.same({ ["hog"] = "failed", ["fine"] = "completed", ["hog again"] = "failed",
      ["fine again"] = "completed" }, util.statuses(result))
  end)

  it("holds for every worker by itself", function()
    engine:close()
    open { workers = 3, memory_limit = LIMIT }
    local dag = assert(engine:dag(tm.dag {
      failure_strategy = "continue_on_error",
      tm.transform("a", hogs["many small tables"]), tm.transform("b", hogs["many strings"]),
      tm.transform("c", hogs["one long string"]), tm.transform("d", function() return "d" end),
    }))
    for _ = 1, 10 do
      local result, err = dag:run "payload"
      assert.same({ "a", "b", "c" }, util.ids(err.failures))
      assert.equal("d", result.payload)
    end
  end)

  it("stops conditions", function()
    local dag = assert(engine:dag(tm.dag {
      tm.transform "it" { when = function() return #("x"):rep(1e8) end, run = function() return "ran" end },
    }))
    local _, err = dag:run "payload"
    assert.equal("memory_limit", err.code)
    assert_usable()
  end)

  it("stops a payload on its way in", function()
    local dag = one(function(payload) return payload end)
    local _, err = dag:run(("x"):rep(4 * LIMIT))
    assert.equal("memory_limit", err.code)
    assert.equal("it", err.processor)
    assert_usable()
  end)

  it("does not count values that are under way", function()
    local dag = assert(engine:dag(tm.dag {
      tm.transform("one", function() return ("1"):rep(2 ^ 21) end),
      tm.transform "two" { depends_on = "one", run = function() return ("2"):rep(2 ^ 21) end },
      tm.transform "three" { depends_on = "two", run = function() return ("3"):rep(2 ^ 21) end },
    }))
    local results = {}
    for i = 1, 8 do results[i] = util.run(dag, "") end
    assert.equal(2 ^ 21, #results[1].outcomes.two.payload)
  end)

  it("stops retry.when, whose error is that of the processor", function()
    local dag = assert(engine:dag(tm.dag {
      tm.transform "it" {
        retry = { max = 2, when = function() return ("x"):rep(1e8) end },
        run = function() return nil, "no luck" end,
      },
    }))
    local _, err = dag:run "payload"
    assert.equal("processor_failed", err.code)
    util.assert_contains(err.message, "retry.when")
    assert_usable()
  end)

  it("may be met at another attempt", function()
    local dag = assert(engine:dag(tm.dag {
      tm.transform "it" {
        retry = { max = 1 },
        run = function(_, ctx) return #("x"):rep(ctx.attempt == 1 and 1e8 or 10) end,
      },
    }))
    local result = util.run(dag, "payload")
    assert.equal(10, result.payload)
    assert.equal("memory_limit", result.outcomes.it.errors[1].code)
  end)

  it("replaces the state of a script that keeps too much", function()
    local dag = assert(script [[
      kept = {}
      return tm.dag { tm.transform("keep", function(n)
        for i = 1, n do kept[#kept + 1] = ("x"):rep(100000) .. i end
        return #kept
      end) }
    ]])
    assert.equal(5, util.run(dag, 5).payload)
    assert.equal(10, util.run(dag, 5).payload)
    local _, err = dag:run(1000)
    assert.equal("memory_limit", err.code)
    assert.equal(5, util.run(dag, 5).payload)
    assert_usable()
  end)

  it("brings every program and its state back then", function()
    local other = assert(script [[
      return tm.dag { tm.transform "add" {
        options = { by = 3 }, setup = function(options) return { by = options.by } end,
        run = function(n, ctx) return n + ctx.state.by end,
      } }
    ]])
    local inline = one(function(payload) return payload .. "!" end)
    local hog = assert(script [[
      kept = {}
      return tm.dag { tm.transform("keep", function()
        for i = 1, math.huge do kept[i] = { i } end
      end) }
    ]])
    for _ = 1, 5 do
      assert.equal("memory_limit", select(2, hog:run()).code)
      assert.equal(5, util.run(other, 2).payload)
      assert.equal("p!", util.run(inline, "p").payload)
    end
  end)

  it("brings back the text that was loaded, whatever the file says by then", function()
    local text = [[
      local tm, kept = require "tidemill", {}
      return tm.dag { tm.transform("version", function(payload)
        if payload == "grow" then for i = 1, math.huge do kept[i] = { i } end end
        return "first"
      end) }
    ]]
    local path = util.script(text)
    local dag = assert(engine:load(path))
    util.write(path, (text:gsub("first", "second")))
    assert.equal("memory_limit", select(2, dag:run "grow").code)
    assert.equal("first", util.run(dag, "").payload)
    os.remove(path)
    assert.equal("memory_limit", select(2, dag:run "grow").code)
    assert.equal("first", util.run(dag, "").payload)
  end)

  it("is an error of load when the script wants too much", function()
    for _, body in ipairs {
      "local t = {} for i = 1, math.huge do t[i] = { i } end",
      "pcall(string.rep, 'x', 1e9) return tm.dag { tm.transform('it', function(p) return p end) }",
      "return tm.dag { tm.transform 'it' { setup = function() return ('x'):rep(1e9) end, run = print } }",
      "kept = ('x'):rep(3e6) kept2 = ('y'):rep(3e6) kept3 = ('z'):rep(3e7)",
    } do
      local dag, err = script(body)
      assert.is_nil(dag)
      assert.equal("memory_limit", err.code)
      util.assert_contains(err.message, ".dag.lua", "memory_limit")
      assert_usable()
    end
  end)

  it("is an error of the engine when not even an empty state fits in", function()
    local none, err = tm.engine { workers = 1, memory_limit = 1000 }
    assert.is_nil(none)
    assert.equal("memory_limit", err.code)
    util.assert_contains(err.message, "1000 bytes", "to begin with")
  end)

  it("must be a whole number", function()
    for _, wrong in ipairs { 0, -1, 1.5, "64M", {}, true } do
      util.assert_raises_here(function() tm.engine { memory_limit = wrong } end, "memory_limit must be")
    end
  end)

  it("does not depend on the strategy", function()
    local dag = one(hogs["many strings"])
    for _, strategy in ipairs { "reactive", "work_queue", "level" } do
      local _, err = dag:run("p", { strategy = strategy })
      assert.equal("memory_limit", err.code)
    end
  end)

  it("survives many hogs at once", function()
    engine:close()
    open { workers = 2, memory_limit = LIMIT }
    local dag, runs = one(hogs["many strings"]), {}
    for i = 1, 20 do runs[i] = assert(dag:start "p") end
    for i = 1, 20 do
      local _, err = runs[i]:wait()
      assert.equal("memory_limit", err.code)
    end
    assert_usable()
  end)

  it("and a timeout may meet", function()
    local dag = one(function()
      local kept = {}
      local function fill() for i = 1, math.huge do kept[i] = { i } end end
      while true do pcall(fill) end
    end)
    for _ = 1, 3 do
      local result, err = dag:start("p", { timeout = 0.3 }):wait(30)
      assert.is_nil(result)
      assert.is_true(err.code == "timeout" or err.code == "memory_limit", err.code)
      assert_usable()
    end
  end)
end)
