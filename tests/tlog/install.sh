#!/bin/sh
# Make .tools/tlog-check from the files of this folder, with the modules that go.mod pins and go.sum knows. A second run with the
# same files does nothing. Every failure is one line that says what to do.
set -eu
cd "$(dirname "$0")/../.."

fail() { echo "palisade: $1" >&2; exit 1; }

PATH=$PATH:/usr/local/go/bin
export PATH
tool=.tools/tlog-check
version=$(cd tests/tlog && cksum main.go go.mod go.sum install.sh)
[ -x $tool ] && [ "$(cat $tool.version 2>/dev/null)" = "$version" ] && exit 0

demo/require.sh go

echo "palisade: building $tool (for the tests, once: half a minute of CPU time, 5 MB) ..."
mkdir -p .tools
log=$(mktemp "$PWD/.tools/tlog-check-build.XXXXXX")
trap 'rm -f "$log" "$log.tool"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# What go.sum does not know is not used.
(cd tests/tlog && GOFLAGS="-buildvcs=false -mod=readonly" GOTOOLCHAIN=local go build -trimpath -ldflags "-s -w" -o "$log.tool" .) >"$log" 2>&1 ||
    fail "tests/tlog cannot be built: $(tail -n 1 "$log")"
rm -f $tool.version
mv "$log.tool" $tool
echo "$version" >$tool.version
