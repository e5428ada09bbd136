/* SPDX-License-Identifier: MIT */
/* Parking and waking: engine/pool.c, and ti_engine_sit, ti_engine_leave, ti_engine_beckons.
 * Steps are those of the C code: each access that other threads can see in between is one.
 *
 * Promise: when nothing moves any more, nothing is published. A thread may stay in a callback for
 * ever, as long as there are another thread and another seat.
 *
 * MUTANT is the number of a mistake, which must be found:
 *   1 no second look before sleeping
 *   2 the second look comes before the search is given up
 *   3 a waker that finds nobody gives up its search without the lock
 *   4 who leaves a seat does not look
 *   5 a searcher that found something does not look for more */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef THREADS
#define THREADS 2
#define SENDERS 2
#endif

#define LAST (THREADS - 1)

byte items, sent, done, stuck;
bool seated[THREADS], parked[THREADS], started[THREADS], posted[THREADS];
byte searching, idle = THREADS;
bool lock;

inline acquire() { atomic { !lock -> lock = true } }
inline release() { lock = false }

/* To `seen`. */
inline beckons() {
    seen = items > 0;
    if
    :: seen -> seen = !seated[0] || !seated[LAST]
    :: else
    fi
}

/* With a share of `searching`. */
inline send_one() {
    acquire();
    if
    :: parked[0] -> parked[0] = false; idle--; release(); posted[0] = true
    :: parked[LAST] -> parked[LAST] = false; idle--; release(); posted[LAST] = true
    :: !parked[0] && !parked[LAST] && !started[0] -> started[0] = true; idle--; release()
    :: !parked[0] && !parked[LAST] && started[0] && !started[LAST] ->
        started[LAST] = true; idle--; release()
    :: !parked[0] && !parked[LAST] && started[0] && started[LAST] ->
#if MUTANT == 3
        release();
        searching--
#else
        searching--;
        release()
#endif
    fi
}

inline wake() {
    if
    :: searching == 0 ->
        if
        :: idle > 0 ->
            if
            :: atomic { searching == 0 -> searching = 1 }; send_one()
            :: searching > 0
            fi
        :: else
        fi
    :: else
    fi
}

/* A seat to `seat`, or THREADS: there is none. */
inline sit() {
    seat = THREADS;
    if
    :: atomic { !seated[0] -> seated[0] = true; seat = 0 }
    :: else ->
        if
        :: atomic { !seated[LAST] -> seated[LAST] = true; seat = LAST }
        :: else
        fi
    fi
}

inline leave() {
    seated[seat] = false;
#if MUTANT != 4
    if
    :: done < sent -> beckons(); if :: seen -> wake() :: else fi
    :: else
    fi
#endif
}

proctype thread(byte self) {
    byte seat, taken;
    bool seen, back;
end_unstarted:
    started[self];
again:
    sit();
    if
    :: seat == THREADS -> goto park
    :: else
    fi;
    do
    :: atomic { items > 0 -> taken = items; items = 0 };
        searching--;
#if MUTANT != 5
        beckons();
        if :: seen -> wake() :: else fi;
#endif
        if
        :: atomic { stuck < THREADS - 1 -> stuck++ };
            done = done + taken;
end_stuck:  false
        :: done = done + taken
        fi;
        searching++
    :: items == 0 -> break
    od;
    leave();
park:
    acquire();
    parked[self] = true;
    idle++;
    release();
#if MUTANT == 1
    seen = false;
    searching--;
#elif MUTANT == 2
    beckons();
    searching--;
#else
    searching--;
    beckons();
#endif
    if
    :: seen ->
        acquire();
        back = parked[self];
        if
        :: back -> parked[self] = false; idle--
        :: else
        fi;
        release();
        if
        :: back -> searching++; goto again
        :: else
        fi
    :: else
    fi;
end_asleep:
    atomic { posted[self] -> posted[self] = false };
    goto again
}

proctype sender() {
    bool seen;
    sent++;
    items++;
    wake()
}

/* Takes a seat for a while, for other work. */
proctype guest() {
    byte seat;
    bool seen;
    sit();
    if
    :: seat < THREADS -> leave()
    :: else
    fi
}

init {
    atomic {
        run thread(0);
#if THREADS > 1
        run thread(1);
        run guest();
#endif
        run sender(); run sender();
#if SENDERS > 2
        run sender();
#endif
        skip
    };
    timeout;
    assert(items == 0);
    assert(searching == 0)
}
