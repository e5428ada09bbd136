-- SPDX-License-Identifier: MIT
-- What a callback may return and raise, and what comes of everything else.
local tm = require "tidemill"
local util = require "spec.support.util"

local failure_of, analyze_failure_of = util.failure_of, util.analyze_failure_of

local function outcome_of_transform(run, payload)
  return util.run(util.one(run), payload or "p").outcomes.it
end

local function result_of_analyze(run)
  return util.run(util.dag(tm.dag { tm.analyze("it", run) }), "p")
end

describe("A transform's callback", function()
  after_each(util.cleanup)

  it("returns the next payload", function()
    assert.equal("new", outcome_of_transform(function() return "new" end).payload)
  end)

  it("may return metadata after the payload", function()
    assert.same({ count = 2 }, outcome_of_transform(function() return "new", { count = 2 } end).metadata)
  end)

  it("may return nil as metadata, and contributes none", function()
    assert.is_nil(outcome_of_transform(function() return "new", nil end).metadata)
  end)

  it("contributes an empty table, if that is what it returns as metadata", function()
    assert.same({}, outcome_of_transform(function() return "new", {} end).metadata)
  end)

  it("may return false as payload", function()
    assert.is_false(outcome_of_transform(function() return false end).payload)
  end)

  it("may return tm.null as payload", function()
    assert.equal(tm.null, outcome_of_transform(function() return tm.null end).payload)
  end)

  it("may return the payload it was given", function()
    local outcome = outcome_of_transform(function(payload) return payload end, { 1, { 2 } })
    util.assert_identical({ 1, { 2 } }, outcome.payload)
  end)

  it("fails with invalid_response if it returns nothing", function()
    assert.equal("invalid_response", failure_of(function() end).code)
  end)

  it("fails with invalid_response if it returns nil", function()
    assert.equal("invalid_response", failure_of(function() return nil end).code)
  end)

  it("is named by that error", function()
    assert.equal("it", failure_of(function() end).processor)
  end)

  it("fails with invalid_response if its metadata is no table", function()
    assert.equal("invalid_response", failure_of(function() return "new", "meta" end).code)
  end)

  it("is told what its metadata was instead of a table", function()
    util.assert_contains(failure_of(function() return "new", 12 end).message, "metadata", "number")
  end)

  it("is reminded that gsub returns two values", function()
    util.assert_contains(failure_of(function(payload) return payload:gsub("p", "q") end, "p").message, "gsub")
  end)

  it("fails with invalid_response if it returns more than two values", function()
    assert.equal("invalid_response", failure_of(function() return "new", {}, "more" end).code)
  end)

  it("fails with invalid_response for a third value that is nil", function()
    assert.equal("invalid_response", failure_of(function() return "new", {}, nil end).code)
  end)

  it("fails with invalid_payload if the payload can't travel", function()
    assert.equal("invalid_payload", failure_of(function() return print end).code)
  end)

  it("is told what can't travel in the payload, and where", function()
    local err = failure_of(function() return { items = { 1, 2, print } } end)
    util.assert_contains(err.message, "payload.items[3] is a function")
  end)

  it("fails with invalid_payload if its metadata can't travel", function()
    assert.equal("invalid_payload", failure_of(function() return "new", { f = print } end).code)
  end)

  it("is told what can't travel in the metadata, and where", function()
    util.assert_contains(failure_of(function() return "new", { f = print } end).message, "metadata.it.f is a function")
  end)

  it("fails with processor_failed if it returns nil and a reason", function()
    local err = failure_of(function() return nil, "why" end)
    assert.equal("processor_failed", err.code)
    assert.equal("why", err.message)
  end)
end)

