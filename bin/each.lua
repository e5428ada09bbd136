-- SPDX-License-Identifier: MIT
-- tidemill run --each: a run for each line or record of the input, and a line of output for each run.
--
-- The thread waits in one place only, for whatever comes first: more input, a run that settled, a signal, the time to
-- tell how far it got. Before that, what was written meanwhile goes out. What is written while it has no time to wait
-- goes out in blocks.

local dkjson = require "dkjson"
local term = require "term"
local uv = require "luv"

local json = require "tidemill.json"
local printable = require "tidemill.printable"
local progress = require "tidemill.progress"
local records = require "tidemill.records"
local report = require "tidemill.report"
local standard = require "tidemill.standard"
local tm = require "tidemill"

local OK, FAILED, MISUSED = 0, 1, 2
local BLOCK = 65536         -- bytes that are read, and at least are written, at once where there are more
local MOST_COMPLAINTS = 100 -- that are held back
local GLANCE = 20e6         -- ns after which signals and the time are looked at, however much there is to do
local TICK = 200            -- ms from one look of the progress to the next

-- What may have nothing to read yet, unlike a file.
local BLOCKING = { pipe = true, tty = true, tcp = true, udp = true }

-- What a shell tells of a process that died by it.
local SIGNALS = { sigint = 130, sigpipe = 141, sigterm = 143 }

-- What was read -> a payload, or nil and an error.

local function decode(text)
  local ok, value, position, why = pcall(dkjson.decode, text, 1, tm.null, nil, nil)
  if not ok then
    why = "it is nested too deeply"
  elseif value ~= nil and text:find("%S", position) then
    why = ("something follows the value at column %d"):format(text:find("%S", position))
  elseif value ~= nil then
    return value
  end
  return nil, { code = "invalid_payload", message = "invalid JSON: " .. printable.line(why):gsub("line 1, ", "") }
end

-- `decode`: makes the payload; without it, the text is. `skips`: what is no item, though it counts.
local KINDS = {
  line = { noun = "line", split = records.lines },
  json = { noun = "line", decode = decode, split = records.lines, skips = "^%s*$" },
  record = {
    noun = "record",
    split = function(separator) return separator and records.ending_in(separator) or records.paragraphs() end,
  },
}

-- Results -> what is written of them.

local function payload_line(_, result)
  if not result then return "" end
  local payload = result.payload
  return (type(payload) == "string" and payload or json.encode(payload)) .. "\n"
end

local function text_line(number, result)
  return result and ("%d: %s\n"):format(number, report.brief(result)) or ""
end

local function json_line(number, result, err, noun)
  return json.item(noun, number, result or err.result, err) .. "\n"
end

local FORMATS = { payload = payload_line, text = text_line, json = json_line }

local Each = {}
Each.__index = Each

