-- SPDX-License-Identifier: MIT
-- A run as a text for people: what came out, what the processors found, how each of them fared, what failed; and how
-- the strategies compare.

local printable = require "tidemill.printable"

local report = {}

local LINES_SHOWN = 40    -- of the payload
local ITEMS_SHOWN = 10    -- of a list or table in the metadata
local COLUMNS = 100       -- after which a line is cut short
local INLINE = 72         -- up to which a table is written on one line
local EXCERPT = 40        -- bytes of a text, from where it differs from another

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

local function duration(seconds)
  if not seconds then return "" end
  if seconds < 1e-3 then return ("%.0f µs"):format(seconds * 1e6) end
  return seconds < 1 and ("%.2f ms"):format(seconds * 1000) or ("%.2f s"):format(seconds)
end

local function more(n, noun)
  return ("... %s more%s"):format(printable.integer(n), noun and " " .. noun .. (n == 1 and "" or "s") or "")
end

local function is_list(value)
  return #value > 0 and next(value, #value) == nil
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
  for _, key in ipairs(printable.sorted_keys(value)) do
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
  local list, keys = is_list(value), printable.sorted_keys(value)
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

-- Why a processor did not run, in a few words; why it failed is told by report.failures.
local function remark(outcome)
  if outcome.status ~= "skipped" then return "" end
  local err = outcome.error
  return err and err.root and "because of " .. printable.line(err.root) or "its condition did not hold"
end

-- `right` is a column that is aligned to the right, `marked` one that has the color of its row's mark.
local PROCESSOR_COLUMNS = {
  { title = "processor" }, { title = "intent" }, { title = "status", marked = true }, { title = "time", right = true },
  { title = "worker" }, { title = "attempts", right = true }, { title = "" },
}

local function processor_row(processor, outcome)
  local took = outcome.finished and outcome.started and outcome.finished - outcome.started
  return {
    mark = STATUSES[outcome.status],
    printable.line(processor.id), processor.intent, outcome.status, duration(took), tostring(outcome.worker or ""),
    outcome.attempts > 1 and tostring(outcome.attempts) or "", remark(outcome),
  }
end

-- By column; nil where no row has anything to show, and then there is no such column.
local function column_widths(columns, rows)
  local widths = {}
  for i, column in ipairs(columns) do
    for _, row in ipairs(rows) do
      if row[i] ~= "" then
        widths[i] = math.max(widths[i] or printable.width(column.title), printable.width(row[i]))
      end
    end
  end
  return widths
end

