---@meta tidemill
-- SPDX-License-Identifier: MIT
-- The public interface of the module `tidemill`, for editors (LuaCATS). Nothing loads this file.
-- luacheck: ignore 212 241

---A value that travels between Lua states: nil, a boolean, a number, a string, `tidemill.null`, or a table of these
---whose keys are strings, numbers or booleans, without a metatable, a cycle, or more than 100 levels.
---@alias tidemill.Value any

---@alias tidemill.Intent "transform" | "analyze"
---@alias tidemill.FailureStrategy "fail_fast" | "continue_on_error" | "best_effort"
---@alias tidemill.Strategy "reactive" | "work_queue" | "level"
---@alias tidemill.Status "completed" | "failed" | "skipped" | "cancelled"
---@alias tidemill.RunStatus "running" | "completed" | "failed" | "cancelled"

---@alias tidemill.Code
---| "invalid_dag"       # the DAG has problems, or its script cannot be loaded
---| "processor_failed"  # a callback returned `nil, why` or raised
---| "dependency_failed" # a processor was skipped
---| "timeout"           # a call, a run or `run:wait` took too long
---| "cancelled"         # the run was cancelled, or another processor failed first
---| "invalid_response"  # a callback returned what its intent does not allow
---| "invalid_payload"   # a value cannot travel, or input metadata has the name of a processor
---| "memory_limit"      # not enough memory
---| "queue_full"        # reserved
---| "closed"            # the engine is closed
---| "internal"          # no thread or no Lua state could be made

---A transform's callback: returns the next payload and, if it likes, a table of metadata; or `nil, why`.
---@alias tidemill.TransformCallback fun(payload: tidemill.Value, ctx: tidemill.Context): any, (table | string)?

---An analyze's callback: returns a table of metadata, or nothing; or `nil, why`.
---@alias tidemill.AnalyzeCallback fun(payload: tidemill.Value, ctx: tidemill.Context): table?, string?

---@class tidemill.ProcessorFields
---@field depends_on? string | string[] what must end first; none: an entry point
---@field payload_from? string one of `depends_on`: whose payload to take, in place of the canonical rule
---@field when? fun(metadata: table<string, any>, payload: tidemill.Value): boolean? false or nil: it is skipped
---@field retry? tidemill.Retry
---@field timeout? number seconds, for one attempt
---@field uses? string | string[] limits that it needs a permit of
---@field options? table plain values, for `ctx.options` and `setup`
---@field setup? fun(options: table?): any, string? makes `ctx.state`, once per worker, when the DAG is loaded

---@class tidemill.Retry
---@field max integer attempts after the first
---@field backoff? number seconds before the second attempt; default 0
---@field factor? number each wait is this many times the one before; default 2
---@field max_backoff? number seconds
---@field jitter? number 0 to 1: up to this part of a wait is taken off at random; default 0
---@field seed? number of that random number; default 0
---@field when? fun(err: tidemill.Error): boolean? false or nil: another attempt is pointless

---@class tidemill.TransformFields: tidemill.ProcessorFields
---@field run tidemill.TransformCallback

---@class tidemill.AnalyzeFields: tidemill.ProcessorFields
---@field run tidemill.AnalyzeCallback

---A declared processor, for `tidemill.dag`.
---@class tidemill.Processor

---@class tidemill.PendingTransform: tidemill.Processor
---@overload fun(body: tidemill.TransformFields | tidemill.TransformCallback): tidemill.Processor

---@class tidemill.PendingAnalyze: tidemill.Processor
---@overload fun(body: tidemill.AnalyzeFields | tidemill.AnalyzeCallback): tidemill.Processor

---A declared DAG, for `engine:dag` or as what a script returns.
---@class tidemill.Declaration

---@class tidemill.DagFields
---@field name? string
---@field strategy? tidemill.Strategy default "reactive"
---@field failure_strategy? tidemill.FailureStrategy default "fail_fast"
---@field max_concurrency? integer most callbacks of one run at the same time
---@field timeout? number seconds, for a whole run
---@field limits? table<string, integer> permits by name, shared by all runs
---@field profile? boolean measure every run, unless it says otherwise
---@field [integer] tidemill.Processor

