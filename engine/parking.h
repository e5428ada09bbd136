/* SPDX-License-Identifier: MIT */
/* Parking: how threads that find nothing sleep, or go, and how one is got when there is something.
 *
 * A thread that finds nothing counts itself idle, gives up its share of `searching`, and only then
 * looks once more at what is published (`beckons`) before it sleeps. Whoever publishes does so
 * first and then reads `searching` and `idle`, all in one total order: so either the publisher sees
 * that somebody must be woken, or the parker sees what was published.
 *
 * Where threads are borrowed, one that can be asked for stands for one that is parked: `idle`
 * counts those. A thread that finds nothing counts itself idle, gives up its share, looks once
 * more, and goes; if it saw something, it asks for a thread as any publisher would. Whoever took
 * `searching` from 0 to 1 asks, and that share stays taken until the thread has begun: so at most
 * one is asked for and has not come.
 *
 * What is here needs atomics and two ways to block, and nothing of the engine: this file as it is
 * runs under the model checker of spec/models/relacy.cpp. */
#ifndef TI_PARKING_H
#define TI_PARKING_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/atomics.h"
#include "engine/blocking.h"

/* Where a thread sleeps. */
typedef struct ti_place {
    ti_semaphore wake;     /* posted once for each time it is taken off `parked` */
    struct ti_place *next; /* [lock:parking] */
    bool is_parked;        /* [lock:parking] */
} ti_place;

/* What it asks of the pool it is part of. */
typedef struct ti_parking_calls {
    /* Something is published, and a thread that comes can have it. */
    bool (*beckons)(void *pool);
    /* Without the lock: a thread is about to be sent. */
    void (*prepare)(void *pool);
    /* With the lock, and a share of `searching` for the thread: one that is neither parked nor at
     * work is started, or asked for. False: there is none. */
    bool (*start)(void *pool);
} ti_parking_calls;

typedef struct ti_parking {
    const ti_parking_calls *calls; /* [const] */
    void *pool;                    /* [const] what they get */
    ti_mutex lock;
    ti_place *parked; /* [lock:parking] the last one to park first: its cache is warm */
    bool closing;     /* [lock:parking] who finds nothing ends */
    bool asked;       /* [lock:parking] a thread to borrow was asked for, and not yet requested */
    _Alignas(TI_CACHE_LINE) atomic_uint idle; /* [atomic] threads that can be had: parked, not
                                                 there (yet), or not borrowed */
    atomic_uint searching; /* [atomic] threads looking for work, or just woken to */
} ti_parking;

/* Takes a share of `searching`, or gives one up. */
static inline void ti_parking_search(ti_parking *parking)
{
    ti_add_sc(&parking->searching, 1u);
}

static inline void ti_parking_give_up(ti_parking *parking)
{
    ti_sub_sc(&parking->searching, 1u);
}

/* With the lock. */
static inline void ti_parking_unlink(ti_parking *parking, ti_place *place)
{
    ti_place **link = &parking->parked;
    while (*link != place)
        link = &(*link)->next;
    *link = place->next;
    place->is_parked = false;
    ti_sub_sc(&parking->idle, 1u);
}

/* With the lock, and a share of `searching`, which goes to a thread that is started, or back if
 * there is none (false). */
static inline bool ti_parking_start(ti_parking *parking)
{
    bool starts = ti_load_sc(&parking->idle) > 0 && parking->calls->start(parking->pool);
    if (starts)
        ti_sub_sc(&parking->idle, 1u);
    else
        ti_parking_give_up(parking); /* who parks from here on looks again afterwards */
    return starts;
}

/* With a share of `searching`, which goes to a thread, or back if there is none. */
static inline void ti_parking_send(ti_parking *parking)
{
    parking->calls->prepare(parking->pool);
    ti_mutex_lock(&parking->lock);
    ti_place *place = parking->parked;
    if (place)
        ti_parking_unlink(parking, place);
    else
        ti_parking_start(parking);
    ti_mutex_unlock(&parking->lock);
    if (place)
        ti_semaphore_post(&place->wake);
}

