-- SPDX-License-Identifier: MIT
-- Includes point one way, and the one list of sources is complete.

local function lines_of(command)
  local pipe, list = assert(io.popen(command)), {}
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  assert.is_true(#list > 0, command)
  return list
end

-- file, what it includes
local function includes(room)
  local list = {}
  for _, path in ipairs(lines_of("ls " .. room .. "/*.[ch]")) do
    for line in io.lines(path) do
      local what = line:match '^%s*#%s*include%s*[<"]([^>"]+)[>"]'
      if what then list[#list + 1] = { path, what } end
    end
  end
  return list
end

-- Where threads, time and loops live.
local knows_libuv = {
  ["engine/blocking.h"] = true, ["engine/clock.h"] = true, ["engine/control.h"] = true,
  ["engine/engine.h"] = true, ["engine/executor_work_queue.c"] = true, ["engine/limits.c"] = true,
  ["engine/pool.h"] = true, ["engine/pool_shared.h"] = true, ["engine/settled.h"] = true,
  ["engine/thread.h"] = true, ["engine/worker.h"] = true,
}

describe("The engine", function()
  it("knows no Lua", function()
    for _, pair in ipairs(includes "engine") do
      assert.is_nil(pair[2]:find "^lua" or pair[2]:find "^lauxlib", pair[1])
    end
  end)

  it("includes itself, libuv and the C library only", function()
    for _, pair in ipairs(includes "engine") do
      assert.is_true(pair[2]:find "^engine/" ~= nil or not pair[2]:find "/", pair[1] .. ": " .. pair[2])
    end
  end)

  it("includes libuv only where threads, time and loops live", function()
    for _, pair in ipairs(includes "engine") do
      if pair[2] == "uv.h" then assert.is_true(knows_libuv[pair[1]], pair[1]) end
    end
  end)
end)

describe("The bindings", function()
  it("keep no references in the registry, where nobody would count them", function()
    for _, path in ipairs(lines_of "ls bindings/*.c") do
      for line in io.lines(path) do assert.is_nil(line:find("luaL_ref", 1, true), path) end
    end
  end)

  it("include themselves, the engine, Lua and the C library only", function()
    for _, pair in ipairs(includes "bindings") do
      local ok = pair[2]:find "^engine/" or pair[2]:find "^bindings/" or not pair[2]:find "/"
      assert.is_true(ok ~= nil and ok ~= false and pair[2] ~= "uv.h", pair[1] .. ": " .. pair[2])
    end
  end)
end)

describe("The rockspec", function()
  it("lists every C source there is, and no other", function()
    local spec = {}
    local chunk = assert(loadfile "tidemill-dev-1.rockspec")
    if rawget(_G, "setfenv") then
      setfenv(chunk, spec) -- luacheck: ignore 113
    else
      chunk = assert(loadfile("tidemill-dev-1.rockspec", "t", spec))
    end
    chunk()
    local listed = {}
    for _, path in ipairs(spec.build.modules["tidemill.core"].sources) do listed[path] = true end
    for _, path in ipairs(lines_of "ls engine/*.c bindings/*.c") do
      assert.is_true(listed[path], path)
      listed[path] = nil
    end
    assert.is_nil((next(listed)))
  end)

  it("lists every Lua module there is", function()
    local text = assert(io.open "tidemill-dev-1.rockspec"):read "*a"
    for _, path in ipairs(lines_of "ls bindings/tidemill/*.lua bindings/tidemill/*/*.lua bin/*.lua") do
      assert.is_truthy(text:find('"' .. path .. '"', 1, true), path)
    end
  end)
end)
