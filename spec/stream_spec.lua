-- SPDX-License-Identifier: MIT
-- dag:stream and dag:map: many runs of one DAG, a bounded number in flight.
local tm = require "tidemill"
local oracle = require "spec.support.oracle"
local process = require "spec.support.process"
local random = require "spec.support.random"
local random_dag = require "spec.support.random_dag"
local render = require "spec.support.render"
local util = require "spec.support.util"

local CLOSES_LOOPS = _VERSION >= "Lua 5.4" -- a loop that is left closes its fourth value
local EXECUTORS = { "reactive", "work_queue", "level" }

-- A source of 1, 2, ... count, or of a list.
local function source_of(what)
  local i = 0
  return function()
    i = i + 1
    if type(what) == "table" then return what[i] end
    return i <= what and i or nil
  end
end

local function numbers(count)
  local list = {}
  for i = 1, count do list[i] = i end
  return list
end

-- Takes some microseconds, or a millisecond for one number in `long`.
local function uneven(long)
  return function(n)
    local sum = 0
    for i = 1, n % long == 0 and 100000 or 10 do sum = (sum + i) % 7 end
    return n + 1000
  end
end

local function double(engine)
  return assert(engine:dag(tm.dag { tm.transform("double", function(n) return n * 2 end) }))
end

-- Fails for numbers that 3 divides, raises for those that 5 does.
local function moody(engine, failure_strategy)
  return assert(engine:dag(tm.dag {
    failure_strategy = failure_strategy,
    tm.transform("check", function(n)
      if n % 15 == 0 then return n, { skipped = true } end
      if n % 3 == 0 then return nil, n .. " is divided by 3" end
      if n % 5 == 0 then error { number = n } end
      return n * 10
    end),
    tm.transform("tell", { depends_on = "check", run = function(n) return "got " .. n end }),
  }))
end

