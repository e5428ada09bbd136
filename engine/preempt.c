/* SPDX-License-Identifier: MIT */
#include "engine/preempt.h"

#ifndef _WIN32

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "engine/engine.h"

/* SIGURG: ignored unless somebody asks for it, passed on by debuggers, and no library lives on it.
 * Who else has a handler for it is called when the signal is not ours. */
#define SIGNAL SIGURG

static struct sigaction before;

/* With each thread from its start. Otherwise what a library that is loaded late keeps per thread is
 * allocated when it is first touched: glibc ends the process if there is no memory for it, and a
 * signal handler must not allocate at all. (Elsewhere such libraries may not load.) */
#if defined(__GLIBC__)
#define EARLY __attribute__((tls_model("initial-exec")))
#else
#define EARLY
#endif

/* The innermost worker that this thread sits at; a callback may run another engine. */
static _Thread_local ti_worker *volatile innermost EARLY;

/* Nobody but this thread sits at the worker, and it is in a callback: so the seat can be left
 * behind right here, and the thread with what it runs is on its own from now on. */
static bool abandon(ti_worker *worker, const ti_backend *backend)
{
    unsigned at = ti_load_sc(&worker->give_up);
    if (!at || at != ti_load_sc(&worker->progress) || worker->guest || worker->outer ||
        !ti_worker_must_stop(worker) || !backend->abandon ||
        !backend->abandon(ti_worker_context(worker, worker->serving)))
        return false;
    innermost = NULL;
    ti_store_sc(&worker->abandoned, 1);
    return true;
}

static void stop_callbacks(void)
{
    for (ti_worker *worker = innermost; worker; worker = worker->outer) {
        const ti_backend *backend = ti_engine_backend(worker->engine, worker->serving);
        if (worker->engine->preempt != TI_PREEMPT_SIGNAL || !worker->serves || !backend->interrupt)
            continue;
        backend->interrupt(ti_worker_context(worker, worker->serving));
        if (abandon(worker, backend))
            return;
    }
}

static void handle(int number, siginfo_t *info, void *machine)
{
    int error = errno;
    if (innermost)
        stop_callbacks();
    else if (before.sa_flags & SA_SIGINFO && before.sa_sigaction)
        before.sa_sigaction(number, info, machine);
    else if (!(before.sa_flags & SA_SIGINFO) && before.sa_handler != SIG_IGN &&
             before.sa_handler != SIG_DFL)
        before.sa_handler(number);
    errno = error;
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = handle,
                               .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGNAL, &action, &before);
}

bool ti_preempt_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    return pthread_once(&once, install) == 0;
}

void ti_preempt_enter(ti_worker *worker)
{
    worker->outer = innermost;
    innermost = worker;
    ti_store_release(&worker->reachable, 1); /* whoever misses it looks again: ti_engine_stop */
}

void ti_preempt_disown(ti_worker *worker)
{
    ti_store_sc(&worker->reachable, 0);
    while (ti_load_sc(&worker->kicking)) /* `thread` is in use for a moment */
        ti_relax();
}

void ti_preempt_leave(ti_worker *worker)
{
    ti_preempt_disown(worker);
    innermost = worker->outer;
}

bool ti_preempt_sits(const ti_engine *engine)
{
    const ti_worker *worker = innermost;
    while (worker && worker->engine != engine)
        worker = worker->outer;
    return worker != NULL;
}

void ti_preempt_kick(ti_worker *worker)
{
    ti_add_sc(&worker->kicking, 1);
    if (ti_load_sc(&worker->reachable))
        pthread_kill(worker->thread, SIGNAL);
    ti_sub_sc(&worker->kicking, 1);
}

#else

bool ti_preempt_prepare(void)
{
    return false;
}

void ti_preempt_enter(struct ti_worker *worker)
{
    (void)worker;
}

void ti_preempt_leave(struct ti_worker *worker)
{
    (void)worker;
}

void ti_preempt_disown(struct ti_worker *worker)
{
    (void)worker;
}

bool ti_preempt_sits(const struct ti_engine *engine)
{
    (void)engine;
    return false;
}

void ti_preempt_kick(struct ti_worker *worker)
{
    (void)worker;
}

#endif
