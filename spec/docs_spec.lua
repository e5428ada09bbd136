-- SPDX-License-Identifier: MIT
-- Runs what the pages show. A ```lua block that returns a DAG is a script: it is loaded and run. Any other one is a
-- program: it is run, and a ```text block right behind it is what it prints. ```console blocks are commands with their
-- output. HTML comments before a block, which no reader sees, say more:
--
--   <!-- given: CODE -->             stands before the block, on its first line
--   <!-- file: NAME -->              the block is a file of that name for the programs and commands that follow
--   <!-- needs: MODULE -->           the program is run by itself, where this module can be required
--   <!-- run: ARGUMENTS → VALUE -->  running it with these arguments yields this payload; may be repeated
--   <!-- fails: ARGUMENTS → TEXT --> the error of that run has this text
--   <!-- check: EXPRESSION -->       is true of payload, result and err of the run above

local process = require "spec.support.process"
local render = require "spec.support.render"
local tm = require "tidemill"
local util = require "spec.support.util"

local PAGES = { "README.md", "docs/scripting.md", "docs/streaming.md", "docs/event_loops.md" }
local WITH_LINKS = {
  "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/scripting.md", "docs/streaming.md",
  "docs/event_loops.md", "docs/embedding.md", "docs/flow.md", "docs/threads.md", "docs/performance.md",
  "docs/trust.md",
  "docs/adr/README.md", "engine/README.md", "bindings/README.md", "bin/README.md", "scripts/README.md",
  "spec/README.md", "bench/README.md",
}
local DEFINITIONS = "bindings/tidemill/library/tidemill.lua"

local load_text = loadstring or load

-- { { kind =, line =, text =, directives = { { name, argument }, ... }, output = text or nil }, ... }
local function blocks_of(page)
  local blocks, directives, open, previous, number = {}, {}, nil, nil, 0
  for line in (process.read(page) .. "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    local fence, name, argument = line:match "^```(.*)$", line:match "^<!%-%- (%l+): (.*) %-%->$"
    if open and fence == "" then
      if open.kind == "text" and previous then previous.output = open.text end
      previous = open.kind == "lua" and open or nil
      blocks[#blocks + 1], open = open, nil
    elseif open then
      open.text = open.text .. line .. "\n"
    elseif fence then
      open = { kind = fence, line = number, text = "", directives = directives }
      directives = {}
    elseif name then
      directives[#directives + 1] = { name, argument }
    elseif line ~= "" then
      directives, previous = {}, nil
    end
  end
  assert(not open, page .. ": a block has no end")
  return blocks
end

local function argument_of(block, wanted)
  for _, directive in ipairs(block.directives) do
    if directive[1] == wanted then return directive[2] end
  end
end

local function source_of(block)
  return (argument_of(block, "given") or "") .. block.text
end

local function is_script(block)
  return block.text:find "%f[%a]return tm%.dag" ~= nil
end

-- The values of a list of expressions.
local function evaluate(text, variables)
  local environment = setmetatable(variables or {}, { __index = _G })
  local chunk
  if setfenv then
    chunk = setfenv(assert(load_text("return " .. text)), environment)
  else
    chunk = assert(load("return " .. text, "=" .. text, "t", environment))
  end
  return chunk()
end

local checks = {}

function checks.run(seen, argument)
  local input, expected = argument:match "^(.-) → (.*)$"
  assert(input, "a run directive needs an arrow: " .. argument)
  seen.result, seen.err = seen.dag:run(evaluate(input))
  if not seen.result then error("the run failed: " .. tostring(seen.err), 0) end
  assert.equal(render(evaluate(expected)), render(seen.result.payload))
end

function checks.fails(seen, argument)
  local input, expected = argument:match "^(.-) → (.*)$"
  assert(input, "a fails directive needs an arrow: " .. argument)
  seen.result, seen.err = seen.dag:run(evaluate(input))
  util.assert_contains(tostring(seen.err), evaluate(expected))
end

function checks.check(seen, argument)
  local variables = { result = seen.result, err = seen.err, payload = seen.result and seen.result.payload }
  assert.is_true(evaluate(argument, variables), argument)
end

local function check_script(block, engine)
  local seen = { dag = assert(engine:load(util.script(source_of(block)))) }
  local checked = 0
  for _, directive in ipairs(block.directives) do
    local check = checks[directive[1]]
    if check then
      check(seen, directive[2])
      checked = checked + 1
    end
  end
  return checked
end

-- The program's globals are its own, and `print` writes into a list.
local function check_program(block, files)
  local lines = {}
  local environment = setmetatable({ print = function(...)
    local words = {}
    for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
    lines[#lines + 1] = table.concat(words, "\t") .. "\n"
  end }, { __index = _G })
  local source = source_of(block):gsub('"([^"\n]+)"', function(name)
    return files[name] and ("%q"):format(files[name])
  end)
  local chunk
  if setfenv then
    chunk = setfenv(assert(load_text(source, "@example.lua")), environment)
  else
    chunk = assert(load(source, "@example.lua", "t", environment))
  end
  chunk()
  assert.equal(block.output or "", table.concat(lines))
  collectgarbage()
end

-- For modules such as luv, which can't be loaded twice into one state, as it would be by several specs. False: there is
-- no such module.
local function check_in_process(block, module)
  local head = ("if not pcall(require, %q) then io.write 'absent' os.exit() end "):format(module)
  local path = util.write(util.path ".lua", head .. source_of(block))
  local finished = process.lua { path }
  if finished.stdout == "absent" then return false end
  assert.equal("", finished.stderr)
  assert.equal(block.output or "", finished.stdout)
  return true
end

-- Times and workers differ from run to run, and the columns with them.
local function steady(text)
  return (text:gsub("[^\n]+", function(line)
    return line:gsub("%s+", " "):gsub("[%d.]+ [µm]*s %d+$", "TIME WORKER"):gsub(" in [%d.]+ [µm]*s$", " in TIME")
  end))
end

-- $ echo "text" | tidemill run FILE ...
-- $ printf 'text\n' | tidemill run FILE ...
local function run_command(line, files)
  local echoed, words = line:match '^echo "([^"]*)" | tidemill (.*)$'
  local printed, more = line:match "^printf '([^']*)' | tidemill (.*)$"
  assert(echoed or printed, "this command is not understood: " .. line)
  local command = { "bin/tidemill", stdin = echoed and echoed .. "\n" or printed:gsub("\\n", "\n") }
  words = words or more
  for word in words:gmatch "%S+" do command[#command + 1] = files[word] or word end
  local finished = process.lua(command)
  return finished.stdout .. finished.stderr
end

local function check_console(block, files)
  local commands = {}
  for line in block.text:gmatch "[^\n]*\n" do
    local command = line:match "^%$ (.*)\n"
    if command then
      commands[#commands + 1] = { line = command, output = "" }
    else
      commands[#commands].output = commands[#commands].output .. line
    end
  end
  for _, command in ipairs(commands) do
    assert.equal(steady(command.output), steady(run_command(command.line, files)))
  end
end

for _, page in ipairs(PAGES) do
  describe(page, function()
    local engine
    local files = {}

    setup(function()
      engine = tm.engine { workers = 2 }
      for _, block in ipairs(blocks_of(page)) do
        local name = argument_of(block, "file")
        if name then files[name] = util.script(source_of(block)) end
      end
    end)

    teardown(function()
      engine:close()
      util.cleanup()
    end)

    for _, block in ipairs(blocks_of(page)) do
      if block.kind == "lua" and is_script(block) then
        it(("runs the script at line %d"):format(block.line), function()
          assert.is_true(check_script(block, engine) > 0, "nothing says what the script does")
        end)
      elseif block.kind == "lua" then
        it(("runs the program at line %d"):format(block.line), function()
          local needed = argument_of(block, "needs")
          if not needed then return check_program(block, files) end
          if not check_in_process(block, needed) then pending(needed .. " is not there for this Lua") end
        end)
      elseif block.kind == "console" and argument_of(block, "run") == "as shown" then
        it(("prints what is at line %d"):format(block.line), function()
          check_console(block, files)
        end)
      end
    end
  end)
end

describe("The links of", function()
  for _, page in ipairs(WITH_LINKS) do
    it(page .. " lead somewhere", function()
      local directory = page:match "^.*/" or ""
      for target in process.read(page):gmatch "%]%(([^)#]+)" do
        if not target:find "^%a+:" then assert.is_true(util.exists(directory .. target), target) end
      end
    end)
  end
end)

-- The keys there are, as the message about an unknown one tells them.
local function known_keys(declaration)
  local _, text = util.problems(declaration)
  local keys = {}
  for key in text:match "%(there are ([%w_, ]+)%)":gmatch "[%w_]+" do keys[#keys + 1] = key end
  return keys
end

describe("Every key of", function()
  after_each(util.cleanup)

  local function assert_documented(keys)
    local page, definitions = process.read "docs/scripting.md", process.read(DEFINITIONS)
    for _, key in ipairs(keys) do
      assert.is_truthy(page:find("\n| `" .. key .. "` |", 1, true), "docs/scripting.md has no row for " .. key)
      assert.is_truthy(definitions:find("\n%-%-%-@field " .. key .. "%f[%W]"), DEFINITIONS .. " lacks " .. key)
    end
  end

  it("a DAG is documented", function()
    assert_documented(known_keys(tm.dag { zzzzzzzzzzzzzzzz = 1, tm.transform("t", print) }))
  end)

  it("a processor is documented", function()
    assert_documented(known_keys(tm.dag { tm.transform("t", { zzzzzzzzzzzzzzzz = 1, run = print }) }))
  end)
end)

describe(DEFINITIONS, function()
  local function defined(owner)
    local names = {}
    for name in process.read(DEFINITIONS):gmatch("\nfunction " .. owner .. "[.:]([%w_]+)") do names[name] = true end
    return util.keys(names)
  end

  it("defines the functions of the module", function()
    local functions = {}
    for name, value in pairs(tm) do functions[name] = type(value) == "function" or nil end
    assert.same(util.keys(functions), defined "tidemill")
  end)

  for owner, type_name in pairs {
    Engine = "tidemill.engine", Dag = "tidemill.dag", Run = "tidemill.run", Stream = "tidemill.stream",
  } do
    it("defines the methods of " .. type_name, function()
      assert.same(util.keys(require "tidemill.core".methods_of(type_name)), defined(owner))
    end)
  end

  it("is a Lua file", function()
    assert.is_function(loadfile(DEFINITIONS))
  end)
end)
