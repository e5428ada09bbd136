-- SPDX-License-Identifier: MIT
-- The graphs that are measured: each function returns a list of processors of one callback.
local tm = require "tidemill"

local M = {}

local function node(list, id, depends_on, run)
  list[#list + 1] = tm.transform(id, { depends_on = depends_on, run = run })
  return id
end

-- One after another.
function M.chain(run, length)
  local list, last = {}, nil
  for i = 1, length or 1000 do last = node(list, "c" .. i, last, run) end
  return list
end

-- One, then many side by side, then one.
function M.fanout(run, width)
  local list, middle = {}, {}
  node(list, "first", nil, run)
  for i = 1, width or 1000 do middle[i] = node(list, "m" .. i, "first", run) end
  node(list, "last", middle, run)
  return list
end

-- Diamonds on top of each other.
function M.ladder(run, diamonds)
  local list, last = {}, nil
  for i = 1, diamonds or 250 do
    local top = node(list, "t" .. i, last, run)
    local left, right = node(list, "l" .. i, top, run), node(list, "r" .. i, top, run)
    last = node(list, "b" .. i, { left, right }, run)
  end
  return list
end

function M.diamond(run)
  return M.ladder(run, 1)
end

-- 100 layers of 100; each depends on three of the layer before.
function M.layered(run)
  local list, seed = {}, 1
  local function random(n)
    seed = (seed * 16807) % 2147483647
    return seed % n + 1
  end
  for layer = 1, 100 do
    for i = 1, 100 do
      local depends_on, taken = {}, {}
      while layer > 1 and #depends_on < 3 do
        local pick = random(100)
        if not taken[pick] then
          taken[pick] = true
          depends_on[#depends_on + 1] = ("n%d.%d"):format(layer - 1, pick)
        end
      end
      node(list, ("n%d.%d"):format(layer, i), depends_on, run)
    end
  end
  return list
end

return M
