-- SPDX-License-Identifier: MIT
-- The tidemill command. Called with the arguments, it does its work and returns the exit status.
--
-- The result goes to standard output, everything else to standard error. A mistake of the user is told in one line,
-- never by a traceback of this file.

local argparse = require "argparse"
local term = require "term"

local json = require "tidemill.json"
local report = require "tidemill.report"

local OK, FAILED, MISUSED = 0, 1, 2
local MOST_WORKERS = 1024

local SEPARATOR = package.config:sub(1, 1)

local RUN_HELP = [[
Input:
   With --input the payload is that file's bytes, or standard input's for "-".
   Without it, standard input is read unless it is a terminal: then the DAG
   runs without a payload (nil).

Formats:
   text      for people: payload, metadata, processors, shortened where long
   json      one object: payload, metadata, outcomes, failures, error, ok;
             bytes that are no UTF-8 become U+FFFD, nan and infinities null
   payload   the payload alone: a string's exact bytes, anything else as JSON,
             nothing for nil; nothing either if the run returned no result

   Errors go to standard error in every format.

Exit status:
   0   the run had no failure and its result was written
   1   the script did not load, the run failed, or writing did
   2   the command line is wrong, or the script or input can't be read

Examples:
   tidemill run report.dag.lua --input article.txt
   sort words.txt | tidemill run report.dag.lua --format payload > report.txt
   tidemill run report.dag.lua --input a.txt --format json | jq .metadata]]

local function parse_workers(text)
  local n = text:find "^%d+$" and tonumber(text)
  if n and n >= 1 and n <= MOST_WORKERS then return n end
  return nil, ("--workers takes a whole number from 1 to %d, not '%s'"):format(MOST_WORKERS, text)
end

-- What ends the parsing early is raised as a table: { help = text }, { version = true } or
-- { misuse = message, usage = text }.
local function build_parser()
  local function show_help(parser)
    return function() error({ help = parser:get_help() .. "\n" }, 0) end
  end

  local function show_version()
    error({ version = true }, 0)
  end

  local parser = argparse("tidemill", "Runs a payload through a DAG of processors that a Lua script declares.")
  parser:add_help(false):help_max_width(80)
  parser:epilog [[
Example:
   tidemill run scripts/report.dag.lua --input article.txt

"tidemill run --help" tells about inputs, formats and exit statuses.]]
  parser:flag "-h --help" :description "Show this help and exit." :action(show_help(parser))
  parser:flag "--version" :description "Show the version and exit." :action(show_version)

  local run = parser:command("run", "Run a DAG script once.")
  run:add_help(false):epilog(RUN_HELP)
  run:argument "script" :args(1) :description "The Lua script that returns a DAG. It finds modules beside it."
  run:flag "-h --help" :description "Show this help and exit." :action(show_help(run))
  run:option "--input" :argname "FILE" :description "Read the payload from FILE, or from standard input for \"-\"."
  run:option "--workers" :argname "N" :convert(parse_workers)
    :description "Run on N workers, 1 to 1024. The default is one for each core."
  run:option "--format" :argname "FORMAT" :choices { "text", "json", "payload" } :default "text"
    :description "How to print the result: text, json or payload."
  run:option "--color" :argname "WHEN" :choices { "auto", "always", "never" } :default "auto"
    :description "auto, always or never; auto is on a terminal, unless NO_COLOR is set."

  function parser.error(current, message)
    error({ misuse = message, usage = current:get_usage() }, 0)
  end
  return parser
end

local function complain(format, ...)
  io.stderr:write("tidemill: ", format:format(...), "\n")
end

-- True, or false after telling why not. A full disk shows only when the buffer is flushed.
local function write(text)
  local done, why = io.stdout:write(text)
  if done then done, why = io.stdout:flush() end
  if not done then complain("cannot write to standard output: %s", why) end
  return done and true or false
end

