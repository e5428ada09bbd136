-- SPDX-License-Identifier: MIT
-- Functions with any upvalues, shared ones and functions among them: they are carried as they are, or refused.
local tm = require "tidemill"
local build = require "spec.fuzz.build"
local render = require "spec.support.render"

local engine = tm.engine { workers = 1 }

local function closures(reader)
  local a, b = reader:value(), reader:value()
  local function read() return a, b end
  local function swap() a, b = b, a return read() end
  local function deeper() return read() end
  return { read, swap, deeper, function() return a end }
end

return function(bytes)
  local reader = build(bytes)
  local list
  reader.callback = function() return list and reader:pick(list) or string.rep end
  for _ = 1, 1 + reader:byte() % 3 do list = closures(reader) end
  local call = reader:pick(list)
  local wanted = { pcall(call) }
  local dag, err = engine:dag(tm.dag { tm.transform("it", function() return { call() } end) })
  if not dag then return assert(err.code == "invalid_dag" and err.message:find "upvalue", tostring(err)) end
  local result, why = dag:run "x"
  if not result then return assert(why.code == "invalid_payload" or why.code == "invalid_response"
    or why.message:find "payload", tostring(why)) end
  assert(#wanted > 0 and type(render(result.payload)) == "string")
end
