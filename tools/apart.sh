#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/apart.sh VARIANT
# Runs each spec in a process of its own: the thread sanitizer keeps something of every thread that
# ever was, so one process for all of them grows to gigabytes and slows down.
set -u
failed=
for spec in spec/*_spec.lua; do
    timeout --foreground -k 10 900 tools/with "$1" busted "$spec" || failed="$failed $spec"
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
