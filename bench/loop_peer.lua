-- SPDX-License-Identifier: MIT
-- A peer: no engine, one Lua state. A loop that runs what is ready, under pcall.
local M = {}

-- plan: see sides.lua
function M.graph(plan, callback)
  local out, pending, ready = {}, {}, {}
  local dependents, source, size = plan.dependents, plan.source, plan.size
  return function(payload)
    for i = 1, size do pending[i] = plan.pending[i] end
    local count = 0
    for _, entry in ipairs(plan.entries) do
      count = count + 1
      ready[count] = entry
    end
    while count > 0 do
      local position = ready[count]
      count = count - 1
      local from = source[position]
      local ok, answer = pcall(callback, from and out[from] or payload)
      if not ok then error(answer) end
      out[position] = answer
      local list = dependents[position]
      for i = 1, #list do
        local dependent = list[i]
        local left = pending[dependent] - 1
        pending[dependent] = left
        if left == 0 then
          count = count + 1
          ready[count] = dependent
        end
      end
    end
    return out[size]
  end
end

return M
