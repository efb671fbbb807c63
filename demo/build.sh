#!/bin/sh
# Build Palisade: `build.sh release` or `build.sh debug`. Every missing prerequisite is one line that says what to do.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "palisade: $1" >&2; exit 1; }

profile=${1:-debug}
command -v cargo >/dev/null 2>&1 || fail "cargo is missing: install Rust from https://rustup.rs"
command -v cc >/dev/null 2>&1 || fail "cc is missing: Rust needs a C compiler and linker (on Debian and Ubuntu: apt install build-essential)"

[ -x "target/$profile/palisade" ] || echo "palisade: building ($profile; the first time takes some minutes) ..."
case $profile in
    release) exec cargo build --locked --release ;;
    debug) exec cargo build --locked ;;
    *) fail "unknown profile '$profile': release or debug" ;;
esac
