//! Through which proxies calls arrive, and which policies and EnvoyFilters istiod gives to those.

use super::Mesh;
use super::containers::{is_istios, servers};
use super::gateways::{is_waypoint, leads_elsewhere};
use super::workloads::Plane;
use crate::mesh::kubernetes::{Object, has_label, selects};
use crate::mesh::node::Node;

/// Names the waypoint of a namespace, a Service or a pod.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// The namespace of that waypoint, where it is another one.
const WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Of what a waypoint carries the calls: Services, unless it says something else.
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// What the pods of the Gateway API's gateways are labelled with: the name of their Gateway.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The class that policies of the root namespace name to be about every waypoint.
const WAYPOINT_CLASS: &str = "istio-waypoint";

/// A proxy, as far as istiod looks at it to choose what is for it.
pub(super) struct Proxy<'n> {
    kind: Kind<'n>,
    namespace: &'n str,
    /// Those of its pods.
    labels: &'n Node,
}

enum Kind<'n> {
    /// In a server's own pod.
    Sidecar,
    /// A gateway, and the name of its Gateway where that is the Gateway API's.
    Gateway(&'n str),
    /// A waypoint by its name, and the Service that is called through it.
    Waypoint(&'n str, Option<&'n Object<'n>>),
    /// Only ztunnel, which asks nobody.
    Tunnel,
    /// Not among the files: a policy is about it. By the name of its Gateway, if the policy says one.
    Absent(&'n str),
}

impl<'n> Proxy<'n> {
    /// The proxy that a policy is about, as the policy says it.
    pub(super) fn absent(policy: &Object<'n>) -> Option<Self> {
        let references = references(policy);
        let name = |reference: &&'n Node| (reference.get("kind").text() == "Gateway").then_some(reference.get("name"));
        let name = match references.as_slice() {
            [] => "",
            some => some.iter().find_map(name)?.text(),
        };
        let labels = policy.spec().at("selector.matchLabels");
        Some(Self { kind: Kind::Absent(name), namespace: policy.namespace(), labels })
    }

    /// The proxy of pods that a gateway of `namespace` selects, as far as that says what they are.
    pub(super) const fn selected(namespace: &'n str, selector: &'n Node) -> Self {
        Self { kind: Kind::Absent(""), namespace, labels: selector }
    }

    /// Whether a gateway selects its pods.
    pub(super) fn is_of(&self, selector: &Node) -> bool {
        matches!(self.kind, Kind::Gateway(_) | Kind::Sidecar) && selects(selector, self.labels)
    }

    /// Namespace and name of a waypoint, which many workloads have in common.
    pub(super) const fn waypoint(&self) -> Option<(&'n str, &'n str)> {
        if let Kind::Waypoint(name, _) = self.kind { Some((self.namespace, name)) } else { None }
    }

    /// Why it does not ask anybody, where no policy says that it should.
    pub(super) fn unchecked(&self) -> String {
        match self.kind {
            Kind::Tunnel => "in ambient mode nothing but a waypoint asks, and there is none before it".into(),
            Kind::Waypoint(name, _) => {
                format!(
                    "no AuthorizationPolicy CUSTOM with targetRefs is about it at waypoint {}/{name}",
                    self.namespace
                )
            }
            _ => "no AuthorizationPolicy CUSTOM is about it".into(),
        }
    }

    /// Whether istiod gives it a policy, or an EnvoyFilter.
    pub(super) fn takes(&self, policy: &Object<'_>, root: &str) -> bool {
        let spec = policy.spec();
        let is_own = policy.namespace() == self.namespace;
        let is_in_root = policy.namespace() == root;
        let references = references(policy);
        if references.is_empty() {
            let selectors = [spec.at("selector.matchLabels"), spec.at("workload_selector.labels")];
            let has_all =
                |selector: &&Node| selector.members().iter().all(|(name, value)| self.has(name, value.text()));
            return !matches!(self.kind, Kind::Waypoint(..) | Kind::Tunnel)
                && (is_own || is_in_root)
                && selectors.iter().all(has_all);
        }
        references.iter().any(|reference| {
            let name = reference.get("name").text();
            match (reference.get("kind").text(), &self.kind) {
                ("Gateway", Kind::Gateway(own) | Kind::Waypoint(own, _) | Kind::Absent(own)) => {
                    let namespace = reference.get("namespace").text();
                    is_own && name == *own && !name.is_empty() && (namespace.is_empty() || namespace == self.namespace)
                }
                // An EnvoyFilter is for whole proxies.
                ("Service", Kind::Waypoint(_, Some(service))) => {
                    policy.kind != "EnvoyFilter" && name == service.name() && policy.namespace() == service.namespace()
                }
                ("GatewayClass", Kind::Waypoint(..)) => is_in_root && name == WAYPOINT_CLASS,
                _ => false,
            }
        })
    }

    fn has(&self, label: &str, value: &str) -> bool {
        let is_name = matches!(self.kind, Kind::Gateway(name) if label == GATEWAY_NAME && name == value);
        is_name || has_label(self.labels, label, value)
    }

    /// Whether a patch of an EnvoyFilter is about what arrives at it.
    pub(super) fn hears(&self, context: &str) -> bool {
        match (&self.kind, context) {
            (_, "" | "ANY") => true,
            (Kind::Gateway(_) | Kind::Absent(_), "GATEWAY") => true,
            // To an EnvoyFilter a waypoint is a sidecar's inbound side.
            (Kind::Sidecar | Kind::Waypoint(..) | Kind::Absent(_), "SIDECAR_INBOUND") => true,
            _ => false,
        }
    }
}

/// Whether a policy says by name what it is about.
pub(super) fn has_references(policy: &Object<'_>) -> bool {
    !references(policy).is_empty()
}

/// What a policy names to be about it, also as it was written before.
fn references<'n>(policy: &Object<'n>) -> Vec<&'n Node> {
    let spec = policy.spec();
    spec.get("targetRefs").items().iter().chain(Some(spec.get("targetRef")).filter(|one| one.is_there())).collect()
}

