// The modules whose CustomResourceDefinitions the manifests of istio/ are held against: tests/deploy/istio-crds.sh.
module palisade.test/istio-crds

go 1.26.0

require (
	istio.io/api v1.31.1
	sigs.k8s.io/gateway-api v1.6.1
)
