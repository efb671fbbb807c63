//! Ways around the check that Envoy's configuration has: other spellings of what is known, and places where nobody looks.

use std::collections::BTreeSet;

use super::{Break, bootstrap, broken, codes, look};

const CA: &str = "trusted_ca: { filename: \"/x/ca.pem\" }";

/// In `tools.yaml`: enumerations in any case, and by their numbers, as Envoy takes them.
pub(super) const ENUMERATIONS: &[Break] = &[
    ("forward_client_cert_details: SANITIZE", "forward_client_cert_details: 4", &["forwarded-identity"]),
    ("forward_client_cert_details: SANITIZE", "forward_client_cert_details: 1", &["forwarded-identity"]),
    ("details: SANITIZE", "details: always_forward_only", &["forwarded-identity"]),
    ("details: SANITIZE", "details: something_new", &["forwarded-identity"]),
    ("details: SANITIZE", "details: 2", &["appended-identity"]),
    ("details: SANITIZE", "details: 3", &[]),
    ("details: SANITIZE", "details: sanitize_set", &[]),
    (CA, "trusted_ca: { filename: x }\n                  trust_chain_verification: accept_untrusted", &["any-peer"]),
    (CA, "trusted_ca: { filename: x }\n                  trust_chain_verification: 1", &["any-peer"]),
    (CA, "trusted_ca: { filename: x }\n                  trust_chain_verification: 0", &[]),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100, denominator: 2 } }", CONDITIONAL),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100, denominator: 1 } }", CONDITIONAL),
    (
        "failure_mode_allow: false",
        "filter_enabled: { default_value: { numerator: 100, denominator: million } }",
        CONDITIONAL,
    ),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100, denominator: 7 } }", CONDITIONAL),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100, denominator: hundred } }", &[]),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 10000, denominator: 1 } }", &[]),
    ("slashes_action: REJECT_REQUEST", "slashes_action: 1", &["path-spellings"]),
    ("slashes_action: REJECT_REQUEST", "slashes_action: 2", &[]),
    ("underscores_action: REJECT_REQUEST", "underscores_action: 0", &["header-underscores"]),
    ("underscores_action: REJECT_REQUEST", "underscores_action: drop_header", &[]),
    ("code: ServiceUnavailable", "code: serviceunavailable", &[]),
];

const CONDITIONAL: &[&str] = &["conditional-check"];

/// In `tools.yaml` with Istio's selection of calls.
const SELECTION: &[Break] = &[
    ("value: { string_match", "invert: true, value: { string_match", CONDITIONAL),
    ("value: { string_match", "invert: false, value: { string_match", &[]),
    ("key: istio_ext_authz_shadow_effective_policy_id", "key: istio_ext_authz_shadow_engine_result", CONDITIONAL),
    ("key: istio_ext_authz_shadow", "key: shadow", CONDITIONAL),
    ("path: [{ key: istio", "path: [{ key: x }, { key: istio", CONDITIONAL),
    ("filter: envoy.filters.http.rbac", "filter: envoy.filters.network.rbac", CONDITIONAL),
    ("filter: envoy.filters.http.rbac", "filter: other", CONDITIONAL),
    ("prefix: istio-ext-authz-palisade", "prefix: istio-ext-authz-other", CONDITIONAL),
    ("prefix: istio-ext-authz-palisade", "exact: istio-ext-authz-palisade", CONDITIONAL),
    ("name: envoy.filters.http.rbac, ", "name: envoy.filters.http.rbac, disabled: true, ", CONDITIONAL),
    ("name: envoy.filters.http.rbac, ", "name: envoy.filters.http.rbac, is_optional: true, ", CONDITIONAL),
    ("name: envoy.filters.http.rbac, ", "name: rbac, ", CONDITIONAL),
    ("shadow_rules_stat_prefix: istio_ext_authz_", "shadow_rules_stat_prefix: other_", CONDITIONAL),
    ("shadow_rules: {", "rules: {", CONDITIONAL),
    ("shadow_rules: {", "shadow_matcher: {}, shadow_rules: {", CONDITIONAL),
    ("action: DENY", "action: LOG", CONDITIONAL),
    ("permissions: [{ any: true }]", "permissions: [{ header: { name: x } }]", CONDITIONAL),
    ("permissions: [{ any: true }]", "condition: { const_expr: {} }, permissions: [{ any: true }]", CONDITIONAL),
    ("permissions: [{ any: true }]", "checked_condition: {}, permissions: [{ any: true }]", CONDITIONAL),
    // The first policy that is about a call is the one that counts.
    ("policies: {", "policies: { istio-ext-authz-other: { permissions: [], principals: [] }, ", CONDITIONAL),
    (
        "virtual_hosts:",
        "typed_per_filter_config: { envoy.filters.http.rbac: { \"@type\": x/envoy.config.route.v3.FilterConfig, disabled: true } }\n                  virtual_hosts:",
        &["route-disabled"],
    ),
    (
        "virtual_hosts:",
        "typed_per_filter_config: { envoy.filters.http.rbac: { \"@type\": x/envoy.extensions.filters.http.rbac.v3.RBACPerRoute } }\n                  virtual_hosts:",
        &["unreadable"],
    ),
];

