-- SPDX-License-Identifier: MIT
-- engine:load: every worker runs the script; whatever is wrong with it, in whichever worker, is an error of load.
local tm = require "tidemill"
local util = require "spec.support.util"

-- The error of loading a script with this text.
local function error_of(text, values, workers)
  local dag, err = util.load(text, values, workers)
  assert.is_nil(dag)
  assert.is_table(err)
  assert.is_string(err.code)
  return err
end

local function load(text, values, workers)
  local dag, err = util.load(text, values, workers)
  if not dag then error(tostring(err), 2) end
  return dag
end

local GREETING = [[
local tm = require "tidemill"
return tm.dag { name = "greeting", tm.transform("greet", function(payload) return "hello " .. payload end) }
]]

describe("A script", function()
  after_each(util.cleanup)

  it("returns a DAG, which runs", function()
    assert.equal("hello you", util.run(load(GREETING), "you").payload)
  end)

  it("gives its DAG the name that it declares", function()
    assert.equal("greeting", load(GREETING).name)
  end)

  it("may be loaded twice", function()
    local engine, path = util.engine(), util.script(GREETING)
    local first, second = assert(engine:load(path)), assert(engine:load(path))
    assert.equal("hello a", util.run(first, "a").payload)
    assert.equal("hello b", util.run(second, "b").payload)
  end)

  it("may begin with a line for the shell", function()
    assert.equal("hello you", util.run(load("#!/usr/bin/env tidemill\n" .. GREETING), "you").payload)
  end)

  it("may use its local functions and upvalues", function()
    assert.equal("<<p>>", util.run(load [[
      local tm = require "tidemill"
      local left, right = "<", ">"
      local function wrap(text) return left .. text .. right end
      return tm.dag { tm.transform("wrap", function(payload) return wrap(wrap(payload)) end) }
    ]], "p").payload)
  end)

  it("may use upvalues that no inline callback could carry", function()
    assert.equal("userdata", util.run(load [[
      local tm = require "tidemill"
      local file = io.stdout
      return tm.dag { tm.transform("type", function() return type(file) end) }
    ]], "p").payload)
  end)

  it("may require modules", function()
    local module = util.write(util.path ".lua", "return { shout = function(text) return text:upper() end }")
    local directory, name = module:match "^(.*)/(.-)%.lua$"
    assert.equal("P", util.run(load([[
      package.path = $DIRECTORY .. "/?.lua;" .. package.path
      local tm = require "tidemill"
      local module = require($NAME)
      return tm.dag { tm.transform("shout", function(payload) return module.shout(payload) end) }
    ]], { DIRECTORY = directory, NAME = name }), "p").payload)
  end)

  it("finds modules where the host finds them", function()
    local module = util.write(util.path ".lua", "return 'found'")
    local directory, name = module:match "^(.*)/(.-)%.lua$"
    local path = package.path
    finally(function() package.path = path end)
    package.path = directory .. "/?.lua;" .. path
    local dag = load([[
      local tm = require "tidemill"
      local module = require($NAME)
      return tm.dag { tm.transform("module", function() return module end) }
    ]], { NAME = name })
    assert.equal("found", util.run(dag, "p").payload)
  end)

  it("may require modules in its callbacks", function()
    assert.equal("table", util.run(load [[
      local tm = require "tidemill"
      return tm.dag { tm.transform("type", function() return type(require "tidemill") end) }
    ]], "p").payload)
  end)

  it("sets no globals of the host", function()
    load [[
      leaked_by_script = true
      return require "tidemill".dag { require "tidemill".transform("t", function(p) return p end) }
    ]]
    assert.is_nil(rawget(_G, "leaked_by_script"))
  end)

  it("sees no globals of the host", function()
    rawset(_G, "set_by_host", true)
    finally(function() rawset(_G, "set_by_host", nil) end)
    local dag = load [[
      local seen = type(set_by_host)
      local tm = require "tidemill"
      return tm.dag { tm.transform("t", function() return seen end) }
    ]]
    assert.equal("nil", util.run(dag, "p").payload)
  end)

  it("names itself in the errors of its callbacks", function()
    local _, err = load [[
      local tm = require "tidemill"
      return tm.dag { tm.transform("bad", function()
        error "boom"
      end) }
    ]]:run "p"
    assert.matches("%.dag%.lua:3: boom$", err.message)
  end)

  it("keeps its state from run to run, per worker", function()
    local dag = load([[
      local tm = require "tidemill"
      local runs = 0
      return tm.dag { tm.transform("count", function()
        runs = runs + 1
        return runs
      end) }
    ]], nil, 1)
    util.run(dag)
    assert.equal(2, util.run(dag).payload)
  end)

  it("is run once by every worker", function()
    local marker = util.path ".loads"
    load([[
      local file = io.open($MARKER, "ab")
      file:write "x"
      file:close()
      local tm = require "tidemill"
      return tm.dag { tm.transform("t", function(p) return p end) }
    ]], { MARKER = marker }, 3)
    assert.equal("xxx", util.read(marker))
  end)

  it("is the same in every worker, though the file changes meanwhile", function()
    local path = util.path ".dag.lua"
    util.write(path, ([[
      local file = io.open(%q, "wb")
      file:write "error 'another script'"
      file:close()
      local tm = require "tidemill"
      return tm.dag { tm.transform("t", function(p) return p end) }
    ]]):format(path))
    assert.equal("x", util.run(assert(util.engine(3):load(path)), "x").payload)
  end)
end)

