-- SPDX-License-Identifier: MIT
-- The tidemill command, run as a user runs it: standard output, standard error and exit status.

local dkjson = require "dkjson"
local process = require "spec.support.process"

local SHOUT = "spec/fixtures/shout.dag.lua"
local FAILING = "spec/fixtures/failing.dag.lua"
local STOPS = "spec/fixtures/stops.dag.lua"

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

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
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

  for _, command in ipairs { { "--help" }, { "-h" }, { "run", "--help" }, { "run", "-h" } } do
    it("helps with an example: " .. table.concat(command, " "), function()
      local run = tidemill(command)
      assert.equal(0, run.status)
      assert.equal("", run.stderr)
      assert.matches("^Usage: tidemill", run.stdout)
      assert.matches("\nExamples?:\n   tidemill run ", run.stdout)
    end)
  end

  it("helps within 80 columns", function()
    for line in tidemill { "run", "--help" }.stdout:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
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
    for _, workers in ipairs { "0", "-1", "1025", "10000", "x", "2.5", "0x4", "", "99999999999999999999" } do
      cases[#cases + 1] = { ("with %q workers"):format(workers), { "run", SHOUT, "--workers=" .. workers },
        "--workers takes a whole number from 1 to 1024, not '" .. workers .. "'", true }
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
        if not exists "/dev/full" then return pending "there is no /dev/full" end
        local run = tidemill { "run", SHOUT, "--format", format, stdin = ("tide\n"):rep(9), to = ">/dev/full" }
        assert.equal(1, run.status)
        assert.equal("tidemill: cannot write to standard output: No space left on device\n", run.stderr)
      end)
    end

    it("says so for its help and its version", function()
      if not exists "/dev/full" then return pending "there is no /dev/full" end
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

    it("says so where the shell ignores SIGPIPE", function()
      local run = into_closed_pipe "trap '' PIPE;"
      assert.equal(1, run.status)
      assert.equal("tidemill: cannot write to standard output: Broken pipe\n", run.stderr)
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
