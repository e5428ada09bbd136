/* SPDX-License-Identifier: MIT */
/* The engine's threads take no signal away from the host's: all are blocked there, but for those
 * that a thread raises itself by a mistake, so that the host's own handlers for them are called. */
#ifndef TI_THREAD_H
#define TI_THREAD_H

#include <signal.h>
#include <uv.h>

/* Makes a thread, which has all those signals blocked before it begins. 0, or a libuv error. */
int ti_thread_create(uv_thread_t *id, uv_thread_cb work, void *data);

/* Has the calling thread get those, and SIGURG, which is for threads that run callbacks (see
 * preempt.c), and no others. */
void ti_thread_mask_signals(sigset_t *before);

#endif
