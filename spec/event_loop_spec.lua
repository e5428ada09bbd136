-- SPDX-License-Identifier: MIT
-- engine:pollfd, step and pending, and the event loops of others that host an engine: cqueues, luv, luasocket.
local process = require "spec.support.process"
local tm = require "tidemill"
local util = require "spec.support.util"

local has_cqueues, cqueues = pcall(require, "cqueues")
local uv = require "spec.support.luv"
local has_socket, socket = pcall(require, "socket")

-- A DAG whose transform counts as far as its payload says.
local function counting(engine)
  return assert(engine:dag(tm.dag { tm.transform("count", function(turns)
    local sum = 0
    for i = 1, turns do sum = (sum + i) % 7 end
    return turns
  end) }))
end

-- How far that is in about a millisecond.
local function turns_of_a_millisecond()
  local turns = 10000
  repeat
    turns = turns * 2
    local began, sum = os.clock(), 0
    for i = 1, turns do sum = (sum + i) % 7 end
    local took = os.clock() - began
    if took > 0.02 then return math.floor(turns / took / 1000) end
  until false
end

-- A DAG of one transform that ends when the gate opens.
local function gated(engine)
  local gate = util.gate()
  local wait = gate.wait
  return assert(engine:dag(tm.dag { tm.transform("a", function(payload)
    wait()
    return payload
  end) })), gate
end

-- Ticks, and the longest time between two of them.
local function watch(clock)
  local last, self = nil, { ticks = 0, gap = 0 }
  function self.tick()
    local now = clock()
    self.gap = math.max(self.gap, last and now - last or 0)
    self.ticks, last = self.ticks + 1, now
  end
  return self
end

-- Each hosts an engine in its loop, with a timer beside it:
--   loop.run(engine, tick, deliver)  until nothing is pending; calls tick every millisecond if it is given
--   loop.watch(engine, seconds)      how often it was woken in that time
--   loop.clock()                     seconds
local loops = {}

if has_cqueues then
  loops.cqueues = { clock = cqueues.monotime }

  function loops.cqueues.run(engine, tick, deliver)
    local loop, done = cqueues.new(), false
    loop:wrap(function()
      while engine:pending() > 0 do
        cqueues.poll(engine)
        deliver()
      end
      done = true
    end)
    if tick then
      loop:wrap(function()
        while not done do
          cqueues.sleep(0.001)
          tick()
        end
      end)
    end
    assert(loop:loop())
  end

  function loops.cqueues.watch(engine, seconds)
    local loop, wakes = cqueues.new(), 0
    loop:wrap(function()
      local deadline = cqueues.monotime() + seconds
      repeat
        local ready = cqueues.poll(engine, math.max(0, deadline - cqueues.monotime()))
        if ready == engine then
          wakes = wakes + 1
          engine:step()
        end
      until cqueues.monotime() >= deadline
    end)
    assert(loop:loop())
    return wakes
  end
end

if uv then
  loops.luv = { clock = function() return uv.hrtime() / 1e9 end }

  function loops.luv.run(engine, tick, deliver)
    local poll, timer = uv.new_poll(engine:pollfd()), uv.new_timer()
    local failed
    poll:start("r", function()
      local ok, err = pcall(deliver) -- luv would only print it
      failed = failed or not ok and err
      if failed or engine:pending() == 0 then
        poll:stop()
        timer:stop()
      end
    end)
    if tick then timer:start(0, 1, tick) end
    if engine:pending() == 0 then poll:stop() timer:stop() end
    uv.run()
    poll:close()
    timer:close()
    uv.run()
    if failed then error(failed, 0) end
  end

  function loops.luv.watch(engine, seconds)
    local poll, timer, wakes = uv.new_poll(engine:pollfd()), uv.new_timer(), 0
    poll:start("r", function()
      wakes = wakes + 1
      engine:step()
    end)
    uv.update_time() -- or the timer counts from when the loop ran last
    timer:start(math.ceil(seconds * 1000), 0, function() poll:stop() end)
    uv.run()
    poll:close()
    timer:close()
    uv.run()
    return wakes
  end
end

