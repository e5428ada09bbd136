-- SPDX-License-Identifier: MIT
-- Random DAGs from a seed: the same seed describes the same DAG on every Lua. See oracle.lua for the shape of a
-- description; each processor also keeps its `behaviour`, from which its callback was made.

local tm = require "tidemill"
local random = require "spec.support.random"
local behaviours = require "spec.support.behaviours"

local random_dag = {}

-- Shapes: of each vertex 1..size, on which earlier vertices it depends.
local shapes = {}

local function entry_points(size)
  local edges = {}
  for vertex = 1, size do edges[vertex] = {} end
  return edges
end

local function connect(edges, vertex, earlier)
  for _, known in ipairs(edges[vertex]) do
    if known == earlier then return end
  end
  table.insert(edges[vertex], earlier)
end

function shapes.chain(_, size)
  local edges = entry_points(size)
  for vertex = 2, size do connect(edges, vertex, vertex - 1) end
  return edges
end

function shapes.fan(_, size)
  local edges = entry_points(size)
  for vertex = 2, size - 1 do
    connect(edges, vertex, 1)
    connect(edges, size, vertex)
  end
  return edges
end

function shapes.layered(rng, size)
  local edges, width = entry_points(size), rng:between(2, 5)
  for vertex = width + 1, size do
    local first = (math.ceil(vertex / width) - 2) * width + 1
    for _ = 1, rng:between(1, 3) do connect(edges, vertex, rng:between(first, first + width - 1)) end
    if rng:once_in(4) then connect(edges, vertex, rng:between(1, vertex - 1)) end
  end
  return edges
end

function shapes.sparse(rng, size)
  local edges = entry_points(size)
  for vertex = 2, size do
    for _ = 1, rng:between(0, 2) do connect(edges, vertex, rng:between(1, vertex - 1)) end
  end
  return edges
end

function shapes.dense(rng, size)
  local edges = entry_points(math.min(size, 14))
  for vertex = 2, #edges do
    for earlier = 1, vertex - 1 do
      if rng:once_in(2) then connect(edges, vertex, earlier) end
    end
  end
  return edges
end

function shapes.disconnected(rng, size)
  local edges, first = entry_points(size), 1
  for vertex = 2, size do
    if rng:once_in(4) then first = vertex end
    if vertex > first then connect(edges, vertex, rng:between(first, vertex - 1)) end
  end
  return edges
end

local SHAPES = { "chain", "fan", "layered", "sparse", "dense", "disconnected" }

-- Kinds are picked by name from a sorted list, as the order of pairs differs.
local function kinds_of(set)
  local kinds = {}
  for kind in pairs(set) do kinds[#kinds + 1] = kind end
  table.sort(kinds)
  return kinds
end

local KINDS = {}
for name, set in pairs(behaviours) do KINDS[name] = kinds_of(set) end

local VALUES = { "", "fresh", 12, -0.5, true, false, { "a", "list" }, { map = { deep = "x" }, [3] = 4 } }
local PAYLOADS = { "payload", "", 42, true, { "list" }, { key = "value", list = { 1, 2 } } }
local METADATA = { {}, { source = "spec" }, { source = { name = "spec", list = { 1, "two" } }, flag = true } }

-- No failures at all in half of the DAGs; otherwise one processor in so many.
local FAILING = { false, false, false, 20, 8, 3 }

-- Half of the DAGs do not dawdle, which gives them the tightest races; 10000 steps take some 100 µs.
local SPINS = { 0, 0, 100, 10000 }

local function rank_of(edges)
  local ranks = {}
  for vertex, earlier in ipairs(edges) do
    ranks[vertex] = 0
    for _, dependency in ipairs(earlier) do ranks[vertex] = math.max(ranks[vertex], ranks[dependency] + 1) end
  end
  return ranks
end

local function behaviour_for(rng, dag, intent, id, rank)
  local fails = dag.failing and rng:once_in(dag.failing)
  local set = fails and "failing_" .. intent or intent
  return {
    set = set,
    kind = rng:pick(KINDS[set]),
    tag = id,
    rank = rank,
    value = rng:pick(VALUES),
    spin = rng:between(0, dag.spin),
  }
end

local function names_of(rng, ids, vertices)
  local names = {}
  for position, vertex in ipairs(vertices) do names[position] = ids[vertex] end
  return rng:shuffle(names)
end

-- Half of the DAGs have no conditions; in the others one processor in three has one.
local function add_condition(rng, dag, processor)
  if not dag.conditional or not rng:once_in(3) then return end
  local set = dag.failing and rng:once_in(8) and "failing_condition" or "condition"
  processor.condition = rng:pick(KINDS[set])
  processor.when = behaviours[set][processor.condition](processor.behaviour)
end

local function processor_for(rng, dag, ids, vertex, earlier, rank)
  local intent = rng:once_in(3) and "analyze" or "transform"
  local behaviour = behaviour_for(rng, dag, intent, ids[vertex], rank)
  local processor = {
    id = ids[vertex],
    intent = intent,
    depends_on = names_of(rng, ids, earlier),
    behaviour = behaviour,
    run = behaviours[behaviour.set][behaviour.kind](behaviour),
  }
  add_condition(rng, dag, processor)
  if #earlier > 0 and rng:once_in(4) then processor.payload_from = rng:pick(processor.depends_on) end
  return processor
end

-- Ids whose order says nothing about ranks or declaration.
local function ids_for(rng, size)
  local ids = {}
  for vertex = 1, size do ids[vertex] = ("p%02d"):format(vertex) end
  return rng:shuffle(ids)
end

function random_dag.new(seed)
  local rng = random.new(seed)
  local dag = {
    seed = seed,
    shape = rng:pick(SHAPES),
    failing = rng:pick(FAILING),
    spin = rng:pick(SPINS),
    payload = rng:pick(PAYLOADS),
    metadata = rng:pick(METADATA),
    conditional = rng:once_in(2),
    processors = {},
  }
  local edges = shapes[dag.shape](rng, rng:between(1, 30))
  local ids, ranks = ids_for(rng, #edges), rank_of(edges)
  for vertex, earlier in ipairs(edges) do
    dag.processors[vertex] = processor_for(rng, dag, ids, vertex, earlier, ranks[vertex])
  end
  rng:shuffle(dag.processors)
  return dag
end

-- As a script would declare it.
function random_dag.declare(description)
  local declaration = { failure_strategy = description.failure_strategy }
  for index, processor in ipairs(description.processors) do
    declaration[index] = tm[processor.intent](processor.id, {
      depends_on = processor.depends_on,
      payload_from = processor.payload_from,
      run = processor.run,
      when = processor.when,
    })
  end
  return tm.dag(declaration)
end

-- How a description reads in a report.
function random_dag.describe(dag)
  local lines = { ("seed %d: %s, %d processors"):format(dag.seed, dag.shape, #dag.processors) }
  for _, processor in ipairs(dag.processors) do
    lines[#lines + 1] = ("  %s %s %s%s <- %s%s"):format(
      processor.intent, processor.id, processor.behaviour.kind,
      processor.condition and " when " .. processor.condition or "", table.concat(processor.depends_on, ", "),
      processor.payload_from and " (payload from " .. processor.payload_from .. ")" or ""
    )
  end
  return table.concat(lines, "\n")
end

return random_dag
