/* SPDX-License-Identifier: MIT */
#include "engine/stream.h"

#include <stdlib.h>
#include <string.h>

#include "engine/clock.h"

/* So much work the taker does itself in one sitting: waking a thread costs up to half of it. */
#define OWN_NS 50000u

/* Runs are shared only if they take longer: handing them over costs up to half of it. */
#define SHARE_NS 3000u

/* While runs are shared, one of so many is done here, if there is a seat, to see what it costs. */
#define PROBE_AFTER 32

/* A taker who has other things to wait for does runs itself only if the last one seen took less. */
#define PATIENCE_NS 10000000u

/* All is the user's thread's, but for the list. */
struct ti_stream {
    ti_program *program; /* [const] a reference */
    ti_engine *engine;   /* [const] the program's */
    ti_stream_options options;
    ti_run *first, *last;    /* in flight, in the order they were pushed */
    ti_run *unsent;          /* the first of those that have not begun: they are the newest */
    uint32_t count, unsents; /* how many */
    uint64_t cost;           /* ns that a run takes; 0: not known yet */
    uint64_t seen;           /* ns from the start to the end of the last run that was timed */
    uint32_t shared;         /* runs since that was measured */
    ti_settled settled;      /* [lock:engine] if not ordered: those in flight that have settled */
};

ti_stream *ti_stream_open(ti_program *program, const ti_stream_options *options)
{
    ti_stream *stream = malloc(sizeof *stream);
    if (stream)
        *stream = (ti_stream){
            .program = ti_program_retain(program),
            .engine = program->engine,
            .options = *options,
            .seen = UINT64_MAX,
        };
    return stream;
}

uint32_t ti_stream_in_flight(const ti_stream *stream)
{
    return stream->count;
}

static ti_code append(ti_stream *stream, ti_run *run)
{
    if (stream->count == stream->options.most)
        return TI_E_QUEUE_FULL;
    if (ti_engine_closed(stream->engine))
        return TI_E_CLOSED;
    run->group = stream;
    run->signals = stream->options.background || stream->options.signals;
    run->listed = !stream->options.ordered;
    run->list = &stream->settled;
    run->before = stream->last;
    run->after = NULL;
    if (stream->last)
        stream->last->after = run;
    else
        stream->first = run;
    stream->last = run;
    stream->count++;
    if (run->signals)
        ti_add_sc(&stream->engine->pending, 1);
    return TI_OK;
}

static void remove_run(ti_stream *stream, ti_run *run)
{
    if (run->before)
        run->before->after = run->after;
    else
        stream->first = run->after;
    if (run->after)
        run->after->before = run->before;
    else
        stream->last = run->before;
    stream->count--;
    if (run->signals)
        ti_sub_sc(&stream->engine->pending, 1);
}

static void refuse(ti_stream *stream, ti_run *run, const char *why)
{
    ti_store_sc(&run->reason, ti_value_string(why, strlen(why)));
    ti_engine_refuse(stream->engine, run);
}

/* The oldest run that has not begun; NULL: there is none, or it could not be put in flight, which
 * is its outcome. */
static ti_run *launch_next(ti_stream *stream)
{
    ti_run *run = stream->unsent;
    stream->unsent = run->after;
    stream->unsents--;
    if (ti_load_relaxed(&run->stop)) {
        ti_engine_refuse(stream->engine, run);
        return NULL;
    }
    ti_code code = ti_engine_launch(stream->engine, run);
    if (!code)
        return run;
    refuse(stream, run, code == TI_E_CLOSED ? "the engine is closed" : ti_code_text(code));
    return NULL;
}

/* Puts the oldest `count` that have not begun in flight. Returns their entry points, the oldest
 * run's last, since it is to run first. */
static ti_node *launch(ti_stream *stream, uint32_t count)
{
    ti_node *chain = NULL;
    while (count-- > 0) {
        ti_run *run = launch_next(stream);
        if (run)
            chain = ti_run_entries(run, chain);
    }
    return chain;
}

/* Does the oldest `count` that have not begun on this thread, and measures what one takes. False:
 * there is no seat. */
