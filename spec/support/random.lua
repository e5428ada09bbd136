-- SPDX-License-Identifier: MIT
-- A small random number generator (Park and Miller's) that yields the same numbers on every Lua: all products stay
-- below 2^53.

local random = {}
random.__index = random

local MODULUS, MULTIPLIER = 2147483647, 16807

function random.new(seed)
  local self = setmetatable({ state = (seed * 7919 + 104729) % (MODULUS - 1) + 1 }, random)
  for _ = 1, 8 do self:next() end
  return self
end

function random:next()
  self.state = (self.state * MULTIPLIER) % MODULUS
  return self.state
end

-- An integer in low..high.
function random:between(low, high)
  return low + self:next() % (high - low + 1)
end

-- True once in `times` on average.
function random:once_in(times)
  return self:next() % times == 0
end

function random:pick(list)
  return list[self:between(1, #list)]
end

function random:shuffle(list)
  for last = #list, 2, -1 do
    local other = self:between(1, last)
    list[last], list[other] = list[other], list[last]
  end
  return list
end

return random
