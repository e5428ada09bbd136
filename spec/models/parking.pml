/* SPDX-License-Identifier: MIT */
/* engine/parking.h, and the seats of engine/engine.c, for park.pml and lend.pml to include. Steps
 * are those of the C code: each access that other threads can see in between is one.
 *
 * Who includes it defines SEATS, OWN (places to park), and start(), which sets `ok`. */
#define LAST (SEATS - 1)
#define LAST_OWN (OWN - 1)

byte items; /* published */
bool seated[SEATS];
bool parked[OWN], posted[OWN];
byte searching, idle;
bool closing, asked;
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

inline unlink(who) {
    parked[who] = false;
    idle--
}

/* With a share of `searching`. */
inline send() {
    acquire();
    if
    :: parked[0] -> unlink(0); release(); posted[0] = true
    :: !parked[0] && parked[LAST_OWN] -> unlink(LAST_OWN); release(); posted[LAST_OWN] = true
    :: !parked[0] && !parked[LAST_OWN] ->
        ok = idle > 0;
        if
        :: ok -> start()
        :: else
        fi;
        if
        :: ok -> idle--; release()
        :: else ->
#if MUTANT == 3
            release();
            searching--
#else
            searching--;
            release()
#endif
        fi
    fi
}

inline wake() {
    if
    :: searching == 0 ->
        if
        :: idle > 0 ->
            if
            :: atomic { searching == 0 -> searching = 1 }; send()
            :: searching > 0
            fi
        :: else
        fi
    :: else
    fi
}

inline wake_if_it_beckons() {
    beckons();
    if
    :: seen -> wake()
    :: else
    fi
}

inline hand_on() {
    searching--;
#if MUTANT != 5
    wake_if_it_beckons()
#endif
}

/* To `seen`: it goes on, with a share. */
inline park(who) {
    acquire();
    parked[who] = true;
    idle++;
    ends = closing;
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
    ok = false;
    if
    :: seen || ends ->
        acquire();
        ok = parked[who];
        if
        :: ok -> unlink(who)
        :: else
        fi;
        release()
    :: else
    fi;
    if
    :: ok && seen -> searching++
    :: ok && !seen
    :: !ok ->
end_asleep:
        atomic { posted[who] -> posted[who] = false };
        seen = true
    fi
}

inline close_parking() {
    acquire();
#if MUTANT != 6
    closing = true;
#endif
    if
    :: parked[0] -> unlink(0); searching++; posted[0] = true
    :: else
    fi;
    if
    :: parked[LAST_OWN] -> unlink(LAST_OWN); searching++; posted[LAST_OWN] = true
    :: else
    fi;
    release()
}

inline give_back() {
#if MUTANT == 7
    idle++;
    searching--;
    wake_if_it_beckons()
#elif MUTANT == 8
    searching--;
    wake_if_it_beckons();
    acquire();
    idle++;
    release()
#else
    acquire();
    idle++;
    release();
    hand_on()
#endif
}

/* To `ok`. */
inline lend(has_place) {
    acquire();
    ok = asked && has_place;
#if MUTANT == 9
    asked = false;
#else
    if
    :: ok -> asked = false
    :: else
    fi;
#endif
    release()
}

/* With the lock, to `ok`: it is to be given back. */
inline take_back() {
#if MUTANT == 10
    ok = false;
#else
    ok = asked;
    asked = false;
#endif
}

/* A seat to `seat`, or SEATS: there is none. */
inline sit() {
    seat = SEATS;
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
    wake_if_it_beckons()
#endif
}
