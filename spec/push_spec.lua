-- SPDX-License-Identifier: MIT
-- A stream to push into whose runs begin when somebody takes, with or without a descriptor to wait for.

local tm = require "tidemill"
local util = require "spec.support.util"

local function double(payload)
  return payload * 2
end

local function doubling(workers)
  return util.engine(workers):dag(tm.dag { tm.transform("double", double) })
end

describe("A stream with background = false", function()
  after_each(util.cleanup)

  it("hands back what was pushed, in order", function()
    for _, workers in ipairs { 1, 2 } do
      local stream = doubling(workers):stream { background = false, max_in_flight = 10 }
      for i = 1, 10 do assert.is_true(stream:push(i)) end
      local found = {}
      for input, result in stream:results() do found[#found + 1] = { input, result.payload } end
      assert.equal(10, #found)
      for i = 1, 10 do assert.same({ i, 2 * i }, found[i]) end
    end
  end)

  it("counts as pending what has not begun, until it is taken or the stream is closed", function()
    local engine = util.engine(2)
    local dag = engine:dag(tm.dag { tm.transform("double", double) })
    local stream = dag:stream { background = false, max_in_flight = 10 }
    for i = 1, 5 do stream:push(i) end
    assert.equal(5, engine:pending())
    stream:results()()
    assert.equal(4, engine:pending())
    stream:close()
    assert.equal(0, engine:pending())
  end)

  it("survives a finalizer that closes it while a payload is pushed", function()
    local dag, payload = doubling(1), ("7"):rep(300 * 1024)
    local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 1000)
    for _ = 1, 100 do
      local stream = dag:stream { background = false, max_in_flight = 4 }
      local function finalizer() stream:close() end
      if newproxy then getmetatable(newproxy(true)).__gc = finalizer else setmetatable({}, { __gc = finalizer }) end
      for i = 1, 4 do stream:push(payload, i) end
      stream:close()
    end
    collectgarbage("setpause", pause)
    collectgarbage("setstepmul", multiplier)
  end)

  it("has begun all once there is nothing to take", function()
    local gate, begun = util.gate(), util.path()
    local dag = util.engine(2):dag(tm.dag {
      tm.transform("wait", function(payload)
        if payload == "slow" then return gate.wait() end
        local file = io.open(begun, "a")
        file:write(payload)
        file:close()
        return payload
      end),
    })
    local stream = dag:stream { background = false, max_in_flight = 5 }
    for _, payload in ipairs { "slow", "a", "b", "c", "d" } do stream:push(payload) end
    for _ in stream:results(0) do error "slow is not done yet" end
    local deadline = os.time() + 60
    repeat until #util.read(begun) == 4 or os.time() > deadline
    assert.equal(4, #util.read(begun))
    gate.open()
    local count = 0
    for _ in stream:results() do count = count + 1 end
    assert.equal(5, count)
  end)

  it("does not hold up who takes from it for a run that is long", function()
    local gate = util.gate()
    local stream = util.engine(1):dag(tm.dag { tm.transform("wait", gate.wait) }):stream { background = false }
    for _ = 1, 3 do stream:push "x" end
    for _ in stream:results(0) do error "the gate is closed" end
    gate.open()
    assert.is_true(select(2, stream:results()()).payload)
  end)

  it("may only be without a source", function()
    util.assert_raises_here(function() doubling(1):stream(function() end, { background = false }) end, "background")
  end)

  it("is true or false", function()
    assert.error_matches(function() doubling(1):stream { background = 1 } end, "'?background'? must be true or false")
  end)
end)

describe("A stream", function()
  after_each(util.cleanup)

  it("hands back what stands for the payload, if anything does", function()
    local stream = doubling(2):stream { max_in_flight = 4 }
    local key = {}
    stream:push(1, key)
    stream:push(2)
    stream:push(3, false)
    local inputs = {}
    for input, result in stream:results() do inputs[#inputs + 1] = { input, result.payload } end
    assert.equal(key, inputs[1][1])
    assert.same({ 2, 4 }, inputs[2])
    assert.same({ false, 6 }, inputs[3])
  end)

  it("hands back the input of a run that failed", function()
    local stream = doubling(2):stream { max_in_flight = 4 }
    stream:push({}, "what stands for it")
    local input, result, err = stream:results()()
    assert.equal("what stands for it", input)
    assert.is_nil(result)
    assert.equal("double", err.processor)
  end)
end)
