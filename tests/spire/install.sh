#!/bin/sh
# Make .tools/spire with SPIRE's server and agent, built from the pinned version by SPIRE's own go.mod and go.sum. A second run
# with the same version does nothing. Every failure is one line that says what to do.
set -eu
cd "$(dirname "$0")/../.."

# 1.15 needs a plugin's dependency that module proxies do not all have.
VERSION=v1.14.5

fail() { echo "palisade: $1" >&2; exit 1; }

tools=.tools/spire
[ "$(cat $tools/.version 2>/dev/null)" = "$VERSION" ] && exit 0

PATH=$PATH:/usr/local/go/bin
export PATH
demo/require.sh go cc

echo "palisade: building SPIRE $VERSION into $tools (for the tests, once: 18 minutes of CPU time, 4 GB meanwhile, 200 MB in the end) ..."
mkdir -p .tools
work=$(mktemp -d "$PWD/.tools/spire-build.XXXXXX")
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Of its own, to be removed: nobody else needs a gigabyte of clients for clouds.
export GOMODCACHE="$work/modules" GOCACHE="$work/cache" GOFLAGS="-buildvcs=false -modcacherw" GOTOOLCHAIN=local

go mod download "github.com/spiffe/spire@$VERSION" >"$work/log" 2>&1 ||
    fail "SPIRE $VERSION cannot be downloaded: $(tail -n 1 "$work/log")"
cp -R "$GOMODCACHE/github.com/spiffe/spire@$VERSION" "$work/source"
(cd "$work/source" && go build -ldflags "-s -w" -o "$work/" ./cmd/spire-server ./cmd/spire-agent) >"$work/log" 2>&1 ||
    fail "SPIRE $VERSION cannot be built: $(tail -n 1 "$work/log")"
rm -rf $tools
mkdir $tools
mv "$work/spire-server" "$work/spire-agent" $tools/
echo "$VERSION" >$tools/.version
