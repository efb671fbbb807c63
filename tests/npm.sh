#!/bin/sh
# npm.sh FOLDER WHAT: make tests/FOLDER/node_modules with what its package-lock.json pins. A second run with the same file does
# nothing. Every failure is one line that says what to do.
set -eu
folder=tests/$1
cd "$(dirname "$0")/$1"

fail() { echo "palisade: $1" >&2; exit 1; }

../../demo/require.sh node npm

# Same packages, same Node: same folder.
stamp=$(node -e 'const { createHash } = require("crypto"), { readFileSync } = require("fs")
console.log(createHash("sha256").update(readFileSync("package-lock.json")).digest("hex"), process.version)') ||
    fail "node cannot read $folder/package-lock.json"
[ "$(cat node_modules/.stamp 2>/dev/null)" = "$stamp" ] && exit 0

echo "palisade: setting up $folder/node_modules ($2, once) ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
npm ci --no-progress >"$log" 2>&1 ||
    fail "npm could not install $folder/package-lock.json: $(grep -m 1 -i '^npm err' "$log" || tail -n 1 "$log")"
echo "$stamp" >node_modules/.stamp
