//! Which workloads are checked, and which take calls from nobody knows whom.

use super::workloads::PALISADE;
use super::{Mesh, filters, finder, gateways};
use crate::mesh::finding::{Finder, Report, Rule};
use crate::mesh::kubernetes::{Object, selects};
use crate::mesh::node::Node;

/// Where Istio's policies for the whole mesh are unless configured.
const ROOT_NAMESPACE: &str = "istio-system";
/// Names the waypoint of a namespace, a Service or a pod.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
const STRICT: &str = "STRICT";

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

impl<'n> Mesh<'n> {
    fn root(&self) -> &'n str {
        let named = self.configs.iter().map(|(_, config)| config.get("rootNamespace").text());
        named.into_iter().find(|name| !name.is_empty()).unwrap_or(ROOT_NAMESPACE)
    }

    fn of(&self, kind: &'static str) -> impl Iterator<Item = &'n Object<'n>> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }

    fn custom(&self) -> impl Iterator<Item = &'n Object<'n>> {
        self.of("AuthorizationPolicy").filter(|policy| policy.spec().get("action").text() == "CUSTOM")
    }

    /// Checks every workload that takes calls, and what policies have in common.
    pub(super) fn coverage(&self, report: &mut Report) {
        for workload in self.objects.iter().filter(|object| self.takes_calls(object)) {
            let Some(pod) = workload.pod() else { continue };
            let mut finder = finder(workload, report);
            if !self.custom().any(|policy| self.is_about(policy, workload, pod)) {
                finder.add(
                    Rule::Unchecked,
                    workload.node.line,
                    &workload.place(),
                    "no AuthorizationPolicy CUSTOM is about it",
                );
            }
            if !self.is_strict(workload, pod) {
                let what = "no PeerAuthentication says STRICT for it: Istio's default is PERMISSIVE";
                finder.add(Rule::PermissiveMtls, workload.node.line, &workload.place(), what);
            }
        }
        let Some(policy) = self.custom().next() else { return };
        let mut finder = finder(policy, report);
        let place = policy.place();
        if self.of("PeerAuthentication").next().is_none() {
            finder.add(Rule::PermissiveMtls, policy.node.line, &place, "no PeerAuthentication is among the files");
        }
        let turned_on = |name: &'static str| {
            move |kind: &str, config: &Node| kind.ends_with("ext_authz.v3.ExtAuthz") && config.get(name).is_true()
        };
        for (rule, name) in [
            (Rule::HeadersJoined, "encode_raw_headers"),
            (Rule::NoCertificate, "include_peer_certificate"),
            (Rule::Mutations, "validate_mutations"),
        ] {
            if !filters::any(self.objects, &turned_on(name)) {
                finder.add(rule, policy.node.line, &place, format!("no EnvoyFilter among the files sets {name}"));
            }
        }
        let option = |name: &'static str| {
            move |kind: &str, config: &Node| {
                kind.ends_with("HttpConnectionManager")
                    && config.get("common_http_protocol_options").get(name).is_there()
            }
        };
        for (rule, name) in
            [(Rule::Underscores, "headers_with_underscores_action"), (Rule::Unbounded, "max_stream_duration")]
        {
            if !filters::any(self.objects, &option(name)) {
                finder.add(rule, policy.node.line, &place, format!("no EnvoyFilter among the files sets {name}"));
            }
        }
    }

    /// Whether others call it: it has ports, or a Service leads to it. Palisade itself is asked, and not called.
    fn takes_calls(&self, workload: &Object<'_>) -> bool {
        let Some(pod) = workload.pod() else { return false };
        let containers = pod.at("spec.containers").items();
        let others: Vec<&Node> =
            containers.iter().filter(|container| container.get("name").text() != PALISADE).collect();
        let has_ports = others.iter().any(|container| !container.get("ports").items().is_empty());
        !others.is_empty() && (has_ports || self.services(workload, pod).next().is_some())
    }

    fn services(&self, workload: &Object<'_>, pod: &'n Node) -> impl Iterator<Item = &'n Object<'n>> {
        let namespace = workload.namespace().to_owned();
        self.of("Service").filter(move |service| {
            let selector = service.spec().get("selector");
            service.namespace() == namespace
                && !selector.members().is_empty()
                && selects(selector, pod.at("metadata.labels"))
        })
    }

    /// Whether a policy is enforced for the pods of `workload`.
    fn is_about(&self, policy: &Object<'_>, workload: &Object<'_>, pod: &'n Node) -> bool {
        let spec = policy.spec();
        let references =
            spec.get("targetRefs").items().iter().chain(Some(spec.get("targetRef")).filter(|one| one.is_there()));
        let references: Vec<&Node> = references.collect();
        let is_in_root = policy.namespace() == self.root();
        if references.is_empty() {
            return (is_in_root || policy.namespace() == workload.namespace())
                && selects(spec.at("selector.matchLabels"), pod.at("metadata.labels"));
        }
        let waypoint = self.waypoint(workload, pod);
        references.iter().any(|reference| {
            let name = reference.get("name").text();
            match reference.get("kind").text() {
                "Service" => waypoint.is_some() && self.services(workload, pod).any(|service| service.name() == name),
                "Gateway" => policy.namespace() == workload.namespace() && waypoint == Some(name),
                "GatewayClass" => is_in_root && waypoint.is_some() && name.ends_with("waypoint"),
                _ => false,
            }
        })
    }

    /// The waypoint through which calls to the workload go.
    fn waypoint(&self, workload: &Object<'_>, pod: &'n Node) -> Option<&'n str> {
        let namespace = self.of("Namespace").find(|namespace| namespace.name() == workload.namespace());
        let labels = std::iter::once(pod.at("metadata.labels").exact(USE_WAYPOINT))
            .chain(self.services(workload, pod).map(|service| service.label(USE_WAYPOINT)))
            .chain(namespace.map(|namespace| namespace.label(USE_WAYPOINT)));
        labels.map(Node::text).find(|name| !name.is_empty() && *name != "none")
    }

    /// Whether mTLS is required of callers: by the policy that is closest, unless that leaves it open.
    fn is_strict(&self, workload: &Object<'_>, pod: &Node) -> bool {
        let about = |rank: usize| {
            self.of("PeerAuthentication").filter(move |policy| {
                let selector = policy.spec().at("selector.matchLabels");
                let is_own = policy.namespace() == workload.namespace();
                match rank {
                    0 => is_own && !selector.members().is_empty() && selects(selector, pod.at("metadata.labels")),
                    1 => is_own && selector.members().is_empty(),
                    _ => policy.namespace() == self.root() && selector.members().is_empty(),
                }
            })
        };
        let mode = (0..3).find_map(|rank| {
            let mode = about(rank).map(|policy| policy.spec().at("mtls.mode").text());
            mode.into_iter().find(|mode| !matches!(*mode, "" | "UNSET"))
        });
        // Another mode is reported where it is said.
        mode.is_some()
    }

    /// Policies that a waypoint does not look at.
    pub(super) fn ignored(&self, report: &mut Report) {
        let is_waypoint = |policy: &Object<'_>| {
            let gateways = self.of("Gateway").filter(|gateway| gateways::is_waypoint(gateway));
            gateways.into_iter().any(|gateway| gateway.namespace() == policy.namespace())
        };
        for policy in self.custom().filter(|policy| is_waypoint(policy)) {
            let selector = policy.spec().get("selector");
            if selector.is_there() {
                let mut finder = finder(policy, report);
                finder.add(Rule::Selected, selector.line, &policy.place(), "a waypoint is in its namespace");
            }
        }
    }
}
