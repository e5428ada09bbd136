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

-- A new string, as long as the payload but for a byte.
M.shorter = "return function(payload) return payload:sub(2) end"

-- For tables: another value in one field.
M["new field"] = "return function(payload) payload.field1 = (payload.field1 + 1) % 1000; return payload end"

-- Keeps a core busy; how long, bench/groups.lua finds out.
function M.busy(turns)
  local name = "busy " .. turns
  M[name] = ([[
    return function(payload)
      local x = 0
      for i = 1, %d do x = x + i %% 7 end
      return x < 0 and "" or payload
    end]]):format(turns)
  return name
end

function M.load(source)
  return (loadstring or load)(source)() -- luacheck: ignore 113
end

return M
