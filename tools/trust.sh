#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/trust.sh MINUTES
# What checks the promises of docs/trust.md and takes long: models, mutants, 100,000 schedules, races, each allocation
# refused, accidents a hundred times; then soaking and fuzzing for the minutes that are given.
set -u
cd "$(dirname "$0")/.."
minutes=$1
failed=

check() {
    name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed="$failed $name"
}

check models spec/models/check.sh
check mutants tools/mutants.sh
check schedules env TIDEMILL_SCHEDULES=100000 build/5.4/spec/schedule_test
check asan-schedules env TIDEMILL_SCHEDULES=20000 build/asan-5.4/spec/schedule_test
check tsan tools/races.sh tsan
check helgrind tools/races.sh helgrind
check memory env TIDEMILL_STRIDE=1 tools/with 5.4 busted spec/memory_spec.lua
check accidents env TIDEMILL_ACCIDENTS=100 tools/with 5.4 busted spec/accident_spec.lua
check oracle env TIDEMILL_ORACLE_DAGS=5000 tools/with 5.4 busted spec/oracle_spec.lua
check soak make soak SOAK_MINUTES="$minutes"
check asan-soak make soak SOAK_MINUTES="$minutes" VARIANT=asan-5.4
check fuzz tools/fuzz.sh "$((minutes * 15))"

echo
if [ -n "$failed" ]; then
    echo "tidemill: trust FAILED:$failed"
    exit 1
fi
echo "tidemill: trust: all passed"
