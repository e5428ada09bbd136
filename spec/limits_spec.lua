-- SPDX-License-Identifier: MIT
-- limits = { db = 2 } and uses = "db": a resource that all runs of a DAG share.
local tm = require "tidemill"
local util = require "spec.support.util"

-- Notes in a file what enters and what leaves; lines of one write each, so that they stay whole and in order.
local function busy(id, uses, path, fields)
  fields = fields or {}
  fields.uses = uses
  fields.run = fields.run or function(payload)
    local function note(text)
      local file = io.open(path, "a")
      file:write(text)
      file:close()
    end
    note("+" .. id .. "\n")
    local sum = 0
    for step = 1, 20000 do sum = sum + step % 7 end
    note("-" .. id .. "\n")
    return payload
  end
  return tm.transform(id, fields)
end

-- How many of the given ids were within at once, at most; and how often they entered.
local function greatest(path, ids)
  local wanted, within, most, entered = {}, 0, 0, 0
  for _, id in ipairs(ids) do wanted[id] = true end
  for sign, id in util.read(path):gmatch "([+-])(%w+)\n" do
    if wanted[id] then
      within = within + (sign == "+" and 1 or -1)
      entered = entered + (sign == "+" and 1 or 0)
      most = math.max(most, within)
    end
  end
  return most, entered
end

