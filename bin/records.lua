-- SPDX-License-Identifier: MIT
-- Takes the records out of an input that comes in blocks of any size.
--
-- A splitter is fed a block when `next` has nothing more to give, and told by `finish` that there are no more blocks.
-- It holds the block and the record that has begun; every byte is looked at once, however long a record is.

local records = {}

local Splitter = {}
Splitter.__index = Splitter

-- Records that each end in `separator`, the last one also in the end of the input; so a separator at the very end
-- begins no empty record.
function records.ending_in(separator)
  return setmetatable({
    separator = separator,
    kept = #separator - 1,   -- so many bytes at the end of a block may begin a separator
    text = "", at = 1,       -- what is being searched, and from where
    parts = {},              -- of the record that has begun: what was searched before
  }, Splitter)
end

local function whole(self, last)
  local parts = self.parts
  if #parts == 0 then return last end
  parts[#parts + 1] = last
  self.parts = {}
  return table.concat(parts)
end

-- The next record, or nil: it is not all there.
function Splitter:next()
  if self.hungry then return nil end
  local first, last = self.text:find(self.separator, self.at, true)
  if not first then
    self.hungry = true
    return nil
  end
  local record = self.text:sub(self.at, first - 1)
  self.at = last + 1
  return whole(self, record)
end

function Splitter:feed(block)
  local searched = math.max(self.at - 1, #self.text - self.kept)
  if searched >= self.at then self.parts[#self.parts + 1] = self.text:sub(self.at, searched) end
  self.text = self.text:sub(searched + 1) .. block
  self.at, self.hungry = 1, false
end

-- What is left when there is no more input; nil: nothing.
function Splitter:finish()
  local rest = whole(self, self.text:sub(self.at))
  self.text, self.at = "", 1
  return rest ~= "" and rest or nil
end

local function without_return(line)
  return line:byte(-1) == 13 and line:sub(1, -2) or line
end

-- Lines without their ends, \n or \r\n.
function records.lines()
  local lines = records.ending_in "\n"
  function lines:next()
    local line = Splitter.next(self)
    return line and without_return(line)
  end
  function lines:finish()
    local line = Splitter.finish(self)
    return line and without_return(line)
  end
  return lines
end

-- Lines up to one or more empty ones; as they were, but for the end of the last.
function records.paragraphs()
  local lines, group, paragraphs = records.ending_in "\n", {}, {}
  local function close()
    if #group == 0 then return nil end
    local paragraph = without_return(table.concat(group, "\n"))
    group = {}
    return paragraph
  end
  function paragraphs.next()
    for line in lines.next, lines do
      if line ~= "" and line ~= "\r" then
        group[#group + 1] = line
      elseif #group > 0 then
        return close()
      end
    end
  end
  function paragraphs.feed(_, block) lines:feed(block) end
  function paragraphs.finish()
    local line = lines:finish()
    if line ~= "\r" then group[#group + 1] = line end
    return close()
  end
  return paragraphs
end

local ESCAPES = { n = "\n", r = "\r", t = "\t", ["0"] = "\0", ["\\"] = "\\" }

-- The bytes that a separator stands for, with \n \r \t \0 \\ and \xHH; or nil and why there are none.
function records.separator(text)
  local parts, at, wrong = {}, 1, nil
  while at <= #text do
    local hex = text:match("^\\x(%x%x)", at)
    local letter = not hex and text:match("^\\(.?)", at)
    if letter and not ESCAPES[letter] then wrong = wrong or letter end
    parts[#parts + 1] = hex and string.char(tonumber(hex, 16)) or letter and ESCAPES[letter] or text:sub(at, at)
    at = at + (hex and 4 or letter and 2 or 1)
  end
  if wrong then return nil, ("there is no escape '\\%s', but \\n \\r \\t \\0 \\\\ and \\xHH"):format(wrong) end
  if #parts == 0 then return nil, "it must not be empty" end
  return table.concat(parts)
end

return records
