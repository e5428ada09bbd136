-- SPDX-License-Identifier: MIT
-- luv, or false. It cannot be loaded into one state twice, and busted forgets modules between files: so it is kept
-- where busted does not look.
local registry = debug.getregistry()
local KEY = "spec.support.luv"

if registry[KEY] == nil then
  local found, uv = pcall(require, "luv")
  registry[KEY] = found and uv
end
return registry[KEY]
