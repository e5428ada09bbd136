-- SPDX-License-Identifier: MIT
-- The tidemill command, run as a user runs it: standard output, standard error and exit status.

local dkjson = require "dkjson"
local process = require "spec.support.process"
local util = require "spec.support.util"

local SHOUT = "spec/fixtures/shout.dag.lua"
local FAILING = "spec/fixtures/failing.dag.lua"
local STOPS = "spec/fixtures/stops.dag.lua"
local RETRIED = "spec/fixtures/retried.dag.lua"
local BARRIER = "spec/fixtures/barrier.dag.lua"
local DRIFTING = "spec/fixtures/drifting.dag.lua"

-- tidemill { "run", ..., stdin = ... }
local function tidemill(command)
  table.insert(command, 1, "bin/tidemill")
  return process.lua(command)
end

local function decode(text)
  local value, _, why = dkjson.decode(text, 1, dkjson.null)
  assert(value, why)
  return value
end

-- Nothing of the command's own code may reach a user.
local function assert_no_traceback(run)
  assert.is_nil(run.stderr:find("bin/cli.lua", 1, true), run.stderr)
  assert.is_nil(run.stderr:find("bin/tidemill:", 1, true), run.stderr)
end

describe("tidemill", function()
  local script

  before_each(function() script = os.tmpname() end)
  after_each(function() os.remove(script) end)

  local function run_text(source, options)
    process.write(script, source)
    local command = { "run", script }
    for _, option in ipairs(options or {}) do command[#command + 1] = option end
    return tidemill(command)
  end

  it("prints its version", function()
    local run = tidemill { "--version" }
    assert.equal("tidemill " .. require "tidemill".version .. "\n", run.stdout)
    assert.equal("", run.stderr)
    assert.equal(0, run.status)
  end)

  for _, command in ipairs {
    { "--help" }, { "-h" }, { "run", "--help" }, { "run", "-h" }, { "compare", "--help" }, { "compare", "-h" },
  } do
    local example = command[1] == "compare" and "compare" or "run"
    it("helps with an example: " .. table.concat(command, " "), function()
      local run = tidemill(command)
      assert.equal(0, run.status)
      assert.equal("", run.stderr)
      assert.matches("^Usage: tidemill", run.stdout)
      assert.matches("\nExamples?:\n   tidemill " .. example .. " ", run.stdout)
    end)
  end

  it("helps within 80 columns", function()
    for _, command in ipairs { "run", "compare" } do
      for line in tidemill { command, "--help" }.stdout:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    end
  end)

  it("tells what the strategies are", function()
    for _, command in ipairs { "run", "compare" } do
      local help = tidemill { command, "--help" }.stdout
      assert.matches("\nStrategies:\n   reactive [^\n]*work_queue[^\n]*\n[^\n]*level[^\n]*\n\n", help)
    end
  end)

  describe("misused", function()
    local cases = {
      { "without a command", {}, "a command is required" },
      { "with an unknown command", { "walk" }, "unknown command 'walk'" },
      { "with an unknown option", { "run", SHOUT, "--quickly" }, "unknown option '%-%-quickly'" },
      { "without a script", { "run" }, "missing argument 'script'" },
      { "with two scripts", { "run", SHOUT, SHOUT }, "too many arguments" },
      { "with an unknown format", { "run", SHOUT, "--format", "xml" }, "must be one of 'text', 'json', 'payload'" },
      { "with an unknown color", { "run", SHOUT, "--color", "red" }, "must be one of 'auto', 'always', 'never'" },
      { "without the value of an option", { "run", SHOUT, "--input" }, "requires an argument" },
      { "with a script that is missing", { "run", "spec/nowhere.lua" }, "spec/nowhere.lua: No such file" },
      { "with a directory as the script", { "run", "spec" }, "spec: Is a directory" },
      { "with an input that is missing", { "run", SHOUT, "--input", "spec/no.txt" }, "spec/no.txt: No such file" },
      { "with a directory as the input", { "run", SHOUT, "--input", "spec" }, "spec: Is a directory" },
    }
    for _, case in ipairs {
      { "with an unknown strategy", { "run", SHOUT, "--strategy", "x" }, "one of 'reactive', 'work_queue', 'level'" },
      { "compare without a script", { "compare" }, "missing argument 'script'" },
      { "compare with an unknown format", { "compare", SHOUT, "--format", "payload" }, "one of 'text', 'json'" },
      { "compare with one strategy", { "compare", SHOUT, "--strategy", "level" }, "unknown option '%-%-strategy'" },
      { "compare with a script that is missing", { "compare", "spec/no.lua" }, "spec/no.lua: No such file" },
      { "compare with an input that is missing", { "compare", SHOUT, "--input", "spec/no" }, "spec/no: No such file" },
      { "runs of run", { "run", SHOUT, "--runs", "2" }, "unknown option '%-%-runs'" },
    } do
      cases[#cases + 1] = case
    end
    local seconds_refused = { "0", "-1", "0.0", "soon", "nan", "inf", "0x1", "1.2.3", ".", "", "1e-12", "2000000000" }
    for _, command in ipairs { "run", "compare" } do
      for _, seconds in ipairs(seconds_refused) do
        cases[#cases + 1] = { ("%s with a timeout of %q"):format(command, seconds),
          { command, SHOUT, "--timeout=" .. seconds },
          "--timeout takes a positive number of seconds up to 1000000000, not '" .. seconds .. "'", true }
      end
    end
    for _, runs in ipairs { "0", "-1", "1.5", "many", "1000001", "" } do
      cases[#cases + 1] = { ("compare with %q runs"):format(runs), { "compare", SHOUT, "--runs=" .. runs },
        "--runs takes a whole number from 1 to 1000000, not '" .. runs .. "'", true }
    end
    for _, workers in ipairs { "0", "-1", "1025", "10000", "x", "2.5", "0x4", "", "99999999999999999999" } do
      cases[#cases + 1] = { ("with %q workers"):format(workers), { "run", SHOUT, "--workers=" .. workers },
        "--workers takes a whole number from 1 to 1024, not '" .. workers .. "'", true }
    end

    for _, size in ipairs { "0", "-1", "64X", "1.5M", "", "M" } do
      cases[#cases + 1] = { ("with a memory limit of %q"):format(size), { "run", SHOUT, "--memory-limit=" .. size },
        "--memory-limit takes a size like 64M, not '" .. size .. "'", true }
    end

    for _, case in ipairs(cases) do
      it(case[1], function()
        local run = tidemill(case[2])
        assert.equal(2, run.status)
        assert.equal("", run.stdout)
        assert.is_truthy(run.stderr:find(case[3], 1, case[4]), run.stderr)
        assert.matches("tidemill: [^\n]*\n", run.stderr)
        assert_no_traceback(run)
      end)
    end

    it("with standard input closed", function()
      local run = tidemill { "run", SHOUT, "--input", "-", from = "<&-" }
      assert.equal(2, run.status)
      assert.equal("tidemill: cannot read the input: standard input: Bad file descriptor\n", run.stderr)
    end)
  end)

  describe("reads the payload", function()
    it("from a file", function()
      local run = tidemill { "run", SHOUT, "--input", "spec/fixtures/siblings/beside.lua", "--format", "payload" }
      assert.equal(process.read "spec/fixtures/siblings/beside.lua":upper(), run.stdout)
    end)

    it("from standard input, asked to or not", function()
      assert.equal("TIDE", tidemill { "run", SHOUT, "--input", "-", "--format", "payload", stdin = "tide" }.stdout)
      assert.equal("TIDE", tidemill { "run", SHOUT, "--format", "payload", stdin = "tide" }.stdout)
    end)

    it("as the empty string where standard input is empty", function()
      local run = tidemill { "run", SHOUT, "--format", "json" }
      assert.equal("", decode(run.stdout).payload)
    end)

    it("as nil where standard input is a terminal, and says so", function()
      if not process.can_make_terminals() then return pending "there is no script(1) to make a terminal" end
      local run = process.lua { "bin/tidemill", "run", SHOUT, "--format", "payload", terminal = true }
      assert.matches("^tidemill: no %-%-input, and standard input is a terminal: running", run.stdout)
      assert.matches("NOTHING", run.stdout)
    end)
  end)

  describe("keeps a script in its bounds", function()
    local function reach(...)
      return tidemill { "run", "spec/fixtures/reaching.dag.lua", "--format", "payload", stdin = "5000000", ... }
    end

    it("with --sandbox", function()
      assert.equal("table 5000000", reach().stdout)
      assert.equal("nil 5000000", reach "--sandbox".stdout)
    end)

    it("with --memory-limit", function()
      local run = reach("--memory-limit", "2M")
      assert.equal(1, run.status)
      assert.is_truthy(run.stderr:find("may use 2097152 bytes (memory_limit)", 1, true), run.stderr)
      assert.equal("table 5000000", reach("--memory-limit", "1G").stdout)
    end)
  end)

  describe("--format payload", function()
    it("is the exact bytes and nothing else", function()
      local bytes = {}
      for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
      local all = table.concat(bytes) .. "\r\n\0"
      local run = tidemill { "run", "spec/fixtures/bytes.dag.lua", "--format", "payload", stdin = all }
      assert.equal(all, run.stdout)
      assert.equal("", run.stderr)
      assert.equal(0, run.status)
    end)

    it("is JSON for a table", function()
      local run = tidemill { "run", "spec/fixtures/values.dag.lua", "--format", "payload" }
      assert.equal("yes", decode(run.stdout).mixed["true"])
      assert.equal("\n", run.stdout:sub(-1))
    end)

    it("is nothing where the run returned no result", function()
      local run = tidemill { "run", STOPS, "--format", "payload" }
      assert.equal("", run.stdout)
      assert.equal(1, run.status)
      assert.matches("out of water", run.stderr)
    end)

    it("is what the others made where one failed and the run went on", function()
      local run = tidemill { "run", FAILING, "--format", "payload", stdin = "tide" }
      assert.equal("tide!", run.stdout)
      assert.equal(1, run.status)
    end)
  end)

  describe("--format json", function()
    it("is one line with the result", function()
      local run = tidemill { "run", SHOUT, "--format", "json", stdin = "tide" }
      assert.equal(0, run.status)
      assert.equal("", run.stderr)
      assert.matches("^[^\n]+\n$", run.stdout)
      local object = decode(run.stdout)
      assert.equal("TIDE", object.payload)
      assert.equal("shout", object.dag)
      assert.is_true(object.ok)
      assert.same({ measure = { bytes = 4 }, shout = { loud = true } }, object.metadata)
      assert.equal("completed", object.outcomes.shout.status)
      assert.equal(1, object.outcomes.measure.attempts)
      assert.equal(dkjson.null, object.error)
      assert.same({}, object.failures)
      assert.is_true(object.duration >= 0)
    end)

    it("has its keys sorted", function()
      local run = tidemill { "run", SHOUT, "--format", "json", stdin = "tide" }
      assert.matches('^{"dag":.*"duration":.*"error":.*"failures":.*"metadata":{"measure":.*"shout":', run.stdout)
      assert.matches('"ok":.*"outcomes":{"measure":.*"shout":{"attempts":.*"payload":', run.stdout)
    end)

    it("tells the errors, and so does standard error", function()
      local run = tidemill { "run", FAILING, "--format", "json", stdin = "tide" }
      assert.equal(1, run.status)
      local object = decode(run.stdout)
      assert.is_false(object.ok)
      assert.equal("tide!", object.payload)
      assert.equal("raises", object.error.processor)
      assert.equal("processor_failed", object.error.code)
      assert.equal("string", type(object.error.traceback))
      assert.same({ "raises", "refuses" }, { object.failures[1].processor, object.failures[2].processor })
      assert.equal("skipped", object.outcomes.follows.status)
      assert.equal("dependency_failed", object.outcomes.follows.error.code)
      assert.matches("refuses.*not today", run.stderr)
    end)

    it("has what had completed under fail_fast", function()
      local object = decode(tidemill { "run", STOPS, "--format", "json" }.stdout)
      assert.is_false(object.ok)
      assert.equal("out of water", object.error.message)
      assert.equal("half-done", object.outcomes.first.payload)
      assert.equal("cancelled", object.outcomes.third.status)
    end)

    it("has the errors of all attempts", function()
      local object = decode(tidemill { "run", RETRIED, "--format", "json", stdin = "tide" }.stdout)
      local patient, hasty = object.outcomes.patient, object.outcomes.hasty
      assert.same({ "completed", 3 }, { patient.status, patient.attempts })
      assert.same({ "low tide 1", "low tide 2" }, { patient.errors[1].message, patient.errors[2].message })
      assert.same({ 1, 2 }, { hasty.errors[1].attempt, hasty.errors[2].attempt })
      assert.is_nil(object.outcomes.unwanted.error)
    end)

    it("is valid whatever the values are", function()
      local run = tidemill { "run", "spec/fixtures/values.dag.lua", "--format", "json" }
      local payload = decode(run.stdout).payload
      assert.same({}, payload.empty)
      assert.same({ 1, 2.5, "three", true }, payload.list)
      assert.equal(dkjson.null, payload.nothing)
      assert.equal(dkjson.null, payload.nan)
      assert.equal(dkjson.null, payload.infinite)
      assert.equal("a\239\191\189\239\191\189\239\191\189z", payload.bytes)
      assert.equal("tab\tand\27[31m", payload.control)
      assert.equal(0.1, payload.precise)
      assert.equal(2 ^ 53, payload.big)
      assert.same({ ["1"] = "one", ["10"] = "ten", ["true"] = "yes", word = "w" }, payload.mixed)
      assert.is_nil(run.stdout:find "[%z\1-\9\11-\31]")
    end)

    it("is an object even where the script does not load", function()
      local run = run_text("return 42", { "--format", "json" })
      assert.equal(1, run.status)
      local object = decode(run.stdout)
      assert.is_false(object.ok)
      assert.equal("invalid_dag", object.error.code)
      assert.equal(dkjson.null, object.payload)
      assert.matches('"metadata":{}.*"outcomes":{}', run.stdout)
    end)
  end)

  describe("--format text", function()
    local function lines_of(text)
      local lines = {}
      for line in text:gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
      return lines
    end

    it("shows payload, metadata, processors and a tally", function()
      local run = tidemill { "run", SHOUT, stdin = "tide\nmill\n" }
      assert.equal(0, run.status)
      assert.equal("", run.stderr)
      local lines = lines_of(run.stdout)
      assert.same({
        "Payload", "  TIDE", "  MILL", "",
        "Metadata", "  measure: {bytes: 10}", "  shout: {loud: true}", "",
        "Processors",
      }, { (table.unpack or unpack)(lines, 1, 9) })
      assert.matches("^  processor  intent     status +time  worker$", lines[10])
      assert.matches("^  shout      transform  completed  +[%d.]+ %S+  +%d+$", lines[11])
      assert.matches("^  measure    analyze    completed  +[%d.]+ %S+  +%d+$", lines[12])
      assert.matches("^shout: 2 completed in [%d.]+ %S+$", lines[14])
      assert.is_nil(run.stdout:find "\27")
    end)

    it("shows who failed, and why below", function()
      local run = tidemill { "run", FAILING, stdin = "tide" }
      assert.equal(1, run.status)
      assert.matches("\n  raises +transform +failed", run.stdout)
      assert.matches("\n  follows +transform +skipped +because of raises\n", run.stdout)
      assert.matches("failing: 1 completed, 2 failed, 1 skipped", run.stdout)
      assert.matches("^tidemill: 2 processors failed\n  raises %(processor_failed%)\n    %S", run.stderr)
      assert.matches("\n      stack traceback:\n", run.stderr)
      assert.matches("failing%.dag%.lua:8:", run.stderr)
      assert.matches("\n  refuses %(processor_failed%)\n    not today\n$", run.stderr)
      assert_no_traceback(run)
    end)

    it("shows how often who was retried, and whose condition did not hold", function()
      local run = tidemill { "run", RETRIED, stdin = "tide" }
      local lines = lines_of(run.stdout)
      assert.matches("^  processor  intent     status +time  worker  attempts$", lines[5])
      assert.matches("^  patient    transform  completed  +%S+ %S+  %d +3$", lines[6])
      assert.matches("^  hasty      transform  failed  +%S+ %S+  %d +2$", lines[7])
      assert.matches("^  unwanted   transform  skipped  +its condition did not hold$", lines[8])
      assert.equal(#lines[5], #(lines[6]:gsub("µ", "u")))
      assert.equal(#lines[5] + 3, (lines[8]:find "its"))
      assert.matches("\n  hasty %(processor_failed, attempt 2%)\n    low tide 2\n$", run.stderr)
    end)

    it("marks what a stopped run left behind", function()
      local run = tidemill { "run", STOPS }
      assert.matches("^Payload %(incomplete%)\n  half%-done\n", run.stdout)
      assert.matches("stops: 1 completed, 1 failed, 1 cancelled", run.stdout)
    end)

    it("has colors and symbols if it is told to", function()
      local run = tidemill { "run", SHOUT, "--color", "always", stdin = "tide" }
      assert.matches("\27%[32m✓\27%[0m shout", run.stdout)
    end)

    it("has none with NO_COLOR, --color never or no terminal", function()
      for _, command in ipairs {
        { "run", FAILING, stdin = "x" },
        { "run", FAILING, "--color", "never", stdin = "x" },
        { "run", FAILING, stdin = "x", env = { NO_COLOR = "1" } },
      } do
        local run = tidemill(command)
        assert.is_nil((run.stdout .. run.stderr):find "\27")
      end
    end)

    it("lets no control character through", function()
      local run = tidemill { "run", "spec/fixtures/bytes.dag.lua", stdin = "bell\7 red\27[31m c1\194\155 \255\n" }
      assert.matches("bell\\x07 red\\x1b%[31m c1\\x9b \239\191\189", run.stdout)
      assert.is_nil(run.stdout:find "[%z\1-\9\11-\31]")
    end)

    it("shortens a long payload and says by how much", function()
      local run = tidemill { "run", "spec/fixtures/bytes.dag.lua", stdin = ("line\n"):rep(1240) }
      assert.matches("\n  %.%.%. 1,200 more lines %(%-%-format payload prints all%)\n", run.stdout)
    end)

    it("shortens long lists in the metadata, and sorts keys", function()
      local run = run_text [[
        local tm = require "tidemill"
        return tm.dag { tm.analyze("a", function()
          local list = {}
          for i = 1, 25 do list[i] = i end
          return { zebra = 1, list = list, [7] = "seven", deep = { { x = { y = { ("long "):rep(30) } } } } }
        end) }]]
      assert.matches("  a:\n    7: seven\n    deep:\n      %- x:\n          y:\n            %- long ", run.stdout)
      assert.matches("%.%.%.\n    list:\n      %- 1\n      %- 2\n", run.stdout)
      assert.matches("      %- 10\n      %.%.%. 15 more\n    zebra: 1\n", run.stdout)
    end)

    it("aligns by columns, not by bytes", function()
      local run = run_text [[
        local tm = require "tidemill"
        local function same() return "" end
        return tm.dag { tm.transform("größe", same), tm.transform("潮汐", same), tm.transform("plain", same) }]]
      assert.matches("\n  größe      transform", run.stdout)
      assert.matches("\n  潮汐       transform", run.stdout)
      assert.matches("\n  plain      transform", run.stdout)
    end)
  end)

  describe("run with a barrier between the ranks", function()
    local function meet(...)
      os.remove(script)
      return tidemill { "run", BARRIER, "--workers", "2", "--format", "payload", stdin = script, ... }
    end

    it("stops when it takes too long", function()
      local run = meet("--timeout", "0.2")
      assert.equal(1, run.status)
      assert.equal("", run.stdout)
      assert.equal("tidemill: the run failed\n  timeout\n    the run took longer than 0.2 s\n", run.stderr)
    end)

    for _, strategy in ipairs { "reactive", "work_queue" } do
      it("has none under --strategy " .. strategy, function()
        local run = meet("--strategy", strategy, "--timeout", "10")
        assert.equal("", run.stderr)
        assert.equal("met", run.stdout)
      end)
    end
  end)

  it("tells that a run took too long and who failed before", function()
    local run = run_text([[
      local tm = require "tidemill"
      return tm.dag {
        failure_strategy = "best_effort",
        tm.transform("fails", function() return nil, "neap" end),
        tm.transform "spins" { depends_on = "fails", run = function() while true do end end },
      }]], { "--timeout", "0.3" })
    assert.equal(1, run.status)
    assert.matches("\n1 failed, 1 cancelled in ", run.stdout)
    assert.equal("tidemill: the run failed\n  timeout\n    the run took longer than 0.3 s\n"
      .. "  fails (processor_failed)\n    neap\n", run.stderr)
  end)

  describe("compare", function()
    local function compare_json(path, ...)
      local run = tidemill { "compare", path, "--format", "json", stdin = "tide", ... }
      return decode(run.stdout), run
    end

    it("shows how long each strategy takes, and that the results are equal", function()
      local run = tidemill { "compare", SHOUT, "--workers", "2", "--runs", "3", stdin = "tide" }
      assert.equal(0, run.status)
      assert.equal("", run.stderr)
      local time = " +%d[%d.]* %S+"
      local row = time .. time .. time .. " +%d+%%" .. " +%d+" .. "  equal\n"
      assert.matches("^Strategies\n  strategy +median +fastest +slowest +idle  at once  results\n"
        .. "  reactive  " .. row .. "  work_queue" .. row .. "  level     " .. row
        .. "\nshout: 3 runs under each strategy on 2 workers, all results are equal\n$", run.stdout)
    end)

    it("runs each five times if it is not told", function()
      local object = compare_json(SHOUT, "--workers", "1")
      assert.equal(5, object.runs)
      for i, strategy in ipairs { "reactive", "work_queue", "level" } do
        assert.equal(strategy, object.strategies[i].strategy)
        assert.equal(5, #object.strategies[i].durations)
      end
    end)

    it("is one object as JSON", function()
      local object, run = compare_json(SHOUT, "--workers", "3", "--runs", "2")
      assert.equal(0, run.status)
      assert.matches("^{[^\n]+}\n$", run.stdout)
      assert.same({ "shout", true, true, 3, 2 }, { object.dag, object.ok, object.equal, object.workers, object.runs })
      assert.same({ dkjson.null, dkjson.null }, { object.error, object.failed_under })
      for _, it in ipairs(object.strategies) do
        assert.is_true(it.fastest <= it.median and it.median <= it.slowest)
        assert.is_true(it.idle >= 0 and it.idle <= 1)
        assert.equal(1, it.at_once)
        assert.is_true(it.equal)
        assert.same({ count = 0, first = {} }, it.differences)
      end
    end)

    it("finds every value equal to itself, nan too", function()
      assert.is_true(compare_json("spec/fixtures/values.dag.lua").equal)
    end)

    it("says which fields differ, and from where a long text does", function()
      local run = tidemill { "compare", DRIFTING, "--workers", "1", "--runs", "1" }
      assert.equal(1, run.status)
      assert.equal("", run.stderr)
      assert.matches("\n  level  +%S+ %S+ +%S+ %S+ +%S+ %S+ +%d+%%  +1  differ\n", run.stdout)
      assert.is_truthy(run.stdout:find([[

Differences from the first run under reactive
  reactive: payload from byte 101 on is "4", not "1"
  reactive: metadata.drift["call number"][1] is 4, not 1
  reactive: outcomes.text.payload from byte 101 on is "4", not "1"
  work_queue: payload from byte 101 on is "2", not "1"
]], 1, true), run.stdout)
      assert.matches("\n  level: metadata%.drift%[\"call number\"%]%[1%] is 3, not 1\n", run.stdout)
      assert.matches("\ndrifting: 1 run under each strategy on 1 worker, results differ, under reactive alone too:\n",
        run.stdout)
    end)

    it("says so as JSON", function()
      local object, run = compare_json(DRIFTING, "--workers", "1", "--runs", "1")
      assert.equal(1, run.status)
      assert.same({ false, false }, { object.ok, object.equal })
      assert.equal(3, object.strategies[3].differences.count)
      assert.same({ path = 'metadata.drift["call number"][1]', expected = 1, actual = 3 },
        object.strategies[3].differences.first[2])
    end)

    it("tells who failed, once, and compares what the others made", function()
      local run = tidemill { "compare", FAILING, stdin = "tide" }
      assert.equal(1, run.status)
      assert.matches("\nfailing: 5 runs .* all results are equal\n$", run.stdout)
      assert.matches("^tidemill: 2 processors failed under reactive\n  raises %(processor_failed%)\n", run.stderr)
      assert.matches("\n  refuses %(processor_failed%)\n    not today\n$", run.stderr)
      assert_no_traceback(run)
    end)

    it("finds runs equal that were retried and skipped alike", function()
      local object, run = compare_json(RETRIED)
      assert.equal(1, run.status)
      assert.same({ true, false, "hasty", "reactive" },
        { object.equal, object.ok, object.error.processor, object.failed_under })
    end)

    it("ends at a run without a result", function()
      local run = tidemill { "compare", STOPS }
      assert.equal(1, run.status)
      assert.equal("", run.stdout)
      assert.equal("tidemill: 1 processor failed under reactive\n  second (processor_failed)\n    out of water\n",
        run.stderr)
      local object = compare_json(STOPS)
      assert.same({ false, dkjson.null, "out of water" }, { object.ok, object.equal, object.error.message })
      assert.same({}, object.strategies)
    end)

    it("ends at a run that takes too long", function()
      process.write(script, [[
        local tm = require "tidemill"
        return tm.dag { tm.analyze("spins", function() while true do end end) }]])
      local run = tidemill { "compare", script, "--timeout", "0.2" }
      assert.equal(1, run.status)
      assert.equal("", run.stdout)
      assert.equal("tidemill: the run failed under reactive\n  timeout\n    the run took longer than 0.2 s\n",
        run.stderr)
    end)

    it("tells that a script does not load", function()
      process.write(script, "return 42")
      local object, run = compare_json(script)
      assert.equal(1, run.status)
      assert.equal("invalid_dag", object.error.code)
      assert.same({}, object.strategies)
      assert.is_truthy(run.stderr:find("tidemill: cannot load " .. script .. "\n  ", 1, true), run.stderr)
    end)

    it("takes the input from a file, and modules from beside the script", function()
      local run = tidemill { "compare", "spec/fixtures/siblings/requires.dag.lua", "--input", SHOUT, "--runs", "1" }
      assert.same({ 0, "" }, { run.status, run.stderr })
    end)

    it("says so when the disk is full", function()
      if not util.exists "/dev/full" then return pending "there is no /dev/full" end
      local run = tidemill { "compare", SHOUT, "--runs", "1", to = ">/dev/full" }
      assert.equal(1, run.status)
      assert.equal("tidemill: cannot write to standard output: No space left on device\n", run.stderr)
    end)

    it("has colors and symbols if it is told to", function()
      local run = tidemill { "compare", DRIFTING, "--color", "always", "--workers", "1" }
      assert.matches("\27%[31m✗\27%[0m level", run.stdout)
      assert.matches("✓", tidemill { "compare", SHOUT, "--color", "always" }.stdout)
      assert.is_nil(tidemill { "compare", DRIFTING, stdin = "" }.stdout:find "\27")
    end)
  end)

  -- What is measured, of runs that are made up.
  describe("compares", function()
    local compare = assert(loadfile "bin/compare.lua")()

    local function outcome(started, finished, fields)
      local made = { status = "completed", attempts = 1, started = started, finished = finished }
      for key, value in pairs(fields or {}) do made[key] = value end
      return made
    end

    -- A dag whose n-th run comes to make(strategy, n).
    local function dag_of(make)
      local dag = { strategies = {}, options = {} }
      function dag:run(_, options)
        table.insert(self.strategies, options.strategy)
        table.insert(self.options, options)
        return make(options.strategy, #self.strategies)
      end
      return dag
    end

    local function result_of(duration, outcomes, payload)
      return { duration = duration, payload = payload, metadata = {}, outcomes = outcomes or {} }
    end

    local function run(dag, runs)
      return compare(dag, "payload", { strategies = { "reactive", "level" }, runs = runs, workers = 2, timeout = 7 })
    end

    it("by turns, after one run of each that does not count", function()
      local dag = dag_of(function(_, n) return result_of(n) end)
      local comparison = run(dag, 2)
      assert.same({ "reactive", "level", "reactive", "level", "reactive", "level" }, dag.strategies)
      assert.same({ profile = true, strategy = "level", timeout = 7 }, dag.options[6])
      assert.same({ 3, 5 }, comparison.strategies[1].durations)
      assert.same({ 4, 6 }, comparison.strategies[2].durations)
    end)

    it("by the median, the fastest and the slowest", function()
      local times = { 0, 0, 3, 0, 1, 0, 10, 0, 2, 0 }
      local dag = dag_of(function(_, n) return result_of(times[n]) end)
      local reactive = run(dag, 4).strategies[1]
      assert.same({ 2.5, 1, 10 }, { reactive.median, reactive.fastest, reactive.slowest })
    end)

    it("by the workers' idle time, and 0 where nothing took any", function()
      local dag = dag_of(function(strategy)
        if strategy == "level" then return result_of(0) end
        return result_of(10, { a = outcome(0, 8), b = outcome(1, 5), c = { status = "skipped", attempts = 0 } })
      end)
      local reactive, level = (table.unpack or unpack)(run(dag, 3).strategies)
      assert.is_true(math.abs(reactive.idle - 0.4) < 1e-9)
      assert.equal(0, level.idle)
    end)

    it("by how many callbacks ran at once", function()
      local cases = {
        { 0, {} },
        { 1, { a = outcome(1, 1) } },
        { 1, { a = outcome(0, 1), b = outcome(1, 2), c = outcome(2, 3) } },
        { 2, { a = outcome(0, 5), b = outcome(1, 2), c = outcome(2, 3) } },
        { 3, { a = outcome(0, 5), b = outcome(1, 4), c = outcome(2, 3), d = outcome(4, 6) } },
      }
      for _, case in ipairs(cases) do
        local comparison = run(dag_of(function() return result_of(9, case[2]) end), 1)
        assert.equal(case[1], comparison.strategies[1].at_once)
      end
    end)

    it("payload, metadata, statuses and errors, but no times, workers or tracebacks", function()
      local function with(n, fields)
        fields.worker = n
        return result_of(n, { a = outcome(n, n + 1, fields) })
      end
      local function first_path(make)
        local comparison = run(dag_of(make), 1)
        local level = comparison.strategies[2]
        assert.equal(comparison.equal, level.equal)
        assert.is_true(comparison.strategies[1].equal)
        return level.differences and level.differences.first[1].path
      end
      local function if_level(strategy, value, other)
        if strategy == "level" then return value end
        return other
      end

      assert.is_nil(first_path(function(_, n)
        return with(n, { error = { code = "x", traceback = "at " .. n }, errors = { { traceback = "at " .. n } } })
      end))
      assert.is_nil(first_path(function() return result_of(1, {}, { { 0 / 0 }, b = { c = 1 } }) end))
      assert.equal("payload[1].b", first_path(function(strategy)
        return result_of(1, {}, { { b = if_level(strategy, 1) } })
      end))
      assert.equal("payload", first_path(function(strategy) return result_of(1, {}, if_level(strategy, false)) end))
      assert.equal("outcomes.a.status", first_path(function(strategy, n)
        return with(n, { status = if_level(strategy, "skipped", "completed") })
      end))
      assert.equal("outcomes.a.error.message", first_path(function(strategy, n)
        return with(n, { error = { message = if_level(strategy, "ebb", "flood") } })
      end))
      assert.equal("outcomes.a.errors[1].cause.x", first_path(function(strategy, n)
        return with(n, { errors = { { cause = { x = if_level(strategy, 1, 2) } } } })
      end))
    end)

    it("up to five differences, and counts the others", function()
      local comparison = run(dag_of(function(_, n)
        local list = {}
        for i = 1, 12 do list[i] = n == 4 and -i or i end
        return result_of(1, {}, list)
      end), 1)
      local found = comparison.strategies[2].differences
      assert.equal(12, found.count)
      assert.equal(5, #found.first)
      assert.same({ path = "payload[5]", expected = 5, actual = -5 }, found.first[5])
    end)

    it("and hands out the first failure", function()
      local comparison, failure = run(dag_of(function(_, n)
        return result_of(1), n > 1 and { message = n } or nil
      end), 2)
      assert.is_true(comparison.equal)
      assert.same({ error = { message = 2 }, strategy = "level" }, failure)
      comparison, failure = run(dag_of(function(_, n)
        if n == 3 then return nil, { code = "timeout" } end
        return result_of(1), { message = n }
      end), 2)
      assert.is_nil(comparison)
      assert.same({ error = { code = "timeout" }, strategy = "reactive" }, failure)
    end)
  end)

  describe("with a script that does not load", function()
    local cases = {
      { "a syntax error", "return {", "expected" },
      { "an error of its own", 'error("no tide today")', "no tide today" },
      { "an error that is a table", "error({})", "" },
      { "no DAG to return", "return 42", "" },
      { "nothing to return", "", "" },
      { "a module that is missing", 'require "no.such.module"', "no.such.module" },
      { "an unknown dependency",
        'local tm = require "tidemill" return tm.dag { tm.transform "a" { depends_on = "b", run = print } }', '"?b"?' },
    }
    for _, case in ipairs(cases) do
      it("because of " .. case[1], function()
        local run = run_text(case[2])
        assert.equal(1, run.status)
        assert.equal("", run.stdout)
        assert.is_truthy(run.stderr:find("tidemill: cannot load " .. script .. "\n  ", 1, true), run.stderr)
        assert.matches(case[3], run.stderr)
        assert_no_traceback(run)
      end)
    end
  end)

  it("lets a script require the modules beside it", function()
    local run = tidemill { "run", "spec/fixtures/siblings/requires.dag.lua", "--format", "payload" }
    assert.equal("", run.stderr)
    assert.equal("from beside", run.stdout)
  end)

  it("gives the same result with any number of workers", function()
    local outputs = {}
    for _, workers in ipairs { "1", "2", "16" } do
      local run = tidemill { "run", "scripts/diamond.dag.lua", "--workers", workers, "--format", "payload" }
      assert.equal(0, run.status)
      outputs[#outputs + 1] = run.stdout
    end
    assert.equal(outputs[1], outputs[2])
    assert.equal(outputs[1], outputs[3])
  end)

  describe("that can't write its output", function()
    for _, format in ipairs { "text", "json", "payload" } do
      it("says so when the disk is full: " .. format, function()
        if not util.exists "/dev/full" then return pending "there is no /dev/full" end
        local run = tidemill { "run", SHOUT, "--format", format, stdin = ("tide\n"):rep(9), to = ">/dev/full" }
        assert.equal(1, run.status)
        assert.equal("tidemill: cannot write to standard output: No space left on device\n", run.stderr)
      end)
    end

    it("says so for its help and its version", function()
      if not util.exists "/dev/full" then return pending "there is no /dev/full" end
      assert.equal(1, tidemill { "--help", to = ">/dev/full" }.status)
      assert.equal(1, tidemill { "--version", to = ">/dev/full" }.status)
    end)

    -- 1 MiB is more than a pipe holds, and the reader is gone by then.
    local function into_closed_pipe(before)
      return tidemill {
        "run", "spec/fixtures/bytes.dag.lua", "--format", "payload", stdin = ("x"):rep(2 ^ 20),
        before = before, to = ">&3", after = "3>&1 | true",
      }
    end

    it("does not succeed when the reader is gone", function()
      assert.is_true(into_closed_pipe "".status ~= 0)
    end)

    it("says so where it is closed", function()
      for _, words in ipairs {
        { "run", SHOUT, stdin = "tide" }, { "compare", SHOUT, "--runs", "1" }, { "--help" }, { "--version" },
      } do
        words.to = ">&-"
        local run = tidemill(words)
        assert.equal("tidemill: cannot write to standard output: Bad file descriptor\n", run.stderr)
        assert.equal(1, run.status)
      end
    end)

    it("says so where the shell ignores SIGPIPE", function()
      local run = into_closed_pipe "trap '' PIPE;"
      assert.equal(1, run.status)
      assert.equal("tidemill: cannot write to standard output: Broken pipe\n", run.stderr)
    end)
  end)

  it("works where standard error is closed, and what it opens is not in its place", function()
    process.write(script, [[
      local tm = require "tidemill"
      return tm.dag { tm.transform("open", { timeout = 1000, run = function(payload)
        local file = io.tmpfile()
        io.stderr:write "not in there"
        return payload .. file:seek "end"
      end }) }]])
    local run = tidemill {
      "run", script, "--format", "payload", stdin = "tide", before = [[sh -c 'exec "$0" "$@" 2>&-' env]],
    }
    assert.same({ "tide0", 0 }, { run.stdout, run.status })
  end)

  it("waits for a reader of a pipe that does not block", function()
    local path = util.path()
    local run = tidemill {
      "run", "spec/fixtures/bytes.dag.lua", "--format", "payload", stdin = ("x"):rep(2 ^ 22),
      before = process.interpreter() .. [[ -e 'require "luv".new_pipe(false):open(3)';]], to = ">&3",
      after = "3>&1 | cat >" .. path,
    }
    assert.same({ "", 0 }, { run.stderr, run.status })
    assert.equal(2 ^ 22, #process.read(path))
  end)

  describe("interrupted", function()
    local run

    after_each(function()
      run:signal "KILL"
      pcall(run.wait, run)
      run:remove()
      util.cleanup()
    end)

    for _, words in ipairs { { "run" }, { "run", "--timeout", "1000" }, { "compare" } } do
      it("ends at once, and quietly: " .. table.concat(words, " "), function()
        local begun = util.path ".begun"
        local endless = util.script([[
          local tm = require "tidemill"
          return tm.dag { tm.transform("endless", function()
            io.open($BEGUN, "w"):close()
            while true do end
          end) }]], { BEGUN = begun })
        local command = { "bin/tidemill" }
        for _, word in ipairs(words) do command[#command + 1] = word end
        for _, word in ipairs { endless, "--input", SHOUT } do command[#command + 1] = word end
        run = process.start(command)
        util.await(begun)
        run:signal "INT"
        assert.same({ 130, "", "" }, { run:wait(), run:read "stdout", run:read "stderr" })
      end)
    end

    it("ends at once, and quietly, while it reads its input", function()
      local fifo = util.path ".fifo"
      os.execute("mkfifo " .. fifo)
      run = process.start { "bin/tidemill", "run", SHOUT, "--input", fifo }
      local input = assert(io.open(fifo, "w"))   -- waits until it is opened at the other end
      run:signal "INT"
      assert.same({ 130, "", "" }, { run:wait(), run:read "stdout", run:read "stderr" })
      input:close()
    end)
  end)

  it("runs a script whose path has spaces", function()
    local directory = os.tmpname()
    os.remove(directory)
    directory = directory .. " with spaces"
    os.execute(("mkdir '%s' && cp spec/fixtures/siblings/*.lua '%s'"):format(directory, directory))
    local run = tidemill { "run", directory .. "/requires.dag.lua", "--format", "payload" }
    os.execute(("rm -r '%s'"):format(directory))
    assert.equal("from beside", run.stdout)
  end)
end)
