//! Routes of Istio and of the Gateway API: what changes a call where it is routed, which is behind the check of the same proxy. What a
//! caller's own sidecar changes comes before the check of the server's.

use super::Mesh;
use super::gateways::is_waypoint;
use super::proxies::Proxy;
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::kubernetes::Object;
use crate::mesh::node::{Node, Value};

/// What a route can do to the headers of a request.
const HEADERS: &[&str] = &["set", "add", "remove"];

/// What a route changes, and on which line.
type Changes = Vec<(Rule, usize, String)>;

impl Mesh<'_> {
    /// Checks a `VirtualService`.
    pub(super) fn virtual_service(&self, object: &Object<'_>, finder: &mut Finder<'_>) {
        finder.count("routes");
        let spec = object.spec();
        for (number, route) in spec.get("http").items().iter().enumerate() {
            let mut changes = rewritten(route.get("rewrite"));
            let each = route.get("route").items().iter().chain([route]);
            changes.extend(each.flat_map(|node| changed(node.at("headers.request"))));
            if !changes.is_empty() && self.is_behind_check(object, route) {
                told(changes, &format!("{}, route {number}", object.place()), finder);
            }
        }
    }

    /// Checks an `HTTPRoute` or a `GRPCRoute`.
    pub(super) fn route(&self, object: &Object<'_>, finder: &mut Finder<'_>) {
        finder.count("routes");
        // The Gateway API's gateways are checked, or found unchecked.
        let is_gateways = |parent: &Node| parent.get("kind").text() != "Service";
        if !object.spec().get("parentRefs").items().iter().any(|parent| is_gateways(parent) || self.has_waypoint()) {
            return;
        }
        for (number, rule) in object.spec().get("rules").items().iter().enumerate() {
            let each = rule.get("backendRefs").items().iter().chain([rule]);
            for filter in each.flat_map(|node| node.get("filters").items()) {
                let mut changes = rewritten(filter.get("urlRewrite"));
                changes.extend(changed(filter.get("requestHeaderModifier")));
                told(changes, &format!("{}, rule {number}", object.place()), finder);
            }
        }
    }

    /// Whether a proxy that asks may have a route of a `VirtualService`.
    fn is_behind_check(&self, object: &Object<'_>, route: &Node) -> bool {
        let spec = object.spec();
        // Without hosts it is a part of another one, which may be for any gateway.
        if spec.get("hosts").items().is_empty() {
            return self.custom().next().is_some();
        }
        // Each match may be for fewer gateways than the whole.
        let matches = route.get("match").items();
        let of = |one: &'_ Node| one.get("gateways").items().to_vec();
        let is_narrowed = !matches.is_empty() && matches.iter().all(|one| !of(one).is_empty());
        let gateways = if is_narrowed { matches.iter().flat_map(of).collect() } else { of(spec) };
        let is_checked = |name: &Node| self.is_checked(name.text(), object.namespace());
        gateways.iter().any(is_checked) || (gateways.is_empty() && self.has_waypoint())
    }

    fn has_waypoint(&self) -> bool {
        self.of("gateway.networking.k8s.io", "Gateway").any(is_waypoint)
    }

    /// Whether a policy may be about a gateway, by the name that a `VirtualService` of `namespace` has for it: about its pods, or, where
    /// those are not among the files, about such as it selects.
    fn is_checked(&self, name: &str, namespace: &str) -> bool {
        if name == "mesh" {
            return self.has_waypoint();
        }
        let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
        let mut gateways = self.of("networking.istio.io", "Gateway");
        let Some(gateway) = gateways.find(|gateway| (gateway.namespace(), gateway.name()) == (namespace, name)) else {
            return self.custom().next().is_some();
        };
        let selector = gateway.spec().get("selector");
        let selected = Proxy::selected(gateway.namespace(), selector);
        let pods = self.objects.iter().flat_map(|object| self.proxies(object)).filter(|proxy| proxy.is_of(selector));
        pods.chain([selected]).any(|proxy| self.custom().any(|policy| proxy.takes(policy, self.root())))
    }
}

fn rewritten(rewrite: &Node) -> Changes {
    let members = rewrite.members().iter();
    members.map(|(name, value)| (Rule::PathRewritten, value.line, format!("rewrites {name}"))).collect()
}

fn changed(headers: &Node) -> Changes {
    let changes = HEADERS.iter().map(|name| (name, headers.get(name)));
    let changes = changes.filter(|(_, change)| match &change.value {
        Value::List(items) => !items.is_empty(),
        Value::Map(members) => !members.is_empty(),
        Value::Null => false,
        Value::Scalar(_) => true,
    });
    changes.map(|(name, change)| (Rule::ChangedAfter, change.line, format!("headers of the request: {name}"))).collect()
}

fn told(changes: Changes, place: &str, finder: &mut Finder<'_>) {
    for (rule, line, what) in changes {
        finder.add(rule, line, place, what);
    }
}
