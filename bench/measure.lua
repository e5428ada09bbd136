-- SPDX-License-Identifier: MIT
-- Measures sides in turn. A side is a table with `sample`, a function that returns seconds per
-- unit (a processor, or a run), and perhaps `base`, the side it is compared with.
local bench = bench -- luacheck: ignore 113

local M = {}

local function shuffle(list)
  for i = #list, 2, -1 do
    local j = math.random(i)
    list[i], list[j] = list[j], list[i]
  end
end

local function take(side)
  collectgarbage "stop" -- the host's garbage is its own affair; it is collected between samples
  local time = side.sample()
  collectgarbage "restart"
  side.times[#side.times + 1] = time
  return time
end

-- Round after round, in another order each time, since a side is disturbed by the one before it.
-- A side with `every = n` takes part in each n-th round only. Ratios are taken within a round,
-- since the machine drifts.
function M.rounds(sides, seconds)
  local order, round, began = {}, 0, bench.now()
  for i, side in ipairs(sides) do
    order[i], side.times, side.ratios = side, {}, {}
    side.sample()
  end
  while round < 5 or bench.now() - began < seconds do
    local now = {}
    shuffle(order)
    collectgarbage()
    for _, side in ipairs(order) do
      if round % (side.every or 1) == 0 then now[side] = take(side) end
    end
    for side, time in pairs(now) do
      if side.base then side.ratios[#side.ratios + 1] = time / now[side.base] end
    end
    round = round + 1
  end
  return sides, round
end

-- median, lowest, highest; and the range that holds the middle half
function M.spread(list)
  table.sort(list)
  local function at(part) return list[math.max(1, math.ceil(#list * part))] end
  return { median = at(0.5), lowest = list[1], highest = list[#list], q1 = at(0.25), q3 = at(0.75), samples = #list }
end

-- seconds per call of `call`, over `calls` calls after one that does not count
function M.time(call, calls)
  call()
  local began = bench.now()
  for _ = 1, calls do call() end
  return (bench.now() - began) / calls
end

return M
