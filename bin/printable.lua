-- SPDX-License-Identifier: MIT
-- Makes any bytes and numbers fit to be printed: as valid UTF-8, without control characters, in so many columns; and
-- puts keys in order.

local printable = {}

local REPLACEMENT = "\239\191\189"   -- U+FFFD

-- The one form of a character that starts with a byte; by the Unicode standard, table 3-7.
local SEQUENCES = {}
for _, form in ipairs {
  { 0xC2, 0xDF, "^.[\128-\191]" },
  { 0xE0, 0xE0, "^.[\160-\191][\128-\191]" },
  { 0xE1, 0xEC, "^.[\128-\191][\128-\191]" },
  { 0xED, 0xED, "^.[\128-\159][\128-\191]" },
  { 0xEE, 0xEF, "^.[\128-\191][\128-\191]" },
  { 0xF0, 0xF0, "^.[\144-\191][\128-\191][\128-\191]" },
  { 0xF1, 0xF3, "^.[\128-\191][\128-\191][\128-\191]" },
  { 0xF4, 0xF4, "^.[\128-\143][\128-\191][\128-\191]" },
} do
  for byte = form[1], form[2] do SEQUENCES[byte] = form[3] end
end

local function repair(bytes)
  local parts, position = {}, 1
  while position <= #bytes do
    local form = SEQUENCES[bytes:byte(position)]
    local character = form and bytes:match(form, position)
    parts[#parts + 1] = character or REPLACEMENT
    position = position + (character and #character or 1)
  end
  return table.concat(parts)
end

-- The text with every byte that is not part of a UTF-8 character replaced by U+FFFD.
function printable.utf8(text)
  return (text:gsub("[\128-\255]+", repair))
end

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(char)
  return ESCAPES[char] or ("\\x%02x"):format(char:byte())
end

-- One line that can do a terminal no harm: control characters, C1 included, are written as escapes.
function printable.line(text)
  return (printable.utf8(text):gsub("%c", escape):gsub("\194([\128-\159])", escape))
end

-- The shortest decimal that reads back as the same number; a float looks like one where Lua tells them apart.
function printable.number(x)
  if x ~= x then return "nan" end
  if x == math.huge or x == -math.huge then return x > 0 and "inf" or "-inf" end
  local kind = math.type and math.type(x)
  if kind == "integer" then return ("%d"):format(x) end
  local text
  for digits = 15, 17 do
    text = ("%." .. digits .. "g"):format(x)
    if tonumber(text) == x then break end
  end
  text = text:gsub(",", ".")   -- a locale may have decimal commas
  return kind == "float" and not text:find "[.e]" and text .. ".0" or text
end

-- 1234567 -> "1,234,567"
function printable.integer(n)
  return (("%.0f"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

function printable.count(n, noun)
  return ("%s %s%s"):format(printable.integer(n), noun, n == 1 and "" or "s")
end

local COMBINING = { { 0x0300, 0x036F }, { 0x200B, 0x200F }, { 0x20D0, 0x20FF }, { 0xFE00, 0xFE0F } }
local WIDE = {
  { 0x1100, 0x115F }, { 0x2E80, 0xA4CF }, { 0xAC00, 0xD7A3 }, { 0xF900, 0xFAFF }, { 0xFE30, 0xFE6F },
  { 0xFF00, 0xFF60 }, { 0xFFE0, 0xFFE6 }, { 0x1F300, 0x1F64F }, { 0x1F680, 0x1F9FF }, { 0x20000, 0x3FFFD },
}

local function within(ranges, point)
  for _, range in ipairs(ranges) do
    if point < range[1] then return false end
    if point <= range[2] then return true end
  end
  return false
end

local function code_point(char)
  local point = char:byte()
  if point < 0x80 then return point end
  point = point % 2 ^ (7 - #char)
  for i = 2, #char do point = point * 64 + char:byte(i) % 64 end
  return point
end

local function columns(char)
  if #char == 1 then return 1 end
  local point = code_point(char)
  if within(COMBINING, point) then return 0 end
  return within(WIDE, point) and 2 or 1
end

local CHARACTER = "[%z\1-\127\194-\244][\128-\191]*"

-- The columns that valid UTF-8 takes on a terminal.
function printable.width(text)
  if not text:find "[\128-\255]" then return #text end
  local width = 0
  for char in text:gmatch(CHARACTER) do width = width + columns(char) end
  return width
end

-- Spaces that fill a text up to a width.
function printable.fill(text, width)
  return (" "):rep(width - printable.width(text))
end

-- No wider than so many columns; what is cut off is marked by "...".
function printable.shorten(text, width)
  if printable.width(text) <= width then return text end
  local taken, length = 0, 0
  for char in text:gmatch(CHARACTER) do
    taken = taken + columns(char)
    if taken > width - 3 then break end
    length = length + #char
  end
  return text:sub(1, length) .. "..."
end

-- Numbers before strings before booleans.
local function before(a, b)
  if type(a) == type(b) and type(a) ~= "boolean" then return a < b end
  if type(a) ~= type(b) then
    return type(a) == "number" or type(a) == "string" and type(b) == "boolean"
  end
  return not a and b
end

-- The keys of a table in the order in which they are shown.
function printable.sorted_keys(value)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, before)
  return keys
end

return printable
