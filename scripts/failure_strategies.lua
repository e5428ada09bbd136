-- SPDX-License-Identifier: MIT
-- What becomes of a run when a processor fails? The same DAG under each of the three failure strategies.
--
--   lua scripts/failure_strategies.lua
--
--   order ─┬─ price ──── total ──┬─ receipt          price fails
--          └─ stock ─────────────┘
--
-- Unlike the *.dag.lua files, this is a program: it makes an engine, declares DAGs inline, runs them and reads the
-- results. Their callbacks are carried over to the workers, together with the local functions they use.

local tm = require "tidemill"

local STRATEGIES = { "fail_fast", "continue_on_error", "best_effort" }

local function find_price(_, ctx)
  return nil, "no price for " .. ctx.options.item
end

local function shop(strategy)
  return tm.dag {
    name = "shop",
    failure_strategy = strategy,

    tm.transform("order", function(text) return text:upper() end),
    tm.analyze "price" { depends_on = "order", options = { item = "moonstone" }, run = find_price },
    tm.analyze "stock" { depends_on = "order", run = function() return { left = 3 } end },
    tm.transform "total" {
      depends_on = "price",
      run = function(payload, ctx)
        local price = ctx.metadata.price   -- best_effort runs us without it
        return payload .. (price and " for " .. price.amount or " for free")
      end,
    },
    tm.transform "receipt" {
      depends_on = { "total", "stock" },
      run = function(payload, ctx) return payload .. ", " .. ctx.metadata.stock.left .. " left" end,
    },
  }
end

local function run_with(engine, strategy)
  local dag = assert(engine:dag(shop(strategy)))
  local result, err = dag:run "one moonstone"
  local partial = result or err.result   -- under fail_fast the error has what had completed
  local report = {
    returned = result and "result, err" or "nil, err",
    payload = result and result.payload,
    statuses = {},
  }
  for _, processor in ipairs(dag.processors) do
    report.statuses[processor.id] = partial.outcomes[processor.id].status
  end
  return report, err, dag.processors
end

local function print_row(label, cell)
  local cells = {}
  for i, strategy in ipairs(STRATEGIES) do cells[i] = ("%-19s"):format(cell(strategy)) end
  print((("%-14s"):format(label) .. table.concat(cells)):match "^(.-)%s*$")
end

local function main()
  local engine = tm.engine { workers = 2 }
  local reports, processors, failure = {}, nil, nil
  for _, strategy in ipairs(STRATEGIES) do
    reports[strategy], failure, processors = run_with(engine, strategy)
  end
  engine:close()

  print_row("", function(strategy) return strategy end)
  for _, processor in ipairs(processors) do
    print_row(processor.id, function(strategy) return reports[strategy].statuses[processor.id] end)
  end
  print_row("run returns", function(strategy) return reports[strategy].returned end)
  print()
  for _, strategy in ipairs(STRATEGIES) do
    print(("%-19s payload: %s"):format(strategy, reports[strategy].payload or "-"))
  end
  print()
  print("the error, each time: " .. failure.processor .. " failed: " .. failure.message)
end

main()
