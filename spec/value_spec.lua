-- SPDX-License-Identifier: MIT
-- Values on their way into a worker and out again.
local tm = require "tidemill"
local util = require "spec.support.util"

local INFINITY = math.huge
local NAN = 0 / 0
local has_integers = math.type ~= nil

-- Into a worker and out again, by way of a transform, of the payload as it is, and of metadata.
local function assert_travels(value)
  local dag = util.dag(tm.dag {
    tm.transform("out", function(payload) return { payload } end),
    tm.analyze("tell", { depends_on = "out", run = function(payload) return { told = payload[1] } end }),
  })
  local result = util.run(dag, value)
  util.assert_identical({ value }, result.payload)
  util.assert_identical({ told = value }, result.metadata.tell)
end

local function refusal_of(value)
  local result, err = util.one(function(payload) return payload end):run(value)
  assert.is_nil(result)
  assert.equal("invalid_payload", err.code)
  return err.message
end

describe("A value travels:", function()
  after_each(util.cleanup)

  it("nil", function()
    assert.equal("nil", util.through(function(payload) return type(payload) end, nil))
  end)

  it("true", function() assert_travels(true) end)

  it("false", function() assert_travels(false) end)

  it("the empty string", function() assert_travels "" end)

  it("a string with NULs", function() assert_travels "a\0b\0" end)

  it("a string with every byte", function()
    local bytes = {}
    for byte = 0, 255 do bytes[byte + 1] = string.char(byte) end
    assert_travels(table.concat(bytes))
  end)

  it("a string of 1 MiB", function()
    local big = ("0123456789abcdef"):rep(2 ^ 16)
    local payload = util.through(function(payload) return payload end, big)
    assert.is_true(payload == big)
  end)

  it("a string of 1 MiB made by the callback", function()
    local payload = util.through(function() return ("\0x"):rep(2 ^ 19) end)
    assert.is_true(payload == ("\0x"):rep(2 ^ 19))
  end)

  it("a small number", function() assert_travels(42) end)

  it("a negative number", function() assert_travels(-7) end)

  it("a fraction", function() assert_travels(0.1) end)

  it("the largest double", function() assert_travels(1.7976931348623157e308) end)

  it("the smallest double", function() assert_travels(4.9406564584124654e-324) end)

  it("infinity", function() assert_travels(INFINITY) end)

  it("minus infinity", function() assert_travels(-INFINITY) end)

  it("NaN", function() assert_travels(NAN) end)

  it("minus zero", function() assert_travels(-1 / INFINITY) end)

  it("minus zero, as the callback sees it", function()
    assert.is_true(util.through(function(payload) return 1 / payload == -math.huge end, -1 / INFINITY))
  end)

  it("2^53 as a float", function() assert_travels(2 ^ 53) end)

  it("an empty table", function() assert_travels {} end)

  it("an array", function() assert_travels { 1, "two", false, { 4 } } end)

  it("an array with a hole", function() assert_travels { 1, nil, 3 } end)

  it("a map", function() assert_travels { name = "x", [""] = 1, ["a\0b"] = 2 } end)

  it("a table that is both", function() assert_travels { 1, 2, name = "x", [10] = "ten" } end)

  it("keys that are negative, zero or large numbers", function()
    assert_travels { [-1] = "a", [0] = "b", [2 ^ 40] = "c" }
  end)

  it("keys that are fractions", function() assert_travels { [0.5] = "a", [-1.25] = "b" } end)

  it("keys that are infinities", function() assert_travels { [INFINITY] = "a", [-INFINITY] = "b" } end)

  it("keys that are booleans", function() assert_travels { [true] = "yes", [false] = "no" } end)

  it("number keys apart from string keys of the same look", function()
    assert_travels { [1] = "number", ["1"] = "string" }
  end)

  it("a nested table", function() assert_travels { a = { b = { c = { "d" } } } } end)

  it("a table 64 levels deep", function()
    local deep = {}
    for _ = 1, 63 do deep = { deep } end
    assert_travels(deep)
  end)

  it("an array of 10000 items, in order", function()
    local list = {}
    for index = 1, 10000 do list[index] = index end
    assert_travels(list)
  end)

  it("a map of 10000 entries", function()
    local map = {}
    for index = 1, 10000 do map["key" .. index] = index end
    assert_travels(map)
  end)

  it("a table that occurs twice, without being a cycle", function()
    local shared = { "shared" }
    assert_travels { a = shared, b = shared, list = { shared, shared } }
  end)

  it("a table as a copy: the host's own is not the result's", function()
    local payload = { 1 }
    local result = util.run(util.one(function(same) return same end), payload)
    assert.are_not.equal(payload, result.payload)
  end)
end)

