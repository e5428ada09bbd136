-- SPDX-License-Identifier: MIT
-- One canonical text per plain value. Two values are the same exactly when their texts are equal: unlike `==` and
-- unlike luassert's `same`, this tells 1 from 1.0, 0.0 from -0.0, and finds NaN equal to itself.

local math_type = math.type or function() return "float" end

local function number(value)
  if value ~= value then return "nan" end
  if math_type(value) == "integer" then return ("%d"):format(value) end
  if value == 0 and 1 / value < 0 then return "-0.0" end
  local text = ("%.17g"):format(value)
  if math.type and not text:find "[%.einf]" then text = text .. ".0" end
  return text
end

local render

local function pairs_of(value)
  local parts = {}
  for key, item in pairs(value) do
    parts[#parts + 1] = "[" .. render(key) .. "]=" .. render(item)
  end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

function render(value)
  local kind = type(value)
  if kind == "table" then return pairs_of(value) end
  if kind == "string" then return ("%q"):format(value) end
  if kind == "number" then return number(value) end
  if kind == "userdata" then return "null" end
  return tostring(value)
end

return render
