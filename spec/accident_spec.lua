-- SPDX-License-Identifier: MIT
-- What may happen to a process in the middle of a run. Each accident happens to a process of its own,
-- TIDEMILL_ACCIDENTS times (5): it ends as it should, says what it should, and never hangs.

local process = require "spec.support.process"

local TIMES = tonumber(os.getenv "TIDEMILL_ACCIDENTS") or 5
local SOME = math.ceil(TIMES / 5) -- of those that do much each time
local PATIENCE = 60 -- seconds

-- The leak sanitizer counts what a forked child inherits, and breaks where threads run at the end.
local NO_LEAKS = "env ASAN_OPTIONS=detect_leaks=0"

local function shell_succeeds(command)
  local status = os.execute(command)
  return status == true or status == 0
end

-- Runs a program in which `scene` is spec.fixtures.accident. `within`: a command that runs it.
local function happen(program, within)
  local path = os.tmpname()
  if within then shell_succeeds("chmod a+r " .. path) end
  process.write(path, [[
    local tm, scene, accident = require "tidemill", require "spec.fixtures.accident", require "spec.accident"
    io.stdout:setvbuf "full"
    local function check(value, ...) return assert(value, ...) end
    local _, _ = tm, accident
  ]] .. program)
  local ended = process.lua { path, before = ("timeout -s KILL %d %s %s"):format(PATIENCE, within or "", NO_LEAKS) }
  os.remove(path)
  return ended
end

-- Asserts that a program ends with a status and with `done` as its output, each time.
local function ends(expected, program, within)
  for time = 1, expected.times or TIMES do
    local ended = happen(program, within)
    local all = ("time %d: status %s\n%s%s"):format(time, ended.status, ended.stdout, ended.stderr)
    assert.equal(expected.status or 0, ended.status, all)
    assert.equal(expected.output or "done\n", ended.stdout, all)
    if expected.says then
      assert.is_truthy(ended.stderr:find(expected.says, 1, true), all)
    else
      assert.equal("", ended.stderr, all)
    end
  end
end

