-- SPDX-License-Identifier: MIT
-- A long stream at constant memory: lua bench/long_stream.lua [ITEMS] [MAX_IN_FLIGHT] [unordered]
-- Prints now and then how far it is, how long that took and what the process has in memory, and fails if that grows.
local tm = require "tidemill"

local ITEMS = tonumber(arg[1] or 10000000)
local MOST = tonumber(arg[2] or 64)
local ORDERED = arg[3] ~= "unordered"
local REPORTS = 10

-- KiB; 0 where there is no /proc.
local function resident()
  local file = io.open "/proc/self/status"
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return tonumber(text:match "VmRSS:%s*(%d+)" or 0)
end

local engine = tm.engine()
local dag = assert(engine:dag(tm.dag {
  tm.transform("double", function(n) return n * 2 end),
  tm.transform("add", { depends_on = "double", run = function(n) return n + 1 end }),
}))

local pulled = 0
local function source()
  if pulled == ITEMS then return nil end
  pulled = pulled + 1
  return pulled
end

local began, sum, count, first, greatest = os.time(), 0, 0, nil, 0
local cpu = os.clock()
for input, result in dag:stream(source, { max_in_flight = MOST, ordered = ORDERED }) do
  count = count + 1
  sum = (sum + result.payload - 2 * input) % 1000003
  if count % math.ceil(ITEMS / REPORTS) == 0 or count == ITEMS then
    local kib = resident()
    first = first or kib
    greatest = math.max(greatest, kib)
    print(("%d items: %d s, %.1f s of CPU, %d KiB"):format(count, os.time() - began, os.clock() - cpu, kib))
  end
end
engine:close()
assert(count == ITEMS and sum == ITEMS % 1000003, "a result is wrong")
assert(greatest < first + 8192, "memory has grown")
