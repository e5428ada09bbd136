-- SPDX-License-Identifier: MIT
-- tm.engine { sandbox = ... }: what scripts that nobody has read can do, and what not. The attacks are in
-- spec/fixtures/attacks/corpus.lua.
local tm = require "tidemill"
local util = require "spec.support.util"

local corpus = dofile "spec/fixtures/attacks/corpus.lua"

local MB = 2 ^ 20

-- Says what of its world is not as it should be.
local WITNESS = [[
  local tm = require "tidemill"
  local upper, insert = string.upper, table.insert
  return tm.dag { tm.transform("look", function(payload)
    local wrong = {}
    local function check(what, ok) if not ok then insert(wrong, what) end end
    check("globals", leaked == nil and leaked_too == nil and evil == nil and kept == nil)
    check("functions", type(tostring) == "function" and tostring(12) == "12" and type(pairs) == "function")
    check("string", string.upper == upper and ("x"):upper() == "X" and string.evil == nil and ("x").evil == nil)
    check("pattern", ("abc"):match "^(.)b" == "a" and ("abc"):gsub("b", "x") == "axc")
    check("table", table.concat({ 1, 2 }, ",") == "1,2")
    check("math", math.floor(1.5) == 1)
    check("coroutine", coroutine.wrap(function() return 7 end)() == 7)
    check("module", type(tm.dag) == "function" and type(require "tidemill".dag) == "function")
    check("metatables", getmetatable(_G) == nil and getmetatable(string) == nil)
    check("errors", select(2, pcall(error, "plain", 0)) == "plain")
    return payload .. " " .. (#wrong == 0 and "fine" or table.concat(wrong, " "))
  end) }
]]

describe("In a sandbox", function()
  local engine, witness, canary

  local function open()
    engine = assert(tm.engine { workers = 1, sandbox = true, memory_limit = 32 * MB, callback_timeout = 0.3 })
    witness = assert(engine:load(util.script(WITNESS)))
  end

  setup(function()
    canary = os.tmpname()
    os.remove(canary)
    open()
  end)

  teardown(function()
    engine:close()
    util.cleanup()
  end)

  local function script_of(attack)
    local body = attack.body:gsub("$CANARY", canary)
    if attack.load then return "local tm = require 'tidemill' " .. body end
    return ("local tm = require 'tidemill' return tm.dag { tm.transform('attack', function(payload, ctx)\n%s\nend) }")
      :format(body)
  end

  local function message_of(result, err)
    return ("%s %s"):format(result and "returned " .. tostring(result.payload) or "", err and tostring(err) or "")
  end

  for _, attack in ipairs(corpus) do
    it("comes to nothing: " .. attack.name, function()
      local dag, err = engine:load(util.script(script_of(attack)))
      local result
      if dag and not attack.load then result, err = dag:start("p"):wait(60) end
      if attack.code and not (attack.code == "memory_limit" and err and err.code == "timeout") then
        assert.equal(attack.code, err and err.code, message_of(result, err))
      end
      if attack.raises then util.assert_contains(message_of(result, err), attack.raises) end
      assert.is_true(err ~= nil or result.payload == "harmless", message_of(result, err))
      assert.equal("still fine", util.run(witness, "still").payload)
      assert.is_nil(io.open(canary))
    end)
  end
end)