describe("A script that can't be loaded", function()
  after_each(util.cleanup)

  it("may be missing", function()
    local dag, err = util.engine():load "/nowhere/at/all.dag.lua"
    assert.is_nil(dag)
    util.assert_contains(err.message, "/nowhere/at/all.dag.lua")
  end)

  it("may be a directory", function()
    local dag, err = util.engine():load "/"
    assert.is_nil(dag)
    assert.is_string(err.message)
  end)

  it("may be empty", function()
    assert.is_string(error_of("").message)
  end)

  it("may not parse", function()
    local err = error_of "local tm = require 'tidemill'\nreturn tm.dag {{"
    assert.matches("%.dag%.lua:2:", err.message)
  end)

  it("may raise a string while it loads", function()
    local err = error_of "\nerror 'out of luck'"
    assert.matches("%.dag%.lua:2: out of luck", err.message)
  end)

  it("has a traceback when it raises while it loads", function()
    util.assert_contains(error_of("error 'out of luck'").traceback, ".dag.lua")
  end)

  it("may raise a table while it loads", function()
    assert.is_string(error_of("error { code = 7 }").message)
  end)

  it("may raise an object whose __tostring raises while it loads", function()
    assert.is_string(error_of("error(setmetatable({}, { __tostring = function() error 'again' end }))").message)
  end)

  it("may raise nil while it loads", function()
    assert.is_string(error_of("error(nil)").message)
  end)

  it("may overflow the stack while it loads", function()
    local err = error_of "local function deeper() return 1 + deeper() end\nreturn deeper()"
    util.assert_contains(err.message, "stack overflow")
  end)

  it("may yield while it loads", function()
    assert.is_string(error_of("coroutine.yield()\nreturn 1").message)
  end)

  it("may return nothing", function()
    util.assert_contains(error_of("local tm = require 'tidemill'").message, "DAG")
  end)

  it("may return something else, and is told what", function()
    util.assert_contains(error_of("return 42").message, "number")
  end)

  it("may return a plain table", function()
    util.assert_contains(error_of("return { run = print }").message, "table")
  end)

  it("may return a processor instead of a DAG", function()
    assert.is_string(error_of("return require 'tidemill'.transform('t', print)").message)
  end)

  it("may require a module that is not there", function()
    util.assert_contains(error_of("require 'no.such.module'").message, "no.such.module")
  end)

  it("may declare a DAG with problems, which are all reported", function()
    local err = error_of [[
      local tm = require "tidemill"
      return tm.dag { tm.transform("one", {}), tm.transform("two", { depends_on = "nowhere", run = print }) }
    ]]
    assert.equal("invalid_dag", err.code)
    local text = table.concat(err.problems, "\n")
    util.assert_contains(text, "one", "run", "two", "nowhere")
  end)

  it("is named by its path", function()
    local path = util.script "return 42"
    local _, err = util.engine():load(path)
    util.assert_contains(tostring(err), path)
  end)

  it("may be bytecode, which is refused", function()
    local bytecode = string.dump(assert((loadstring or _G.load)(GREETING)))
    local dag, err = util.engine():load(util.write(util.path ".dag.lua", bytecode))
    assert.is_nil(dag)
    assert.matches("bytecode", err.message)
  end)

  it("may be bytecode behind a line for the shell, which is refused too", function()
    local bytecode = "#!/usr/bin/lua\n" .. string.dump(assert((loadstring or _G.load)(GREETING)))
    local dag, err = util.engine():load(util.write(util.path ".dag.lua", bytecode))
    assert.is_nil(dag)
    assert.is_string(err.message)
  end)

  it("leaves the engine ready for another one", function()
    local engine = util.engine()
    assert.is_nil((engine:load(util.script "error 'out of luck'")))
    assert.equal("hello you", util.run(assert(engine:load(util.script(GREETING))), "you").payload)
  end)
end)

