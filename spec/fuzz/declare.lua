-- SPDX-License-Identifier: MIT
-- Any table as a DAG: there is a DAG that runs, problems, or an error raised at the caller.
local tm = require "tidemill"
local build = require "spec.fuzz.build"

local engine = tm.engine { workers = 1 }

local keys = {
  "name", "strategy", "failure_strategy", "max_concurrency", "timeout", "limits", "profile", "depends_on", "run",
  "when", "setup", "options", "payload_from", "uses", "retry", "max", "backoff", "factor", "jitter", "max_backoff",
  "seed", "a", "b", "c", "db", 1, 2, 3, "reactive", "work_queue", "continue_on_error", "best_effort",
}

local function key(reader) return reader:pick(keys) end

local ids = { "a", "b", "c", "d", "" }

local function processor(reader)
  local make = reader:byte() % 2 == 0 and tm.transform or tm.analyze
  local id = reader:byte() % 8 == 0 and reader:value(0, key) or reader:pick(ids)
  if reader:byte() % 4 == 0 then return make(id, reader:value(0, key)) end
  local options = { run = function(payload) return payload end }
  for _ = 1, reader:byte() % 4 do
    local name = reader:pick(keys)
    options[name] = reader:byte() % 2 == 0 and reader:pick(ids) or reader:value(0, key)
  end
  return make(id)(options)
end

local function declaration(reader)
  if reader:byte() % 8 == 0 then return reader:value(0, key) end
  local made = {}
  for index = 1, reader:byte() % 6 do made[index] = processor(reader) end
  for _ = 1, reader:byte() % 4 do made[reader:pick(keys)] = reader:value(0, key) end
  return made
end

local function is_clean(err)
  return type(err) == "string" and not err:find("tidemill/%w+%.lua:") and not err:find "attempt to"
end

return function(bytes)
  local reader = build(bytes)
  reader.callback = function() return function(payload) return payload end end
  local ok, dag = pcall(function() return tm.dag(declaration(reader)) end)
  if not ok then return assert(is_clean(dag), dag) end
  local made, err = engine:dag(dag)
  if not made then return assert(err.code == "invalid_dag", tostring(err)) end
  made:run("x", { timeout = 0.05 })
end
