-- SPDX-License-Identifier: MIT
-- The patterns of a sandbox are matched by bindings/pattern.c and bindings/tidemill/sandbox.lua. They must find
-- what Lua's own find, in whichever Lua this is.
local util = require "spec.support.util"

-- Runs in a worker: in the state that makes a sandbox, the methods of strings change.
local function compare(job)
  local own = require "tidemill.sandbox".environment("sandbox").string
  local seed = job.seed
  local function random(n)
    seed = (seed * 16807) % 2147483647
    return seed % n + 1
  end
  local function pick(list) return list[random(#list)] end

  local items = { "a", "b", "c", ".", "%a", "%D", "[ab]", "[^a]", "%s", "[a-c%d]", "%b()", "%f[%a]", "()", "(a)",
    "(.-)", "(b*)", "%1", "$", "^", "%w", "%]", "[]]", "[^]]", "%.", "-", "[%a-z]", "%z", "%", "[", "%f", ")" }
  local repeats = { "", "", "", "*", "+", "-", "?" }
  local characters = { "a", "b", "c", " ", "1", "(", ")", "]", ".", "\0", "-" }
  local replacements = { "%0", "<%1>", "", "%%", "x", { a = "1", b = false, [""] = "e" },
    function(x, y) return tostring(x) .. tostring(y) end }

  local function text_of(count, one)
    local parts = {}
    for i = 1, count do parts[i] = one() end
    return table.concat(parts)
  end

  -- Which error it is does not matter.
  local function result(fn, ...)
    local values = { pcall(fn, ...) }
    if not values[1] then return "raises" end
    for i = 1, select("#", pcall(fn, ...)) do values[i] = tostring(values[i]) end
    return table.concat(values, "|")
  end

  local function all(gmatch)
    return function(text, pattern)
      local found = {}
      for x, y in gmatch(text, pattern) do found[#found + 1] = tostring(x) .. "," .. tostring(y) end
      return table.concat(found, ";")
    end
  end

  local differences = {}
  local function check(name, theirs, ours, ...)
    local expected, actual = result(theirs, ...), result(ours, ...)
    if expected == actual then return end
    differences[#differences + 1] = ("%s(%q, %q, %s): %s, not %s"):format(name, (...), (select(2, ...)),
      tostring((select(3, ...))), actual, expected)
  end

  for _ = 1, job.count do
    local pattern = text_of(random(5), function() return pick(items) .. pick(repeats) end)
    if random(4) == 1 then pattern = "^" .. pattern end
    local text = text_of(random(12) - 1, function() return pick(characters) end)
    local init = random(3) == 1 and random(30) - 15 or nil
    check("find", string.find, own.find, text, pattern, init)
    check("find", string.find, own.find, text, pattern, init, true)
    check("match", string.match, own.match, text, pattern, init)
    check("gmatch", all(string.gmatch), all(own.gmatch), text, pattern)
    check("gsub", string.gsub, own.gsub, text, pattern, pick(replacements), random(3) == 1 and random(4) - 1 or nil)
  end
  return differences
end

-- The same with its table functions.
local function compare_tables()
  local own = require "tidemill.sandbox".environment("sandbox").table
  local differences = {}
  local function check(what, fn, name)
    local expected, actual = {}, {}
    for i = 1, 20 do expected[i], actual[i] = i * 7 % 11, i * 7 % 11 end
    local theirs, ours = { pcall(fn, table[name], expected) }, { pcall(fn, own[name], actual) }
    local same = theirs[1] == ours[1] and (not theirs[1] or theirs[2] == ours[2])
    for i = -2, 25 do same = same and expected[i] == actual[i] end
    if not same then differences[#differences + 1] = what end
  end
  -- Lua 5.1 takes positions that make no sense.
  for _, at in ipairs(_VERSION == "Lua 5.1" and { 1, 2, 10, 20, 21 } or { -1, 0, 1, 2, 10, 20, 21, 22, 1.5, "3" }) do
    check("insert at " .. at, function(insert, list) return insert(list, at, "new") end, "insert")
    check("remove at " .. at, function(remove, list) return remove(list, at) end, "remove")
  end
  check("insert", function(insert, list) return insert(list, "new") end, "insert")
  check("insert of nothing", function(insert, list) return insert(list) end, "insert")
  check("remove", function(remove, list) return remove(list) end, "remove")
  check("remove from nothing", function(remove) return remove {} end, "remove")
  check("sort", function(sort, list) return sort(list) end, "sort")
  check("sort backwards", function(sort, list) return sort(list, function(x, y) return x > y end) end, "sort")
  check("sort of a mixture", function(sort) return sort { 1, "2", 3 } end, "sort")
  if table.move then
    check("move up", function(move, list) move(list, 1, 10, 5) end, "move")
    check("move down", function(move, list) move(list, 5, 20, 1) end, "move")
    check("move nothing", function(move, list) move(list, 5, 1, 1) end, "move")
    check("move elsewhere", function(move, list) return #move(list, 1, 10, 3, { "x", "y" }) end, "move")
  end
  return differences
end

describe("In a sandbox", function()
  after_each(util.cleanup)

  for seed = 1, 4 do
    it(("patterns find what they find elsewhere (seed %d)"):format(seed), function()
      local differences = util.run(util.one(compare, 1), { seed = seed * 1000 + 7, count = 3000 }).payload
      assert.same({}, differences)
    end)
  end

  it("table functions do what they do elsewhere", function()
    assert.same({}, util.run(util.one(compare_tables, 1), 0).payload)
  end)
end)
