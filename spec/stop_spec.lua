-- SPDX-License-Identifier: MIT
-- Stopping callbacks that run: whoever is told to stop does, whatever it tries, and nobody else notices.
local tm = require "tidemill"
local stubborn = require "spec.support.stubborn"
local util = require "spec.support.util"

local PATIENCE = 6 -- seconds after which a callback gives up by itself, and the example has failed

-- ThreadSanitizer defers signals to the next system call, which a loop may never make.
local MODES = package.cpath:find("tsan", 1, true) and { "hook" } or { "signal", "hook" }

local function append(id)
  return tm.transform(id, function(payload) return payload .. id end)
end

-- A transform "it" that tells the file at `path` that it runs, and then fights.
local function fighter(body, path, fields)
  local deadline = os.time() + PATIENCE
  fields = fields or {}
  fields.run = function(payload)
    io.open(path, "w"):close()
    body(deadline)
    return payload
  end
  return tm.transform("it", fields)
end

-- A transform "bad" that fails once the file is there.
local function spoiler(path)
  local deadline = os.time() + PATIENCE
  return tm.transform("bad", function()
    repeat
      local file = io.open(path)
      if file then
        file:close()
        local began = os.clock()
        while os.clock() - began < 0.02 do end -- so that the other is in the middle of it
        return nil, "on purpose"
      end
    until os.time() > deadline
    return "too late"
  end)
end

local function assert_cancelled(outcome)
  assert.equal("cancelled", outcome.status)
  assert.equal("cancelled", outcome.error.code)
  assert.is_nil(outcome.payload)
end

-- Ways to stop: each gets an engine and what fights.
local ways = {}

ways[#ways + 1] = { "by run:cancel", function(engine, body)
  local path = util.path()
  os.remove(path)
  local run = assert(engine:dag(tm.dag { fighter(body, path) })):start "payload"
  util.await(path)
  run:wait(0.01) -- so that it is in the middle of it
  assert.is_true(run:cancel "enough")
  local result, err = run:wait(PATIENCE)
  assert.is_nil(result)
  assert.equal("cancelled", err.code)
  util.assert_contains(err.message, "enough")
  assert.equal("cancelled", run.status)
  assert_cancelled(err.result.outcomes.it)
end }

ways[#ways + 1] = { "by its own timeout", function(engine, body)
  local dag = assert(engine:dag(tm.dag { fighter(body, util.path(), { timeout = 0.03 }) }))
  local result, err = dag:run "payload"
  assert.is_nil(result)
  assert.same({ "timeout", "it" }, { err.code, err.processor })
  assert.equal("failed", err.result.outcomes.it.status)
end }

ways[#ways + 1] = { "by the timeout of its run", function(engine, body)
  local dag = assert(engine:dag(tm.dag { fighter(body, util.path()) }))
  local result, err = dag:run("payload", { timeout = 0.03 })
  assert.is_nil(result)
  assert.equal("timeout", err.code)
  assert.is_nil(err.processor)
  assert_cancelled(err.result.outcomes.it)
end }

ways[#ways + 1] = { "by the failure of a sibling", function(engine, body)
  local path = util.path()
  os.remove(path)
  local result, err = assert(engine:dag(tm.dag { fighter(body, path), spoiler(path) })):run "payload"
  assert.is_nil(result)
  assert.equal("bad", err.processor)
  assert_cancelled(err.result.outcomes.it)
end }

for _, mode in ipairs(MODES) do
  describe(("With preempt %q"):format(mode), function()
    local engine, next_dag

    setup(function()
      engine = tm.engine { workers = 2, preempt = mode }
      next_dag = assert(engine:dag(tm.dag { append "a", append "b", append "c" }))
    end)

    teardown(function() engine:close() end)

    after_each(util.cleanup)

    local function stop(way, body)
      local began = os.time()
      way(engine, body)
      assert.is_true(os.time() - began < PATIENCE - 2, "it went on until it gave up")
      for _ = 1, 3 do assert.equal("xc", util.run(next_dag, "x").payload) end
    end

    for _, way in ipairs(ways) do
      describe("and stopped " .. way[1] .. ",", function()
        for _, item in ipairs(stubborn) do
          it(item.name .. " ends, and the engine runs the next DAG as ever", function()
            stop(way[2], item.body)
          end)
        end
      end)
    end
  end)