---What a callback may ask about the call. Good until the callback returns; cannot be changed.
---@class tidemill.Context
---@field id string the processor's id
---@field options table? its options; read only
---@field state any what its `setup` returned in this worker
---@field attempt integer
---@field metadata table<string, any> of all ancestors, by id, and the run's input metadata at the top level; a copy
---@field dependencies table<string, tidemill.Dependency> the direct dependencies, by id; a copy
---@field cancelled fun(): boolean true once this call was told to stop
---@field remaining fun(): number? seconds until the deadline of this call or its run

---@class tidemill.Dependency
---@field status "completed" | "skipped" | "failed" skipped: by its condition; failed: under best_effort only
---@field payload tidemill.Value what it passed on
---@field metadata table?
---@field error tidemill.Error?

---@class tidemill.Error
---@field code tidemill.Code
---@field message string
---@field processor string? where it is of one processor
---@field traceback string? where Lua raised
---@field cause table? the table that was raised, if it can travel
---@field attempt integer? of a processor that failed
---@field root string? of a skipped processor: the id that failed
---@field failures tidemill.Error[]? of a run: all failures, by (rank, declaration)
---@field result tidemill.Result? of a run: what had completed
---@field problems string[]? of `invalid_dag`

---@class tidemill.Outcome
---@field status tidemill.Status
---@field attempts integer 0: it never ran
---@field payload tidemill.Value what a completed transform returned
---@field metadata table?
---@field error tidemill.Error?
---@field errors tidemill.Error[]? of all attempts that failed, where there may be several
---@field started number? seconds since the run began; only when profiled
---@field finished number? only when profiled
---@field worker integer? counted from 1; only when profiled

---A settled run. Its fields are made at the first look. Keeps all values of the run alive; `<close>` lets go of them.
---@class tidemill.Result
---@field payload tidemill.Value
---@field ok boolean no processor failed
---@field metadata table<string, any> by processor id, and the input metadata
---@field outcomes table<string, tidemill.Outcome> by processor id
---@field failures tidemill.Error[] of failed processors, by (rank, declaration)
---@field duration number? seconds; only when profiled

---@class tidemill.RunOptions
---@field metadata? table<string, any> input metadata; no key may be a processor's id
---@field profile? boolean
---@field strategy? tidemill.Strategy
---@field timeout? number seconds

---@alias tidemill.Callback fun(err: tidemill.Error?, result: tidemill.Result?)

---A run that was started. Goes on when the handle is collected; a `<close>` variable cancels it.
---@class tidemill.Run
---@field status tidemill.RunStatus
local Run = {}

---Blocks until the run has settled, or for so many seconds. May be called again.
---@param seconds? number
---@return tidemill.Result? result nil under fail_fast with a failure, when cancelled, and when it took too long
---@return tidemill.Error? err
function Run:wait(seconds) end

---Tells the run to stop: no callback of it starts from now on. The first reason stays.
---@param reason? string
---@return boolean in_flight
function Run:cancel(reason) end

---@class tidemill.DagProcessor
---@field id string
---@field intent tidemill.Intent
---@field depends_on string[]
---@field rank integer length of the longest path to it

---A DAG that an engine can run.
---@class tidemill.Dag
---@field name string?
---@field strategy tidemill.Strategy
---@field failure_strategy tidemill.FailureStrategy
---@field processors tidemill.DagProcessor[] in the order of declaration
local Dag = {}

---Runs to the end. Blocks; the calling thread works too.
---@param payload? tidemill.Value
---@param options? tidemill.RunOptions
---@return tidemill.Result? result nil under fail_fast with a failure, and where nothing was run
---@return tidemill.Error? err
function Dag:run(payload, options) end

---Starts a run and returns at once. The callback is called by `engine:step` once the run has settled.
---@param payload? tidemill.Value
---@param options? tidemill.RunOptions
---@param callback? tidemill.Callback
---@return tidemill.Run? run
---@return tidemill.Error? err
---@overload fun(self, payload: tidemill.Value, callback: tidemill.Callback): tidemill.Run?, tidemill.Error?
function Dag:start(payload, options, callback) end

---@class tidemill.StreamOptions: tidemill.RunOptions
---@field max_in_flight? integer pushed or pulled and not handed back; default: 4 for each worker
---@field ordered? boolean results come in the order of their inputs; default: true

---Many runs, a bounded number in flight. Calling it is the iterator of a generic `for`; a `<close>` variable, or
---collecting it, closes it.
---@class tidemill.Stream
---@operator call: tidemill.Value, tidemill.Result?, tidemill.Error?
local Stream = {}

