-- SPDX-License-Identifier: MIT
-- Plain-text pages: a title, labelled rows, a wrapped quotation, a bar chart.

local layout = {}

local WIDTH = 78
local LABEL = 14    -- columns that a row's label takes

local Page = {}
Page.__index = Page

-- 1234567 -> "1,234,567", for what can be counted.
function layout.integer(n)
  return (("%.0f"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

-- layout.count(1, "word") -> "1 word", layout.count(2000, "word") -> "2,000 words"
function layout.count(n, noun, plural)
  return layout.integer(n) .. " " .. (n == 1 and noun or plural or noun .. "s")
end

-- 2048 -> "2.0 KiB"
function layout.bytes(n)
  if n < 1024 then return layout.count(n, "byte") end
  for _, unit in ipairs { "KiB", "MiB", "GiB" } do
    n = n / 1024
    if n < 1024 then return ("%.1f %s"):format(n, unit) end
  end
  return ("%.1f TiB"):format(n / 1024)
end

-- No longer than so many bytes, cut between two words; never inside a UTF-8 character.
function layout.shorten(text, limit)
  if #text <= limit then return text end
  local cut = limit
  while cut > 0 and text:find("^[\128-\191]", cut + 1) do cut = cut - 1 end
  local head = text:sub(1, cut)
  if not text:find("^%s", cut + 1) then head = head:match "^(.*%S)%s+%S*$" or head end
  return head:gsub("%s+$", "") .. " ..."
end

function layout.wrap(text, width)
  local lines, line = {}, nil
  for word in text:gmatch "%S+" do
    if line and #line + 1 + #word <= width then
      line = line .. " " .. word
    else
      lines[#lines + 1], line = line, word
    end
  end
  lines[#lines + 1] = line
  return lines
end

function layout.page(title)
  local page = setmetatable({ lines = {} }, Page)
  page:line(title)
  page:line(("="):rep(#title))
  page:line()
  return page
end

function Page:line(format, ...)
  self.lines[#self.lines + 1] = format and format:format(...) or ""
end

-- A label, and beside it a text that wraps.
function Page:row(label, format, ...)
  local indent = (" "):rep(LABEL)
  for i, line in ipairs(layout.wrap(format:format(...), WIDTH - LABEL)) do
    self:line("%s%s", i == 1 and label .. indent:sub(#label + 1) or indent, line)
  end
end

function Page:quote(text, limit)
  local indent = (" "):rep(LABEL)
  for _, line in ipairs(layout.wrap(layout.shorten(text, limit), WIDTH - LABEL - 2)) do
    self:line("%s> %s", indent, line)
  end
end

function Page:heading(text)
  self:line()
  self:line("%s", text)
  self:line()
end

local function widest(entries, key)
  local width = 0
  for _, entry in ipairs(entries) do width = math.max(width, #tostring(entry[key])) end
  return width
end

-- entries = { { [name] = "work", [value] = 97 }, ... }, the greatest value first.
function Page:bars(heading, entries, name, value)
  if #entries == 0 then return end
  self:heading(heading)
  local name_width = widest(entries, name)
  local bar_width = math.max(WIDTH - name_width - 14, 10)
  for _, entry in ipairs(entries) do
    local length = math.max(1, math.floor(bar_width * entry[value] / entries[1][value] + 0.5))
    local pad = (" "):rep(name_width - #entry[name])
    self:line("  %s%s  %s %s", entry[name], pad, ("#"):rep(length), layout.integer(entry[value]))
  end
end

function Page:text()
  return table.concat(self.lines, "\n") .. "\n"
end

return layout
