-- SPDX-License-Identifier: MIT
-- The tidemill command. Called with the arguments, it does its work and returns the exit status.
--
-- The result goes to standard output, everything else to standard error. A mistake of the user is told in one line,
-- never by a traceback of this file.

local standard = require "tidemill.standard"

local argparse = require "argparse"
local term = require "term"

local compare = require "tidemill.compare"
local json = require "tidemill.json"
local records = require "tidemill.records"
local report = require "tidemill.report"

local OK, FAILED, MISUSED = 0, 1, 2
local MOST_WORKERS, MOST_RUNS, MOST_SECONDS, MOST_IN_FLIGHT = 1024, 1e6, 1e9, 2 ^ 20

-- The first is the one that the others are compared with.
local STRATEGIES = { "reactive", "work_queue", "level" }

local SEPARATOR = package.config:sub(1, 1)

local INPUT_HELP = [[
Input:
   With --input the payload is that file's bytes, or standard input's for "-".
   Without it, standard input is read unless it is a terminal: then the DAG
   runs without a payload (nil).

]]

local STRATEGY_HELP = [[
Strategies:
   reactive starts a processor when its last dependency is done; work_queue too,
   the longest way to go first; level waits for all of a rank before the next.

]]

local EACH_HELP = [[
One run for each line or record:
   --each line     a payload is a line without its end (\n or \r\n)
   --each json     a line with one JSON value on it; objects and arrays become
                   tables, null becomes tidemill.null; empty lines are skipped
   --each record   what lies between empty lines, like a paragraph, or whatever
                   ends in --separator: \n \r \t \0 \\ \xHH are understood

   Input is read as it comes and results are written as they settle: in the
   order of the input, or with --unordered as soon as they are there. Formats:

   payload   (the default) the payload and a line end for each result; strings
             as they are, anything else as JSON
   text      its number, payload and metadata, shortened, on one line
   json      one object: line or record (its number), payload, metadata, ok,
             error, failures

   What fails is told on standard error ("line 17: processor 'x': why"), and the
   rest goes on. So it does where a line is no JSON. On a terminal, standard
   error also tells how far it got, unless --quiet. Ctrl-C cancels what is in
   flight and says how many were done; a second one ends it at once.

]]

local RUN_HELP = INPUT_HELP .. EACH_HELP .. STRATEGY_HELP .. [[
Formats:
   text      for people: payload, metadata, processors, shortened where long
   json      one object: payload, metadata, outcomes, failures, error, ok;
             bytes that are no UTF-8 become U+FFFD, nan and infinities null
   payload   the payload alone: a string's exact bytes, anything else as JSON,
             nothing for nil; nothing either if the run returned no result

   Errors go to standard error in every format.

Exit status:
   0   the run had no failure and its result was written
   1   the script did not load, the run failed or took too long, or writing
       failed; with --each, if any run did
   2   the command line is wrong, or the script or input can't be read
   130, 141, 143   it was interrupted, its output was closed, or it was told to
       terminate: it dies by SIGINT, SIGPIPE or SIGTERM

Examples:
   tidemill run report.dag.lua --input article.txt
   sort words.txt | tidemill run report.dag.lua --format payload > report.txt
   tidemill run report.dag.lua --input a.txt --format json | jq .metadata
   tail -f access.log | tidemill run line.dag.lua --each line
   tidemill run order.dag.lua --each json --format json < orders.ndjson > out
   find . -print0 | tidemill run f.dag.lua --each record --separator '\0']]

local COMPARE_HELP = STRATEGY_HELP .. INPUT_HELP .. [[
What it tells, after a run of each that does not count:
   median, fastest, slowest   how long a run took
   idle      the workers' time in which no callback ran; of a processor that
             was retried, only the last attempt counts
   at once   the most callbacks that ever ran at the same time
   results   equal, if payload, metadata, statuses and errors of every run are
             those of the first, under reactive; else what differs is told

Exit status:
   0   no run failed and all results are equal
   1   results differ, the script did not load, a run failed or took too long,
       or writing failed
   2   the command line is wrong, or the script or input can't be read

Examples:
   tidemill compare report.dag.lua --input article.txt
   tidemill compare report.dag.lua --input a.txt --workers 2 --runs 50]]

local function memory_size(text)
  local digits, unit = text:match "^(%d+)([KMG]?)$"
  local size = digits and tonumber(digits) * ({ [""] = 1, K = 2 ^ 10, M = 2 ^ 20, G = 2 ^ 30 })[unit]
  if size and size >= 1 and size <= 2 ^ 53 then return size end
  return nil, ("--memory-limit takes a size like 64M, not '%s'"):format(text)
end

local function whole_number(option, most)
  return function(text)
    local n = text:find "^%d+$" and tonumber(text)
    if n and n >= 1 and n <= most then return n end
    return nil, ("%s takes a whole number from 1 to %.0f, not '%s'"):format(option, most, text)
  end
