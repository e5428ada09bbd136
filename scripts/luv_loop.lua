-- SPDX-License-Identifier: MIT
-- A program: a stream that a luv loop pushes into and takes from, between the ticks of a timer. Needs luv (Debian:
-- lua-luv).
--   lua scripts/luv_loop.lua
local tm = require "tidemill"
local uv = require "luv"

local engine = tm.engine { workers = 2 }
local dag = assert(engine:dag(tm.dag {
  tm.transform("sum", function(count)
    local sum = 0
    for i = 1, count do sum = sum + i end
    return sum
  end),
}))

local stream = dag:stream { max_in_flight = 16 }
local poll, timer = uv.new_poll(engine:pollfd()), uv.new_timer()
local pushed, sum, ticks = 0, 0, 0

local function feed()
  while pushed < 500 and stream:push(1000 * (pushed + 1)) do pushed = pushed + 1 end
end

-- First step, then take: what settles later makes the descriptor readable again.
local function deliver()
  engine:step()
  for _, result, err in stream:results(0) do
    sum = sum + assert(result, err).payload
  end
  feed()
  if engine:pending() == 0 then -- an active poll would keep the loop alive
    poll:stop()
    timer:stop()
  end
end

feed()
poll:start("r", deliver)
timer:start(0, 1, function() ticks = ticks + 1 end)
uv.run()

poll:close() -- before the engine, whose descriptor it polls
timer:close()
uv.run()
engine:close()
print(("%d runs, %.0f in all"):format(pushed, sum))
print(ticks > 0 and "the timer ticked meanwhile" or "the timer did not tick")
