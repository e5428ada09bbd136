/* SPDX-License-Identifier: MIT */
/* A stream: many runs of one program, a bounded number in flight, taken in the order they were
 * pushed or settled. One thread at a time uses it.
 *
 * What pays. A run of a few microseconds costs more to hand to another thread than to do. So
 * whoever takes from a stream does short runs itself, many in one sitting, and what is long goes to
 * the engine's threads the moment it is pushed. Which it is, is measured as it goes. */
#ifndef TI_STREAM_H
#define TI_STREAM_H

#include "engine/engine.h"

typedef struct ti_stream ti_stream;

typedef struct ti_stream_options {
    uint32_t most; /* in flight: pushed and not taken */
    bool ordered;
    bool background; /* runs begin when they are pushed, on the engine's threads, whether or not
                        anybody takes; and they signal (see ti_engine_pollfd) */
} ti_stream_options;

/* NULL: no memory. */
ti_stream *ti_stream_open(ti_program *program, const ti_stream_options *options);

/* Pushes a run of the program that has not started; one that was told to stop (see ti_run_refuse)
 * settles as cancelled, in its place. TI_OK: takes the reference. TI_E_QUEUE_FULL, TI_E_CLOSED:
 * does not. */
ti_code ti_stream_push(ti_stream *stream, ti_run *run);

uint32_t ti_stream_in_flight(const ti_stream *stream);

/* Takes the next run that has settled, with a reference; works and blocks meanwhile, but not longer
 * than `nanoseconds` if it does nothing but wait (UINT64_MAX: as long as it takes). NULL: that is
 * over, or nothing is in flight. */
ti_run *ti_stream_next(ti_stream *stream, uint64_t nanoseconds);

/* Cancels what is in flight, without waiting for it, and frees the stream. NULL is fine. */
void ti_stream_close(ti_stream *stream);

#endif
