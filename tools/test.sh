#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/test.sh TARGET...
# Makes every target, whatever becomes of the others, and ends with one line about them all.
set -u
logs=build/logs
mkdir -p "$logs"
started=$(date +%s)
failed=

for target in "$@"; do
    log=$logs/$target.log
    printf '\n== %s\n' "$target"
    { make "$target" 2>&1; echo $? >"$log.status"; } | tee "$log"
    [ "$(cat "$log.status")" = 0 ] || failed="$failed $target"
done

# busted: "12 successes / 0 failures / ..."; ctest: "100% tests passed, 0 tests failed out of 5".
passed=$(cd "$logs" && cat $(printf '%s.log ' "$@") | awk '
    / successes? \/ / { n += $1 }
    / tests failed out of / { n += $NF - $4 }
    END { print n + 0 }')
seconds=$(($(date +%s) - started))

echo
if [ -n "$failed" ]; then
    echo "tidemill: FAILED:$failed ($passed tests passed, $seconds s; logs in $logs)"
    exit 1
fi
echo "tidemill: all passed: $* ($passed tests, $seconds s)"
