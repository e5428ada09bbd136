/* SPDX-License-Identifier: MIT */
/* Parking and waking where the engine has threads of its own: parking.pml, and engine/pool.c.
 *
 * Promise: when nothing moves any more, nothing is published. A thread may stay in a callback for
 * ever, as long as there are another thread and another seat. With CLOSE, none does, and once all is
 * done the pool closes and all threads end.
 *
 * MUTANT is the number of a mistake, which must be found:
 *   1 no second look before sleeping
 *   2 the second look comes before the search is given up
 *   3 a waker that finds nobody gives up its search without the lock
 *   4 who leaves a seat does not look
 *   5 a searcher that found something does not look for more
 *   6 a thread that is about to park does not learn that the pool closes */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef THREADS
#define THREADS 2
#define SENDERS 2
#endif

#define SEATS THREADS
#define OWN THREADS

#include "parking.pml"

byte done, stuck, ended;
bool started[OWN];

inline start() {
    if
    :: !started[0] && !closing -> started[0] = true
    :: started[0] && !started[LAST_OWN] && !closing -> started[LAST_OWN] = true
    :: (started[0] && started[LAST_OWN]) || closing -> ok = false
    fi
}

proctype thread(byte self) {
    byte seat, taken;
    bool seen, ok, ends;
end_unstarted:
    started[self];
    do
    :: sit();
        if
        :: seat == SEATS
        :: else ->
            do
            :: atomic { items > 0 -> taken = items; items = 0 };
                hand_on();
#ifndef CLOSE
                if
                :: atomic { stuck < THREADS - 1 -> stuck++ };
end_stuck:          false
                :: true
                fi;
#endif
                done = done + taken;
                searching++
            :: items == 0 -> break
            od;
            leave()
        fi;
        park(self);
        if
        :: seen
        :: else -> break
        fi
    od;
    ended++
}

proctype sender() {
    bool seen, ok;
    items++;
    wake()
}

/* Takes a seat for a while, for other work. */
proctype guest() {
    byte seat;
    bool seen, ok;
    sit();
    if
    :: seat < SEATS -> leave()
    :: else
    fi
}

proctype closer() {
    done == SENDERS;
    close_parking()
}

init {
    atomic {
        idle = THREADS;
        run thread(0);
#if THREADS > 1
        run thread(1);
        run guest();
#endif
        run sender();
#if SENDERS > 1
        run sender();
#endif
#if SENDERS > 2
        run sender();
#endif
#ifdef CLOSE
        run closer();
#endif
        skip
    };
    timeout;
    assert(items == 0);
    assert(searching == 0);
#ifdef CLOSE
    assert(done == SENDERS);
    assert(ended == started[0] + (OWN > 1 && started[LAST_OWN]))
#endif
}
