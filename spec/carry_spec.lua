-- SPDX-License-Identifier: MIT
-- Inline callbacks: what they take along into the workers, and what they can't.
local tm = require "tidemill"
local sample = require "spec.support.sample"
local util = require "spec.support.util"

local through = util.through
local load_text = loadstring or load

local function tell(id, depends_on, run)
  return tm.analyze(id, { depends_on = depends_on, run = run })
end

describe("An inline callback takes along", function()
  after_each(util.cleanup)

  it("upvalues that are strings", function()
    local suffix = "!\0!"
    assert.equal("p!\0!", through(function(payload) return payload .. suffix end, "p"))
  end)

  it("upvalues that are numbers", function()
    local half, three = 0.5, 3
    util.assert_identical({ 0.5, 3 }, through(function() return { half, three } end))
  end)

  it("upvalues that are booleans", function()
    local yes, no = true, false
    util.assert_identical({ true, false }, through(function() return { yes, no } end))
  end)

  it("upvalues that are nil", function()
    local nothing = nil
    assert.equal("nil", through(function() return type(nothing) end))
  end)

  it("upvalues that are tables", function()
    local words = { "a", { deep = { true } }, [0.5] = "half" }
    util.assert_identical(words, through(function() return words end))
  end)

  it("upvalues that are tm.null", function()
    local null = tm.null
    assert.equal(tm.null, through(function() return null end))
  end)

  it("more upvalues than one can see at a glance", function()
    local a, b, c, d, e, f, g, h, i, j = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
    util.assert_identical(55, through(function() return a + b + c + d + e + f + g + h + i + j end))
  end)

  it("its functions", function()
    local function shout(text) return text:upper() end
    assert.equal("P", through(function(payload) return shout(payload) end, "p"))
  end)

  it("the functions of its functions, with their upvalues", function()
    local mark = "*"
    local function once(text) return mark .. text end
    local function twice(text) return once(once(text)) end
    assert.equal("**p", through(function(payload) return twice(payload) end, "p"))
  end)

  it("functions made by a function, each with its own upvalue", function()
    local function adder(n) return function(m) return m + n end end
    local one, ten = adder(1), adder(10)
    util.assert_identical(11, through(function(payload) return ten(one(payload)) end, 0))
  end)

  it("recursive functions", function()
    local function factorial(n) return n == 0 and 1 or n * factorial(n - 1) end
    util.assert_identical(120, through(function(payload) return factorial(payload) end, 5))
  end)

  it("functions that call each other", function()
    local is_odd
    local function is_even(n) return n == 0 or is_odd(n - 1) end
    function is_odd(n) return n ~= 0 and is_even(n - 1) end
    assert.is_true(through(function(payload) return is_even(payload) end, 10))
  end)

  it("tables with functions", function()
    local operations = { double = function(n) return n * 2 end, list = { function(n) return n + 1 end } }
    util.assert_identical(7, through(function(payload) return operations.list[1](operations.double(payload)) end, 3))
  end)

  it("a table whose functions refer to the table itself", function()
    local library = {}
    function library.inner(text) return "<" .. text .. ">" end
    function library.outer(text) return library.inner(library.inner(text)) end
    assert.equal("<<p>>", through(function(payload) return library.outer(payload) end, "p"))
  end)

  it("a vararg function", function()
    local function count(...) return select("#", ...) end
    util.assert_identical(3, through(function() return count(nil, nil, nil) end))
  end)

  it("standard functions by their name", function()
    local upper, concat, floor = string.upper, table.concat, math.floor
    assert.equal("A-7", through(function() return concat({ upper "a", floor(7.5) }, "-") end))
  end)

  it("standard functions that act on its own state", function()
    local require_module = require
    assert.is_true(through(function() return require_module "string" == string end))
  end)

  it("standard libraries", function()
    local text, numbers = string, math
    util.assert_identical({ "xx", 3 }, through(function() return { text.rep("x", 2), numbers.max(1, 3) } end))
  end)

  it("standard functions inside of tables", function()
    local operations = { upper = string.upper }
    assert.equal("P", through(function(payload) return operations.upper(payload) end, "p"))
  end)

  it("modules, which the worker requires", function()
    assert.equal("hello p", through(function(payload) return sample.greet(payload) end, "p"))
  end)

  it("the tidemill module itself", function()
    assert.is_true(through(function(payload) return payload == tm.null end, tm.null))
  end)

  it("modules inside of tables", function()
    local kit = { sample = sample }
    assert.equal("hello p", through(function(payload) return kit.sample.greet(payload) end, "p"))
  end)

  it("itself, if it is a standard function", function()
    assert.equal("P", through(string.upper, "p"))
  end)

  it("its name and lines, for errors", function()
    local err = util.failure_of(function() error "here" end)
    assert.matches("carry_spec.lua:%d+: here", err.message)
  end)
end)

