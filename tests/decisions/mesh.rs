//! `palisade mesh lint`: what is right is left alone, and each thing that is wrong is found, by its own code. A configuration in which
//! nothing is to be found is broken in one place, and exactly that has to be told.

use std::collections::BTreeSet;

use palisade::mesh::finding::{Report, Rule};
use palisade::mesh::{Settings, lint};

use crate::support;

/// The clean mesh.
const ISTIO: &str = include_str!("mesh/istio.yaml");

fn settings() -> Settings {
    Settings { body_bytes: 65_536, envoy_version: Some("1.40.0".parse().unwrap()), namespace: "tools".into() }
}

fn look(text: &str) -> Result<Report, String> {
    lint(&[("mesh.yaml".into(), text.into())], &settings())
}

fn codes(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.rule.code()).collect()
}

/// A bootstrap of `envoy/`, filled in.
fn bootstrap(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/").to_owned() + name;
    let mut text = std::fs::read_to_string(&path).unwrap();
    while let Some(start) = text.find("${") {
        let end = start + text[start..].find('}').unwrap();
        let name = text[start + 2..end].to_owned();
        let value = if name == "UPGRADES" {
            "[]"
        } else if name.ends_with("PORT") {
            "1234"
        } else {
            "/x"
        };
        text = text.replace(&format!("${{{name}}}"), value);
    }
    text
}

/// What is replaced, by what, and what is found then.
type Break = (&'static str, &'static str, &'static [&'static str]);