local function layout(columns, widths, row, paint)
  local cells = {}
  for i, column in ipairs(columns) do
    if widths[i] then
      local fill, painted = printable.fill(row[i], widths[i]), paint(column, row[i])
      cells[#cells + 1] = column.right and fill .. painted or painted .. fill
    end
  end
  return (table.concat(cells, "  "):gsub("%s+$", ""))
end

local function titles(columns)
  local row = {}
  for i, column in ipairs(columns) do row[i] = column.title end
  return row
end

-- On a terminal, each row has the symbol of its mark before it.
local function add_table(lines, style, columns, rows)
  local widths = column_widths(columns, rows)
  lines[#lines + 1] = (style.symbols and "    " or "  ")
    .. layout(columns, widths, titles(columns), function(_, cell) return dress(style, "dim", cell) end)
  for _, row in ipairs(rows) do
    local symbol = style.symbols and dress(style, row.mark.color, row.mark.symbol) .. " " or ""
    lines[#lines + 1] = "  " .. symbol .. layout(columns, widths, row, function(column, cell)
      return column.marked and dress(style, row.mark.color, cell) or cell
    end)
  end
end

local function add_processors(lines, style, processors, outcomes)
  local rows = {}
  for i, processor in ipairs(processors) do rows[i] = processor_row(processor, outcomes[processor.id]) end
  add_section(lines, style, "Processors")
  add_table(lines, style, PROCESSOR_COLUMNS, rows)
end

local function name_of(style, dag)
  return dag.name and dress(style, "bold", printable.line(dag.name)) .. ": " or ""
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
  local took = result.duration and " in " .. duration(result.duration) or ""
  return name_of(style, dag) .. table.concat(parts, ", ") .. took
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

local STRATEGY_COLUMNS = {
  { title = "strategy" }, { title = "median", right = true }, { title = "fastest", right = true },
  { title = "slowest", right = true }, { title = "idle", right = true }, { title = "at once", right = true },
  { title = "results", marked = true },
}

local function strategy_row(it)
  return {
    mark = it.equal and STATUSES.completed or STATUSES.failed,
    it.strategy, duration(it.median), duration(it.fastest), duration(it.slowest), ("%.0f%%"):format(it.idle * 100),
    printable.integer(it.at_once), it.equal and "equal" or "differ",
  }
end

local function first_difference(a, b)
  for i = 1, math.min(#a, #b) do
    if a:byte(i) ~= b:byte(i) then return i end
  end
  return math.min(#a, #b) + 1
end

local function brief(value)
  return inline(value) or "a table"
end

-- Long texts are shown from where they part.
local function contrast(actual, expected)
  local texts = type(actual) == "string" and type(expected) == "string"
  if not texts or math.max(#actual, #expected) <= EXCERPT then
    return (" is %s, not %s"):format(brief(actual), brief(expected))
  end
  local at = first_difference(actual, expected)
  return (" from byte %s on is %s, not %s"):format(printable.integer(at), text_of(actual:sub(at, at + EXCERPT - 1)),
    text_of(expected:sub(at, at + EXCERPT - 1)))
end

local function add_differences(lines, style, strategy, differences)
  local indent = "  " .. dress(style, "cyan", strategy) .. ": "
  for _, it in ipairs(differences.first) do
    lines[#lines + 1] = indent .. printable.line(it.path) .. contrast(it.actual, it.expected)
  end
  local left = differences.count - #differences.first
  if left > 0 then lines[#lines + 1] = indent .. dress(style, "dim", more(left, "difference")) end
end

local function add_all_differences(lines, style, comparison)
  add_section(lines, style, ("Differences from the first run under %s"):format(comparison.strategies[1].strategy))
  for _, it in ipairs(comparison.strategies) do
    if it.differences then add_differences(lines, style, it.strategy, it.differences) end
  end
end

local function verdict(style, comparison)
  if comparison.equal then return dress(style, "green", "all results are equal") end
  local first = comparison.strategies[1]
  local too = first.equal and "" or (", under %s alone too"):format(first.strategy)
  return dress(style, "red", "results differ") .. too
    .. ":\na callback seems to depend on time, chance or the order of callbacks"
end

-- A result on one line: the payload, and the metadata if it is short.
function report.brief(result)
  local payload = brief(result.payload)
  local metadata = next(result.metadata) ~= nil and inline(result.metadata)
  return metadata and payload .. "  " .. metadata or payload
end

-- What tidemill.compare found, for standard output.
function report.comparison(dag, comparison, style)
  local lines, rows = {}, {}
  for i, it in ipairs(comparison.strategies) do rows[i] = strategy_row(it) end
  add_section(lines, style, "Strategies")
  add_table(lines, style, STRATEGY_COLUMNS, rows)
  if not comparison.equal then add_all_differences(lines, style, comparison) end
  lines[#lines + 1] = ""
  lines[#lines + 1] = ("%s%s under each strategy on %s, %s"):format(
    name_of(style, dag), printable.count(comparison.runs, "run"), printable.count(comparison.workers, "worker"),
    verdict(style, comparison))
  return table.concat(lines, "\n") .. "\n"
end

local function add_indented(lines, indent, text)
  for line in (text:gsub("%s+$", "") .. "\n"):gmatch "([^\n]*)\n" do
    lines[#lines + 1] = indent .. printable.line((line:gsub("\t", "  ")))
  end
end

local function add_failure(lines, style, failure)
  local title = dress(style, "bold", printable.line(failure.processor or failure.code))
  local attempt = (failure.attempt or 1) > 1 and (", attempt %d"):format(failure.attempt) or ""
  local code = failure.processor and dress(style, "dim", (" (%s%s)"):format(failure.code, attempt)) or ""
  lines[#lines + 1] = "  " .. title .. code
  add_indented(lines, "    ", failure.message)
  if failure.traceback then add_indented(lines, "      ", failure.traceback) end
end

-- The error of the run itself, if it has one, as that it took too long, and then those of processors.
local function failures_of(err)
  local own = not err.processor or not err.failures or #err.failures == 0
  local list = { own and err or nil }
  for _, failure in ipairs(err.failures or {}) do list[#list + 1] = failure end
  return list
end

-- What went wrong with a run, for standard error; the strategy is named where there is more than one.
function report.failures(err, style, strategy)
  local failures = failures_of(err)
  local title = "the run failed"
  if err.processor then title = ("%d processor%s failed"):format(#failures, #failures == 1 and "" or "s") end
  if strategy then title = title .. " under " .. strategy end
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
