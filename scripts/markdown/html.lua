-- SPDX-License-Identifier: MIT
-- Blocks and spans -> HTML. Every piece of text and every attribute is escaped here, and nowhere else.

local html = {}

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }
local SAFE_SCHEMES = { http = true, https = true, mailto = true, ftp = true }

function html.escape(text)
  return (text:gsub("[&<>\"']", ENTITIES))
end

-- A relative target, or one whose scheme runs no code in a browser. Control characters could hide a scheme.
function html.is_safe(target)
  if target:find "%c" then return false end
  local scheme = target:match "^([^/?#]-):"
  return scheme == nil or SAFE_SCHEMES[scheme:lower()] == true
end

local function attribute(name, value)
  return value and (' %s="%s"'):format(name, html.escape(value)) or ""
end

local function address(name, target)
  return attribute(name, html.is_safe(target) and target:gsub(" ", "%%20") or "#")
end

local SPANS = {
  strong = function(span) return "<strong>" .. html.spans(span.spans) .. "</strong>" end,
  emphasis = function(span) return "<em>" .. html.spans(span.spans) .. "</em>" end,
  code = function(span) return "<code>" .. html.escape(span.text) .. "</code>" end,
  ["break"] = function() return "<br>\n" end,
  link = function(span)
    local attributes = address("href", span.target) .. attribute("title", span.title)
    return "<a" .. attributes .. ">" .. html.spans(span.spans) .. "</a>"
  end,
  image = function(span)
    local attributes = address("src", span.source) .. attribute("alt", span.text) .. attribute("title", span.title)
    return "<img" .. attributes .. ">"
  end,
}

function html.spans(spans)
  local parts = {}
  for i, span in ipairs(spans) do
    parts[i] = type(span) == "string" and html.escape(span) or SPANS[span.kind](span)
  end
  return table.concat(parts)
end

-- In a list whose items are not set apart by blank lines, a paragraph is just its text.
local function item(content, loose)
  local parts = {}
  for i, block in ipairs(content) do
    local bare = block.kind == "paragraph" and not loose
    parts[i] = bare and html.spans(block.spans) or html.blocks { block }:gsub("\n$", "")
  end
  return "<li>" .. table.concat(parts, "\n") .. "</li>\n"
end

local function list(block)
  local tag, start = block.ordered and "ol" or "ul", ""
  if block.ordered and block.start ~= 1 then start = attribute("start", ("%d"):format(block.start)) end
  local items = {}
  for i, content in ipairs(block.items) do items[i] = item(content, block.loose) end
  return ("<%s%s>\n%s</%s>\n"):format(tag, start, table.concat(items), tag)
end

local BLOCKS = {
  paragraph = function(block) return "<p>" .. html.spans(block.spans) .. "</p>\n" end,
  rule = function() return "<hr>\n" end,
  quote = function(block) return "<blockquote>\n" .. html.blocks(block.blocks) .. "</blockquote>\n" end,
  list = list,
  heading = function(block)
    return ("<h%d%s>%s</h%d>\n"):format(block.level, attribute("id", block.id), html.spans(block.spans), block.level)
  end,
  code = function(block)
    local class = attribute("class", block.language and "language-" .. block.language)
    return "<pre><code" .. class .. ">" .. html.escape(block.text) .. "\n</code></pre>\n"
  end,
}

function html.blocks(tree)
  local parts = {}
  for i, block in ipairs(tree) do parts[i] = BLOCKS[block.kind](block) end
  return table.concat(parts)
end

-- headings = { { level =, id =, text = }, ... } -> nested lists of links. A level that is left out opens no list.
function html.contents(headings)
  local parts, open = {}, {}
  for _, heading in ipairs(headings) do
    while open[1] and open[#open] > heading.level do
      open[#open] = nil
      parts[#parts + 1] = open[1] and "</li>\n</ul>\n" or "</li>\n"
    end
    local deeper = not open[1] or open[#open] < heading.level
    if deeper then open[#open + 1] = heading.level end
    parts[#parts + 1] = deeper and "<ul>\n" or "</li>\n"
    parts[#parts + 1] = ("<li><a%s>%s</a>"):format(attribute("href", "#" .. heading.id), html.escape(heading.text))
  end
  parts[#parts + 1] = ("</li>\n</ul>\n"):rep(#open)
  return table.concat(parts)
end

local PAGE = [[
<!DOCTYPE html>
<html lang="%s">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%s</title>
</head>
<body>
%s<main>
%s</main>
</body>
</html>
]]

function html.page(page)
  local contents = page.contents ~= "" and "<nav>\n" .. page.contents .. "</nav>\n" or ""
  return PAGE:format(html.escape(page.language), html.escape(page.title), contents, page.body)
end

return html
