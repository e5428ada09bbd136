-- SPDX-License-Identifier: MIT
-- A busted helper: once the specs have run and their Lua state is being closed, no value, block of values, run, program
-- or engine may be left. (Lua 5.1 and LuaJIT end the process without closing the state.)
local core = require "tidemill.core"

local function complain(live)
  io.stderr:write(("\nleaked: %d values, %d blocks, %d runs, %d programs, %d engines\n"):format(live.values,
    live.blocks, live.runs, live.programs, live.engines))
  os.exit(3)
end

local function check()
  local live = core.live()
  for _, count in pairs(live) do
    if count ~= 0 then complain(live) end
  end
end

if core.live() and newproxy == nil then -- luacheck: ignore 113
  -- Finalizers run in the opposite order of their making, so this one is the last.
  package.loaded["spec.support.leaks.sentinel"] = setmetatable({}, { __gc = check })
end
