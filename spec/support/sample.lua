-- SPDX-License-Identifier: MIT
-- A module for the specs of what travels into workers. It can't travel itself, as it has a userdata; a worker requires
-- it like anyone.
local sample = { file = io.stdout, loads = 0 }

function sample.greet(name)
  return "hello " .. name
end

return sample
