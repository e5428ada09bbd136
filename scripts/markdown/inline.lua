-- SPDX-License-Identifier: MIT
-- The text of a block -> a list of spans: a string is plain text, a table is one of
--
--   { kind = "strong", spans = { ... } }    { kind = "emphasis", spans = { ... } }    { kind = "code", text = "..." }
--   { kind = "link", target = "...", title = "...", spans = { ... } }                 { kind = "break" }
--   { kind = "image", source = "...", title = "...", text = "..." }
--
-- The subset: *emphasis*, **strong**, `code`, [links](target "title"), ![images](source), <https://autolinks>,
-- \escapes, hard line breaks. Raw HTML is text.

local inline = {}

local DEEPEST = 12   -- spans nested further than this are read as plain text

local parse

-- Where the code span that starts at a position ends: its text and the position behind it, or nil.
local function code_span(text, position)
  local ticks = text:match("^`+", position)
  local start = position + #ticks
  local from = start
  while true do
    local first, last = text:find("`+", from)
    if not first then return nil, start end
    if last - first + 1 == #ticks then
      local code = text:sub(start, first - 1):gsub("\n", " ")
      if code:find "^ .* $" and code:find "%S" then code = code:sub(2, -2) end
      return code, last + 1
    end
    from = last + 1
  end
end

-- The position behind what must not be read as markup, an escape or a code span; nil if neither starts here.
local function opaque(text, position)
  local char = text:sub(position, position)
  if char == "\\" then return position + 2 end
  if char == "`" then
    local _, after = code_span(text, position)
    return after
  end
end

-- The position of the ] that belongs to the [ at a position.
local function closing_bracket(text, position)
  local depth = 0
  while position <= #text do
    local char = text:sub(position, position)
    if char == "[" then depth = depth + 1 end
    if char == "]" then depth = depth - 1 end
    if depth == 0 then return position end
    position = opaque(text, position) or position + 1
  end
end

local function unescape(text)
  return (text:gsub("\\(%p)", "%1"))
end

-- "(target "title")" at a position: target, title (or nil), the position behind it.
local function destination(text, position)
  local target, after = text:match("^%(%s*<([^<>\n]*)>()", position)
  if not target then target, after = text:match("^%(%s*([^%s()]*%b()[^%s()]*)()", position) end
  if not target then target, after = text:match("^%(%s*([^%s()]*)()", position) end
  if not target then return nil end
  local finish = text:match("^%s*%)()", after)
  if finish then return unescape(target), nil, finish end
  local title
  title, finish = text:match('^%s+"([^"]*)"%s*%)()', after)
  if not title then title, finish = text:match("^%s+'([^']*)'%s*%)()", after) end
  if title then return unescape(target), unescape(title), finish end
end

local function bracketed(text, position)
  local close = closing_bracket(text, position)
  if not close then return nil end
  local target, title, after = destination(text, close + 1)
  if target then return text:sub(position + 1, close - 1), target, title, after end
end

local function link(text, position, depth)
  local label, target, title, after = bracketed(text, position)
  if label then return { kind = "link", target = target, title = title, spans = parse(label, depth + 1) }, after end
end

local function image(text, position)
  if text:sub(position + 1, position + 1) ~= "[" then return nil end
  local label, source, title, after = bracketed(text, position + 1)
  if label then return { kind = "image", source = source, title = title, text = unescape(label) }, after end
end

local function autolink(text, position)
  local target, after = text:match("^<(%a[%w+.-]+:[^%s<>]*)>()", position)
  if target then return { kind = "link", target = target, spans = { target } }, after end
end

local function is_word(char)
  return char:find "^[%w\128-\255]" ~= nil
end

-- What a run of * or _ may do: open if text follows it, close if text precedes it. An _ inside a word does neither.
local function flanks(text, first, last)
  local before, after = text:sub(first - 1, first - 1), text:sub(last + 1, last + 1)
  if first == 1 then before = "" end
  local opens, closes = after:find "%S" ~= nil, before:find "%S" ~= nil
  if text:sub(first, first) == "_" then
    opens, closes = opens and not is_word(before), closes and not is_word(after)
  end
  return opens, closes
end

-- Where `length` marks close what was opened before `position`; runs that open in between must be closed first.
local function closing_marks(text, position, mark, length)
  local open, stops = {}, "[\\`" .. "%" .. mark .. "]"
  position = text:find(stops, position)
  while position do
    local after = opaque(text, position)
    if text:sub(position, position) == mark then
      local _, last = text:find("^%" .. mark .. "+", position)
      local opens, closes = flanks(text, position, last)
      local left = last - position + 1
      while closes and open[1] and left >= open[#open] do
        left = left - table.remove(open)
      end
      if closes and not open[1] and left >= length then return last - left + 1 end
      if opens and left > 0 then open[#open + 1] = left end
      after = last + 1
    end
    position = text:find(stops, after)
  end
end

local function marked(text, position, depth)
  local mark = text:sub(position, position)
  local _, last = text:find("^%" .. mark .. "+", position)
  if not flanks(text, position, last) then return nil, last + 1 end
  for length = math.min(last - position + 1, 2), 1, -1 do
    local start = position + length
    local close = closing_marks(text, start, mark, length)
    if close and close > start then
      local kind = length == 2 and "strong" or "emphasis"
      return { kind = kind, spans = parse(text:sub(start, close - 1), depth + 1) }, close + length
    end
  end
  return nil, last + 1
end

local function code(text, position)
  local content, after = code_span(text, position)
  return content and { kind = "code", text = content }, after
end

local function escape(text, position)
  if text:sub(position + 1, position + 1) == "\n" then return { kind = "break" }, position + 2 end
  local char = text:match("^%p", position + 1)
  if char then return char, position + 2 end
end

local function line_break(text, position)
  local after = text:match("^ +\n()", position)
  if after then return after - position > 2 and { kind = "break" } or "\n", after end
end

local READERS = {
  ["\\"] = escape, ["`"] = code, ["!"] = image, ["["] = link, ["<"] = autolink,
  ["*"] = marked, ["_"] = marked, [" "] = line_break,
}

-- Strings that follow each other become one.
local function append(spans, span)
  if type(span) == "string" and type(spans[#spans]) == "string" then
    spans[#spans] = spans[#spans] .. span
  elseif span ~= "" then
    spans[#spans + 1] = span
  end
end

function parse(text, depth)
  local spans, position = {}, 1
  while position <= #text and depth < DEEPEST do
    local special = text:find("[\\`!%[<*_ ]", position) or #text + 1
    append(spans, text:sub(position, special - 1))
    if special > #text then return spans end
    local span, after = READERS[text:sub(special, special)](text, special, depth)
    after = after or special + 1
    append(spans, span or text:sub(special, after - 1))
    position = after
  end
  append(spans, text:sub(position))
  return spans
end

function inline.parse(text)
  return parse(text, 0)
end

-- The text of spans without its markup.
function inline.plain(spans)
  local parts = {}
  for i, span in ipairs(spans) do
    if type(span) == "string" then parts[i] = span
    elseif span.spans then parts[i] = inline.plain(span.spans)
    else parts[i] = span.text or "\n" end
  end
  return table.concat(parts)
end

-- Calls visit(span) for every span that is a table, outer ones first.
function inline.walk(spans, visit)
  for _, span in ipairs(spans) do
    if type(span) == "table" then
      visit(span)
      if span.spans then inline.walk(span.spans, visit) end
    end
  end
end

return inline
