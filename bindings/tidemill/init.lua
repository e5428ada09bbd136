-- SPDX-License-Identifier: MIT
--- tidemill: DAGs of callbacks, run on all cores.
local core = require "tidemill.core"
local carry = require "tidemill.carry"
local declare = require "tidemill.declare"
local errors = require "tidemill.error"

local M = {
  version = "0.1.0",
  null = core.null,
  dag = declare.dag,
  transform = declare.transform,
  analyze = declare.analyze,
}

local Engine = core.methods_of "tidemill.engine"

-- Misuse: raised at the line that called the function that calls the one that calls this.
local function misuse(message, ...)
  error(message:format(...), 4)
end

local function check_options(options)
  if type(options) ~= "table" then
    misuse("tm.engine takes a table of options, but it got a %s", type(options))
  end
  for key in pairs(options) do
    if key ~= "workers" then
      local near = type(key) == "string" and core.nearest(key, { "workers" })
      misuse("unknown option '%s' (%s)", tostring(key),
        near and ("did you mean '%s'?"):format(near) or "there is workers")
    end
  end
  local workers = options.workers
  if workers == nil then return core.default_workers() end
  if type(workers) ~= "number" or workers % 1 ~= 0 or workers < 1 or workers > core.most_workers then
    misuse("workers must be a whole number from 1 to %d, but it is %s", core.most_workers,
      tostring(workers))
  end
  return workers
end

--- An engine with its own workers, each with its own Lua state, which searches modules where this one
-- does. Raises for a bad option; nil and an error when the states cannot be made.
function M.engine(options)
  local workers = check_options(options == nil and {} or options)
  return core.engine(workers, package.path, package.cpath)
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

-- The dag of a description, or nil and an error with all problems: those found and the graph's.
local function compile(engine, key, label, description, problems)
  local all = {}
  append(all, problems)
  local dag, more = core.compile(engine, key, description)
  if not dag then append(all, more) end
  if #all > 0 then return invalid(label, description, all) end
  local fields = core.fields(dag)
  fields.name, fields.failure_strategy = description.name, description.failure_strategy
  fields.processors = {}
  for i, it in ipairs(description.processors) do
    fields.processors[i] =
      { id = it.id, intent = it.intent, depends_on = it.depends_on, rank = more[i] }
  end
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

local function check_engine(engine, method)
  if debug.getmetatable(engine) ~= core.metatable "tidemill.engine" then
    misuse("call engine:%s(...) with a colon: its first argument must be the engine", method)
  end
end

--- Loads a DAG script into every worker. nil and an error when it does not load, in any of them.
function Engine:load(path)
  check_engine(self, "load")
  if type(path) ~= "string" then
    error(("engine:load takes the path of a script, but it got a %s"):format(type(path)), 2)
  end
  local key = core.new_key()
  local loaded, err = core.invoke(self, 1, "load", key, path)
  if not loaded then return nil, in_worker(err, 1, path) end
  local dag
  dag, err = compile(self, key, path, loaded.description, loaded.problems)
  if not dag then
    forget(self, key)
    return nil, err
  end
  local ok
  ok, err = in_every_worker(self, 2, path, "load", key, path, function(answer)
    return same(answer.description, loaded.description)
  end)
  if ok then ok, err = in_every_worker(self, 1, path, "commit", key) end
  if not ok then return nil, err end
  return dag
end

--- Carries an inline DAG into every worker. nil and an error when something is wrong with it.
function Engine:dag(declaration)
  check_engine(self, "dag")
  if not declare.is_dag(declaration) then
    error(("engine:dag takes what tm.dag returns, but it got a %s"):format(type(declaration)), 2)
  end
  local key = core.new_key()
  local description, items, problems = declare.describe(declaration)
  local label = description.name or "dag"
  local bundle, more = carry.pack(items)
  append(problems, more)
  local dag, err = compile(self, key, label, description, problems)
  if not dag then return nil, err end
  local ok
  ok, err = in_every_worker(self, 1, label, "unpack", key, bundle)
  if ok then ok, err = in_every_worker(self, 1, label, "commit", key) end
  if not ok then return nil, err end
  return dag
end

return M
