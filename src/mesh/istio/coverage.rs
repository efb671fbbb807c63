//! Which workloads are checked, and which take calls from nobody knows whom.

use super::proxies::{Proxy, has_references};
use super::{Mesh, filters, finder, gateways};
use crate::mesh::envoy::ends;
use crate::mesh::finding::{Finder, Report, Rule};
use crate::mesh::kubernetes::{Object, selects};
use crate::mesh::node::Node;

/// Where Istio's policies for the whole mesh are unless configured.
const ROOT_NAMESPACE: &str = "istio-system";
const STRICT: &str = "STRICT";
/// The group of policies.
const SECURITY: &str = "security.istio.io";

/// Checks one `PeerAuthentication`: nothing but STRICT, for no port.
pub(super) fn peer_authentication(object: &Object<'_>, finder: &mut Finder<'_>) {
    finder.count("PeerAuthentications");
    let spec = object.spec();
    let place = object.place();
    let mode = spec.at("mtls.mode");
    if mode.is_there() && !matches!(mode.text(), STRICT | "UNSET") {
        finder.add(Rule::PermissiveMtls, mode.line, &place, format!("mtls.mode: {}", mode.text()));
    }
    for (port, mtls) in spec.get("portLevelMtls").members() {
        if mtls.get("mode").text() != STRICT {
            let what = format!("port {port}: {}", mtls.get("mode").text());
            finder.add(Rule::PermissiveMtls, mtls.line, &place, what);
        }
    }
}

/// What an EnvoyFilter has to set, as Istio itself cannot.
const BY_ENVOY_FILTER: &[(Rule, &str)] = &[
    (Rule::HeadersJoined, "encode_raw_headers"),
    (Rule::NoCertificate, "include_peer_certificate"),
    (Rule::Mutations, "validate_mutations"),
    (Rule::Underscores, "headers_with_underscores_action"),
    (Rule::Unbounded, "max_stream_duration"),
];

/// Whether the configuration of a filter sets `name`.
fn is_set(name: &str, kind: &str, config: &Node) -> bool {
    let is_http = kind.ends_with("HttpConnectionManager");
    let option = config.get("common_http_protocol_options").get(name);
    match name {
        "headers_with_underscores_action" => is_http && option.is_there(),
        "max_stream_duration" => is_http && ends(option),
        _ => kind.ends_with("http.ext_authz.v3.ExtAuthz") && config.get(name).is_true(),
    }
}

impl<'n> Mesh<'n> {
    pub(super) fn root(&self) -> &str {
        let named = self.configs.iter().map(|(_, config)| config.get("root_namespace").text());
        named.into_iter().find(|name| !name.is_empty()).unwrap_or(ROOT_NAMESPACE)
    }

    pub(super) fn of(&self, group: &'static str, kind: &'static str) -> impl Iterator<Item = &'n Object<'n>> {
        self.objects.iter().filter(move |object| (object.group, object.kind) == (group, kind))
    }

    pub(super) fn custom(&self) -> impl Iterator<Item = &'n Object<'n>> {
        self.of(SECURITY, "AuthorizationPolicy").filter(|policy| policy.spec().get("action").text() == "CUSTOM")
    }

    /// Checks everything that takes calls, and the policies about it.
    pub(super) fn coverage(&self, report: &mut Report) {
        let mut proxies: Vec<Proxy<'_>> = Vec::new();
        for object in self.objects {
            let mut finder = finder(object, report);
            let (line, place) = (object.node.line, object.place());
            for proxy in self.proxies(object) {
                if !self.custom().any(|policy| proxy.takes(policy, self.root())) {
                    finder.add(Rule::Unchecked, line, &place, proxy.unchecked());
                } else if let Some(what) = self.unused(&proxy) {
                    finder.add(Rule::Unchecked, line, &place, what);
                } else if proxy
                    .waypoint()
                    .is_none_or(|name| !proxies.iter().any(|other| other.waypoint() == Some(name)))
                {
                    self.settings(&proxy, object, &mut finder);
                }
                proxies.push(proxy);
            }
            if let Some(pod) = object.pod()
                && self.takes_calls(object)
                && let Some(what) = self.not_strict(object, pod)
            {
                finder.add(Rule::PermissiveMtls, line, &place, what);
            }
        }
        for policy in self.custom() {
            let mut finder = finder(policy, report);
            if !proxies.iter().any(|proxy| proxy.takes(policy, self.root())) {
                self.ignored(policy, &mut finder);
                if let Some(proxy) = Proxy::absent(policy) {
                    self.settings(&proxy, policy, &mut finder);
                }
            }
        }
        let Some(policy) = self.custom().next() else { return };
        if self.of(SECURITY, "PeerAuthentication").next().is_none() {
            let what = "no PeerAuthentication is among the files";
            finder(policy, report).add(Rule::PermissiveMtls, policy.node.line, &policy.place(), what);
        }
    }

    /// Checks what EnvoyFilters set at a proxy that asks.
    fn settings(&self, proxy: &Proxy<'_>, object: &Object<'_>, finder: &mut Finder<'_>) {
        let filters: Vec<_> =
            self.of("networking.istio.io", "EnvoyFilter").filter(|filter| proxy.takes(filter, self.root())).collect();
        for (rule, name) in BY_ENVOY_FILTER {
            if !filters.iter().any(|filter| filters::sets(filter, proxy, &|kind, config| is_set(name, kind, config))) {
                let what = format!("no EnvoyFilter that is for it sets {name}");
                finder.add(*rule, object.node.line, &object.place(), what);
            }
        }
    }

    /// A policy about nothing that is among the files: a waypoint does not look at it.
    fn ignored(&self, policy: &Object<'_>, finder: &mut Finder<'_>) {
        let gateways = self.of("gateway.networking.k8s.io", "Gateway");
        let mut waypoints = gateways.filter(|gateway| gateways::is_waypoint(gateway));
        if !has_references(policy) && waypoints.any(|gateway| gateway.namespace() == policy.namespace()) {
            let what = "has no targetRefs, and a waypoint is in its namespace";
            finder.add(Rule::Selected, policy.spec().line, &policy.place(), what);
        }
    }

    /// Why nobody knows that mTLS is required of callers: the policy that is closest says it, unless that leaves it open.
    fn not_strict(&self, workload: &Object<'_>, pod: &Node) -> Option<&'static str> {
        let about = |rank: usize| {
            self.of(SECURITY, "PeerAuthentication").filter(move |policy| {
                let selector = policy.spec().at("selector.matchLabels");
                let is_own = policy.namespace() == workload.namespace();
                match rank {
                    0 => is_own && !selector.members().is_empty() && selects(selector, pod.at("metadata.labels")),
                    1 => is_own && selector.members().is_empty(),
                    _ => policy.namespace() == self.root() && selector.members().is_empty(),
                }
            })
        };
        for rank in 0..3 {
            let is_open = |policy: &Object<'_>| matches!(policy.spec().at("mtls.mode").text(), "" | "UNSET");
            let mut open = about(rank).map(is_open);
            // Another mode is reported where it is said.
            match open.next() {
                Some(first) if open.any(|other| other != first) => {
                    // Istio takes the oldest alone, which no file says.
                    return Some("of several PeerAuthentications that are equally close only some say STRICT");
                }
                Some(false) => return None,
                _ => {}
            }
        }
        Some("no PeerAuthentication says STRICT for it: Istio's default is PERMISSIVE")
    }
}