describe("What several callbacks of a DAG have in common", function()
  after_each(util.cleanup)

  it("is one upvalue, if it was one", function()
    local counter = 0
    local result = util.run(util.dag(tm.dag {
      tell("a", nil, function() counter = counter + 1 end),
      tell("b", "a", function() counter = counter + 10 end),
      tell("c", "b", function() return { counter = counter } end),
    }, 1))
    util.assert_identical(11, result.metadata.c.counter)
  end)

  it("is one upvalue, if a function of each refers to it", function()
    local counter = 0
    local function increment() counter = counter + 1 end
    local function read() return counter end
    local result = util.run(util.dag(tm.dag {
      tell("a", nil, function() increment() end),
      tell("b", "a", function() return { counter = read() } end),
    }, 1))
    util.assert_identical(1, result.metadata.b.counter)
  end)

  it("is one table, if it was one, even by different upvalues", function()
    local first = { n = 0 }
    local second = { inner = first }
    local result = util.run(util.dag(tm.dag {
      tell("a", nil, function() first.n = 7 end),
      tell("b", "a", function() return { n = second.inner.n } end),
    }, 1))
    util.assert_identical(7, result.metadata.b.n)
  end)

  it("is one function, if it was one", function()
    local function shared() end
    local list = { shared }
    local result = util.run(util.dag(tm.dag {
      tell("a", nil, function() return { same = list[1] == shared } end),
    }, 1))
    assert.is_true(result.metadata.a.same)
  end)

  it("is packed once, however many use it", function()
    local dump, dumped = string.dump, 0
    string.dump = function(...) -- luacheck: ignore 122
      dumped = dumped + 1
      return dump(...)
    end
    finally(function() string.dump = dump end) -- luacheck: ignore 122
    local function when() return true end
    local function pass(payload) return payload end
    local declaration = {}
    for i = 1, 100 do declaration[i] = tm.transform("p" .. i, { when = when, run = pass }) end
    assert.equal("p", util.run(util.dag(tm.dag(declaration)), "p").payload)
    assert.equal(2, dumped)
  end)

  it("is not mixed up where two upvalues have the same name", function()
    local function named(value)
      local name = value
      return function() return { name = name } end
    end
    local result = util.run(util.dag(tm.dag { tm.analyze("a", named "x"), tm.analyze("b", named "y") }))
    assert.same({ a = { name = "x" }, b = { name = "y" } }, result.metadata)
  end)

  it("is shared by the setup of a processor and its run", function()
    local opened = 0
    local dag = util.dag(tm.dag { tm.transform("it", {
      setup = function() opened = opened + 1 end,
      run = function() return opened end,
    }) }, 1)
    util.assert_identical(1, util.run(dag).payload)
  end)

  it("is not shared with another DAG", function()
    local counter = 0
    local function count()
      counter = counter + 1
      return counter
    end
    local engine = util.engine(1)
    local first = assert(engine:dag(tm.dag { tm.transform("it", count) }))
    local second = assert(engine:dag(tm.dag { tm.transform("it", count) }))
    util.run(first)
    util.assert_identical(1, util.run(second).payload)
  end)
end)

describe("The globals of an inline callback", function()
  after_each(util.cleanup)

  it("are the worker's standard ones", function()
    assert.equal("P1", through(function(payload) return string.upper(payload) .. tostring(math.abs(-1)) end, "p"))
  end)

  it("are the worker's for the functions that it takes along", function()
    local function shout(text) return string.upper(text) end
    assert.equal("P", through(function(payload) return shout(payload) end, "p"))
  end)

  it("are not the host's", function()
    rawset(_G, "set_by_host", true)
    finally(function() rawset(_G, "set_by_host", nil) end)
    assert.equal("nil", through(function() return type(set_by_host) end)) -- luacheck: ignore
  end)

  it("do not reach the host", function()
    through(function() leaked_by_callback = true return 1 end) -- luacheck: ignore
    assert.is_nil(rawget(_G, "leaked_by_callback"))
  end)

  it("are the worker's behind an upvalue that is _G", function()
    local globals = _G
    assert.is_true(through(function() return globals == _G and globals.string == string end))
  end)

  it("are the worker's, whatever environment the function had in the host", function()
    local environment = setmetatable({}, { __index = _G })
    local run
    if setfenv then
      run = setfenv(assert(load_text "return function(payload) return type(payload) end"), environment)()
    else
      run = load("return function(payload) return type(payload) end", "=text", "t", environment)()
    end
    assert.equal("string", through(run, "p"))
  end)
end)

