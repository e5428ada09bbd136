-- SPDX-License-Identifier: MIT
-- Markdown -> a whole HTML page, with a table of contents and a check of the links inside it.
--
--   tidemill run scripts/markdown.dag.lua --input scripts/data/guide.md --format payload > guide.html
--   tidemill run scripts/markdown.dag.lua --input scripts/data/guide.md          (shows broken links, too)
--
--                                     ┌─ contents ─┐
--   blocks ── inline ── headings ─────┼─ links ────┼──── page
--                                     └─ body ─────┘
--
-- What it shows: stages that hand each other a tree, a join of two transforms (page builds on the body, which
-- payload_from names, and reads the contents through ctx.dependencies), and findings as metadata: a broken link
-- is reported, it does not stop the page.

local tm = require "tidemill"
local blocks = require "markdown.blocks"
local html = require "markdown.html"
local inline = require "markdown.inline"

local function parse_blocks(text)
  if type(text) ~= "string" then return nil, "expects a Markdown text as its payload" end
  return blocks.parse(text)
end

local function parse_inline(tree)
  blocks.walk(tree, function(block)
    if block.kind == "paragraph" or block.kind == "heading" then
      block.spans, block.text = inline.parse(block.text), nil
    end
  end)
  return tree
end

-- "What it's for" -> "what-its-for". Letters outside ASCII stay.
local function slug(text)
  local id = text:lower():gsub("[^%w%s_\128-\255-]", ""):gsub("%s+", "-")
  return id ~= "" and id or "section"
end

local function unique(id, taken)
  local candidate, n = id, 0
  while taken[candidate] do
    n = n + 1
    candidate = id .. "-" .. n
  end
  taken[candidate] = true
  return candidate
end

local function name_headings(tree)
  local list, taken = {}, {}
  blocks.walk(tree, function(block)
    if block.kind ~= "heading" then return end
    local text = inline.plain(block.spans)
    block.id = unique(slug(text), taken)
    list[#list + 1] = { level = block.level, id = block.id, text = text }
  end)
  return tree, { list = list }
end

-- The first heading of level 1 is the page's title; the contents list what is below it.
local function title_of(headings)
  for _, heading in ipairs(headings) do
    if heading.level == 1 then return heading.text end
  end
end

local function make_contents(_, ctx)
  local listed = {}
  for _, heading in ipairs(ctx.metadata.headings.list) do
    if heading.level > 1 and heading.level <= ctx.options.deepest then listed[#listed + 1] = heading end
  end
  return html.contents(listed)
end

-- Counts the links by what they point to. A link to "#id" is broken if no heading has that id.
local function check_links(tree, ctx)
  local ids, found = {}, { internal = 0, external = 0, relative = 0, broken = {}, unsafe = {} }
  for _, heading in ipairs(ctx.metadata.headings.list) do ids["#" .. heading.id] = true end

  local function check(span)
    local target = span.target or span.source
    if not target then return end
    local where = { target = target, text = inline.plain { span } }
    local kind = target:find "^#" and "internal" or target:find "^%a[%w+.-]*:" and "external" or "relative"
    found[kind] = found[kind] + 1
    if kind == "internal" and target ~= "#" and not ids[target] then found.broken[#found.broken + 1] = where end
    if not html.is_safe(target) then found.unsafe[#found.unsafe + 1] = where end
  end

  blocks.walk(tree, function(block)
    if block.spans then inline.walk(block.spans, check) end
  end)
  return found
end

local function make_page(body, ctx)
  return html.page {
    language = ctx.options.language,
    title = title_of(ctx.metadata.headings.list) or "Untitled",
    contents = ctx.dependencies.contents.payload,
    body = body,
  }
end

return tm.dag {
  name = "markdown",

  tm.transform("blocks", parse_blocks),
  tm.transform "inline"   { depends_on = "blocks", run = parse_inline },
  tm.transform "headings" { depends_on = "inline", run = name_headings },

  tm.transform "contents" { depends_on = "headings", run = make_contents, options = { deepest = 3 } },
  tm.analyze "links"      { depends_on = "headings", run = check_links },
  tm.transform "body"     { depends_on = "headings", run = html.blocks },

  tm.transform "page" {
    depends_on = { "contents", "links", "body" },
    payload_from = "body",
    options = { language = "en" },
    run = make_page,
  },
}
