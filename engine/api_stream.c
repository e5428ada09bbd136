/* SPDX-License-Identifier: MIT */
/* Streams of the C interface. */
#include <stdlib.h>

#include "engine/api.h"
#include "engine/stream.h"

struct tide_stream {
    ti_stream *stream;
    ti_program *program;
    uint32_t most;
};

tide_stream *tide_stream_open(tide_dag *dag, uint32_t most, unsigned flags, tide_error **error)
{
    if (!dag || !most) {
        ti_api_misuse(error, "a stream needs a dag and a bound from 1 on");
        return NULL;
    }
    tide_stream *self = calloc(1, sizeof *self);
    ti_program *program = ti_dag_in(dag);
    const ti_stream_options options = {
        .most = most,
        .ordered = !(flags & TIDE_STREAM_UNORDERED),
        .background = flags & TIDE_STREAM_BACKGROUND,
    };
    if (self && (self->stream = ti_stream_open(program, &options))) {
        self->program = ti_program_retain(program);
        self->most = most;
        return self;
    }
    free(self);
    ti_api_fail_code(error, TI_E_MEMORY_LIMIT);
    return NULL;
}

uint32_t tide_stream_in_flight(const tide_stream *stream)
{
    return stream ? ti_stream_in_flight(stream->stream) : 0;
}

uint32_t tide_stream_room(const tide_stream *stream)
{
    return stream ? stream->most - tide_stream_in_flight(stream) : 0;
}

bool tide_stream_push(tide_stream *stream, tide_value *payload, const tide_run_options *options,
                      tide_error **error)
{
    if (!stream || !tide_stream_room(stream)) {
        tide_value_release(payload);
        if (stream)
            ti_api_fail_code(error, TI_E_QUEUE_FULL);
        else
            ti_api_misuse(error, "tide_stream_push needs a stream");
        return false;
    }
    ti_run *run = ti_api_run_new(stream->program, ti_value_in(payload), options, error);
    if (!run)
        return false;
    ti_code code = ti_stream_push(stream->stream, run);
    if (!code)
        return true;
    ti_run_release(run);
    ti_api_fail_code(error, code);
    return false;
}

tide_result *tide_stream_next(tide_stream *stream, double seconds, tide_error **error)
{
    if (!stream || !tide_stream_in_flight(stream))
        return NULL;
    uint64_t patience = ti_api_patience(seconds);
    if (!ti_api_may_wait(stream->program->engine, "tide_stream_next", error))
        return NULL;
    ti_run *run = ti_stream_next(stream->stream, patience);
    if (!run && patience == UINT64_MAX)
        ti_api_fail_code(error, TI_E_CLOSED);
    else if (!run)
        ti_api_fail_format(error, TI_E_TIMEOUT, "no run has settled after %g s", seconds);
    return ti_result_out(run);
}

void tide_stream_close(tide_stream *stream)
{
    if (!stream)
        return;
    ti_stream_close(stream->stream);
    ti_program_release(stream->program);
    free(stream);
}