const ENVOY_BREAKS: &[Break] = &[
    ("failure_mode_allow: false", "failure_mode_allow: true", &["fail-open"]),
    ("failure_mode_allow: false", "failureModeAllow: true", &["fail-open"]),
    ("failure_mode_allow: false", "failure_mode_allow: yes", &["fail-open"]),
    ("failure_mode_allow: false", "shadow_mode: true", &["shadow-mode"]),
    ("failure_mode_allow: false", "clear_route_cache: true", &["route-cache-cleared"]),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 99 } }", &["conditional-check"]),
    (
        "failure_mode_allow: false",
        "filter_enabled: { default_value: { numerator: 100, denominator: TEN_THOUSAND } }",
        &["conditional-check"],
    ),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100 } }", &[]),
    (
        "failure_mode_allow: false",
        "filter_enabled_metadata: { filter: x, path: [{ key: y }], value: { present_match: true } }",
        &["conditional-check"],
    ),
    ("failure_mode_allow: false", "allowed_headers: { patterns: [{ exact: a }] }", &["headers-withheld"]),
    ("failure_mode_allow: false", "disallowed_headers: { patterns: [{ prefix: x- }] }", &["headers-withheld"]),
    ("failure_mode_allow: false", "http_service: { server_uri: { uri: x } }", &["another-authorizer"]),
    ("status_on_error: { code: ServiceUnavailable }", "emit_filter_state_stats: false", &["status-on-error"]),
    ("timeout: 0.25s", "timeout: 600s", &["timeout"]),
    ("timeout: 0.25s", "timeout: 0s", &["timeout"]),
    ("timeout: 0.25s", "timeout: 1m", &["timeout"]),
    ("timeout: 0.25s", "timeout: { seconds: 5 }", &["timeout"]),
    ("timeout: 0.25s", "timeout: { nanos: 250000000 }", &[]),
    ("timeout: 0.25s", "timeout: 0.1s", &["timeout-short"]),
    ("timeout: 0.25s", "timeout: soon", &["unreadable"]),
    ("allow_partial_message: false", "allow_partial_message: true", &["partial-body"]),
    ("pack_as_bytes: true", "pack_as_bytes: false", &["text-body"]),
    ("max_request_bytes: 65536", "max_request_bytes: 65537", &["body-limit"]),
    ("max_request_bytes: 65536", "max_request_bytes: many", &["unreadable"]),
    ("encode_raw_headers: true", "encode_raw_headers: false", &["headers-joined"]),
    ("include_peer_certificate: true", "include_peer_certificate: false", &["certificate-withheld"]),
    ("validate_mutations: true", "validate_mutations: false", &["mutations-unchecked"]),
    ("normalize_path: true", "normalize_path: false", &["path-not-normalized"]),
    ("merge_slashes: true", "merge_slashes: false", &["path-spellings"]),
    (
        "path_with_escaped_slashes_action: REJECT_REQUEST",
        "path_with_escaped_slashes_action: KEEP_UNCHANGED",
        &["path-spellings"],
    ),
    (
        "headers_with_underscores_action: REJECT_REQUEST",
        "headers_with_underscores_action: ALLOW",
        &["header-underscores"],
    ),
    ("max_stream_duration: 600s", "max_stream_duration: 0s", &["stream-unbounded"]),
    ("upgrade_configs: []", "upgrade_configs: [{ upgrade_type: websocket }]", &["upgrade"]),
    ("upgrade_configs: []", "upgrade_configs: [{ upgrade_type: websocket, enabled: false }]", &[]),
    ("upgrade_configs: []", "http2_protocol_options: { allow_connect: true }", &["upgrade"]),
    (
        "upgrade_configs: []",
        "upgrade_configs: [{ upgrade_type: websocket, filters: [{ name: envoy.filters.http.router }] }]",
        &["unchecked", "upgrade"],
    ),
    ("upgrade_configs: []", "http_protocol_options: { allow_chunked_length: true }", &["ambiguous-length"]),
    (
        "forward_client_cert_details: SANITIZE",
        "forward_client_cert_details: ALWAYS_FORWARD_ONLY",
        &["forwarded-identity"],
    ),
    ("forward_client_cert_details: SANITIZE", "forward_client_cert_details: FORWARD_ONLY", &["forwarded-identity"]),
    ("forward_client_cert_details: SANITIZE", "forward_client_cert_details: APPEND_FORWARD", &["appended-identity"]),
    (
        "forward_client_cert_details: SANITIZE",
        "set_current_client_cert_details: { format: JSON }",
        &["identity-format"],
    ),
    ("require_client_certificate: true", "require_client_certificate: false", &["permissive-mtls"]),
    ("trusted_ca: { filename: \"/x/ca.pem\" }", "max_verify_depth: 3", &["any-peer"]),
    ("trusted_ca: { filename: \"/x/ca.pem\" }", "trust_chain_verification: ACCEPT_UNTRUSTED", &["any-peer"]),
    // The filter that counts URI SANs asks for one, whatever TLS asks for.
    ("san_type: URI", "san_type: DNS", &[]),
    (
        "name: envoy.transport_sockets.tls",
        "name: none\n            typed_config: { \"@type\": x/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer }\n          was:",
        &["permissive-mtls"],
    ),
    (
        "name: envoy.filters.http.ext_authz\n",
        "name: envoy.filters.http.ext_authz\n                    disabled: true\n",
        &["conditional-check"],
    ),
    (
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "envoy.extensions.filters.http.cors.v3.Cors",
        &["unchecked"],
    ),
    (
        "envoy.extensions.filters.http.router.v3.Router",
        "envoy.extensions.filters.http.lua.v3.Lua",
        &["changed-after-check"],
    ),
    (
        "envoy.extensions.filters.http.router.v3.Router",
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        &["changed-after-check"],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        &["unchecked-connection"],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        &["unreadable"],
    ),
    (
        "virtual_hosts:",
        "typed_per_filter_config: { envoy.filters.http.ext_authz: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true } }\n                  virtual_hosts:",
        &["route-disabled"],
    ),
    (
        "virtual_hosts:",
        "typed_per_filter_config: { envoy.filters.http.ext_authz: { \"@type\": x/envoy.config.route.v3.FilterConfig, disabled: true } }\n                  virtual_hosts:",
        &["route-disabled"],
    ),
    (
        "virtual_hosts:",
        "typed_per_filter_config: { envoy.filters.http.ext_authz: { \"@type\": x/envoy.config.route.v3.FilterConfig, config: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: { disable_request_body_buffering: true } } } }\n                  virtual_hosts:",
        &["body-absent"],
    ),
    (
        "virtual_hosts:",
        "typed_per_filter_config: { envoy.filters.http.ext_authz: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: { grpc_service: { envoy_grpc: { cluster_name: other } } } } }\n                  virtual_hosts:",
        &["another-authorizer"],
    ),
    (
        "virtual_hosts:",
        "typed_per_filter_config: { envoy.filters.http.ext_authz: { \"@type\": x/google.protobuf.Struct } }\n                  virtual_hosts:",
        &["unreadable"],
    ),
    // In the action of a matcher, where routes are as well.
    (
        "virtual_hosts:",
        "matcher: { on_no_match: { action: { name: route, typed_config: { typed_per_filter_config: { envoy.filters.http.ext_authz: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true } } } } } }\n                  virtual_hosts:",
        &["route-disabled"],
    ),
    ("cluster: crm_server,", "cluster: palisade,", &["palisade-reachable"]),
    ("static_resources:", "dynamic_resources: { lds_config: { ads: {} } }\nstatic_resources:", &["unreadable"]),
    (
        "static_resources:",
        "node: { user_agent_build_version: { version: { major_number: 1, minor_number: 38, patch: 3 } } }\nstatic_resources:",
        &["envoy-version"],
    ),
    (
        "static_resources:",
        "node: { user_agent_build_version: { version: { major_number: 1, minor_number: 30 } } }\nstatic_resources:",
        &["envoy-version"],
    ),
];

