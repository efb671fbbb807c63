#!/bin/sh
# Look whether programs are there: `require.sh cargo cc python3`. The first that is missing is one line that says what to do.
set -eu

fail() { echo "palisade: $1" >&2; exit 1; }

for program; do
    command -v "$program" >/dev/null 2>&1 && found=yes || found=
    case $program in
        cargo) [ "$found" ] || fail "cargo is missing: install Rust from https://rustup.rs" ;;
        cc) [ "$found" ] || fail "cc is missing: Rust needs a C compiler and linker (on Debian and Ubuntu: apt install build-essential)" ;;
        python3)
            [ "$found" ] || fail "python3 is missing: install Python 3.11 or newer"
            # Silent: Ctrl-C while Python starts would print a traceback.
            version=$(python3 -c 'import sys; print("%d.%d %d" % (*sys.version_info[:2], sys.version_info >= (3, 11)))' 2>/dev/null) ||
                fail "python3 does not work here"
            [ "${version#* }" = 1 ] || fail "python3 is ${version% *}: 3.11 or newer is needed"
            ;;
        node)
            [ "$found" ] || fail "node is missing: install Node.js 22 or newer, with npm (for the tests' identity provider and MCP SDKs)"
            version=$(node --version 2>/dev/null) || fail "node does not work here"
            # What the provider uses and older ones lack; the last releases of 20 have it too.
            node -e 'if (!require("crypto").hash || !URL.parse) process.exit(1)' 2>/dev/null ||
                fail "node is $version: 22 or newer is needed"
            ;;
        go)
            [ "$found" ] || fail "go is missing: install Go 1.26.2 or newer from https://go.dev/dl (for the tests' SPIRE and reader of logs)"
            # What SPIRE's go.mod asks for.
            version=$(go env GOVERSION 2>/dev/null) || fail "go does not work here"
            [ "$(printf 'go1.26.2\n%s\n' "$version" | sort -V | head -n 1)" = go1.26.2 ] ||
                fail "go is ${version#go}: 1.26.2 or newer is needed"
            ;;
        npm) [ "$found" ] || fail "npm is missing: it comes with Node.js (on Debian and Ubuntu: apt install npm)" ;;
        *) fail "nobody knows what to do without '$program'" ;;
    esac
done
