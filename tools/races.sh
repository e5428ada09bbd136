#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/races.sh tsan|helgrind
# Looks for data races in the engine and in Lua's own code: with the thread sanitizer, on a Lua that is made for it
# (tools/tsan_lua.sh), or with Helgrind, which sees into all code there is. Each has to find planted ones first.
set -u
cd "$(dirname "$0")/.."
failed=

run() {
    name=$1
    shift
    printf '%s: ' "$name"
    if timeout -k 10 900 "$@" >"$log" 2>&1; then
        echo ok
    else
        echo "FAILED ($?)"
        cat "$log"
        failed="$failed $name"
    fi
}

# With what it has to say.
run_planted() {
    what=$1
    shift
    if timeout -k 10 100 "$@" 2>&1 | grep -q "$what"; then
        echo "planted: found: $what"
    else
        echo "planted: NOT FOUND: $what"
        failed="$failed planted"
    fi
}

tsan() {
    run_planted "data race" build/tsanlua-5.4/spec/intruder in-turn
    run_planted "two threads are in one Lua state" build/tsanlua-5.4/spec/intruder together
    ctest --test-dir build/tsanlua-5.4 --output-on-failure --no-tests=error || failed="$failed ctest"
    tools/apart.sh tsanlua-5.4 || failed="$failed specs"
}

helgrind() {
    valgrind --tool=helgrind --history-level=approx --error-exitcode=9 --suppressions=spec/c/helgrind.supp "$@"
}

helgrind() {
    tests=build/helgrind-5.4/spec
    # To see both sides of a report: --history-level=full, which takes several times as long.
    valgrind="valgrind --tool=helgrind --history-level=approx --error-exitcode=9 --suppressions=spec/c/helgrind.supp"
    log=$tests/helgrind.log
    run_planted "data race" $valgrind $tests/intruder in-turn
    for test in $tests/*_test; do
        case ${test##*/} in
        dag_test | error_test | plan_test | suggest_test | value_test | schedule_test) ;; # one thread at a time
        heap_test | memory_test) ;; # have an allocator of their own, as Helgrind has
        *) run "${test##*/}" $valgrind "$test" ;;
        esac
    done
    for test in api embed engine executor random run stress; do
        run "${test}_test, shared" env TIDEMILL_POOL=shared $valgrind "$tests/${test}_test"
    done
    for spec in run engine limits push stream; do
        run "${spec}_spec" tools/with helgrind-5.4 $valgrind lua "$(command -v busted)" "spec/${spec}_spec.lua"
    done
}

"$1"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
