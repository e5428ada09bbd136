#!/bin/sh
# SPDX-License-Identifier: MIT
# spec/models/check.sh
# Checks each model with Spin: it holds, and none of its mutants does.
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
    for mutant in $(sed -n 's/^ \*   \([1-9]\) .*/\1/p' "$here/$model.pml"); do
        found=0
        for ways; do found="$found $(errors "$model" "$mutant" $ways | cut -d " " -f 1)"; done
        case $found in
        *[1-9]*) echo "$model: mutant $mutant fails" ;;
        *) echo "$model: mutant $mutant SURVIVES" >&2; failed=1 ;;
        esac
    done
}

check park "-DTHREADS=2 -DSENDERS=2" "-DTHREADS=1 -DSENDERS=3"
check settle "-DONE_RUN"

# more definitions: whether Relacy finds nothing wrong
relacy() {
    c++ -std=c++17 -O2 -w -fpermissive "-I$here/../.." "$@" "$here/relacy.cpp" -o relacy || exit 1
    ./relacy >relacy.log
}

if relacy; then cat relacy.log; else cat relacy.log >&2; failed=1; fi
for order in SC_LOAD=rl::mo_acquire SC_STORE=rl::mo_release SC_RMW=rl::mo_relaxed RELEASE=rl::mo_relaxed; do
    if relacy "-D$order"; then
        echo "relacy: $order SURVIVES" >&2
        failed=1
    else
        echo "relacy: $order: $(sed -n 's/relacy: \([a-z]*\): FAILS.*/\1/p' relacy.log | paste -sd " " -) fails"
    fi
done
exit $failed
