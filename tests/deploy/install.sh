#!/bin/sh
# Make .tools/deploy/NAME for each NAME that is given: a program that looks at what is deployed (helm, kubeconform …), built from the
# module tests/deploy/tools/NAME, whose go.mod names it as its tool and whose go.sum knows all of it; a file `tags` there has build tags.
# A second run with the same files does nothing. Every failure is one line that says what to do.
set -eu
cd "$(dirname "$0")/../.."

fail() { echo "palisade: $1" >&2; exit 1; }

PATH=$PATH:/usr/local/go/bin
export PATH

# Of its own, to be removed, and shared by all that are built now: what several need is compiled once.
work=
trap '[ -z "$work" ] || { chmod -R u+w "$work" && rm -rf "$work"; }' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for name; do
    module=tests/deploy/tools/$name
    [ -f "$module/go.mod" ] || fail "there is no $module/go.mod"
    program=.tools/deploy/$name
    version=$(cd "$module" && cksum -- *)
    [ -x "$program" ] && [ "$(cat "$program.version" 2>/dev/null)" = "$version" ] && continue

    tags=
    [ ! -f "$module/tags" ] || tags=$(cat "$module/tags")
    demo/require.sh go
    echo "palisade: building $program (for the tests, once) ..."
    mkdir -p .tools/deploy
    [ "$work" ] || work=$(mktemp -d "$PWD/.tools/deploy/build.XXXXXX")
    # What go.sum does not know is not used.
    (
        cd "$module"
        export GOMODCACHE="$work/modules" GOCACHE="$work/cache" GOFLAGS="-buildvcs=false -modcacherw -mod=readonly" GOTOOLCHAIN=local CGO_ENABLED=0
        go build -tags "$tags" -trimpath -ldflags "-s -w" -o "$work/" tool
    ) >"$work/log" 2>&1 || fail "$module cannot be built: $(tail -n 1 "$work/log")"
    rm -f "$program.version"
    mv "$work/$name" "$program"
    echo "$version" >"$program.version"
done