describe("tm.null", function()
  after_each(util.cleanup)

  it("travels alone", function()
    assert.equal(tm.null, util.through(function(payload) return payload end, tm.null))
  end)

  it("travels nested", function()
    local payload = util.through(function(payload) return payload end, { tm.null, a = { b = tm.null } })
    assert.equal(tm.null, payload[1])
    assert.equal(tm.null, payload.a.b)
  end)

  it("is the same in a worker", function()
    assert.is_true(util.through(function(payload) return payload == require("tidemill").null end, tm.null))
  end)

  it("is true, unlike nil", function()
    assert.is_true(util.through(function(payload) return payload and true or false end, tm.null))
  end)

  it("travels in metadata", function()
    local dag = util.dag(tm.dag { tm.analyze("a", function() return { none = tm.null } end) })
    assert.equal(tm.null, util.run(dag).metadata.a.none)
  end)

  it("equals cjson's", function()
    local ok, cjson = pcall(require, "cjson")
    if not ok then return pending "cjson is not installed" end
    assert.equal(cjson.null, tm.null)
  end)
end)

describe("Integers and floats", function()
  after_each(util.cleanup)

  -- Where Lua has integers, they stay apart from floats; where it has none, all numbers are floats.
  local function it_keeps(description, make)
    it(description, function()
      if not has_integers then return pending "this Lua has floats only" end
      local value = make()
      assert.equal(math.type(value), util.through(function(payload) return math.type(payload) end, value))
      assert_travels(value)
    end)
  end

  it_keeps("keep 3 an integer", function() return 3 end)

  it_keeps("keep 3.0 a float", function() return 3.0 end)

  it_keeps("keep 0 an integer", function() return 0 end)

  it_keeps("keep -0.0 a float", function() return -0.0 end)

  it_keeps("keep 2^53 + 1 exact", function() return math.tointeger(2 ^ 53) + 1 end)

  it_keeps("keep the largest integer", function() return math.maxinteger end)

  it_keeps("keep the smallest integer", function() return math.mininteger end)

  it_keeps("keep 2^63 a float", function() return 2.0 ^ 63 end)

  it("are kept apart as keys", function()
    if not has_integers then return pending "this Lua has floats only" end
    local key = math.tointeger(2 ^ 53) + 1
    assert_travels { [key] = "exact", [2 ^ 60 + 0.0] = "float" }
  end)

  it("are kept apart in metadata", function()
    if not has_integers then return pending "this Lua has floats only" end
    local dag = util.dag(tm.dag { tm.analyze("a", function() return { integer = 1, float = 1.0 } end) })
    util.assert_identical({ integer = 1, float = 1.0 }, util.run(dag).metadata.a)
  end)
end)

