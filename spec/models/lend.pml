/* SPDX-License-Identifier: MIT */
/* Borrowing threads: parking.pml, and engine/pool_shared.c, with libuv's pool and the control loop.
 *
 * Promises: when nothing moves any more, nothing is published, and what was borrowed has been given
 * back but for threads that stay in a callback; at most one request waits. With CLOSE, the engine
 * closes while there is work, and need not wait for libuv's pool though others keep all of it; or,
 * with REFUSED, though the system gives no thread to close with and libuv's pool has to do.
 *
 * MUTANT is the number of a mistake, which must be found:
 *   3 a waker that finds nobody gives up its search without the lock
 *   4 who leaves a seat does not look
 *   5 a thread that found something, or goes, does not look for more
 *   7 a thread that goes counts itself idle without the lock
 *   8 a thread that goes counts itself idle after its last look
 *   9 who cannot lend forgets that he was asked
 *  10 nobody takes back what was asked for and not requested
 *  11 it is taken back only after the requests were withdrawn */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef LIMIT
#define LIMIT 2
#define LENT 2
#define SENDERS 2
#endif

#define SEATS LIMIT
#define OWN 1

#include "parking.pml"

byte in_flight, queued, back, cancelled, stuck, places = LIMIT;
bool sharing = true, attached = true, withdrawn, event, engine_closing, detach, loop_ended;
bool started, ended, closed;

inline give_back_if_ok() {
    if
    :: ok -> give_back()
    :: else
    fi
}

inline send_event() { event = true }

/* With the lock. */
inline start() {
    ok = false;
    if
    :: !sharing && !started && !closing ->
#ifdef REFUSED
        sharing = true
#else
        started = true;
        ok = true
#endif
    :: else
    fi;
    if
    :: !ok && sharing && attached -> asked = true; send_event(); ok = true
    :: else
    fi
}

inline work() {
    sit();
    if
    :: seat == SEATS
    :: else ->
        do
        :: atomic { items > 0 -> taken = items; items = 0 };
            hand_on();
#ifndef CLOSE
            if
            :: atomic { stuck < LENT - 1 -> stuck++ };
end_stuck:      false
            :: true
            fi;
#endif
            in_flight = in_flight - taken;
            taken = 0;
            searching++;
            if
            :: break /* others want the thread */
            :: true
            fi
        :: items == 0 -> break
        od;
        leave()
    fi
}

/* Of libuv's pool. Somebody else may keep it. */
proctype lent() {
    byte seat, taken;
    bool seen, ok, ends;
end_idle:
    do
    :: atomic { queued > 0 -> queued-- };
        work();
        give_back();
        atomic { back++; send_event() }
#if defined(CLOSE) && !defined(REFUSED)
    :: break
#endif
    od
}

proctype own() {
    byte seat, taken;
    bool seen, ok, ends;
end_unstarted:
    started;
    do
    :: work();
        park(0);
        if
        :: seen
        :: else -> break
        fi
    od;
    ended = true
}

/* The control loop. */
inline lend_one() {
    lend(places > 0);
    if
    :: ok -> places--; atomic { assert(queued == 0); queued++ }
    :: else
    fi
}

inline cancel() {
    atomic {
        if
        :: queued > 0 -> queued--; cancelled++; send_event()
        :: else
        fi
    }
}

proctype loop() {
    bool seen, ok, cancels;
end_idle:
    do
    :: atomic { event -> event = false };
        do
        :: atomic { back > 0 -> back-- }; places++; lend_one()
        :: atomic { cancelled > 0 -> cancelled-- }; places++; give_back(); lend_one()
        :: back == 0 && cancelled == 0 -> break
        od;
        if
        :: attached ->
            acquire();
            cancels = withdrawn;
            withdrawn = false;
            release();
            lend_one();
            if
            :: cancels -> cancel()
            :: else
            fi
        :: else
        fi;
        if
        :: detach && attached ->
            acquire();
            attached = false;
            take_back();
            release();
            give_back_if_ok();
            cancel()
        :: else
        fi;
        if
        :: !attached && places == LIMIT && back == 0 && cancelled == 0 -> break
        :: else
        fi
    od;
    loop_ended = true
}

proctype sender() {
    bool seen, ok;
    if
    :: atomic { !engine_closing -> in_flight++ };
        items++;
        wake()
    :: engine_closing
    fi
}

/* A caller takes a seat for a while, for its own work. */
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
    bool seen, ok;
    engine_closing = true;
    acquire();
    sharing = false;
#if MUTANT != 11
    take_back();
#endif
    withdrawn = true;
    send_event();
    release();
#if MUTANT == 11
    acquire();
    take_back();
    release();
#endif
    give_back_if_ok();
    in_flight == 0;
    atomic { detach = true; send_event() };
    loop_ended;
    close_parking();
    if
    :: started -> ended
    :: else
    fi;
    closed = true
}

init {
    atomic {
        idle = LIMIT;
        run lent();
#if LENT > 1
        run lent();
#endif
        run loop();
        run sender();
#if SENDERS > 1
        run sender();
#endif
#if SENDERS > 2
        run sender();
#endif
#ifdef GUEST
        run guest();
#endif
#ifdef CLOSE
        run own();
        run closer();
#endif
        skip
    };
    timeout;
    assert(items == 0);
    assert(searching == 0);
    assert(!asked && queued == 0);
#ifdef CLOSE
    assert(closed)
#else
    assert(places == LIMIT - stuck && idle == LIMIT - stuck)
#endif
}
