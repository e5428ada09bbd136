-- SPDX-License-Identifier: MIT
-- tidemill run --each: a run for each line, record or JSON value.

local dkjson = require "dkjson"
local process = require "spec.support.process"
local util = require "spec.support.util"

local SHOUT = "spec/fixtures/shout.dag.lua"
local FAILING = "spec/fixtures/failing.dag.lua"

local ECHO = [[
local tm = require "tidemill"
return tm.dag { tm.transform("echo", function(payload) return payload end) }]]

local PICKY = [[
local tm = require "tidemill"
return tm.dag {
  tm.transform("picky", function(payload)
    if payload == "bad" then return nil, "it is\nbad" end
    return payload
  end),
}]]

-- "slow" waits until there is a file.
local PATIENT = [[
local tm = require "tidemill"
return tm.dag {
  tm.transform("patient", function(payload)
    while payload == "slow" do
      local file = io.open($GATE)
      if file then
        file:close()
        break
      end
    end
    return payload
  end),
}]]

-- tidemill { script, ..., stdin = ... }
local function command(words)
  table.insert(words, 1, "run")
  table.insert(words, 1, "bin/tidemill")
  return words
end

local function tidemill(words)
  return process.lua(command(words))
end

local function each(kind, script, stdin, ...)
  local words = { script, "--each", kind, stdin = stdin, ... }
  return tidemill(words)
end

