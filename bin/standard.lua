-- SPDX-License-Identifier: MIT
-- The standard streams, and what an interrupt does. To be loaded before anything that may open files.

local EBADF = 9

local standard = {}

local closed = {} -- [stream] = { why =, instead = a file that must stay open }

-- The next file that anybody opened would be taken for a stream that is closed. So there is one that cannot be read or
-- written, either: /dev/null, for the other direction. It gets the lowest free descriptor, which is this stream's.
for _, stream in ipairs { io.stdin, io.stdout, io.stderr } do
  local _, why, code = stream:seek "cur"
  if code == EBADF then
    closed[stream] = { why = why, instead = io.open("/dev/null", stream == io.stdin and "w" or "r") }
  end
end

local uv = require "luv"

-- Why a standard stream can't be used: it was closed from the beginning. Or nil.
function standard.why_closed(stream)
  return closed[stream] and closed[stream].why
end

-- "ENOENT: no such file or directory: name" -> "No such file or directory", as other commands say it.
function standard.problem(why)
  local text = tostring(why):match "^%u+: ([^:]*)" or tostring(why)
  return text:sub(1, 1):upper() .. text:sub(2)
end

-- As much is handed to the system at a time: what it does not take is copied.
local PIECE = 2 ^ 20

-- Writes to standard output, past its buffer. True, or nil, why not, and the error's name.
function standard.write(bytes)
  local at = 1
  while at <= #bytes do
    local count, why, name = uv.fs_write(1, bytes:sub(at, at + PIECE - 1), -1)
    if count then
      at = at + count
    elseif name == "EAGAIN" then
      uv.sleep(1)   -- somebody who shares the descriptor made it so
    else
      return nil, standard.problem(why), name
    end
  end
  return true
end

-- From now on an interrupt ends the process at once. The program `lua` catches it, and raises an error where Lua runs
-- next, which may be long after. When a signal is no longer watched, it does again what it does by default.
function standard.end_when_interrupted()
  local handle = uv.new_signal()
  handle:start("sigint", function() end)
  handle:stop()
end

return standard
