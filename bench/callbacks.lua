-- SPDX-License-Identifier: MIT
-- The callbacks that are measured, as source that returns the function: every side, the floor and
-- the peers too, loads the same text.
local M = {}

M.identity = "return function(payload) return payload end"

-- Another string of 32 bytes at each call, made by one concatenation.
M["new string"] = [[
  local heads, tails, i, j = {}, {}, 0, 0
  for n = 1, 211 do heads[n], tails[n] = ("head%012d"):format(n), ("tail%012d"):format(n) end
  return function()
    i, j = i % 211 + 1, j % 199 + 1
    return heads[i] .. tails[j]
  end]]

function M.load(source)
  return (loadstring or load)(source)() -- luacheck: ignore 113
end

return M
