-- SPDX-License-Identifier: MIT
-- A peer: luv's new_work, with a coordinator in the main loop that queues a processor's work when
-- its dependencies are complete. Callbacks are kept in the states of libuv's pool.
local M = {}

local function in_pool(name, position, payload)
  local callback = _G[name]
  if not callback then
    local callbacks = require "bench.callbacks"
    callback = callbacks.load(callbacks[name])
    _G[name] = callback
  end
  return position, callback(payload)
end

-- plan: see sides.lua; name: of a callback in bench/callbacks.lua
function M.graph(plan, name)
  local uv = require "luv"
  local out, pending, work = {}, {}, nil
  local dependents, source, input = plan.dependents, plan.source, nil

  work = uv.new_work(in_pool, function(position, payload)
    out[position] = payload
    local list = dependents[position]
    for i = 1, #list do
      local dependent = list[i]
      local left = pending[dependent] - 1
      pending[dependent] = left
      if left == 0 then work:queue(name, dependent, out[source[dependent]]) end
    end
  end)

  return function(payload)
    input = payload
    for i = 1, plan.size do pending[i] = plan.pending[i] end
    for _, entry in ipairs(plan.entries) do work:queue(name, entry, input) end
    uv.run()
    return out[plan.size]
  end
end

return M
