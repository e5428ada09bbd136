#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/install_check.sh [LUA...]
# Installs into an empty prefix and uses what is there, and nothing of the tree: builds the example
# hosts with pkg-config and with find_package, shared and static, and runs them; compiles the
# headers as C and as C++; runs the installed command. Default: 5.4 and luajit.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM
unset LUA_PATH LUA_CPATH LUA_INIT LD_LIBRARY_PATH PKG_CONFIG_PATH CMAKE_PREFIX_PATH

warnings="-Wall -Wextra -Werror"

# quietly COMMAND...: its output only if it fails
quietly() {
    "$@" >"$scratch/log" 2>&1 || { echo "failed: $*"; cat "$scratch/log"; exit 1; }
}

# same WHAT EXPECTED ACTUAL
same() {
    [ "$2" = "$3" ] || { echo "$1 printed:"; echo "$3"; echo "expected:"; echo "$2"; exit 1; }
}

headers() {
    for header in tidemill.h tidemill_lua.h; do
        printf '#include <%s>\n#include <%s>\nint main(void) { return tide_version() == 0; }\n' \
            $header $header >"$work/header.c"
        cp "$work/header.c" "$work/header.cpp"
        quietly cc -std=c99 -pedantic $warnings $cflags -c -o "$work/header.o" "$work/header.c"
        quietly c++ -std=c++11 -pedantic $warnings $cflags -c -o "$work/header.o" \
            "$work/header.cpp"
    done
    quietly cc $cflags -o "$work/engine_only" "$work/header.c" $(pkg-config --libs tidemill)
    quietly env LD_LIBRARY_PATH="$prefix/lib" "$work/engine_only"
}

# hosts WHERE HOW: the programs in WHERE do what they should
hosts() {
    text=$(cd / && LD_LIBRARY_PATH=$libraries "$1/run_script" "$work/words.dag.lua" "ebb" "a b c")
    same "run_script ($2)" "EBB (1)
A B C (3)" "$text"
    if LD_LIBRARY_PATH=$libraries "$1/run_script" /nowhere.lua x 2>"$work/stderr"; then
        echo "run_script ($2) runs a script that is not there"
        exit 1
    fi
    grep -q 'invalid_dag: .*cannot open the script' "$work/stderr"
    text=$(cd / && LD_LIBRARY_PATH=$libraries "$1/uv_host" "$work/hosts/letters.dag.lua" \
        "ebb and flow" " high tide " | LC_ALL=C sort)
    same "uv_host ($2)" "ebb and flow: 3 vowels, 3 words
high tide: 3 vowels, 2 words
the timer ticked meanwhile: yes" "$text"
}

stands_alone() {
    if ldd "$1" | grep libtidemill; then
        echo "$1 is not linked statically"
        exit 1
    fi
}

with_pkg_config() {
    for host in run_script uv_host; do
        quietly cc $warnings $cflags -o "$work/$host" "$work/hosts/$host.c" \
            $(pkg-config --libs tidemill-lua libuv)
    done
    libraries=$prefix/lib
    hosts "$work" "pkg-config, shared"
    for host in run_script uv_host; do
        quietly cc $warnings $cflags -o "$work/$host" "$work/hosts/$host.c" \
            $(pkg-config --static --libs tidemill-lua libuv |
                sed 's/-ltidemill-lua/-l:libtidemill-lua.a/')
    done
    libraries=
    stands_alone "$work/uv_host"
    hosts "$work" "pkg-config, static"
}

with_cmake() {
    for static in OFF ON; do
        quietly cmake -S "$work/hosts" -B "$work/cmake-$static" -DSTATIC=$static \
            -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS="$warnings"
        quietly cmake --build "$work/cmake-$static"
        libraries=
        hosts "$work/cmake-$static" "find_package, static $static"
    done
    stands_alone "$work/cmake-ON/uv_host"
}

command_runs() {
    text=$(cd / && echo hello | "$prefix/bin/tidemill" run "$work/words.dag.lua")
    case $text in
    *"HELLO"*) ;;
    *) echo "the installed command printed: $text"; exit 1 ;;
    esac
}

check() {
    prefix=$scratch/$1/prefix
    work=$scratch/$1/work
    mkdir -p "$work"
    quietly cmake -G Ninja -S "$root" -B "$scratch/$1/build" -DTIDEMILL_LUA="$1" \
        -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_BUILD_TYPE=Release
    quietly cmake --build "$scratch/$1/build" --target tidemill engine lua lua_static core
    quietly cmake --install "$scratch/$1/build"
    rm -r "$scratch/$1/build"
    cp -r "$root/scripts/hosts" "$work/hosts"
    cat >"$work/words.dag.lua" <<'LUA'
local tm = require "tidemill"
return tm.dag {
  name = "words",
  tm.transform("upper", string.upper),
  tm.transform("count", { depends_on = "upper", run = function(text)
    local _, count = text:gsub("%S+", "")
    return ("%s (%d)"):format(text, count)
  end }),
}
LUA
    export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
    cflags=$(pkg-config --cflags tidemill-lua)
    headers
    with_pkg_config
    with_cmake
    command_runs
    echo "installed: $1 ok"
}

for lua in ${@:-5.4 luajit}; do
    check "$lua"
done
