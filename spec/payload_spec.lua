-- SPDX-License-Identifier: MIT
-- The canonical payload: which value a processor sees, and which one a run yields.
local tm = require "tidemill"
local util = require "spec.support.util"

local function append(id, depends_on, more)
  local declaration = { depends_on = depends_on, run = function(payload) return payload .. id end }
  for key, value in pairs(more or {}) do declaration[key] = value end
  return tm.transform(id, declaration)
end

local function silent(id, depends_on)
  return tm.analyze(id, { depends_on = depends_on, run = function() end })
end

-- An analyze that tells which payload it saw.
local function witness(id, depends_on, payload_from)
  return tm.analyze(id, {
    depends_on = depends_on,
    payload_from = payload_from,
    run = function(payload) return { saw = payload } end,
  })
end

local function run(declaration, payload)
  return util.run(util.dag(tm.dag(declaration)), payload or "")
end

describe("The canonical payload", function()
  after_each(util.cleanup)

  describe("of an entry point", function()
    it("is the run's input", function()
      assert.equal("input", run({ witness "w" }, "input").metadata.w.saw)
    end)

    it("is the run's input even if another entry point transforms", function()
      assert.equal("input", run({ append "t", witness "w" }, "input").metadata.w.saw)
    end)

    it("is nil if the run's input is nil", function()
      local dag = util.one(function(payload) return type(payload) end)
      assert.equal("nil", util.run(dag, nil).payload)
    end)
  end)

  describe("along a chain", function()
    it("is what the transform before returned", function()
      assert.equal("abc", run({ append "a", append("b", "a"), append("c", "b") }).payload)
    end)

    it("does not depend on the order of declaration", function()
      assert.equal("abc", run({ append("c", "b"), append("b", "a"), append "a" }).payload)
    end)

    it("passes through an analyze", function()
      assert.equal("ac", run({ append "a", silent("b", "a"), append("c", "b") }).payload)
    end)

    it("passes through several analyzes in a row", function()
      assert.equal("ad", run({ append "a", silent("b", "a"), silent("c", "b"), append("d", "c") }).payload)
    end)
  end)

  describe("where branches join", function()
    it("is the one declared later, of two transforms of the same rank", function()
      assert.equal("acd", run({ append "a", append("b", "a"), append("c", "a"), append("d", { "b", "c" }) }).payload)
    end)

    it("does not depend on the order in depends_on", function()
      assert.equal("acd", run({ append "a", append("b", "a"), append("c", "a"), append("d", { "c", "b" }) }).payload)
    end)

    it("is the deeper one, even if it was declared earlier", function()
      local result = run {
        append "a", append("b", "a"), append("deep", "b"), append("late", "a"), append("join", { "deep", "late" }),
      }
      assert.equal("abdeepjoin", result.payload)
    end)

    it("counts depth by the longest path", function()
      local result = run {
        append "a", append("b", "a"), append("long", { "a", "b" }), append("late", "a"),
        append("join", { "long", "late" }),
      }
      assert.equal("ablongjoin", result.payload)
    end)

    it("counts analyzes as depth for the transforms behind them", function()
      local result = run {
        append "a", silent("x", "a"), append("behind", "x"), append("late", "a"), append("join", { "behind", "late" }),
      }
      assert.equal("abehindjoin", result.payload)
    end)

    it("does not count the depth of an analyze for the payload it passes on", function()
      local result = run {
        append "early", append "late", silent("x", "early"), silent("y", "x"), append("join", { "y", "late" }),
      }
      assert.equal("latejoin", result.payload)
    end)

    it("is the transformed branch, if the other branch only analyzes", function()
      assert.equal("tj", run({ append "t", silent "x", append("j", { "t", "x" }) }).payload)
    end)

    it("is the run's input, if no branch transforms", function()
      assert.equal("-j", run({ silent "x", silent "y", append("j", { "x", "y" }) }, "-").payload)
    end)

    it("is the same for every one that joins the same branches", function()
      local result = run {
        append "a", append "b", witness("first", { "a", "b" }), witness("second", { "b", "a" }),
      }
      assert.same({ "b", "b" }, { result.metadata.first.saw, result.metadata.second.saw })
    end)
  end)

  describe("of a processor", function()
    it("holds nothing of processors that are no ancestors of it", function()
      local result = run { append "a", append("beside", "a"), append("beneath", "beside"), witness("w", "a") }
      assert.equal("a", result.metadata.w.saw)
    end)

    it("is never changed by an analyze", function()
      local meddle = tm.analyze("meddle", { run = function(payload)
        payload.changed = true
        return { seen = true }
      end })
      util.assert_identical({ kept = 1 }, run({ meddle, witness("w", "meddle") }, { kept = 1 }).metadata.w.saw)
    end)

    it("may be false", function()
      local result = run { tm.transform("f", function() return false end), witness("w", "f") }
      assert.is_false(result.metadata.w.saw)
    end)
  end)

  describe("with payload_from", function()
    it("is what that dependency passes on, even if another one is declared later", function()
      assert.equal("aj", run({ append "a", append "b", append("j", { "a", "b" }, { payload_from = "a" }) }).payload)
    end)

    it("is what that dependency passes on, even if another one is deeper", function()
      local result = run {
        append "a", append("b", "a"), append("c", "b"), append("j", { "a", "c" }, { payload_from = "a" }),
      }
      assert.equal("aj", result.payload)
    end)

    it("may name an analyze, and is then what that one saw", function()
      local result = run {
        append "a", silent("x", "a"), append("b", "a"), append("j", { "x", "b" }, { payload_from = "x" }),
      }
      assert.equal("aj", result.payload)
    end)

    it("decides what an analyze passes on", function()
      local result = run {
        append "a", append "b", witness("w", { "a", "b" }, "a"), append("j", "w"),
      }
      assert.equal("aj", result.payload)
    end)

    it("does not change the rank of the processor", function()
      local dag = util.dag(tm.dag {
        append "a", append("b", "a"), append("j", { "a", "b" }, { payload_from = "a" }),
      })
      assert.equal(2, dag.processors[3].rank)
    end)
  end)

  describe("of a run", function()
    it("is the run's input, if nothing transforms", function()
      assert.equal("input", run({ silent "x", silent("y", "x") }, "input").payload)
    end)

    it("is the deepest transform's, of unconnected parts", function()
      assert.equal("ab", run({ append "a", append("b", "a"), append "c" }).payload)
    end)

    it("is the later declared one's, of unconnected parts of the same depth", function()
      assert.equal("b", run({ append "a", append "b" }).payload)
    end)

    it("is the deepest transform's, though deeper analyzes follow elsewhere", function()
      local result = run { append "a", append("b", "a"), silent("x", "a"), silent("y", "x"), silent("z", "y") }
      assert.equal("ab", result.payload)
    end)

    it("is nil, if the input is nil and nothing transforms", function()
      assert.is_nil(util.run(util.dag(tm.dag { silent "x" }), nil).payload)
    end)

    it("is not changed when the host changes the table it passed in", function()
      local dag = util.dag(tm.dag { silent "x" })
      local payload = { 1, 2 }
      local result = util.run(dag, payload)
      payload[1] = "changed"
      util.assert_identical({ 1, 2 }, result.payload)
    end)
  end)

  describe("in an outcome", function()
    it("is the value that a transform returned", function()
      assert.equal("a", run({ append "a", append("b", "a") }).outcomes.a.payload)
    end)

    it("is absent for an analyze", function()
      assert.is_nil(run({ silent "x" }, "input").outcomes.x.payload)
    end)
  end)

  describe("in ctx.dependencies", function()
    local function seen_by(branches)
      branches[#branches + 1] = tm.analyze("reader", {
        depends_on = { "a", "b" },
        run = function(_, ctx)
          return { a = ctx.dependencies.a.payload, b = ctx.dependencies.b.payload }
        end,
      })
      return run(branches).metadata.reader
    end

    it("is there for every branch, so that none is lost", function()
      assert.same({ a = "a", b = "b" }, seen_by { append "a", append "b" })
    end)

    it("is what an analyze passed on", function()
      assert.same({ a = "root", b = "root" }, seen_by { append "root", silent("a", "root"), silent("b", "root") })
    end)
  end)
end)
