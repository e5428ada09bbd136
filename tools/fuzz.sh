#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/fuzz.sh SECONDS [TARGET...]
# Fuzzes each target (value, declare, carry) for so long, from spec/fuzz/corpus/TARGET on. What is new
# there afterwards lies in build/fuzz/TARGET, and what fails in build/fuzz.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
seconds=$1
shift
work=$root/build/fuzz
mkdir -p "$work"
cd "$root"
compiler=${CLANG-$(command -v clang-14 || command -v clang || true)}
[ -n "$compiler" ] || { echo "clang is not installed: tools/deps.sh --trust" >&2; exit 1; }
sources=$(grep -o '"\(engine\|bindings\)/[a-z0-9_/]*[.]c"' ./*.rockspec | tr -d '"')

"$compiler" -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -rdynamic -I. \
    $(pkg-config --cflags lua5.4 libuv) $sources spec/fuzz/fuzz.c -o "$work/fuzz" \
    $(pkg-config --libs lua5.4 libuv) -lm -ldl -lpthread

failed=0
for target in ${*:-value declare carry}; do
    mkdir -p "$work/$target" "spec/fuzz/corpus/$target"
    echo "fuzzing $target for $seconds s"
    TIDEMILL_FUZZ=$target ASAN_OPTIONS=detect_leaks=0 tools/with 5.4 "$work/fuzz" -max_total_time="$seconds" \
        -max_len=400 -timeout=20 -rss_limit_mb=4096 -artifact_prefix="$work/$target-" -print_final_stats=1 \
        "$work/$target" "spec/fuzz/corpus/$target" >"$work/$target.log" 2>&1 || {
        tail -40 "$work/$target.log"
        failed=1
        continue
    }
    grep "number_of_executed_units\|average_exec" "$work/$target.log"
done
exit $failed