end

describe("What was told to stop", function()
  after_each(util.cleanup)

  -- Polls ctx.cancelled, and answers with answer().
  local function polling(answer)
    local deadline = os.time() + PATIENCE
    return tm.transform("it", function(_, ctx)
      repeat until ctx.cancelled() or os.time() > deadline
      return answer()
    end)
  end

  local function cancel(preempt, answer)
    local engine = tm.engine { workers = 1, preempt = preempt }
    local run = assert(engine:dag(tm.dag { polling(answer) })):start "payload"
    run:cancel "enough"
    local result, err = run:wait(PATIENCE)
    engine:close()
    assert.is_nil(result)
    return err
  end

  local answers = {
    ["returns a payload"] = function() return "payload" end,
    ["returns nothing"] = function() end,
    ["returns what cannot travel"] = function() return print end,
    ["returns nil and why"] = function() return nil, "stopped" end,
    ["returns too much"] = function() return 1, {}, 3 end,
    ["raises a string"] = function() error "stopped" end,
    ["raises a table"] = function() error { "stopped" } end,
  }

  for name, answer in pairs(answers) do
    it(("is cancelled although it %s, without preemption"):format(name), function()
      local err = cancel(false, answer)
      assert.equal("cancelled", err.code)
      assert.equal("cancelled", err.result.outcomes.it.status)
      assert.same({}, err.failures)
    end)

    it(("is cancelled after the failure of a sibling although it %s, without preemption"):format(name), function()
      local engine = tm.engine { workers = 2, preempt = false }
      local path = util.path()
      os.remove(path)
      local deadline = os.time() + PATIENCE
      local waits = tm.transform("it", function(_, ctx)
        io.open(path, "w"):close()
        repeat until ctx.cancelled() or os.time() > deadline
        return answer()
      end)
      local _, err = assert(engine:dag(tm.dag { waits, spoiler(path) })):run "payload"
      engine:close()
      assert.same({ it = "cancelled", bad = "failed" }, util.statuses(err.result))
      assert.same({ "bad" }, util.ids(err.failures))
    end)

    it(("has timed out although it %s, without preemption"):format(name), function()
      local engine = tm.engine { workers = 1, preempt = false }
      local processor = polling(answer)
      processor.body.timeout = 0.02
      local _, err = assert(engine:dag(tm.dag { processor })):run "payload"
      engine:close()
      assert.same({ "timeout", "it" }, { err.code, err.processor })
    end)
  end

  it("is cancelled when it is cancelled twice, for the first reason", function()
    local run = util.dag(tm.dag { polling(function() return "payload" end) }, 1):start "payload"
    run:cancel "first"
    run:cancel "second"
    local _, err = run:wait(PATIENCE)
    util.assert_contains(err.message, "first")
  end)

  it("leaves what had settled before as it was", function()
    local run = util.dag(tm.dag { append "a" }, 1):start ""
    local result = run:wait()
    assert.is_false(run:cancel "late")
    assert.equal("a", result.payload)
    assert.equal("completed", run.status)
  end)

  it("may be a condition", function()
    local deadline, path = os.time() + PATIENCE, util.path()
    os.remove(path)
    local run = util.dag(tm.dag { tm.transform("it", {
      when = function()
        io.open(path, "w"):close()
        while os.time() < deadline do end
        return true
      end,
      run = function(payload) return payload end,
    }) }, 1):start "payload"
    util.await(path)
    run:cancel()
    local _, err = run:wait(PATIENCE)
    assert.equal("cancelled", err.result.outcomes.it.status)
    assert.is_true(os.time() < deadline)
  end)

  it("may be a retry.when", function()
    local deadline, path = os.time() + PATIENCE, util.path()
    os.remove(path)
    local run = util.dag(tm.dag { tm.transform("it", {
      retry = { max = 1, when = function()
        io.open(path, "w"):close()
        while os.time() < deadline do end
        return true
      end },
      run = function() return nil, "on purpose" end,
    }) }, 1):start "payload"
    util.await(path)
    run:cancel()
    local _, err = run:wait(PATIENCE)
    assert.equal("cancelled", err.result.outcomes.it.status)
    assert.is_true(os.time() < deadline)
  end)

  it("has failed with what it failed with when its sibling's failure stops its retry.when", function()
    local deadline, path = os.time() + PATIENCE, util.path()
    os.remove(path)
    local it = tm.transform("it", {
      retry = { max = 1, when = function()
        io.open(path, "w"):close()
        while os.time() < deadline do end
        return true
      end },
      run = function() return nil, "the first" end,
    })
    local _, err = util.dag(tm.dag { it, spoiler(path) }):run "payload"
    for _, failure in ipairs(err.failures) do
      assert.is_nil(failure.message:find("stopped by the engine", 1, true), failure.message)
    end
  end)
end)

