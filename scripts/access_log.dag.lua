-- SPDX-License-Identifier: MIT
-- What happened on a web server: a summary of an access log in the combined format, as Apache and nginx write it.
--
--   tidemill run scripts/access_log.dag.lua --input scripts/data/access.log
--
--            ┌─ statuses ─┐
--            ├─ paths ────┤
--   parse ───┼─ traffic ──┼─── summary
--            └─ oddities ─┘
--
-- What it shows: a payload that is a table (parse turns the text into records once, for everybody), a transform
-- that returns metadata beside its payload, and options that keep the numbers out of the code.
--
-- A line may end in the seconds that the request took (nginx: $request_time); slow requests are then reported.

local tm = require "tidemill"
local combined = require "text.combined_log"
local layout = require "text.layout"

-- Malformed lines are no failure: logs have them. They are counted, and the first few are kept to look at.
local function parse(text, ctx)
  if type(text) ~= "string" then return nil, "expects the text of a log as its payload" end
  local records, malformed, examples, number = {}, 0, {}, 0
  for line in text:gmatch "[^\r\n]+" do
    number = number + 1
    local record, why = combined.parse(line)
    if record then
      record.line = number
      records[#records + 1] = record
    else
      malformed = malformed + 1
      if malformed <= ctx.options.examples then
        examples[malformed] = { line = number, why = why, text = layout.shorten(line, 120) }
      end
    end
  end
  return records, { lines = number, malformed = malformed, examples = examples }
end

-- { { [name] = key, count = n }, ... }, the most frequent first, equals in order of their keys.
local function ranked(counts, name, limit)
  local list = {}
  for key, count in pairs(counts) do list[#list + 1] = { [name] = key, count = count } end
  table.sort(list, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return a[name] < b[name]
  end)
  for i = #list, limit + 1, -1 do list[i] = nil end
  return list
end

local function count_statuses(records)
  local by_status, classes = {}, {}
  for _, record in ipairs(records) do
    local class = math.floor(record.status / 100) .. "xx"
    local status = tostring(record.status)
    by_status[status] = (by_status[status] or 0) + 1
    classes[class] = (classes[class] or 0) + 1
  end
  return { by_status = by_status, classes = classes }
end

local function count_paths(records, ctx)
  local requested, missing = {}, {}
  for _, record in ipairs(records) do
    local path = record.path:gsub("[?#].*", "")
    local counts = record.status == 404 and missing or requested
    counts[path] = (counts[path] or 0) + 1
  end
  return { top = ranked(requested, "path", ctx.options.top), missing = ranked(missing, "path", ctx.options.top) }
end

local function measure_traffic(records)
  local bytes, hosts, visitors, largest = 0, {}, 0, nil
  for _, record in ipairs(records) do
    bytes = bytes + record.bytes
    if not hosts[record.host] then
      hosts[record.host], visitors = true, visitors + 1
    end
    if not largest or record.bytes > largest.bytes then largest = record end
  end
  return {
    bytes = bytes,
    visitors = visitors,
    largest = largest and { path = largest.path, bytes = largest.bytes, line = largest.line },
  }
end

local EXPECTED_METHODS = {
  GET = true, HEAD = true, POST = true, PUT = true, PATCH = true, DELETE = true, OPTIONS = true,
}

local function climbs(path)
  return path:find("../", 1, true) or path:lower():find("%2e%2e", 1, true)
end

-- What an operator would stop at, or nil.
local function oddity(record, options)
  if record.seconds and record.seconds >= options.slow then return ("took %.1f s"):format(record.seconds) end
  if record.status >= 500 then return "the server failed" end
  if not EXPECTED_METHODS[record.method] then return "unusual method" end
  if climbs(record.path) then return "climbs out of the root" end
  if #record.path > options.long then return "very long path" end
  if record.agent == "-" then return "no user agent" end
end

local function find_oddities(records, ctx)
  local found = {}
  for _, record in ipairs(records) do
    local why = oddity(record, ctx.options)
    if why then
      found[#found + 1] = {
        line = record.line,
        why = why,
        request = ("%s %s -> %d"):format(record.method, layout.shorten(record.path, 60), record.status),
      }
    end
  end
  return { found = found }
end

local function list_lines(page, heading, entries, text, limit)
  if #entries == 0 then return end
  page:heading(heading)
  for i = 1, math.min(limit, #entries) do
    page:line("  line %-5d %-26s %s", entries[i].line, entries[i].why, entries[i][text])
  end
  if #entries > limit then page:line("  and %s more", layout.integer(#entries - limit)) end
end

local function write_summary(_, ctx)
  local log, traffic = ctx.metadata.parse, ctx.metadata.traffic
  local paths, statuses = ctx.metadata.paths, ctx.metadata.statuses

  local page = layout.page "What happened on the server"
  page:row("Requests", "%s from %s", layout.count(log.lines - log.malformed, "request"),
    layout.count(traffic.visitors, "address", "addresses"))
  page:row("Traffic", "%s", layout.bytes(traffic.bytes))
  if traffic.largest then
    page:row("Largest", "%s for %s", layout.bytes(traffic.largest.bytes), traffic.largest.path)
  end
  page:row("Malformed", "%s of %s", layout.count(log.malformed, "line"), layout.integer(log.lines))
  page:bars("Answers", ranked(statuses.by_status, "status", 12), "status", "count")
  page:bars("Most requested", paths.top, "path", "count")
  page:bars("Not found", paths.missing, "path", "count")
  list_lines(page, "Worth a look", ctx.metadata.oddities.found, "request", ctx.options.lines)
  list_lines(page, "Malformed", log.examples, "text", ctx.options.lines)
  return page:text()
end

return tm.dag {
  name = "access_log",

  tm.transform "parse" { run = parse, options = { examples = 5 } },

  tm.analyze "statuses" { depends_on = "parse", run = count_statuses },
  tm.analyze "paths"    { depends_on = "parse", run = count_paths, options = { top = 8 } },
  tm.analyze "traffic"  { depends_on = "parse", run = measure_traffic },
  tm.analyze "oddities" { depends_on = "parse", run = find_oddities, options = { slow = 2, long = 200 } },

  tm.transform "summary" {
    depends_on = { "statuses", "paths", "traffic", "oddities" },
    options = { lines = 12 },
    run = write_summary,
  },
}