/* Something was published: gets one more thread to look for it, unless one is looking already, or
 * none is left. */
static inline void ti_parking_wake(ti_parking *parking)
{
    unsigned none = 0;
    /* A read-modify-write even where it changes nothing: the searcher that gives up its share reads
     * from it or is read by it, and so sees what was published before. */
    if (ti_add_sc(&parking->searching, 0u) == 0 && ti_load_sc(&parking->idle) > 0 &&
        ti_cas_sc(&parking->searching, &none, 1u))
        ti_parking_send(parking);
}

/* Searches no more, having found something, or to go: another thread looks if there is more.
 * Takes a share of `searching`. */
static inline void ti_parking_hand_on(ti_parking *parking)
{
    ti_parking_give_up(parking);
    if (parking->calls->beckons(parking->pool))
        ti_parking_wake(parking);
}

/* True: it is not parked any more, by its own act. False: somebody was faster, and wakes it. */
static inline bool ti_parking_get_up(ti_parking *parking, ti_place *place)
{
    ti_mutex_lock(&parking->lock);
    bool is_parked = place->is_parked;
    if (is_parked)
        ti_parking_unlink(parking, place);
    ti_mutex_unlock(&parking->lock);
    return is_parked;
}

/* Sleeps until woken to search. False: the pool closes and there is nothing left. Takes a share of
 * `searching` and, when true, returns with one. */
static inline bool ti_parking_park(ti_parking *parking, ti_place *place)
{
    ti_mutex_lock(&parking->lock);
    place->next = parking->parked;
    place->is_parked = true;
    parking->parked = place;
    ti_add_sc(&parking->idle, 1u);
    bool closing = parking->closing;
    ti_mutex_unlock(&parking->lock);
    ti_parking_give_up(parking);
    bool beckons = parking->calls->beckons(parking->pool);
    if ((beckons || closing) && ti_parking_get_up(parking, place)) {
        if (beckons)
            ti_parking_search(parking);
        return beckons;
    }
    ti_semaphore_wait(&place->wake);
    return true;
}

/* All that are parked end, and those that would be. */
static inline void ti_parking_close(ti_parking *parking)
{
    ti_mutex_lock(&parking->lock);
    parking->closing = true;
    while (parking->parked) {
        ti_place *place = parking->parked;
        ti_parking_unlink(parking, place);
        ti_parking_search(parking);
        ti_semaphore_post(&place->wake);
    }
    ti_mutex_unlock(&parking->lock);
}

/* A borrowed thread is about to go, or was asked for in vain; or one was lost, and there is no
 * other for its place. Takes its share of `searching`. */
static inline void ti_parking_return(ti_parking *parking)
{
    ti_mutex_lock(&parking->lock); /* who has it may just have found none, and gives up */
    ti_add_sc(&parking->idle, 1u);
    ti_mutex_unlock(&parking->lock);
    ti_parking_hand_on(parking);
}

/* For `start`, with the lock, where threads are borrowed: one is asked for. */
static inline void ti_parking_ask(ti_parking *parking)
{
    parking->asked = true;
}

/* With the lock: what was asked for and has not been requested is not wanted any more. True: it
 * was, and ti_parking_return is to be called. */
static inline bool ti_parking_take_back(ti_parking *parking)
{
    bool asked = parking->asked;
    parking->asked = false;
    return asked;
}

/* For the one who makes requests, whenever one was asked for or there is a place for it again.
 * True: make one, now. */
static inline bool ti_parking_lend(ti_parking *parking, bool has_place)
{
    ti_mutex_lock(&parking->lock);
    bool asked = has_place && ti_parking_take_back(parking);
    ti_mutex_unlock(&parking->lock);
    return asked;
}

#endif
