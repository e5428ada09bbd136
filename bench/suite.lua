-- SPDX-License-Identifier: MIT
-- Measures everything on one Lua, prints a table for each group and writes all figures as JSON.
--   bench bench/suite.lua OUT.json [group ...]
-- TIDEMILL_BENCH_SCALE (1) makes each comparison so many times as long.
local json = require "dkjson"

local uv_there, uv = pcall(require, "luv")
if uv_there then uv.os_setenv("UV_THREADPOOL_SIZE", "2") end -- luv's workers, as many as tidemill's

local groups = require "bench.groups"
local measure = require "bench.measure"

local LOAD = "cut -d' ' -f1 /proc/loadavg"
local SCALE = tonumber(os.getenv "TIDEMILL_BENCH_SCALE") or 1

local group_of = {}
group_of.__index = group_of

function group_of:begin(name, title, floors)
  self.name, self.title, self.floors = name, title, floors or 1
  print(("\n== %s"):format(title))
end

function group_of:note(text)
  self.notes[#self.notes + 1] = text
  print(text)
end

local function print_head(group)
  if group.headed then return end
  group.headed = true
  print(("%-30s %-23s %9s %9s %9s  %7s %15s"):format("", "", "ns", "lowest", "highest", "x floor", "(middle half)"))
end

function group_of:row(workload, side, floor)
  local time, ratio = measure.spread(side.times), floor and measure.ratio(side, floor, self.floors) or nil
  local unsure = measure.unsure(side)
  table.insert(self.rows, {
    workload = workload, side = side.name, workers = side.workers, time = time, floor = ratio, unsure = unsure,
  })
  print(("%-30s %-23s %9.4g %9.4g %9.4g  %s%s"):format(workload,
    side.name .. (side.workers and ", " .. side.workers or ""), time.median * 1e9, time.lowest * 1e9,
    time.highest * 1e9, ratio and ("%7.2f (%5.2f, %5.2f)"):format(ratio.median, ratio.q1, ratio.q3) or "",
    unsure and "  unsure" or ""))
end

-- Measures the sides and keeps a row of each; returns them by name and workers.
function group_of:compare(workload, list, seconds)
  local by, floor = {}, nil
  for _, side in ipairs(list) do
    by[side.name .. " " .. (side.workers or "")] = side
    if side.name == "floor" then floor = side end
  end
  measure.rounds(list, seconds * SCALE)
  print_head(self)
  for _, side in ipairs(list) do
    self:row(workload, side, side ~= floor and floor)
    side.close()
  end
  return by
end

-- spread.median * scale should be `bound` at most, or "at least". The targets are for PUC Lua.
function group_of:goal(what, spread, bound, scale, sense, least)
  if rawget(_G, "jit") then return end
  scale, sense = scale or 1, sense or "at most"
  local value, verdict = spread.median * scale, "missed"
  if spread.unsure then
    verdict = "unsure (other programs had the cores)"
  elseif sense == "at most" and value <= bound or sense == "at least" and value >= bound then
    verdict = "met"
  elseif least and least > bound then
    verdict = ("missed (the callback alone: %.2f)"):format(least)
  end
  table.insert(self.goals, {
    what = what, value = value, q1 = spread.q1 * scale, q3 = spread.q3 * scale, bound = bound, sense = sense,
    verdict = verdict,
  })
end

-- `bare` is a side that says what the ratio would be if the callbacks were all there is.
function group_of:goal_ratio(what, side, other, bound, sense, bare)
  if not side or not other then return end
  local spread = measure.ratio(side, other, other.name == "floor" and self.floors or 1)
  spread.unsure = measure.unsure(side) or measure.unsure(other)
  self:goal(what, spread, bound, 1, sense, bare and measure.ratio(bare, other).median)
end

-- One figure, of one measurement; with a bound it is a goal, too.
function group_of:fact(what, value, unit, bound)
  table.insert(self.facts, { what = what, value = value, unit = unit, bound = bound })
  print(("%-66s %10.4g %s"):format(what, value, unit))
  if bound then self:goal(what, { median = value, q1 = value, q3 = value }, bound) end
end

local function print_goals(group)
  if #group.goals > 0 then print(("%-66s %10s %10s"):format("", "", "target")) end
  for _, goal in ipairs(group.goals) do
    print(("%-66s %10.4g %s %-8.4g %s"):format(goal.what, goal.value, goal.sense == "at most" and "<=" or ">=",
      goal.bound, goal.verdict))
  end
end

local function output_of(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local line = pipe and pipe:read "*l" or nil
  if pipe then pipe:close() end
  return line
end

local function conditions()
  return {
    lua = rawget(_G, "jit") and jit.version or output_of "lua5.4 -v" or _VERSION, -- luacheck: ignore 113
    system = output_of ". /etc/os-release && echo $PRETTY_NAME",
    cores = tonumber(output_of "nproc"),
    processor = output_of "sed -n 's/^model name.*: //p' /proc/cpuinfo",
    compiler = output_of "cc --version",
    tbb = output_of "pkg-config --modversion tbb",
    uv = output_of "pkg-config --modversion libuv",
    luv = uv_there and uv.version_string() and output_of "dpkg-query -W -f '${Version}' lua-luv" or nil,
    load = output_of(LOAD),
    date = os.date "!%Y-%m-%d",
  }
end

local function main(path, ...)
  local wanted = ... and { ... } or groups.order
  local record = { conditions = conditions(), groups = {} }
  print(("tidemill's benchmarks: %s, %s cores, load %s"):format(record.conditions.lua, record.conditions.cores,
    record.conditions.load))
  for _, name in ipairs(wanted) do
    local group = setmetatable({ rows = {}, goals = {}, facts = {}, notes = {} }, group_of)
    groups[name](group)
    print_goals(group)
    table.insert(record.groups, group)
  end
  record.conditions.load_after = output_of(LOAD)
  local file = assert(io.open(path, "w"))
  file:write(json.encode(record, { indent = true }), "\n")
  file:close()
end

main(...)
