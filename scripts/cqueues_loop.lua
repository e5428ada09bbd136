-- SPDX-License-Identifier: MIT
-- A program: coroutines of a cqueues loop that wait for runs as they would for a socket. Needs cqueues (Debian:
-- lua-cqueues).
--   lua scripts/cqueues_loop.lua
local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local tm = require "tidemill"

local loop = cqueues.new()
local engine = tm.engine { workers = 2 }
local dag = assert(engine:dag(tm.dag {
  tm.transform("sum", function(count)
    local sum = 0
    for i = 1, count do sum = sum + i end
    return sum
  end),
}))

-- One coroutine steps for all. It ends when nothing is pending, so that an idle engine does not keep the loop alive.
local delivering = false
local function deliver()
  while engine:pending() > 0 do
    cqueues.poll(engine)
    engine:step()
  end
  delivering = false
end

-- What dag:run returns; other coroutines go on meanwhile.
local function run(payload)
  local settled, done, result, err = condition.new(), false, nil, nil
  assert(dag:start(payload, function(...)
    done, err, result = true, ...
    settled:signal()
  end))
  if not delivering then
    delivering = true
    loop:wrap(deliver)
  end
  while not done do settled:wait() end
  return result, err
end

local ticks, finished = 0, 0
for _, count in ipairs { 10, 1000, 2000000 } do
  loop:wrap(function()
    local result = assert(run(count))
    finished = finished + 1
    print(("1 + ... + %d = %.0f"):format(count, result.payload))
  end)
end
loop:wrap(function()
  repeat
    cqueues.sleep(0.001)
    ticks = ticks + 1
  until finished == 3
end)

assert(loop:loop())
engine:close()
print(ticks > 0 and "the timer ticked meanwhile" or "the timer did not tick")
