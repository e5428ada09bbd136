#!/bin/sh
# SPDX-License-Identifier: MIT
# spec/models/check.sh
# Checks each model with Spin, and the headers of the engine with Relacy: they hold, and none of their mutants does.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$here/../../build/models
mkdir -p "$work"
cd "$work"
command -v spin >/dev/null || { echo "spin is not installed: tools/deps.sh --trust" >&2; exit 1; }
failed=0

# model, mutant, more definitions: prints how many errors there are, and how many states
errors() {
    name=$1 mutant=$2
    shift 2
    spin "-DMUTANT=$mutant" "$@" -a "$here/$name.pml" >spin.log || { cat spin.log >&2; exit 1; }
    cc -O2 -w -DSAFETY -DMEMLIM=2000 -o pan pan.c || exit 1
    ./pan -m1000000 >pan.log
    if grep -q "search depth too small\|memory limit" pan.log; then cat pan.log >&2; exit 1; fi
    sed -n 's/.*errors: \([0-9]*\).*/\1/p; s/ *\([0-9]*\) states, stored.*/\1/p' pan.log | paste -sd " " -
}

# model, more definitions, ...: in each of these ways
check() {
    model=$1
    shift
    for ways; do
        found=$(errors "$model" 0 $ways)
        echo "$model $ways: ${found%% *} errors in ${found##* } states"
        [ "${found%% *}" = 0 ] || failed=1
    done
    for mutant in $(sed -n 's/^ \*  *\([0-9][0-9]*\) .*/\1/p' "$here/$model.pml"); do
        found=0
        for ways; do
            found=$(errors "$model" "$mutant" $ways | cut -d " " -f 1)
            [ "$found" = 0 ] || break
        done
        case $found in
        [1-9]*) echo "$model: mutant $mutant fails with $ways" ;;
        *) echo "$model: mutant $mutant SURVIVES" >&2; failed=1 ;;
        esac
    done
}

check park "-DTHREADS=2 -DSENDERS=2" "-DTHREADS=1 -DSENDERS=3" "-DTHREADS=2 -DSENDERS=1 -DCLOSE"
check lend "-DLIMIT=2 -DLENT=2 -DSENDERS=2" "-DLIMIT=1 -DLENT=1 -DSENDERS=3" "-DLIMIT=1 -DLENT=1 -DSENDERS=1 -DGUEST" \
    "-DLIMIT=1 -DLENT=1 -DSENDERS=2 -DCLOSE" "-DLIMIT=2 -DLENT=1 -DSENDERS=1 -DCLOSE -DREFUSED"
check settle "-DALONE" "-DLISTED"

# Relacy, and the engine's headers that it checks, which are copied so that they can be broken.
rm -rf engine
mkdir engine
cp "$here"/../../engine/*.h engine

# how it is built
build_relacy() {
    c++ -std=c++17 -w -fpermissive -I. "$@" "$here/relacy.cpp" -o relacy || exit 1
}

# what was done wrong; tests that may see it
must_fail() {
    what=$1
    shift
    if ./relacy "$@" >relacy.log 2>&1; then
        echo "relacy: $what: SURVIVES" >&2
        failed=1
    else
        echo "relacy: $what: fails in $(sed -n '/holds/d; s/relacy: \([a-z]*: [^,]*\),.*/\1/p' relacy.log)"
    fi
}

build_relacy -O2
./relacy || failed=1
for order in SC_LOAD=rl::mo_acquire SC_STORE=rl::mo_release SC_RMW=rl::mo_relaxed RELEASE=rl::mo_relaxed; do
    build_relacy "-D$order"
    must_fail "$order" deque
    must_fail "$order" park lend
done
sed -n 's/^ \*   \([1-9]\) \(.*\)/\1 \2/p' "$here/relacy.cpp" >mutants
while read -r mutant what; do
    build_relacy "-DMUTANT=$mutant"
    must_fail "$what" park lend
done <mutants

