/* SPDX-License-Identifier: MIT */
#include "engine/thread.h"

#include <pthread.h>
#include <stddef.h>

static void fill(sigset_t *set)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigfillset(set);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(set, own[i]);
}

/* A thread begins with its maker's mask: so there is no moment in which it could be sent one. */
int ti_thread_create(uv_thread_t *id, uv_thread_cb work, void *data)
{
    const uv_thread_options_t options = {.flags = UV_THREAD_NO_FLAGS};
    sigset_t all, before;
    fill(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int status = uv_thread_create_ex(id, &options, work, data);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

void ti_thread_mask_signals(sigset_t *before)
{
    sigset_t all;
    fill(&all);
    sigdelset(&all, SIGURG);
    pthread_sigmask(SIG_SETMASK, &all, before);
}
