-- SPDX-License-Identifier: MIT
-- Errors are tables with a code, a message, and where it applies a processor, a traceback, and more.
local core = require "tidemill.core"

local Error = core.metatable "tidemill.error" -- errors made in C have it too
Error.__name = "tidemill.error"
Error.__metatable = Error.__name -- scripts share it

local function header(err)
  if not err.processor then return err.message end
  return ("processor '%s': %s"):format(err.processor, err.message)
end

--- One line for the error, the traceback below it, and how many more processors failed.
function Error.__tostring(err)
  local lines = { ("%s: %s"):format(err.code, header(err)) }
  if err.traceback then lines[#lines + 1] = (err.traceback:gsub("\n$", "")) end
  local more = err.failures and #err.failures - 1 or 0
  if more > 0 then
    lines[#lines + 1] = ("(and %d more failed: see failures)"):format(more)
  end
  return table.concat(lines, "\n")
end

local M = {}

function M.new(fields)
  return setmetatable(fields, Error)
end

--- nil and a new error.
function M.fail(code, message, problems)
  return nil, M.new { code = code, message = message, problems = problems }
end

return M
