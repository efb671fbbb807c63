#!/bin/sh
# Build Palisade: `build.sh release` or `build.sh debug`.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "palisade: $1" >&2; exit 1; }

profile=${1:-debug}
demo/require.sh cargo cc

[ -x "target/$profile/palisade" ] || echo "palisade: building ($profile; the first time takes some minutes) ..."
case $profile in
    release) exec cargo build --locked --release ;;
    debug) exec cargo build --locked ;;
    *) fail "unknown profile '$profile': release or debug" ;;
esac