const ASKS: &str = "                  - name: envoy.filters.http.ext_authz\n";
const SELECTS: &str = "                  - { name: envoy.filters.http.rbac, typed_config: { \"@type\": x/envoy.extensions.filters.http.rbac.v3.RBAC, shadow_rules_stat_prefix: istio_ext_authz_, shadow_rules: { action: DENY, policies: { istio-ext-authz-palisade-x: { permissions: [{ any: true }], principals: [{ any: true }] } } } } }\n";

#[test]
fn istios_selection_of_calls_is_believed_in_its_own_form_alone() {
    let selected = bootstrap("tools.yaml").replacen(
        "failure_mode_allow: false",
        "failure_mode_allow: false\n                      filter_enabled_metadata: { filter: envoy.filters.http.rbac, path: [{ key: istio_ext_authz_shadow_effective_policy_id }], value: { string_match: { prefix: istio-ext-authz-palisade } } }",
        1,
    );
    let before = |more: &str| selected.replacen(ASKS, &format!("{SELECTS}{more}{ASKS}"), 1);
    let (mut all, mut wrong) = (BTreeSet::new(), String::new());
    broken(&before(""), SELECTION, &mut all, &mut wrong);
    assert!(wrong.is_empty(), "{wrong}");
    let router = "                  - name: envoy.filters.http.router\n";
    let filter = |kind: &str| {
        format!(
            "                  - {{ name: x, typed_config: {{ \"@type\": x/envoy.extensions.filters.http.{kind} }} }}\n"
        )
    };
    for (text, expected) in [
        (before(&filter("fault.v3.HTTPFault")), &[][..]),
        // One that may write over what the first one found, and one that does.
        (before(&filter("set_metadata.v3.Config")), CONDITIONAL),
        (before(&SELECTS.replace("any: true", "any: false")), CONDITIONAL),
        // Nothing selects before the check.
        (selected.replacen(router, &format!("{SELECTS}{router}"), 1), CONDITIONAL),
        (selected.clone(), CONDITIONAL),
    ] {
        let report = look(&text).unwrap();
        assert_eq!(codes(&report), expected.iter().copied().collect(), "{}", report.text());
    }
}

#[test]
fn the_filters_of_an_upgrade_are_a_chain_of_their_own() {
    let typed = |name: &str, kind: &str, more: &str| {
        format!("{{ name: {name}, typed_config: {{ \"@type\": x/envoy.extensions.filters.http.{kind}{more} }} }}")
    };
    let router = typed("envoy.filters.http.router", "router.v3.Router", "");
    let right = ", grpc_service: { envoy_grpc: { cluster_name: palisade }, timeout: 0.25s }, status_on_error: { code: 503 }, encode_raw_headers: true, include_peer_certificate: true, validate_mutations: true, with_request_body: { max_request_bytes: 1, pack_as_bytes: true }";
    let asks = |more: &str| typed("asks", "ext_authz.v3.ExtAuthz", &format!("{right}{more}"));
    for (filters, more, expected) in [
        (asks(""), "", &["upgrade"][..]),
        (asks(", failure_mode_allow: true"), "", &["fail-open", "upgrade"]),
        (asks(", filter_enabled: { default_value: { numerator: 0 } }"), "", &["conditional-check", "upgrade"]),
        (asks("").replacen("name: asks", "disabled: true, name: asks", 1), "", &["conditional-check", "upgrade"]),
        (asks("") + ", " + &typed("lua", "lua.v3.Lua", ""), "", &["changed-after-check", "upgrade"]),
        (typed("cors", "cors.v3.Cors", ""), "", &["unchecked", "upgrade"]),
        // A route can turn it on.
        (typed("cors", "cors.v3.Cors", ""), ", enabled: false", &["unchecked"]),
        (asks(", failure_mode_allow: true"), ", enabled: false", &["fail-open"]),
    ] {
        let upgrade = format!("upgrade_configs: [{{ upgrade_type: foo, filters: [{filters}, {router}]{more} }}]");
        let report = look(&bootstrap("tools.yaml").replacen("upgrade_configs: []", &upgrade, 1)).unwrap();
        assert_eq!(codes(&report), expected.iter().copied().collect(), "{}", report.text());
    }
}
