-- SPDX-License-Identifier: MIT
-- The last resort: a callback that cannot be stopped is given up with its thread, and its worker is
-- replaced. (Only on the engine's own threads: the one that calls dag:run cannot be taken from its host.)
local tm = require "tidemill"
local util = require "spec.support.util"

-- Signals, and with them this, are off under the thread sanitizer.
local under_tsan = package.cpath:find("tsan", 1, true) ~= nil

describe("A callback that cannot be stopped", function()
  if under_tsan then return pending "needs preempt = \"signal\"" end

  local engine

  before_each(function() engine = assert(tm.engine { workers = 2, kill_grace = 0.1 }) end)
  after_each(function()
    engine:close()
    util.cleanup()
  end)

  -- Blocks in C, where no hook is looked at.
  local function blocked()
    return tm.transform("blocked", function(payload)
      os.execute "sleep 1"
      return payload
    end)
  end

  local function outcome_of(declaration, options)
    local run = assert(engine:dag(tm.dag(declaration))):start("p", options)
    return run:wait(0.9)
  end

  it("fails by its own timeout while it still runs", function()
    local processor = blocked()
    processor.body.timeout = 0.02
    local result, err = outcome_of { processor }
    assert.is_nil(result)
    assert.equal("timeout", err.code)
    assert.equal("blocked", err.processor)
  end)

  it("is cancelled by the timeout of its run while it still runs", function()
    local result, err = outcome_of({ blocked() }, { timeout = 0.02 })
    assert.is_nil(result)
    assert.equal("timeout", err.code)
    assert.equal("cancelled", err.result.outcomes.blocked.status)
  end)

  it("leaves the engine with as many workers as before, which know every DAG", function()
    local other = assert(engine:dag(tm.dag { tm.transform("mark", function(p) return p .. "!" end) }))
    for _ = 1, 3 do outcome_of({ blocked() }, { timeout = 0.02 }) end
    for i = 1, 50 do
      local run = other:start(tostring(i))
      assert.equal(i .. "!", assert(run:wait(5)).payload)
    end
  end)

  it("may return late: that changes nothing", function()
    local run = assert(engine:dag(tm.dag { blocked() })):start("p", { timeout = 0.02 })
    local _, err = run:wait(0.9)
    os.execute "sleep 1.2"
    assert.equal("cancelled", run.status)
    assert.equal("timeout", err.code)
    assert.is_nil(err.result.outcomes.blocked.payload)
  end)

  it("may return when the engine is gone", function()
    do
      local run = assert(engine:dag(tm.dag { blocked() })):start("p", { timeout = 0.02 })
      run:wait(0.9)
    end
    engine:close()
    engine = assert(tm.engine { workers = 1 })
    for _ = 1, 4 do collectgarbage() end
    os.execute "sleep 1.2"
    assert.equal(1, #engine:dag(tm.dag { tm.transform("it", function(p) return p end) }).processors)
  end)

  it("may be a loop that LuaJIT has compiled", function()
    if not rawget(_G, "jit") then return pending "this Lua compiles nothing" end
    local result, err = outcome_of({ tm.transform("spins", function(payload)
      local n = 0
      for i = 1, 3e9 do n = n + i % 7 end
      return payload .. n
    end) }, { timeout = 0.02 })
    assert.is_nil(result)
    assert.equal("timeout", err.code)
  end)
end)
