//! Ways around the check that Envoy's configuration has: other spellings of what is known, and places where nobody looks.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Break, bootstrap, broken, codes, look};
use crate::support;

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

const ROUTE: &str = "route: { cluster: crm_server, timeout: 0s }";
const CODEC: &str = "http.router.v3.Router";
const SERVER: &str = "    - name: crm_server\n";
const CHANGED: &[&str] = &["changed-after-check"];

/// In `tools.yaml`: what changes a call, or where it goes, after the check.
pub(super) const CHANGES: &[Break] = &[
    (
        CODEC,
        "http.router.v3.Router\n                      upstream_http_filters: [{ name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation } }]",
        CHANGED,
    ),
    (
        CODEC,
        "http.router.v3.Router\n                      upstream_http_filters: [{ name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec } }]",
        &[],
    ),
    (CODEC, "http.router.v3.Router\n                      upstream_http_filters: [{ name: x }]", &["unreadable"]),
    (
        SERVER,
        "    - name: crm_server\n      typed_extension_protocol_options: { x: { \"@type\": x/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, http_filters: [{ name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation } }] } }\n",
        CHANGED,
    ),
    (
        SERVER,
        "    - name: crm_server\n      original_dst_lb_config: { use_http_header: true }\n",
        &["chosen-by-caller"],
    ),
    (
        "                  - name: envoy.filters.http.router\n",
        "                  - { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication, providers: { p: { claim_to_headers: [{ header_name: x-user, claim_name: sub }] } } } }\n                  - name: envoy.filters.http.router\n",
        CHANGED,
    ),
    (
        "virtual_hosts:",
        "request_headers_to_add: [{ header: { key: a, value: b } }]\n                  virtual_hosts:",
        CHANGED,
    ),
    ("virtual_hosts:", "request_headers_to_add: []\n                  virtual_hosts:", &[]),
    (
        "domains: [\"*\"]",
        "domains: [\"*\"]\n                      requestHeadersToAdd: [{ header: { key: a } }]",
        CHANGED,
    ),
    (ROUTE, "route: { cluster: crm_server }\n                          request_headers_to_remove: [a]", CHANGED),
    (
        ROUTE,
        "route: { weighted_clusters: { clusters: [{ name: a, weight: 1, request_headers_to_add: [{ header: { key: a } }] }] } }",
        CHANGED,
    ),
    (
        ROUTE,
        "route: { weighted_clusters: { clusters: [{ name: a, weight: 1, host_rewrite_literal: x }] } }",
        &["path-rewritten"],
    ),
    (ROUTE, "route: { cluster: crm_server, host_rewrite_literal: x }", &["path-rewritten"]),
    (ROUTE, "route: { cluster: crm_server, host_rewrite_path_regex: {} }", &["path-rewritten"]),
    (ROUTE, "route: { cluster: crm_server, auto_host_rewrite: true }", &["path-rewritten"]),
    (ROUTE, "route: { cluster: crm_server, auto_host_rewrite: false }", &[]),
    (ROUTE, "route: { cluster: crm_server, host_rewrite_header: x-to }", &["chosen-by-caller"]),
    (ROUTE, "route: { cluster_header: x-to }", &["chosen-by-caller"]),
    (ROUTE, "route: { weighted_clusters: { clusters: [{ cluster_header: x-to, weight: 1 }] } }", &["chosen-by-caller"]),
    (ROUTE, "route: { inline_cluster_specifier_plugin: { extension: {} } }", &["unreadable"]),
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
fn a_filter_that_is_off_asks_for_no_uri_san() {
    let tools = bootstrap("tools.yaml").replace("san_type: URI", "san_type: DNS");
    let name = "- name: envoy.filters.http.rbac\n";
    let off = "typed_per_filter_config: { envoy.filters.http.rbac: { \"@type\": x/envoy.config.route.v3.FilterConfig, disabled: true } }\n                  virtual_hosts:";
    for (old, new, expected) in [
        (name, name.to_owned(), None),
        (name, format!("{name}                    disabled: true\n"), Some("any-san")),
        (name, format!("{name}                    is_optional: true\n"), Some("any-san")),
        (
            "matcher:\n                        matcher_list",
            "shadow_matcher:\n                        matcher_list".to_owned(),
            Some("any-san"),
        ),
        ("virtual_hosts:", off.to_owned(), Some("route-disabled")),
    ] {
        assert!(tools.contains(old), "{old}");
        let report = look(&tools.replacen(old, &new, 1)).unwrap();
        assert_eq!(codes(&report), expected.into_iter().collect(), "{}", report.text());
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

const DECOY: (&str, &str) =
    ("    - name: researcher\n", "    - name: main_internal\n      traffic_direction: INBOUND\n");

#[test]
fn what_a_listener_says_of_itself_hides_it_from_nobody() {
    let agents = bootstrap("agents.yaml");
    let address = "address: { socket_address: { address: 127.0.0.1";
    let tools = bootstrap("tools.yaml").replacen("require_client_certificate: true", "max_session_keys: 0", 1);
    let decoy = tools.replacen(DECOY.0, DECOY.1, 1);
    let sidecar = decoy.replacen("static_resources:", "node: { id: \"sidecar~x\" }\nstatic_resources:", 1);
    let nowhere = bootstrap("connections.yaml")
        .replacen("network.ext_authz.v3.ExtAuthz", "network.rbac.v3.RBAC", 1)
        .replace("cluster: server", "cluster: BlackHoleCluster");
    let datagrams = "  listeners:\n    - name: udp\n      listener_filters: [{ name: x, typed_config: { \"@type\": x/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig } }]\n";
    for (text, code) in [
        (agents.replace(address, "address: { socket_address: { address: 0.0.0.0"), "unchecked"),
        (agents.replacen("traffic_direction: OUTBOUND", "traffic_direction: OUTBOUND\n      additional_addresses: [{ address: { socket_address: { address: 10.0.0.1 } } }]", 1), "unchecked"),
        (tools + "\nconfigs: [{ \"@type\": x/ListenersConfigDump }]\n", "permissive-mtls"),
        (decoy, "permissive-mtls"),
        (sidecar, "permissive-mtls"),
        (nowhere, "unchecked-connection"),
        // Who asks for certificates does not face its own host's agent.
        (bootstrap("connections.yaml").replacen("    - name: connections\n", "    - name: connections\n      traffic_direction: OUTBOUND\n", 1).replacen("allow: false", "allow: true", 1), "fail-open"),
        (bootstrap("tools.yaml").replacen("  listeners:\n", datagrams, 1), "unreadable"),
        (bootstrap("tools.yaml").replacen("  listeners:\n", "  listeners:\n    - name: api\n", 1), "unreadable"),
    ] {
        let report = look(&text).unwrap();
        assert!(codes(&report).contains(code), "{code}:\n{}", report.text());
    }
}

/// A dump of `tests/deploy/fixtures`, changed.
fn dump(name: &str, change: impl Fn(&mut Vec<Value>)) -> BTreeSet<&'static str> {
    let text = support::read(&support::repository().join(format!("tests/deploy/fixtures/istio/{name}.json")));
    let mut dump: Value = serde_json::from_str(&text).unwrap();
    change(dump["configs"].as_array_mut().unwrap());
    codes(&look(&dump.to_string()).unwrap())
}

#[test]
fn nothing_that_istio_does_not_make_is_left_unread() {
    let waypoint = |listener: &Value| {
        dump("waypoint", |configs| {
            configs.push(json!({"@type": "x/ListenersConfigDump", "static_listeners": [{"listener": listener}]}));
        })
    };
    let leads = |port: u16, cluster: &str| {
        let proxy = json!({"@type": "x/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": cluster});
        json!({"name": "other", "address": {"socket_address": {"port_value": port}}, "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}]})
    };
    let clean = BTreeSet::from(["upgrade"]);
    assert_eq!(waypoint(&leads(15021, "agent")), clean);
    assert_eq!(waypoint(&leads(8080, "main_internal")), clean);
    for bad in [leads(15021, "server"), leads(8080, "server"), leads(15008, "encap")] {
        assert!(waypoint(&bad).contains("unreadable"), "{bad}");
    }
    // A gateway's port of health is one by where it leads.
    let gateway = |cluster: &str| {
        dump("ingress-gateway", |configs| {
            configs.push(json!({"@type": "x/BootstrapConfigDump", "bootstrap": {"node": {"id": "router~x"}}}));
            configs.push(
                json!({"@type": "x/ListenersConfigDump", "static_listeners": [{"listener": leads(15021, cluster)}]}),
            );
        })
    };
    assert_eq!(gateway("agent"), clean);
    assert!(gateway("server").contains("unchecked-connection"));
    // What goes nowhere goes nowhere by its cluster.
    for cluster in [
        json!({"name": "BlackHoleCluster", "type": "ORIGINAL_DST"}),
        json!({"name": "BlackHoleCluster", "type": "STATIC", "load_assignment": {"endpoints": [{"lb_endpoints": []}]}}),
        json!({"name": "BlackHoleCluster", "cluster_type": {"name": "x"}}),
    ] {
        let found = dump("sidecar-unix", |configs| {
            configs.push(json!({"@type": "x/ClustersConfigDump", "static_clusters": [{"cluster": cluster}]}));
        });
        assert!(found.contains("unchecked-connection"), "{cluster}: {found:?}");
    }
}

#[test]
fn of_two_that_have_one_name_both_count() {
    let twice = |first: bool| {
        dump("ingress-gateway", |configs| {
            let mut other = configs.iter().find(|config| !config["dynamic_route_configs"].is_null()).unwrap().clone();
            for routes in other["dynamic_route_configs"].as_array_mut().unwrap() {
                routes["route_config"]["typed_per_filter_config"] = json!({"envoy.filters.http.ext_authz": {"@type": "x/envoy.config.route.v3.FilterConfig", "disabled": true}});
            }
            configs.insert(if first { 0 } else { configs.len() }, other);
        })
    };
    assert!(twice(true).contains("route-disabled") && twice(false).contains("route-disabled"));
}