describe("An analyze's callback", function()
  after_each(util.cleanup)

  it("returns metadata", function()
    assert.same({ count = 1 }, result_of_analyze(function() return { count = 1 } end).metadata.it)
  end)

  it("has its metadata in its outcome too", function()
    assert.same({ count = 1 }, result_of_analyze(function() return { count = 1 } end).outcomes.it.metadata)
  end)

  it("may return nothing, and contributes no metadata", function()
    local result = result_of_analyze(function() end)
    assert.equal("completed", result.outcomes.it.status)
    assert.is_nil(result.metadata.it)
  end)

  it("may return nil, and contributes no metadata", function()
    local result = result_of_analyze(function() return nil end)
    assert.equal("completed", result.outcomes.it.status)
    assert.is_nil(result.metadata.it)
  end)

  it("never changes the payload", function()
    assert.equal("p", result_of_analyze(function() return { payload = "changed" } end).payload)
  end)

  it("fails with invalid_response if it returns something else than a table", function()
    assert.equal("invalid_response", analyze_failure_of(function() return "text" end).code)
  end)

  it("fails with invalid_response if it returns a boolean", function()
    assert.equal("invalid_response", analyze_failure_of(function() return false end).code)
  end)

  it("fails with invalid_response if it returns a payload before the metadata", function()
    assert.equal("invalid_response", analyze_failure_of(function() return "payload", {} end).code)
  end)

  it("fails with invalid_response if it returns more than one value", function()
    assert.equal("invalid_response", analyze_failure_of(function() return {}, "more" end).code)
  end)

  it("fails with invalid_payload if its metadata can't travel", function()
    local err = analyze_failure_of(function() return { deep = { f = print } } end)
    assert.equal("invalid_payload", err.code)
    util.assert_contains(err.message, "metadata.it.deep.f is a function")
  end)

  it("fails with processor_failed if it returns nil and a reason", function()
    local err = analyze_failure_of(function() return nil, "why" end)
    assert.equal("processor_failed", err.code)
    assert.equal("why", err.message)
  end)
end)

describe("A callback that raises", function()
  after_each(util.cleanup)

  it("fails with processor_failed", function()
    assert.equal("processor_failed", failure_of(function() error "boom" end).code)
  end)

  it("has its string as the message", function()
    assert.equal("boom", failure_of(function() error("boom", 0) end).message)
  end)

  it("has the position that Lua adds to the string", function()
    assert.matches("callback_spec.lua:%d+: boom$", failure_of(function() error "boom" end).message)
  end)

  it("keeps bytes that are no text", function()
    assert.equal("a\0b\255", failure_of(function() error("a\0b\255", 0) end).message)
  end)

  it("has a traceback that shows the function that raised", function()
    local function inner() error "boom" end
    local err = failure_of(function()
      inner()
      return "unreached"
    end)
    util.assert_contains(err.traceback, "inner")
  end)

  it("has a traceback for errors that Lua raises itself", function()
    local err = failure_of(function(payload) return payload.missing.field end, {})
    util.assert_contains(err.message, "index")
    util.assert_contains(err.traceback, "callback_spec.lua")
  end)

  it("has a number as text", function()
    assert.matches("42$", failure_of(function() error(42) end).message)
  end)

  it("may raise nil", function()
    local err = failure_of(function() error(nil) end)
    assert.equal("processor_failed", err.code)
    assert.is_string(err.message)
  end)

  it("may raise a boolean", function()
    util.assert_contains(failure_of(function() error(false) end).message, "false")
  end)

  it("may raise a function", function()
    local err = failure_of(function() error(print) end)
    assert.equal("processor_failed", err.code)
    assert.is_nil(err.cause)
  end)

  it("has a table that it raised as the cause", function()
    util.assert_identical(
      { code = 7, list = { "a", { b = true } } },
      failure_of(function() error { code = 7, list = { "a", { b = true } } } end).cause
    )
  end)

  it("has a traceback for a table too", function()
    assert.is_string(failure_of(function() error { code = 7 } end).traceback)
  end)

  it("has no cause for a string", function()
    assert.is_nil(failure_of(function() error "boom" end).cause)
  end)

  it("has no cause for a table that can't travel", function()
    local err = failure_of(function() error { f = print } end)
    assert.equal("processor_failed", err.code)
    assert.is_nil(err.cause)
  end)

  it("has a message without an address for a table, so that equal runs have equal errors", function()
    assert.not_matches("0x%x+", failure_of(function() error { code = 7 } end).message)
  end)

  it("has the text of an object with __tostring as the message", function()
    local err = failure_of(function()
      error(setmetatable({}, { __tostring = function() return "custom text" end }))
    end)
    assert.equal("custom text", err.message)
  end)

  it("may raise an object whose __tostring raises", function()
    local err = failure_of(function()
      error(setmetatable({}, { __tostring = function() error "again" end }))
    end)
    assert.equal("processor_failed", err.code)
    assert.is_string(err.message)
  end)

  it("may raise an object whose __tostring returns no string", function()
    local err = failure_of(function()
      error(setmetatable({}, { __tostring = function() return {} end }))
    end)
    assert.equal("processor_failed", err.code)
    assert.is_string(err.message)
  end)

  it("may raise an object whose __tostring never ends its recursion", function()
    local err = failure_of(function()
      local object = setmetatable({}, { __tostring = function(self) return "x" .. tostring(self) end })
      error(object)
    end)
    assert.equal("processor_failed", err.code)
  end)

  it("may raise an object with a hostile __index, __len and __pairs", function()
    local err = failure_of(function()
      local function refuse() error "leave me alone" end
      error(setmetatable({}, { __index = refuse, __len = refuse, __pairs = refuse, __name = {} }))
    end)
    assert.equal("processor_failed", err.code)
  end)

  it("may catch its own errors", function()
    assert.equal("caught", util.through(function()
      local ok = pcall(error, "boom")
      return ok and "not raised" or "caught"
    end))
  end)

  it("does no harm to the worker: the next run works", function()
    local dag = util.one(function(payload)
      if payload == "raise" then error(setmetatable({}, { __tostring = error })) end
      return payload
    end, 1)
    for _ = 1, 50 do
      assert.is_nil((dag:run "raise"))
      assert.equal("fine", util.run(dag, "fine").payload)
    end
  end)
end)

