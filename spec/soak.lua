-- SPDX-License-Identifier: MIT
-- soak.lua [MINUTES] [SEED]: runs that fail, are tried again, time out and are cancelled, DAGs that are reloaded,
-- engines that are reopened. Every input has one outcome, and neither memory nor descriptors grow.
local tm = require "tidemill"

local minutes, seed = tonumber(arg[1]) or 1, tonumber(arg[2]) or 1
local WARM_UP, SLACK = 1 / 4, 8 -- of the time; MiB. Two descriptors may be those of counting them.

math.randomseed(seed)

local function declaration()
  return tm.dag {
    name = "soak", failure_strategy = "continue_on_error", limits = { db = 2 },
    tm.transform "pad" { run = function(n) return { n = n, text = ("x"):rep(n % 3000) } end },
    tm.analyze "count" { depends_on = "pad", uses = "db", run = function(p) return { size = #p.text } end },
    tm.analyze "flaky" { depends_on = "pad", uses = "db", retry = { max = 2, backoff = 0.0005 },
      run = function(p, ctx)
        if p.n % 7 == 0 and ctx.attempt < 3 then error { why = "flaky" } end
        if p.n % 31 == 0 then return nil, "never" end
        return {}
      end },
    tm.transform "slow" { depends_on = { "count", "flaky" }, timeout = 0.01, run = function(p)
      while p.n % 101 == 0 do end
      return p.n
    end },
  }
end

local function kilobytes()
  local file = assert(io.open "/proc/self/status")
  local size = file:read("*a"):match "VmRSS:%s*(%d+)"
  file:close()
  return tonumber(size)
end

local function descriptors()
  local pipe = io.popen "ls /proc/$PPID/fd | wc -l"
  local count = tonumber(pipe:read "*a")
  pipe:close()
  return count
end

local inputs, outcomes = 0, { completed = 0, failed = 0, cancelled = 0 }

-- What a settled run is counted as, once.
local function settle(entry, err, result)
  assert(not entry.settled, "it has settled twice")
  entry.settled = true
  if result and result.ok then
    assert(result.payload == entry.n, "it has another run's payload")
    outcomes.completed = outcomes.completed + 1
  elseif err.code == "cancelled" or err.code == "timeout" and not result then
    outcomes.cancelled = outcomes.cancelled + 1
  else
    assert(err.code == "processor_failed" or err.code == "timeout", tostring(err))
    outcomes.failed = outcomes.failed + 1
  end
end

local function start(dag, list)
  inputs = inputs + 1
  local entry = { n = inputs }
  list[#list + 1] = entry
  local options = inputs % 13 == 0 and { timeout = 0.003 } or nil
  entry.run = assert(dag:start(inputs, options, function(err, result) settle(entry, err, result) end))
  if math.random(17) == 1 then entry.run:cancel "by chance" end
end

-- A few thousand runs in an engine of their own, with a DAG that is replaced on the way.
local function round()
  local engine = tm.engine { workers = math.random(4) }
  for _ = 1, 4 do
    local dag, list = assert(engine:dag(declaration())), {}
    for _ = 1, 500 do
      start(dag, list)
      if math.random(40) == 1 then engine:step() end
      if math.random(40) == 1 then list[math.random(#list)].run:wait() end
    end
    for _, entry in ipairs(list) do entry.run:wait() end
    local deadline = os.time() + 20
    for _, entry in ipairs(list) do -- a run may have settled a moment before it is there for a step
      while not entry.settled do
        engine:step()
        assert(os.time() < deadline, "it was never told")
      end
    end
  end
  if math.random(2) == 1 then engine:close() end
end

local began, base = os.time(), nil
local ends = began + minutes * 60
repeat
  round()
  collectgarbage()
  collectgarbage()
  local now = { memory = kilobytes(), files = descriptors() }
  if not base and os.time() - began >= minutes * 60 * WARM_UP then base = now end
  if base then
    assert(now.memory < base.memory + SLACK * 1024,
      ("memory grew from %d to %d KiB"):format(base.memory, now.memory))
    assert(now.files <= base.files + 2, ("descriptors grew from %d to %d"):format(base.files, now.files))
  end
until os.time() >= ends

assert(inputs == outcomes.completed + outcomes.failed + outcomes.cancelled)
print(("soak: %d runs in %d s: %d completed, %d failed, %d cancelled; %d KiB, %d descriptors"):format(
  inputs, os.time() - began, outcomes.completed, outcomes.failed, outcomes.cancelled, kilobytes(), descriptors()))
