#!/bin/sh
# Installs Debian packages whose programs are missing: `packages.sh ip:iproute2 redis-server:redis-server`. Where that cannot be done, one
# line says which they are.
set -eu

missing=
for pair; do
    # Administrators' programs are not in everybody's path.
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "palisade: missing:$missing; install them (on Debian and Ubuntu: apt install$missing) and run this again" >&2
    exit 1
fi
echo "installing$missing" >&2
apt-get update -qq
# shellcheck disable=SC2086 # one word each
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
