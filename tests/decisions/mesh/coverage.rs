//! Policies and routes: what is only seemingly about a workload, and what changes calls behind the check.

use std::collections::BTreeSet;

use super::{Break, ISTIO, broken, codes, look};

const SELECTED: &str = "  action: CUSTOM\n  provider: { name: palisade }\n  rules: [{}]\n---\napiVersion: networking";
const WAYPOINT: &str = "  labels: { istio.io/waypoint-for: all }\n";
const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway";
const STRICT: &str = "kind: PeerAuthentication\nmetadata: { name: default, namespace: istio-system }";

const BREAKS: &[Break] = &[
    // A label that is not there is not empty.
    (
        SELECTED,
        "  selector: { matchLabels: { palisade: \"\" } }\n  action: CUSTOM\n  provider: { name: palisade }\n  rules: [{}]\n---\napiVersion: networking",
        &["unchecked"],
    ),
    ("      labels: { app: crm }\n", "      labels: { app: crm, palisade: }\n", &[]),
    // Only what is a waypoint among the files carries calls, and only those that it is for.
    (WAYPOINT, "  labels: { istio.io/waypoint-for: none }\n", &["unchecked"]),
    (WAYPOINT, "  labels: { istio.io/waypoint-for: service }\n", &["unchecked"]),
    (WAYPOINT, "  labels: {}\n", &["unchecked"]),
    (WAYPOINT, "  labels: { istio.io/waypoint-for: workload }\n", &[]),
    (GATEWAY, "apiVersion: v1\nkind: Secret", &["unchecked"]),
    // The same kind of another group is something else.
    (GATEWAY, "apiVersion: gateway.networking.k8s.oi/v1\nkind: Gateway", &["unchecked", "unreadable"]),
    (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: palisade,",
        "apiVersion: security.istio.oi/v1\nkind: AuthorizationPolicy\nmetadata: { name: palisade,",
        &["unchecked", "unreadable"],
    ),
    (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication",
        "apiVersion: security.istio.oi/v1\nkind: PeerAuthentication",
        &["permissive-mtls", "unreadable"],
    ),
    ("apiVersion: apps/v1\nkind: Deployment", "apiVersion: v1\nkind: Deployment", &["unreadable"]),
    // Of two that are equally close Istio takes the oldest alone.
    (
        STRICT,
        "kind: PeerAuthentication\nmetadata: { name: a, namespace: istio-system }\nspec: {}\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: default, namespace: istio-system }",
        &["permissive-mtls"],
    ),
    (
        STRICT,
        "kind: PeerAuthentication\nmetadata: { name: a, namespace: tools }\nspec: {}\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: default, namespace: istio-system }",
        &[],
    ),
    (
        STRICT,
        "kind: PeerAuthentication\nmetadata: { name: a, namespace: istio-system }\nspec: { mtls: { mode: STRICT } }\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: default, namespace: istio-system }",
        &[],
    ),
];

#[test]
fn what_is_about_nobody_covers_nobody() {
    let (mut found, mut wrong) = (BTreeSet::new(), String::new());
    broken(ISTIO, BREAKS, &mut found, &mut wrong);
    assert!(wrong.is_empty(), "{wrong}");
}

/// A policy about the gateway of `istio.yaml`.
const ASKED: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: edge, namespace: istio-ingress }\nspec: { action: CUSTOM, provider: { name: palisade }, rules: [{}], selector: { matchLabels: { istio: ingressgateway } } }\n";