---Starts a run on the engine's threads.
---@param payload tidemill.Value
---@return boolean? pushed nil with `queue_full` when `max_in_flight` are in flight
---@return tidemill.Error? err
function Stream:push(payload) end

---An iterator over what has been pushed, as it settles. Ends when nothing is in flight, or nothing settles for so many
---seconds; 0: does not wait.
---@param seconds? number
---@return fun(): tidemill.Value, tidemill.Result?, tidemill.Error?
function Stream:results(seconds) end

---@return integer count pushed or pulled, and not handed back
function Stream:in_flight() end

---Cancels what is in flight. May be called again.
function Stream:close() end

---Runs whatever a source returns, call after call, until that is nil: for input, result, err in dag:stream(source) do.
---@param source fun(): tidemill.Value
---@param options? tidemill.StreamOptions
---@return tidemill.Stream? stream
---@return tidemill.Error? err
---@overload fun(self, options?: tidemill.StreamOptions): tidemill.Stream?, tidemill.Error?
function Dag:stream(source, options) end

---Runs every payload of a list.
---@param list tidemill.Value[]
---@param options? tidemill.StreamOptions
---@return (tidemill.Result | false)[]? results false where there is none
---@return table<integer, tidemill.Error>? errors by index; nil: there are none
function Dag:map(list, options) end

---Workers, each with a Lua state of its own.
---@class tidemill.Engine
---@field workers integer
local Engine = {}

---Loads a DAG script into every worker.
---@param path string
---@return tidemill.Dag? dag
---@return tidemill.Error? err
function Engine:load(path) end

---Carries an inline DAG into every worker.
---@param declaration tidemill.Declaration
---@return tidemill.Dag? dag
---@return tidemill.Error? err
function Engine:dag(declaration) end

---Calls back for runs that have settled. Does not wait.
---@return integer count how many
function Engine:step() end

---A descriptor that is readable when a run has settled that `step` is to call back for, or that was pushed into a
---stream. Poll it; never read or close it.
---@return integer? fd
---@return tidemill.Error? err
function Engine:pollfd() end

---`pollfd`, for luasocket.
---@return integer? fd
---@return tidemill.Error? err
function Engine:getfd() end

---For luasocket.
---@return boolean dirty
function Engine:dirty() end

---For cqueues.
---@return string events
function Engine:events() end

---For cqueues.
---@return nil
function Engine:timeout() end

---Runs that `step` is yet to call back for, and those pushed into streams and not taken.
---@return integer count
function Engine:pending() end

---Cancels what is in flight, waits for it, and ends the threads. May be called again.
function Engine:close() end

---@class tidemill.EngineOptions
---@field workers? integer 1 to 1024; default: one for each core
---@field preempt? "signal" | "hook" | false how callbacks that run are stopped
---@field kill_grace? number seconds until a callback that does not stop is given up; default: 1; not with a shared pool
---@field pool? "private" | "shared" whether it has threads of its own, or borrows libuv's; default: "private"

---@class tidemill
---@field version string
---@field null lightuserdata a null that can be stored in a table; equals lua-cjson's
local tidemill = {}

---A processor whose return value is the next payload: `transform("id", fn)`, `transform("id", { run = fn, ... })` or
---`transform "id" { run = fn, ... }`.
---@param id string
---@param body tidemill.TransformFields | tidemill.TransformCallback
---@return tidemill.Processor
---@overload fun(id: string): tidemill.PendingTransform
function tidemill.transform(id, body) end

---A processor that contributes metadata and cannot change the payload; declared as `transform` is.
---@param id string
---@param body tidemill.AnalyzeFields | tidemill.AnalyzeCallback
---@return tidemill.Processor
---@overload fun(id: string): tidemill.PendingAnalyze
function tidemill.analyze(id, body) end

---A DAG: options by name, processors in the array part. Never fails on content: see `engine:load` and `engine:dag`.
---@param fields tidemill.DagFields
---@return tidemill.Declaration
function tidemill.dag(fields) end

---An engine. Raises for a bad option.
---@param options? tidemill.EngineOptions
---@return tidemill.Engine? engine nil when a Lua state cannot be made
---@return tidemill.Error? err
function tidemill.engine(options) end

return tidemill