describe("A value that can't travel", function()
  after_each(util.cleanup)

  it("is refused as the payload of a run, with nil and an error", function()
    assert.is_string(refusal_of(print))
  end)

  it("is named as the payload itself, at the top", function()
    util.assert_contains(refusal_of(print), "payload is a function")
  end)

  it("is named by its path of names", function()
    util.assert_contains(refusal_of { a = { b = print } }, "payload.a.b is a function")
  end)

  it("is named by its path of positions", function()
    util.assert_contains(refusal_of { items = { 1, 2, { print } } }, "payload.items[3][1] is a function")
  end)

  it("is named with quotes, where a key is no name", function()
    util.assert_contains(refusal_of { ["two words"] = print }, 'payload["two words"] is a function')
  end)

  it("is named with escapes, where a key has what no message should", function()
    local refusals = {
      ["\27[31mred"] = [[payload["\27[31mred"] is a function]],
      ["a\0001"] = [[payload["a\0001"] is a function]],
      ["a\0"] = [[payload["a\0"] is a function]],
      ['"\\'] = [[payload["\"\\"] is a function]],
      ["\r\n\127"] = [[payload["\13\10\127"] is a function]],
      ["häfen"] = [[payload["häfen"] is a function]],
      [""] = [[payload[""] is a function]],
    }
    for key, message in pairs(refusals) do assert.equal(message, refusal_of { [key] = print }) end
  end)

  it("is named by the beginning of a long key, which ends with a whole character", function()
    for before = 0, 3 do
      local short = ("x"):rep(before)
      local message = refusal_of { [short .. ("€"):rep(1000)] = print }
      local rest = message:match('^payload%["' .. short .. '(.*)%.%.%."%] is a function$')
      assert.equal(("€"):rep(40 - math.floor((before + 2) / 3)), rest, message)
    end
    assert.matches('^payload%["\\1\\1[\\1]+%.%.%."%] is a function$', refusal_of { [("\1"):rep(1000)] = print })
    assert.matches("^payload%.x+%.%.%. is a function$", refusal_of { [("x"):rep(1000)] = print })
    assert.matches('^payload%["\128+%.%.%."%] is a function$', refusal_of { [("\128"):rep(1000)] = print })
  end)

  it("is named with a boolean key", function()
    util.assert_contains(refusal_of { [true] = print }, "payload[true] is a function")
  end)

  it("may be a coroutine", function()
    util.assert_contains(refusal_of { co = coroutine.create(function() end) }, "payload.co is a thread")
  end)

  it("may be a userdata", function()
    util.assert_contains(refusal_of { file = io.stdout }, "payload.file is a userdata")
  end)

  it("may be a cdata", function()
    local ok, ffi = pcall(require, "ffi")
    if not ok then return pending "this Lua has no cdata" end
    util.assert_contains(refusal_of { n = ffi.new "int[1]" }, "payload.n is a cdata")
  end)

  it("may be a table with a metatable", function()
    util.assert_contains(refusal_of { object = setmetatable({}, {}) }, "payload.object", "metatable")
  end)

  it("may be a table that hides its metatable", function()
    local shy = setmetatable({}, { __metatable = false })
    util.assert_contains(refusal_of { object = shy }, "payload.object", "metatable")
  end)

  it("is refused without calling its metamethods", function()
    local calls = 0
    local function count() calls = calls + 1 end
    refusal_of { object = setmetatable({}, { __index = count, __pairs = count, __len = count, __tostring = count }) }
    assert.equal(0, calls)
  end)

  it("may be a cycle", function()
    local payload = { child = {} }
    payload.child.parent = payload
    util.assert_contains(refusal_of(payload), "payload.child.parent", "cycle")
  end)

  it("may be a table that holds itself", function()
    local payload = {}
    payload[1] = payload
    util.assert_contains(refusal_of(payload), "payload[1]", "cycle")
  end)

  it("may be nested too deeply", function()
    local deep = {}
    for _ = 1, 100000 do deep = { deep } end
    assert.matches("deep", refusal_of(deep))
  end)

  it("may be nested too deeply in a callback's answer", function()
    local err = util.failure_of(function()
      local deep = {}
      for _ = 1, 100000 do deep = { deep } end
      return deep
    end)
    assert.equal("invalid_payload", err.code)
  end)

  it("may be a cycle in a callback's answer", function()
    local err = util.failure_of(function(payload)
      payload.self = payload
      return payload
    end, {})
    assert.equal("invalid_payload", err.code)
    util.assert_contains(err.message, "payload.self", "cycle")
  end)

  it("may be a key", function()
    util.assert_contains(refusal_of { map = { [{}] = 1 } }, "payload.map", "key", "table")
  end)

  it("may be a key that is a function", function()
    util.assert_contains(refusal_of { [print] = 1 }, "payload", "key", "function")
  end)

  it("does not start the run", function()
    local marker = util.path ".ran"
    local dag = util.one(function(payload)
      io.open(marker, "w"):close()
      return payload
    end)
    assert.is_nil((dag:run(print)))
    assert.is_nil(io.open(marker))
  end)

  it("leaves the DAG ready for the next run", function()
    local dag = util.one(function(payload) return payload end)
    assert.is_nil((dag:run { { { print } } }))
    assert.equal("fine", util.run(dag, "fine").payload)
  end)

  it("is refused in the run's input metadata, named by its path", function()
    local dag = util.one(function(payload) return payload end)
    local result, err = dag:run("p", { metadata = { source = { f = print } } })
    assert.is_nil(result)
    assert.equal("invalid_payload", err.code)
    util.assert_contains(err.message, "metadata.source.f is a function")
  end)
end)
