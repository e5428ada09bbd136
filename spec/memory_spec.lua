-- SPDX-License-Identifier: MIT
-- Without memory there is an error or success, never a crash, a hang or a leak: spec/host/starve.c. Every
-- TIDEMILL_STRIDE-th allocation fails (101); `make trust` has each fail.

local process = require "spec.support.process"

local STRIDE = tonumber(os.getenv "TIDEMILL_STRIDE") or 101

-- Memory is taken from everybody only where no sanitizer needs it too.
local function starve(scene, stride)
  local ended = process.lua {
    "spec/fixtures/starved.lua", scene, tostring(stride), program = process.built "starve",
    env = { TIDEMILL_MALLOC = "1" }, -- so that each allocation of Lua is one of malloc's
  }
  assert.equal("", ended.stderr)
  assert.equal(0, ended.status)
  assert.matches("^" .. scene .. ": %d+ times\n$", ended.stdout)
end

describe("When memory is refused", function()
  it("tm.engine succeeds or says so", function() starve("open", STRIDE) end)
  it("engine:load succeeds or says so", function() starve("load", STRIDE) end)
  it("engine:dag succeeds or says so", function() starve("carry", STRIDE) end)
  it("runs succeed, fail or do not start, and the engine works on", function()
    starve("run", math.ceil(STRIDE / 20))
  end)
  it("engine:close works", function() starve("close", 1) end)
  it("the end of the Lua state is the end of it all", function() starve("drop", 1) end)
end)
