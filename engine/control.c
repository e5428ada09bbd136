/* SPDX-License-Identifier: MIT */
#include "engine/control.h"

#include "engine/clock.h"
#include "engine/descriptors.h"
#include "engine/engine.h"
#include "engine/thread.h"

/* What must stop is interrupted again after 1, 2, 4 ... ms: the first signal may have come a moment
 * before the callback began. */
#define FIRST_PATIENCE 1
#define MOST_PATIENCE 50

/* A watch ends after so many milliseconds with nothing to see. */
#define MOST_QUIET 50

atomic_uint_fast64_t ti_clock_offset;

/* SplitMix64, after Steele, Lea and Flood (2014). */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t ti_backoff(const ti_retry *retry, uint32_t step, uint32_t attempts)
{
    double wait = (double)retry->backoff;
    for (uint32_t i = 1; i < attempts && wait < (double)retry->most; i++)
        wait *= retry->factor;
    if (wait > (double)retry->most)
        wait = (double)retry->most;
    uint64_t random = mix(retry->seed ^ mix((uint64_t)step << 32 | attempts));
    return (uint64_t)(wait * (1 - retry->jitter * ((double)(random >> 11) / 9007199254740992.0)));
}

static void unlink_attempts(ti_control *control, ti_attempts *attempts)
{
    if (attempts->before)
        attempts->before->after = attempts->after;
    else
        control->waiting = attempts->after;
    if (attempts->after)
        attempts->after->before = attempts->before;
    attempts->waits = false;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Takes what is due by `now`, or was told to stop; *next is when the next one is due. */
static ti_node *take_due(ti_control *control, uint64_t now, uint64_t *next)
{
    ti_node *due = NULL;
    uv_mutex_lock(&control->lock);
    for (ti_attempts *at = control->waiting, *after; at; at = after) {
        after = at->after;
        if (at->due <= now || ti_load_sc(&at->node->run->stop)) {
            unlink_attempts(control, at);
            at->node->next = due;
            due = at->node;
        } else {
            *next = earlier(*next, at->due);
        }
    }
    uv_mutex_unlock(&control->lock);
    return due;
}

ti_node *ti_control_flush(ti_control *control)
{
    uint64_t next = UINT64_MAX;
    return take_due(control, 0, &next);
}

static void on_timer(uv_timer_t *timer);

/* True: look again in a millisecond. The last look of a watch comes after `watching` is cleared,
 * for a worker that has just read it. */
static bool watch(ti_control *control)
{
    bool watching = ti_load_sc(&control->watching);
    if (!watching && control->quiet == 0)
        return false;
    bool seen = ti_engine_check_progress(control->engine);
    control->quiet = seen ? 0 : control->quiet + 1;
    if (seen && !watching)
        ti_store_sc(&control->watching, 1);
    if (control->quiet == MOST_QUIET)
        ti_store_sc(&control->watching, 0);
    if (control->quiet > MOST_QUIET)
        control->quiet = 0;
    return seen || control->quiet > 0;
}

void ti_control_begin_watch(ti_control *control)
{
    if (!ti_exchange_sc(&control->watching, 1))
        ti_control_expect(control, 0);
}

/* Has the timer fire when something is due, or in a millisecond for the watch. */
static void arm(ti_control *control, uint64_t now, bool watching)
{
    uint64_t next = ti_load_sc(&control->next);
    if (watching)
        next = earlier(next, now + 1000000);
    if (next == UINT64_MAX)
        return;
    uv_update_time(&control->loop);
    uint64_t wait = next > now ? (next - now + 999999) / 1000000 : 0;
    uv_timer_start(&control->timer, on_timer, wait, 0);
}

/* All there is to do now. */
static void look(ti_control *control, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    ti_store_sc(&control->next, UINT64_MAX); /* from here on, expecting something sends a wake */
    ti_engine_queue(control->engine, take_due(control, now, &next));
    bool late = false;
    next = earlier(next, ti_engine_check_deadlines(control->engine, now, &late));
    if (ti_engine_enforce(control->engine) || late) {
        next = earlier(next, now + control->patience * 1000000);
        control->patience =
            control->patience < MOST_PATIENCE ? 2 * control->patience : MOST_PATIENCE;
    } else {
        control->patience = FIRST_PATIENCE;
    }
    ti_engine_give_up(control->engine, now);
    next = earlier(next, ti_pool_ask_again(&control->engine->pool, now));
    ti_store_sc(&control->next, next);
}

/* A look at everything walks what waits and what has a deadline, so the watch alone is no reason
 * for one. */
static void on_timer(uv_timer_t *timer)
{
    ti_control *control = timer->data;
    uint64_t now = ti_now();
    if (now >= ti_load_sc(&control->next))
        look(control, now);
    arm(control, now, watch(control));
}

static void on_wake(uv_async_t *wake)
{
    ti_control *control = wake->data;
    uv_mutex_lock(&control->lock);
    bool closing = control->closing;
    uv_mutex_unlock(&control->lock);
    if (!closing) {
        uint64_t now = ti_now();
        look(control, now);
        arm(control, now, watch(control));
        return;
    }
    uv_close((uv_handle_t *)&control->timer, NULL);
    uv_close((uv_handle_t *)&control->wake, NULL);
    ti_lender_detach(&control->engine->pool);
}

static void run_loop(void *data)
{
    ti_control *control = data;
    uv_run(&control->loop, UV_RUN_DEFAULT);
    uv_loop_close(&control->loop);
}

/* libuv aborts where there is no pipe to be had for its first loop. */
static int try_descriptors(void)
{
    uv_file ends[2][2];
    int made = 0, status = 0;
    while (made < 2 && !(status = uv_pipe(ends[made], 0, 0)))
        made++;
    while (made-- > 0)
        for (int i = 0; i < 2; i++) {
            uv_fs_t request;
            uv_fs_close(NULL, &request, ends[made][i], NULL);
            uv_fs_req_cleanup(&request);
        }
    return status;
}

/* With the lock. 0, or a libuv error. */
static int start(ti_control *control)
{
    int status = ti_descriptors_guard();
    if (!status)
        status = try_descriptors();
    if (!status)
        status = uv_loop_init(&control->loop);
    if (status)
        return status;
    uv_timer_init(&control->loop, &control->timer);
    control->timer.data = control->wake.data = control;
    status = uv_async_init(&control->loop, &control->wake, on_wake);
    control->wake.data = control;
    if (!status)
        status = ti_lender_attach(&control->engine->pool, &control->loop);
    if (!status && !(status = ti_thread_create(&control->thread, run_loop, control))) {
        control->started = true;
        return 0;
    }
    uv_close((uv_handle_t *)&control->timer, NULL);
    if (uv_is_active((uv_handle_t *)&control->wake))
        uv_close((uv_handle_t *)&control->wake, NULL);
    ti_lender_detach(&control->engine->pool);
    run_loop(control);
    return status;
}

bool ti_control_ensure(ti_control *control)
{
    uv_mutex_lock(&control->lock);
    bool runs = !control->closing && (control->started || start(control) == 0);
    uv_mutex_unlock(&control->lock);
    return runs;
}

static void poke(ti_control *control)
{
    if (!ti_control_ensure(control))
        return;
    uv_mutex_lock(&control->lock);
    if (!control->closing)
        uv_async_send(&control->wake);
    uv_mutex_unlock(&control->lock);
}

int ti_control_open(ti_control *control, ti_engine *engine)
{
    control->engine = engine;
    control->patience = FIRST_PATIENCE;
    atomic_init(&control->next, UINT64_MAX);
    return uv_mutex_init(&control->lock);
}

void ti_control_expect(ti_control *control, uint64_t due)
{
    if (due < ti_load_sc(&control->next))
        poke(control);
}

void ti_control_delay(ti_control *control, ti_attempts *attempts)
{
    uint64_t due = attempts->due;
    uv_mutex_lock(&control->lock);
    attempts->before = NULL;
    attempts->after = control->waiting;
    if (control->waiting)
        control->waiting->before = attempts;
    control->waiting = attempts;
    attempts->waits = true;
    if (ti_load_sc(&attempts->node->run->stop))
        due = 0; /* whoever stopped the run may have looked at the list before */
    uv_mutex_unlock(&control->lock);
    ti_control_expect(control, due);
}

bool ti_control_here(ti_control *control)
{
    uv_thread_t self = uv_thread_self();
    uv_mutex_lock(&control->lock);
    bool here = control->started && !control->closing && uv_thread_equal(&self, &control->thread);
    uv_mutex_unlock(&control->lock);
    return here;
}

void ti_control_close(ti_control *control)
{
    uv_mutex_lock(&control->lock);
    bool started = control->started;
    control->closing = true;
    if (started)
        uv_async_send(&control->wake);
    uv_mutex_unlock(&control->lock);
    if (started)
        uv_thread_join(&control->thread);
}

void ti_control_free(ti_control *control)
{
    uv_mutex_destroy(&control->lock);
}
