-- SPDX-License-Identifier: MIT
-- Measures sides in turn. A side is a table with `sample`, a function that returns seconds per
-- unit (a processor, or a run), and perhaps how many seconds other processes of its waited for a
-- core; bench.waited tells of this one. `crowded`: it has more busy threads than there are cores.
local bench = bench -- luacheck: ignore 113

local M = {}

local function shuffle(list)
  for i = #list, 2, -1 do
    local j = math.random(i)
    list[i], list[j] = list[j], list[i]
  end
end

local TRIES, DISTURBED = 4, 0.05

-- Each sample begins without garbage, and pays for what it makes. Where other programs kept this one
-- from its cores for a part of the sample, it is taken again, and the least disturbed one counts.
local function take(side)
  local best, least = nil, math.huge
  for _ = 1, side.crowded and 1 or TRIES do
    collectgarbage()
    local waited, began = bench.waited(), bench.now()
    local time, more = side.sample()
    local took = bench.now() - began
    local share = (bench.waited() - waited + (more or 0)) / took
    if share < least then best, least = time, share end
    if least < DISTURBED or side.crowded then return best end
  end
  side.disturbed = side.disturbed + 1
  return best
end

-- Other programs had the cores in most samples: what a clock says of this side means little.
function M.unsure(side)
  local samples = 0
  for _ in pairs(side.times) do samples = samples + 1 end
  return side.disturbed > samples / 2
end

-- Round after round, each in another order, since a side is disturbed by the one before it. A side
-- with `every = n` takes part in each n-th round only. Fills side.times[round].
function M.rounds(sides, seconds)
  local order, round, began = {}, 0, bench.now()
  for i, side in ipairs(sides) do
    order[i], side.times, side.disturbed = side, {}, 0
    side.sample() -- warms it up
  end
  while round < 5 or bench.now() - began < seconds do
    round = round + 1
    shuffle(order)
    for _, side in ipairs(order) do
      if (round - 1) % (side.every or 1) == 0 then side.times[round] = take(side) end
    end
  end
end

-- Median, lowest and highest, and what holds the middle half. Takes any table of numbers.
function M.spread(numbers)
  local list = {}
  for _, number in pairs(numbers) do list[#list + 1] = number end
  table.sort(list)
  local function at(part) return list[math.max(1, math.ceil(#list * part))] end
  return { median = at(0.5), lowest = list[1], highest = list[#list], q1 = at(0.25), q3 = at(0.75), samples = #list }
end

-- How many times `other` a side takes: of each round, since the machine drifts.
function M.ratio(side, other, units)
  local ratios = {}
  for round, time in pairs(side.times) do
    if other.times[round] then ratios[round] = time / other.times[round] / (units or 1) end
  end
  return M.spread(ratios)
end

-- seconds per call of `call`, over `calls` calls after one that does not count
function M.time(call, calls)
  call()
  local began = bench.now()
  for _ = 1, calls do call() end
  return (bench.now() - began) / calls
end

return M