describe("A callback without an end", function()
  after_each(util.cleanup)

  it("fails when it overflows the Lua stack", function()
    local err = failure_of(function()
      local function deeper(n) return 1 + deeper(n + 1) end
      return deeper(1)
    end)
    assert.equal("processor_failed", err.code)
    util.assert_contains(err.message, "stack overflow")
  end)

  it("has a traceback of a stack overflow that can be read", function()
    local err = failure_of(function()
      local function deeper(n) return 1 + deeper(n + 1) end
      return deeper(1)
    end)
    assert.is_true(#err.traceback < 10000)
  end)

  it("fails when it overflows the C stack", function()
    -- LuaJIT bounds nested calls from C by their number, not by their size, and crashes without any help of ours.
    if jit then return pending "LuaJIT itself crashes" end
    local err = failure_of(function()
      local function deeper() return (("x"):gsub("x", deeper)) end
      return deeper()
    end)
    assert.equal("processor_failed", err.code)
    util.assert_contains(err.message, "overflow")
  end)

  it("does no harm to the worker: the next run works", function()
    local dag = util.one(function(payload)
      local function deeper(n) return 1 + deeper(n + 1) end
      return payload == "overflow" and deeper(1) or payload
    end, 1)
    for _ = 1, 3 do
      assert.is_nil((dag:run "overflow"))
      assert.equal("fine", util.run(dag, "fine").payload)
    end
  end)
end)

describe("A callback and coroutines", function()
  after_each(util.cleanup)

  it("may use coroutines", function()
    assert.equal("1,2,3", util.through(function()
      local parts = {}
      for n in coroutine.wrap(function() for n = 1, 3 do coroutine.yield(n) end end) do parts[#parts + 1] = n end
      return table.concat(parts, ",")
    end))
  end)

  it("may leave a coroutine suspended", function()
    assert.equal(1, util.through(function()
      local _, first = coroutine.resume(coroutine.create(function() coroutine.yield(1) end))
      return first
    end))
  end)

  it("may touch ctx inside a coroutine", function()
    assert.equal("it", util.through(function(_, ctx)
      return coroutine.wrap(function() return ctx.id end)()
    end))
  end)

  it("fails with the error of a coroutine that it wrapped", function()
    local err = failure_of(function()
      coroutine.wrap(function() error("inside", 0) end)()
      return "unreached"
    end)
    util.assert_contains(err.message, "inside")
  end)

  it("fails if it yields outside a coroutine", function()
    local err = failure_of(function()
      coroutine.yield "away"
      return "unreached"
    end)
    assert.equal("processor_failed", err.code)
    util.assert_contains(err.message, "yield")
  end)

  it("works in a run that was started inside a coroutine of the host", function()
    local dag = util.one(function(payload) return payload .. "!" end)
    assert.equal("p!", coroutine.wrap(function() return util.run(dag, "p").payload end)())
  end)

  it("fails properly in a run that was started inside a coroutine of the host", function()
    local dag = util.one(function() error("boom", 0) end)
    local _, err = coroutine.wrap(function() return dag:run "p" end)()
    assert.equal("boom", err.message)
  end)
end)
