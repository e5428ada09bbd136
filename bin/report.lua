-- SPDX-License-Identifier: MIT
-- A run as a text for people: what came out, what the processors found, how each of them fared, what failed.

local printable = require "tidemill.printable"

local report = {}

local LINES_SHOWN = 40    -- of the payload
local ITEMS_SHOWN = 10    -- of a list or table in the metadata
local COLUMNS = 100       -- after which a line is cut short
local INLINE = 72         -- up to which a table is written on one line

local COLORS = { bold = "1", dim = "2", red = "31", green = "32", yellow = "33", cyan = "36" }

local STATUSES = {
  completed = { symbol = "✓", color = "green" },
  failed    = { symbol = "✗", color = "red" },
  skipped   = { symbol = "○", color = "yellow" },
  cancelled = { symbol = "■", color = "yellow" },
}
local STATUS_ORDER = { "completed", "failed", "skipped", "cancelled" }

-- How a text is dressed for where it goes: { color = true, symbols = true } on a terminal, {} in a file.
local function dress(style, color, text)
  if not style.color or text == "" then return text end
  return ("\27[%sm%s\27[0m"):format(COLORS[color], text)
end

local function integer(n)
  return (("%.0f"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

local function duration(seconds)
  if not seconds then return "" end
  if seconds < 1e-3 then return ("%.0f µs"):format(seconds * 1e6) end
  return seconds < 1 and ("%.2f ms"):format(seconds * 1000) or ("%.2f s"):format(seconds)
end

local function more(n, noun)
  return ("... %s more%s"):format(integer(n), noun and " " .. noun .. (n == 1 and "" or "s") or "")
end

local function is_list(value)
  return #value > 0 and next(value, #value) == nil
end

-- Numbers before strings before booleans.
local function before(a, b)
  if type(a) == type(b) and type(a) ~= "boolean" then return a < b end
  if type(a) ~= type(b) then
    return type(a) == "number" or type(a) == "string" and type(b) == "boolean"
  end
  return not a and b
end

local function sorted_keys(value)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, before)
  return keys
end

local WORDS = { [""] = true, ["true"] = true, ["false"] = true, ["null"] = true, ["nil"] = true }

-- Quoted only where the bare text could be taken for something else.
local function text_of(value)
  local text = printable.shorten(printable.line(value), COLUMNS)
  local ambiguous = WORDS[text] or tonumber(text) or text:find "^[%s\"{%[]" or text:find "%s$"
  return ambiguous and '"' .. text .. '"' or text
end

-- People want 36.8973, programs 36.89730394584339; those read JSON.
local function number_text(x)
  local size = math.abs(x)
  if x % 1 ~= 0 and size >= 1e-4 and size < 1e6 then return (("%.6g"):format(x):gsub(",", ".")) end
  return printable.number(x)
end

local function scalar(value)
  local kind = type(value)
  if kind == "string" then return text_of(value) end
  if kind == "number" then return number_text(value) end
  return kind == "boolean" and tostring(value) or kind == "nil" and "nil" or "null"
end

-- A table on one line, or nil if there is more to it than fits there.
local function inline(value)
  if type(value) ~= "table" then return scalar(value) end
  local list, parts, width = is_list(value), {}, 0
  for _, key in ipairs(sorted_keys(value)) do
    if #parts == ITEMS_SHOWN then return nil end
    local item = inline(value[key])
    if not item then return nil end
    parts[#parts + 1] = list and item or scalar(key) .. ": " .. item
    width = width + printable.width(parts[#parts]) + 2
    if width > INLINE then return nil end
  end
  return (list and "[%s]" or "{%s}"):format(table.concat(parts, ", "))
end

local add_entries

local function add_entry(lines, style, indent, key, value)
  local label, short = indent .. dress(style, "cyan", scalar(key)) .. ":", inline(value)
  lines[#lines + 1] = short and label .. " " .. short or label
  if not short then add_entries(lines, style, indent .. "  ", value, ITEMS_SHOWN) end
end

-- "- " stands where the first line of the item would be indented.
local function add_item(lines, style, indent, value)
  local short, first = inline(value), #lines + 1
  if short then
    lines[first] = indent .. "- " .. short
  else
    add_entries(lines, style, indent .. "  ", value, ITEMS_SHOWN)
    lines[first] = indent .. "- " .. lines[first]:sub(#indent + 3)
  end
end

function add_entries(lines, style, indent, value, limit)
  local list, keys = is_list(value), sorted_keys(value)
  for i = 1, math.min(#keys, limit) do
    if list then
      add_item(lines, style, indent, value[i])
    else
      add_entry(lines, style, indent, keys[i], value[keys[i]])
    end
  end
  if #keys > limit then lines[#lines + 1] = indent .. dress(style, "dim", more(#keys - limit)) end
end

local function add_section(lines, style, title)
  if #lines > 0 then lines[#lines + 1] = "" end
  lines[#lines + 1] = dress(style, "bold", title)
end

local function add_metadata(lines, style, metadata)
  if next(metadata) == nil then return end
  add_section(lines, style, "Metadata")
  add_entries(lines, style, "  ", metadata, math.huge)
end

-- The lines of a payload that is text, its control characters made visible.
local function add_text(lines, style, text)
  local shown, total = 0, 0
  for line in (text:gsub("\n$", "") .. "\n"):gmatch "([^\n]*)\n" do
    total = total + 1
    if total <= LINES_SHOWN then
      shown = total
      lines[#lines + 1] = ("  " .. printable.shorten(printable.line(line), COLUMNS)):gsub("%s+$", "")
    end
  end
  if total > shown then
    lines[#lines + 1] = "  " .. dress(style, "dim", more(total - shown, "line") .. " (--format payload prints all)")
  end
end

local function add_payload(lines, style, title, payload)
  add_section(lines, style, title)
  if type(payload) == "string" and payload ~= "" then
    add_text(lines, style, payload)
  elseif type(payload) == "table" and not inline(payload) then
    add_entries(lines, style, "  ", payload, ITEMS_SHOWN)
  else
    lines[#lines + 1] = "  " .. inline(payload)
  end
end

-- Why a processor did not complete, in a few words; the whole story is told by report.failures.
local function remark(outcome)
  if outcome.status == "skipped" and outcome.error and outcome.error.root then
    return "because of " .. printable.line(outcome.error.root)
  end
  if (outcome.attempts or 0) > 1 then return outcome.attempts .. " attempts" end
  return ""
end

local HEADER = { "processor", "intent", "status", "time", "worker", "" }
local TIME = 4   -- the column that is aligned to the right

local function row_of(processor, outcome)
  local took = outcome.finished and outcome.started and outcome.finished - outcome.started
  return {
    printable.line(processor.id), processor.intent, outcome.status, duration(took), tostring(outcome.worker or ""),
    remark(outcome),
  }
end

local function column_widths(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, printable.width(cell)) end
  end
  return widths
end

local function layout(row, widths, paint)
  local cells = {}
  for i, cell in ipairs(row) do
    local fill, painted = printable.fill(cell, widths[i]), paint(i, cell)
    cells[i] = i == TIME and fill .. painted or painted .. fill
  end
  return (table.concat(cells, "  "):gsub("%s+$", ""))
end

local function add_processors(lines, style, processors, outcomes)
  local rows = { HEADER }
  for _, processor in ipairs(processors) do rows[#rows + 1] = row_of(processor, outcomes[processor.id]) end
  local widths = column_widths(rows)

  add_section(lines, style, "Processors")
  local margin = style.symbols and "    " or "  "
  lines[#lines + 1] = margin .. layout(HEADER, widths, function(_, cell) return dress(style, "dim", cell) end)
  for i = 2, #rows do
    local status = STATUSES[rows[i][3]]
    local symbol = style.symbols and dress(style, status.color, status.symbol) .. " " or ""
    lines[#lines + 1] = "  " .. symbol .. layout(rows[i], widths, function(column, cell)
      return column == 3 and dress(style, status.color, cell) or cell
    end)
  end
end

local function tally(style, dag, result)
  local counts, parts = {}, {}
  for _, processor in ipairs(dag.processors) do
    local status = result.outcomes[processor.id].status
    counts[status] = (counts[status] or 0) + 1
  end
  for _, status in ipairs(STATUS_ORDER) do
    if counts[status] then
      parts[#parts + 1] = dress(style, STATUSES[status].color, ("%d %s"):format(counts[status], status))
    end
  end
  local name = dag.name and dress(style, "bold", printable.line(dag.name)) .. ": " or ""
  return name .. table.concat(parts, ", ") .. (result.duration and " in " .. duration(result.duration) or "")
end

-- The whole of a result, for standard output. A partial one is what a run had come to when it stopped.
function report.result(dag, result, style, partial)
  local lines = {}
  add_payload(lines, style, partial and "Payload (incomplete)" or "Payload", result.payload)
  add_metadata(lines, style, result.metadata)
  add_processors(lines, style, dag.processors, result.outcomes)
  lines[#lines + 1] = ""
  lines[#lines + 1] = tally(style, dag, result)
  return table.concat(lines, "\n") .. "\n"
end

local function add_indented(lines, indent, text)
  for line in (text:gsub("%s+$", "") .. "\n"):gmatch "([^\n]*)\n" do
    lines[#lines + 1] = indent .. printable.line((line:gsub("\t", "  ")))
  end
end

local function add_failure(lines, style, failure)
  local title = dress(style, "bold", printable.line(failure.processor or failure.code))
  local code = failure.processor and dress(style, "dim", " (" .. failure.code .. ")") or ""
  lines[#lines + 1] = "  " .. title .. code
  add_indented(lines, "    ", failure.message)
  if failure.traceback then add_indented(lines, "      ", failure.traceback) end
end

-- What went wrong with a run, for standard error: every processor that failed, or the error of the run itself.
function report.failures(err, style)
  local failures = err.failures and #err.failures > 0 and err.failures or { err }
  local count = #failures
  local title = "the run failed"
  if failures[1].processor then title = ("%d processor%s failed"):format(count, count == 1 and "" or "s") end
  local lines = { "tidemill: " .. dress(style, "red", title) }
  for _, failure in ipairs(failures) do add_failure(lines, style, failure) end
  return table.concat(lines, "\n") .. "\n"
end

-- Why a script could not be loaded, for standard error.
function report.load_error(script, err, style)
  local lines = { "tidemill: " .. dress(style, "red", ("cannot load %s"):format(printable.line(script))) }
  if err.problems and #err.problems > 0 then
    for _, problem in ipairs(err.problems) do add_indented(lines, "  - ", problem) end
  else
    add_indented(lines, "  ", tostring(err.message or err))
    if err.traceback then add_indented(lines, "    ", err.traceback) end
  end
  return table.concat(lines, "\n") .. "\n"
end

return report
