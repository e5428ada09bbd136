#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/tsan_lua.sh DIRECTORY
# Makes a Lua 5.4 there, from the source of Debian's package, that the thread sanitizer sees into and
# that aborts when two threads are in one state (tools/tsan_lua.h). It also checks its API's use.
set -eu
header=$(cd "$(dirname "$0")" && pwd)/tsan_lua.h
mkdir -p "$1"
cd "$1"
prefix=$PWD

# Apt with lists of its own: most machines have none of source packages, and this one's stay as they
# are.
mkdir -p apt/parts apt/lists/partial apt/cache/archives/partial
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$list" ] && sed -n 's/^deb\(-src\)\{0,1\} /deb-src /p' "$list"
done | sort -u >apt/parts/sources.list
for list in /etc/apt/sources.list.d/*.sources; do
    [ -f "$list" ] && sed 's/^Types:.*/Types: deb-src/' "$list" >"apt/parts/${list##*/}"
done

own_apt() {
    apt-get -qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$prefix/apt/parts" \
        -o "Dir::State::Lists=$prefix/apt/lists" -o "Dir::Cache=$prefix/apt/cache" \
        -o Acquire::Retries=3 -o APT::Sandbox::User=root "$@"
}

rm -rf lua5.4-*
own_apt update
own_apt source lua5.4 >apt/source.log

mkdir -p bin include lib/pkgconfig
cp lua5.4-*/src/lua.h lua5.4-*/src/luaconf.h lua5.4-*/src/lualib.h lua5.4-*/src/lauxlib.h include
echo "#define DEB_HOST_MULTIARCH \"$(cc -print-multiarch)\"" >include/lua5.4-deb-multiarch.h

flags="-std=gnu99 -O2 -g -fsanitize=thread -fno-omit-frame-pointer"
library=$(ls lua5.4-*/src/*.c | grep -v '/luac\{0,1\}\.c$')
define="-DLUA_USE_LINUX -DLUA_COMPAT_5_3 -DLUA_USE_APICHECK"
cc $flags $define -Iinclude -include "$header" -fPIC -shared -Wl,-soname,liblua5.4.so.0 \
    -o lib/liblua5.4.so.0 $library -lm -ldl
ln -sf liblua5.4.so.0 lib/liblua5.4.so
cat >lib/pkgconfig/lua5.4.pc <<PC
Name: Lua
Description: Lua 5.4 for the thread sanitizer
Version: $(sed -n 's/^#define LUA_VERSION_RELEASE.*"\([0-9]*\)"$/5.4.\1/p' include/lua.h)
Libs: -L$prefix/lib -llua5.4
Cflags: -I$prefix/include
PC
cc $flags $define -Iinclude -Wl,-rpath,"$prefix/lib" -o bin/lua5.4 lua5.4-*/src/lua.c -Llib -llua5.4
