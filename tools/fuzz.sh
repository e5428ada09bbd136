#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/fuzz.sh SECONDS [TARGET...]
# Fuzzes each target (value, declare, carry, calls) for so long, from spec/fuzz/corpus/TARGET on. What is
# new there afterwards lies in build/fuzz/TARGET, and what fails in build/fuzz.
#
# tools/fuzz.sh --shrink [TARGET...]
# Replaces spec/fuzz/corpus/TARGET by some small inputs of the two.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
seconds=$1
shift
work=$root/build/fuzz
most_files=30
most_bytes=300
mkdir -p "$work"
cd "$root"
compiler=${CLANG-$(command -v clang-14 || command -v clang || true)}
[ -n "$compiler" ] || { echo "clang is not installed: tools/deps.sh --trust" >&2; exit 1; }
listed() { grep -o "\"$1/[a-z0-9_/]*[.]c\"" ./*.rockspec | tr -d '"'; }

# compile PROGRAM PACKAGES SOURCE...
compile() {
    program=$1
    packages=$2
    shift 2
    "$compiler" -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -rdynamic \
        -I. -Iengine/include $(pkg-config --cflags $packages) "$@" -o "$work/$program" \
        $(pkg-config --libs $packages) -lm -ldl -lpthread
}

# The program of a target; Lua keeps what it has until it closes.
program_of() { [ "$1" = calls ] && echo calls-fuzz || echo fuzz; }
leaks_of() { [ "$1" = calls ] && echo 1 || echo 0; }

# fuzz TARGET OPTION...
fuzz() {
    target=$1
    shift
    TIDEMILL_FUZZ=$target ASAN_OPTIONS=detect_leaks=$(leaks_of "$target") tools/with 5.4 \
        "$work/$(program_of "$target")" -timeout=20 -rss_limit_mb=4096 -artifact_prefix="$work/$target-" \
        "$@" >"$work/$target.log" 2>&1
}

# Of inputs that are small, those that are needed for what all of them reach; then the smallest.
shrink() {
    target=$1
    corpus=spec/fuzz/corpus/$target
    small=$work/$target-small
    merged=$work/$target-merged
    rm -rf "$small" "$merged"
    mkdir -p "$small" "$merged"
    find "$corpus" "$work/$target" -type f -size -"$((most_bytes + 1))c" -exec cp {} "$small" \;
    fuzz "$target" -merge=1 "$merged" "$small" || return 1
    rm -rf "$corpus"
    mkdir -p "$corpus"
    ls -S "$merged" | awk -v most="$most_files" '
        { name[NR] = $0 }
        END { for (i = 0; i < most && i < NR; i++) print name[1 + int(i * NR / (NR < most ? NR : most))] }' |
        while read -r name; do cp "$merged/$name" "$corpus"; done
}

failed=0
for target in ${*:-value declare carry calls}; do
    mkdir -p "$work/$target" "spec/fuzz/corpus/$target"
    if [ "$target" = calls ]; then
        compile calls-fuzz libuv $(listed engine) spec/fuzz/calls*.c
    elif [ "${compiled-}" != yes ]; then
        compile fuzz "lua5.4 libuv" $(listed engine) $(listed bindings) spec/fuzz/fuzz.c
        compiled=yes
    fi
    if [ "$seconds" = --shrink ]; then
        shrink "$target" || failed=1
        continue
    fi
    echo "fuzzing $target for $seconds s"
    fuzz "$target" -max_total_time="$seconds" -max_len=400 -print_final_stats=1 "$work/$target" \
        "spec/fuzz/corpus/$target" || {
        tail -40 "$work/$target.log"
        failed=1
        continue
    }
    grep "number_of_executed_units\|average_exec" "$work/$target.log"
done
exit $failed
