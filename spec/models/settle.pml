/* SPDX-License-Identifier: MIT */
/* Launching, settling, waiting, cancelling, closing: engine/engine.c and engine/run.c, for one run
 * of two processors, each finished by a worker of its own. With LISTED it is left in a stream's list,
 * from which somebody takes it, or the stream is closed.
 *
 * Promises: it settles once, who waits for it is woken, the closer waits for it and not for ever, and
 * it is put back once, when nobody has a reference.
 *
 * MUTANT is the number of a mistake, which must be found:
 *   1 a run is in flight only after `closing` was read
 *   2 the settler reads whether it is awaited before it says settled
 *   3 the waiter says so without looking again before it sleeps
 *   4 who comes by the engine's list takes a reference whether there is one or not
 *   5 the last of a closing engine tells nobody
 *   6 two workers subtract from the count as if they were alone
 *   7 a run settles before it takes the lock to be listed
 *   8 a stream that closes leaves the run its list */
#ifndef MUTANT
#define MUTANT 0
#endif

mtype = { IDLE, IN_FLIGHT, AWAITED, SETTLED };

mtype phase = IDLE;
byte references = 1 /* the host's */, remaining = 2;
byte settled, recycled;
bool closing, closed, told, launched, refused, lock;
bool in_list, list_awaited, unlisted, taken;
bool sleeps[3];

inline acquire() { atomic { !lock -> lock = true } }
inline release() { lock = false }

/* On the engine's condition, with the lock. */
inline sleep(who) {
    atomic { sleeps[who] = true; lock = false };
    !sleeps[who];
    acquire()
}

inline broadcast() {
    acquire();
    atomic { sleeps[0] = false; sleeps[1] = false; sleeps[2] = false };
    release()
}

inline drop_reference() {
    atomic {
        assert(references > 0);
        references--;
        if
        :: references == 0 -> recycled++; phase = IDLE
        :: else
        fi
    }
}

inline stop_it() {
    if
    :: phase == IN_FLIGHT || phase == AWAITED -> told = true
    :: else
    fi
}

inline set_settled() {
#if MUTANT == 2
    awaited = phase == AWAITED;
    phase = SETTLED
#else
    atomic { awaited = phase == AWAITED; phase = SETTLED }
#endif
}

inline settle() {
    settled++;
#ifdef LISTED
#if MUTANT == 7
    set_settled();
#endif
    acquire();
#if MUTANT != 7
    set_settled();
#endif
    if
    :: !unlisted ->
        references++;
        in_list = true;
        awaited = awaited || list_awaited
    :: else
    fi;
    release();
#else
    set_settled();
#endif
    last = closing;
#if MUTANT == 5
    last = false;
#endif
    if
    :: awaited || last -> broadcast()
    :: else
    fi;
    drop_reference()
}

proctype worker() {
    bool awaited, last;
    byte left;
end_never:
    launched;
#if MUTANT == 6
    left = remaining - 1;
    remaining = left;
#else
    atomic { remaining--; left = remaining };
#endif
    if
    :: left == 0 -> settle()
    :: else
    fi
}

proctype host() {
    if
    :: closing -> refused = true; goto released
    :: else
    fi;
#if MUTANT == 1
    if
    :: closing -> refused = true; goto released
    :: else
    fi;
    phase = IN_FLIGHT;
#else
    phase = IN_FLIGHT;
    if
    :: closing ->
        phase = IDLE;
        broadcast();
        refused = true;
        goto released
    :: else
    fi;
#endif
    atomic { references++; launched = true };
    if
    :: phase == SETTLED
    :: else ->
#if MUTANT == 3
        atomic { if :: phase == IN_FLIGHT -> phase = AWAITED :: else fi };
        acquire();
        sleep(0);
#else
        acquire();
        atomic { if :: phase == IN_FLIGHT -> phase = AWAITED :: else fi };
        do
        :: phase == SETTLED -> break
        :: else -> sleep(0)
        od;
#endif
        release()
    fi;
    assert(phase == SETTLED);
released:
    drop_reference()
}

proctype closer() {
    acquire();
    closing = true;
    stop_it();
    release();
    acquire();
    do
    :: phase != IN_FLIGHT && phase != AWAITED -> break
    :: else -> sleep(1)
    od;
    release();
    closed = true;
    assert(!launched || settled == 1)
}

/* Whose stream it is: waits for any run of the list, or closes the stream. */
proctype taker() {
    bool got;
end_never:
    launched;
    acquire();
    if
    :: list_awaited = true;
        do
        :: in_list -> break
        :: else -> sleep(2)
        od;
        list_awaited = false
    :: true ->
#if MUTANT != 8
        unlisted = true
#endif
    fi;
    got = in_list;
    in_list = false;
    taken = true;
    release();
    if
    :: got -> assert(phase == SETTLED); drop_reference()
    :: else
    fi
}

/* Somebody looks whether a run that has settled is in its list. */
proctype looker() {
    if
    :: phase == SETTLED ->
        acquire();
        assert(in_list || taken || unlisted || recycled);
        release()
    :: true
    fi
}

/* The control loop finds it past its deadline. */
proctype loop() {
    bool held;
    acquire();
    if
    :: phase == IN_FLIGHT || phase == AWAITED ->
        atomic {
#if MUTANT == 4
            held = true; references++
#else
            if :: references > 0 -> held = true; references++ :: else fi
#endif
        }
    :: else
    fi;
    release();
    if
    :: held -> stop_it(); drop_reference()
    :: else
    fi
}

init {
    atomic { run worker(); run worker(); run host(); run closer(); run loop()
#ifdef LISTED
        ; run taker(); run looker()
#endif
    };
    timeout;
    assert(closed);
    assert(refused || settled == 1);
    assert(settled <= 1);
    assert(recycled == 1 && references == 0);
    assert(!in_list)
}
