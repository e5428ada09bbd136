-- SPDX-License-Identifier: MIT
-- Upvalues that functions share: telling that they do, and loading functions so that they do again.
-- PUC Lua 5.1 has neither debug.upvalueid nor debug.upvaluejoin, so for it both are built by hand.
local M = {}

local load_code = rawget(_G, "loadstring") or load -- luacheck: ignore 113

-- Without upvalueid: two upvalues are the same when what is put into one appears in the other.
local function probe()
  local known = {} -- value -> list of { fn, index, id }; nil and NaN share a place
  local function place(value)
    if value == nil or value ~= value then return known end
    return value
  end
  return function(fn, index)
    local _, value = debug.getupvalue(fn, index)
    local list = known[place(value)] or {}
    known[place(value)] = list
    local mark, found = {}, nil
    debug.setupvalue(fn, index, mark)
    for _, cell in ipairs(list) do
      local _, seen = debug.getupvalue(cell[1], cell[2])
      if seen == mark then found = cell end
    end
    debug.setupvalue(fn, index, value)
    if not found then
      found = { fn, index }
      list[#list + 1] = found
    end
    return found
  end
end

--- A function that says which upvalue of a function is which: (fn, index) -> a key.
function M.identifier()
  return debug.upvalueid or probe()
end

-- Loads them one by one and joins the upvalues that are the same cell.
local function load_and_join(entries)
  local functions, owners = {}, {}
  for number, entry in ipairs(entries) do
    local fn = assert(load_code(entry.code, "=carried", "b"))
    functions[number] = fn
    for index, cell in ipairs(entry.cells) do
      local owner = owners[cell]
      if owner then
        debug.upvaluejoin(fn, index, owner[1], owner[2])
      else
        owners[cell] = { fn, index }
        -- The first upvalue of a loaded function is joined to nothing yet, but all functions loaded
        -- from one chunk by `load` may come with the globals in it: `unpack` sets every cell anyway.
      end
    end
  end
  return functions
end

M.load = debug.upvaluejoin and load_and_join

if M.load then return M end

-- PUC Lua 5.1. A chunk is put together around the dumped functions: its registers are the cells, and
-- it makes a closure of each function over the registers it names. The format is that of lundump.c and
-- the instructions those of lopcodes.h in Lua 5.1.

local OP_MOVE, OP_RETURN, OP_CLOSURE = 0, 30, 36
local HEADER = 12 -- bytes
local MOST_REGISTERS = 240

local little = string.byte(string.dump(function() end), 7) == 1
local size_of_size = string.byte(string.dump(function() end), 9)

local function bytes(number, count)
  local list = {}
  for i = 1, count do
    list[little and i or count + 1 - i] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(list)
end

local function int(number) return bytes(number, 4) end
local function string_of(text) return bytes(#text + 1, size_of_size) .. text .. "\0" end
local function with_abc(op, ra, rb, rc) return int(op + ra * 2 ^ 6 + rc * 2 ^ 14 + rb * 2 ^ 23) end
local function with_abx(op, ra, bx) return int(op + ra * 2 ^ 6 + bx * 2 ^ 14) end

-- `members` are numbers of entries, `registers` maps cells to registers from 0 on.
local function chunk(entries, members, registers, count)
  local code, protos = {}, {}
  for i, number in ipairs(members) do
    code[#code + 1] = with_abx(OP_CLOSURE, count + i - 1, i - 1)
    for _, cell in ipairs(entries[number].cells) do
      code[#code + 1] = with_abc(OP_MOVE, 0, registers[cell], 0)
    end
    protos[i] = entries[number].code:sub(HEADER + 1)
  end
  code[#code + 1] = with_abc(OP_RETURN, count, #members + 1, 0)
  code[#code + 1] = with_abc(OP_RETURN, 0, 1, 0)
  return table.concat {
    entries[members[1]].code:sub(1, HEADER), string_of "=carried", int(0), int(0),
    string.char(0, 0, 2, count + #members + 1), -- upvalues, parameters, vararg, stack
    int(#code), table.concat(code), int(0), int(#protos), table.concat(protos),
    int(0), int(0), int(0),
  }
end

-- Groups of entries that are connected by cells: a list of { members, registers, count }.
local function groups(entries)
  local group_of_cell, all = {}, {}
  local function merge(into, from)
    if into == from then return end
    for _, number in ipairs(from.members) do into.members[#into.members + 1] = number end
    for cell in pairs(from.cells) do
      into.cells[cell] = true
      group_of_cell[cell] = into
    end
    all[from] = nil
  end
  for number, entry in ipairs(entries) do
    local group = { members = { number }, cells = {} }
    all[group] = true
    for _, cell in ipairs(entry.cells) do
      if group_of_cell[cell] then merge(group, group_of_cell[cell]) end
      group.cells[cell] = true
      group_of_cell[cell] = group
    end
  end
  return all
end

function M.load(entries)
  local functions = {}
  for group in pairs(groups(entries)) do
    local registers, count = {}, 0
    for cell in pairs(group.cells) do
      registers[cell] = count
      count = count + 1
    end
    if count + #group.members > MOST_REGISTERS then
      error("these callbacks share too many upvalues for Lua 5.1; use a script", 0)
    end
    local made = { assert(load_code(chunk(entries, group.members, registers, count), "=carried"))() }
    for i, number in ipairs(group.members) do functions[number] = made[i] end
  end
  return functions
end

return M
