-- SPDX-License-Identifier: MIT
-- tm.engine { sandbox = ... }: what scripts that nobody has read can do, and what not. The attacks are in
-- spec/fixtures/attacks/corpus.lua.
local tm = require "tidemill"
local util = require "spec.support.util"

local corpus = dofile "spec/fixtures/attacks/corpus.lua"

local MB = 2 ^ 20

-- Says what of its world is not as it should be.
local WITNESS = [[
  local tm = require "tidemill"
  local upper, insert = string.upper, table.insert
  return tm.dag { tm.transform("look", function(payload)
    local wrong = {}
    local function check(what, ok) if not ok then insert(wrong, what) end end
    check("globals", leaked == nil and leaked_too == nil and evil == nil and kept == nil)
    check("functions", type(tostring) == "function" and tostring(12) == "12" and type(pairs) == "function")
    check("string", string.upper == upper and ("x"):upper() == "X" and string.evil == nil and ("x").evil == nil)
    check("pattern", ("abc"):match "^(.)b" == "a" and ("abc"):gsub("b", "x") == "axc")
    check("table", table.concat({ 1, 2 }, ",") == "1,2")
    check("math", math.floor(1.5) == 1)
    check("coroutine", coroutine.wrap(function() return 7 end)() == 7)
    check("module", type(tm.dag) == "function" and type(require "tidemill".dag) == "function")
    check("metatables", getmetatable(_G) == nil and getmetatable(string) == nil)
    check("errors", select(2, pcall(error, "plain", 0)) == "plain")
    return payload .. " " .. (#wrong == 0 and "fine" or table.concat(wrong, " "))
  end) }
]]

describe("In a sandbox", function()
  local engine, witness, canary

  local function open()
    engine = assert(tm.engine { workers = 1, sandbox = true, memory_limit = 32 * MB, callback_timeout = 0.3 })
    witness = assert(engine:load(util.script(WITNESS)))
  end

  setup(function()
    canary = os.tmpname()
    os.remove(canary)
    open()
  end)

  teardown(function()
    engine:close()
    util.cleanup()
  end)

  local function script_of(attack)
    local body = attack.body:gsub("$CANARY", canary)
    if attack.load then return "local tm = require 'tidemill' " .. body end
    return ("local tm = require 'tidemill' return tm.dag { tm.transform('attack', function(payload, ctx)\n%s\nend) }")
      :format(body)
  end

  local function message_of(result, err)
    return ("%s %s"):format(result and "returned " .. tostring(result.payload) or "", err and tostring(err) or "")
  end

  for _, attack in ipairs(corpus) do
    it("comes to nothing: " .. attack.name, function()
      local dag, err = engine:load(util.script(script_of(attack)))
      local result
      if dag and not attack.load then result, err = dag:start("p"):wait(60) end
      local late = attack.code == "memory_limit" and err and err.code == "timeout"
      if attack.code and not late then
        assert.equal(attack.code, err and err.code, message_of(result, err))
      end
      if attack.raises then util.assert_contains(message_of(result, err), attack.raises) end
      assert.is_true(err ~= nil or result.payload == "harmless", message_of(result, err))
      assert.equal("still fine", util.run(witness, "still").payload)
      assert.is_nil(io.open(canary))
    end)
  end
end)

-- What a callback can reach: everything in its globals and in what it is given, by path.
local WALK = [[
  local tm = require "tidemill"
  return tm.dag {
    failure_strategy = "best_effort",
    tm.transform("fails", function() error { cause = "walk" } end),
    tm.transform "walk" { depends_on = "fails", options = { n = 1 }, run = function(_, ctx)
      local seen, list = {}, {}
      local function walk(path, value)
        local kind = type(value)
        list[#list + 1] = path .. ": " .. kind
        local meta = getmetatable(value)
        if meta ~= nil and kind ~= "string" then list[#list + 1] = path .. "'s metatable: " .. tostring(meta) end
        if kind ~= "table" or seen[value] then return end
        seen[value] = true
        for key, item in pairs(value) do walk(path .. "." .. tostring(key), item) end
      end
      walk("_G", _G)
      walk("''", getmetatable "")
      walk("tidemill", tm)
      walk("dag", tm.dag {})
      walk("processor", tm.transform("x", print))
      walk("ctx", ctx)
      for _, name in ipairs { "id", "options", "state", "attempt", "metadata", "dependencies", "cancelled",
        "remaining" } do
        walk("ctx." .. name, ctx[name])
      end
      table.sort(list)
      return table.concat(list, "\n")
    end },
  }
]]

local function names(prefix, kind, text)
  local list = {}
  for name in text:gmatch "%S+" do list[#list + 1] = ("%s.%s: %s"):format(prefix, name, kind) end
  return table.concat(list, "\n")
end

-- The whole of it. What is not here must not be reachable; by what Lua has, some of it may be missing.
local function golden(profile)
  local list = {
    "_G: table", "_G._G: table", "_G._VERSION: string",
    names("_G", "function", "assert error getmetatable ipairs load next pairs pcall rawequal rawget rawset require "
      .. "select setmetatable tonumber tostring type xpcall"),
    names("_G", "table", "coroutine math string table"),
    names("_G.coroutine", "function", "create resume running status wrap yield"),
    names("_G.math", "function", "abs acos asin atan ceil cos deg exp floor fmod log max min modf rad sin sqrt tan"),
    names("_G.math", "number", "huge pi"),
    names("_G.string", "function", "byte char find format gmatch gsub len lower match rep reverse sub upper"),
    names("_G.table", "function", "concat insert remove sort"),
    "'': boolean",
    "tidemill: table", names("tidemill", "function", "analyze dag transform"), "tidemill.null: userdata",
    "tidemill.version: string",
    "dag: table", "dag's metatable: tidemill.declaration", "dag.fields: table", "dag.where: string",
    "processor: table", "processor's metatable: tidemill.processor", "processor.id: string",
    "processor.intent: string", "processor.where: string",
    "ctx: userdata", "ctx's metatable: tidemill.context", "ctx.id: string", "ctx.options: table",
    "ctx.options.n: number", "ctx.state: nil", "ctx.attempt: number", "ctx.metadata: table",
    "ctx.dependencies: table", "ctx.dependencies.fails: table", "ctx.dependencies.fails.status: string",
    "ctx.dependencies.fails.payload: string", "ctx.dependencies.fails.error: table",
    "ctx.dependencies.fails.error's metatable: tidemill.error",
    names("ctx.dependencies.fails.error", "string", "code message processor traceback"),
    "ctx.dependencies.fails.error.attempt: number", "ctx.dependencies.fails.error.cause: table",
    "ctx.dependencies.fails.error.cause.cause: string",
    "ctx.cancelled: function", "ctx.remaining: function",
  }
  local function add(...) for _, more in ipairs { ... } do list[#list + 1] = more end end
  if profile == "sandbox" then
    add(names("_G", "function", "collectgarbage"), "_G.os: table",
      names("_G.os", "function", "clock date difftime time"), names("_G.math", "function", "random randomseed"))
  end
  if bit32 then
    add("_G.bit32: table", names("_G.bit32", "function", "arshift band bnot bor btest bxor extract lrotate lshift "
      .. "replace rrotate rshift"))
  end
  if jit then
    add "_G.bit: table"
    add(names("_G.bit", "function", "arshift band bnot bor bswap bxor lshift rol ror rshift tobit tohex"))
    add(names("_G", "function", "loadstring unpack"), "_G.coroutine.isyieldable: function",
      names("_G.math", "function", "atan2 cosh frexp ldexp log10 pow sinh tanh"), "_G.table.move: function")
  elseif _VERSION == "Lua 5.1" then
    add(names("_G", "function", "loadstring unpack"),
      names("_G.math", "function", "atan2 cosh frexp ldexp log10 mod pow sinh tanh"))
  else
    add("_G.rawlen: function", "_G.coroutine.isyieldable: function", names("_G.math", "function", "tointeger type ult"),
      names("_G.math", "number", "maxinteger mininteger"), names("_G.string", "function", "pack packsize unpack"),
      names("_G.table", "function", "move pack unpack"), "_G.utf8: table", "_G.utf8.charpattern: string",
      names("_G.utf8", "function", "char codepoint codes len offset"))
    if _VERSION == "Lua 5.4" then add "_G.coroutine.close: function" end
    for _, name in ipairs { "atan2", "cosh", "frexp", "ldexp", "log10", "pow", "sinh", "tanh" } do
      if math[name] then add(names("_G.math", "function", name)) end -- by how it was built
    end
  end
  local lines = {}
  for line in table.concat(list, "\n"):gmatch "[^\n]+" do lines[#lines + 1] = line end
  table.sort(lines)
  return lines
end

describe("A sandboxed callback", function()
  after_each(util.cleanup)

  for _, profile in ipairs { "sandbox", "pure" } do
    it(("can reach exactly what is on the list of \"%s\""):format(profile), function()
      local engine = assert(tm.engine { workers = 1, sandbox = profile })
      finally(function() engine:close() end)
      local dag = assert(engine:load(util.script(WALK)))
      local result = dag:run "p"
      local found = {}
      for line in result.payload:gmatch "[^\n]+" do found[#found + 1] = line end
      local wanted, extra, missing = {}, {}, {}
      for _, line in ipairs(golden(profile)) do wanted[line] = true end
      for _, line in ipairs(found) do
        if not wanted[line] then extra[#extra + 1] = line end
        wanted[line] = nil
      end
      for line in pairs(wanted) do missing[#missing + 1] = line end
      table.sort(missing)
      assert.same({ extra = {}, missing = {} }, { extra = extra, missing = missing })
    end)
  end
end)

describe("A sandbox", function()
  local engine

  local function open(options)
    options.workers = options.workers or 1
    engine = assert(tm.engine(options))
    return engine
  end

  after_each(function()
    if engine then engine:close() end
    util.cleanup()
  end)

  local function load(body, options)
    return assert(engine:load(util.script("local tm = require 'tidemill'\n" .. body), options))
  end

  local function one(body, options)
    return load(("return tm.dag { tm.transform('it', function(payload, ctx)\n%s\nend) }"):format(body), options)
  end

  it("runs ordinary scripts", function()
    open { sandbox = true, workers = 2 }
    for _, path in ipairs { "scripts/diamond.dag.lua" } do
      assert.is_truthy(util.run(assert(engine:load(path)), "moon").payload)
    end
  end)

  it("is a fresh environment for every script, and every load", function()
    open { sandbox = true }
    local body = "count = (count or 0) + 1 string.mark = count return tostring(count) .. tostring(string.mark)"
    local path = util.script("local tm = require 'tidemill' return tm.dag { tm.transform('it', function() "
      .. body .. " end) }")
    local first, second = assert(engine:load(path)), assert(engine:load(path))
    assert.equal("11", util.run(first, "").payload)
    assert.equal("22", util.run(first, "").payload)
    assert.equal("11", util.run(second, "").payload)
  end)

  it("may be asked for by its names, and not by others", function()
    for _, name in ipairs { true, "sandbox", "pure" } do
      open { sandbox = name }
      assert.equal("nil", util.run(one "return type(io)", "").payload)
      engine:close()
    end
    for _, name in ipairs { false, "trusted" } do
      open { sandbox = name }
      assert.equal("table", util.run(one "return type(io)", "").payload)
      engine:close()
    end
    util.assert_raises_here(function() tm.engine { sandbox = "safe" } end, "sandbox must be", "safe")
  end)

  it("needs a way to stop callbacks", function()
    util.assert_raises_here(function() tm.engine { sandbox = true, preempt = false } end, "preempt must not be false")
  end)

  it("may be one script's in an engine that trusts the others", function()
    open {}
    local trusted = one "return type(io) .. #('x'):rep(10)"
    local confined = one("return type(io) .. type(('x').dump)", { sandbox = true })
    assert.equal("nilnil", util.run(confined, "").payload)
    assert.equal("table10", util.run(trusted, "").payload)
  end)

  it("can be stricter for one script, never weaker", function()
    open { sandbox = true }
    assert.equal("nil", util.run(one("return type(os)", { sandbox = "pure" }), "").payload)
    assert.equal("table", util.run(one "return type(os)", "").payload)
    local path = util.script "return 1"
    util.assert_raises_here(function() engine:load(path, { sandbox = false }) end, "sandbox", "trusted")
    util.assert_raises_here(function() engine:load(path, { sandbox = "hard" }) end, "sandbox must be")
    util.assert_raises_here(function() engine:load(path, { sandbx = true }) end, "did you mean 'sandbox'?")
    util.assert_raises_here(function() engine:load(path, true) end, "table of options")
  end)

  it("has no time and no chance when it is pure", function()
    open { sandbox = "pure" }
    assert.equal("nil nil nil", util.run(one [[
      return type(os) .. " " .. type(math.random) .. " " .. type(collectgarbage)
    ]], "").payload)
  end)

  it("gives each script random numbers of its own", function()
    open { sandbox = true }
    local dag = one [[
      math.randomseed(42)
      local list = {}
      for i = 1, 5 do list[i] = math.random(1, 1000) end
      local real = math.random()
      return { list = list, inside = real >= 0 and real < 1 and math.random(3) <= 3 }
    ]]
    local first = util.run(dag, "").payload
    assert.is_true(first.inside)
    assert.same(first, util.run(dag, "").payload)
  end)

  it("lets a script require modules that lie beside it", function()
    open { sandbox = true }
    local module = util.write(util.path ".lua", "shared = 1 return { shout = string.upper, io = io }")
    local path = util.script([[
      local tm = require "tidemill"
      local module = require($NAME)
      return tm.dag { tm.transform("it", function() return module.shout "hi" .. " " .. tostring(module.io) end) }
    ]], { NAME = module:match "([^/]*)%.lua$" })
    assert.equal(path:match "^.*/", module:match "^.*/")
    assert.equal("HI nil", util.run(assert(engine:load(path)), "").payload)
  end)

  it("loads no bytecode", function()
    open { sandbox = true }
    local path = util.write(util.path ".dag.lua", string.dump(function() end))
    local dag, err = engine:load(path)
    assert.is_nil(dag)
    util.assert_contains(err.message, "bytecode")
  end)

  it("holds for inline DAGs", function()
    open { sandbox = true }
    local suffix, upper = "!", string.upper
    local dag = assert(engine:dag(tm.dag { tm.transform("it", function(payload)
      return upper(payload) .. suffix .. type(rawget(_G, "io")) .. type(string.dump)
    end) }))
    assert.equal("P!nilnil", util.run(dag, "p").payload)
    local dumped, open_file = string.dump, io.open
    for _, fn in ipairs { function() return dumped end, function() return open_file end } do
      local none, err = engine:dag(tm.dag { tm.transform("it", fn) })
      assert.is_nil(none)
      util.assert_contains(err.message, "worker")
    end
  end)

  it("takes modules from inline DAGs that it has itself only", function()
    open { sandbox = true }
    local none, err = engine:dag(tm.dag { tm.transform("it", function() return util.keys {} end) })
    assert.is_nil(none)
    util.assert_contains(err.message, "spec.support.util")
  end)

  it("bounds every callback by 10 seconds or callback_timeout, whatever it asks for", function()
    open { sandbox = true, callback_timeout = 0.05 }
    local dag = load [[return tm.dag { tm.transform "it" { timeout = 1000, run = function() while true do end end } }]]
    local _, err = dag:start("p"):wait(30)
    assert.equal("timeout", err.code)
    util.assert_contains(err.message, "0.05 s")
  end)

  it("has a memory limit of 64 MiB when none is given", function()
    open { sandbox = true }
    local _, err = one("local t = {} for i = 1, math.huge do t[i] = i end"):start("p"):wait(60)
    util.assert_contains(tostring(err), "memory_limit", ("%d"):format(64 * MB))
  end)

  it("has the errors of ordinary scripts", function()
    open { sandbox = true }
    local _, err = one("error 'plain'"):run "p"
    util.assert_contains(err.message, ".dag.lua:3: plain")
    assert.is_string(err.traceback)
    _, err = one("return nil, 'why'"):run "p"
    assert.equal("why", err.message)
  end)
end)

describe("callback_timeout", function()
  after_each(util.cleanup)

  it("bounds trusted callbacks, too", function()
    local engine = assert(tm.engine { workers = 1, callback_timeout = 0.05 })
    finally(function() engine:close() end)
    local dag = assert(engine:dag(tm.dag { tm.transform("it", function() while true do end end) }))
    local _, err = dag:start("p"):wait(30)
    assert.equal("timeout", err.code)
  end)

  it("must be a number of seconds", function()
    util.assert_raises_here(function() tm.engine { callback_timeout = 0 } end, "callback_timeout must be")
  end)
end)

describe("instruction_limit", function()
  local engine

  local function open(limit, preempt)
    engine = assert(tm.engine { workers = 1, instruction_limit = limit, preempt = preempt })
  end

  after_each(function()
    engine:close()
    util.cleanup()
  end)

  local function one(run, limit, preempt)
    open(limit, preempt)
    return assert(engine:dag(tm.dag { tm.transform("it", run) }))
  end

  local function assert_spent(dag, limit)
    local result, err = dag:start("p"):wait(60)
    assert.is_nil(result)
    assert.equal("timeout", err.code)
    assert.equal("it", err.processor)
    util.assert_contains(err.message, ("executed more than %d instructions (instruction_limit)"):format(limit))
  end

  it("does not hold against a script what the worker's last callback spent", function()
    assert_spent(one(function() while true do end end, 10000), 10000)
    assert(engine:load(util.script "return require 'tidemill'.dag { require 'tidemill'.transform('a', print) }"))
  end)

  it("ends a callback that executes more", function()
    for _, preempt in ipairs { "signal", "hook" } do
      assert_spent(one(function() while true do end end, 10000, preempt), 10000)
      engine:close()
    end
  end)

  it("ends it even if nothing else can be stopped", function()
    assert_spent(one(function() while true do end end, 10000, false), 10000)
  end)

  it("counts for each callback anew", function()
    local dag = one(function(payload)
      for _ = 1, 20000 do payload = payload .. "" end
      return payload
    end, 200000)
    for _ = 1, 30 do assert.equal("p", util.run(dag, "p").payload) end
  end)

  it("cannot be got around", function()
    for name, run in pairs {
      pcall = function()
        local function spin() while true do end end
        while true do pcall(spin) end
      end,
      coroutine = function() coroutine.wrap(function() while true do end end)() end,
      coroutines = function()
        while true do coroutine.wrap(function() for _ = 1, 50 do coroutine.yield() end end)() end
      end,
      handler = function() xpcall(error, function() while true do end end) end,
      error = function() error(setmetatable({}, { __tostring = function() while true do end end })) end,
    } do
      local result, err = one(run, 100000):start("p"):wait(60)
      assert.is_nil(result, name)
      assert.equal("timeout", err.code, name)
      engine:close()
    end
  end)

  it("leaves the worker as it was", function()
    open(100000)
    local bad = assert(engine:dag(tm.dag { tm.transform("it", function() while true do end end) }))
    local good = assert(engine:dag(tm.dag { tm.transform("good", function(payload) return payload .. "!" end) }))
    for _ = 1, 5 do
      assert_spent(bad, 100000)
      assert.equal("p!", util.run(good, "p").payload)
    end
  end)

  it("holds for when, and lets retry.when say whether to try again", function()
    open(100000)
    local dag = assert(engine:dag(tm.dag { tm.transform "it" {
      retry = { max = 5, when = function(err) return err.attempt < 2 end },
      when = function() return true end,
      run = function() while true do end end,
    } }))
    local result, err = dag:start("p"):wait(60)
    assert.is_nil(result)
    assert.equal(2, err.attempt)
  end)

  it("bounds what loading may take", function()
    open(1000)
    local dag, err = engine:load(util.script "while true do end")
    assert.is_nil(dag)
    assert.equal("timeout", err.code)
    util.assert_contains(err.message, "loading it executed more than")
  end)

  it("costs no more where the stack is deep", function() -- it took a hundred times as long
    engine = assert(tm.engine { workers = 1, instruction_limit = 1e9, callback_timeout = 10 })
    local _, err = assert(engine:dag(tm.dag { tm.transform("it", function()
      local function deeper(n) return 1 + deeper(n + 1) end
      return deeper(1)
    end) })):run()
    assert.equal("processor_failed", err.code)
    util.assert_contains(err.message, "stack overflow")
  end)

  it("counts the steps of patterns in a sandbox", function()
    engine = assert(tm.engine { workers = 1, sandbox = true, instruction_limit = 100000 })
    local dag = assert(engine:load(util.script [[
      local tm = require "tidemill"
      return tm.dag { tm.transform("it", function() return (("a"):rep(1000)):find ".-.-.-b" end) }
    ]]))
    assert_spent(dag, 100000)
  end)
end)
