#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/deps.sh          install what building and testing need (Debian, Ubuntu)
# tools/deps.sh --bench  that, and what only benchmarks need: peers and tools
# tools/deps.sh --trust  the first, and what `make trust`, `make fuzz` and the models need
# tools/deps.sh --check  only say whether what building needs is there
set -eu

packages="build-essential pkg-config cmake ninja-build libuv1-dev
    lua5.4 liblua5.4-dev lua5.3 liblua5.3-dev lua5.1 liblua5.1-0-dev luajit libluajit-5.1-dev
    luarocks lua-argparse lua-dkjson lua-term lua-cjson lua-busted lua-check lua-luv lua-cqueues
    lua-socket clang-format cppcheck"

bench_packages="libtbb-dev valgrind gnuplot-nox"

trust_packages="spin relacy-dev clang-14 libclang-rt-14-dev valgrind dpkg-dev"

lacking() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
    for library in libuv lua5.4; do
        pkg-config --exists "$library" 2>/dev/null || echo "$library (development files)"
    done
}

stop_if_lacking() {
    [ -z "$1" ] && return
    echo "tidemill needs:" $1 >&2
    echo "$2" >&2
    exit 1
}

uninstalled() {
    for package in $packages; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^.i' ||
            echo "$package"
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
        -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"
}

case ${1-} in
--bench) packages="$packages $bench_packages" ;;
--trust) packages="$packages $trust_packages" ;;
esac

if [ "${1-}" = --check ]; then
    stop_if_lacking "$(lacking cc cmake ninja pkg-config)" "Run \`make deps\`."
elif command -v apt-get >/dev/null; then
    missing=$(uninstalled)
    [ -z "$missing" ] && exit
    echo "installing" $missing
    apt update >/dev/null
    apt install --no-install-recommends $missing >/dev/null
else
    stop_if_lacking "$(lacking cc cmake ninja pkg-config lua5.4 lua5.3 lua5.1 luajit luarocks \
        busted luacheck clang-format cppcheck)" "Install them with your system's package manager."
fi
