-- SPDX-License-Identifier: MIT
--- tidemill: DAGs of callbacks, run on all cores.
local core = require "tidemill.core"
local carry = require "tidemill.carry"
local declare = require "tidemill.declare"
local errors = require "tidemill.error"

local M = {
  version = core.version,
  null = core.null,
  dag = declare.dag,
  transform = declare.transform,
  analyze = declare.analyze,
  native = declare.native,
}

local Engine = core.methods_of "tidemill.engine"

-- Misuse: raised at the line that called the function that calls the one that calls this.
local function misuse(message, ...)
  error(message:format(...), 4)
end

-- A value that is not what it must be: "2" is no 2.
local function shown(value)
  local kind = type(value)
  if kind == "string" then return '"' .. value .. '"' end
  return (kind == "number" or kind == "boolean") and tostring(value) or "a " .. kind
end

local DEFAULT_GRACE = 1 -- seconds

local pools = { private = true, shared = true }
local preempt_modes = { signal = "signal", hook = "hook", [false] = "none" }

local sandboxes = { [false] = "trusted", [true] = "sandbox", trusted = "trusted", sandbox = "sandbox", pure = "pure" }
local strictness = { trusted = 0, sandbox = 1, pure = 2 }

-- What nobody has read gets these, unless the options say otherwise.
local SANDBOX_MEMORY = 64 * 2 ^ 20 -- bytes per worker
local SANDBOX_SECONDS = 10 -- per callback

local function whole_number(value)
  if type(value) ~= "number" or value % 1 ~= 0 or value < 1 or value > 2 ^ 53 then
    return "must be a whole number from 1 on"
  end
end

local function seconds(value)
  if type(value) ~= "number" or not (value > 0 and value <= 1e9) then
    return "must be a positive number of seconds"
  end
end

local function check_sandbox(value)
  if not sandboxes[value] then return 'must be true, "sandbox", "pure", or false, "trusted"' end
end

