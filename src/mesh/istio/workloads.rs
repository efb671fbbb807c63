//! Pods: what of their traffic does not go through their proxy.

use super::{mesh_config, within};
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::kubernetes::Object;
use crate::mesh::node::Node;

/// Annotations that leave something out of the proxy, and what they may say all the same.
const EXCLUSIONS: &[(&str, &[&str])] = &[
    ("traffic.sidecar.istio.io/excludeInboundPorts", &[""]),
    ("traffic.sidecar.istio.io/includeInboundPorts", &["*"]),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", &[""]),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", &[""]),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", &["*"]),
    ("traffic.sidecar.istio.io/excludeInterfaces", &[""]),
    ("ambient.istio.io/bypass-inbound-capture", &["", "false"]),
];
/// The user and the group of Istio's proxy, whose traffic is not captured.
const PROXY: &str = "1337";
/// What the proxy's own containers are called.
const ITS_CONTAINERS: &[&str] = &["istio-proxy", "istio-init", "istio-validation"];
/// Palisade's container, which shares the proxy's group for the socket between them.
pub(super) const PALISADE: &str = "palisade";

/// Checks the pods that an object makes.
pub(super) fn check(object: &Object<'_>, finder: &mut Finder<'_>) {
    let Some(pod) = object.pod() else { return };
    finder.count("workloads");
    let place = object.place();
    let annotations = pod.at("metadata.annotations");
    let labels = pod.at("metadata.labels");
    for (name, harmless) in EXCLUSIONS {
        let node = annotations.exact(name);
        if node.is_there() && !harmless.contains(&node.text()) {
            finder.add(Rule::ExcludedPort, node.line, &place, format!("{name}: {}", node.text()));
        }
    }
    for (names, name, off) in [
        (annotations, "sidecar.istio.io/inject", "false"),
        (labels, "sidecar.istio.io/inject", "false"),
        (labels, "istio.io/dataplane-mode", "none"),
        (annotations, "sidecar.istio.io/interceptionMode", "NONE"),
    ] {
        let node = names.exact(name);
        if node.text() == off {
            finder.add(Rule::NotCaptured, node.line, &place, format!("{name}: {off}"));
        }
    }
    let config = annotations.exact("proxy.istio.io/config");
    if config.is_there() {
        match within(config) {
            Ok(config) => mesh_config::proxy(&config, &place, finder),
            Err(error) => finder.add(Rule::Unreadable, config.line, &place, format!("proxy.istio.io/config: {error}")),
        }
    }
    let spec = pod.get("spec");
    let host = spec.get("hostNetwork");
    if host.is_true() {
        finder.add(Rule::NotCaptured, host.line, &place, "hostNetwork: true");
    }
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.get(kind).items() {
            let name = container.get("name").text();
            if !ITS_CONTAINERS.contains(&name) {
                self::container(container, spec, &format!("{place}, container {name}"), finder);
            }
        }
    }
}

fn container(container: &Node, spec: &Node, place: &str, finder: &mut Finder<'_>) {
    let own = container.get("securityContext");
    let is_palisade = container.get("name").text() == PALISADE;
    for name in ["runAsUser", "runAsGroup"] {
        let here = own.get(name);
        let node = if here.is_there() { here } else { spec.get("securityContext").get(name) };
        if node.text() == PROXY && !(is_palisade && name == "runAsGroup") {
            finder.add(Rule::ProxyUser, node.line, place, format!("{name}: {PROXY}"));
        }
    }
    let privileged = own.get("privileged");
    if privileged.is_true() {
        finder.add(Rule::ProxyUser, privileged.line, place, "privileged: true");
    }
    for capability in own.at("capabilities.add").items() {
        let name = capability.text().trim_start_matches("CAP_");
        if matches!(name, "NET_ADMIN" | "NET_RAW" | "SYS_ADMIN" | "SYS_PTRACE" | "ALL") {
            finder.add(Rule::ProxyUser, capability.line, place, format!("capability {name}"));
        }
    }
}
