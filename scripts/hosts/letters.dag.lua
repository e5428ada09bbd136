-- SPDX-License-Identifier: MIT
-- Counts letters in C: for a host that has registered the native processor "count", as uv_host.c does.
local tm = require "tidemill"

return tm.dag {
  name = "letters",
  tm.transform("trim", function(text) return text:match "^%s*(.-)%s*$" end),
  tm.analyze "vowels" { depends_on = "trim", run = tm.native "count", options = { of = "aeiou" } },
  tm.analyze "spaces" { depends_on = "trim", run = tm.native "count", options = { of = " " } },
  tm.transform "report" { depends_on = { "vowels", "spaces" }, run = function(text, ctx)
    local found = ctx.metadata
    return ("%s: %d vowels, %d words"):format(text, found.vowels.count, found.spaces.count + 1)
  end },
}
