-- SPDX-License-Identifier: MIT
-- A line at the foot of a terminal that tells how far something has got.

local printable = require "tidemill.printable"
local uv = require "luv"

local progress = {}

local NARROW = 80   -- columns, where the terminal does not tell

local function clock(seconds)
  local hours, minutes = math.floor(seconds / 3600), math.floor(seconds / 60) % 60
  if hours > 0 then return ("%d:%02d:%02d"):format(hours, minutes, math.floor(seconds % 60)) end
  return ("%d:%02d"):format(minutes, math.floor(seconds % 60))
end

-- so far: { noun =, done =, failed =, in_flight =, seconds =, share = of the input, if its size is known }
function progress.text(so_far)
  local parts = { printable.count(so_far.done, so_far.noun) }
  local function add(format, ...) parts[#parts + 1] = format:format(...) end
  if so_far.seconds > 0 then add("%s/s", printable.integer(so_far.done / so_far.seconds)) end
  if so_far.failed > 0 then add("%s failed", printable.integer(so_far.failed)) end
  add("%s in flight", printable.integer(so_far.in_flight))
  if so_far.share then
    add("%d%%", math.floor(so_far.share * 100))
    if so_far.share > 0 then add("%s left", clock(so_far.seconds * (1 / so_far.share - 1))) end
  end
  return table.concat(parts, ", ")
end

local Bar = {}
Bar.__index = Bar

-- On standard error, which is a terminal.
function progress.bar()
  return setmetatable({ terminal = uv.new_tty(2, false), shown = false }, Bar)
end

function Bar:width()
  local width = self.terminal and self.terminal:get_winsize()
  return (type(width) == "number" and width > 0 and width or NARROW) - 1
end

function Bar:show(text)
  io.stderr:write("\r", printable.shorten(text, self:width()), "\27[K")
  self.shown = true
end

-- So that other messages have the line to themselves.
function Bar:erase()
  if self.shown then io.stderr:write "\r\27[K" end
  self.shown = false
end

return progress
