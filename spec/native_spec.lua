-- SPDX-License-Identifier: MIT
-- tm.native: a processor of the host's, by name. What it does there is in spec/c/embed_test.c; a program in Lua alone
-- has none to offer, and is told so.
local tm = require "tidemill"
local util = require "spec.support.util"

local function problem(fields)
  local list = util.problems(tm.dag { tm.transform("x", fields) })
  return list[1], #list
end

describe("A native processor", function()
  after_each(util.cleanup)

  it("that nobody registered is a problem of the DAG", function()
    for _, declared in ipairs {
      tm.transform("x", tm.native "resize"), tm.transform "x" (tm.native "resize"),
      tm.analyze "x" { run = tm.native "resize" },
    } do
      local list = util.problems(tm.dag { declared })
      util.assert_contains(list[1], "there is no native processor 'resize': the host must register it first")
    end
  end)

  it("is told beside the other problems", function()
    local list = util.problems(tm.dag {
      tm.transform "x" { run = tm.native "resize", depends_on = "y" },
    })
    assert.equal(2, #list)
  end)

  it("in a script is a problem of loading it", function()
    local dag, err = util.engine(2):load "scripts/hosts/letters.dag.lua"
    assert.is_nil(dag)
    assert.equal("invalid_dag", err.code)
    assert.equal(2, #err.problems)
  end)

  for key, value in pairs {
    when = function() return true end, setup = print, ["retry.when"] = print,
  } do
    it("does not go with " .. key, function()
      local fields = { run = tm.native "resize", [key] = value }
      if key == "retry.when" then fields = { run = fields.run, retry = { max = 1, when = value } } end
      local text, count = problem(fields)
      util.assert_contains(text, key .. " does not go with tm.native")
      assert.equal(2, count)
    end)
  end

  it("has a name, which is checked where it is written", function()
    for _, name in ipairs { "", 42, {} } do
      local ok, why = pcall(tm.native, name)
      assert.is_false(ok)
      util.assert_contains(why, "tm.native takes the name of a processor, but it got")
    end
  end)
end)
