-- SPDX-License-Identifier: MIT
-- Runs commands as a user's shell would, with the interpreter and the module paths of the running specs.

local process = {}

-- The interpreter is the first word of the command line that started busted.
function process.interpreter()
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return arg[first]
end

-- A program that was built from spec/host for the running specs.
function process.built(name)
  return assert(package.cpath:match "(/[^;]*/build/[^/;]+)/%?%.so") .. "/spec/" .. name
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

function process.read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

function process.write(path, bytes)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  assert(file:close())
end

function process.can_make_terminals()
  local found = os.execute "command -v script >/dev/null"
  return found == true or found == 0   -- Lua 5.1 returns the status
end

local function environment(variables)
  local words = { "NO_COLOR=", "LUA_PATH=" .. quote(package.path), "LUA_CPATH=" .. quote(package.cpath) }
  for name, value in pairs(variables or {}) do words[#words + 1] = name .. "=" .. quote(value) end
  return table.concat(words, " ")
end

local function words_of(command)
  local words = {}
  for i, word in ipairs(command) do words[i] = quote(word) end
  return table.concat(words, " ")
end

local function command_line(command)
  local program = command.program or process.interpreter()
  local line = ("%s %s %s"):format(environment(command.env), quote(program), words_of(command))
  return command.terminal and "script -qec " .. quote(line) .. " /dev/null" or line
end

local function temporary_files()
  local base = os.tmpname()
  local files = { base = base }
  for _, name in ipairs { "input", "output", "errors", "status" } do files[name] = base .. "." .. name end
  return files
end

-- process.lua { "script.lua", "argument", ... } -> { status =, stdout =, stderr = }. Further keys:
--   program = "path" (the interpreter)
--   stdin = "bytes" (none is empty)      env = { NAME = "value" }
--   from = "<&-", to = ">/dev/full"      redirections instead of the files that standard input and output are
--   before = "umask 0;"                  shell commands that come first, in the command's own subshell
--   after = "| true"                     what follows the command in the shell; the status stays the command's
--   terminal = true                      run it on a terminal, by script(1)
function process.lua(command)
  local files = temporary_files()
  process.write(files.input, command.stdin or "")
  process.write(files.output, "")
  os.execute(("{ ( %s %s %s %s 2>%s ); echo $? >%s; } %s"):format(
    command.before or "", command_line(command), command.from or "<" .. quote(files.input),
    command.to or ">" .. quote(files.output), quote(files.errors), quote(files.status), command.after or ""))
  local finished = {
    status = tonumber(process.read(files.status)),
    stdout = process.read(files.output),
    stderr = process.read(files.errors),
  }
  for _, path in pairs(files) do os.remove(path) end
  return finished
end

local Started = {}
Started.__index = Started

-- process.start { ... } is process.lua for a command that runs meanwhile. Its standard input is what is written to
-- `input`, a file; `stdout` and `stderr` are files, too. started:read "stdout" is what is there by now.
function process.start(command)
  local files = temporary_files()
  files.pid = files.base .. ".pid"
  os.execute("mkfifo " .. quote(files.input))
  for _, name in ipairs { "output", "errors", "status", "pid" } do process.write(files[name], "") end
  local line = command_line({ "-", env = command.env })   -- the environment and the interpreter
  line = ("echo $$ >%s; exec env %s"):format(quote(files.pid), (line:gsub(" '%-'$", " ") .. words_of(command)))
  line = ("%s >%s"):format(line, quote(command.to or files.output))
  if command.terminal then
    line = ("script -qefc %s /dev/null >%s 2>&1"):format(quote(line .. " <" .. quote(files.input)), quote(files.errors))
  else
    line = ("sh -c %s 2>%s"):format(quote(line), quote(files.errors))
  end
  os.execute(("{ %s <%s; echo $? >%s; } &"):format(line, command.terminal and "/dev/null" or quote(files.input),
    quote(files.status)))
  local self = setmetatable({ files = files, stdout = files.output, stderr = files.errors }, Started)
  self.input = assert(io.open(files.input, "wb"))   -- waits until it is opened at the other end
  self.input:setvbuf "no"
  return self
end

function Started:read(name)
  return process.read(self[name])
end

-- Waits until a text shows up in "stdout" or "stderr", or for a minute.
function Started:await(name, text)
  local deadline = os.time() + 60
  repeat
    if self:read(name):find(text, 1, true) then return end
    os.execute "sleep 0.02"
  until os.time() > deadline
  error(("%q never came; there is %q and %q"):format(text, self:read "stdout", self:read "stderr"), 2)
end

function Started:signal(name)
  os.execute(("kill -%s %d 2>/dev/null"):format(name, tonumber(process.read(self.files.pid))))
end

-- The exit status. Ends the input.
function Started:wait()
  self.input:close()
  local deadline = os.time() + 60
  repeat
    local status = tonumber(process.read(self.files.status))
    if status then return status end
    os.execute "sleep 0.02"
  until os.time() > deadline
  self:signal "KILL"
  error(("it never ended; there is %q and %q"):format(self:read "stdout", self:read "stderr"), 2)
end

function Started:remove()
  for _, path in pairs(self.files) do os.remove(path) end
end

return process
