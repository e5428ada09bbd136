-- SPDX-License-Identifier: MIT
-- Markdown text -> a tree of blocks. What the text inside a block means is left to markdown.inline.
--
--   { kind = "heading", level = 2, text = "..." }        { kind = "paragraph", text = "..." }
--   { kind = "code", language = "lua", text = "..." }    { kind = "rule" }
--   { kind = "quote", blocks = { ... } }
--   { kind = "list", ordered = true, start = 3, loose = false, items = { { block, ... }, ... } }
--
-- The subset: # headings, ``` fences, block quotes, lists (nested by indentation), rules, paragraphs.

local blocks = {}

local DEEPEST = 12   -- quotes and lists nested further than this are read as plain text

local parse

local function is_blank(line)
  return not line:find "%S"
end

local function indentation(line)
  return #line:match "^ *"
end

local function is_rule(line)
  local marks = line:gsub("%s", "")
  return indentation(line) < 4 and #marks >= 3 and (marks:find "^%-+$" or marks:find "^%*+$" or marks:find "^_+$")
end

local function heading(line)
  local marks, text = line:match "^ ? ? ?(#+)%s+(.-)%s*$"
  if not marks then marks, text = line:match "^ ? ? ?(#+)$", "" end
  if not marks or #marks > 6 then return nil end
  return { kind = "heading", level = #marks, text = (text:gsub("%s+#+$", ""):gsub("^#+$", "")) }
end

local function fence(line)
  local indent, marks, info = line:match "^( ? ? ?)(```+)%s*([^`]*)$"
  if not marks then indent, marks, info = line:match "^( ? ? ?)(~~~+)%s*(.*)$" end
  if marks then return { indent = #indent, marks = marks, language = info:match "^%S+" } end
end

-- A list item's marker: how far its content is indented, whether it is numbered, what the first line says.
local function marker(line)
  if is_rule(line) then return nil end
  local indent, bullet, space, text = line:match "^( *)([-*+])( +)(.*)$"
  local number
  if not bullet then
    indent, number, bullet, space, text = line:match "^( *)(%d+)([.)])( +)(.*)$"
    if not number or #number > 9 then return nil end
  end
  local first_column = #indent + #(number or "") + 1
  return {
    indent = #indent,
    bullet = bullet,
    number = tonumber(number),
    content = first_column + (#space > 4 and 1 or #space),
    text = #space > 4 and space:sub(2) .. text or text,
  }
end

local function starts_block(line)
  return is_blank(line) or is_rule(line) or heading(line) or fence(line) or line:find "^ ? ? ?>" or marker(line)
end

local function read_code(lines, position, open)
  local text = {}
  local closing = "^ ? ? ?" .. open.marks:gsub(".", "%%%0") .. open.marks:sub(1, 1):gsub(".", "%%%0") .. "*%s*$"
  position = position + 1
  while lines[position] and not lines[position]:find(closing) do
    text[#text + 1] = lines[position]:gsub("^" .. (" ?"):rep(open.indent), "")
    position = position + 1
  end
  return { kind = "code", language = open.language, text = table.concat(text, "\n") }, position + 1
end

local function read_quote(lines, position, depth)
  local inner = {}
  while lines[position] and lines[position]:find "^ ? ? ?>" do
    inner[#inner + 1] = lines[position]:gsub("^ ? ? ?> ?", "")
    position = position + 1
  end
  return { kind = "quote", blocks = parse(inner, depth + 1) }, position
end

-- The lines of one item, without their indentation. A blank line belongs to it only if the item goes on behind it.
local function read_item(lines, position, item)
  local inner, blanks = { item.text }, 0
  position = position + 1
  while lines[position] do
    local line = lines[position]
    if is_blank(line) then
      blanks = blanks + 1
    elseif indentation(line) >= item.content then
      for _ = 1, blanks do inner[#inner + 1] = "" end
      blanks = 0
      inner[#inner + 1] = line:sub(item.content + 1)
    elseif blanks == 0 and not starts_block(line) then
      inner[#inner + 1] = line:gsub("^ +", "")   -- a paragraph that was wrapped without care
    else
      break
    end
    position = position + 1
  end
  return inner, position - blanks, blanks > 0
end

local function has_gap(lines)
  for i = 2, #lines - 1 do
    if is_blank(lines[i]) and not marker(lines[i + 1]) then return true end
  end
  return false
end

local function read_list(lines, position, first, depth)
  local list = { kind = "list", ordered = first.number ~= nil, start = first.number, loose = false, items = {} }
  local item, gap_before = first, false
  while item and item.bullet == first.bullet and item.indent < first.content do
    local inner, after, gap = read_item(lines, position, item)
    list.loose = list.loose or gap_before or has_gap(inner)
    list.items[#list.items + 1] = parse(inner, depth + 1)
    position, gap_before = after, gap
    while gap and lines[position] and is_blank(lines[position]) do position = position + 1 end
    item = lines[position] and marker(lines[position])
  end
  return list, position
end

local function read_paragraph(lines, position)
  local text = {}
  repeat
    text[#text + 1] = lines[position]:gsub("^ +", "")
    position = position + 1
  until not lines[position] or starts_block(lines[position])
  return { kind = "paragraph", text = (table.concat(text, "\n"):gsub("%s+$", "")) }, position
end

local function read_block(lines, position, depth)
  local line = lines[position]
  local title = heading(line)
  if title then return title, position + 1 end
  local open = fence(line)
  if open then return read_code(lines, position, open) end
  if is_rule(line) then return { kind = "rule" }, position + 1 end
  if depth < DEEPEST then
    if line:find "^ ? ? ?>" then return read_quote(lines, position, depth) end
    local item = marker(line)
    if item then return read_list(lines, position, item, depth) end
  end
  return read_paragraph(lines, position)
end

function parse(lines, depth)
  local list, position = {}, 1
  while lines[position] do
    if is_blank(lines[position]) then
      position = position + 1
    else
      list[#list + 1], position = read_block(lines, position, depth)
    end
  end
  return list
end

local function expand_tabs(line)
  local tab = line:find("\t", 1, true)
  while tab do
    line = line:sub(1, tab - 1) .. (" "):rep(4 - (tab - 1) % 4) .. line:sub(tab + 1)
    tab = line:find("\t", tab, true)
  end
  return line
end

function blocks.parse(text)
  local lines = {}
  for line in (text:gsub("\r\n?", "\n") .. "\n"):gmatch "([^\n]*)\n" do
    lines[#lines + 1] = expand_tabs(line)
  end
  return parse(lines, 0)
end

-- Calls visit(block) for every block of a tree, in the order of the text.
function blocks.walk(tree, visit)
  for _, block in ipairs(tree) do
    visit(block)
    if block.blocks then blocks.walk(block.blocks, visit) end
    for _, item in ipairs(block.items or {}) do blocks.walk(item, visit) end
  end
end

return blocks