impl<'n> Mesh<'n> {
    /// The proxies through which calls of what an object makes arrive; none of what takes no calls.
    pub(super) fn proxies(&self, object: &'n Object<'n>) -> Vec<Proxy<'n>> {
        let namespace = object.namespace();
        if object.group == "gateway.networking.k8s.io" && object.kind == "Gateway" {
            if is_waypoint(object) || leads_elsewhere(self, object) {
                return Vec::new();
            }
            // istiod hands its own labels on where it has none for its pods.
            let handed_on = object.spec().at("infrastructure.labels");
            let labels = if handed_on.is_there() { handed_on } else { object.node.at("metadata.labels") };
            return vec![Proxy { kind: Kind::Gateway(object.name()), namespace, labels }];
        }
        let Some(pod) = object.pod().filter(|_| self.takes_calls(object)) else { return Vec::new() };
        let labels = pod.at("metadata.labels");
        let services: Vec<_> = self.services(object, pod).collect();
        let ways: Vec<_> = if services.is_empty() {
            vec![self.way(labels, namespace, None)]
        } else {
            services
                .iter()
                .map(|service| self.way(service.node.at("metadata.labels"), namespace, Some(service)))
                .collect()
        };
        // Without the Namespace nobody knows whether there is a sidecar, but a waypoint says that it is not needed.
        let is_sidecar = match self.plane(object, pod) {
            Plane::Sidecar => self.namespace(namespace).is_some() || ways.iter().all(|way| way.waypoint().is_none()),
            Plane::Ambient => false,
            Plane::Nothing(..) => ways.iter().all(|way| way.waypoint().is_none()),
        };
        if !is_sidecar {
            return ways;
        }
        let name = labels.exact(GATEWAY_NAME).text();
        let is_gateway = !name.is_empty() || servers(pod).all(is_istios);
        vec![Proxy { kind: if is_gateway { Kind::Gateway(name) } else { Kind::Sidecar }, namespace, labels }]
    }

    /// Why no call comes through the waypoint that is named for it.
    pub(super) fn unused(&self, proxy: &Proxy<'_>) -> Option<String> {
        let Kind::Waypoint(name, service) = proxy.kind else { return None };
        let mut gateways = self.of("gateway.networking.k8s.io", "Gateway").filter(|gateway| is_waypoint(gateway));
        let place = format!("waypoint {}/{name}", proxy.namespace);
        let Some(gateway) = gateways.find(|gateway| (gateway.namespace(), gateway.name()) == (proxy.namespace, name))
        else {
            return Some(format!("{place} is not among the files"));
        };
        let (what, suffices) = match (gateway.label(WAYPOINT_FOR).text(), service) {
            ("", None) => ("service, where nothing is said", false),
            (what, Some(_)) => (what, ["", "service", "all"].contains(&what)),
            (what, None) => (what, ["workload", "all"].contains(&what)),
        };
        (!suffices).then(|| format!("{place} does not carry its calls: {WAYPOINT_FOR}: {what}"))
    }

    /// What calls come through in ambient mode, by the labels of what is called: a Service, or a pod itself.
    fn way(&self, labels: &'n Node, namespace: &'n str, service: Option<&'n Object<'n>>) -> Proxy<'n> {
        let inherited = self.namespace(namespace).map(|namespace| namespace.node.at("metadata.labels"));
        // The closest that says something decides, also if that is `none`.
        let says = [Some(labels), inherited].into_iter().flatten().find(|labels| labels.exact(USE_WAYPOINT).is_there());
        let labels = says.unwrap_or(Node::NULL);
        match (labels.exact(USE_WAYPOINT).text(), labels.exact(WAYPOINT_NAMESPACE).text()) {
            ("" | "none", _) => Proxy { kind: Kind::Tunnel, namespace, labels: Node::NULL },
            (name, "") => Proxy { kind: Kind::Waypoint(name, service), namespace, labels: Node::NULL },
            (name, other) => Proxy { kind: Kind::Waypoint(name, service), namespace: other, labels: Node::NULL },
        }
    }

    /// Whether others call it: it has ports, or a Service leads to it. Palisade itself is asked, and not called.
    pub(super) fn takes_calls(&self, workload: &Object<'_>) -> bool {
        let Some(pod) = workload.pod() else { return false };
        let has_ports = servers(pod).any(|server| !server.get("ports").items().is_empty());
        has_ports || (servers(pod).next().is_some() && self.services(workload, pod).next().is_some())
    }

    fn services(&self, workload: &Object<'_>, pod: &'n Node) -> impl Iterator<Item = &'n Object<'n>> {
        let namespace = workload.namespace().to_owned();
        self.of("", "Service").filter(move |service| {
            let selector = service.spec().get("selector");
            service.namespace() == namespace
                && !selector.members().is_empty()
                && selects(selector, pod.at("metadata.labels"))
        })
    }

    /// Whether a Service leads to a workload among the files.
    pub(super) fn leads(&self, name: &str, namespace: &str) -> bool {
        self.objects.iter().any(|object| {
            let mut services = object.pod().into_iter().flat_map(|pod| self.services(object, pod));
            services.any(|service| (service.name(), service.namespace()) == (name, namespace))
        })
    }

    /// The Namespace of that name, if it is among the files.
    pub(super) fn namespace(&self, name: &str) -> Option<&'n Object<'n>> {
        self.of("", "Namespace").find(|namespace| namespace.name() == name)
    }
}