-- os.remove of one file succeeds for exactly one of those who try, whichever worker that is.
describe("A script that behaves differently in one of the workers", function()
  after_each(util.cleanup)

  local function marker()
    return { MARKER = util.write(util.path ".marker", "x") }
  end

  it("is an error of load if it raises there", function()
    local err = error_of([[
      if os.remove($MARKER) then error "only here" end
      local tm = require "tidemill"
      return tm.dag { tm.transform("t", function(p) return p end) }
    ]], marker(), 3)
    util.assert_contains(err.message, "only here")
  end)

  it("is an error of load if it raises everywhere but there", function()
    local err = error_of([[
      if not os.remove($MARKER) then error "everywhere else" end
      local tm = require "tidemill"
      return tm.dag { tm.transform("t", function(p) return p end) }
    ]], marker(), 3)
    util.assert_contains(err.message, "everywhere else")
  end)

  it("is an error of load if it returns no DAG there", function()
    error_of([[
      if os.remove($MARKER) then return nil end
      local tm = require "tidemill"
      return tm.dag { tm.transform("t", function(p) return p end) }
    ]], marker(), 3)
  end)

  local function differing(difference)
    return ([[
      local tm = require "tidemill"
      local function keep(p) return p end
      local here = os.remove($MARKER)
      return tm.dag { failure_strategy = "best_effort", %s }
    ]]):format(difference)
  end

  for _, case in ipairs {
    { "another number of processors", [[tm.transform("a", keep), here and tm.transform("b", keep) or nil]] },
    { "another id", [[tm.transform(here and "a" or "b", keep)]] },
    { "another intent", [[here and tm.transform("a", keep) or tm.analyze("a", keep)]] },
    { "other dependencies",
      [[tm.transform("a", keep), tm.transform("b", { depends_on = here and "a" or nil, run = keep })]] },
    { "another order", [[tm.transform(here and "a" or "b", keep), tm.transform(here and "b" or "a", keep)]] },
    { "another limit", [[tm.transform("a", keep), max_concurrency = here and 1 or 2]] },
  } do
    it("is an error of load if it declares " .. case[1] .. " there", function()
      error_of(differing(case[2]), marker(), 3)
    end)
  end

  it("leaves the engine ready for another one", function()
    local engine = util.engine(3)
    local body = "if os.remove($MARKER) then error 'only here' end " .. GREETING
    assert.is_nil((engine:load(util.script(body, marker()))))
    assert.equal("hello you", util.run(assert(engine:load(util.script(GREETING))), "you").payload)
  end)
end)

describe("setup", function()
  after_each(util.cleanup)

  local SCRIPT = [[
    local tm = require "tidemill"
    return tm.dag { tm.transform("opener", { options = { marker = $MARKER }, setup = function(options) %s end,
      run = function(_, ctx) return ctx.state end }) }
  ]]

  it("makes a state that the callback finds in ctx", function()
    assert.equal("state", util.run(load(SCRIPT:format "return 'state'", { MARKER = "" }), "p").payload)
  end)

  it("is called with the options", function()
    assert.equal("here", util.run(load(SCRIPT:format "return options.marker", { MARKER = "here" }), "p").payload)
  end)

  local COUNT = "local file = io.open(options.marker, 'ab') file:write 'x' file:close() return 1"

  it("is called once per worker, when the DAG is loaded", function()
    local marker = util.path ".setups"
    load(SCRIPT:format(COUNT), { MARKER = marker }, 3)
    assert.equal("xxx", util.read(marker))
  end)

  it("is not called again by runs", function()
    local marker = util.path ".setups"
    local dag = load(SCRIPT:format(COUNT), { MARKER = marker }, 2)
    for _ = 1, 10 do util.run(dag) end
    assert.equal("xx", util.read(marker))
  end)

  it("is called once per worker for an inline DAG too", function()
    local marker = util.path ".setups"
    util.dag(tm.dag { tm.transform("opener", {
      setup = function()
        local file = io.open(marker, "ab")
        file:write "x"
        file:close()
      end,
      run = function(p) return p end,
    }) }, 3)
    assert.equal("xxx", util.read(marker))
  end)

  it("makes load fail if it raises, naming the processor", function()
    local err = error_of(SCRIPT:format "error 'no database'", { MARKER = "" })
    util.assert_contains(tostring(err), "opener", "no database")
  end)

  it("makes load fail if it raises in one worker only", function()
    local marker = util.write(util.path ".marker", "x")
    local body = SCRIPT:format "if os.remove(options.marker) then error 'no database' end"
    local err = error_of(body, { MARKER = marker }, 3)
    util.assert_contains(tostring(err), "opener", "no database")
  end)

  it("makes load fail if it raises a table", function()
    util.assert_contains(tostring(error_of(SCRIPT:format "error { code = 7 }", { MARKER = "" })), "opener")
  end)

  it("makes load fail if it returns nil and a reason", function()
    local err = error_of(SCRIPT:format "return nil, 'no database'", { MARKER = "" })
    util.assert_contains(tostring(err), "opener", "no database")
  end)

  it("makes engine:dag fail if it raises, naming the processor", function()
    local dag, err = util.engine():dag(tm.dag { tm.transform("opener", {
      setup = function() error "no database" end,
      run = function(p) return p end,
    }) })
    assert.is_nil(dag)
    util.assert_contains(tostring(err), "opener", "no database")
  end)
end)

describe("Misuse of engine:load raises at the caller's line:", function()
  after_each(util.cleanup)

  it("a path that is no string", function()
    local engine = util.engine()
    util.assert_raises_here(function() engine:load {} end)
  end)

  it("no path", function()
    local engine = util.engine()
    util.assert_raises_here(function() engine:load() end)
  end)
end)