-- The bytes of a file, or nil and why they can't be read. Opening a directory succeeds, reading it does not.
local function read_all(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local bytes
  bytes, why = file:read "*a"
  file:close()
  return bytes, why and path .. ": " .. why
end

local function read_standard_input()
  local bytes, why = io.stdin:read "*a"
  return bytes, why and "standard input: " .. why
end

-- The payload (nil is one, too), or nil and why it can't be read.
local function read_payload(input)
  if input and input ~= "-" then return read_all(input) end
  if not term.isatty(io.stdin) then return read_standard_input() end
  if not input then
    complain "no --input, and standard input is a terminal: running without a payload"
    return nil
  end
  complain "reading the payload from the terminal; end it with Ctrl-D"
  return read_standard_input()
end

-- A script may require the modules beside it. Workers begin with the package.path of the state that makes the engine.
local function see_modules_beside(script)
  local directory = script:match("^(.*[/" .. SEPARATOR .. "])") or "." .. SEPARATOR
  package.path = directory .. "?.lua;" .. package.path
end

local function style_for(stream, color)
  local terminal = term.isatty(stream)
  local unwanted = (os.getenv "NO_COLOR" or "") ~= "" or os.getenv "TERM" == "dumb"
  return {
    color = color == "always" or color == "auto" and terminal and not unwanted,
    symbols = color == "always" or color == "auto" and terminal,
  }
end

local function payload_text(payload)
  if payload == nil then return "" end
  return type(payload) == "string" and payload or json.encode(payload) .. "\n"
end

local function load_failed(options, err)
  if options.format == "json" then write(json.report(nil, nil, err) .. "\n") end
  io.stderr:write(report.load_error(options.script, err, style_for(io.stderr, options.color)))
  return FAILED
end

-- What goes to standard output. Under fail_fast there is no result, but the error has what had completed: that is shown
-- to people and told in JSON; as a payload it could be taken for the real one.
local function result_text(options, dag, result, err)
  local known = result or err.result
  if options.format == "json" then return json.report(dag.name, known, err) .. "\n" end
  if options.format == "payload" then return result and payload_text(result.payload) or "" end
  return known and report.result(dag, known, style_for(io.stdout, options.color), not result) or ""
end

local function run_dag(options, dag, payload)
  local result, err = dag:run(payload, { profile = true })
  local text = result_text(options, dag, result, err)
  local written = write(text)
  if err then
    local gap = text ~= "" and options.format == "text" and term.isatty(io.stderr) and "\n" or ""
    io.stderr:write(gap, report.failures(err, style_for(io.stderr, options.color)))
  end
  return written and not err and OK or FAILED
end

local function load_engine(workers)
  local found, tm = pcall(require, "tidemill")
  if not found then return nil, tm end
  local made, engine = pcall(tm.engine, { workers = workers })
  if not made then return nil, engine end
  return engine
end

local function run(options)
  local _, why = read_all(options.script)
  if why then
    complain("cannot read the script: %s", why)
    return MISUSED
  end
  local payload
  payload, why = read_payload(options.input)
  if why then
    complain("cannot read the input: %s", why)
    return MISUSED
  end

  see_modules_beside(options.script)
  local engine
  engine, why = load_engine(options.workers)
  if not engine then
    complain("cannot start the engine: %s", tostring(why))
    return FAILED
  end
  local dag, err = engine:load(options.script)
  local status = dag and run_dag(options, dag, payload) or load_failed(options, err)
  engine:close()
  return status
end

local function version()
  local found, tm = pcall(require, "tidemill")
  if not found then
    complain("cannot load the engine: %s", tostring(tm))
    return FAILED
  end
  return write("tidemill " .. tm.version .. "\n") and OK or FAILED
end

local function misused(request)
  io.stderr:write(request.usage, "\n\n")
  complain("%s", request.misuse)
  return MISUSED
end

return function(arguments)
  local parser = build_parser()
  local parsed, request = pcall(parser.parse, parser, arguments)
  if parsed then return run(request) end
  if type(request) ~= "table" then error(request, 0) end
  if request.help then return write(request.help) and OK or FAILED end
  if request.version then return version() end
  return misused(request)
end