function Each:complain(format, ...)
  self.complaints[#self.complaints + 1] = "tidemill: " .. format:format(...) .. "\n"
end

-- Ends the loop; the first reason stays.
function Each:stop(status, signal)
  if not self.stopped then self.stopped, self.status, self.signal = true, status, signal end
end

-- Output.

function Each:write_all(bytes)
  local done, why, name = standard.write(bytes)
  if done then return end
  if name == "EPIPE" then return self:stop(SIGNALS.sigpipe, "sigpipe") end
  self:complain("cannot write to standard output: %s", why)
  self:stop(FAILED)
end

function Each:flush()
  if self.size > 0 then
    local bytes = table.concat(self.output)
    self.output, self.size = {}, 0
    self:write_all(bytes)
  end
  if #self.complaints > 0 then
    if self.bar then self.bar:erase() end
    io.stderr:write(table.concat(self.complaints))
    self.complaints = {}
  end
end

function Each:write(text)
  self.output[#self.output + 1] = text
  self.size = self.size + #text
  if self.size >= BLOCK then self:flush() end
end

local function failure_text(err)
  local text = printable.line(err.message)
  if err.processor then text = ("processor '%s': %s"):format(printable.line(err.processor), text) end
  local others = #(err.failures or {}) - 1
  return others > 0 and ("%s (and %d more failed)"):format(text, others) or text
end

function Each:tell_failure(number, err)
  self.failed = self.failed + 1
  self.complaints[#self.complaints + 1] = ("%s %d: %s\n"):format(self.noun, number, failure_text(err))
  if #self.complaints >= MOST_COMPLAINTS then self:flush() end
end

function Each:tell(number, result, err)
  self.done = self.done + 1
  self:write(self.format(number, result, err, self.noun))
  if err then self:tell_failure(number, err) end
end

-- What never became a run is told in its place.
function Each:tell_refused()
  if self.told == self.refusals then return end
  local first = self.refused[self.told + 1]
  while first and (self.unordered or first.after <= self.taken) do
    self.told = self.told + 1
    self.refused[self.told] = nil
    self:tell(first.number, nil, first.err)
    first = self.refused[self.told + 1]
  end
end

-- Input.

function Each:read()
  local block, why, name = uv.fs_read(self.input, BLOCK, -1)
  if name == "EAGAIN" then
    self.starved = true
    self.readable:start("r", function()
      self.starved = false
      self.readable:stop()
    end)
  elseif not block then
    self:complain("cannot read the input: %s: %s", self.name, standard.problem(why))
    self.trouble, self.ended = true, true
  elseif block == "" then
    self.ended = true
    return self.splitter:finish()
  else
    self.bytes = self.bytes + #block
    self.splitter:feed(block)
  end
end

-- The next record, or nil: none is there.
function Each:next()
  local record = self.splitter:next()
  while not record and not self.ended and not self.starved do record = self:read() or self.splitter:next() end
  if record then self.number = self.number + 1 end
  return record
end

function Each:in_flight()
  return self.pushed - self.taken + self.refusals - self.told
end

function Each:begin(record)
  local payload, err, pushed = record, nil, nil
  if self.decode then payload, err = self.decode(record) end
  if not err then pushed, err = self.stream:push(payload, self.number) end
  if pushed then
    self.pushed = self.pushed + 1
  else
    self.refusals = self.refusals + 1
    self.refused[self.refusals] = { after = self.pushed, number = self.number, err = err }
  end
end

-- True: something has begun.
function Each:fill()
  local before = self.number
  while self:has_room() do
    local record = self:next()
    if not record then break end
    if not (self.skips and record:find(self.skips)) then self:begin(record) end
  end
  return self.number > before
end

function Each:has_room()
  return not self.stopped and self:in_flight() < self.most
end

-- True: something has settled.
function Each:take()
  local before = self.done
  self:tell_refused()
  for number, result, err in self.stream:results(0) do
    self.taken = self.taken + 1
    self:tell(number, result, err)
    self:tell_refused()
    if self.stopped then break end
  end
  return self.done > before
end

-- The one place.

function Each:glance()
  local now = uv.hrtime()
  if now - self.glanced < GLANCE then return end
  self.glanced = now
  self:flush()
  uv.run "nowait"
end

-- Clears the descriptor before it looks for what settled: what settles later makes it readable again.
function Each:wait()
  self.engine:step()
  if self:take() then return end
  self:flush()
  if not self.stopped then uv.run "once" end
end

function Each:loop()
  while not self.stopped do
    local begun = self:fill()
    local settled = self:take()
    self:glance()
    if not begun and not settled then
      if self.ended and self:in_flight() == 0 then break end
      self:wait()
    end
  end
  self:flush()
end

-- How far it got.

function Each:seconds()
  return (uv.hrtime() - self.began) / 1e9
end

function Each:share()
  return math.min(self.bytes / self.total, 1)
end

function Each:show_progress()
  self.bar:show(progress.text {
    noun = self.noun, done = self.done, failed = self.failed, in_flight = self:in_flight(), seconds = self:seconds(),
    share = self.total and self:share(),
  })
end

function Each:summary()
  local seconds = self:seconds()
  local failed = self.failed > 0 and (", %s failed"):format(printable.integer(self.failed)) or ""
  return ("%s%s in %.2f s (%s/s)"):format(printable.count(self.done, self.noun), failed, seconds,
    printable.integer(self.done / math.max(seconds, 1e-9)))
end

function Each:conclude()
  if self.bar then self.bar:erase() end
  if self.signal == "sigpipe" then return end
  if self.signal then
    local share = self.total and (" (%d%% of the input was read)"):format(self:share() * 100) or ""
    self:complain("interrupted after %s%s; %s in flight %s cancelled", printable.count(self.done, self.noun), share,
      printable.integer(self:in_flight()), self:in_flight() == 1 and "was" or "were")
  elseif self.failed > 0 or self.talks then
    self:complain("%s", self:summary())
  end
  self:flush()
end

-- Setting up.

-- Of a pipe or terminal, one of our own: waiting for it makes it non-blocking, and others may share the first.
local function open_standard_input()
  local kind = (uv.fs_fstat(0) or {}).type
  local flags = uv.constants.O_RDONLY + uv.constants.O_NONBLOCK
  return (kind == "fifo" or kind == "char") and uv.fs_open("/dev/stdin", flags, 0) or 0
end

local function open_input(path)
  if path and path ~= "-" then return uv.fs_open(path, "r", 0) end
  return open_standard_input()
end

function Each:watch()
  if BLOCKING[uv.guess_handle(self.input) or "file"] then self.readable = uv.new_poll(self.input) end
  self.settled = uv.new_poll(self.engine:pollfd())
  self.settled:start("r", function() end)
  self.signals = {}
  for name in pairs(SIGNALS) do
    local handle = uv.new_signal()
    self.signals[name] = handle
    -- Once: the second one ends the process at once. A closed pipe is found by writing.
    if name == "sigpipe" then
      handle:start(name, function() end)
    else
      uv.signal_start_oneshot(handle, name, function() self:stop(SIGNALS[name], name) end)
    end
  end
  if self.bar then
    self.timer = uv.new_timer()
    self.timer:start(TICK, TICK, function() self:show_progress() end)
  end
end

local function new(options, engine, dag, stream, input)
  local kind, stat = KINDS[options.each], uv.fs_fstat(input) or {}
  local talks = not options.quiet and term.isatty(io.stderr)
  local file = options.input ~= "-" and options.input
  local typed = not file and term.isatty(io.stdin)
  return setmetatable({
    engine = engine, dag = dag, stream = stream, most = options.in_flight or 4 * engine.workers,
    unordered = options.unordered, noun = kind.noun, decode = kind.decode, skips = kind.skips,
    splitter = kind.split(options.separator), format = FORMATS[options.format],
    input = input, name = file or "standard input", total = stat.type == "file" and stat.size > 0 and stat.size or nil,
    output = {}, size = 0, complaints = {},
    number = 0, bytes = 0, pushed = 0, taken = 0, done = 0, failed = 0,
    refused = {}, refusals = 0, told = 0,
    began = uv.hrtime(), glanced = 0,
    talks = talks,
    typed = typed,
    bar = talks and not typed and not term.isatty(io.stdout) and progress.bar() or nil,
  }, Each)
end

local each = {}

-- The exit status, and the signal to die by, if that is why it ended.
function each.run(options, engine, dag)
  local input, why = open_input(options.input)
  if not input then
    io.stderr:write(("tidemill: cannot read the input: %s: %s\n"):format(options.input, standard.problem(why)))
    return MISUSED
  end
  local stream, err = dag:stream {
    max_in_flight = options.in_flight, ordered = not options.unordered, background = false,
    strategy = options.strategy, timeout = options.timeout,
  }
  if not stream then
    io.stderr:write("tidemill: ", tostring(err), "\n")
    return FAILED
  end
  local self = new(options, engine, dag, stream, input)
  if self.typed then self:complain("reading %ss from the terminal; end them with Ctrl-D", self.noun) end
  self:watch()
  self:loop()
  stream:close()
  self:conclude()
  for _, handle in pairs(self.signals) do handle:stop() end
  if self.signal then return self.status, self.signal end
  return self.stopped and self.status or self.trouble and MISUSED or self.failed > 0 and FAILED or OK
end

-- Dies as a program does that does not catch the signal, so that a shell stops its script, too.
function each.die(signal)
  io.stdout:flush()
  uv.kill(uv.os_getpid(), signal)
  return SIGNALS[signal]
end

return each
