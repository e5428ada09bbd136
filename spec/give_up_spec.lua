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

  describe("while its worker loads all scripts again,", function()
    local paths, dags

    -- The script says that it is being loaded and waits until it may go on, but not for ever.
    local SLOW = [[
      local tm = require "tidemill"
      local function exists(path) local file = io.open(path) return file and file:close() end
      if exists($HOLD) then
        assert(io.open($BEGUN, "w")):close()
        local late = os.time() + 20
        while exists($HOLD) and os.time() < late do os.execute "sleep 0.01" end
        if exists($HOLD) then assert(io.open($LATE, "w")):close() end
      end
      return tm.dag { tm.transform("slow", function(payload) return payload end) }
    ]]

    local function lose_a_worker(workers)
      engine = assert(tm.engine { workers = workers, kill_grace = 0.1 })
      paths = { HOLD = util.path ".hold", BEGUN = util.path ".begun", LATE = util.path ".late" }
      dags = {}
      dags.slow = assert(engine:load(util.script(SLOW, paths)))
      dags.spins = assert(engine:dag(tm.dag { tm.transform("spins", function() while true do end end) }))
      dags.counts = assert(engine:dag(tm.dag { tm.transform("counts", function()
        local programs = 0
        for _ in pairs(require "tidemill.worker".programs) do programs = programs + 1 end
        return programs
      end) }))
      local blocks = assert(engine:dag(tm.dag { blocked() }))
      util.write(paths.HOLD, "")
      local _, err = blocks:start("p", { timeout = 0.02 }):wait(5)
      assert.equal("timeout", err.code)
      util.await(paths.BEGUN)
    end

    after_each(function() os.remove(paths.HOLD) end) -- closing waits for the script

    it("timeouts hold", function()
      engine:close()
      lose_a_worker(2)
      local _, err = dags.spins:start("p", { timeout = 0.02 }):wait(30)
      assert.equal("timeout", err.code)
      assert.is_false(util.exists(paths.LATE))
    end)

    it("a DAG can go, and is not kept there", function()
      engine:close()
      lose_a_worker(1)
      dags.slow, dags.spins = nil, nil
      for _ = 1, 4 do collectgarbage() end
      assert.is_false(util.exists(paths.LATE))
      os.remove(paths.HOLD)
      assert.equal(1, assert(dags.counts:start("p"):wait(30)).payload) -- itself
    end)

    it("another one can come", function()
      engine:close()
      lose_a_worker(2)
      os.remove(paths.HOLD)
      for i = 1, 5 do
        local dag = assert(engine:load(util.script [[
          local tm = require "tidemill"
          return tm.dag { tm.transform("mark", function(payload) return payload .. "!" end) }
        ]]))
        for _ = 1, 10 do assert.equal(i .. "!", assert(dag:start(tostring(i)):wait(30)).payload) end
      end
    end)
  end)

  it("leaves a DAG that cannot be loaded again to say why, until it can", function()
    engine:close()
    engine = assert(tm.engine { workers = 1, kill_grace = 0.1 })
    local needed = util.write(util.path ".txt", "there")
    local dag = assert(engine:load(util.script([[
      local tm = require "tidemill"
      assert(io.open($NEEDED), "the file that it needs is not there"):close()
      return tm.dag {
        tm.transform("it", {
          timeout = 0.02,
          run = function(payload)
            if payload == "block" then os.execute "sleep 1" end
            return payload
          end,
        }),
      }
    ]], { NEEDED = needed })))
    os.remove(needed)
    local _, err = dag:start("block"):wait(30)
    assert.equal("timeout", err.code)
    _, err = dag:start("p"):wait(30)
    util.assert_contains(err.message, "could not be loaded again", "the file that it needs is not there")
    util.write(needed, "there again")
    local deadline, result = os.time() + 30
    repeat result = dag:start("p"):wait(30) until result or os.time() > deadline
    assert.equal("p", assert(result).payload)
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
