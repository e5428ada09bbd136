/* SPDX-License-Identifier: MIT */
/* Reaching into a callback that runs: a signal to the thread that sits at a worker, whose handler
 * asks the backend there to stop. Setting a hook of a Lua state from another thread is unsafe; from
 * a signal handler of its own thread it is not. */
#ifndef TI_PREEMPT_H
#define TI_PREEMPT_H

#include <stdbool.h>

struct ti_engine;
struct ti_worker;

/* Installs the handler, once per process. False: this system has no signals. */
bool ti_preempt_prepare(void);

/* The calling thread sits down at a worker, or leaves it. */
void ti_preempt_enter(struct ti_worker *worker);
void ti_preempt_leave(struct ti_worker *worker);

/* The calling thread sits at a worker of the engine. */
bool ti_preempt_sits(const struct ti_engine *engine);

/* The thread that sat at a worker was given up, and no signal goes there any more. */
void ti_preempt_disown(struct ti_worker *worker);

/* Has the handler run on the thread that sits at a worker, if one does. Any thread. */
void ti_preempt_kick(struct ti_worker *worker);

#endif
