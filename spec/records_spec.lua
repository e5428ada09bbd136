-- SPDX-License-Identifier: MIT
-- What the records of an input are, whatever the blocks are in which it comes.

local records = require "tidemill.records"

local function split(splitter, text, size)
  local found = {}
  local function drain()
    for record in splitter.next, splitter do found[#found + 1] = record end
  end
  for at = 1, #text, size do
    drain()
    splitter:feed(text:sub(at, at + size - 1))
  end
  drain()
  found[#found + 1] = splitter:finish()
  assert.is_nil(splitter:next())
  return found
end

local function assert_splits(make, text, expected)
  for _, size in ipairs { 1, 2, 3, 5, 1000 } do
    assert.same(expected, split(make(), text, size), "in blocks of " .. size)
  end
end

local function ending_in(separator)
  return function() return records.ending_in(separator) end
end

describe("Lines", function()
  for _, case in ipairs {
    { "end in \\n or \\r\\n", "a\nb\r\nc\n", { "a", "b", "c" } },
    { "may end in the end of the input", "a\nb", { "a", "b" } },
    { "may be empty", "\n\r\n\na\n\n", { "", "", "", "a", "" } },
    { "keep what else they have", "\ra\rb\0\r\r\n\255\n", { "\ra\rb\0\r", "\255" } },
    { "there are none in nothing", "", {} },
  } do
    it(case[1], function() assert_splits(records.lines, case[2], case[3]) end)
  end
end)

describe("Paragraphs", function()
  for _, case in ipairs {
    { "lie between empty lines", "a\nb\n\nc\n", { "a\nb", "c" } },
    { "may have several between them, and around", "\n\na\n\n\n\nb\n\n\n", { "a", "b" } },
    { "may end in the end of the input", "a\n\nb", { "a", "b" } },
    { "may have \\r\\n", "\r\na\r\nb\r\n\r\n\r\nc\r\n\r", { "a\r\nb", "c" } },
    { "keep lines of blanks", "a\n \nb\n", { "a\n \nb" } },
    { "there are none in nothing", "", {} },
    { "there are none in empty lines", "\n\r\n\n", {} },
  } do
    it(case[1], function() assert_splits(records.paragraphs, case[2], case[3]) end)
  end
end)

describe("Records that end in a separator", function()
  for _, case in ipairs {
    { "of one byte", "\0", "a\0\0b\0", { "a", "", "b" } },
    { "of several bytes", "--\n", "a-\n--\n-b--\nc--", { "a-\n", "-b", "c--" } },
    { "that overlaps itself", "aab", "aaabaab", { "a", "" } },
    { "that is no pattern", ".*", "a.b.*c", { "a.b", "c" } },
  } do
    it(case[1], function() assert_splits(ending_in(case[2]), case[3], case[4]) end)
  end

  it("are those of a search in the whole", function()
    for seed = 1, 50 do
      math.randomseed(seed)
      local bytes = {}
      for i = 1, 200 do bytes[i] = ("ab-"):sub(math.random(3), -1):sub(1, 1) end
      local text, expected, at = table.concat(bytes), {}, 1
      for first, last in text:gmatch "()%-a()" do
        expected[#expected + 1] = text:sub(at, first - 1)
        at = last
      end
      if at <= #text then expected[#expected + 1] = text:sub(at) end
      assert_splits(ending_in "-a", text, expected)
    end
  end)
end)

describe("A separator", function()
  for text, bytes in pairs {
    ["---"] = "---",
    ["\\n"] = "\n", ["\\0"] = "\0", ["a\\tb\\r"] = "a\tb\r", ["\\\\n"] = "\\n", ["\\x1E\\x00x"] = "\30\0x",
  } do
    it("may be " .. text, function() assert.equal(bytes, (records.separator(text))) end)
  end

  it("has only escapes that there are", function()
    for _, text in ipairs { "\\q", "\\", "a\\x1", "\\xg0" } do
      local separator, why = records.separator(text)
      assert.is_nil(separator)
      assert.matches("there is no escape", why)
    end
  end)

  it("is not empty", function()
    assert.same({ nil, "it must not be empty" }, { records.separator "" })
  end)
end)
