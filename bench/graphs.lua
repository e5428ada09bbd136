-- SPDX-License-Identifier: MIT
-- The graphs that are measured, as shapes: a list that has, for each processor, the list of the
-- processors it depends on, by position; those come earlier.
local M = {}

-- One after another.
function M.chain(length)
  local shape = {}
  for i = 1, length or 1000 do shape[i] = { i > 1 and i - 1 or nil } end
  return shape
end

-- One, then many side by side, then one.
function M.fanout(width)
  local shape, middle = { {} }, {}
  for i = 1, width or 1000 do
    middle[i] = i + 1
    shape[i + 1] = { 1 }
  end
  shape[#shape + 1] = middle
  return shape
end

-- Diamonds on top of each other.
function M.ladder(diamonds)
  local shape = {}
  for _ = 1, diamonds or 250 do
    local n = #shape
    shape[n + 1] = { n > 0 and n or nil }
    shape[n + 2] = { n + 1 }
    shape[n + 3] = { n + 1 }
    shape[n + 4] = { n + 2, n + 3 }
  end
  return shape
end

function M.diamond()
  return M.ladder(1)
end

-- 100 layers of 100; each depends on three of the layer before.
function M.layered(layers, width)
  local shape, seed = {}, 1
  layers, width = layers or 100, width or 100
  local function random(n)
    seed = (seed * 16807) % 2147483647
    return seed % n + 1
  end
  for layer = 1, layers do
    for i = 1, width do
      local depends_on, taken = {}, {}
      while layer > 1 and #depends_on < 3 do
        local pick = (layer - 2) * width + random(width)
        if not taken[pick] then
          taken[pick] = true
          depends_on[#depends_on + 1] = pick
        end
      end
      shape[(layer - 1) * width + i] = depends_on
    end
  end
  return shape
end

-- A DAG of that shape; run_of(position) is the callback of a processor.
function M.declare(shape, run_of)
  local tm = require "tidemill"
  local list = {}
  for i, depends_on in ipairs(shape) do
    local ids = {}
    for k, position in ipairs(depends_on) do ids[k] = "n" .. position end
    list[i] = tm.transform("n" .. i, { depends_on = ids, run = run_of(i) })
  end
  return tm.dag(list)
end

return M