end

-- The engine counts in nanoseconds.
local function parse_seconds(text)
  local n = text:find "^[%d.]+$" and tonumber(text)
  if n and n >= 1e-9 and n <= MOST_SECONDS then return n end
  return nil, ("--timeout takes a positive number of seconds up to %.0f, not '%s'"):format(MOST_SECONDS, text)
end

-- What ends the parsing early is raised as a table: { help = text }, { version = true } or
-- { misuse = message, usage = text }.

local function show_help(parser)
  return function() error({ help = parser:get_help() .. "\n" }, 0) end
end

local function show_version()
  error({ version = true }, 0)
end

local function parse_separator(text)
  local separator, why = records.separator(text)
  return separator, why and ("--separator '%s': %s"):format(text, why)
end

local function add_help_flag(parser)
  parser:flag "-h --help" :description "Show this help and exit." :action(show_help(parser))
end

-- A command that runs a script; what it has besides is added to what is returned.
local function add_command(parser, name, summary, help, formats)
  local command = parser:command(name, summary)
  command:add_help(false):epilog(help)
  command:argument "script" :args(1) :description "The Lua script that returns a DAG. It finds modules beside it."
  add_help_flag(command)
  command:option "--input" :argname "FILE"
    :description "Read the payload from FILE, or from standard input for \"-\"."
  command:option "--workers" :argname "N" :convert(whole_number("--workers", MOST_WORKERS))
    :description "Run on N workers, 1 to 1024. The default is one for each core."
  command:flag "--sandbox"
    :description "Keep the script from files, programs and the rest of the system."
  command:option "--memory-limit" :argname "SIZE" :convert(memory_size)
    :description "The most memory that a worker's Lua may use: bytes, or with K, M or G."
  command:option "--timeout" :argname "SECONDS" :convert(parse_seconds)
    :description "The longest that a run may take, whatever the script says."
  command:option "--format" :argname "FORMAT" :choices(formats)
    :description("How to print the result: " .. table.concat(formats, ", "):gsub(", (%w+)$", " or %1")
      .. (". The default is text%s."):format(name == "run" and "; with --each, payload" or ""))
  command:option "--color" :argname "WHEN" :choices { "auto", "always", "never" } :default "auto"
    :description "auto, always or never; auto is on a terminal, unless NO_COLOR is set."
  return command
end

-- What makes no sense alone.
local EACH_OPTIONS =
  { in_flight = "--in-flight", quiet = "--quiet", separator = "--separator", unordered = "--unordered" }

local function check_each(command)
  return function(options)
    local problem
    for key, name in pairs(EACH_OPTIONS) do
      if options[key] and not options.each then problem = name .. " needs --each" end
    end
    if options.separator and options.each ~= "record" then problem = "--separator needs --each record" end
    if problem then error({ misuse = problem, usage = command:get_usage() }, 0) end
  end
end

local function add_each(command)
  command:option "--each" :argname "KIND" :choices { "line", "record", "json" }
    :description "Run once for each line, record or JSON line of the input."
  command:option "--separator" :argname "STRING" :convert(parse_separator)
    :description "What ends a record. The default is one or more empty lines."
  command:option "--in-flight" :argname "N" :convert(whole_number("--in-flight", MOST_IN_FLIGHT))
    :description "The most runs at the same time. The default is 4 for each worker."
  command:flag "--unordered" :description "Write each result as soon as it is there."
  command:flag "--quiet" :description "Don't tell how far it got."
  command:action(check_each(command))
end

local function build_parser()
  local parser = argparse("tidemill", "Runs a payload through a DAG of processors that a Lua script declares.")
  parser:add_help(false):help_max_width(80):command_target "command"
  parser:epilog [[
Example:
   tidemill run scripts/report.dag.lua --input article.txt

"tidemill run --help" tells about inputs, formats and exit statuses,
"tidemill compare --help" about what is measured.]]
  add_help_flag(parser)
  parser:flag "--version" :description "Show the version and exit." :action(show_version)

  local run = add_command(parser, "run", "Run a DAG script once, or for each line of an input.", RUN_HELP,
    { "text", "json", "payload" })
  run:option "--strategy" :argname "STRATEGY" :choices(STRATEGIES)
    :description "reactive, work_queue or level, whatever the script says."
  add_each(run)
  add_command(parser, "compare", "Run a DAG script under every strategy and compare.", COMPARE_HELP, { "text", "json" })
    :option "--runs" :argname "N" :default "5" :convert(whole_number("--runs", MOST_RUNS))
    :description "Run N times under each strategy, 1 to 1000000."

  function parser.error(current, message)
    error({ misuse = message, usage = current:get_usage() }, 0)
  end
  return parser
