-- SPDX-License-Identifier: MIT
-- DAGs whose payloads say what goes wrong, and where: for soak.lua. A payload is a text "trouble@processor#number:..."
-- or a table with the fields `trouble` and `at`; every transform adds its mark. A description is plain data, so that it
-- can be declared by the host or written into a script:
-- { failure_strategy, strategy, limits, timeout, max_concurrency, version, processors = { { id, intent, ... }, ... } }

local troubles = {}

local function read(payload)
  if type(payload) == "table" then return payload.trouble, payload.at end
  return payload:match "^(%a*)@(%w*)#"
end

-- What a processor without trouble answers.
local function go_on(payload, ctx)
  local mark = "|" .. ctx.id .. "." .. ctx.options.version
  if ctx.options.intent == "analyze" then
    return { mark = mark, size = #payload, deep = { list = { 1, 0.5, ctx.options.version } } }
  elseif type(payload) == "table" then
    payload[#payload + 1] = mark
    return payload, { length = #payload }
  end
  return payload .. mark
end

local does = {}

function does.raise() error { why = "on purpose", list = { 1, 2 } } end
function does.refuse() return nil, "not that one" end
function does.nothing() end
function does.many(payload) return payload, {}, "one too many" end
function does.unfit() return { list = { 1, 2, function() end } } end

function does.flaky(payload, ctx)
  if ctx.attempt < 3 then error("attempt " .. ctx.attempt) end
  return go_on(payload, ctx)
end

function does.dawdle(payload, ctx)
  local steps = 0
  while steps < 2e5 do steps = steps + 1 end
  return go_on(payload, ctx)
end

-- Some seconds, should nobody stop it.
function does.spin(payload, ctx)
  local steps = 0
  while steps < 1e9 do steps = steps + 1 end
  return go_on(payload, ctx)
end

-- Half a second inside of one C function.
function does.block(payload, ctx)
  assert(not ("a"):rep(80):find("^" .. ("a*"):rep(5) .. "b"))
  return go_on(payload, ctx)
end

function does.hog(payload, ctx)
  local hoard = {}
  while #hoard < 1e6 do hoard[#hoard + 1] = ("x"):rep(2 ^ 16) .. #hoard end
  return go_on(payload, ctx)
end

local function run_of(version)
  return function(payload, ctx)
    if ctx.options.version ~= version or ctx.state and ctx.state.version ~= version then
      error("of another version than " .. version)
    end
    local trouble, at = read(payload)
    return (at == ctx.id and does[trouble] or go_on)(payload, ctx)
  end
end

local function when_of(id)
  return function(_, payload)
    local trouble, at = read(payload)
    if at == id and trouble == "ask" then error "the condition raises" end
    return not (at == id and trouble == "skip")
  end
end

local function set_up(options) return { version = options.version } end
local function worth_it(err) return err.message ~= "not that one" end

-- The DAG of a description; `tm` is passed, so that no callback takes it along.
function troubles.declare(tm, description)
  local dag = { name = "soak" }
  for _, key in ipairs { "failure_strategy", "strategy", "limits", "timeout", "max_concurrency" } do
    dag[key] = description[key]
  end
  for i, it in ipairs(description.processors) do
    local retry = it.tries and { max = it.tries - 1, backoff = 0.0005, when = worth_it }
    dag[i] = tm[it.intent](it.id, {
      depends_on = it.depends_on, payload_from = it.payload_from, uses = it.uses, timeout = it.timeout,
      options = it.options, retry = retry or nil,
      setup = it.sets_up and set_up or nil, when = it.asks and when_of(it.id) or nil, run = run_of(description.version),
    })
  end
  return tm.dag(dag)
end

local ENDS = { spin = "timeout", block = "timeout", hog = "memory_limit" }

-- What a plain evaluation calls: what would be stopped raises what it is stopped with, and all attempts are the last.
-- `passed`: the processor in trouble was done before it could be stopped.
function troubles.plain(description, passed)
  local plain = { failure_strategy = description.failure_strategy, processors = {} }
  for i, it in ipairs(description.processors) do
    local run = run_of(description.version)
    plain.processors[i] = {
      id = it.id, intent = it.intent, depends_on = it.depends_on, payload_from = it.payload_from, options = it.options,
      when = it.asks and when_of(it.id),
      run = function(payload, ctx)
        local trouble, at = read(payload)
        if at == it.id and ENDS[trouble] then
          if passed then return go_on(payload, ctx) end
          error { code = ENDS[trouble] }
        end
        ctx.attempt = it.tries or 1
        return run(payload, ctx)
      end,
    }
  end
  return plain
end

return troubles
