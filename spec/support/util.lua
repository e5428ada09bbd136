-- SPDX-License-Identifier: MIT
-- What the specs share: engines closed after each example, throw-away scripts, gates, and strict comparisons.

local assert = require "luassert"
local tm = require "tidemill"
local render = require "spec.support.render"

local util = { render = render }

local engines, files = {}, {}

function util.engine(workers)
  local engine = tm.engine { workers = workers or 2 }
  engines[#engines + 1] = engine
  return engine
end

-- The DAG of `declaration` in an engine of its own; an invalid one is the caller's mistake.
function util.dag(declaration, workers)
  local dag, err = util.engine(workers):dag(declaration)
  if not dag then error(tostring(err), 2) end
  return dag
end

-- A DAG of one transform called "it".
function util.one(run, workers)
  return util.dag(tm.dag { tm.transform("it", run) }, workers)
end

-- Runs a DAG that must succeed.
function util.run(dag, payload, options)
  local result, err = dag:run(payload, options)
  if not result or err then error("the run failed: " .. tostring(err), 2) end
  return result
end

-- The payload that a transform alone makes of `payload`.
function util.through(run, payload)
  return util.run(util.one(run), payload).payload
end

-- The error of a DAG of one transform called "it" that must fail.
function util.failure_of(run, payload)
  local result, err = util.one(run):run(payload)
  assert.is_nil(result)
  assert.is_truthy(err)
  return err
end

-- The same for an analyze called "it".
function util.analyze_failure_of(run, payload)
  local result, err = util.dag(tm.dag { tm.analyze("it", run) }):run(payload)
  assert.is_nil(result)
  assert.is_truthy(err)
  return err
end

-- The problems of a declaration that must be refused, and all of them as one text.
function util.problems(declaration)
  local dag, err = util.engine(1):dag(declaration)
  assert.is_nil(dag)
  assert.equal("invalid_dag", err.code)
  return err.problems, table.concat(err.problems, "\n"), err
end

-- Asserts that one problem of the declaration holds every one of the given plain texts.
function util.assert_problem(declaration, ...)
  local problems, text = util.problems(declaration)
  local wanted = { ... }
  for _, problem in ipairs(problems) do
    if util.contains(problem, wanted) then return end
  end
  error(("no problem mentions %s:\n%s"):format(table.concat(wanted, " and "), text), 2)
end

function util.contains(text, wanted)
  for _, part in ipairs(wanted) do
    if not text:find(part, 1, true) then return false end
  end
  return true
end

function util.assert_contains(text, ...)
  for _, part in ipairs { ... } do
    if not tostring(text):find(part, 1, true) then
      error(("expected %q in: %s"):format(part, tostring(text)), 2)
    end
  end
end

-- A path nobody uses, removed after the example.
function util.path(suffix)
  local base = os.tmpname()
  local path = base .. (suffix or "")
  files[#files + 1] = base
  files[#files + 1] = path
  return path
end

function util.write(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

function util.read(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local bytes = file:read "*a"
  file:close()
  return bytes
end

-- A DAG script with the given text. $NAME in the text becomes the Lua literal of values.NAME.
function util.script(text, values)
  local body = text:gsub("%$([A-Z]+)", function(name) return ("%q"):format(values[name]) end)
  return util.write(util.path ".dag.lua", body)
end

function util.load(text, values, workers)
  return util.engine(workers):load(util.script(text, values))
end

function util.exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- Waits until somebody has written a file there; gives up after a minute.
function util.await(path)
  local deadline = os.time() + 60
  repeat
    if util.exists(path) then return end
  until os.time() > deadline
  error("nobody has written " .. path, 2)
end

-- Gates hold a callback until the host opens them, so that an example knows what runs without looking at a clock.

-- `gate.wait` is a function that callbacks may carry; it gives up after a minute: no defect hangs the suite.
function util.gate()
  local path = util.path()
  os.remove(path)
  local gate = {}
  function gate.open() util.write(path, "open") end
  function gate.wait()
    local deadline = os.time() + 60
    repeat
      local file = io.open(path)
      if file then file:close() return true end
    until os.time() > deadline
    return false
  end
  return gate
end

function util.cleanup()
  for index = #engines, 1, -1 do
    engines[index]:close()
    engines[index] = nil
  end
  for index = #files, 1, -1 do
    os.remove(files[index])
    files[index] = nil
  end
end

local function shorten(text)
  if #text <= 400 then return text end
  return text:sub(1, 200) .. " ... " .. text:sub(-200)
end

function util.assert_identical(expected, actual)
  local wanted, got = render(expected), render(actual)
  if wanted ~= got then
    error(("expected %s\n     got %s"):format(shorten(wanted), shorten(got)), 2)
  end
end

-- Asserts that `misuse`, a function written on one line, raises and that the message points at that line.
function util.assert_raises_here(misuse, ...)
  local ok, message = pcall(misuse)
  local source = debug.getinfo(misuse, "S")
  assert.is_false(ok, "nothing was raised")
  local position = ("%s:%d:"):format(source.short_src, source.linedefined)
  util.assert_contains(message, position, ...)
end

-- The ids of a list of errors, in order.
function util.ids(failures)
  local ids = {}
  for index, failure in ipairs(failures) do ids[index] = failure.processor end
  return ids
end

function util.statuses(result)
  local statuses = {}
  for id, outcome in pairs(result.outcomes) do statuses[id] = outcome.status end
  return statuses
end

-- Sorted keys, so that an example can compare which there are.
function util.keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

return util