local option_checks = {
  sandbox = check_sandbox,
  callback_timeout = seconds,
  memory_limit = whole_number,
  instruction_limit = whole_number,
  workers = function(value)
    if type(value) ~= "number" or value % 1 ~= 0 or value < 1 or value > core.most_workers then
      return ("must be a whole number from 1 to %d"):format(core.most_workers)
    end
  end,
  preempt = function(value)
    if not preempt_modes[value] then return 'must be "signal", "hook" or false' end
  end,
  kill_grace = seconds,
  pool = function(value)
    if not pools[value] then return 'must be "private" or "shared"' end
  end,
}
local option_names = {}
for name in pairs(option_checks) do option_names[#option_names + 1] = name end
table.sort(option_names)

local function check_options(options)
  if type(options) ~= "table" then
    misuse("tm.engine takes a table of options, but it got a %s", type(options))
  end
  for key, value in pairs(options) do
    local check = option_checks[key]
    if not check then
      local near = type(key) == "string" and core.nearest(key, option_names)
      misuse("unknown option '%s' (%s)", tostring(key),
        near and ("did you mean '%s'?"):format(near) or "there are " .. table.concat(option_names, ", "))
    end
    local problem = check(value)
    if problem then misuse("%s %s, but it is %s", key, problem, shown(value)) end
  end
  if options.pool == "shared" and options.kill_grace then
    misuse('kill_grace has no meaning with pool = "shared": threads that are borrowed cannot be given up')
  end
  if sandboxes[options.sandbox or false] ~= "trusted" and options.preempt == false then
    misuse "preempt must not be false in a sandbox"
  end
end

local compiles = rawget(_G, "jit") ~= nil -- luacheck: ignore 113

-- A compiled loop can only be given up, and borrowed threads can't be: so there nothing is compiled.
local function default_preempt(options)
  return compiles and options.pool == "shared" and "signal" or "auto"
end

--- An engine with its own workers, each with its own Lua state, which searches modules where this one
-- does. Raises for a bad option; nil and an error when the states cannot be made.
function M.engine(options)
  options = options == nil and {} or options
  check_options(options)
  local sandbox = sandboxes[options.sandbox or false]
  local confined = sandbox ~= "trusted"
  return core.engine {
    workers = options.workers or core.default_workers(),
    path = package.path, cpath = package.cpath,
    preempt = options.preempt == nil and default_preempt(options) or preempt_modes[options.preempt],
    kill_grace = options.kill_grace or DEFAULT_GRACE,
    compiles = compiles,
    shared = options.pool == "shared",
    sandbox = sandbox,
    callback_timeout = options.callback_timeout,
    memory_limit = options.memory_limit or (confined and SANDBOX_MEMORY or nil),
    instruction_limit = options.instruction_limit,
  }
end

-- Equal as plain data.
local function same(x, y)
  if type(x) ~= "table" or type(y) ~= "table" then return x == y or (x ~= x and y ~= y) end
  for key, value in pairs(x) do
    if not same(value, y[key]) then return false end
  end
  for key in pairs(y) do
    if x[key] == nil then return false end
  end
  return true
end

local function invalid(label, description, problems)
  local lines = {}
  for i, problem in ipairs(problems) do lines[i] = declare.line(description, problem) end
  local message = #lines == 1 and ("%s: %s"):format(label, lines[1])
    or ("%s: %d problems:\n  %s"):format(label, #lines, table.concat(lines, "\n  "))
  return errors.fail("invalid_dag", message, lines)
end

local function forget(engine, key)
  for worker = 1, engine.workers do core.invoke(engine, worker, "forget", key) end
end

local function append(list, more)
  for _, item in ipairs(more or {}) do list[#list + 1] = item end
end

local function native_problems(engine, processors)
  local problems = {}
  for i = 1, next(processors.native) and #processors.id or 0 do
    local name = processors.native[i]
    local problem = name and core.native_problem(engine, name)
    if problem then problems[#problems + 1] = { processor = i, text = problem } end
  end
  return problems
end

-- The dag of a description, or nil and an error with all problems: those found and the graph's.
local function compile(engine, key, label, description, problems)
  local all = {}
  append(all, problems)
  append(all, native_problems(engine, description.processors))
  local dag, more = core.compile(engine, key, description)
  if not dag then append(all, more) end
  if #all > 0 then return invalid(label, description, all) end
  if next(description.processors.native) then
    local ok, problem = core.open_natives(dag, description.processors)
    if not ok then return invalid(label, description, { { text = problem } }) end
  end
  local fields = core.fields(dag)
  fields.name, fields.failure_strategy = description.name, description.failure_strategy
  fields.strategy = description.strategy
  fields.engine = engine
  setmetatable(fields, {
    __index = function(_, field) -- few ask, and there may be very many
      if field ~= "processors" then return nil end
      fields.processors = core.processors(dag)
      return fields.processors
    end,
  })
  return dag
end

local function in_worker(err, worker, label)
  if worker > 1 then err.message = ("in worker %d only: %s"):format(worker, err.message) end
  if label and not err.message:find(label, 1, true) then
    err.message = ("%s: %s"):format(label, err.message)
  end
  return err
end

-- Calls a function of tidemill.worker in every worker from `first` on; `check` looks at the answers.
local function in_every_worker(engine, first, label, name, key, argument, check)
  for worker = first, engine.workers do
    local answer, err = core.invoke(engine, worker, name, key, argument)
    if not answer then return nil, in_worker(err, worker, label) end
    if check and not check(answer) then
      return errors.fail("invalid_dag",
        ("%s declares another DAG in worker %d than in worker 1; what a script returns must not depend "
          .. "on where or when it is loaded"):format(label, worker))
    end
  end
  return true
end

-- How a program is loaded: what M.load and M.unpack of tidemill.worker get, and the longest a callback may take.
local function source_of(engine, sandbox)
  local most = engine.callback_timeout or sandbox ~= "trusted" and SANDBOX_SECONDS or nil
  return { sandbox = sandbox, timed = most ~= nil }, most
end

-- The description with no timeout above `most`.
local function bounded(description, most)
  if not most then return description end
  local function copy_of(map)
    local copy = {}
    for key, value in pairs(map) do copy[key] = value end
    return copy
  end
  local made, timeouts = copy_of(description), description.processors.timeout
  made.processors = copy_of(description.processors)
  made.processors.timeout = {}
  for i = 1, #description.processors.id do
    made.processors.timeout[i] = math.min(timeouts[i] or most, most)
  end
  return made
end

local load_option_names = { "sandbox" }

-- The sandbox of a script: the engine's, or a stricter one.
local function sandbox_for(engine, options)
  if options == nil then return engine.sandbox end
  if type(options) ~= "table" then
    error(("engine:load takes a table of options, but it got a %s"):format(type(options)), 3)
  end
  for key in pairs(options) do
    if key ~= "sandbox" then
      local near = type(key) == "string" and core.nearest(key, load_option_names)
      error(("unknown option '%s' (%s)"):format(tostring(key),
        near and "did you mean 'sandbox'?" or "there is sandbox"), 3)
    end
  end
  if options.sandbox == nil then return engine.sandbox end
  local problem = check_sandbox(options.sandbox)
  if problem then error(("sandbox %s, but it is %s"):format(problem, shown(options.sandbox)), 3) end
  local sandbox = sandboxes[options.sandbox]
  if strictness[sandbox] < strictness[engine.sandbox] then
    error(("the engine's sandbox is \"%s\"; no script can be loaded as \"%s\""):format(engine.sandbox, sandbox), 3)
  end
  if sandbox ~= "trusted" and engine.unstoppable then error("preempt must not be false in a sandbox", 3) end
  return sandbox
end

-- `what` is "engine" or "dag".
local function check_self(self, what, method)
  if debug.getmetatable(self) ~= core.metatable("tidemill." .. what) then
    misuse("call %s:%s(...) with a colon: its first argument must be the %s", what, method, what)
  end
end

--- Loads a DAG script into every worker. nil and an error when it does not load, in any of them.
function Engine:load(path, options)
  check_self(self, "engine", "load")
  if type(path) ~= "string" then
    error(("engine:load takes the path of a script, but it got a %s"):format(type(path)), 2)
  end
  local source, most = source_of(self, sandbox_for(self, options))
  source.path = path
  local key = core.new_key()
  local loaded, err = core.invoke(self, 1, "load", key, source)
  if not loaded then
    forget(self, key)
    return nil, in_worker(err, 1, path)
  end
  local dag
  dag, err = compile(self, key, path, bounded(loaded.description, most), loaded.problems)
  if not dag then
    forget(self, key)
    return nil, err
  end
  source.text = loaded.text
  core.install(self, key, source) -- a state may be replaced from now on
  local ok
  ok, err = in_every_worker(self, 2, path, "load", key, source, function(answer)
    return same(answer.description, loaded.description)
  end)
  if ok then ok, err = in_every_worker(self, 1, path, "commit", key, source) end
  if not ok then return nil, err end
  return dag
end

--- Carries an inline DAG into every worker. nil and an error when something is wrong with it.
function Engine:dag(declaration)
  check_self(self, "engine", "dag")
  if not declare.is_dag(declaration) then
    error(("engine:dag takes what tm.dag returns, but it got a %s"):format(type(declaration)), 2)
  end
  local source, most = source_of(self, self.sandbox)
  local key = core.new_key()
  local description, items, problems = declare.describe(declaration)
  local label = description.name or "dag"
  local more
  source.bundle, more = carry.pack(declare.functions(items))
  append(problems, more)
  local dag, err = compile(self, key, label, bounded(description, most), problems)
  if not dag then return nil, err end
  core.install(self, key, source)
  local ok
  ok, err = in_every_worker(self, 1, label, "unpack", key, source)
  if ok then ok, err = in_every_worker(self, 1, label, "commit", key) end
  if not ok then return nil, err end
  return dag
end

local Dag = core.methods_of "tidemill.dag"

--- Starts a run and returns at once: dag:start(payload, options?, callback?). `callback(err, result)` is
-- called by engine:step once the run has settled, with what run:wait would return.
function Dag:start(payload, options, callback)
  if type(options) == "function" and callback == nil then options, callback = nil, options end
  if callback ~= nil and type(callback) ~= "function" then
    error(("the callback of dag:start must be a function, but it is a %s"):format(type(callback)), 2)
  end
  local ok, run, handle = pcall(core.start, self, payload, options, callback ~= nil)
  if not ok then error(run, 2) end
  if not run or callback == nil then return run, not run and handle or nil end
  local fields = core.fields(core.fields(self).engine)
  fields.pending = fields.pending or {}
  fields.pending[handle] = callback
  return run
end

local MOST_IN_FLIGHT = 2 ^ 20

local function check_boolean(value)
  if type(value) ~= "boolean" then return "must be true or false" end
end

local stream_checks = {
  background = check_boolean,
  max_in_flight = function(value)
    if type(value) ~= "number" or value % 1 ~= 0 or value < 1 or value > MOST_IN_FLIGHT then
      return ("must be a whole number from 1 to %d"):format(MOST_IN_FLIGHT)
    end
  end,
  ordered = check_boolean,
}
local stream_option_names = { "background", "max_in_flight", "metadata", "ordered", "profile", "strategy", "timeout" }
local is_run_option = { metadata = true, profile = true, strategy = true, timeout = true }

-- Takes the options of a stream apart: those of the stream, and a table of those of its runs. Misuse is raised at the
-- line that called the caller's caller.
local function split_options(dag, options, method, pulls)
  local own, rest = { max_in_flight = 4 * core.fields(dag).engine.workers, ordered = true, background = true }, {}
  if options ~= nil and type(options) ~= "table" then
    misuse("the options of dag:%s must be a table, but they are a %s", method, type(options))
  elseif pulls and options and options.background ~= nil then
    misuse "option 'background' is for streams to push into: what is pulled runs when results are taken"
  end
  for key, value in pairs(options or {}) do
    local check = stream_checks[key]
    if check then
      local problem = check(value)
      if problem then misuse("option '%s' %s, but it is %s", key, problem, shown(value)) end
      own[key] = value
    elseif is_run_option[key] then
      rest[key] = value
    elseif key == 1 then
      misuse("dag:%s got a list in place of options; dag:map takes a list", method)
    else
      local near = type(key) == "string" and core.nearest(key, stream_option_names)
      misuse("unknown option '%s' (%s)", tostring(key),
        near and ("did you mean '%s'?"):format(near) or "there are " .. table.concat(stream_option_names, ", "))
    end
  end
  return own, rest
end

local function new_stream(dag, own, rest, source)
  local ok, stream, err =
    pcall(core.stream, dag, rest, own.max_in_flight, own.ordered, source, own.background)
  if not ok then error(stream, 3) end
  return stream, err
end

local function list_source(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end

local function callable(value)
  local meta = debug.getmetatable(value)
  return type(value) == "function" or type(meta) == "table" and meta.__call ~= nil
end

--- Many runs, a bounded number in flight: for input, result, err in dag:stream(source, options?). The source is
-- a function, which is called for one payload after another until it returns nil. What is in flight when the
-- loop is left is cancelled (in Lua 5.4 at once, else with stream:close() or by the collector).
--
-- dag:stream(options) returns a stream that has no source: stream:push(payload), stream:results(seconds?).
-- Its runs begin when they are pushed, unless `background` is false.
function Dag:stream(source, options)
  check_self(self, "dag", "stream")
  local pulls = callable(source)
  if not pulls and (options ~= nil or type(source) ~= "table") then
    error(("the source of dag:stream must be a function, but it is a %s"):format(type(source)), 2)
  elseif not pulls then
    source, options = nil, source
  end
  local own, rest = split_options(self, options, "stream", pulls)
  local stream, err = new_stream(self, own, rest, source)
  if not stream or not pulls then return stream, err end
  return stream, nil, nil, stream
end

--- Runs every payload of a list. Returns a list of their results, in its order, with `false` where there is none,
-- and the errors by index, or nil if there are none.
function Dag:map(list, options)
  check_self(self, "dag", "map")
  if type(list) ~= "table" then
    error(("dag:map takes a list of payloads, but it got a %s"):format(type(list)), 2)
  end
  local own, rest = split_options(self, options, "map", true)
  if not own.ordered then error("option 'ordered' of dag:map cannot be false: results are by index", 2) end
  local stream, why = new_stream(self, own, rest, list_source(list))
  if not stream then return nil, why end
  local results, errs, count = {}, nil, 0
  for _, result, err in stream do
    count = count + 1
    results[count] = result or false
    if err then
      errs = errs or {}
      errs[count] = err
    end
  end
  return results, errs
end

--- Calls back for every run that has settled since; returns how many. What a callback raises comes out
-- here, and the rest wait for the next step.
function Engine:step()
  check_self(self, "engine", "step")
  local fields, count = core.fields(self), 0
  for handle, result, err in core.next_settled, self do
    local callback = fields.pending[handle]
    fields.pending[handle] = nil
    count = count + 1
    callback(err, result)
  end
  return count
end

return M
