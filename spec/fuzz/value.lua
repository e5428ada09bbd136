-- SPDX-License-Identifier: MIT
-- Any value through a run: it comes out as it went in, or is refused with a path.
local tm = require "tidemill"
local build = require "spec.fuzz.build"
local render = require "spec.support.render"

local engine = tm.engine { workers = 1 }
local dag = assert(engine:dag(tm.dag { tm.transform("it", function(payload) return { payload } end) }))

return function(bytes)
  local value = build(bytes):value()
  local result, err = dag:run(value, { metadata = { given = value } })
  if not result then
    assert(err.code == "invalid_payload", tostring(err))
    assert(err.message:find "^payload" or err.message:find "^metadata", err.message)
    return
  end
  assert(render(result.payload[1]) == render(value), "it came out as something else")
end