describe("A stop", function()
  after_each(util.cleanup)

  it("never hits the processors of other runs", function()
    local deadline = os.time() + PATIENCE
    local engine = util.engine(2)
    local victim = assert(engine:dag(tm.dag { tm.transform("it", function(payload)
      while os.time() < deadline do end
      return payload
    end) }))
    local steady = assert(engine:dag(tm.dag { tm.transform("steady", function(payload)
      local sum = 0
      for step = 1, 20000 do sum = sum + step % 7 end
      return payload .. sum
    end) }))
    local expected = util.run(steady, "x").payload
    for _ = 1, 60 do
      local run, others = victim:start "x", {}
      for position = 1, 5 do others[position] = steady:start "x" end
      run:cancel()
      for _, other in ipairs(others) do assert.equal(expected, assert(other:wait(PATIENCE)).payload) end
      assert(select(2, run:wait(PATIENCE)).code == "cancelled")
    end
  end)

  it("does not outlive the attempt that it was for", function()
    local deadline = os.time() + PATIENCE
    local result = util.run(util.dag(tm.dag { tm.transform("it", {
      timeout = 0.05, retry = { max = 1 },
      run = function(payload, ctx)
        if ctx.attempt == 1 then while os.time() < deadline do end end
        local sum = 0
        for step = 1, 20000 do sum = sum + step % 7 end
        return payload .. ctx.attempt
      end,
    }) }, 1), "x")
    assert.equal("x2", result.payload)
  end)

  it("does not outlive its run in a coroutine that was kept", function()
    local dag = assert(util.load([[
      local tm = require "tidemill"
      local kept
      return tm.dag { tm.transform("it", function(payload)
        kept = kept or coroutine.create(function()
          pcall(function()
            local deadline = os.time() + 30
            io.open($PATH, "w"):close()
            coroutine.yield()
          end)
          while true do coroutine.yield "fresh" end
        end)
        local _, answer = coroutine.resume(kept)
        if payload == "spin" then
          local deadline = os.time() + 30
          while os.time() < deadline do end
        end
        return answer or "first"
      end) }
    ]], { PATH = util.path() }, 1))
    local run = dag:start "spin"
    run:wait(0.05)
    run:cancel()
    assert.equal("cancelled", select(2, run:wait(PATIENCE)).code)
    local answer = util.run(dag, "x").payload
    assert.is_true(answer == "fresh" or answer == "first")
    assert.equal("fresh", util.run(dag, "x").payload)
  end)
end)

