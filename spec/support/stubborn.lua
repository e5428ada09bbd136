-- SPDX-License-Identifier: MIT
-- Callbacks that fight back when they are told to stop. Each entry of the list is { name, body }: body(deadline) goes
-- on until the deadline, a time of the clock, whatever is raised in it. Bodies have no upvalues: they can be carried.

local stubborn = {}

local function add(name, body)
  stubborn[#stubborn + 1] = { name = name, body = body }
end

add("a loop", function(deadline)
  while os.time() < deadline do end
end)

add("a repeat loop", function(deadline)
  repeat local late = os.time() >= deadline until late
end)

add("a numeric for loop", function(deadline)
  for _ = 1, 1e15 do
    if os.time() >= deadline then return end
  end
end)

add("a generic for loop with a Lua iterator", function(deadline)
  for _ in function() return os.time() < deadline or nil end do end
end)

add("a loop within pcall", function(deadline)
  pcall(function() while os.time() < deadline do end end)
end)

add("pcall in a loop", function(deadline)
  while os.time() < deadline do pcall(function() while os.time() < deadline do end end) end
end)

add("pcall within pcall within pcall", function(deadline)
  local function spin() while os.time() < deadline do end end
  local function swallow(f, ...) while os.time() < deadline do pcall(f, ...) end end
  while os.time() < deadline do pcall(swallow, pcall, swallow, spin) end
end)

add("a loop that swallows the stop and goes on in another loop", function(deadline)
  local function spin() while os.time() < deadline do end end
  if not pcall(spin) then spin() end
  if not pcall(spin) then spin() end
end)

add("an xpcall in a loop", function(deadline)
  while os.time() < deadline do
    xpcall(function() while os.time() < deadline do end end, function(message) return message end)
  end
end)

add("an xpcall whose handler would spin once it is stopped", function(deadline)
  xpcall(function() while os.time() < deadline do end end, function() while os.time() < deadline do end end)
end)

add("an xpcall whose handler spins after an error", function(deadline)
  xpcall(function() error "on purpose" end, function() while os.time() < deadline do end end)
end)

add("an xpcall whose handler calls pcall in a loop", function(deadline)
  xpcall(function() error "on purpose" end, function()
    while os.time() < deadline do pcall(function() while os.time() < deadline do end end) end
  end)
end)

add("an xpcall whose handler raises", function(deadline)
  while os.time() < deadline do
    xpcall(function() while os.time() < deadline do end end, function() error "in the handler" end)
  end
end)

add("a coroutine by wrap", function(deadline)
  coroutine.wrap(function() while os.time() < deadline do end end)()
end)

add("a coroutine by resume, again and again", function(deadline)
  while os.time() < deadline do
    coroutine.resume(coroutine.create(function() while os.time() < deadline do end end))
  end
end)

add("a coroutine that swallows the stop", function(deadline)
  coroutine.wrap(function()
    while os.time() < deadline do pcall(function() while os.time() < deadline do end end) end
  end)()
end)

add("coroutines within coroutines that swallow the stop", function(deadline)
  local function nest(depth)
    while os.time() < deadline do
      pcall(function()
        if depth == 0 then while os.time() < deadline do end end
        pcall(coroutine.wrap(nest), depth - 1)
      end)
    end
  end
  nest(8)
end)

add("a generator that never ends", function(deadline)
  for late in coroutine.wrap(function()
    while true do coroutine.yield(os.time() >= deadline) end
  end) do
    if late then return end
  end
end)

add("two coroutines that take turns", function(deadline)
  local function turns() while os.time() < deadline do coroutine.yield() end end
  local one, two = coroutine.create(turns), coroutine.create(turns)
  while coroutine.resume(one) and coroutine.resume(two) and os.time() < deadline do end
end)

add("an __index that spins", function(deadline)
  local object = setmetatable({}, { __index = function() while os.time() < deadline do end end })
  return object.field
end)

add("an __eq that spins", function(deadline)
  local meta = { __eq = function() while os.time() < deadline do end end }
  return setmetatable({}, meta) == setmetatable({}, meta)
end)

add("a __lt that spins", function(deadline)
  local meta = { __lt = function() while os.time() < deadline do end end }
  return setmetatable({}, meta) < setmetatable({}, meta)
end)

add("a __tostring that spins", function(deadline)
  return tostring(setmetatable({}, { __tostring = function()
    while os.time() < deadline do end
    return ""
  end }))
end)

add("a __concat that spins", function(deadline)
  return setmetatable({}, { __concat = function() while os.time() < deadline do end end }) .. "x"
end)

add("a __call that spins", function(deadline)
  setmetatable({}, { __call = function() while os.time() < deadline do end end })()
end)

add("an error with a __tostring that spins", function(deadline)
  error(setmetatable({}, { __tostring = function()
    while os.time() < deadline do end
    return ""
  end }))
end)

add("string.gsub with a replacement that spins", function(deadline)
  return (("text"):gsub(".", function() while os.time() < deadline do end end))
end)

add("string.gsub with a short replacement over a long text", function(deadline)
  while os.time() < deadline do
    pcall(string.gsub, ("x"):rep(1e5), ".", function(letter) return letter end)
  end
end)

add("table.sort with a comparator that spins", function(deadline)
  table.sort({ 3, 1, 2 }, function(a, b)
    while os.time() < deadline do end
    return a < b
  end)
end)

add("table.sort with a comparator that swallows the stop", function(deadline)
  local list = {}
  for position = 1, 1000 do list[position] = position * 7919 % 1000 end
  while os.time() < deadline do
    pcall(table.sort, list, function(a, b)
      pcall(function() for _ = 1, 1000 do os.time() end end)
      return a < b
    end)
  end
end)

add("recursion without end, caught each time", function(deadline)
  local function deeper() return 1 + deeper() end
  while os.time() < deadline do pcall(deeper) end
end)

add("tail calls without end", function(deadline)
  local function again() if os.time() < deadline then return again() end end
  return again()
end)

add("a chunk by load", function(deadline)
  local load_text = rawget(_G, "loadstring") or load -- luacheck: ignore 113
  load_text "local deadline = ... while os.time() < deadline do end"(deadline)
end)

add("a loop of chunks by load", function(deadline)
  local load_text = rawget(_G, "loadstring") or load -- luacheck: ignore 113
  while os.time() < deadline do pcall(load_text "for i = 1, 1000 do local x = os.time() end") end
end)

add("a function that wraps pcall in a metatable", function(deadline)
  local guard = setmetatable({}, { __index = function(self, key)
    pcall(function() while os.time() < deadline do end end)
    return os.time() < deadline and self[key .. "x"] or nil
  end })
  return guard.field
end)

-- What only some Luas can write.
if _VERSION ~= "Lua 5.1" then -- where tables have finalizers
  add("a finalizer that spins", function(deadline)
    setmetatable({}, { __gc = function() while os.time() < deadline do end end })
    collectgarbage()
    collectgarbage()
    while os.time() < deadline do end
  end)
end

local function add_text(name, text)
  local load_text = rawget(_G, "loadstring") or load -- luacheck: ignore 113
  local body = load_text("local deadline = ...\n" .. text, "=" .. name)
  if body then add(name, body) end
end

add_text("a goto loop", [[
  ::again::
  if os.time() < deadline then goto again end
]])

if _VERSION == "Lua 5.4" then
  add_text("a __close that spins", [[
    local guard <close> = setmetatable({}, { __close = function() while os.time() < deadline do end end })
  ]])

  add_text("a __close that spins once it is stopped", [[
    local guard <close> = setmetatable({}, { __close = function() while os.time() < deadline do end end })
    while os.time() < deadline do end
  ]])

  add_text("a __close that spins in a coroutine that is closed", [[
    local co = coroutine.create(function()
      local guard <close> = setmetatable({}, { __close = function() while os.time() < deadline do end end })
      coroutine.yield()
    end)
    coroutine.resume(co)
    coroutine.close(co)
  ]])

  add_text("a __close that spins in a coroutine that was stopped", [[
    coroutine.wrap(function()
      local guard <close> = setmetatable({}, { __close = function() while os.time() < deadline do end end })
      while os.time() < deadline do end
    end)()
  ]])

  add_text("a __close that spins in a coroutine within a coroutine that was stopped", [[
    coroutine.wrap(function()
      coroutine.wrap(function()
        local guard <close> = setmetatable({}, { __close = function() while os.time() < deadline do end end })
        while os.time() < deadline do end
      end)()
    end)()
  ]])

  add_text("a __close that swallows the stop in a loop", [[
    while os.time() < deadline do
      pcall(function()
        local guard <close> = setmetatable({}, { __close = function()
          while os.time() < deadline do pcall(function() while os.time() < deadline do end end) end
        end })
        error "on purpose"
      end)
    end
  ]])
end

return stubborn
