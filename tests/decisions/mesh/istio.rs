//! What is broken in `istio.yaml`, and what is added to it.

use std::collections::BTreeSet;

use super::{Break, ISTIO, codes, look};

pub(super) const BREAKS: &[Break] = &[
    ("failOpen: false", "failOpen: true", &["fail-open"]),
    // Either spelling: Istio reads both.
    ("failOpen: false", "fail_open: true", &["fail-open"]),
    ("outboundTrafficPolicy: { mode: REGISTRY_ONLY }", "outbound_traffic_policy: { mode: REGISTRY_ONLY }", &[]),
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
    // Enumerations by number, and whatever else is not known to be right.
    ("forwardedClientCert: SANITIZE_SET", "forwardedClientCert: 5", &["forwarded-identity"]),
    ("forwardedClientCert: SANITIZE_SET", "forwardedClientCert: 4", &[]),
    ("forwardedClientCert: SANITIZE_SET", "forwardedClientCert: APPEND_FORWARD", &["appended-identity"]),
    ("    defaultConfig:\n", "    defaultConfig:\n      interceptionMode: 2\n", &["not-captured"]),
    ("    defaultConfig:\n", "    defaultConfig:\n      interceptionMode: TPROXY\n", &[]),
    ("    defaultConfig:\n", "    defaultConfig:\n      customConfigFile: /x\n", &["unreadable"]),
    ("DECODE_AND_MERGE_SLASHES", "1", &["path-not-normalized"]),
    ("DECODE_AND_MERGE_SLASHES", "4", &[]),
    ("REGISTRY_ONLY", "1", &["outbound-open"]),
    (
        "    defaultConfig:\n",
        "    defaultConfig:\n      gatewayTopology: { forwardClientCertDetails: ALWAYS_FORWARD_ONLY }\n",
        &["forwarded-identity"],
    ),
    (
        "    defaultConfig:\n",
        "    defaultConfig:\n      gatewayTopology: { forwardClientCertDetails: SANITIZE_SET }\n",
        &[],
    ),
    (
        "annotations: {}",
        "annotations: { proxy.istio.io/config: \"{ gatewayTopology: { forward_client_cert_details: 2 } }\" }",
        &["forwarded-identity"],
    ),
    ("annotations: {}", "annotations: { sidecar.istio.io/interceptionMode: none }", &["not-captured"]),
    ("annotations: {}", "annotations: { sidecar.istio.io/interceptionMode: TPROXY }", &[]),
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
        &["selector-ignored", "unchecked"],
    ),
    ("name: waypoint }]", "name: another }]", &["unchecked"]),
    ("mode: MUTUAL", "mode: PASSTHROUGH", &["passthrough"]),
    ("mode: MUTUAL", "mode: SIMPLE", &["no-client-certificate"]),
    // The filter before the check says about which calls it asks.
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.rbac } } } } }\n      patch: { operation: REMOVE }\n    - applyTo: NETWORK_FILTER",
        &["unchecked"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.rbac } } } } }\n      patch: { operation: REPLACE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.rbac.v3.RBAC } } }\n    - applyTo: NETWORK_FILTER",
        &["unchecked"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.rbac } } } } }\n      patch: { operation: MERGE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.rbac.v3.RBAC } } }\n    - applyTo: NETWORK_FILTER",
        &["unchecked"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.ext_authz } } } } }\n      patch: { operation: REPLACE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.cors.v3.Cors } } }\n    - applyTo: NETWORK_FILTER",
        &["unchecked"],
    ),
    // Istio puts all of these after the check, and nobody knows where others are.
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: istio.stats } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &["changed-after-check"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.fault } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &["changed-after-check"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.cors } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &["changed-after-check"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.grpc_stats } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &["changed-after-check"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.jwt_authn } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &["changed-after-check"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: mine } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &["changed-after-check"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.ext_authz } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &[],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.rbac } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &[],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: istio.metadata_exchange } } } } }\n      patch: { operation: INSERT_BEFORE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &[],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: HTTP_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { subFilter: { name: envoy.filters.http.cors } } } } }\n      patch: { operation: REPLACE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.http.lua.v3.Lua } } }\n    - applyTo: NETWORK_FILTER",
        &["changed-after-check"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.tcp_proxy } } } }\n      patch: { operation: INSERT_FIRST, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy } } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.tcp_proxy } } } }\n      patch: { operation: INSERT_FIRST, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager } } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.tcp_proxy } } } }\n      patch: { operation: INSERT_FIRST, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.network.rbac.v3.RBAC } } }\n    - applyTo: NETWORK_FILTER",
        &[],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.ext_authz } } } }\n      patch: { operation: MERGE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz, failure_mode_allow: true } } }\n    - applyTo: NETWORK_FILTER",
        &["fail-open"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.http_connection_manager } } } }\n      patch: { operation: MERGE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, upgrade_configs: [{ upgrade_type: websocket, filters: [{ name: envoy.filters.http.router }] }] } } }\n    - applyTo: NETWORK_FILTER",
        &["unchecked", "upgrade"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.http_connection_manager } } } }\n      patch: { operation: MERGE, value: { name: x, typed_config: { \"@type\": x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, http_filters: [{ name: x }] } } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.ext_authz } } } }\n      patch: { operation: REMOVE }\n    - applyTo: NETWORK_FILTER",
        &["unchecked-connection"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.rbac } } } }\n      patch: { operation: REMOVE }\n    - applyTo: NETWORK_FILTER",
        &["unchecked-connection"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: NETWORK_FILTER\n      match: { context: SIDECAR_INBOUND, listener: { filterChain: { filter: { name: envoy.filters.network.http_connection_manager } } } }\n      patch: { operation: REMOVE }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: LISTENER\n      patch: { operation: ADD, value: { name: x } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: FILTER_CHAIN\n      patch: { operation: ADD, value: { name: x } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: LISTENER_FILTER\n      patch: { operation: ADD, value: { name: x } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: EXTENSION_CONFIG\n      patch: { operation: ADD, value: { name: x } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: BOOTSTRAP\n      patch: { operation: ADD, value: { name: x } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    // Palisade's cluster is one of them.
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: CLUSTER\n      match: { context: SIDECAR_OUTBOUND }\n      patch: { operation: MERGE, value: { type: STATIC } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: CLUSTER\n      match: { context: SIDECAR_OUTBOUND, cluster: { portNumber: 9191 } }\n      patch: { operation: MERGE, value: { type: STATIC } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: CLUSTER\n      match: { context: SIDECAR_OUTBOUND, cluster: { service: palisade-ext-authz.local } }\n      patch: { operation: MERGE, value: { type: STATIC } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: CLUSTER\n      match: { context: SIDECAR_OUTBOUND, cluster: { name: outbound|9191||palisade-ext-authz.local } }\n      patch: { operation: MERGE, value: { type: STATIC } }\n    - applyTo: NETWORK_FILTER",
        &["unreadable"],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: CLUSTER\n      match: { context: SIDECAR_OUTBOUND, cluster: { service: crm.tools.svc.cluster.local } }\n      patch: { operation: MERGE, value: { type: STATIC } }\n    - applyTo: NETWORK_FILTER",
        &[],
    ),
    (
        "    - applyTo: NETWORK_FILTER",
        "    - applyTo: CLUSTER\n      match: { context: SIDECAR_OUTBOUND }\n      patch: { operation: ADD, value: { name: another } }\n    - applyTo: NETWORK_FILTER",
        &[],
    ),
    // Without an end is what has one of 0.
    ("max_stream_duration: 600s", "max_stream_duration: 0s", &["stream-unbounded"]),
    // An EnvoyFilter is for its namespace, or the whole mesh from the root, and for whom it selects.
    (
        "metadata: { name: palisade, namespace: istio-system }",
        "metadata: { name: palisade, namespace: elsewhere }",
        FILTERED,
    ),
    ("metadata: { name: palisade, namespace: istio-system }", "metadata: { name: palisade, namespace: tools }", &[]),
    ("spec:\n  configPatches:", "spec:\n  workloadSelector: { labels: { app: other } }\n  configPatches:", FILTERED),
    ("spec:\n  configPatches:", "spec:\n  workloadSelector: { labels: { app: crm } }\n  configPatches:", &[]),
    (
        "namespace: ambient }\nspec:\n  targetRefs: [{ kind: Gateway, group: gateway.networking.k8s.io, name: waypoint }]\n  configPatches",
        "namespace: ambient }\nspec:\n  configPatches",
        FILTERED,
    ),
    (
        "labels: { app: crm }\n      annotations: {}",
        "labels: { app: crm, sidecar.istio.io/inject: \"no\" }\n      annotations: {}",
        &["not-captured"],
    ),
    ("annotations: {}", "annotations: { sidecar.istio.io/inject: \"disabled\" }", &["not-captured"]),
    ("annotations: {}", "annotations: { sidecar.istio.io/inject: \"Yes\" }", &[]),
    // The label is what counts.
    (
        "labels: { app: crm }\n      annotations: {}",
        "labels: { app: crm, sidecar.istio.io/inject: \"true\" }\n      annotations: { sidecar.istio.io/inject: \"false\" }",
        &[],
    ),
    // In ambient mode nobody but a waypoint asks, and it takes no policy that does not name it.
    ("istio.io/use-waypoint: waypoint", "was: waypoint", &["unchecked"]),
    ("istio.io/use-waypoint: waypoint", "istio.io/use-waypoint: none", &["unchecked"]),
    ("istio.io/use-waypoint: waypoint", "istio.io/use-waypoint: other", &["unchecked"]),
    (
        "istio.io/use-waypoint: waypoint",
        "istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: ambient",
        &[],
    ),
    (
        "istio.io/use-waypoint: waypoint",
        "istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: elsewhere",
        &["unchecked"],
    ),
    (
        "  targetRefs: [{ kind: Gateway, group: gateway.networking.k8s.io, name: waypoint }]\n  action",
        "  action",
        &["selector-ignored", "unchecked"],
    ),
];

/// What nobody sets who is for it.
pub(super) const FILTERED: &[&str] =
    &["certificate-withheld", "header-underscores", "headers-joined", "mutations-unchecked", "stream-unbounded"];

/// Documents that are added to it, and what is found then.
const ADDED: &[(&str, &[&str])] = &[
    ("apiVersion: v1\nkind: Namespace\nmetadata: { name: tools, labels: { istio-injection: enabled } }", &[]),
    ("apiVersion: v1\nkind: Namespace\nmetadata: { name: tools, labels: { istio.io/rev: stable } }", &[]),
    (
        "apiVersion: v1\nkind: Namespace\nmetadata: { name: tools, labels: { istio-injection: disabled } }",
        &["not-captured"],
    ),
    (
        "apiVersion: v1\nkind: Namespace\nmetadata: { name: tools, labels: { istio-injection: disabled, istio.io/rev: a } }",
        &["not-captured"],
    ),
    ("apiVersion: v1\nkind: Namespace\nmetadata: { name: tools }", &["not-captured"]),
    // The policy there has no targetRefs, and a waypoint would have to be named.
    (
        "apiVersion: v1\nkind: Namespace\nmetadata: { name: tools, labels: { istio.io/dataplane-mode: ambient } }",
        &["unchecked"],
    ),
    (
        "apiVersion: v1\nkind: Namespace\nmetadata: { name: tools, labels: { istio.io/dataplane-mode: ambient, istio.io/use-waypoint: w } }",
        &["unchecked"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: { name: crm, labels: { istio.io/use-waypoint: w } }\nspec: { selector: { app: crm } }",
        &["unchecked"],
    ),
    // Of two ways to a pod one goes by no waypoint.
    (
        "apiVersion: v1\nkind: Service\nmetadata: { name: open, namespace: ambient, labels: { istio.io/use-waypoint: none } }\nspec: { selector: { app: researcher } }",
        &["unchecked"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: { name: r, namespace: ambient }\nspec: { selector: { app: researcher } }",
        &[],
    ),
    (
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: { name: w }\nspec: { url: x }",
        &["changed-after-check"],
    ),
    (
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: { name: w }\nspec: { url: x, phase: AUTHN }",
        &["changed-after-check"],
    ),
];

#[test]
fn what_is_added_to_a_mesh_is_seen() {
    let mut wrong = String::new();
    for (document, expected) in ADDED {
        let report = look(&format!("{ISTIO}---\n{document}\n")).unwrap();
        if codes(&report) != expected.iter().copied().collect() {
            wrong += &format!("{document}: expected {expected:?}\n{}\n", report.text());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn values_of_istiod_are_read_wherever_they_are() {
    let config = "pathNormalization: { normalization: MERGE_SLASHES }";
    let closed = "outboundTrafficPolicy: { mode: REGISTRY_ONLY }";
    let bare = |proxy: &str| format!("meshConfig: {{ {config}, {closed} }}\nglobal: {{ proxy: {{ {proxy} }} }}\n");
    let object =
        |kind: &str, spec: &str| format!("apiVersion: {kind}\nmetadata: {{ name: mesh }}\nspec: {{ {spec} }}\n");
    let sail = |proxy: &str| {
        let values = format!("values: {{ meshConfig: {{ {config}, {closed} }}, global: {{ proxy: {{ {proxy} }} }} }}");
        object("sailoperator.io/v1\nkind: Istio", &values)
    };
    let operator = |proxy: &str| {
        // Each half of what it says is in one of two places.
        let spec = format!(
            "meshConfig: {{ {config} }}, values: {{ meshConfig: {{ {closed} }}, global: {{ proxy: {{ {proxy} }} }} }}"
        );
        object("install.istio.io/v1alpha1\nkind: IstioOperator", &spec)
    };
    let alone = |proxy: &str| format!("global: {{ proxy: {{ {proxy} }} }}\n");
    let excluded = BTreeSet::from(["excluded-port"]);
    for (proxy, expected) in [
        ("excludeInboundPorts: \"\", includeInboundPorts: \"*\", includeIPRanges: \"*\"", BTreeSet::new()),
        ("excludeInboundPorts: \"8080\"", excluded.clone()),
        ("includeInboundPorts: \"80\"", excluded.clone()),
        ("includeIPRanges: 10.0.0.0/8", excluded.clone()),
        ("excludeIPRanges: 10.0.0.0/8", excluded.clone()),
        ("excludeOutboundPorts: 443", excluded),
    ] {
        for text in [bare(proxy), sail(proxy), operator(proxy), alone(proxy)] {
            assert_eq!(codes(&look(&text).unwrap()), expected, "{text}");
        }
    }
    for (templates, expected) in [
        ("[grpc-agent]", BTreeSet::from(["not-captured"])),
        ("[sidecar, mine]", BTreeSet::from(["unreadable"])),
        ("[sidecar, palisade]", BTreeSet::new()),
        ("[]", BTreeSet::new()),
    ] {
        let text = alone("") + &format!("sidecarInjectorWebhook: {{ defaultTemplates: {templates} }}\n");
        assert_eq!(codes(&look(&text).unwrap()), expected, "{text}");
    }
    for text in [bare("a: 1"), sail("a: 1"), operator("a: 1")] {
        let open = text.replace("REGISTRY_ONLY", "ALLOW_ANY");
        assert_eq!(codes(&look(&open).unwrap()), BTreeSet::from(["outbound-open"]), "{open}");
        let plain = text.replace("MERGE_SLASHES", "NONE");
        assert_eq!(codes(&look(&plain).unwrap()), BTreeSet::from(["path-not-normalized"]), "{plain}");
    }
}
