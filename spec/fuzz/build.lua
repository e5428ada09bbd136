-- SPDX-License-Identifier: MIT
-- Makes Lua values of bytes: each byte decides something, and where they end everything is 0.
local Reader = {}
Reader.__index = Reader

local function new(bytes)
  return setmetatable({ bytes = bytes, at = 0, tables = {}, left = 200 }, Reader)
end

function Reader:byte()
  self.at = self.at + 1
  return self.bytes:byte(self.at) or 0
end

function Reader:pick(list)
  return list[self:byte() % #list + 1]
end

function Reader:text()
  local size = self:byte() % 20
  local text = self.bytes:sub(self.at + 1, self.at + size)
  self.at = self.at + size
  return text
end

local numbers = { 0, 1, -1, 0.5, 1 / 0, -1 / 0, 0 / 0, 2 ^ 53, 2 ^ 63, 1e308, 3, 64, 1025, 4294967296, -0.0, 1e-9 }

function Reader:number()
  return self:byte() % 2 == 0 and self:byte() or self:pick(numbers)
end

function Reader:table(depth, key)
  local made = {}
  self.tables[#self.tables + 1] = made
  for index = 1, self:byte() % 8 do
    local name = self:byte() % 2 == 0 and index or (key and key(self) or self:value(depth + 1))
    if name ~= nil and name == name then made[name] = self:value(depth + 1, key) end
  end
  if self:byte() == 255 then setmetatable(made, {}) end
  return made
end

-- A chain of tables, as deep as a byte says.
function Reader:deep()
  local top = {}
  local at = top
  for _ = 1, self:byte() do
    at[1] = {}
    at = at[1]
  end
  return top
end

-- Any value; `key` makes the keys of tables.
function Reader:value(depth, key)
  depth = depth or 0
  self.left = self.left - 1
  local kind = self:byte() % 16
  if kind <= 2 then return self:text() end
  if kind <= 4 then return self:number() end
  if kind == 5 then return self:byte() % 2 == 0 end
  if kind == 6 then return nil end
  if kind == 7 then return self.tables[self:byte() % math.max(1, #self.tables) + 1] end
  if kind == 8 then
    return self:pick { os.clock, io.stdout, coroutine.create(new), require "tidemill".null, new }
  end
  if kind == 9 then return self:deep() end
  if kind == 10 and self.callback then return self:callback() end
  if depth > 20 or self.left < 0 then return self:text() end
  return self:table(depth, key)
end

return new
