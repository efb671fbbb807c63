//! What is broken in the bootstraps of `envoy/`.

use super::Break;

/// In `tools.yaml`.
pub(super) const BREAKS: &[Break] = &[
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
    // What the runtime says at that key counts more than the default.
    (
        "failure_mode_allow: false",
        "filter_enabled: { runtime_key: x, default_value: { numerator: 100 } }",
        &["conditional-check"],
    ),
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

/// In `connections.yaml`.
pub(super) const CONNECTIONS: &[Break] = &[
    ("network.ext_authz.v3.ExtAuthz", "network.rbac.v3.RBAC", &["unchecked-connection"]),
    ("failure_mode_allow: false", "failure_mode_allow: true", &["fail-open"]),
    ("failure_mode_allow: false", "failure_mode_allow: yes", &["fail-open"]),
    (
        "failure_mode_allow: false",
        "filter_enabled_metadata: { filter: x, path: [{ key: y }], value: { present_match: true } }",
        &["conditional-check"],
    ),
    // As Istio writes it, without the filter before that selects calls.
    (
        "failure_mode_allow: false",
        "filter_enabled_metadata: { filter: x, path: [{ key: y }], value: { string_match: { prefix: istio-ext-authz-palisade } } }",
        &["conditional-check"],
    ),
    ("timeout: 0.25s", "timeout: 600s", &["timeout"]),
    ("timeout: 0.25s", "timeout: 0.1s", &["timeout-short"]),
    ("grpc_service:", "was:", &["another-authorizer"]),
    ("san_type: URI", "san_type: DNS", &["any-san"]),
];
