#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the rock from a copy of the tree, for every Lua and without a network, and runs the
# installed command from elsewhere. A copy, because LuaRocks builds in place and what it leaves
# there would be found before what it installed.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM

mkdir "$scratch/home" "$scratch/elsewhere"
cat >"$scratch/elsewhere/shout.dag.lua" <<'LUA'
local tm = require "tidemill"
return tm.dag { name = "shout", tm.transform("upper", string.upper) }
LUA
echo "hello from the rock" >"$scratch/elsewhere/input.txt"

# Debian packages these modules, but LuaRocks only counts rocks.
configure() {
    echo 'rocks_provided = { argparse = "0.7.1-1", dkjson = "2.6-1", ["lua-term"] = "0.7-1", luv = "1.44.2-0" }'
    echo "lua_interpreter = \"$1\""
    echo "variables = { LUA_INCDIR = \"$(pkg-config --cflags-only-I "$1" | sed 's/^-I//; s/ .*//')\" }"
}

clean_env() {
    env -i PATH="$PATH" HOME="$scratch/home" LUAROCKS_CONFIG="$scratch/config.lua" "$@"
}

# install_and_run INTERPRETER VERSION
install_and_run() {
    source=$scratch/$1/source
    tree=$scratch/$1/tree
    mkdir -p "$source"
    tar -C "$root" --exclude-vcs --exclude=./build --exclude='*.o' --exclude='*.so' -cf - . |
        tar -C "$source" -xf -
    configure "$1" >"$scratch/config.lua"
    (cd "$source" && clean_env luarocks --lua-version "$2" --tree "$tree" make) \
        >"$scratch/log" 2>&1 || { cat "$scratch/log"; return 1; }
    rm -r "$source"
    cd "$scratch/elsewhere"
    clean_env "$tree/bin/tidemill" run shout.dag.lua --input input.txt >"$scratch/log" 2>&1 &&
        grep -q "HELLO FROM THE ROCK" "$scratch/log" || { cat "$scratch/log"; return 1; }
    echo "rock: $1 ok"
}

install_and_run lua5.4 5.4
install_and_run lua5.3 5.3
install_and_run lua5.1 5.1
install_and_run luajit 5.1
