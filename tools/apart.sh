#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/apart.sh VARIANT
# Runs each spec in a process of its own, one per core at a time: the thread sanitizer keeps something of every thread
# that ever was, so one process for all of them grows to gigabytes and slows down.
set -u
logs=build/logs/apart-$1
rm -rf "$logs"
mkdir -p "$logs"
export logs variant="$1"
ls -S spec/*_spec.lua | xargs -P "$(nproc)" -I{} sh -c '
    log=$logs/$(basename {} .lua)
    timeout --foreground -k 10 900 tools/with "$variant" busted {} >"$log" 2>&1 || { echo "failed: {}"; touch "$log.failed"; }
    cat "$log"'
! ls "$logs"/*.failed >/dev/null 2>&1