-- What a loop over a stream sees: a list of { input, payload, code of the error }.
local function seen_by(stream)
  local seen = {}
  for input, result, err in stream do
    seen[#seen + 1] = { input, result and result.payload, err and err.code }
  end
  return seen
end

local function inputs_of(seen)
  local inputs = {}
  for i, item in ipairs(seen) do inputs[i] = item[1] end
  return inputs
end

local function sorted(list)
  table.sort(list)
  return list
end

-- A DAG of one transform that ends when the gate opens; inputs that are not "wait" pass.
local function gated(engine)
  local gate = util.gate()
  local wait = gate.wait
  return assert(engine:dag(tm.dag { tm.transform("a", function(payload)
    if payload == "wait" then wait() end
    return payload
  end) })), gate
end

-- A DAG whose callback spins until it is stopped, after it has written the path it got.
local function spinning(engine)
  return assert(engine:dag(tm.dag { tm.transform("spin", function(path)
    if path == "pass" then return path end
    io.open(path, "w"):close()
    while true do end -- luacheck: ignore 542
  end) }))
end

local function collect()
  if rawget(_G, "jit") then jit.flush() end -- luacheck: ignore 113 (compiled traces keep closures alive)
  for _ = 1, 4 do collectgarbage() end
end

-- KiB that this process has in memory, or nil.
local function resident()
  local file = io.open "/proc/self/status"
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return tonumber(text:match "VmRSS:%s*(%d+)")
end

describe("A stream", function()
  after_each(util.cleanup)

  it("hands back every input with its result, in order", function()
    local seen = seen_by(double(util.engine(2)):stream(source_of(100)))
    assert.equal(100, #seen)
    for i, item in ipairs(seen) do assert.same({ i, i * 2 }, item) end
  end)

  it("is empty where its source is", function()
    assert.same({}, seen_by(double(util.engine(1)):stream(function() end)))
  end)

  it("takes whatever can be called for a source", function()
    local i, list = 0, {}
    local source = setmetatable({}, { __call = function()
      i = i + 1
      return i <= 3 and i or nil
    end })
    for input in double(util.engine(1)):stream(source, { max_in_flight = 2 }) do list[#list + 1] = input end
    assert.same({ 1, 2, 3 }, list)
  end)

  it("reads lines of a file", function()
    local path, lines = util.write(util.path(), "ebb\n\nflow\n"), {}
    local dag = assert(util.engine(2):dag(tm.dag { tm.transform("upper", string.upper) }))
    for line, result in dag:stream(io.lines(path)) do lines[#lines + 1] = line .. "=" .. result.payload end
    assert.same({ "ebb=EBB", "=", "flow=FLOW" }, lines)
  end)

  it("hands back the very values that the source returned", function()
    local dag = assert(util.engine(2):dag(tm.dag { tm.transform("kind", type) }))
    local inputs = { false, { key = 1 }, print, "text", tm.null, setmetatable({}, {}), 1.5 }
    local index, kinds = 0, {}
    for input, result in dag:stream(source_of(inputs), { max_in_flight = 3 }) do
      index = index + 1
      assert.is_true(rawequal(inputs[index], input))
      kinds[index] = result and result.payload or "none"
    end
    assert.same({ "boolean", "table", "none", "string", type(tm.null), "none", "number" }, kinds)
  end)

  it("ends for good", function()
    local stream = double(util.engine(1)):stream(source_of(3))
    seen_by(stream)
    assert.is_nil((stream()))
    assert.is_nil((stream()))
  end)

  it("does not call its source again after that returned nil", function()
    local calls = 0
    local stream = double(util.engine(1)):stream(function()
      calls = calls + 1
      return calls ~= 3 and calls or nil
    end)
    assert.same({ 1, 2 }, inputs_of(seen_by(stream)))
    stream()
    assert.equal(3, calls)
  end)

  for _, workers in ipairs { 1, 2, 4 } do
    it(("pulls its source only while there is room, with %d workers"):format(workers), function()
      local dag = assert(util.engine(workers):dag(tm.dag { tm.transform("it", uneven(9)) }))
      for _, most in ipairs { 1, 2, 3, 8, 50 } do
        for _, ordered in ipairs { true, false } do
          local pulled, handed, greatest = 0, 0, 0
          for _ in dag:stream(function()
            pulled = pulled + 1
            greatest = math.max(greatest, pulled - handed)
            return pulled <= 200 and pulled or nil
          end, { max_in_flight = most, ordered = ordered }) do
            handed = handed + 1
          end
          assert.same({ most, 200, most }, { most, handed, greatest })
        end
      end
    end)
  end

  it("has four in flight for each worker unless it is told", function()
    local pulled = 0
    local stream = double(util.engine(3)):stream(function()
      pulled = pulled + 1
      return pulled
    end)
    stream()
    assert.equal(12, pulled)
    assert.equal(11, stream:in_flight())
    stream:close()
  end)

  it("hands back all of them, each with its own result, when no order is asked for", function()
    local dag = assert(util.engine(3):dag(tm.dag { tm.transform("it", uneven(5)) }))
    local seen = seen_by(dag:stream(source_of(300), { ordered = false, max_in_flight = 20 }))
    for _, item in ipairs(seen) do assert.equal(item[1] + 1000, item[2]) end
    assert.same(numbers(300), sorted(inputs_of(seen)))
  end)

  it("goes from work here to work on threads and back as callbacks get longer and shorter", function()
    local dag = assert(util.engine(2):dag(tm.dag { tm.transform("spin", function(turns)
      local sum = 0
      for i = 1, turns do sum = (sum + i) % 7 end
      return turns
    end) }))
    for _, ordered in ipairs { true, false } do
      local sum = 0
      for input, result in dag:stream(source_of((function()
        local list = {}
        for i = 1, 1200 do list[i] = math.floor(i / 200) % 2 == 0 and i or 5000 + i end
        return list
      end)()), { ordered = ordered }) do
        assert.equal(input, result.payload)
        sum = sum + 1
      end
      assert.equal(1200, sum)
    end
  end)

  it("takes the options of a run", function()
    local dag = assert(util.engine(2):dag(tm.dag { tm.transform("tell", function(payload, ctx)
      return payload .. ctx.metadata.source.name
    end) }))
    local options = { metadata = { source = { name = "!" } }, profile = true, strategy = "level", timeout = 60 }
    local count = 0
    for input, result in dag:stream(source_of { "a", "b", "c", "d", "e" }, options) do
      assert.equal(input .. "!", result.payload)
      assert.equal("!", result.metadata.source.name)
      assert.is_true(result.duration >= 0 and result.duration < 60)
      count = count + 1
    end
    assert.equal(5, count)
  end)

  it("leaves the table of options as it was", function()
    local options = { max_in_flight = 2, profile = true }
    seen_by(double(util.engine(1)):stream(source_of(3), options))
    assert.same({ max_in_flight = 2, profile = true }, options)
  end)

  it("keeps results good after the stream and the engine are gone", function()
    local results = {}
    do
      local engine = tm.engine { workers = 2 }
      for input, result in double(engine):stream(source_of(20)) do results[input] = result end
      engine:close()
    end
    collect()
    for i, result in ipairs(results) do assert.equal(i * 2, result.payload) end
  end)

  it("tells what it is", function()
    local stream = double(util.engine(2)):stream { max_in_flight = 5 }
    stream:push(1)
    assert.equal("tidemill.stream: 1 of 5 in flight", tostring(stream))
    stream:close()
    assert.equal("tidemill.stream: closed", tostring(stream))
  end)
end)

describe("A stream of random DAGs", function()
  local LAST = 60
  local engines

  setup(function()
    engines = { tm.engine { workers = 1 }, tm.engine { workers = 2 }, tm.engine { workers = 4 } }
  end)

  teardown(function()
    for _, engine in ipairs(engines) do engine:close() end
  end)

  local function ids_of(failures)
    local ids = {}
    for index, failure in ipairs(failures or {}) do ids[index] = failure.processor end
    return ids
  end

  local function summary(outcome, ids)
    local statuses = {}
    for id, one in pairs(outcome.outcomes) do statuses[id] = one.status end
    return render { outcome.ok, outcome.payload, outcome.metadata, statuses, ids }
  end

  local function inputs_for(rng, description)
    local inputs = {}
    for i = 1, 12 do
      inputs[i] = rng:once_in(3) and { "list", i } or rng:once_in(3) and description.payload or "item " .. i
    end
    return inputs
  end

  it("yields what the definitions say, whatever the workers, the order, the executor", function()
    for seed = 1, LAST do
      local description, rng = random_dag.new(seed), random.new(seed)
      description.failure_strategy = rng:pick { "continue_on_error", "best_effort" }
      local inputs, expected = inputs_for(rng, description), {}
      for i, input in ipairs(inputs) do
        local outcome = oracle.run(description, input, description.metadata)
        expected[i] = summary(outcome, outcome.failures)
      end
      for _, engine in ipairs(engines) do
        local dag, count, place = assert(engine:dag(random_dag.declare(description))), 0, {}
        for i, input in ipairs(inputs) do place[input] = type(input) == "table" and i or nil end
        local options = {
          metadata = description.metadata, strategy = rng:pick(EXECUTORS), max_in_flight = rng:between(1, 15),
          ordered = not rng:once_in(2),
        }
        for input, result in dag:stream(source_of(inputs), options) do
          count = count + 1
          local index = options.ordered and count or place[input]
          if index then
            assert.is_true(rawequal(inputs[index], input))
            assert.equal(expected[index], summary(result, ids_of(result.failures)),
              ("seed %d, %d workers, item %d"):format(seed, engine.workers, index))
          end
        end
        assert.equal(#inputs, count)
      end
    end
  end)
end)

describe("A stream of what may fail", function()
  after_each(util.cleanup)

  it("goes on after an item that failed", function()
    local seen = seen_by(moody(util.engine(2)):stream(source_of(16), { max_in_flight = 4 }))
    assert.same({ 1, "got 10" }, seen[1])
    assert.same({ 3, nil, "processor_failed" }, seen[3])
    assert.same({ 5, nil, "processor_failed" }, seen[5])
    assert.same({ 15, "got 15" }, seen[15])
    assert.same({ 16, "got 160" }, seen[16])
    assert.equal(16, #seen)
  end)

  it("hands back the same input, result and error as dag:run would", function()
    for _, strategy in ipairs { "fail_fast", "continue_on_error", "best_effort" } do
      local dag = moody(util.engine(2), strategy)
      for input, result, err in dag:stream(source_of(20)) do
        local wanted, why = dag:run(input)
        assert.equal(wanted and render(wanted.payload), result and render(result.payload))
        assert.equal(tostring(why), tostring(err))
        assert.equal(why and #why.failures, err and #err.failures)
        assert.equal(why and why.result and render(why.result.payload), err and render(err.result.payload))
        assert.same(why and why.failures[1].cause, err and err.failures[1].cause)
      end
    end
  end)

  it("tells what cannot travel at its place, and goes on", function()
    local inputs = { 1, print, 2, { deep = { coroutine.create(function() end) } }, 3 }
    for _, most in ipairs { 1, 2, 9 } do
      local seen, messages = {}, {}
      for input, result, err in double(util.engine(2)):stream(source_of(inputs), { max_in_flight = most }) do
        seen[#seen + 1] = input
        messages[#seen] = result and result.payload or err.message
      end
      assert.same(inputs, seen)
      assert.same({ 2, "payload is a function", 4, "payload.deep[1] is a thread", 6 }, messages)
    end
  end)

  it("has a place for each of many that cannot travel, in whatever order", function()
    local seen = {}
    local source = source_of(500)
    local stream = double(util.engine(2)):stream(function()
      local n = source()
      return n and (n % 3 == 0 and { n, print } or n)
    end, { ordered = false, max_in_flight = 7 })
    for input, result, err in stream do
      local n = type(input) == "table" and input[1] or input
      seen[#seen + 1] = n
      assert.equal(n % 3 == 0 and "invalid_payload" or nil, err and err.code)
      assert.equal(n % 3 ~= 0 and n * 2 or nil, result and result.payload)
    end
    assert.same(numbers(500), sorted(seen))
  end)

  it("times out items alone", function()
    local dag = assert(util.engine(2):dag(tm.dag { tm.transform("it", function(n)
      while n % 4 == 0 do end -- luacheck: ignore 542
      return n
    end) }))
    local codes = {}
    for _, result, err in dag:stream(source_of(9), { timeout = 0.5, max_in_flight = 2 }) do
      codes[#codes + 1] = result and "ok" or err.code
    end
    assert.same({ "ok", "ok", "ok", "timeout", "ok", "ok", "ok", "timeout", "ok" }, codes)
  end)

  it("retries items alone", function()
    local dag = assert(util.engine(2):dag(tm.dag { tm.transform "it" {
      retry = { max = 2, backoff = 0.001 },
      run = function(n, ctx)
        if n % 3 == 0 and ctx.attempt < 3 then return nil, "not yet" end
        return n + ctx.attempt
      end,
    } }))
    for _, ordered in ipairs { true, false } do
      local seen = {}
      for input, result in dag:stream(source_of(30), { ordered = ordered }) do seen[input] = result.payload end
      for i = 1, 30 do assert.equal(i % 3 == 0 and i + 3 or i + 1, seen[i]) end
    end
  end)

  it("keeps to the limits of its DAG", function()
    local dag = assert(util.engine(4):dag(tm.dag {
      limits = { one = 1 },
      max_concurrency = 2,
      tm.transform("a", { uses = "one", run = uneven(3) }),
      tm.transform("b", { uses = "one", depends_on = "a", run = function(n) return n + 1 end }),
    }))
    for _, ordered in ipairs { true, false } do
      local count = 0
      for input, result in dag:stream(source_of(200), { max_in_flight = 30, ordered = ordered }) do
        assert.equal(input + 1001, result.payload)
        count = count + 1
      end
      assert.equal(200, count)
    end
  end)
end)

describe("A stream that is left", function()
  after_each(util.cleanup)

  it("may be left at any item", function()
    local engine = util.engine(2)
    local dag = assert(engine:dag(tm.dag { tm.transform("it", uneven(4)) }))
    for _, ordered in ipairs { true, false } do
      for position = 1, 25 do
        local count = 0
        for _ in dag:stream(source_of(25), { ordered = ordered, max_in_flight = 6 }) do
          count = count + 1
          if count == position then break end
        end
        assert.equal(position, count)
        assert.equal(1001, dag:run(1).payload)
      end
    end
    collect()
    assert.equal(0, engine:pending())
  end)

  if CLOSES_LOOPS then
    it("is closed at once", function()
      local stream = double(util.engine(1)):stream(source_of(9))
      for input in stream, nil, nil, stream do
        if input == 2 then break end
      end
      assert.equal("tidemill.stream: closed", tostring(stream))
      assert.is_nil((stream()))
    end)

    it("is closed when the loop raises", function()
      local kept
      pcall(function()
        local iterator, state, control, closing = double(util.engine(1)):stream(source_of(9))
        kept = closing
        for _ in iterator, state, control, closing do error "from the loop" end
      end)
      assert.equal("tidemill.stream: closed", tostring(kept))
    end)
  end

  it("cancels what is in flight when it is closed", function()
    local engine = util.engine(1)
    local dag, path = spinning(engine), util.path ".started"
    local stream = dag:stream { max_in_flight = 3 }
    stream:push(path)
    util.await(path)
    stream:close()
    assert.equal("pass", dag:run("pass").payload) -- the only worker is free again
    assert.equal(0, stream:in_flight())
    assert.equal(0, engine:pending())
    stream:close()
  end)

  it("cancels it when the stream is collected, too", function()
    local engine = util.engine(1)
    local dag, path = spinning(engine), util.path ".started"
    do
      local stream = dag:stream { max_in_flight = 3 }
      stream:push(path)
      util.await(path)   -- while somebody has the stream: it may be collected at any time
    end
    collect()
    assert.equal("pass", dag:run("pass").payload)
  end)

  it("ends when its engine is closed in the middle, after what was in flight", function()
    for _, ordered in ipairs { true, false } do
      local engine, count = tm.engine { workers = 2 }, 0
      local dag = assert(engine:dag(tm.dag { tm.transform("it", uneven(4)) }))
      local ok, err = pcall(function()
        for input, result, why in dag:stream(source_of(100), { ordered = ordered, max_in_flight = 8 }) do
          count = count + 1
          if result then assert.equal(input + 1000, result.payload) else assert.equal("cancelled", why.code) end
          if count == 3 then engine:close() end
        end
      end)
      assert.is_false(ok)
      assert.equal("closed", err.code)
      assert.equal(10, count)
    end
  end)

  it("shows no time for a run that never began", function()
    local engine, count = tm.engine { workers = 1 }, 0
    local options = { profile = true, max_in_flight = 4 }
    for _ = 1, 3 do seen_by(double(engine):stream(source_of(9), options)) end
    pcall(function()
      for _, result, err in double(engine):stream(source_of(100), options) do
        count = count + 1
        if count == 1 then engine:close() end
        result = result or err.result
        assert.is_true(result.duration >= 0 and result.duration < 600)
      end
    end)
    assert.is_true(count > 1)
  end)

  it("cannot be made when the engine is closed", function()
    local engine = tm.engine { workers = 1 }
    local dag = double(engine)
    engine:close()
    local stream, err = dag:stream(source_of(1))
    assert.is_nil(stream)
    assert.equal("closed", err.code)
    assert.equal("closed", select(2, dag:map { 1 }).code)
  end)

  it("goes on when its dag is closed", function()
    local dag = double(util.engine(1))
    local stream = dag:stream(source_of(9))
    debug.getmetatable(dag).__gc(dag)
    assert.equal(9, #seen_by(stream))
  end)

  it("may be abandoned in the middle, again and again", function()
    local engine = util.engine(2)
    local dag = assert(engine:dag(tm.dag { tm.transform("it", uneven(4)) }))
    for i = 1, 300 do
      local stream = dag:stream(source_of(50), { ordered = i % 2 == 0 })
      for _ = 1, i % 7 do stream() end
    end
    collect()
    assert.equal(0, engine:pending())
  end)
end)

describe("The source of a stream", function()
  after_each(util.cleanup)

  local function raising(after, what)
    local source = source_of(100)
    return function()
      local n = source()
      if n > after then error(what, 0) end
      return n
    end
  end

  it("may raise, which comes out at the loop after all that was pulled before", function()
    local engine = util.engine(2)
    for after = 0, 12 do
      for _, ordered in ipairs { true, false } do
        local seen = {}
        local ok, message = pcall(function()
          for input in double(engine):stream(raising(after, "no more"), { max_in_flight = 4, ordered = ordered }) do
            seen[#seen + 1] = input
          end
        end)
        assert.same({ false, "no more" }, { ok, message })
        assert.same(numbers(after), sorted(seen))
      end
    end
  end)

  it("may raise anything", function()
    local what = { "a table" }
    local _, raised = pcall(seen_by, (double(util.engine(1)):stream(raising(2, what))))
    assert.is_true(rawequal(what, raised))
    local ok, none = pcall(seen_by, (double(util.engine(1)):stream(raising(2, nil))))
    assert.is_false(ok)
    assert.is_true(none == nil or none == "nil" or tostring(none):find "error object" ~= nil)
  end)

  it("raises once: the stream has ended then", function()
    local stream = double(util.engine(1)):stream(raising(2, "no more"))
    pcall(seen_by, stream)
    assert.is_nil((stream()))
  end)

  it("may close its stream", function()
    local engine = util.engine(2)
    for position = 1, 9 do
      local stream, pulled = nil, 0
      stream = double(engine):stream(function()
        pulled = pulled + 1
        if pulled == position then stream:close() end
        return pulled
      end, { max_in_flight = 4 })
      assert.is_true(#seen_by(stream) < position)
      assert.equal(position, pulled)
    end
  end)

  it("may close its engine", function()
    for position = 1, 9 do
      local engine, pulled = tm.engine { workers = 2 }, 0
      local stream = double(engine):stream(function()
        pulled = pulled + 1
        if pulled == position then engine:close() end
        return pulled
      end, { max_in_flight = 4 })
      assert.is_false((pcall(seen_by, stream)))
    end
  end)

  it("cannot take from its own stream", function()
    local stream
    stream = double(util.engine(1)):stream(function() return (stream()) end)
    local ok, message = pcall(stream)
    assert.is_false(ok)
    util.assert_contains(message, "cannot take from that stream")
  end)

  it("cannot push into its stream, nor can anybody else", function()
    local stream, source = nil, source_of(5)
    stream = double(util.engine(1)):stream(function()
      if not pcall(stream.push, stream, 7) then return source() end
    end, { max_in_flight = 2 })
    assert.equal(5, #seen_by(stream))
  end)

  it("may run the DAG, and another stream of it", function()
    local dag = double(util.engine(2))
    local outer = source_of(5)
    local seen = seen_by(dag:stream(function()
      local n = outer()
      if not n then return nil end
      local sum = dag:run(n).payload
      for _, result in dag:stream(source_of(n)) do sum = sum + result.payload end
      return sum
    end, { max_in_flight = 2 }))
    assert.same({ 4, 8 }, seen[1])
    assert.same({ 40, 80 }, seen[5])
  end)

  it("may be used by several streams at once", function()
    local engine, source, seen = util.engine(2), source_of(100), {}
    local streams = { double(engine):stream(source), double(engine):stream(source) }
    repeat
      local done = true
      for _, stream in ipairs(streams) do
        local input = stream()
        seen[#seen + 1] = input
        done = done and input == nil
      end
    until done
    assert.same(numbers(100), sorted(seen))
  end)

  it("may not yield", function()
    local dag = double(util.engine(1))
    local co = coroutine.create(function() seen_by(dag:stream(coroutine.yield)) end)
    local ok, message = coroutine.resume(co)
    assert.is_false(ok)
    util.assert_contains(message, "yield")
  end)
end)

describe("Streams", function()
  after_each(util.cleanup)

  it("may be used in the loop of another one, of the same engine", function()
    local engine = util.engine(2)
    local dag, other = double(engine), assert(engine:dag(tm.dag { tm.transform("it", uneven(3)) }))
    local sums = {}
    for input, result in dag:stream(source_of(12), { ordered = false }) do
      local sum = dag:run(result.payload).payload
      for _, inner in other:stream(source_of(input), { max_in_flight = 3 }) do sum = sum + inner.payload end
      sums[input] = sum
    end
    for i = 1, 12 do assert.equal(4 * i + 1000 * i + i * (i + 1) / 2, sums[i]) end
  end)

  it("may be two of one DAG at once", function()
    local dag = double(util.engine(2))
    local one, two = dag:stream(source_of(50)), dag:stream(source_of(80), { ordered = false })
    local sums = { 0, 0 }
    repeat
      local a, first = one()
      local b, second = two()
      if a then sums[1] = sums[1] + first.payload end
      if b then sums[2] = sums[2] + second.payload end
    until not a and not b
    assert.same({ 50 * 51, 80 * 81 }, sums)
  end)

  it("may be used from coroutines, by turns", function()
    local dag = double(util.engine(2))
    local stream, seen = dag:stream(source_of(30)), {}
    local function reader()
      return coroutine.wrap(function()
        for input, result in stream do
          assert.equal(input * 2, result.payload)
          seen[#seen + 1] = input
          coroutine.yield(true)
        end
      end)
    end
    local one, two = reader(), reader()
    repeat
      local a, b = one(), #seen < 30 and two()
    until not a or not b
    assert.same(numbers(30), seen)
  end)

  it("may be made by a coroutine that is gone", function()
    local dag, stream = double(util.engine(2)), nil
    coroutine.wrap(function() stream = dag:stream(source_of(10)) end)()
    collect()
    assert.equal(10, #seen_by(stream))
  end)

  it("share an engine with runs that were started", function()
    local engine, called = util.engine(2), 0
    local dag = assert(engine:dag(tm.dag { tm.transform("it", uneven(3)) }))
    for _ = 1, 50 do dag:start(1, function() called = called + 1 end) end
    assert.equal(100, #seen_by(dag:stream(source_of(100))))
    while engine:pending() > 0 do engine:step() end
    assert.equal(50, called)
  end)
end)

describe("A stream to push into", function()
  after_each(util.cleanup)

  it("runs what is pushed, and hands it back in order", function()
    local stream = double(util.engine(2)):stream { max_in_flight = 10 }
    for i = 1, 10 do assert.is_true(stream:push(i)) end
    local seen = seen_by(stream:results())
    for i = 1, 10 do assert.same({ i, i * 2 }, seen[i]) end
    assert.equal(0, stream:in_flight())
  end)

  it("refuses what there is no room for", function()
    local stream = double(util.engine(1)):stream { max_in_flight = 2 }
    assert.is_true(stream:push(1))
    assert.is_true(stream:push(2))
    local pushed, err = stream:push(3)
    assert.is_nil(pushed)
    assert.equal("queue_full", err.code)
    assert.equal(1, (stream:results()()))
    assert.is_true(stream:push(4))
    assert.same({ 2, 4 }, inputs_of(seen_by(stream:results())))
  end)

  it("refuses what cannot travel, which takes no place", function()
    local stream = double(util.engine(1)):stream { max_in_flight = 1 }
    local pushed, err = stream:push { print }
    assert.is_nil(pushed)
    assert.equal("invalid_payload", err.code)
    assert.is_true(stream:push(1))
    assert.equal(1, stream:in_flight())
  end)

  it("pushes false, and nulls", function()
    local dag = assert(util.engine(1):dag(tm.dag { tm.transform("kind", type) }))
    local stream = dag:stream {}
    stream:push(false)
    stream:push(tm.null)
    assert.same({ { false, "boolean" }, { tm.null, "userdata" } }, seen_by(stream:results()))
  end)

  it("does not wait with 0 seconds, nor longer than it is told", function()
    local dag, gate = gated(util.engine(1))
    local stream = dag:stream {}
    assert.is_true(stream:push "wait")
    assert.is_nil((stream:results(0)()))
    assert.is_nil((stream:results(0.01)()))
    assert.equal(1, stream:in_flight())
    gate.open()
    assert.equal("wait", (stream:results(30)()))
    assert.is_nil((stream:results(30)())) -- nothing is in flight, so there is nothing to wait for
  end)

  it("hands back what settles first, unless it is ordered", function()
    local dag, gate = gated(util.engine(2))
    local ordered, other = dag:stream {}, dag:stream { ordered = false }
    other:push "wait"
    other:push "pass"
    assert.equal("pass", (other:results()()))
    assert.is_nil((other:results(0)()))
    gate.open()
    assert.equal("wait", (other:results()()))
    ordered:push "wait"
    ordered:push "pass"
    assert.same({ "wait", "pass" }, inputs_of(seen_by(ordered:results())))
  end)

  it("begins what was pushed whether or not anybody takes it", function()
    local dag = assert(util.engine(1):dag(tm.dag { tm.transform("write", function(path)
      io.open(path, "w"):close()
      return path
    end) }))
    local stream, path = dag:stream {}, util.path ".begun"
    stream:push(path)
    util.await(path)
    assert.equal(path, (stream:results()()))
  end)

  it("may be pushed into from the loop over its results", function()
    local stream, sum = double(util.engine(2)):stream { max_in_flight = 3 }, 0
    local next_input = source_of(200)
    while stream:in_flight() < 3 do stream:push(next_input()) end
    for _, result in stream:results() do
      sum = sum + result.payload
      local input = next_input()
      if input then assert.is_true(stream:push(input)) end
    end
    assert.equal(200 * 201, sum)
  end)

  it("is itself an iterator", function()
    local stream = double(util.engine(1)):stream { max_in_flight = 4 }
    for i = 1, 4 do stream:push(i) end
    assert.same({ 1, 2, 3, 4 }, inputs_of(seen_by(stream)))
  end)

  it("refuses pushes and has no results once it is closed", function()
    local stream = double(util.engine(1)):stream {}
    stream:push(1)
    local results = stream:results()
    stream:close()
    assert.equal("closed", select(2, stream:push(2)).code)
    assert.is_nil((results()))
    assert.equal(0, stream:in_flight())
  end)

  it("hands back as cancelled what was in flight when the engine was closed", function()
    local engine = tm.engine { workers = 1 }
    local dag, path = spinning(engine), util.path ".started"
    local stream = dag:stream { max_in_flight = 3 }
    stream:push(path)
    stream:push "pass"
    util.await(path)
    engine:close()
    assert.equal("closed", select(2, stream:push "pass").code)
    assert.same({ { path, nil, "cancelled" }, { "pass", nil, "cancelled" } }, seen_by(stream:results()))
  end)

  it("counts in engine:pending until it is taken", function()
    local engine = util.engine(1)
    local stream = double(engine):stream { max_in_flight = 8 }
    for i = 1, 8 do stream:push(i) end
    assert.equal(8, engine:pending())
    stream:results()()
    assert.equal(7, engine:pending())
    stream:close()
    assert.equal(0, engine:pending())
  end)
end)

describe("dag:map", function()
  after_each(util.cleanup)

  it("returns the results by index", function()
    local results, errors = double(util.engine(2)):map { 1, 2, 3 }
    assert.is_nil(errors)
    assert.equal(3, #results)
    for i, result in ipairs(results) do assert.equal(i * 2, result.payload) end
  end)

  it("returns errors by index, and false where there is no result", function()
    local list = numbers(15)
    list[7] = print
    local results, errors = moody(util.engine(2)):map(list, { max_in_flight = 3 })
    assert.equal(15, #results)
    assert.same({ 3, 5, 6, 7, 9, 10, 12 }, util.keys(errors))
    for i in pairs(errors) do assert.is_false(results[i]) end
    assert.equal("invalid_payload", errors[7].code)
    assert.equal("got 10", results[1].payload)
  end)

  it("has results and errors for the same item where runs go on after failures", function()
    local results, errors = moody(util.engine(1), "best_effort"):map { 3 }
    assert.equal("got 3", results[1].payload)
    assert.equal("processor_failed", errors[1].code)
  end)

  it("maps nothing to nothing, and false to what it is", function()
    local dag = assert(util.engine(1):dag(tm.dag { tm.transform("kind", type) }))
    assert.same({}, (dag:map {}))
    assert.equal("boolean", dag:map({ false })[1].payload)
  end)

  it("takes the options of a stream but for the order", function()
    local dag = double(util.engine(1))
    assert.equal(2, dag:map({ 1 }, { ordered = true, max_in_flight = 1, profile = true })[1].payload)
    util.assert_raises_here(function() dag:map({ 1 }, { ordered = false }) end, "ordered")
  end)
end)

describe("Misuse of streams is raised at the caller's line:", function()
  local dag, stream

  setup(function()
    dag = double(util.engine(1))
    stream = dag:stream {}
  end)

  teardown(util.cleanup)

  it("sources that are none", function()
    util.assert_raises_here(function() dag:stream(42) end, "must be a function", "number")
    util.assert_raises_here(function() dag:stream(nil) end, "must be a function", "nil")
    util.assert_raises_here(function() dag:stream({}, {}) end, "must be a function", "table")
    util.assert_raises_here(function() dag:stream { "a", "b" } end, "dag:map")
  end)

  it("options that are none", function()
    util.assert_raises_here(function() dag:stream(print, 42) end, "must be a table", "number")
    util.assert_raises_here(function() dag:map({}, "x") end, "must be a table", "string")
    util.assert_raises_here(function() dag:stream(print, { max_in_fligth = 1 }) end, "did you mean 'max_in_flight'")
    util.assert_raises_here(function() dag:stream(print, { nope = 1 }) end, "max_in_flight, metadata, ordered")
    util.assert_raises_here(function() dag:stream { [print] = 1 } end, "unknown option")
  end)

  it("options of the wrong kind", function()
    for _, most in ipairs { 0, -1, 1.5, 2 ^ 20 + 1, 0 / 0, 1 / 0, "8", true } do
      util.assert_raises_here(function() dag:stream(print, { max_in_flight = most }) end, "whole number")
    end
    util.assert_raises_here(function() dag:stream { ordered = 1 } end, "true or false")
    util.assert_raises_here(function() dag:stream { timeout = "1" } end, "timeout")
    util.assert_raises_here(function() dag:stream { strategy = "fast" } end, "strategy")
    util.assert_raises_here(function() dag:map({}, { profile = 1 }) end, "profile")
  end)

  it("methods", function()
    util.assert_raises_here(function() dag.stream(print) end, "colon")
    util.assert_raises_here(function() dag.map {} end, "colon")
    util.assert_raises_here(function() dag:map(print) end, "list", "function")
    util.assert_raises_here(function() stream:push() end, "payload")
    util.assert_raises_here(function() stream:push(nil) end, "nil")
    util.assert_raises_here(function() stream.push(1) end, "tidemill.stream")
    util.assert_raises_here(function() stream:results "soon" end, "stream:results takes a number of seconds")
    util.assert_raises_here(function() stream:results(-1) end, "seconds")
    util.assert_raises_here(function() stream:results(0 / 0) end, "seconds")
  end)

  it("metadata that cannot travel is an error, not misuse", function()
    local made, err = dag:stream(print, { metadata = { f = print } })
    assert.is_nil(made)
    assert.equal("invalid_payload", err.code)
    assert.equal("invalid_payload", select(2, dag:map({ 1 }, { metadata = { double = 1 } })).code)
  end)
end)

describe("The memory of a stream", function()
  after_each(util.cleanup)

  local function weak(list)
    return setmetatable(list or {}, { __mode = "k" })
  end

  it("lets go of inputs that were handed back", function()
    local alive, source = weak(), source_of(200)
    local dag = assert(util.engine(2):dag(tm.dag { tm.transform("kind", type) }))
    local stream = dag:stream(function()
      local n = source()
      local input = n and { n }
      if input then alive[input] = true end
      return input
    end, { max_in_flight = 4 })
    for _ = 1, 100 do stream() end
    collect()
    local count = 0
    for _ in pairs(alive) do count = count + 1 end
    assert.is_true(count <= 4, count .. " inputs are alive")
    stream:close()
  end)

  it("is freed with it: source, inputs, errors", function()
    local alive = weak()
    do
      local engine = tm.engine { workers = 1 }
      local dag = double(engine)
      for i = 1, 20 do
        local input, source = { i }, source_of { 1, print, 2 }
        local own = function() return source() or input end
        local stream = dag:stream(own, { max_in_flight = 5 })
        stream()
        stream()
        alive[stream], alive[input], alive[own] = true, true, true
      end
      engine:close()
    end
    collect()
    collect()
    assert.is_nil((next(alive)))
  end)

  -- A userdata or table whose collection calls `finalizer`.
  local function bomb(finalizer)
    local newproxy = rawget(_G, "newproxy") -- luacheck: ignore 113
    if not newproxy then return setmetatable({}, { __gc = finalizer }) end
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = finalizer
    return proxy
  end

  it("survives finalizers that close the stream at any moment", function()
    local dag, stream = double(util.engine(2)), nil
    local closed = 0
    local function finalizer()
      if stream then
        stream:close()
        closed = closed + 1
      end
    end
    local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 1000)
    for round = 1, 60 do
      local source = source_of(30)
      stream = dag:stream(function()
        local n = source()
        if n == round % 30 then bomb(finalizer) end
        if n == round % 30 + 1 and round % 10 == 0 then collectgarbage() end
        return n and (n % 3 ~= 0 and { print } or n)
      end, { max_in_flight = 8 })
      for _ in stream do end -- luacheck: ignore 542
      stream = nil
    end
    collectgarbage("setpause", pause)
    collectgarbage("setstepmul", multiplier)
    collect()
    assert.is_true(closed > 0)
  end)

  it("does not grow with the number of items", function()
    if not resident() then return pending "no /proc" end
    if os.getenv "TSAN_OPTIONS" then return pending "sanitizers keep what was freed" end
    local dag = assert(util.engine(2):dag(tm.dag {
      tm.transform("a", function(n) return ("%08d"):format(n):rep(4) end),
      tm.analyze("b", { depends_on = "a", run = function(text) return { size = #text } end }),
    }))
    local function stream(count, ordered)
      local sum = 0
      for _, result in dag:stream(source_of(count), { ordered = ordered }) do sum = sum + result.metadata.b.size end
      assert.equal(32 * count, sum)
      collect()
    end
    stream(20000, true)
    local before = resident()
    for _, ordered in ipairs { true, false } do stream(100000, ordered) end
    local grown = resident() - before
    assert.is_true(grown < 4096, grown .. " KiB more")
  end)
end)

describe("bench/long_stream.lua", function()
  it("streams as many items as it is told, and says what that took", function()
    if os.getenv "TSAN_OPTIONS" then return pending "sanitizers keep what was freed" end
    local finished = process.lua { "bench/long_stream.lua", "5000" }
    assert.equal("", finished.stderr)
    util.assert_contains(finished.stdout, "5000 items", "KiB")
  end)
end)
