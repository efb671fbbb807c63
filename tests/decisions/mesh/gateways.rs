//! Gateways of the Gateway API, whose pods istiod makes.

use std::collections::BTreeSet;

use super::istio::FILTERED;
use super::{Break, ISTIO, broken, codes, look};

/// A gateway whose pods istiod makes, and a policy and an EnvoyFilter that may be about them.
const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: partners, namespace: ingress, labels: { app: edge } }
spec:
  gatewayClassName: istio
  listeners: [{ name: https, port: 443, protocol: HTTPS, tls: { options: { gateway.istio.io/tls-terminate-mode: MUTUAL } } }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: partners, namespace: ingress }
spec:
  targetRefs: [{ kind: Gateway, group: gateway.networking.k8s.io, name: partners }]
  action: CUSTOM
  provider: { name: palisade }
  rules: [{}]
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: { name: partners, namespace: ingress }
spec:
  workloadSelector: { labels: { app: edge } }
  configPatches:
    - applyTo: HTTP_FILTER
      match: { context: GATEWAY, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.ext_authz } } } } }
      patch: { operation: MERGE, value: { typed_config: { "@type": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, encode_raw_headers: true, include_peer_certificate: true, validate_mutations: true } } }
    - applyTo: NETWORK_FILTER
      match: { context: GATEWAY, listener: { filterChain: { filter: { name: envoy.filters.network.http_connection_manager } } } }
      patch: { operation: MERGE, value: { typed_config: { "@type": x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, common_http_protocol_options: { headers_with_underscores_action: REJECT_REQUEST, max_stream_duration: 600s } } } }
"#;

/// A gateway of one's own, to which a Gateway's address leads.
const OWN_GATEWAY: &str = r#"
---
apiVersion: v1
kind: Service
metadata: { name: edge, namespace: ingress }
spec: { selector: { app: edge } }
---
apiVersion: v1
kind: Pod
metadata: { name: edge, namespace: ingress, labels: { app: edge } }
spec: { containers: [{ name: istio-proxy, image: auto }] }
"#;

/// What is replaced in `GATEWAY`, and what is found then.
const BREAKS: &[Break] = &[
    ("kind: AuthorizationPolicy", "kind: RequestAuthentication", &["unchecked"]),
    ("k8s.io, name: partners }]", "k8s.io, name: others }]", &["unchecked"]),
    ("namespace: ingress }\nspec:\n  targetRefs", "namespace: elsewhere }\nspec:\n  targetRefs", &["unchecked"]),
    // By the labels that its pods have.
    (REFERENCE, "selector: { matchLabels: { gateway.networking.k8s.io/gateway-name: partners } }", &[]),
    (REFERENCE, "selector: { matchLabels: { gateway.networking.k8s.io/gateway-name: others } }", &["unchecked"]),
    (REFERENCE, "selector: { matchLabels: { app: edge } }", &[]),
    (
        "  gatewayClassName: istio\n",
        "  infrastructure: { labels: { app: other } }\n  gatewayClassName: istio\n",
        FILTERED,
    ),
    // What is for sidecars is not for gateways.
    (
        "context: GATEWAY, listener: { filterChain: { filter: { name",
        "context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name",
        &["header-underscores", "stream-unbounded"],
    ),
    // An address that leads nowhere among the files.
    (
        "  gatewayClassName: istio\n",
        "  addresses: [{ type: Hostname, value: edge.ingress.svc.cluster.local }]\n  gatewayClassName: istio\n",
        &[],
    ),
];
const REFERENCE: &str = "targetRefs: [{ kind: Gateway, group: gateway.networking.k8s.io, name: partners }]";

#[test]
fn a_gateway_whose_pods_istiod_makes_needs_a_policy() {
    let mesh = ISTIO.to_owned() + "---" + GATEWAY;
    let (mut found, mut wrong) = (BTreeSet::new(), String::new());
    broken(&mesh, BREAKS, &mut found, &mut wrong);
    assert!(wrong.is_empty(), "{wrong}");
    // Where it leads to a workload, that is what needs one, as any other does.
    let led = mesh.replace(
        "  gatewayClassName: istio\n",
        "  gatewayClassName: istio\n  addresses: [{ type: Hostname, value: edge.ingress.svc.cluster.local }]\n",
    ) + OWN_GATEWAY;
    assert_eq!(codes(&look(&led).unwrap()), BTreeSet::from(["unchecked"]));
    let selected = led.replace(REFERENCE, "selector: { matchLabels: { app: edge } }");
    assert_eq!(look(&selected).unwrap().findings, []);
}