const ISTIO_BREAKS: &[Break] = &[
    ("failOpen: false", "failOpen: true", &["fail-open"]),
    ("          timeout: 0.25s\n", "", &["timeout"]),
    ("timeout: 0.25s", "timeout: 5s", &["timeout"]),
    ("statusOnError: \"503\"", "statusOnError: \"403\"", &["status-on-error"]),
    ("allowPartialMessage: false", "allowPartialMessage: true", &["partial-body"]),
    (", packAsBytes: true", "", &["text-body"]),
    ("maxRequestBytes: 65536", "maxRequestBytes: 1048576", &["body-limit"]),
    ("          includeRequestBodyInCheck:", "          was:", &["body-absent"]),
    ("port: 9191\n", "port: 9191\n          clearRouteCache: true\n", &["route-cache-cleared"]),
    ("envoyExtAuthzGrpc:", "envoyExtAuthzHttp:", &["provider"]),
    (
        "- name: palisade\n        envoyExt",
        "- name: pali\n        envoyExtAuthzHttp: {}\n      - name: palisade\n        envoyExt",
        &["provider"],
    ),
    ("DECODE_AND_MERGE_SLASHES", "NONE", &["path-not-normalized"]),
    ("DECODE_AND_MERGE_SLASHES", "BASE", &["path-spellings"]),
    ("REGISTRY_ONLY", "ALLOW_ANY", &["outbound-open"]),
    ("forwardedClientCert: SANITIZE_SET", "forwardedClientCert: ALWAYS_FORWARD_ONLY", &["forwarded-identity"]),
    ("mtls: { mode: STRICT }", "mtls: { mode: PERMISSIVE }", &["permissive-mtls"]),
    ("mtls: { mode: STRICT }", "mtls: { mode: UNSET }", &["permissive-mtls"]),
    (
        "mtls: { mode: STRICT }",
        "mtls: { mode: STRICT }\n  portLevelMtls: { 9192: { mode: DISABLE } }",
        &["permissive-mtls"],
    ),
    ("kind: PeerAuthentication", "kind: RequestAuthentication", &["permissive-mtls"]),
    ("rules: [{}]", "rules: [{ to: [{ operation: { paths: [\"/mcp\"] } }] }]", &["conditional-check"]),
    ("rules: [{}]", "rules: []", &["conditional-check"]),
    ("provider: { name: palisade }", "provider: { name: palisades }", &["provider"]),
    (
        "namespace: tools }\nspec:\n  action: CUSTOM",
        "namespace: tools, annotations: { istio.io/dry-run: \"true\" } }\nspec:\n  action: CUSTOM",
        &["dry-run"],
    ),
    (
        "  action: CUSTOM\n  provider: { name: palisade }",
        "  selector: { matchLabels: { app: other } }\n  action: CUSTOM\n  provider: { name: palisade }",
        &["unchecked"],
    ),
    (
        "  action: CUSTOM\n  provider: { name: palisade }",
        "  selector: { matchLabels: { app: crm } }\n  action: CUSTOM\n  provider: { name: palisade }",
        &[],
    ),
    ("name: palisade, namespace: tools", "name: palisade, namespace: elsewhere", &["unchecked"]),
    ("name: palisade, namespace: tools", "name: palisade, namespace: istio-system", &[]),
    ("encode_raw_headers: true", "encode_raw_headers: false", &["headers-joined"]),
    ("            include_peer_certificate: true\n", "", &["certificate-withheld"]),
    ("            validate_mutations: true\n", "", &["mutations-unchecked"]),
    ("validate_mutations: true", "validate_mutations: true\n            failure_mode_allow: true", &["fail-open"]),
    ("headers_with_underscores_action: REJECT_REQUEST", "idle_timeout: 300s", &["header-underscores"]),
    (", max_stream_duration: 600s", "", &["stream-unbounded"]),
    (
        "operation: MERGE\n        value:\n          name",
        "operation: REMOVE\n        value:\n          name",
        &["certificate-withheld", "headers-joined", "mutations-unchecked", "unchecked"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.router } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: lua, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &["changed-after-check"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_ROUTE\n      patch: { operation: MERGE, value: { typed_per_filter_config: { envoy.filters.http.ext_authz: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true } } } }\n    - applyTo: NETWORK_FILTER",
        &["route-disabled"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_ROUTE\n      patch: { operation: MERGE, value: { route: { prefix_rewrite: / } } }\n    - applyTo: NETWORK_FILTER",
        &["path-rewritten"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: VIRTUAL_HOST\n      patch: { operation: MERGE, value: { routes: [{ typed_per_filter_config: { envoy.filters.http.ext_authz: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true } } }] } }\n    - applyTo: NETWORK_FILTER",
        &["route-disabled"],
    ),
    ("annotations: {}", "annotations: { traffic.sidecar.istio.io/excludeInboundPorts: \"8080\" }", &["excluded-port"]),
    ("annotations: {}", "annotations: { traffic.sidecar.istio.io/includeInboundPorts: \"80\" }", &["excluded-port"]),
    ("annotations: {}", "annotations: { traffic.sidecar.istio.io/includeInboundPorts: \"*\" }", &[]),
    (
        "annotations: {}",
        "annotations: { traffic.sidecar.istio.io/excludeOutboundIPRanges: 10.0.0.0/8 }",
        &["excluded-port"],
    ),
    ("annotations: {}", "annotations: { sidecar.istio.io/inject: \"false\" }", &["not-captured"]),
    ("annotations: {}", "annotations: { proxy.istio.io/config: \"{ interceptionMode: NONE }\" }", &["not-captured"]),
    ("annotations: {}", "annotations: { proxy.istio.io/config: \"a: [\" }", &["unreadable"]),
    ("labels: { app: crm }", "labels: { app: crm, istio.io/dataplane-mode: none }", &["not-captured"]),
    ("      containers:\n", "      hostNetwork: true\n      containers:\n", &["not-captured"]),
    ("runAsUser: 1000", "runAsUser: 1337", &["proxy-user"]),
    ("runAsUser: 1000", "runAsGroup: 1337", &["proxy-user"]),
    ("runAsUser: 1000", "capabilities: { add: [NET_ADMIN] }", &["proxy-user"]),
    ("runAsUser: 1000", "privileged: true", &["proxy-user"]),
    ("xfcc-include-client-identity: \"true\"", "xfcc-include-client-identity: \"false\"", &["waypoint-identity"]),
    (
        "  targetRefs: [{ kind: Gateway, group: gateway.networking.k8s.io, name: waypoint }]\n",
        "  selector: { matchLabels: { app: researcher } }\n",
        &["selector-ignored"],
    ),
    ("name: waypoint }]", "name: another }]", &["unchecked"]),
    ("mode: MUTUAL", "mode: PASSTHROUGH", &["passthrough"]),
    ("mode: MUTUAL", "mode: SIMPLE", &["no-client-certificate"]),
];

const CONNECTION_BREAKS: &[Break] = &[
    ("network.ext_authz.v3.ExtAuthz", "network.rbac.v3.RBAC", &["unchecked-connection"]),
    ("failure_mode_allow: false", "failure_mode_allow: true", &["fail-open"]),
    ("san_type: URI", "san_type: DNS", &["any-san"]),
];

/// Breaks `clean` in each way, and gives back the codes of all that was found.
fn broken(clean: &str, breaks: &[Break]) -> BTreeSet<&'static str> {
    let report = look(clean).unwrap();
    assert_eq!(report.findings, [], "what is clean");
    let (mut all, mut wrong) = (BTreeSet::new(), String::new());
    for (old, new, expected) in breaks {
        assert!(clean.contains(old), "nothing to replace: {old}");
        match look(&clean.replacen(old, new, 1)) {
            Err(error) => wrong += &format!("{old} -> {new}: {error}\n"),
            Ok(report) => {
                let found = codes(&report);
                // Each finding leads somewhere.
                let is_told = report.findings.iter().all(|finding| finding.line > 0 && !finding.what.is_empty());
                if found != expected.iter().copied().collect() || !is_told {
                    wrong += &format!("{old} -> {new}: expected {expected:?}\n{}\n", report.text());
                }
                all.extend(found);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    all
}

#[test]
fn what_is_wrong_is_found_by_its_name() {
    let mut found = broken(&bootstrap("tools.yaml"), ENVOY_BREAKS);
    found.extend(broken(&bootstrap("connections.yaml"), CONNECTION_BREAKS));
    found.extend(broken(ISTIO, ISTIO_BREAKS));
    // Told without a file's doing: no version is known.
    let report = lint(&[("x".into(), bootstrap("tools.yaml"))], &Settings { envoy_version: None, ..settings() });
    found.extend(codes(&report.unwrap()));
    let all: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.code()).collect();
    assert_eq!(found, all, "each code is found once at least");
}

#[test]
fn the_bootstraps_are_clean() {
    for name in ["tools.yaml", "connections.yaml", "agents.yaml", "spire.yaml", "spire-agent.yaml"] {
        let report = look(&bootstrap(name)).unwrap();
        assert_eq!(report.findings, [], "{name}");
        assert!(!report.checked.is_empty() || !report.skipped.is_empty(), "{name}: nothing was looked at");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_clean() {
    for (text, why) in [
        ("", "holds nothing"),
        ("# only a comment\n", "holds nothing"),
        ("a: [", "line"),
        ("just text", "is neither"),
        ("- list", "is neither"),
        ("{\"configs\": []}", "is neither"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: istio }\ndata: { mesh: \"a: [\" }\n", "ConfigMap"),
        ("apiVersion: v1\nkind: ConfigMap\ndata: { mesh: \"a: 1\\n---\\nb: 2\" }\n", "expected one document"),
    ] {
        let error = look(text).unwrap_err();
        assert!(error.contains("mesh.yaml") && error.contains(why), "{text:?}: {error}");
    }
    // A dump without listeners, or a listener whose filters are elsewhere.
    for text in [
        r#"{"configs": [{"@type": "x/envoy.admin.v3.ListenersConfigDump"}]}"#,
        r#"{"configs": [{"@type": "x/envoy.admin.v3.ListenersConfigDump", "static_listeners": [{"listener": {"name": "a", "filter_chains": [{"filters": [{"name": "f", "config_discovery": {}}]}]}}]}]}"#,
    ] {
        assert!(codes(&look(text).unwrap()).contains("unreadable"), "{text}");
    }
}

/// Every YAML file of folders of `istio/`, values of charts included.
fn shipped(folders: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in folders {
        let path = support::repository().join("istio").join(folder);
        let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let names = names.into_iter().filter(|name| name.extension().is_some_and(|ending| ending == "yaml"));
        files.extend(names.map(|name| (name.display().to_string(), support::read(&name))));
    }
    files
}

#[test]
fn what_is_shipped_for_istio_is_clean() {
    for (folders, meant) in [
        (&["mesh", "sidecar", "sidecar/unix"][..], &[][..]),
        (&["mesh", "sidecar", "sidecar/loopback"], &[]),
        (&["mesh", "egress-gateway"], &[]),
        (&["mesh", "ingress-gateway"], &[]),
        // A waypoint has no certificate of the caller: mTLS ends before.
        (&["mesh", "waypoint"], &["certificate-withheld"]),
    ] {
        let files = shipped(folders);
        let report = lint(&files, &settings()).unwrap();
        assert_eq!(codes(&report), meant.iter().copied().collect(), "{folders:?}:\n{}", report.text());
        assert!(report.checked.iter().any(|(kind, _)| *kind == "CUSTOM policies"), "{folders:?}");
    }
}

/// What Istio's own code makes of it: `tests/deploy/fixtures`.
#[test]
fn what_istio_makes_of_it_has_no_error() {
    let istios = ["appended-identity", "upgrade"];
    for (name, node, expected) in [
        ("sidecar-unix", None, &istios[..]),
        ("sidecar-loopback", None, &istios),
        ("waypoint", None, &["upgrade"]),
        ("egress-gateway", Some("router"), &["upgrade"]),
        ("ingress-gateway", Some("router"), &["upgrade"]),
    ] {
        let text = support::read(&support::repository().join(format!("tests/deploy/fixtures/istio/{name}.json")));
        let bootstrap = node.map(|node| {
            format!(
                r#"{{"@type": "x/BootstrapConfigDump", "bootstrap": {{"node": {{"id": "{node}~10.0.0.1~a.b~c"}}}}}},"#
            )
        });
        // A gateway says what it is in its bootstrap alone: without it nothing is clean.
        if bootstrap.is_some() {
            assert!(codes(&look(&text).unwrap()).contains("unreadable"), "{name}");
        }
        let list = "\"configs\": [";
        assert!(text.contains(list));
        let text = text.replacen(list, &format!("{list}{}", bootstrap.unwrap_or_default()), 1);
        let report = look(&text).unwrap();
        assert_eq!(codes(&report), expected.iter().copied().collect(), "{name}:\n{}", report.text());
        assert!(report.checked.iter().any(|(kind, _)| *kind == "ext_authz filters"), "{name}");

        for (old, new, code) in [
            ("\"pack_as_bytes\": true", "\"pack_as_bytes\": false", "text-body"),
            ("\"encode_raw_headers\": true", "\"encode_raw_headers\": false", "headers-joined"),
            ("\"any\": true", "\"header\": {\"name\": \"x\"}", "conditional-check"),
            (
                "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz\"",
                "envoy.extensions.filters.http.cors.v3.Cors\"",
                "unchecked",
            ),
            ("\"REJECT_REQUEST\"", "\"ALLOW\"", "header-underscores"),
        ] {
            assert!(text.contains(old), "{name}: nothing to replace: {old}");
            let found = codes(&look(&text.replace(old, new)).unwrap());
            assert!(found.contains(code), "{name}: {old} -> {new}: {found:?}");
        }
    }
}
