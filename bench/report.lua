-- SPDX-License-Identifier: MIT
-- From what bench/suite.lua measured to docs/performance.md (the part between two marks) and
-- docs/performance.png.
--   lua bench/report.lua build/bench/5.4.json build/bench/luajit.json
local json = require "dkjson"

local PAGE, PICTURE, DATA = "docs/performance.md", "docs/performance.png", "build/bench/bars.dat"
local FIRST, LAST = "<!-- begin: written by `make bench` -->", "<!-- end: written by `make bench` -->"
local WORKLOADS = { "chain", "fanout", "ladder", "layered", "diamond" }

local function read(path)
  local file = assert(io.open(path))
  local content = file:read "*a"
  file:close()
  return content
end

local function write(path, content)
  local file = assert(io.open(path, "w"))
  file:write(content)
  file:close()
end

local function short(lua)
  return (lua:gsub("%s+Copyright.*", ""))
end

local function title_of(record)
  return short(record.conditions.lua)
end

local function significant(number)
  if number >= 99.95 then return ("%.0f"):format(number) end
  if number >= 9.995 then return ("%.1f"):format(number) end
  return ("%.2f"):format(number)
end

local function time(seconds)
  local ns = seconds * 1e9
  if ns >= 1e6 then return significant(ns / 1e6) .. " ms" end
  if ns >= 1e4 then return significant(ns / 1e3) .. " µs" end
  return ("%.0f ns"):format(ns)
end

local function side_name(row)
  return row.side .. (row.workers and (row.side:find "^tidemill" or row.side:find "^oneTBB") and ", " .. row.workers
    or "")
end