describe("A callback's copy", function()
  after_each(util.cleanup)

  it("does not see later changes of the host's upvalues", function()
    local greeting = "hello"
    local dag = util.one(function(payload) return greeting .. " " .. payload end)
    greeting = "bye"
    assert.equal("hello p", util.run(dag, "p").payload)
    assert.equal("bye", greeting)
  end)

  it("does not see later changes of the host's tables", function()
    local words = { "hello" }
    local dag = util.one(function() return words[1] end)
    words[1] = "bye"
    assert.equal("hello", util.run(dag).payload)
  end)

  it("does not change the host's upvalues", function()
    local count = 0
    through(function()
      count = count + 1
      return count
    end)
    assert.equal(0, count)
  end)

  it("does not change the host's tables", function()
    local words = { "hello" }
    through(function()
      words[1] = "bye"
      return words
    end)
    assert.same({ "hello" }, words)
  end)

  it("lives on from run to run, per worker", function()
    local count = 0
    local dag = util.one(function()
      count = count + 1
      return count
    end, 1)
    util.run(dag)
    util.assert_identical(2, util.run(dag).payload)
  end)
end)

describe("An upvalue that can't travel", function()
  after_each(util.cleanup)

  -- Asserts a problem of a DAG whose processor "opener" has this callback.
  local function assert_stays(run, ...)
    util.assert_problem(tm.dag { tm.transform("opener", run) }, "opener", ...)
  end

  it("may be a userdata", function()
    local db = io.stdout
    assert_stays(function() return db end, "db", "userdata")
  end)

  it("makes engine:dag suggest a script", function()
    local db = io.stdout
    assert_stays(function() return db end, "script")
  end)

  it("may be a coroutine", function()
    local worker = coroutine.create(function() end)
    assert_stays(function() return worker end, "worker", "thread")
  end)

  it("may be a C function without a name", function()
    local next_word = coroutine.wrap(function() end)
    assert_stays(function() return next_word() end, "next_word", "function")
  end)

  it("may be a table with a metatable", function()
    local object = setmetatable({}, { __index = {} })
    assert_stays(function() return object end, "object", "metatable")
  end)

  it("may be deep inside of a table, whose path is named", function()
    local db = { conn = { sock = io.stdout } }
    assert_stays(function() return db end, "db", "conn.sock", "userdata")
  end)

  it("may be a position of a list, whose path is named", function()
    local files = { { io.stdout } }
    assert_stays(function() return files end, "files", "[1][1]", "userdata")
  end)

  it("may be a function's upvalue", function()
    local db = io.stdout
    local function query() return db end
    assert_stays(function() return query() end, "db", "userdata")
  end)

  it("may be the upvalue of a function in a table", function()
    local db = io.stdout
    local queries = { first = function() return db end }
    assert_stays(function() return queries.first() end, "queries", "db", "userdata")
  end)

  it("may be a key of a table", function()
    local files = { [io.stdout] = true }
    assert_stays(function() return files end, "files", "key", "userdata")
  end)

  it("may be one of setup", function()
    local db = io.stdout
    util.assert_problem(tm.dag { tm.transform("opener", {
      setup = function() return db end,
      run = function(p) return p end,
    }) }, "opener", "setup", "db", "userdata")
  end)

  it("may be the callback itself, if that is a C function without a name", function()
    assert_stays(coroutine.wrap(function() end), "run", "function")
  end)

  it("is reported for each processor that has it", function()
    local db = io.stdout
    local function query() return db end
    local declaration = tm.dag { tm.transform("one", query), tm.transform("two", query) }
    util.assert_problem(declaration, "one", "db", "userdata")
    util.assert_problem(declaration, "two", "db", "userdata")
  end)

  it("is reported together with all others", function()
    local db, co = io.stdout, coroutine.create(function() end)
    local declaration = tm.dag {
      tm.transform("one", function() return db, co end),
      tm.transform("two", function() return co end),
      tm.transform("three", { depends_on = "nowhere", run = function(p) return p end }),
    }
    util.assert_problem(declaration, "one", "db", "userdata")
    util.assert_problem(declaration, "one", "co", "thread")
    util.assert_problem(declaration, "two", "co", "thread")
    util.assert_problem(declaration, "three", "nowhere")
  end)

  it("does not keep the engine from taking another DAG", function()
    local engine, db = util.engine(), io.stdout
    assert.is_nil((engine:dag(tm.dag { tm.transform("it", function() return db end) })))
    local dag = assert(engine:dag(tm.dag { tm.transform("it", function(p) return p end) }))
    assert.equal("p", util.run(dag, "p").payload)
  end)
end)