end

local function complain(format, ...)
  io.stderr:write("tidemill: ", format:format(...), "\n")
end

-- True, or false after telling why not. What callbacks have printed comes first.
local function write(text)
  local done, why = io.stdout:flush()
  if done then done, why = standard.write(text) end
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

local function is_file(input)
  return input and input ~= "-"
end

-- The payload (nil is one, too), or nil and why it can't be read.
local function read_payload(input)
  if is_file(input) then return read_all(input) end
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

-- What goes to standard output. Under fail_fast there is no result, but the error has what had completed: that is shown
-- to people and told in JSON; as a payload it could be taken for the real one.
local function result_text(options, dag, result, err)
  local known = result or err.result
  if options.format == "json" then return json.report(dag.name, known, err) .. "\n" end
  if options.format == "payload" then return result and payload_text(result.payload) or "" end
  return known and report.result(dag, known, style_for(io.stdout, options.color), not result) or ""
end

-- Of the run that had it, the strategy, if there is more than one.
local function tell_failure(options, text, err, strategy)
  local gap = text ~= "" and options.format == "text" and term.isatty(io.stderr) and "\n" or ""
  io.stderr:write(gap, report.failures(err, style_for(io.stderr, options.color), strategy))
end

local function run(options, _, dag, payload)
  local result, err = dag:run(payload, { profile = true, strategy = options.strategy, timeout = options.timeout })
  local text = result_text(options, dag, result, err)
  local written = write(text)
  if err then tell_failure(options, text, err) end
  return written and not err and OK or FAILED
end

local function comparison_text(options, dag, comparison, failure)
  if options.format == "json" then
    return json.comparison(dag.name, comparison, failure and failure.error, failure and failure.strategy) .. "\n"
  end
  return comparison and report.comparison(dag, comparison, style_for(io.stdout, options.color)) or ""
end

local function run_and_compare(options, engine, dag, payload)
  local comparison, failure = compare(dag, payload,
    { strategies = STRATEGIES, runs = options.runs, workers = engine.workers, timeout = options.timeout })
  local text = comparison_text(options, dag, comparison, failure)
  local written = write(text)
  if failure then tell_failure(options, text, failure.error, failure.strategy) end
  return written and not failure and comparison.equal and OK or FAILED
end

-- For --each: the exit status, and the signal to die by, if that is why it ended.
local function run_each(options, engine, dag)
  return require "tidemill.each".run(options, engine, dag)
end

-- `perform` returns the exit status; `json` writes what it tells of a script that did not load.
local COMMANDS = {
  run = { perform = run, json = json.report },
  compare = { perform = run_and_compare, json = json.comparison },
}

local function load_failed(options, err)
  if options.format == "json" then write(COMMANDS[options.command].json(nil, nil, err) .. "\n") end
  io.stderr:write(report.load_error(options.script, err, style_for(io.stderr, options.color)))
  return FAILED
end

local function load_engine(options)
  local found, tm = pcall(require, "tidemill")
  if not found then return nil, tm end
  local made, engine, why = pcall(tm.engine, { workers = options.workers, sandbox = options.sandbox or false,
    memory_limit = options.memory_limit })
  if not made then return nil, engine end
  return engine, why
end

-- True and the payload, or false after telling what can't be read.
local function read_files(options)
  local _, why = read_all(options.script)
  if why then
    complain("cannot read the script: %s", why)
    return false
  end
  local payload
  if options.each then
    why = not is_file(options.input) and standard.why_closed(io.stdin)
    why = why and "standard input: " .. why
  else
    payload, why = read_payload(options.input)
  end
  if why then
    complain("cannot read the input: %s", why)
    return false
  end
  return true, payload
end

-- As write would find out, but before any work is done.
local function can_write()
  local why = standard.why_closed(io.stdout)
  if why then complain("cannot write to standard output: %s", why) end
  return not why
end

local function perform(options)
  standard.end_when_interrupted()
  options.format = options.format or options.each and "payload" or "text"
  local readable, payload = read_files(options)
  if not readable then return MISUSED end
  if options.each and not can_write() then return FAILED end
  see_modules_beside(options.script)
  local engine, why = load_engine(options)
  if not engine then
    complain("cannot start the engine: %s", tostring(why))
    return FAILED
  end
  local dag, err = engine:load(options.script)
  local status, signal
  if dag then
    status, signal = (options.each and run_each or COMMANDS[options.command].perform)(options, engine, dag, payload)
  else
    status = load_failed(options, err)
  end
  engine:close()
  return signal and require "tidemill.each".die(signal) or status
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
  if parsed then return perform(request) end
  if type(request) ~= "table" then error(request, 0) end
  if request.help then return write(request.help) and OK or FAILED end
  if request.version then return version() end
  return misused(request)
end
