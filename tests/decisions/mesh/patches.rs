//! EnvoyFilters that are added to `istio.yaml`: what each patch changes is found.

use super::{ISTIO, codes, look};

/// What is patched, beside which filter, how and with what, and what is found then.
type Patch = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

const MANAGER: &str = "filter: { name: envoy.filters.network.http_connection_manager }";
const CHECK: &str = "filter: { name: envoy.filters.network.http_connection_manager, subFilter: { name: envoy.filters.http.ext_authz } }";
const CHOICE: &str =
    "filter: { name: envoy.filters.network.http_connection_manager, subFilter: { name: envoy.filters.http.rbac } }";
const CONNECTIONS: &str = "filter: { name: envoy.filters.network.ext_authz }";

const PATCHES: &[Patch] = &[
    // Another connection manager, or none.
    (
        "NETWORK_FILTER",
        MANAGER,
        "REPLACE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, http_filters: [{ name: router, typed_config: { \"@type\": x/envoy.extensions.filters.http.router.v3.Router } }] }",
        &["unreadable"],
    ),
    (
        "NETWORK_FILTER",
        MANAGER,
        "REPLACE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: a }",
        &["unreadable"],
    ),
    // Enumerations by number.
    (
        "NETWORK_FILTER",
        MANAGER,
        "MERGE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, forward_client_cert_details: 4 }",
        &["forwarded-identity"],
    ),
    // Of which calls Palisade is asked Istio says.
    (
        "HTTP_FILTER",
        CHECK,
        "MERGE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, filter_enabled_metadata: { filter: envoy.filters.http.rbac, path: [{ key: istio_ext_authz_shadow_effective_policy_id }], value: { string_match: { prefix: istio-ext-authz-nobody } } } }",
        &["conditional-check"],
    ),
    (
        "HTTP_FILTER",
        CHECK,
        "MERGE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, filterEnabledMetadata: { invert: true } }",
        &["conditional-check"],
    ),
    (
        "NETWORK_FILTER",
        CONNECTIONS,
        "MERGE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz, filter_enabled_metadata: { filter: envoy.filters.network.rbac, path: [{ key: a }], value: { string_match: { prefix: istio-ext-authz-nobody } } } }",
        &["conditional-check"],
    ),
    // Turned off, by its place, by its name, or with all others.
    ("HTTP_FILTER", CHECK, "MERGE", "disabled: true", &["conditional-check"]),
    ("HTTP_FILTER", CHOICE, "MERGE", "disabled: true", &["conditional-check"]),
    ("HTTP_FILTER", MANAGER, "MERGE", "disabled: true", &["conditional-check"]),
    ("HTTP_FILTER", CHECK, "MERGE", "disabled: 1", &["conditional-check"]),
    (
        "HTTP_FILTER",
        MANAGER,
        "MERGE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.http.rbac.v3.RBAC, shadow_rules: {} }",
        &["unchecked"],
    ),
    (
        "HTTP_FILTER",
        MANAGER,
        "REPLACE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.http.cors.v3.Cors }",
        &["unchecked"],
    ),
    (
        "HTTP_FILTER",
        MANAGER,
        "MERGE",
        "typed_config: { \"@type\": x/envoy.extensions.filters.http.router.v3.Router, dynamic_stats: false }",
        &[],
    ),
    // The filter before the check says about which calls it asks, also of a route.
    (
        "ROUTE_CONFIGURATION",
        "",
        "MERGE",
        "typed_per_filter_config: { envoy.filters.http.rbac: { \"@type\": x/envoy.extensions.filters.http.rbac.v3.RBACPerRoute } }",
        &["unreadable"],
    ),
    (
        "VIRTUAL_HOST",
        "",
        "MERGE",
        "typed_per_filter_config: { envoy.filters.http.rbac: { \"@type\": x/envoy.config.route.v3.FilterConfig, disabled: true } }",
        &["route-disabled"],
    ),
    (
        "HTTP_ROUTE",
        "",
        "MERGE",
        "typed_per_filter_config: { envoy.filters.http.rbac: { \"@type\": x/envoy.config.route.v3.FilterConfig, disabled: true } }",
        &["route-disabled"],
    ),
];

#[test]
fn what_a_patch_changes_is_found() {
    let mut wrong = String::new();
    for (applies, beside, operation, value, expected) in PATCHES {
        let listener =
            if beside.is_empty() { String::new() } else { format!(", listener: {{ filterChain: {{ {beside} }} }}") };
        let mesh = format!(
            r"{ISTIO}---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{ name: patch, namespace: tools }}
spec:
  configPatches:
    - applyTo: {applies}
      match: {{ context: SIDECAR_INBOUND{listener} }}
      patch: {{ operation: {operation}, value: {{ {value} }} }}
"
        );
        let report = look(&mesh).unwrap();
        if codes(&report) != expected.iter().copied().collect() {
            wrong += &format!("{operation} of {applies} {beside}: {value}: expected {expected:?}\n{}\n", report.text());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