local function objects(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do list[#list + 1] = assert(dkjson.decode(line, 1, dkjson.null)) end
  return list
end

local function sorted(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do list[#list + 1] = line end
  table.sort(list)
  return table.concat(list, " ")
end

describe("tidemill run --each", function()
  local started

  after_each(function()
    if started then
      started:signal "KILL"
      pcall(started.wait, started)
      started:remove()
      started = nil
    end
    util.cleanup()
  end)

  local function start(words)
    started = process.start(command(words))
    return started
  end

  local function gated()
    local gate = util.path ".gate"
    return util.script(PATIENT, { GATE = gate }), function() util.write(gate, "open") end
  end

  describe("line", function()
    it("runs once for each line, and writes the payloads in order", function()
      local run = each("line", SHOUT, "tide\r\n\nmill")
      assert.equal("TIDE\n\nMILL\n", run.stdout)
      assert.equal("", run.stderr)
      assert.equal(0, run.status)
    end)

    it("keeps all bytes", function()
      local bytes = {}
      for i = 0, 255 do bytes[#bytes + 1] = i ~= 10 and string.char(i) or "" end
      local all = table.concat(bytes) .. "\n\0\n\255\254\n"
      assert.equal(all, each("line", util.script(ECHO), all).stdout)
    end)

    it("does nothing without input", function()
      local run = each("line", SHOUT, "")
      assert.same({ "", "", 0 }, { run.stdout, run.stderr, run.status })
    end)

    it("reads files", function()
      local path = util.write(util.path(), "a\nb\n")
      assert.equal("A\nB\n", tidemill { SHOUT, "--each", "line", "--input", path }.stdout)
      assert.equal("A\nB\n", tidemill { SHOUT, "--each", "line", from = "<" .. path }.stdout)
      assert.equal("A\nB\n", tidemill { SHOUT, "--each", "line", "--input", "-", from = "<" .. path }.stdout)
    end)

    it("reads pipes that are there before it and after it", function()
      local script = util.script(ECHO)
      local run = tidemill { script, "--each", "line", before = "{ seq 3; sleep 0.1; seq 4 20000; } |", from = " " }
      assert.equal(20000, select(2, run.stdout:gsub("\n", "")))
      assert.matches("^1\n2\n3\n4\n.*\n19999\n20000\n$", run.stdout)
    end)

    it("takes lines that are longer than anything else", function()
      local long = ("x"):rep(3e6)
      assert.equal("a\n" .. long .. "\nb\n", each("line", util.script(ECHO), "a\n" .. long .. "\nb").stdout)
    end)
  end)

  describe("record", function()
    it("takes paragraphs", function()
      assert.equal("A\nB\nC\n", each("record", SHOUT, "\na\nb\n\n\nc\n").stdout)
    end)

    it("takes what ends in a separator", function()
      assert.equal("A\nB\n\nC\n", each("record", SHOUT, "a\0b\n\0c\0", "--separator", "\\0").stdout)
    end)
  end)

  describe("json", function()
    it("makes each value a payload", function()
      local run = each("json", util.script(ECHO), '{"b": [1, 2.5], "a": null}\n\n "x\\ty" \n7\n[]\ntrue\nnull\n')
      assert.same({ "", 0 }, { run.stderr, run.status })
      local lines = {}
      for line in run.stdout:gmatch "[^\n]+" do lines[#lines + 1] = line end
      assert.same({ '{"a":null,"b":[1,2.5]}', "x\ty", "7", "[]", "true", "null" }, lines)
    end)

    it("tells where there is none, and goes on", function()
      local deep = ("["):rep(100000)
      local run = each("json", util.script(ECHO), '1\nnonsense\n2 3\n' .. deep .. '\n4\n', "--format", "json")
      assert.equal(1, run.status)
      local list = objects(run.stdout)
      assert.same({ 1, 2, 3, 4, 5 }, { list[1].line, list[2].line, list[3].line, list[4].line, list[5].line })
      assert.same({ true, false, false, false, true }, { list[1].ok, list[2].ok, list[3].ok, list[4].ok, list[5].ok })
      assert.equal("invalid_payload", list[2].error.code)
      assert.matches("\nline 3: invalid JSON: something follows the value at column 3\n", "\n" .. run.stderr)
      assert.matches("\nline 4: invalid JSON: ", run.stderr)
      assert.matches("tidemill: 5 lines, 3 failed", run.stderr)
    end)

    it("counts empty lines", function()
      assert.matches("^line 4: ", each("json", util.script(ECHO), "1\n\n  \n}\n").stderr)
    end)
  end)

  describe("--format", function()
    it("payload writes other values as JSON, and lines as they are", function()
      local script = util.script [[
        local tm = require "tidemill"
        return tm.dag { tm.transform("make", function(text)
          return ({ list = { 1, "b" }, lines = "a\nb\n", none = "", yes = true, null = tm.null })[text]
        end) }]]
      local run = each("line", script, "list\nlines\nnone\nyes\nnull\n")
      assert.equal('[1,"b"]\na\nb\n\n\ntrue\nnull\n', run.stdout)
    end)

    it("json has number, payload, metadata and error", function()
      local list = objects(each("line", SHOUT, "a\nb\n", "--format", "json").stdout)
      assert.same({ line = 2, payload = "B", metadata = { measure = { bytes = 1 }, shout = { loud = true } },
        ok = true, error = dkjson.null, failures = {} }, list[2])
      assert.equal(1, objects(each("record", SHOUT, "a", "--format", "json").stdout)[1].record)
    end)

    it("json tells failures", function()
      local it = objects(each("line", FAILING, "a\n", "--format", "json").stdout)[1]
      assert.same({ false, "a!", "raises" }, { it.ok, it.payload, it.error.processor })
      assert.same({ "raises", "refuses" }, { it.failures[1].processor, it.failures[2].processor })
    end)

    it("text is a line for people", function()
      local run = each("record", SHOUT, "a\nb\n\nc", "--format", "text")
      assert.equal("1: A\\nB  {measure: {bytes: 3}, shout: {loud: true}}\n"
        .. "2: C  {measure: {bytes: 1}, shout: {loud: true}}\n", run.stdout)
    end)
  end)

  describe("where runs fail", function()
    it("tells each in a line, goes on, and fails in the end", function()
      local run = each("line", util.script(PICKY), "a\nbad\nc\n")
      assert.equal("a\nc\n", run.stdout)
      assert.matches("^line 2: processor 'picky': it is\\nbad\ntidemill: 3 lines, 1 failed in [%d.]+ s %([%d,]+/s%)\n$",
        run.stderr)
      assert.equal(1, run.status)
    end)

    it("says how many more processors did", function()
      local run = each("line", FAILING, "a\n")
      assert.equal("a!\n", run.stdout)
      assert.matches("^line 1: processor 'raises': [^\n]+ %(and 1 more failed%)\n", run.stderr)
    end)

    it("--timeout is for each run", function()
      local script = gated()
      local run = each("line", script, "a\nslow\nb\n", "--timeout", "0.1")
      assert.equal("a\nb\n", run.stdout)
      assert.matches("^line 2: [^\n]*0%.1", run.stderr)
      assert.equal(1, run.status)
    end)
  end)

  describe("writes", function()
    it("results while the input is still open", function()
      local run = start { SHOUT, "--each", "line" }
      run.input:write "one\n"
      run:await("stdout", "ONE\n")
      run.input:write "two\nthr"
      run:await("stdout", "TWO\n")
      run.input:write "ee"
      assert.equal(0, run:wait())
      assert.equal("ONE\nTWO\nTHREE\n", run:read "stdout")
    end)

    it("results that settle while it waits for input", function()
      local script, open = gated()
      local run = start { script, "--each", "line" }
      run.input:write "slow\n"
      open()
      run:await("stdout", "slow\n")
    end)

    it("in order, though a later one settles first", function()
      local script, open = gated()
      local run = start { script, "--each", "line", "--workers", "2" }
      run.input:write "slow\nquick\n"
      open()
      assert.equal(0, run:wait())
      assert.equal("slow\nquick\n", run:read "stdout")
    end)

    it("--unordered, what settles first", function()
      local script, open = gated()
      local run = start { script, "--each", "line", "--workers", "2", "--unordered" }
      run.input:write "slow\nquick\n"
      run:await("stdout", "quick\n")
      open()
      assert.equal(0, run:wait())
      assert.equal("quick\nslow\n", run:read "stdout")
    end)

    it("--unordered, the number of each", function()
      local lines, expected = {}, {}
      for i = 1, 500 do
        lines[i] = i % 7 == 0 and "bad" or tostring(i)
        if i % 7 == 0 then expected[#expected + 1] = ("line %d: processor 'picky': it is\\nbad"):format(i) end
      end
      table.sort(expected)
      local run = each("line", util.script(PICKY), table.concat(lines, "\n"), "--unordered")
      assert.equal(table.concat(expected, " "), sorted((run.stderr:gsub("tidemill:[^\n]*\n", ""))))
    end)

    it("all results of many lines, in order, whatever is in flight", function()
      local lines = {}
      for i = 1, 20000 do lines[i] = tostring(i) end
      local text = table.concat(lines, "\n") .. "\n"
      for _, options in ipairs { { "1", "1" }, { "2", "3" }, { "4", "1000" } } do
        local run = each("line", util.script(ECHO), text, "--workers", options[1], "--in-flight", options[2])
        assert.is_true(run.stdout == text)
      end
    end)
  end)

  it("has no more runs --in-flight", function()
    local busy = util.path ".busy"
    local script = util.script([[
      local tm = require "tidemill"
      return tm.dag {
        tm.transform("enter", function(payload)
          local file = io.open($BUSY)
          if file then return nil, "somebody is here" end
          return io.open($BUSY, "w"):close() and payload
        end),
        tm.transform "leave" { depends_on = "enter", run = function(payload)
          return os.remove($BUSY) and payload
        end },
      }]], { BUSY = busy })
    local run = each("line", script, ("x\n"):rep(200), "--workers", "4", "--in-flight", "1")
    assert.same({ ("x\n"):rep(200), "" }, { run.stdout, run.stderr })
  end)

  it("takes no more memory for more lines", function()
    if package.cpath:find("asan", 1, true) then return pending "what is freed is kept under the address sanitizer" end
    local script = util.script [[
      local tm = require "tidemill"
      local function peak()
        local status = io.open "/proc/self/status"
        if not status then return "0" end
        local text = status:read "*a"
        status:close()
        return text:match "VmHWM:%s*(%d+)"
      end
      return tm.dag { tm.transform("peak", function(payload)
        return (payload:find "^[13]00000 ") and peak() or "-"
      end) }]]
    local lines = ("seq -f '%%.0f %s' 300000 |"):format(("x"):rep(92))
    local run = tidemill { script, "--each", "line", before = lines, from = " " }
    assert.equal("", run.stderr)
    local early, late = run.stdout:match "(%d+).-(%d+)"
    assert.is_true(late - early < 8 * 1024, ("%s kB after 10 MB, %s kB after 30"):format(early, late))
  end)

  describe("interrupted", function()
    for name, status in pairs { INT = 130, TERM = 143 } do
      it(("by SIG%s, cancels what is in flight and says how far it got"):format(name), function()
        local script = gated()
        local run = start { script, "--each", "line", "--workers", "2" }
        run.input:write "a\nb\nslow\nslow\n"
        run:await("stdout", "b\n")
        run:signal(name)
        run:await("stderr", "cancelled")
        assert.equal(status, run:wait())
        util.assert_contains(run:read "stderr", "tidemill: interrupted after 2 lines; 2 in flight were cancelled\n")
      end)
    end

    it("twice, ends at once", function()
      local asleep = util.path ".pid"
      local script = util.script([[
        local tm = require "tidemill"
        return tm.dag { tm.transform("deaf", function(payload)
          if payload == "deaf" then io.popen("exec sh -c 'echo $$ >" .. $ASLEEP .. "; exec sleep 100'"):read "*a" end
          return payload
        end) }]], { ASLEEP = asleep })
      local run = start { script, "--each", "line" }
      run.input:write "a\ndeaf\n"
      run:await("stdout", "a\n")
      util.await(asleep)
      run:signal "INT"
      run:await("stderr", "cancelled")
      run:signal "INT"
      assert.equal(130, run:wait())
      os.execute("kill -KILL " .. process.read(asleep))   -- the workers block other signals
    end)
  end)

  it("is interrupted though there is always more input", function()
    local run = start { util.script(ECHO), "--each", "record", "--separator", "\\0", "--input", "/dev/zero" }
    run:await("stdout", "\n")
    run:signal "INT"
    run:await("stderr", "interrupted after ")
    assert.equal(130, run:wait())
  end)

  it("ends at the second signal even if a run that should be short does not end", function()
    local stuck = util.path ".stuck"
    local script = util.script([[
      local tm = require "tidemill"
      return tm.dag { tm.transform("endless", function(payload)
        if payload == "1000" then
          io.open($STUCK, "w"):close()
          while true do end
        end
        return payload
      end) }]], { STUCK = stuck })
    local run = start { script, "--each", "line", "--workers", "1" }
    for i = 1, 1000 do run.input:write(i, "\n") end
    util.await(stuck)
    local deadline = os.time() + 60
    repeat
      run:signal "INT"
      os.execute "sleep 0.02"
    until process.read(run.files.status) ~= "" or os.time() > deadline
    assert.equal(130, run:wait())
  end)

  it("stops where its output is closed, as others do", function()
    for _, ignored in ipairs { "", "trap '' PIPE;" } do
      local run = tidemill { util.script(ECHO), "--each", "line", before = ignored .. "yes 2>/dev/null |", from = " ",
        to = " ", after = "| head -n 1 >/dev/null" }
      assert.same({ "", 141 }, { run.stderr, run.status })
    end
  end)

  it("tells that the disk is full", function()
    local run = tidemill { util.script(ECHO), "--each", "line", stdin = "x\n", to = ">/dev/full" }
    assert.equal("tidemill: cannot write to standard output: No space left on device\n", run.stderr)
    assert.equal(1, run.status)
  end)

  describe("on a terminal", function()
    local function on_terminal(words)
      words.terminal = true
      return start(words)
    end

    it("tells how far it got, and takes that back", function()
      if not process.can_make_terminals() then return pending "there is no script(1) to make a terminal" end
      local run = on_terminal { util.script(PICKY), "--each", "line" }
      run.input:write "a\nb\n"
      run:await("stderr", "2 lines, ")
      run:await("stderr", "0 in flight")
      run.input:write "bad\n"
      run:await("stderr", "\r\27[Kline 3: processor 'picky'")
      run:await("stderr", "3 lines, ")
      assert.equal(1, run:wait())
      assert.matches("\r\27%[Ktidemill: 3 lines, 1 failed in [^\n]+\n$", run:read "stderr")
      assert.equal("a\nb\n", run:read "stdout")
    end)

    it("tells what is left of a file", function()
      if not process.can_make_terminals() then return pending "there is no script(1) to make a terminal" end
      local script = gated()
      local path = util.write(util.path(), "a\nslow\n" .. ("b\n"):rep(65530))
      local run = on_terminal { script, "--each", "line", "--input", path }
      run:await("stderr", "8 in flight, 50%, ")
      run:await("stderr", " left")
    end)

    it("is --quiet", function()
      if not process.can_make_terminals() then return pending "there is no script(1) to make a terminal" end
      local run = on_terminal { util.script(PICKY), "--each", "line", "--quiet" }
      run.input:write "a\n"
      run:await("stdout", "a\n")
      assert.equal(0, run:wait())
      assert.equal("", run:read "stderr")
    end)
  end)

  describe("misused", function()
    for name, case in pairs {
      ["of no kind"] = { { SHOUT, "--each", "word" }, "must be one of 'line', 'record', 'json'" },
      ["in flight without it"] = { { SHOUT, "--in-flight", "3" }, "tidemill: --in-flight needs --each\n" },
      ["unordered without it"] = { { SHOUT, "--unordered" }, "tidemill: --unordered needs --each\n" },
      ["quiet without it"] = { { SHOUT, "--quiet" }, "tidemill: --quiet needs --each\n" },
      ["separator of lines"] = { { SHOUT, "--each", "line", "--separator", ";" }, "--separator needs --each record\n" },
      ["none in flight"] = { { SHOUT, "--each", "line", "--in-flight", "0" }, "number from 1 to 1048576, not '0'" },
      ["empty separator"] = { { SHOUT, "--each", "record", "--separator=" }, "--separator '': it must not be empty" },
      ["unknown escape"] = { { SHOUT, "--each", "record", "--separator", "\\q" }, "there is no escape '\\q'" },
      ["missing input"] = { { SHOUT, "--each", "line", "--input", "spec/no" }, "spec/no: No such file or directory\n" },
      ["directory as input"] = { { SHOUT, "--each", "line", "--input", "spec" }, "cannot read the input: spec: " },
      ["closed input"] = { { SHOUT, "--each", "line", from = "<&-" }, "standard input: Bad file descriptor\n" },
      ["with compare"] = { { SHOUT, "--each", "line", compare = true }, "unknown option '--each'" },
    } do
      it(name, function()
        local words = command(case[1])
        if words.compare then words[2] = "compare" end
        local run = process.lua(words)
        assert.equal(2, run.status)
        assert.equal("", run.stdout)
        util.assert_contains(run.stderr, case[2])
      end)
    end

    it("with standard output closed", function()
      local run = tidemill { SHOUT, "--each", "line", to = ">&-" }
      assert.equal("tidemill: cannot write to standard output: Bad file descriptor\n", run.stderr)
      assert.equal(1, run.status)
    end)
  end)

  it("tells of a script that does not load", function()
    local run = each("line", util.script "return 42", "a\n")
    assert.equal(1, run.status)
    assert.matches("cannot load", run.stderr)
  end)
end)