describe("A processor with a timeout", function()
  after_each(util.cleanup)

  local STEPS = 3e9 -- more than a minute for some, a second or two where it is compiled

  it("is stopped in a loop that calls nothing", function()
    local _, err = util.dag(tm.dag { tm.transform("it", { timeout = 0.05, run = function()
      local step = 0
      while step < 3e9 do step = step + 1 end
      return step
    end }) }, 1):run "x"
    assert.equal("timeout", err and err.code)
    assert.equal("failed", err.result.outcomes.it.status)
  end)

  it("is stopped in a loop of a helper that calls nothing", function()
    local function spin(steps)
      local step = 0
      while step < steps do step = step + 1 end
      return step
    end
    local began = os.time()
    local _, err = util.dag(tm.dag { tm.transform("it", { timeout = 0.05, run = function()
      return spin(STEPS)
    end }) }, 1):run "x"
    assert.equal("timeout", err and err.code)
    assert.is_true(os.time() - began < 5, "it went on")
  end)
end)

-- Each answers with a plain value, which must be the same in the host as in a worker.
local standard = {
  ["tells where an error in a wrapped coroutine was raised"] = function()
    local _, message = pcall(coroutine.wrap(function() error "here" end))
    return message
  end,
  ["tells where a wrapped coroutine was called"] = function()
    local inner = coroutine.wrap(function() error "here" end)
    local _, message = pcall(function() local _ = inner() end)
    return message
  end,
  ["passes on errors that are tables"] = function()
    local _, err = pcall(coroutine.wrap(function() error { code = 7 } end))
    return err
  end,
  ["refuses to call a dead wrapped coroutine"] = function()
    local f = coroutine.wrap(function() return 1 end)
    f()
    local _, message = pcall(function() local _ = f() end)
    return message
  end,
  ["refuses to resume a dead coroutine"] = function()
    local co = coroutine.create(function() end)
    coroutine.resume(co)
    return { coroutine.resume(co) }
  end,
  ["refuses to resume a coroutine from within"] = function()
    local co
    co = coroutine.create(function() return coroutine.resume(co) end)
    return { coroutine.resume(co) }
  end,
  ["refuses to resume what is no coroutine"] = function()
    return (pcall(coroutine.resume, 42))
  end,
  ["refuses to wrap what is no function"] = function()
    return (pcall(coroutine.wrap, 42))
  end,
  ["passes values both ways"] = function()
    local f = coroutine.wrap(function(...)
      local b = { select("#", ...), ... }
      local c = { coroutine.yield(unpack and 1 or 1, 2, nil, 4) }
      return b, c, nil
    end)
    local first = { f("x", nil, "z") }
    local second = { f(nil, 2) }
    return { first[1], first[2], first[4], second[1][1], second[1][2], second[2][2], select("#", second) }
  end,
  ["yields within pcall"] = function()
    return { pcall(coroutine.wrap(function()
      return pcall(function() return coroutine.yield "out" end)
    end)) }
  end,
  ["goes on within pcall after a yield, and catches"] = function()
    local co = coroutine.create(function()
      local ok, err = pcall(function()
        coroutine.yield(1)
        error("after", 0)
      end)
      return ok, err
    end)
    return { (coroutine.resume(co)), select(2, coroutine.resume(co)) == false }
  end,
  ["yields within xpcall"] = function()
    local co = coroutine.create(function()
      return xpcall(function() return coroutine.yield "out" end, function(message) return message end)
    end)
    return { { coroutine.resume(co) }, { coroutine.resume(co, "in") } }
  end,
  ["hands xpcall's handler the error"] = function()
    return { xpcall(function() error { 1, 2 } end, function(err) return { handled = err } end) }
  end,
  ["hands xpcall's function its arguments"] = function()
    return { xpcall(function(...) return select("#", ...), ... end, print, 1, nil, 3) }
  end,
  ["returns all that xpcall's handler returns first"] = function()
    return select("#", xpcall(error, function() return 1, 2, 3 end))
  end,
  ["knows the main coroutine"] = function()
    local co, main = coroutine.running()
    return { type(co), main == nil and "nil" or main }
  end,
  ["knows the coroutine that runs"] = function()
    return coroutine.wrap(function()
      local co, main = coroutine.running()
      return { type(co), main == nil and "nil" or main, coroutine.status(co) }
    end)()
  end,
  ["knows where it may yield"] = function()
    local can = coroutine.isyieldable or function() return "unknown" end
    return { can(), coroutine.wrap(function() return can() end)() }
  end,
  ["knows the status of coroutines"] = function()
    local outer, seen
    outer = coroutine.create(function()
      local inner = coroutine.create(function() seen = coroutine.status(outer) end)
      coroutine.resume(inner)
      return coroutine.status(inner)
    end)
    local before = coroutine.status(outer)
    local _, inner = coroutine.resume(outer)
    return { before, inner, seen, coroutine.status(outer) }
  end,
  ["makes generators"] = function()
    local list = {}
    for value in coroutine.wrap(function() for i = 1, 5 do coroutine.yield(i) end end) do list[#list + 1] = value end
    return list
  end,
  -- Not as deep as in the host, where 195 fit into Lua's limit on C calls: tracking takes some of them.
  ["nests coroutines fifty deep"] = function()
    local function nest(depth)
      if depth == 0 then return 0 end
      return 1 + coroutine.wrap(nest)(depth - 1)
    end
    local ok, depth = pcall(nest, 50)
    return { ok, ok and depth }
  end,
}

if coroutine.close then -- luacheck: ignore 143
  local close = coroutine.close -- luacheck: ignore 143
  standard["closes a suspended coroutine"] = function()
    local co = coroutine.create(function() coroutine.yield() end)
    coroutine.resume(co)
    return { close(co), coroutine.status(co) }
  end
  standard["closes a coroutine that failed, and tells why"] = function()
    local co = coroutine.create(function() error "why" end)
    coroutine.resume(co)
    return { close(co) }
  end
  standard["refuses to close the coroutine that runs"] = function()
    return coroutine.wrap(function() return (pcall(close, (coroutine.running()))) end)()
  end
  standard["closes what a wrapped coroutine leaves behind when it fails"] = load [[
    local closed = false
    local f = coroutine.wrap(function()
      local guard <close> = setmetatable({}, { __close = function() closed = true end })
      error "why"
    end)
    local ok, message = pcall(f)
    return { ok, message, closed }
  ]]
  standard["raises what a __close raises when a wrapped coroutine fails"] = load [[
    local f = coroutine.wrap(function()
      local guard <close> = setmetatable({}, { __close = function() error("from close", 0) end })
      error "why"
    end)
    return { pcall(f) }
  ]]
end

describe("A worker's coroutine library", function()
  after_each(util.cleanup)

  local names = util.keys(standard)
  for _, mode in ipairs { "signal", "hook" } do
    for _, name in ipairs(names) do
      it(("%s, as in the host, with preempt %q"):format(name, mode), function()
        local engine = tm.engine { workers = 1, preempt = mode }
        local behaviour = standard[name]
        local dag = assert(engine:dag(tm.dag { tm.transform("it", function() return { answer = behaviour() } end) }))
        local result, err = dag:run "x"
        engine:close()
        assert(result, tostring(err))
        assert.same({ answer = behaviour() }, result.payload)
      end)
    end
  end
end)

describe("The option preempt", function()
  after_each(util.cleanup)

  it("is \"signal\", \"hook\" or false", function()
    for _, mode in ipairs { "signal", "hook" } do tm.engine({ workers = 1, preempt = mode }):close() end
    tm.engine({ workers = 1, preempt = false }):close()
  end)

  it("is refused at the caller's line otherwise", function()
    util.assert_raises_here(function() tm.engine { preempt = "sometimes" } end, "preempt")
    util.assert_raises_here(function() tm.engine { preempt = true } end, "preempt")
  end)
end)

-- Many runs, each cancelled at another moment of its life.
describe("A storm of runs and cancels", function()
  after_each(util.cleanup)

  local known = { completed = true, failed = true, skipped = true, cancelled = true }

  local function declaration()
    local function busy(id, fields)
      fields = fields or {}
      fields.run = fields.run or function(payload, ctx)
        local sum = 0
        for step = 1, 3000 do sum = sum + step % 7 end
        if ctx.cancelled() then return nil, "cancelled" end
        return payload .. id
      end
      return tm.transform(id, fields)
    end
    return tm.dag {
      failure_strategy = "continue_on_error", max_concurrency = 3, limits = { db = 1, net = 2 },
      busy "a", busy("b", { depends_on = "a", uses = "db" }), busy("c", { depends_on = "a", uses = { "db", "net" } }),
      busy("d", { depends_on = { "b", "c" }, uses = "net", timeout = 20 }),
      busy("again", {
        depends_on = "a", retry = { max = 1, backoff = 20 },
        run = function(payload, ctx)
          if ctx.attempt == 1 then return nil, "not yet" end
          return payload .. "again"
        end,
      }),
      busy("spin", { depends_on = "a", run = function(payload)
        local began = os.clock()
        while os.clock() - began < 0.03 do end
        return payload
      end }),
      busy("when", { depends_on = "b", when = function(_, payload) return #payload % 2 == 0 end }),
      busy("e", { depends_on = { "d", "again", "spin", "when" } }),
    }
  end

  local function check(result, err, run)
    assert.is_nil(result)
    assert.equal("cancelled", err.code)
    assert.equal("cancelled", run.status)
    assert.equal("cancelled", err.result.outcomes.e.status)
    for id, outcome in pairs(err.result.outcomes) do
      assert.is_true(known[outcome.status], id .. " is " .. tostring(outcome.status))
      assert.equal(outcome.status == "cancelled", (outcome.error or {}).code == "cancelled", id)
    end
  end

  local function storm(mode, strategy, runs)
    local engine = tm.engine { workers = 3, preempt = mode }
    local dag, plain = assert(engine:dag(declaration())), assert(engine:dag(tm.dag { append "a" }))
    local random, calls, live, began = 17, {}, {}, os.time()
    local function dice(sides)
      random = (random * 16807) % 2147483647
      return random % sides
    end
    for number = 1, runs do
      calls[number] = 0
      local function called() calls[number] = calls[number] + 1 end
      live[#live + 1] = dag:start("x" .. number, { strategy = strategy }, called)
      for _ = 1, dice(4000) do dice(2) end
      while #live > dice(6) do
        local run = table.remove(live, 1 + dice(#live))
        run:cancel "storm"
        if dice(3) == 0 then run:cancel "again" end
        local result, err = run:wait(PATIENCE)
        check(result, err, run)
      end
      engine:step()
    end
    for _, run in ipairs(live) do run:cancel "storm" end
    for _, run in ipairs(live) do
      local result, err = run:wait(PATIENCE)
      check(result, err, run)
    end
    engine:step()
    for number = 1, runs do assert.equal(1, calls[number]) end
    for _ = 1, 20 do assert.equal("xa", util.run(plain, "x").payload) end
    engine:close()
    assert.is_true(os.time() - began < 19, "something waited for its time")
  end

  for _, mode in ipairs(MODES) do
    for _, strategy in ipairs { "reactive", "work_queue", "level" } do
      it(("settles each run once, under %s with preempt %q"):format(strategy, mode), function()
        storm(mode, strategy, 200)
      end)
    end
  end

  it("ends with the engine, whatever is in flight", function()
    for _ = 1, 10 do
      local engine = tm.engine { workers = 3 }
      local dag, runs = assert(engine:dag(declaration())), {}
      for number = 1, 10 do runs[number] = dag:start "x" end
      engine:close()
      for _, run in ipairs(runs) do assert.equal("cancelled", run.status) end
    end
  end)
end)