# what is done wrong; header; tests; how, for sed
while IFS="$(printf '\t')" read -r what header tests how; do
    sed "$how" "$here/../../engine/$header" >"engine/$header"
    if cmp -s "$here/../../engine/$header" "engine/$header"; then
        echo "$what: not in $header" >&2
        exit 1
    fi
    build_relacy
    must_fail "$what" $tests
    cp "$here/../../engine/$header" engine
done <<'MUTANTS'
no second look before parking	parking.h	park lend	s/bool beckons = parking->calls.*/bool beckons = false;/
the second look comes before the search is given up	parking.h	park lend	/^static inline bool ti_parking_park/,/^}/{/ti_parking_give_up/d;s/\(bool beckons = .*\)/\1 ti_parking_give_up(parking);/}
who parks is idle after the search is given up	parking.h	park lend	/^static inline bool ti_parking_park/,/^}/{/ti_add_sc/d;s/\(ti_parking_give_up.*\)/\1 ti_add_sc(\&parking->idle, 1u);/}
a waker only reads who searches	parking.h	park lend	s/ti_add_sc(&parking->searching, 0u)/ti_load_sc(\&parking->searching)/
a waker only reads who searches, with acquire	parking.h	park lend	s/ti_add_sc(&parking->searching, 0u)/ti_load_acquire(\&parking->searching)/
a waker does not release what it published	parking.h	park lend	s/ti_add_sc(&parking->searching, 0u)/(\&parking->searching)->fetch_add(0u, rl::mo_acquire, $)/
a search is given up without acquire	parking.h	park lend	s/ti_sub_sc(&parking->searching, 1u)/(\&parking->searching)->fetch_sub(1u, rl::mo_release, $)/
two wakers take one share	parking.h	park lend	s/ti_cas_sc(&parking->searching, &none, 1u)/(ti_store_sc(\&parking->searching, 1u), true)/
who is woken is posted nothing	parking.h	park lend	/^static inline void ti_parking_send/,/^}/s/ti_semaphore_post(.*);/(void)0;/
who gets up does not look whether it was woken	parking.h	park lend	/^static inline bool ti_parking_get_up/,/^}/s/    return is_parked;/    return true;/
who found something does not look for more	parking.h	park lend	/^static inline void ti_parking_hand_on/,/^}/s/if (.*)/if (false)/
a pool that closes lets its threads park	parking.h	park lend	/^static inline void ti_parking_close/,/^}/s/parking->closing = true;/(void)0;/
a pool that closes wakes nobody	parking.h	park lend	/^static inline void ti_parking_close/,/^}/s/ti_semaphore_post(.*);/(void)0;/
a borrowed thread is idle after the search is given up	parking.h	park lend	/^static inline void ti_parking_return/,/^}/{/ti_add_sc/d;s/ti_parking_hand_on(parking);/ti_parking_give_up(parking); ti_add_sc(\&parking->idle, 1u); if (parking->calls->beckons(parking->pool)) ti_parking_wake(parking);/}
a borrowed thread goes without a look	parking.h	park lend	s/ti_parking_hand_on(parking);/ti_parking_give_up(parking);/
who cannot lend forgets that he was asked	parking.h	park lend	s/bool asked = has_place && ti_parking_take_back(parking);/bool asked = ti_parking_take_back(parking) \&\& has_place;/
an item is pushed before it is there	deque.h	deque	/^static inline bool ti_deque_push/,/^}/{/ti_store_relaxed/d;s/\(ti_store_release.*\)/\1 ti_store_relaxed(\&deque->ring[bottom \& (TI_DEQUE_SIZE - 1)], node);/}
two take the last of a deque	deque.h	deque	s/if (top == bottom && .*)/if (false)/
a thief takes without a look whether it was faster	deque.h	deque	/^static inline struct ti_node \*ti_deque_steal/,/^}/s/return ti_cas_sc(\(.*\)) ? node : NULL;/return (ti_cas_sc(\1), node);/
an inbox that forgets what was sent	inbox.h	inbox	s/while (!ti_cas_sc(&inbox->newest, &newest, first));/while (ti_store_sc(\&inbox->newest, first), false);/
MUTANTS
exit $failed
