#!/bin/sh
# Make .tools/deploy/istio-crds with the CustomResourceDefinitions of Istio and of the Gateway API, taken from the modules that
# tools/istio-crds/go.mod pins and go.sum knows. A second run with the same files does nothing. A failure is one line.
set -eu
cd "$(dirname "$0")/../.."

fail() { echo "palisade: $1" >&2; exit 1; }

PATH=$PATH:/usr/local/go/bin
export PATH
module=tests/deploy/tools/istio-crds
folder=.tools/deploy/istio-crds
version=$(cd $module && cksum go.mod go.sum)
[ "$(cat $folder/.version 2>/dev/null)" = "$version" ] && exit 0

demo/require.sh go
mkdir -p .tools/deploy
work=$(mktemp -d "$PWD/.tools/deploy/crds.XXXXXX")
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export GOMODCACHE="$work/modules" GOFLAGS="-modcacherw -mod=readonly" GOTOOLCHAIN=local
mkdir "$work/crds"
for name in istio.io/api sigs.k8s.io/gateway-api; do
    (cd $module && go mod download "$name") >"$work/log" 2>&1 || fail "$name cannot be downloaded: $(tail -n 1 "$work/log")"
done
cp "$GOMODCACHE"/istio.io/api@*/kubernetes/customresourcedefinitions.gen.yaml "$work/crds/istio.yaml"
cp "$GOMODCACHE"/sigs.k8s.io/gateway-api@*/config/crd/standard/gateway.networking.k8s.io_gateways.yaml "$work/crds/"
echo "$version" >"$work/crds/.version"
rm -rf $folder
mv "$work/crds" $folder
