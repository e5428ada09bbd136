-- SPDX-License-Identifier: MIT
-- What libFuzzer has found worth keeping, once more, on every Lua. (ctest does the same with spec/fuzz/calls.c.)
-- Fuzzing itself is `make fuzz`.

local function inputs(target)
  local pipe, list = assert(io.popen("ls spec/fuzz/corpus/" .. target .. "/*")), {}
  for path in pipe:lines() do
    local file = assert(io.open(path, "rb"))
    list[path] = file:read "*a"
    file:close()
  end
  pipe:close()
  assert.is_truthy(next(list))
  return list
end

describe("Fuzzing has no finding in", function()
  local targets = { ["the value converter"] = "value", ["declarations"] = "declare", ["upvalues"] = "carry" }
  for name, target in pairs(targets) do
    it(name, function()
      local try = dofile("spec/fuzz/" .. target .. ".lua")
      for path, bytes in pairs(inputs(target)) do
        local ok, why = pcall(try, bytes)
        assert.is_true(ok, path .. ": " .. tostring(why))
      end
    end)
  end
end)