static bool do_here(ti_stream *stream, uint32_t count)
{
    ti_worker *worker = ti_engine_sit(stream->engine, 0);
    if (!worker)
        return false;
    uint64_t began = ti_now();
    worker->guest = stream;
    ti_node *chain = launch(stream, count);
    if (chain) {
        ti_worker_enter(worker, chain);
        ti_worker_drain(worker);
    }
    ti_engine_leave(stream->engine, worker);
    stream->cost = (ti_now() - began) / count + 1;
    stream->shared = 0;
    return true;
}

/* So many runs take longer than that. */
static bool exceeds(const ti_stream *stream, uint32_t count, uint64_t nanoseconds)
{
    return count && stream->cost > nanoseconds / count;
}

/* True: waking threads for them pays. */
static bool shares(const ti_stream *stream)
{
    uint64_t least = stream->engine->workers > 1 ? SHARE_NS : OWN_NS;
    return stream->options.most > 1 && stream->cost > least &&
           exceeds(stream, stream->options.most, OWN_NS);
}

/* A thread of the engine can be given up if a callback does not stop, the caller's can't. */
static bool keeps_off(const ti_stream *stream)
{
    return stream->options.background || (stream->options.signals && stream->seen > PATIENCE_NS) ||
           (stream->engine->stubborn &&
            (stream->unsent->timeout || stream->program->plan->timeouts));
}

static uint32_t least(uint64_t a, uint32_t b)
{
    return a < b ? (uint32_t)a : b;
}

/* Begins what has not begun: here, but no more than OWN_NS of it at a time, or on the engine's
 * threads. With something unsent. */
static void begin(ti_stream *stream)
{
    bool here = !keeps_off(stream);
    if (here && (stream->cost == 0 || stream->shared >= PROBE_AFTER) && do_here(stream, 1) &&
        !stream->unsents)
        return;
    if (here && !shares(stream) &&
        do_here(stream, least(OWN_NS / (stream->cost + 1) + 1, stream->unsents)))
        return;
    if (!ti_pool_ensure(&stream->engine->pool) && do_here(stream, stream->unsents))
        return;
    stream->shared += stream->unsents;
    ti_engine_queue(stream->engine, launch(stream, stream->unsents));
}

/* True: there is no use in holding back what has not begun. */
static bool is_due(const ti_stream *stream)
{
    return shares(stream) && exceeds(stream, stream->unsents, OWN_NS / 4);
}

ti_code ti_stream_push(ti_stream *stream, ti_run *run)
{
    ti_code code = append(stream, run);
    if (code)
        return code;
    if (!stream->unsents++)
        stream->unsent = run;
    if (stream->options.background)
        begin(stream);
    return TI_OK;
}

/* Waits for the next run, which stays in the stream. */
static ti_run *await(ti_stream *stream, uint64_t nanoseconds)
{
    ti_run *run = stream->first;
    if (stream->options.ordered)
        return ti_engine_wait(stream->engine, run, nanoseconds) ? run : NULL;
    run = ti_engine_wait_for_any(stream->engine, &stream->settled, nanoseconds);
    ti_run_release(run); /* the list's reference; the stream has one, too */
    return run;
}

static void take(ti_stream *stream, ti_run *run)
{
    if (run->timed && run->began)
        stream->seen = run->ended - run->began;
    remove_run(stream, run);
}

ti_run *ti_stream_next(ti_stream *stream, uint64_t nanoseconds)
{
    if (!stream->count)
        return NULL;
    ti_run *run = await(stream, 0);
    while (stream->unsents && (!run || is_due(stream))) {
        begin(stream);
        if (!run)
            run = await(stream, 0);
    }
    if (!run)
        run = await(stream, nanoseconds);
    if (run)
        take(stream, run);
    return run;
}

void ti_stream_close(ti_stream *stream)
{
    static const char reason[] = "its stream was closed";
    if (!stream)
        return;
    ti_engine_unlist(stream->engine, &stream->settled, stream->first);
    for (ti_run *run = stream->first, *after; run; run = after) {
        after = run->after;
        if (ti_run_stop(run, TI_STOP_CANCELLED, reason, sizeof reason - 1))
            ti_engine_stop(stream->engine, run, NULL);
        remove_run(stream, run);
        ti_run_release(run);
    }
    ti_program_release(stream->program);
    free(stream);
}
