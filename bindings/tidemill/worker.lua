-- SPDX-License-Identifier: MIT
-- What runs in a worker's Lua state besides callbacks: loading and keeping programs. Called from C, and
-- errors that are raised here become errors of the load.
local core = require "tidemill.core"
require "tidemill.error" -- so that the errors that callbacks see print well

local M = {}

-- By key, lists of callbacks, with lists of what else a processor has beside them; or, as a string, why a program is
-- missing. C reads them.
M.programs = {}

local drafts = {} -- by key: loaded, but not committed yet

local jit = rawget(_G, "jit") -- luacheck: ignore 113

-- How callbacks are stopped ("signal", "hook", "none" or "auto"), and whether instructions are counted.
local preempt, metered

--- Called by C, before anything else.
function M.open(how, counts, limited)
  preempt, metered = how, counts
  -- Compiled code counts no instructions, and LuaJIT may crash where it has no memory.
  if jit and (counts or limited) then jit.off() end
end

local load_text = rawget(_G, "loadstring") or load -- luacheck: ignore 113

-- The text of a script, without a first line for the shell.
local function read(path)
  local file, why = io.open(path, "rb")
  if not file then error(("cannot open the script: %s"):format(why), 0) end
  local text
  text, why = file:read "*a"
  file:close()
  if not text then error(("cannot read the script: %s: %s"):format(path, why), 0) end
  return (text:gsub("^#[^\n]*", ""))
end

-- Modules of ours are loaded when they are needed and not earlier: the collector has to walk over all that is there.

-- Lua 5.1 marks a module while it is loaded, and leaves the mark where that ends in an error, for want of memory too;
-- it would not be tried again. When nothing is being loaded, marks are such leftovers.
local function forget_failures()
  for name, value in pairs(package.loaded) do
    if type(value) == "userdata" and not getmetatable(value) then package.loaded[name] = nil end
  end
end

local function environment_for(profile, path)
  local sandbox = require "tidemill.sandbox"
  return sandbox.environment(profile, path and (path:match "^.*/" or "./"))
end

-- Bytecode can crash the host, so only text is compiled.
local function compile(text, path, profile)
  if text:find "^%s*\27" then
    error(("%s is bytecode, which is never loaded; use the source"):format(path), 0)
  end
  if profile ~= "trusted" then
    return require "tidemill.sandbox".compile(text, "@" .. path, environment_for(profile, path))
  end
  local chunk, why = load_text(text, "@" .. path, "t")
  if not chunk then error(why, 0) end
  return chunk
end

-- What is loaded may take only so many instructions, unless it is trusted.
local function begin(profile)
  if metered or profile ~= "trusted" then core.meter() end
end

--- Runs a script and returns its description, the problems of its declaration, and its text. `source` has the
-- script's path, its sandbox, whether all of its callbacks have a timeout, and its text once that has been read: the
-- file may be another one by the time another state loads it.
function M.load(key, source)
  local path = source.path
  forget_failures()
  local declare = require "tidemill.declare"
  begin(source.sandbox)
  local text = source.text or read(path)
  local dag = compile(text, path, source.sandbox)(path)
  if not declare.is_dag(dag) then
    error(("%s must return a DAG (return tm.dag { ... }), but it returned %s")
      :format(path, dag == nil and "nothing" or "a " .. type(dag)), 0)
  end
  local description, items, problems = declare.describe(dag)
  drafts[key] = { functions = declare.functions(items), source = source }
  return { description = description, problems = problems, text = text }
end

--- Takes the callbacks of an inline DAG, `source.bundle`.
function M.unpack(key, source)
  forget_failures()
  local unpack_bundle = require "tidemill.unpack"
  begin(source.sandbox)
  local environment = source.sandbox ~= "trusted" and environment_for(source.sandbox) or nil
  drafts[key] = { functions = unpack_bundle(source.bundle, environment), source = source }
  return true
end

local function set_up(functions, i)
  local ok, state, why = pcall(functions.setup[i], functions.options[i])
  if ok and (state ~= nil or why == nil) then return state end
  error(("processor '%s': setup: %s"):format(functions.id[i], tostring(not ok and state or why)), 0)
end

-- The states of all processors, in the order of declaration.
local function set_up_all(functions)
  local states = {}
  for i = 1, next(functions.setup) and functions.count or 0 do
    if functions.setup[i] then states[i] = set_up(functions, i) end
  end
  return states
end

-- A function, those within it, and those that they have as upvalues.
local function keep_out(fn, seen)
  if type(fn) ~= "function" or seen[fn] or debug.getinfo(fn, "S").what == "C" then return end
  seen[fn] = true
  pcall(jit.off, fn, true) -- not all of the standard library may be told
  for index = 1, math.huge do
    local name, value = debug.getupvalue(fn, index)
    if not name then return end
    keep_out(value, seen)
  end
end

-- LuaJIT looks at no hook in a compiled loop: what must be stoppable is kept out of the compiler.
local function keep_stoppable(functions, source)
  if not jit or preempt == "none" then return end
  if preempt ~= "auto" then jit.off() end
  local seen = {}
  for i in pairs(source.timed and functions.run or functions.timed) do
    keep_out(functions.run[i], seen)
    keep_out(functions.when[i], seen)
  end
end

-- What loading left behind, so that callbacks need not pay for it; but not each time, where much is loaded.
local kept = 0
local function collect()
  if collectgarbage "count" < kept + math.max(kept / 2, 64) then return end
  collectgarbage()
  kept = collectgarbage "count"
end

--- Runs every setup and keeps the callbacks for the runs to come. What is not loaded in this state, which may have
-- replaced another one in the middle of a load or later, is loaded first, from `source`.
function M.commit(key, source)
  if not drafts[key] then
    local program = M.programs[key]
    if type(program) == "table" then return true end
    if not source then error(program, 0) end
    if source.bundle then M.unpack(key, source) else M.load(key, source) end
  end
  local draft = drafts[key]
  begin(draft.source.sandbox)
  local functions = draft.functions
  keep_stoppable(functions, draft.source)
  local program = functions.run
  program.options, program.conditions, program.retries = functions.options, functions.when, functions.retry_when
  program.states = set_up_all(functions)
  drafts[key] = nil
  M.programs[key] = program
  collect()
  return true
end

--- What its processors fail with until it can be loaded.
function M.miss(key, why)
  drafts[key] = nil
  M.programs[key] = "this DAG could not be loaded again in a worker that was replaced: " .. why
  return true
end

function M.forget(key)
  drafts[key] = nil
  M.programs[key] = nil
  return true
end

return M
