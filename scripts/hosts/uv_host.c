/* SPDX-License-Identifier: MIT */
/* uv_host SCRIPT TEXT...
 * Runs a DAG script from a program that lives on a libuv loop: it has a processor in C, which the
 * script uses by name; starts a run for each text; and is told through a descriptor when one has
 * settled, while its own timer goes on.
 *
 *     cc -o uv_host uv_host.c $(pkg-config --cflags --libs tidemill-lua libuv)
 *     ./uv_host letters.dag.lua "ebb and flow" "high tide" */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tidemill_lua.h>
#include <uv.h>

typedef struct host {
    tide_engine *engine;
    uv_loop_t loop;
    uv_poll_t settled;
    uv_timer_t timer;
    unsigned ticks, failed;
} host;

static int complain(const char *what, tide_error *error)
{
    fprintf(stderr, "uv_host: %s: %s\n", what, tide_error_text(error));
    tide_error_free(error);
    return EXIT_FAILURE;
}

/* The native processor: how many bytes of the payload are among options.of. It has no state; runs
 * may call it on several threads at once. */
static void count(void *state, const tide_task *task, tide_answer *answer)
{
    size_t size, found = 0;
    const char *text = tide_value_string(tide_task_payload(task), &size);
    const tide_view *options = tide_value_view(tide_task_options(task));
    const char *of = tide_view_string(tide_view_field(options, "of"), NULL);
    (void)state;
    if (!text || !of) {
        answer->error = tide_error_new(TIDE_E_PROCESSOR_FAILED, "it needs a text and options.of");
        return;
    }
    for (size_t i = 0; i < size; i++)
        found += text[i] && strchr(of, text[i]);
    tide_writer *writer = tide_writer_new();
    tide_write_map(writer);
    tide_write_text(writer, "count");
    tide_write_integer(writer, (int64_t)found);
    tide_write_end(writer);
    answer->metadata = tide_writer_finish(writer, &answer->error);
}

static void show(host *self, const tide_result *result)
{
    const char *input = tide_result_tag(result);
    const char *text = tide_value_string(tide_result_payload(result), NULL);
    tide_error *error = tide_result_error(result);
    if (error) {
        complain(input, error);
        self->failed++;
    } else {
        printf("%s\n", text ? text : "(no text)");
    }
}

static void on_tick(uv_timer_t *timer)
{
    ((host *)timer->data)->ticks++;
}

/* Something has settled: takes all there is. With the last one, the loop has nothing to do. */
static void on_settled(uv_poll_t *poll, int status, int events)
{
    host *self = poll->data;
    tide_result *result;
    (void)status, (void)events;
    while ((result = tide_engine_next_settled(self->engine))) {
        show(self, result);
        tide_result_release(result);
    }
    if (tide_engine_pending(self->engine) == 0) {
        uv_close((uv_handle_t *)&self->settled, NULL);
        uv_close((uv_handle_t *)&self->timer, NULL);
    }
}

static void start_runs(host *self, tide_dag *dag, char **texts)
{
    for (; *texts; texts++) {
        tide_run_options options = TIDE_RUN_OPTIONS;
        tide_error *error = NULL;
        options.notify = true;
        options.tag = *texts;
        tide_run *run = tide_dag_start(dag, tide_text(*texts), &options, &error);
        if (!run)
            self->failed += complain(*texts, error) != 0;
        tide_run_release(run); /* it goes on, and comes back through the descriptor */
    }
}

static int run_loop(host *self, tide_dag *dag, char **texts)
{
    tide_error *error = NULL;
    int fd = tide_engine_pollfd(self->engine, &error);
    if (fd < 0)
        return complain("no descriptor", error);
    if (uv_loop_init(&self->loop) || uv_timer_init(&self->loop, &self->timer) ||
        uv_poll_init(&self->loop, &self->settled, fd)) {
        fprintf(stderr, "uv_host: no loop\n");
        return EXIT_FAILURE;
    }
    self->settled.data = self->timer.data = self;
    uv_timer_start(&self->timer, on_tick, 0, 1);
    uv_poll_start(&self->settled, UV_READABLE, on_settled);
    start_runs(self, dag, texts);
    if (tide_engine_pending(self->engine) == 0)
        on_settled(&self->settled, 0, 0);
    uv_run(&self->loop, UV_RUN_DEFAULT);
    uv_loop_close(&self->loop);
    printf("the timer ticked meanwhile: %s\n", self->ticks ? "yes" : "no");
    return self->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const tide_processor counter = {.size = sizeof counter, .call = count};
    host self = {0};
    tide_error *error = NULL;
    tide_dag *dag = NULL;
    int status;
    if (argc < 2) {
        fprintf(stderr, "usage: uv_host SCRIPT TEXT...\n");
        return EXIT_FAILURE;
    }
    self.engine = tide_lua_open(NULL, NULL, &error);
    if (self.engine && tide_engine_register(self.engine, "count", &counter, &error))
        dag = tide_lua_load(self.engine, argv[1], &error);
    status = dag ? run_loop(&self, dag, argv + 2) : complain("it cannot begin", error);
    tide_dag_release(dag);
    tide_engine_release(self.engine);
    return status;
}
