// SPDX-License-Identifier: MIT
// A peer: oneTBB's flow graph with a Lua state per thread, as one would write it by hand.
//
// The graph is built once and stays warm. Each thread that may run (a slot of the arena) has its
// own state; a callback is a reference into its registry. A payload is a std::string that belongs
// to the node that made it, and keeps its memory from run to run; a node that returns the very
// string it was given hands on the other's. Nothing is locked and nothing but Lua allocates.
extern "C" {
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
}

#include <oneapi/tbb/flow_graph.h>
#include <oneapi/tbb/task_arena.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace flow = oneapi::tbb::flow;

namespace
{

using Task = flow::continue_node<flow::continue_msg>;

// A cache line, but for the task.
struct alignas(64) Node {
    const std::string *out = nullptr; // of `source`, or `own`
    std::string own;
    int source = -1; // the dependency with the greatest (rank, index)
    int rank = 0;
    int callback = LUA_NOREF;
    std::unique_ptr<Task> task;
};

struct Graph {
    explicit Graph(int workers, size_t size) : arena(workers), nodes(size)
    {
        arena.execute([this] { graph = std::make_unique<flow::graph>(); });
        for (int i = 0; i < workers; i++) {
            states.push_back(luaL_newstate());
            luaL_openlibs(states.back());
        }
    }

    ~Graph()
    {
        arena.execute([this] {
            for (Node &node : nodes)
                node.task.reset();
            graph.reset();
        });
        for (lua_State *L : states)
            lua_close(L);
    }

    // One reference per node, as if each had its own callback; the same number in all states.
    bool load(const char *source)
    {
        for (lua_State *L : states) {
            if (luaL_loadstring(L, source) || lua_pcall(L, 0, 1, 0))
                return false;
            for (Node &node : nodes) {
                lua_pushvalue(L, -1);
                node.callback = luaL_ref(L, LUA_REGISTRYINDEX);
            }
        }
        return true;
    }

    void call(Node &node)
    {
        lua_State *L = states[oneapi::tbb::this_task_arena::current_thread_index()];
        const std::string &in = node.source < 0 ? input : *nodes[node.source].out;
        lua_rawgeti(L, LUA_REGISTRYINDEX, node.callback);
        lua_pushlstring(L, in.data(), in.size());
        const char *pushed = lua_tostring(L, -1);
        size_t size = 0;
        if (lua_pcall(L, 1, 1, 0) && !failed.exchange(true))
            fprintf(stderr, "oneTBB's callback: %s\n", lua_tostring(L, -1));
        const char *answer = lua_tolstring(L, -1, &size);
        if (answer == pushed) {
            node.out = &in;
        } else {
            node.own.assign(answer, size);
            node.out = &node.own;
        }
        lua_pop(L, 1);
    }

    void add(int index, bool empty)
    {
        Node &node = nodes[index];
        arena.execute([&] {
            if (empty)
                node.task =
                    std::make_unique<Task>(*graph, [](const flow::continue_msg &m) { return m; });
            else
                node.task =
                    std::make_unique<Task>(*graph, [this, &node](const flow::continue_msg &m) {
                        call(node);
                        return m;
                    });
        });
    }

    void depend(int index, int on)
    {
        Node &node = nodes[index];
        flow::make_edge(*nodes[on].task, *node.task);
        if (node.source < 0 ||
            nodes[on].rank >= nodes[node.source].rank) // ascending: the later one wins
            node.source = on;
        node.rank = nodes[node.source].rank + 1;
    }

    void run(const char *payload, size_t size)
    {
        input.assign(payload, size);
        arena.execute([this] {
            for (int entry : entries)
                nodes[entry].task->try_put(flow::continue_msg());
            graph->wait_for_all();
        });
    }

    oneapi::tbb::task_arena arena;
    std::unique_ptr<flow::graph> graph;
    std::vector<Node> nodes;
    std::vector<int> entries;
    std::vector<lua_State *> states; // by slot of the arena: one thread at a time has it
    std::string input;
    std::atomic<bool> failed{false};
};

Graph *check(lua_State *L)
{
    return *static_cast<Graph **>(luaL_checkudata(L, 1, "bench.tbb"));
}

// graph:run(payload)
int run(lua_State *L)
{
    Graph *graph = check(L);
    size_t size = 0;
    const char *payload = luaL_checklstring(L, 2, &size);
    graph->run(payload, size);
    if (graph->failed)
        return luaL_error(L, "a callback failed");
    return 0;
}

// graph:payload() -> what the last node made in the last run
int payload(lua_State *L)
{
    const std::string &out = *check(L)->nodes.back().out;
    lua_pushlstring(L, out.data(), out.size());
    return 1;
}

int close(lua_State *L)
{
    Graph **graph = static_cast<Graph **>(luaL_checkudata(L, 1, "bench.tbb"));
    delete *graph;
    *graph = nullptr;
    return 0;
}

size_t length(lua_State *L, int index)
{
#if LUA_VERSION_NUM >= 502
    return lua_rawlen(L, index);
#else
    return lua_objlen(L, index);
#endif
}

void wire(lua_State *L, Graph *graph, int shape, bool empty)
{
    for (int i = 0; i < static_cast<int>(graph->nodes.size()); i++) {
        graph->add(i, empty);
        lua_rawgeti(L, shape, i + 1);
        int count = static_cast<int>(length(L, lua_gettop(L)));
        if (count == 0)
            graph->entries.push_back(i);
        for (int k = 1; k <= count; k++) {
            lua_rawgeti(L, -1, k);
            graph->depend(i, static_cast<int>(lua_tointeger(L, -1)) - 1);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
}

// graph(shape, source, workers): the tasks are empty where source is nil
int open(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *source = luaL_optstring(L, 2, nullptr);
    int workers = static_cast<int>(luaL_checkinteger(L, 3));
    Graph **graph = static_cast<Graph **>(lua_newuserdata(L, sizeof *graph));
    *graph = new Graph(workers, length(L, 1));
    luaL_getmetatable(L, "bench.tbb");
    lua_setmetatable(L, -2);
    if (source && !(*graph)->load(source))
        return luaL_error(L, "a callback does not load");
    wire(L, *graph, 1, !source);
    return 1;
}

} // namespace

extern "C" __attribute__((visibility("default"))) int luaopen_bench_tbb(lua_State *L)
{
    luaL_newmetatable(L, "bench.tbb");
    lua_pushcfunction(L, run);
    lua_setfield(L, -2, "run");
    lua_pushcfunction(L, payload);
    lua_setfield(L, -2, "payload");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "close");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__gc");
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, open);
    return 1;
}
