#!/bin/sh
# Make tests/a2a/node_modules with what package-lock.json pins. A second run with the same file does nothing.
# Every failure is one line that says what to do.
set -eu
cd "$(dirname "$0")"

fail() { echo "palisade: $1" >&2; exit 1; }

../../demo/require.sh node npm

# Same packages, same Node: same folder.
stamp=$(node -e 'const { createHash } = require("crypto"), { readFileSync } = require("fs")
console.log(createHash("sha256").update(readFileSync("package-lock.json")).digest("hex"), process.version)') ||
    fail "node cannot read tests/a2a/package-lock.json"
[ "$(cat node_modules/.stamp 2>/dev/null)" = "$stamp" ] && exit 0

echo "palisade: setting up tests/a2a/node_modules (the A2A SDK of the tests: 26 MB, once) ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
npm ci --no-progress >"$log" 2>&1 ||
    fail "npm could not install tests/a2a/package-lock.json: $(grep -m 1 -i '^npm err' "$log" || tail -n 1 "$log")"
echo "$stamp" >node_modules/.stamp