describe("In the middle of a run,", function()
  it("os.exit ends the program", function()
    ends({ status = 7 }, [[
      scene.open()
      print "done"
      os.exit(7)
    ]])
  end)

  it("os.exit that closes the Lua state ends the program", function()
    ends({ status = 7 }, [[
      scene.open()
      print "done"
      os.exit(7, true)
    ]])
  end)

  it("the program may come to its end", function()
    ends({}, [[
      scene.open()
      print "done"
    ]])
  end)

  it("the program may come to its end with everything still in use", function()
    ends({}, [[
      all = { scene.open() }
      print "done"
    ]])
  end)

  it("an error may end the program", function()
    ends({ status = 1, says = "out of luck" }, [[
      local engine, dag, run = scene.open()
      print "done"
      error "out of luck"
    ]])
  end)

  it("an error in engine:step may end the program", function()
    ends({ status = 1, says = "out of luck" }, [[
      local engine, _, _, quick = scene.open()
      for n = 1, 10 do quick:start(n, function() error "out of luck" end) end
      print "done"
      while true do engine:step() end
    ]])
  end)

  it("a callback may end the program", function()
    for _, call in ipairs { "os.exit(7)", "os.exit(7, true)" } do
      for _, way in ipairs { "dag:run(1)", "dag:start(1):wait()" } do
        ends({ status = 7, output = "" }, ([[
          local dag = tm.engine { workers = 2 }:dag(tm.dag { tm.transform("it", function() %s end) })
          scene.open(3)
          %s
        ]]):format(call, way))
      end
    end
  end)

  it("SIGTERM ends the program", function()
    ends({ output = "signal 15\n" }, [[
      local path = os.tmpname()
      os.remove(path)
      local child = accident.fork()
      if child == 0 then
        scene.open()
        io.open(path, "w"):close()
        accident.nap(30)
        os.exit(1)
      end
      scene.await(path)
      os.remove(path)
      accident.kill(child, 15)
      print(accident.wait(child, 30))
    ]])
  end)

  it("SIGTERM ends the program that waits in dag:run", function()
    ends({ output = "signal 15\n" }, [[
      local path = os.tmpname()
      os.remove(path)
      local child = accident.fork()
      if child == 0 then
        local dag = tm.engine { workers = 2 }:dag(tm.dag {
          tm.transform("it", function() io.open(path, "w"):close() while true do end end),
        })
        dag:run(1)
        os.exit(1)
      end
      scene.await(path)
      os.remove(path)
      accident.kill(child, 15)
      print(accident.wait(child, 30))
    ]])
  end)

  it("engine, DAG, run and result may be collected in any order", function()
    ends({ times = SOME }, [[
      local function order(count, index)
        local names, list = { "engine", "dag", "run", "result" }, {}
        for left = count, 1, -1 do
          list[#list + 1] = table.remove(names, index % left + 1)
          index = math.floor(index / left)
        end
        return list
      end
      for index = 0, 23 do
        local things = {}
        local quick
        things.engine, things.dag, things.run, quick = scene.open(2)
        things.result, quick = quick:run(21), nil
        for _, name in ipairs(order(4, index)) do
          things[name] = nil
          collectgarbage()
          collectgarbage()
          check(not things.result or things.result.payload == 42)
          check(not things.run or not things.engine or things.run.status == "running")
        end
      end
      print "done"
    ]])
  end)

  it("engine, DAG, run and result may be closed and used in any order", function()
    ends({ times = SOME }, [[
      for index = 0, 23 do
        local engine, dag, run, quick = scene.open(2)
        local result = quick:run(21)
        local acts = {
          function() engine:close() end,
          function() run:cancel "enough" end,
          function() local ok = pcall(function() return dag:start(1) end) check(ok) end,
          function() check(result.payload == 42) end,
        }
        for left = 4, 1, -1 do
          table.remove(acts, index % left + 1)()
          index = math.floor(index / left)
          collectgarbage()
        end
        local _, err = run:wait()
        check(err.code == "cancelled")
      end
      print "done"
    ]])
  end)
end)

-- `child` is what a forked child does; both it and its parent must end well.
local function forks(child)
  ends({ output = "0\ndone\n" }, ([[
    local engine, dag, run, quick = scene.open()
    local settled = quick:start(21, function() end)
    settled:wait()
    local result = quick:run(21)
    local child = accident.fork()
    if child == 0 then
      %s
    else
      print(accident.wait(child, 30))
      check(scene.works(quick))
      check(run.status == "running")
      check(engine:step() == 1)
      run:cancel "enough"
      local _, err = run:wait()
      check(err.code == "cancelled")
      engine:close()
      print "done"
    end
  ]]):format(child))
end

describe("A child that was forked in the middle of a run", function()
  it("may exit", function() forks "os.exit(0)" end)
  it("may exit and close its Lua state", function() forks "os.exit(0, true)" end)
  it("may come to its end", function() forks "" end)

  it("may collect all it has inherited", function()
    forks "engine, dag, run, quick, settled, result = nil collectgarbage() collectgarbage()"
  end)

  it("may read what had settled", function()
    forks "check(result.payload == 42 and settled.status == 'completed')"
  end)

  it("is told that the engine is not its own", function()
    forks [[
      for _, try in ipairs {
        function() return dag:run(1) end,
        function() return dag:start(1) end,
        function() return run:wait() end,
        function() return run:wait(0.01) end,
        function() return engine:dag(tm.dag { tm.transform("it", function() end) }) end,
        function() return engine:load "nowhere.dag.lua" end,
      } do
        local answer, err = try()
        check(answer == nil and err.code == "closed", tostring(err))
        check(tostring(err):find("fork", 1, true), tostring(err))
      end
    ]]
  end)

  it("may close, cancel and step in vain", function()
    forks "run:cancel 'enough' check(engine:step() == 0) engine:close() engine:close()"
  end)

  it("may have an engine of its own", function()
    forks "for _ = 1, 3 do local own = tm.engine { workers = 2 } check(scene.works(scene.quick(own))) own:close() end"
  end)
end)

-- A child of a thread that holds locks all the time.
describe("A child that was forked while its parent was in a hurry", function()
  it("ends, whatever was locked", function()
    ends({ times = SOME }, [[
      local engine = tm.engine { workers = 3 }
      local dag = assert(engine:dag(tm.dag {
        limits = { one = 1 }, strategy = "work_queue",
        tm.transform "a" { uses = "one", run = function(n) return n end },
        tm.transform "b" { uses = "one", run = function(n) return n end },
        tm.transform "c" { depends_on = { "a", "b" }, run = function(n) return n end },
      }))
      for _ = 1, 25 do
        local runs = {}
        for n = 1, 50 do runs[n] = dag:start(n) end
        local child = accident.fork()
        if child == 0 then
          runs, dag, engine = nil, nil, nil
          collectgarbage()
          os.exit(0, true)
        end
        for n = 1, 50 do check(runs[n]:wait().payload == n) end
        local status = accident.wait(child, 30)
        check(status == 0, tostring(status))
      end
      print "done"
    ]])
  end)
end)

describe("A host that unloads the library it has Lua in", function()
  local function unload(program)
    local path = os.tmpname()
    process.write(path, program)
    local ended = process.lua {
      process.built "guest.so", path, tostring(TIMES), program = process.built "unload",
      before = ("timeout -s KILL %d %s"):format(PATIENCE, NO_LEAKS),
    }
    os.remove(path)
    assert.equal("", ended.stderr)
    assert.equal(0, ended.status)
  end

  it("may do so again and again", function()
    unload [[
      local engine = require "tidemill".engine { workers = 2 }
      local scene = require "spec.fixtures.accident"
      assert(scene.works(scene.quick(engine)))
    ]]
  end)

  it("may do so with runs in flight", function()
    unload "all = { require 'spec.fixtures.accident'.open(2) }"
  end)
end)

describe("Without file descriptors", function()
  it("there is an engine or an error, and never an end", function()
    for limit = 4, 24 do
      ends({ times = 1 }, [[
        local ok, engine, err = pcall(tm.engine, { workers = 2 })
        if ok and engine then
          local dag, why = engine:dag(tm.dag {
            tm.transform "a" { timeout = 1000, retry = { max = 1, backoff = 0.001 }, run = function(n, ctx)
              if ctx.attempt == 1 then return nil, "again" end
              return n
            end },
          })
          check(dag, why)
          for _ = 1, 2 do
            local result, wrong = dag:run(7)
            check(result and result.payload == 7 or wrong.code == "internal", tostring(wrong))
          end
          engine:close()
        else
          check(not ok or err.code == "internal", tostring(err))
        end
        print "done"
      ]], ("prlimit --nofile=%d:%d"):format(limit, limit))
    end
  end)
end)

describe("Without standard streams", function()
  -- The engine has nothing in their place: using them fails as it would without it.
  local PROGRAM = [[
    local closed, engines = "%s", {}
    for i = 1, 2 do
      engines[i] = tm.engine { workers = 2 }
      check(engines[i]:pollfd() > 2)
      local dag = check(engines[i]:dag(tm.dag { tm.transform "it" { timeout = 1000, run = function(n) return n end } }))
      check(check(dag:start(i)):wait().payload == i)
    end
    io.stdout:write "done\n"
    for name, use in pairs {
      stdin = function() return io.stdin:read(1) end,
      stdout = function() return io.stdout:flush() end,
      stderr = function() return io.stderr:write "x" end,
    } do
      local bad_descriptor = 9
      check(not closed:find(name) or select(3, use()) == bad_descriptor, name)
    end
    for i = 1, 2 do engines[i]:close() end
    os.exit(7, true)
  ]]

  for _, case in ipairs {
    { "stdin", "<&-" }, { "stdout", ">&-" }, { "stderr", "2>&-" }, { "stdin stdout stderr", "<&- >&- 2>&-" },
  } do
    local closed, redirections = case[1], case[2]
    it("an engine works and takes no descriptor of theirs: " .. closed, function()
      ends({ times = SOME, status = 7, output = closed:find "stdout" and "" or "done\n" }, PROGRAM:format(closed),
        ("sh -c 'exec \"$0\" \"$@\" %s'"):format(redirections))
    end)
  end
end)

describe("Without threads", function()
  local as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs prlimit --nproc=%d:%d"

  -- Root has no such limit, and nobody may not be allowed to read what is tested.
  local function can_be_nobody()
    return happen("print 'done'", as_nobody:format(50, 50)).stdout == "done\n"
  end

  it("a run is done by its caller, or there is an error", function()
    if not can_be_nobody() then pending "needs root, setpriv, and files that everybody may read" end
    for limit = 1, 4 do
      ends({ times = 1 }, [[
        local engine = tm.engine { workers = 2 }
        local quick = scene.quick(engine)
        check(scene.works(quick))
        local run, err = quick:start(21)
        check(run and run:wait().payload == 42 or err.code == "internal", tostring(err))
        local timed = engine:dag(tm.dag { tm.transform "it" { timeout = 1000, run = function(n) return n end } })
        local result, why = timed:run(7)
        check(result and result.payload == 7 or why.code == "internal", tostring(why))
        check(scene.works(quick))
        engine:close()
        print "done"
      ]], as_nobody:format(limit, limit))
    end
  end)
end)