if has_socket then
  loops.luasocket = { clock = socket.gettime }

  function loops.luasocket.run(engine, tick, deliver)
    local due = socket.gettime()
    while engine:pending() > 0 do
      local ready = socket.select({ engine }, nil, tick and math.max(0, due - socket.gettime()) or nil)
      if ready[engine] then deliver() end
      if tick and socket.gettime() >= due then
        tick()
        due = socket.gettime() + 0.001
      end
    end
  end

  function loops.luasocket.watch(engine, seconds)
    local deadline, wakes = socket.gettime() + seconds, 0
    repeat
      local ready = socket.select({ engine }, nil, math.max(0, deadline - socket.gettime()))
      if ready[engine] then
        wakes = wakes + 1
        engine:step()
      end
    until socket.gettime() >= deadline
    return wakes
  end
end

for _, name in ipairs { "cqueues", "luv", "luasocket" } do
  local loop = loops[name]

  describe("An engine in a loop of " .. name, function()
    after_each(util.cleanup)

    if not loop then
      return it("is not tried", function() pending(name .. " is not there for this Lua") end)
    end

    it("leaves the loop its time while 500 runs settle", function()
      local engine, called = util.engine(2), 0
      local dag, turns, seen = counting(engine), turns_of_a_millisecond(), watch(loop.clock)
      local began = loop.clock()
      for _ = 1, 500 do
        dag:start(turns, function(err)
          assert(not err, err)
          called = called + 1
        end)
      end
      loop.run(engine, seen.tick, function() engine:step() end)
      local total = loop.clock() - began
      assert.equal(500, called)
      assert.equal(0, engine:pending())
      assert.is_true(seen.ticks >= 10, seen.ticks .. " ticks")
      assert.is_true(seen.gap < total / 2, ("a gap of %.3f s in %.3f s"):format(seen.gap, total))
    end)

    it("ends the loop when nothing is pending, and at once when nothing was", function()
      local engine, order = util.engine(1), {}
      loop.run(engine, nil, function() error "called" end)
      local dag, gate = gated(engine)
      dag:start("x", function(_, result)
        order[#order + 1] = result.payload
        if #order == 1 then dag:start("y", function(_, again) order[#order + 1] = again.payload end) end
      end)
      gate.open()
      loop.run(engine, nil, function() engine:step() end)
      assert.same({ "x", "y" }, order)
    end)

    it("wakes nobody while it is idle, or runs what nobody is to be told of", function()
      local engine = util.engine(2)
      local dag = counting(engine)
      assert.equal(0, loop.watch(engine, 0.02))
      for _ = 1, 20 do dag:run(10) end
      for _ in dag:stream(string.gmatch("1 2 3 4 5 6", "%d")) do end -- luacheck: ignore 542
      local run = dag:start(10)
      run:wait()
      assert.equal(0, loop.watch(engine, 0.02))
    end)

    it("wakes once for what settled before it was asked for, and is quiet after", function()
      local engine, called = util.engine(1), 0
      local dag, runs = counting(engine), {}
      for i = 1, 20 do runs[i] = dag:start(10, function() called = called + 1 end) end
      for _, run in ipairs(runs) do run:wait() end
      assert.equal(1, loop.watch(engine, 0.02))
      assert.equal(20, called)
      assert.equal(0, loop.watch(engine, 0.02))
    end)

    it("is woken again when a callback raised and others wait", function()
      local engine, called = util.engine(1), 0
      local dag, runs = counting(engine), {}
      for i = 1, 3 do
        runs[i] = dag:start(10, function()
          called = called + 1
          if called == 1 then error("from the callback", 0) end
        end)
      end
      for _, run in ipairs(runs) do run:wait() end
      local raised = 0
      loop.run(engine, nil, function() raised = raised + (pcall(engine.step, engine) and 0 or 1) end)
      assert.same({ 3, 1 }, { called, raised })
    end)

    for _, ordered in ipairs { true, false } do
      it("is pushed into until it is full, and taken from when it is readable, "
        .. (ordered and "in order" or "in any order"), function()
        local engine, inputs, pushed = util.engine(2), {}, 0
        local stream = counting(engine):stream { max_in_flight = 7, ordered = ordered }
        local function feed()
          while pushed < 300 and stream:push((pushed * 37) % 100 * 100 + 1) do pushed = pushed + 1 end
        end
        feed()
        assert.equal(7, pushed)
        loop.run(engine, nil, function()
          engine:step()
          for input, result in stream:results(0) do
            assert.equal(input, result.payload)
            inputs[#inputs + 1] = input
          end
          feed()
        end)
        assert.equal(300, #inputs)
        for i = 1, ordered and 300 or 0 do assert.equal((i - 1) * 37 % 100 * 100 + 1, inputs[i]) end
      end)
    end
  end)
end

describe("Coroutines of cqueues", function()
  after_each(util.cleanup)

  if not has_cqueues then
    return it("are not tried", function() pending "cqueues is not there for this Lua" end)
  end

  it("wait for the engine as for a socket", function()
    local engine, loop, result = util.engine(1), cqueues.new(), nil
    local dag = counting(engine)
    loop:wrap(function()
      dag:start(10, function(_, answer) result = answer end)
      while not result do
        assert.equal(engine, cqueues.poll(engine))
        engine:step()
      end
    end)
    assert(loop:loop())
    assert.equal(10, result.payload)
  end)

  it("may yield in the callbacks of runs", function()
    local engine, loop, steps = util.engine(1), cqueues.new(), {}
    local dag = counting(engine)
    loop:wrap(function()
      for i = 1, 3 do
        dag:start(i, function(_, result)
          cqueues.sleep(0.001)
          steps[#steps + 1] = result.payload
        end)
      end
      while engine:pending() > 0 do
        cqueues.poll(engine)
        engine:step()
      end
    end)
    assert(loop:loop())
    assert.same({ 1, 2, 3 }, steps)
  end)
end)

describe("engine:pollfd", function()
  after_each(util.cleanup)

  it("is the same number each time, and engine:getfd is another name for it", function()
    local engine = util.engine(1)
    local fd = engine:pollfd()
    assert.is_true(fd > 2)
    assert.same({ fd, fd }, { engine:pollfd(), engine:getfd() })
  end)

  it("stays open until the engine is collected, so that loops can forget it in peace", function()
    local engine = tm.engine { workers = 1 }
    local fd = engine:pollfd()
    engine:close()
    assert.equal(fd, engine:pollfd())
  end)

  it("is refused without a colon, at the caller's line", function()
    local engine = util.engine(1)
    util.assert_raises_here(function() engine.pollfd() end, "tidemill.engine")
    util.assert_raises_here(function() engine.pending() end, "tidemill.engine")
  end)
end)

describe("engine:pending", function()
  after_each(util.cleanup)

  it("counts runs with a callback until they are stepped, and no others", function()
    local engine = util.engine(1)
    local dag, gate = gated(engine)
    assert.equal(0, engine:pending())
    local run, silent = dag:start("x", function() end), dag:start "y"
    assert.equal(1, engine:pending())
    gate.open()
    run:wait()
    silent:wait()
    assert.equal(1, engine:pending())
    assert.equal(1, engine:step())
    assert.equal(0, engine:pending())
  end)

  it("counts runs that are cancelled, timed out or closed until they are called back", function()
    local engine, codes = util.engine(1), {}
    local dag = gated(engine)
    local function note(err) codes[#codes + 1] = err.code end
    local run = dag:start("x", note)
    dag:start("y", { timeout = 0.001 }, note)
    local closed = dag:start("z", note)
    debug.getmetatable(closed).__close(closed) -- as a <close> variable does
    run:cancel()
    while engine:pending() > 0 do engine:step() end
    table.sort(codes)
    assert.same({ "cancelled", "cancelled", "timeout" }, codes)
  end)
end)

describe("The program", function()
  local function lines_of(script)
    local finished = process.lua { script }
    assert.equal("", finished.stderr)
    local lines = {}
    for line in finished.stdout:gmatch "[^\n]+" do lines[#lines + 1] = line end
    table.sort(lines)
    return lines
  end

  it("scripts/luv_loop.lua runs", function()
    if not uv then return pending "luv is not there for this Lua" end
    assert.same({ "500 runs, 20895937625000 in all", "the timer ticked meanwhile" }, lines_of "scripts/luv_loop.lua")
  end)

  it("scripts/cqueues_loop.lua runs", function()
    if not has_cqueues then return pending "cqueues is not there for this Lua" end
    assert.same({
      "1 + ... + 10 = 55", "1 + ... + 1000 = 500500", "1 + ... + 2000000 = 2000001000000", "the timer ticked meanwhile",
    }, lines_of "scripts/cqueues_loop.lua")
  end)
end)