-- One line for each workload, one column for each side: the median, and as a multiple of the floor.
local function comparison(group)
  local columns, lines, at = {}, {}, {}
  for _, row in ipairs(group.rows) do
    local name = side_name(row)
    if not at[name] then
      columns[#columns + 1] = name
      at[name] = #columns
    end
    local line = lines[#lines]
    if not line or line.workload ~= row.workload then
      line = { workload = row.workload }
      lines[#lines + 1] = line
    end
    line[at[name]] = time(row.time.median) .. (row.floor and (" (%s)"):format(significant(row.floor.median)) or "")
      .. (row.unsure and " ?" or "")
  end
  local out = { "| | " .. table.concat(columns, " | ") .. " |", "| --- |" .. (" --- |"):rep(#columns) }
  for _, line in ipairs(lines) do
    local cells = {}
    for i = 1, #columns do cells[i] = line[i] or "–" end
    out[#out + 1] = ("| %s | %s |"):format(line.workload, table.concat(cells, " | "))
  end
  return table.concat(out, "\n")
end

local function facts(group)
  local out = { "| | |", "| --- | --- |" }
  for _, fact in ipairs(group.facts) do
    out[#out + 1] = ("| %s | %s %s |"):format(fact.what, significant(fact.value), fact.unit)
  end
  return table.concat(out, "\n")
end

local function goals(record)
  local met, all = 0, 0
  local out = { "| missed or unsure | measured | middle half | target |", "| --- | --- | --- | --- |" }
  for _, group in ipairs(record.groups) do
    for _, goal in ipairs(group.goals) do
      all = all + 1
      if goal.verdict == "met" then
        met = met + 1
      else
        out[#out + 1] = ("| %s: %s%s | %s | %s – %s | %s %s |"):format(group.name, goal.what,
          goal.verdict:match " .*" or "", significant(goal.value), significant(goal.q1), significant(goal.q3),
          goal.sense, goal.bound)
      end
    end
  end
  if all == 0 then return "Without targets." end
  local head = ("%d of %d targets are met."):format(met, all)
  return met == all and head or head .. "\n\n" .. table.concat(out, "\n")
end

local function section(record)
  local out = { ("### %s"):format(title_of(record)), goals(record) }
  for _, group in ipairs(record.groups) do
    out[#out + 1] = "#### " .. group.title
    for _, note in ipairs(group.notes) do out[#out + 1] = note end
    if #group.rows > 0 then out[#out + 1] = comparison(group) end
    if #group.facts > 0 then out[#out + 1] = facts(group) end
  end
  return table.concat(out, "\n\n")
end

local function conditions(records)
  local c, names = records[1].conditions, {}
  for i, record in ipairs(records) do names[i] = title_of(record) end
  return ("Measured on %s: %s, %s cores (%s), %s, libuv %s, oneTBB %s, lua-luv %s; %s. Load %s, at the end "
    .. "%s. Release builds."):format(c.date, c.system, c.cores, c.processor, (c.compiler:gsub(" %(.*%)", "")), c.uv,
    c.tbb or "not there", c.luv or "not there", table.concat(names, ", "), c.load,
    records[#records].conditions.load_after or "unknown")
end

local BARS = {
  { "tidemill", 1 }, { "tidemill", 2 }, { "oneTBB + Lua", 1 }, { "oneTBB + Lua", 2 }, { "Lua loop" },
}

local function ratio_of(group, workload, side, workers)
  for _, row in ipairs(group.rows) do
    if row.workload == workload and row.side == side and row.workers == workers then return row.floor.median end
  end
end

-- A block of lines for each panel, as gnuplot likes them: workload, then a number for each bar.
local function bars(records)
  local blocks, titles = {}, {}
  for _, record in ipairs(records) do
    for _, group in ipairs(record.groups) do
      if group.name == "identity" or group.name == "new string" then
        local lines = {}
        for _, workload in ipairs(WORKLOADS) do
          local numbers = {}
          for i, bar in ipairs(BARS) do
            numbers[i] = tostring(ratio_of(group, workload, bar[1], bar[2]) or "NaN")
          end
          lines[#lines + 1] = workload .. " " .. table.concat(numbers, " ")
        end
        blocks[#blocks + 1] = table.concat(lines, "\n")
        titles[#titles + 1] = ("%s, %s"):format(title_of(record), group.name)
      end
    end
  end
  return table.concat(blocks, "\n\n\n"), titles
end

local function draw(records)
  local data, titles = bars(records)
  write(DATA, data .. "\n")
  local c, script = records[1].conditions, {}
  local function add(...) script[#script + 1] = (...):format(select(2, ...)) end
  add("set terminal pngcairo size 900,%d font 'sans,10'", 60 + 250 * math.ceil(#titles / 2))
  add("set output '%s'", PICTURE)
  add("set multiplot layout %d,2 title \"Time per processor as a multiple of the floor, one call from C (lower is "
    .. "better)\\n{/*0.8 %s, %s cores, %s; medians; workers after the comma}\"", math.ceil(#titles / 2), c.system,
    c.cores, c.date)
  add("set style data histograms; set style histogram clustered gap 1; set style fill solid noborder")
  add("set boxwidth 0.9; set grid ytics lc rgb '#dddddd'; set yrange [0:*]; set ytics nomirror; set xtics nomirror")
  add("set border 3; set key top left samplen 1 font ',9'; set xrange [-0.6:4.6]; set xtics font ',10'")
  local colours = { "#1f6fb2", "#7db8e8", "#c2571a", "#efb183", "#999999" }
  for panel, title in ipairs(titles) do
    add("set title '%s'", title)
    local plots = { "1 with lines lc rgb '#333333' dt 2 notitle" }
    for i, bar in ipairs(BARS) do
      plots[#plots + 1] = ("'%s' index %d using %d%s lc rgb '%s' title '%s'"):format(DATA, panel - 1, i + 1,
        i == 1 and ":xtic(1)" or "", colours[i], bar[1] .. (bar[2] and ", " .. bar[2] or ""))
    end
    add("%s", "plot " .. table.concat(plots, ", "))
    if panel == 1 then add "set key off" end
  end
  add "unset multiplot"
  local path = "build/bench/bars.gnuplot"
  write(path, table.concat(script, "\n") .. "\n")
  local status = os.execute("gnuplot " .. path)
  assert(status == true or status == 0, "gnuplot failed")
end

local records = {}
for i, path in ipairs { ... } do records[i] = assert(json.decode(read(path))) end

local page = read(PAGE)
local first, last = page:find(FIRST, 1, true), page:find(LAST, 1, true)
assert(first and last, PAGE .. " has no marks")
local parts = { FIRST, conditions(records), "![Bars: time per processor](performance.png)" }
for _, record in ipairs(records) do parts[#parts + 1] = section(record) end
write(PAGE, page:sub(1, first - 1) .. table.concat(parts, "\n\n") .. "\n\n" .. page:sub(last))
draw(records)
print(("wrote %s and %s"):format(PAGE, PICTURE))
