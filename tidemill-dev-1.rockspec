-- SPDX-License-Identifier: MIT
rockspec_format = "3.0"
package = "tidemill"
version = "dev-1"
source = { url = "git+file://." } -- not published yet: `luarocks make` builds the tree it is in

description = {
  summary = "A Lua-scriptable, embeddable, reactive DAG engine",
  detailed = [[
    Declare a graph of processors in Lua; a C core runs it on all cores.
    Each processor starts the moment its last dependency completes, and the
    result never depends on timing or on the number of workers.
  ]],
  license = "MIT",
  labels = { "concurrency", "dag", "workflow", "threads" },
}

supported_platforms = { "unix" }

dependencies = {
  "lua >= 5.1, < 5.6",
  "argparse",
  "dkjson",
  "lua-term",
  "luv",
}

test_dependencies = { "busted" }
test = { type = "busted" }

external_dependencies = {
  LIBUV = { header = "uv.h", library = "uv" },
}

-- The one list of sources and modules: CMakeLists.txt reads it from here.
build = {
  type = "builtin",
  modules = {
    ["tidemill.core"] = {
      sources = {
        "engine/error.c",
        "engine/arena.c",
        "engine/value.c",
        "engine/suggest.c",
        "engine/dag.c",
        "engine/plan.c",
        "engine/executor_reactive.c",
        "engine/executor_work_queue.c",
        "engine/executor_level.c",
        "engine/limits.c",
        "engine/run.c",
        "engine/descriptors.c",
        "engine/settled.c",
        "engine/stream.c",
        "engine/worker.c",
        "engine/preempt.c",
        "engine/thread.c",
        "engine/pool.c",
        "engine/pool_shared.c",
        "engine/control.c",
        "engine/engine.c",
        "engine/frame.c",
        "engine/native.c",
        "engine/api_error.c",
        "engine/api_value.c",
        "engine/api_writer.c",
        "engine/api_engine.c",
        "engine/api_builder.c",
        "engine/api_task.c",
        "engine/api_run.c",
        "engine/api_result.c",
        "engine/api_stream.c",
        "bindings/convert.c",
        "bindings/heap.c",
        "bindings/memory.c",
        "bindings/pattern.c",
        "bindings/stop.c",
        "bindings/context.c",
        "bindings/state.c",
        "bindings/object.c",
        "bindings/bundle.c",
        "bindings/outcome.c",
        "bindings/result.c",
        "bindings/stream.c",
        "bindings/native.c",
        "bindings/embed.c",
        "bindings/module.c",
      },
      incdirs = { "$(LIBUV_INCDIR)", ".", "engine/include" },
      libdirs = { "$(LIBUV_LIBDIR)" },
      libraries = { "uv" },
    },
    ["tidemill"] = "bindings/tidemill/init.lua",
    ["tidemill.carry"] = "bindings/tidemill/carry.lua",
    ["tidemill.unpack"] = "bindings/tidemill/unpack.lua",
    ["tidemill.cli"] = "bin/cli.lua",
    ["tidemill.compare"] = "bin/compare.lua",
    ["tidemill.declare"] = "bindings/tidemill/declare.lua",
    ["tidemill.each"] = "bin/each.lua",
    ["tidemill.error"] = "bindings/tidemill/error.lua",
    ["tidemill.library.tidemill"] = "bindings/tidemill/library/tidemill.lua",
    ["tidemill.join"] = "bindings/tidemill/join.lua",
    ["tidemill.json"] = "bin/json.lua",
    ["tidemill.printable"] = "bin/printable.lua",
    ["tidemill.progress"] = "bin/progress.lua",
    ["tidemill.records"] = "bin/records.lua",
    ["tidemill.report"] = "bin/report.lua",
    ["tidemill.sandbox"] = "bindings/tidemill/sandbox.lua",
    ["tidemill.standard"] = "bin/standard.lua",
    ["tidemill.worker"] = "bindings/tidemill/worker.lua",
  },
  install = {
    bin = { tidemill = "bin/tidemill" },
  },
}