describe("A limit", function()
  after_each(util.cleanup)

  local function flood(declaration, path, ids, options)
    local dag, runs = util.dag(tm.dag(declaration), 4), {}
    for number = 1, 25 do runs[number] = dag:start("x", options) end
    for _, run in ipairs(runs) do assert(run:wait(60)) end
    local most, entered = greatest(path, ids)
    assert.equal(25 * #ids, entered)
    return most
  end

  for _, strategy in ipairs { "reactive", "work_queue", "level" } do
    for _, limit in ipairs { 1, 2, 3 } do
      it(("of %d is never exceeded, by all runs of the DAG together, under %s"):format(limit, strategy), function()
        local path = util.path()
        local most = flood({
          strategy = strategy, limits = { db = limit },
          busy("a", "db", path), busy("b", { "db" }, path), busy("c", "db", path, { depends_on = "a" }),
          busy("d", nil, path),
        }, path, { "a", "b", "c" })
        assert.is_true(most <= limit, most .. " at once")
      end)
    end
  end

  it("goes together with max_concurrency", function()
    local path = util.path()
    local most = flood({
      max_concurrency = 1, limits = { db = 2 }, busy("a", "db", path), busy("b", "db", path), busy("c", nil, path),
    }, path, { "a", "b" })
    assert.is_true(most <= 2)
  end)

  it("holds for each of those that a processor uses", function()
    local path = util.path()
    flood({
      limits = { db = 1, net = 2 },
      busy("a", "db", path), busy("b", { "net", "db" }, path), busy("c", "net", path), busy("d", { "db", "net" }, path),
    }, path, { "a", "b", "c", "d" })
    assert.is_true(greatest(path, { "a", "b", "d" }) <= 1)
    assert.is_true(greatest(path, { "b", "c", "d" }) <= 2)
  end)

  it("lets as many at once as it says", function()
    local gate, path = util.gate(), util.path()
    local wait = gate.wait
    local function held(id)
      return tm.transform(id, { uses = "db", run = function(payload)
        local file = io.open(path, "a")
        file:write(id)
        file:close()
        wait()
        return payload
      end })
    end
    local dag = util.dag(tm.dag { limits = { db = 2 }, held "a", held "b", held "c" }, 4)
    local run, deadline = dag:start "x", os.time() + 20
    while #util.read(path) < 2 and os.time() < deadline do end
    assert.is_nil(run:wait(0.1))
    assert.equal(2, #util.read(path))
    gate.open()
    assert(run:wait(60))
    assert.equal(3, #util.read(path))
  end)

  it("does not block a worker: others go on while one waits", function()
    local gate = util.gate()
    local wait, path = gate.wait, util.path()
    os.remove(path)
    local dag = util.dag(tm.dag {
      limits = { db = 1 },
      tm.transform("hold", { uses = "db", run = function(payload)
        if payload == "hold" then
          io.open(path, "w"):close()
          wait()
        end
        return payload
      end }),
      tm.transform("free", function(payload) return payload end),
    }, 2)
    local other = util.dag(tm.dag { tm.transform("a", function(payload) return payload .. "a" end) }, 2)
    local holder = dag:start "hold"
    util.await(path)
    local waiter = dag:start "x"
    assert.is_nil(waiter:wait(0.05))
    assert.equal("xa", util.run(other, "x").payload)
    gate.open()
    assert(holder:wait(30))
    assert(waiter:wait(30))
  end)

  it("is not kept from one run by another that waits for a place of its own max_concurrency", function()
    local gate = util.gate()
    local wait = gate.wait
    local dag = util.dag(tm.dag {
      strategy = "work_queue", limits = { db = 2 }, max_concurrency = 1,
      tm.transform("long", function(payload)
        if payload == "hold" then wait() end
        return payload
      end),
      tm.transform("after", { depends_on = "long", run = function(payload) return payload end }),
      tm.analyze("db", { uses = "db", run = function() end }),
    }, 4)
    local holder = dag:start "hold"
    holder:wait(0.1)
    local other = dag:start "x"
    local result = other:wait(5)
    gate.open()
    assert(holder:wait(30))
    assert(other:wait(30))
    assert.is_truthy(result, "it waited for a run that does not have the permit")
  end)

  it("is free again after failures, timeouts and retries", function()
    local deadline = os.time() + 20
    local dag = util.dag(tm.dag {
      failure_strategy = "best_effort", limits = { db = 1 },
      tm.transform("fails", { uses = "db", run = function() error "no" end }),
      tm.transform("late", { uses = "db", timeout = 0.01, run = function() while os.time() < deadline do end end }),
      tm.transform("again", { uses = "db", retry = { max = 2, backoff = 0.001 }, run = function(payload, ctx)
        return ctx.attempt > 2 and payload or nil, "no"
      end }),
      tm.transform("skipped", { uses = "db", when = function() return false end, run = print }),
      tm.transform("fine", { uses = "db", run = function(payload) return payload end }),
    }, 3)
    for _ = 1, 10 do
      local result = dag:run "x"
      assert.same({ fails = "failed", late = "failed", again = "failed", skipped = "skipped", fine = "completed" },
        util.statuses(result))
    end
  end)

  it("is free while a retry waits", function()
    local path = util.path()
    os.remove(path)
    local dag = util.dag(tm.dag {
      limits = { db = 1 },
      tm.transform("again", { uses = "db", retry = { max = 1, backoff = 0.3 }, run = function(payload, ctx)
        if ctx.attempt == 1 then return nil, "no" end
        return payload
      end }),
      tm.transform("other", { uses = "db", run = function(payload) return payload end }),
    }, 1)
    local result = util.run(dag, "x", { profile = true })
    assert.is_true(result.outcomes.other.finished < result.outcomes.again.started)
  end)

  it("is free again after cancels, and those who wait for it end at once", function()
    local deadline = os.time() + 20
    local dag = util.dag(tm.dag { limits = { db = 1 }, tm.transform("a", { uses = "db", run = function(payload)
      if payload == "spin" then while os.time() < deadline do end end
      return payload
    end }) }, 2)
    for _ = 1, 10 do
      local runs = {}
      for number = 1, 6 do runs[number] = dag:start "spin" end
      for number = 6, 1, -1 do
        runs[number]:cancel()
        local _, err = runs[number]:wait(20)
        assert.equal("cancelled", err.code)
      end
      assert.equal("x", util.run(dag, "x").payload)
    end
  end)

  it("is never exceeded when runs are cancelled all the time", function()
    local path = util.path()
    local dag = util.dag(tm.dag { limits = { db = 1 }, busy("a", "db", path, { run = function(payload)
      local file = io.open(path, "r+")
      local within = file and tonumber(file:read "*a") or 0
      if file then file:close() end
      return payload + within
    end }) }, 4)
    local runs = {}
    for number = 1, 300 do
      runs[number] = dag:start(number)
      if number > 5 and number % 2 == 0 then runs[number - 5]:cancel() end
    end
    for number = 1, 300 do
      local result, err = runs[number]:wait(30)
      assert.is_true(result ~= nil or err.code == "cancelled", tostring(err))
    end
  end)

  it("is acquired all or none: nobody holds one while waiting for another", function()
    local path = util.path()
    local declaration = { limits = { one = 1, two = 1, three = 1 } }
    local pairs_of =
      { { "one", "two" }, { "two", "three" }, { "three", "one" }, { "two", "one" }, { "one", "two", "three" } }
    for number, uses in ipairs(pairs_of) do declaration[number] = busy("p" .. number, uses, path) end
    local dag, runs = util.dag(tm.dag(declaration), 4), {}
    for number = 1, 30 do runs[number] = dag:start "x" end
    for _, run in ipairs(runs) do assert(run:wait(60)) end
    assert.equal(1, (greatest(path, { "p1", "p3", "p4", "p5" })))
    assert.equal(1, (greatest(path, { "p1", "p2", "p4", "p5" })))
  end)

  it("is each DAG's own", function()
    local gate = util.gate()
    local wait = gate.wait
    local engine = util.engine(2)
    local function declaration()
      return tm.dag { limits = { db = 1 }, tm.transform("a", { uses = "db", run = function(payload)
        if payload == "hold" then wait() end
        return payload
      end }) }
    end
    local one, other = assert(engine:dag(declaration())), assert(engine:dag(declaration()))
    local holder = one:start "hold"
    holder:wait(0.02)
    local result = other:start("x"):wait(20)
    gate.open()
    assert(holder:wait(30))
    assert.equal("x", result.payload)
  end)
end)

describe("A declaration's limits", function()
  after_each(util.cleanup)

  local function problem(limits, uses, ...)
    util.assert_problem(tm.dag { limits = limits, tm.transform("a", { uses = uses, run = print }) }, ...)
  end

  it("must have what a processor uses, and tell what was probably meant", function()
    problem({ database = 1 }, "databse", "'a'", "databse", "did you mean", "database")
  end)

  it("must have what a processor uses, when there are none", function() problem(nil, "db", "'a'", "db") end)
  it("must be a table", function() problem(3, nil, "limits", "table") end)
  it("must be whole numbers", function() problem({ db = 1.5 }, nil, "limits", "db", "1.5") end)
  it("must be from 1 on", function() problem({ db = 0 }, nil, "limits", "db") end)
  it("must have names", function() problem({ 2 }, nil, "limits") end)
  it("must be used by name", function() problem({ db = 1 }, 3, "'a'", "uses") end)
  it("must be used once each", function() problem({ db = 1 }, { "db", "db" }, "'a'", "db", "twice") end)
  it("must be used by a list of names", function() problem({ db = 1 }, { "db", 3 }, "'a'", "uses") end)

  it("may be as many as 64", function()
    local limits, uses = {}, {}
    for number = 1, 64 do limits["l" .. number], uses[number] = 1, "l" .. number end
    local only = tm.transform("a", { uses = uses, run = function(payload) return payload end })
    local dag = util.dag(tm.dag { limits = limits, only }, 2)
    local runs = {}
    for number = 1, 20 do runs[number] = dag:start "x" end
    for _, run in ipairs(runs) do assert(run:wait(30)) end
  end)

  it("may be no more than 64", function()
    local limits = {}
    for number = 1, 65 do limits["l" .. number] = 1 end
    problem(limits, nil, "limits", "64")
  end)
end)
