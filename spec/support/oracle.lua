-- SPDX-License-Identifier: MIT
-- What a run must yield, worked out the slow way: one processor after the other, by rank and then by declaration, in
-- plain Lua, straight from the definitions. It shares no code with the engine; the two meet in oracle_spec.lua.
--
-- A DAG is described as
--   { failure_strategy = "...", processors = { { id, intent, depends_on = {...}, payload_from, run, options }, ... } }

local oracle = {}

local unpack = table.unpack or unpack

local function copy(value)
  if type(value) ~= "table" then return value end
  local twin = {}
  for key, item in pairs(value) do twin[copy(key)] = copy(item) end
  return twin
end

local function path_to(path, key)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" then return path .. "." .. key end
  return path .. "[" .. (type(key) == "string" and ("%q"):format(key) or tostring(key)) .. "]"
end

-- Nil if `value` can travel, otherwise what is in its way. Only the functions of a value are looked for: that is what
-- the described callbacks use to offend.
local function obstacle(value, path)
  if type(value) == "function" then return path .. " is a function" end
  if type(value) ~= "table" then return nil end
  for key, item in pairs(value) do
    local found = obstacle(item, path_to(path, key))
    if found then return found end
  end
end

local function index_processors(dag)
  local nodes = {}
  for index, processor in ipairs(dag.processors) do
    local node = { index = index, dependencies = {} }
    for key, value in pairs(processor) do node[key] = value end
    nodes[index], nodes[node.id] = node, node
  end
  for _, node in ipairs(nodes) do
    for _, id in ipairs(node.depends_on or {}) do
      node.dependencies[#node.dependencies + 1] = assert(nodes[id], id)
    end
  end
  return nodes
end

-- The length of the longest path from an entry point.
local function rank(node)
  if node.rank then return node.rank end
  local longest = -1
  for _, dependency in ipairs(node.dependencies) do longest = math.max(longest, rank(dependency)) end
  node.rank = longest + 1
  return node.rank
end

local function before(a, b)
  if a.rank ~= b.rank then return a.rank < b.rank end
  return a.index < b.index
end

local function add_ancestors(node, set)
  for _, dependency in ipairs(node.dependencies) do
    if not set[dependency.id] then
      set[dependency.id] = dependency
      add_ancestors(dependency, set)
    end
  end
  return set
end

-- Processors in the order (rank, declaration), which is also an order in which they can run.
local function plan(dag)
  local nodes, ordered = index_processors(dag), {}
  for index, node in ipairs(nodes) do
    rank(node)
    node.ancestors = add_ancestors(node, {})
    ordered[index] = node
  end
  table.sort(ordered, before)
  return ordered, nodes
end

local function greater(a, b)
  return before(b, a) and a or b
end

local function input_of(run, node)
  if node.payload_from then return run.out[node.payload_from] end
  local best = run.input
  for _, dependency in ipairs(node.dependencies) do best = greater(run.out[dependency.id], best) end
  return best
end

local function output_of(run, node)
  local outcome = run.outcomes[node.id]
  if node.intent == "transform" and outcome.status == "completed" then
    return { rank = node.rank, index = node.index, value = outcome.payload }
  end
  return input_of(run, node)
end

local function metadata_for(run, node)
  local metadata = copy(run.metadata)
  for id in pairs(node.ancestors) do metadata[id] = copy(run.outcomes[id].metadata) end
  return metadata
end

local function dependencies_for(run, node)
  local dependencies = {}
  for _, dependency in ipairs(node.dependencies) do
    local outcome = run.outcomes[dependency.id]
    dependencies[dependency.id] = {
      status = outcome.status,
      payload = copy(run.out[dependency.id].value),
      metadata = copy(outcome.metadata),
      error = copy(outcome.error),
    }
  end
  return dependencies
end

local function context_for(run, node)
  return {
    id = node.id,
    options = copy(node.options),
    attempt = 1,
    metadata = metadata_for(run, node),
    dependencies = dependencies_for(run, node),
    cancelled = function() return false end,
  }
end

-- A message that is the engine's to word is left open: nil, or `mentions` for what it has to say.
local function failed(node, code, fields)
  local err = fields or {}
  err.code, err.processor = code, node.id
  return { status = "failed", error = err, attempts = 1 }
end

local function raised(node, value)
  local err = { raised = true }
  if type(value) == "table" then err.cause = copy(value) else err.message = tostring(value) end
  return failed(node, "processor_failed", err)
end

local function refuses(count, first, second)
  return count == 2 and first == nil and type(second) == "string"
end

local function completed(node, payload, metadata)
  if metadata ~= nil and type(metadata) ~= "table" then return failed(node, "invalid_response") end
  local found = obstacle(payload, "payload") or obstacle(metadata, path_to("metadata", node.id))
  if found then return failed(node, "invalid_payload", { mentions = found }) end
  return { status = "completed", payload = copy(payload), metadata = copy(metadata), attempts = 1 }
end

local answer = {}

function answer.transform(node, count, first, second)
  if refuses(count, first, second) then return failed(node, "processor_failed", { message = second }) end
  if first == nil or count > 2 then return failed(node, "invalid_response") end
  return completed(node, first, second)
end

function answer.analyze(node, count, first, second)
  if refuses(count, first, second) then return failed(node, "processor_failed", { message = second }) end
  if count > 1 then return failed(node, "invalid_response") end
  return completed(node, nil, first)
end

local function pack(...)
  return { n = select("#", ...), ... }
end

local function call(run, node)
  local returned = pack(pcall(node.run, copy(input_of(run, node).value), context_for(run, node)))
  if not returned[1] then return raised(node, returned[2]) end
  return answer[node.intent](node, returned.n - 1, unpack(returned, 2, returned.n))
end

-- The failed ancestor with the least (rank, declaration).
local function failed_root(run, node)
  local root
  for id, ancestor in pairs(node.ancestors) do
    if run.outcomes[id].status == "failed" and (not root or before(ancestor, root)) then root = ancestor end
  end
  return root
end

local function skipped(node, root)
  return {
    status = "skipped",
    attempts = 0,
    error = { code = "dependency_failed", processor = node.id, root = root.id, mentions = root.id },
  }
end

-- What becomes of a node whose own condition raises or does not hold; nil if it holds.
local function by_condition(run, node)
  if not node.when then return nil end
  local ok, holds = pcall(node.when, metadata_for(run, node), copy(input_of(run, node).value))
  if not ok then return raised(node, holds) end
  if not holds then return { status = "skipped", attempts = 0 } end
end

local function settle(run, node)
  local root = run.strategy ~= "best_effort" and failed_root(run, node)
  if root then return skipped(node, root) end
  return by_condition(run, node) or call(run, node)
end

local function gather(run)
  local best, metadata, failures, statuses = run.input, copy(run.metadata), {}, {}
  for _, node in ipairs(run.ordered) do
    local outcome = run.outcomes[node.id]
    best = greater(run.out[node.id], best)
    metadata[node.id] = copy(outcome.metadata)
    statuses[node.id] = outcome.status
    if outcome.status == "failed" then failures[#failures + 1] = node.id end
  end
  return {
    payload = best.value,
    metadata = metadata,
    statuses = statuses,
    failures = failures,
    outcomes = run.outcomes,
    ok = #failures == 0,
  }
end

local function begin(dag, payload, metadata)
  local ordered, nodes = plan(dag)
  return {
    strategy = dag.failure_strategy or "fail_fast",
    ordered = ordered,
    nodes = nodes,
    input = { rank = -1, index = 0, value = copy(payload) },
    metadata = copy(metadata or {}),
    outcomes = {},
    out = {},
  }
end

-- The result of a run:
--   { payload, ok, metadata, statuses, failures = ids in order, outcomes, error = id or nil }
--
-- Under fail_fast with a failure, a clock decides which processors had a chance. Then the answer has `failing` (the
-- ids of which at least one has failed, and no other can have) and oracle.given(expected, statuses) says the rest.
function oracle.run(dag, payload, metadata)
  local run = begin(dag, payload, metadata)
  for _, node in ipairs(run.ordered) do
    run.outcomes[node.id] = settle(run, node)
    run.out[node.id] = output_of(run, node)
  end
  local expected = gather(run)
  expected.error = expected.failures[1]
  if run.strategy == "fail_fast" and not expected.ok then
    expected.failing, expected.run = expected.failures, run
  end
  return expected
end

local permitted = {
  completed = { completed = true, cancelled = true },
  failed = { failed = true, cancelled = true },
  skipped = { cancelled = true },
  passed = { skipped = true, cancelled = true }, -- skipped by its own condition
}

local function cancelled(node)
  return { status = "cancelled", error = { code = "cancelled", processor = node.id } }
end

-- Whatever had its turn must have had all its ancestors completed, or skipped by their own conditions.
local function has_ancestors(node, statuses)
  for id in pairs(node.ancestors) do
    if statuses[id] ~= "completed" and statuses[id] ~= "skipped" then return false, id end
  end
  return true
end

local function check_status(run, node, statuses)
  local would, is = run.outcomes[node.id].status, statuses[node.id]
  if would == "skipped" and not run.outcomes[node.id].error then would = "passed" end
  if not permitted[would][is] then
    return ("%s is %s, it can't be: left to itself it would be %s"):format(node.id, tostring(is), would)
  end
  local closed, missing = has_ancestors(node, statuses)
  if is ~= "cancelled" and not closed then return ("%s is %s, but %s is not completed"):format(node.id, is, missing) end
end

-- The determined rest of a fail_fast run with failures, once it is known what became of each processor: the same
-- fields as oracle.run's, or nil and why these statuses cannot be.
function oracle.given(expected, statuses)
  local whole = expected.run
  local run = { ordered = whole.ordered, input = whole.input, metadata = whole.metadata, outcomes = {}, out = {} }
  for _, node in ipairs(whole.ordered) do
    local why = check_status(whole, node, statuses)
    if why then return nil, why end
    run.outcomes[node.id] = statuses[node.id] == "cancelled" and cancelled(node) or whole.outcomes[node.id]
    run.out[node.id] = output_of(run, node)
  end
  local view = gather(run)
  if #view.failures == 0 then return nil, "nothing has failed" end
  view.error = view.failures[1]
  return view
end

-- The ranks by id, for the specs of what a DAG shows of itself.
function oracle.ranks(dag)
  local ranks = {}
  for _, node in ipairs(plan(dag)) do ranks[node.id] = node.rank end
  return ranks
end

return oracle