/// What a route is for, what it does, and what is found then.
const ROUTES: &[(&str, &str, &[&str])] = &[
    ("gateways: [partners]", "rewrite: { uri: /admin }", &["path-rewritten"]),
    ("gateways: [istio-ingress/partners]", "rewrite: { authority: a }", &["path-rewritten"]),
    ("gateways: [partners]", "headers: { request: { set: { authorization: x } } }", &["changed-after-check"]),
    ("gateways: [partners]", "headers: { request: { add: { a: x } } }", &["changed-after-check"]),
    ("gateways: [partners]", "headers: { request: { remove: [a] } }", &["changed-after-check"]),
    ("gateways: [partners]", "route: [{ headers: { request: { remove: [a] } } }]", &["changed-after-check"]),
    ("gateways: [mesh, partners]", "headers: { request: { remove: [a] } }", &["changed-after-check"]),
    ("gateways: [another]", "headers: { request: { remove: [a] } }", &["changed-after-check"]),
    // A waypoint has the routes of the mesh, and a part those of whoever has it.
    ("gateways: [mesh]", "headers: { request: { remove: [a] } }", &["changed-after-check"]),
    ("exportTo: []", "headers: { request: { remove: [a] } }", &["changed-after-check"]),
    ("gateways: [partners]", "match: [{ gateways: [mesh] }], rewrite: { uri: / }", &["path-rewritten"]),
    ("gateways: [partners]", "match: [{ gateways: [partners] }, {}], rewrite: { uri: / }", &["path-rewritten"]),
    // Back to the caller goes what the server said, and nothing is changed by nothing.
    ("gateways: [partners]", "headers: { response: { set: { a: x } } }", &[]),
    ("gateways: [partners]", "headers: { request: { set: {}, remove: [] } }", &[]),
    ("gateways: [partners]", "redirect: { uri: /a }", &[]),
];

fn route(whose: &str, what: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{ name: r, namespace: istio-ingress }}\nspec: {{ hosts: [a.example.org], {whose}, http: [{{ {what} }}] }}\n"
    )
}

#[test]
fn what_a_route_changes_behind_the_check_is_found() {
    let mut wrong = String::new();
    for (whose, what, expected) in ROUTES {
        let report = look(&format!("{ISTIO}---\n{ASKED}---\n{}", route(whose, what))).unwrap();
        let found: BTreeSet<_> =
            codes(&report).into_iter().filter(|code| !super::istio::FILTERED.contains(code)).collect();
        if found != expected.iter().copied().collect() {
            wrong += &format!("{whose}, {what}: expected {expected:?}\n{}\n", report.text());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_comes_before_the_check_may_change_a_call() {
    // The gateway does not ask: the server's sidecar does, behind it.
    let change = "headers: { request: { remove: [a] } }";
    assert_eq!(look(&format!("{ISTIO}---\n{}", route("gateways: [partners]", change))).unwrap().findings, []);
    // Without a waypoint the mesh's routes are the callers' own.
    let sidecars = ISTIO.split("---\napiVersion: gateway.networking.k8s.io").next().unwrap();
    for whose in ["gateways: [mesh]", "exportTo: []"] {
        assert_eq!(look(&format!("{sidecars}---\n{}", route(whose, change))).unwrap().findings, [], "{whose}");
    }
    let delegated = route("gateways: [mesh]", change).replace("hosts: [a.example.org], gateways: [mesh], ", "");
    assert_eq!(codes(&look(&format!("{sidecars}---\n{delegated}")).unwrap()), BTreeSet::from(["changed-after-check"]));
}

#[test]
fn routes_of_the_gateway_api_are_read_alike() {
    let route = |parent: &str, rule: &str| {
        let text = format!(
            "{ISTIO}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: r, namespace: tools }}\nspec: {{ parentRefs: [{parent}], rules: [{{ {rule} }}] }}\n"
        );
        codes(&look(&text).unwrap())
    };
    let gateway = "{ name: edge }";
    let header = "filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: a, value: b }] } }]";
    let path = "filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /a } } }]";
    assert_eq!(route(gateway, header), BTreeSet::from(["changed-after-check"]));
    assert_eq!(route(gateway, path), BTreeSet::from(["path-rewritten"]));
    assert_eq!(route(gateway, &format!("backendRefs: [{{ {header} }}]")), BTreeSet::from(["changed-after-check"]));
    assert_eq!(route("{ kind: Service, name: crm }", header), BTreeSet::from(["changed-after-check"]), "at a waypoint");
    assert_eq!(route("", header), BTreeSet::new());
    assert_eq!(route(gateway, "backendRefs: [{ name: crm }]"), BTreeSet::new());
}
