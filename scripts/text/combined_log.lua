-- SPDX-License-Identifier: MIT
-- One line of an access log in the combined format:
--   host identity user [time] "METHOD path PROTOCOL" status bytes "referrer" "agent" [seconds]

local combined_log = {}

-- The quoted string that starts at a position, and where the text goes on. A quote inside is written \".
local function quoted(line, position)
  local close = position
  repeat
    close = line:find('["\\]', close + 1)
    if not close then return nil end
    local escaped = line:sub(close, close) == "\\"
    if escaped then close = close + 1 end
  until not escaped
  return (line:sub(position + 1, close - 1):gsub("\\(.)", "%1")), close + 1
end

local function head(line)
  local host, user, time, position = line:match '^(%S+) %S+ (.-) %[([^%]]+)%] ()"'
  if not host then return nil, "no address, user and time" end
  if not time:find "^%d%d/%a%a%a/%d%d%d%d:%d%d:%d%d:%d%d [+-]%d%d%d%d$" then return nil, "not a time" end
  return { host = host, user = user, time = time }, position
end

-- A record, or nil and what is wrong with the line.
function combined_log.parse(line)
  local record, position = head(line)
  if not record then return nil, position end

  local request, after_request = quoted(line, position)
  if not request then return nil, "the request has no end" end
  record.method, record.path, record.protocol = request:match "^(%u+) (%S+) (HTTP/[%d.]+)$"
  if not record.method then return nil, "not a request" end

  local status, bytes, at_referrer = line:match('^ (%d%d%d) ([%d-]+) ()"', after_request)
  if not status then return nil, "no status and size" end
  record.status, record.bytes = tonumber(status), tonumber(bytes) or 0   -- "-" is how nothing is written

  local after_referrer, after_agent
  record.referrer, after_referrer = quoted(line, at_referrer)
  if not record.referrer or line:sub(after_referrer, after_referrer + 1) ~= ' "' then return nil, "no user agent" end
  record.agent, after_agent = quoted(line, after_referrer + 1)
  if not record.agent then return nil, "the user agent has no end" end

  record.seconds = tonumber(line:match("^ ([%d.]+)$", after_agent))
  return record
end

return combined_log
