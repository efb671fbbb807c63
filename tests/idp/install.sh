#!/bin/sh
# Make tests/idp/node_modules with what package-lock.json pins. A second run with the same file does nothing.
# Every failure is one line that says what to do.
set -eu
cd "$(dirname "$0")"

fail() { echo "palisade: $1" >&2; exit 1; }

../../demo/require.sh node npm

# Same packages, same Node: same folder.
stamp=$(node -e 'const { createHash } = require("crypto"), { readFileSync } = require("fs")
console.log(createHash("sha256").update(readFileSync("package-lock.json")).digest("hex"), process.version)') ||
    fail "node cannot read tests/idp/package-lock.json"
[ "$(cat node_modules/.stamp 2>/dev/null)" = "$stamp" ] && exit 0

echo "palisade: setting up tests/idp/node_modules (the identity provider of the tests: 4 MB, once) ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
npm ci --no-progress >"$log" 2>&1 ||
    fail "npm could not install tests/idp/package-lock.json: $(grep -m 1 -i '^npm err' "$log" || tail -n 1 "$log")"
echo "$stamp" >node_modules/.stamp
