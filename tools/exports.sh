#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/exports.sh LIBTIDEMILL LIBTIDEMILL_LUA CORE
# The shared libraries export what spec/fixtures/exports.txt lists, and nothing else: first what
# both have, then what libtidemill-lua has besides. The module exports what Lua looks for.
set -eu
list=$(cd "$(dirname "$0")/.." && pwd)/spec/fixtures/exports.txt
failed=0

exports() {
    nm -D --defined-only "$1" | sed 's/.* //; s/@.*//' | grep -v '^_\(init\|fini\)$' | LC_ALL=C sort
}

# compare FILE EXPECTED
compare() {
    if [ "$(exports "$1")" != "$2" ]; then
        echo "$1 exports other names than expected:"
        { exports "$1"; echo "$2"; } | LC_ALL=C sort | uniq -u
        failed=1
    fi
}

compare "$1" "$(grep -v '^tide_lua_\|^lua' "$list" | LC_ALL=C sort)"
compare "$2" "$(LC_ALL=C sort "$list")"
compare "$3" luaopen_tidemill_core
exit "$failed"
