-- SPDX-License-Identifier: MIT
-- Which payload goes on where branches join? Never the one that was first or last to finish, always the same one.
--
--   tidemill run scripts/diamond.dag.lua
--   echo moon | tidemill run scripts/diamond.dag.lua --format payload
--
--              ┌──────── left ───────┐
--              │                     │
--   start ─────┼─ deep ── deeper ────┼──── tie, depth, named, both ──── answer
--              │                     │
--              └──────── right ──────┘
--
-- The rule: the deepest transform wins; of equally deep ones, the one that is declared later. A processor that
-- wants another branch names it with payload_from; one that wants several reads ctx.dependencies.
--
-- Every transform here appends its own id to what it received, so that a payload tells the way it took.

local tm = require "tidemill"

local function append_id(payload, ctx)
  return payload .. " > " .. ctx.id
end

-- An analyze reports what it saw: it can look at the payload, but not change it.
local function saw(payload)
  return { saw = payload }
end

local function saw_both(_, ctx)
  return { saw = ctx.dependencies.left.payload .. "   and   " .. ctx.dependencies.right.payload }
end

local QUESTIONS = {
  { "tie", "left and right are equally deep: right is declared later" },
  { "depth", "deeper is the deepest, although it is declared first" },
  { "named", 'payload_from = "left" takes that branch' },
  { "both", "ctx.dependencies has every branch" },
}

local function write_answer(payload, ctx)
  local lines = {}
  for _, question in ipairs(QUESTIONS) do
    local id, why = question[1], question[2]
    lines[#lines + 1] = ("%-6s saw  %s\n            (%s)\n"):format(id, ctx.metadata[id].saw, why)
  end
  return table.concat(lines)
    .. ("answer saw  %s\n            (its dependencies only looked: the deepest transform wins)\n"):format(payload)
end

return tm.dag {
  name = "diamond",

  tm.transform("start", function(payload)
    if type(payload) ~= "string" or not payload:find "%S" then return "start" end
    return payload:match "^%s*(.-)%s*$"
  end),

  tm.transform "deep"   { depends_on = "start", run = append_id },
  tm.transform "deeper" { depends_on = "deep",  run = append_id },
  tm.transform "left"   { depends_on = "start", run = append_id },
  tm.transform "right"  { depends_on = "start", run = append_id },

  tm.analyze "tie"   { depends_on = { "left", "right" }, run = saw },
  tm.analyze "depth" { depends_on = { "deeper", "left", "right" }, run = saw },
  tm.analyze "named" { depends_on = { "deeper", "left", "right" }, payload_from = "left", run = saw },
  tm.analyze "both"  { depends_on = { "left", "right" }, run = saw_both },

  tm.transform "answer" { depends_on = { "tie", "depth", "named", "both" }, run = write_answer },
}
