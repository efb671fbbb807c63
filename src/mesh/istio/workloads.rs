//! Pods: what of their traffic does not go through their proxy.

use super::{Mesh, mesh_config, within};
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::kubernetes::Object;
use crate::mesh::node::Node;

/// Annotations that leave something out of the proxy, what they are called in istiod's `global.proxy` for every pod that has none, and
/// what they may say all the same.
const EXCLUSIONS: &[(&str, &str, &[&str])] = &[
    ("traffic.sidecar.istio.io/excludeInboundPorts", "excludeInboundPorts", &[""]),
    ("traffic.sidecar.istio.io/includeInboundPorts", "includeInboundPorts", &["*"]),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", "excludeOutboundPorts", &[""]),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "excludeIPRanges", &[""]),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", "includeIPRanges", &["*"]),
    ("traffic.sidecar.istio.io/excludeInterfaces", "", &[""]),
    ("ambient.istio.io/bypass-inbound-capture", "", &["", "false"]),
];
/// Says whether a pod gets a sidecar, as a label or an annotation.
const INJECT: &str = "sidecar.istio.io/inject";
/// What it may say for that: Istio has read the rest as no, and newer ones warn of it.
const INJECTED: &[&str] = &["", "y", "yes", "true", "on"];
/// The same for a namespace.
const INJECTION: &str = "istio-injection";
/// Whose injector it is, for a namespace or a pod.
const REVISION: &str = "istio.io/rev";
/// Whether ztunnel carries the traffic of a namespace, or of a pod.
const MODE: &str = "istio.io/dataplane-mode";
const AMBIENT: &str = "ambient";
/// The user and the group of Istio's proxy, whose traffic is not captured.
const PROXY: &str = "1337";
/// What the proxy's own containers are called.
pub(super) const ITS_CONTAINERS: &[&str] = &["istio-proxy", "istio-init", "istio-validation"];
/// Palisade's container, which shares the proxy's group for the socket between them.
pub(super) const PALISADE: &str = "palisade";

/// What carries the traffic of pods.
pub(super) enum Plane {
    /// A proxy in the pod, as far as the files tell.
    Sidecar,
    /// ztunnel.
    Ambient,
    /// Nothing, and on which line something says so.
    Nothing(usize, String),
}

impl<'n> Mesh<'n> {
    pub(super) fn plane(&self, workload: &Object<'_>, pod: &'n Node) -> Plane {
        let namespace = self.namespace(workload.namespace());
        let mode = pod.at("metadata.labels").exact(MODE).text();
        let inherited = namespace.map_or("", |namespace| namespace.label(MODE).text());
        let is_ambient = mode == AMBIENT || (inherited == AMBIENT && mode != "none");
        match not_injected(pod, namespace, workload) {
            None => Plane::Sidecar,
            Some(_) if is_ambient => Plane::Ambient,
            Some((line, what)) => Plane::Nothing(line, what),
        }
    }
}

/// Why a pod gets no sidecar, as Istio's webhooks choose pods.
fn not_injected(pod: &Node, namespace: Option<&Object<'_>>, workload: &Object<'_>) -> Option<(usize, String)> {
    let containers = ["containers", "initContainers"].map(|kind| pod.get("spec").get(kind).items());
    // Where it has a proxy already, and not the place of one.
    let is_proxy = |container: &Node| {
        ITS_CONTAINERS.contains(&container.get("name").text()) && !matches!(container.get("image").text(), "" | "auto")
    };
    if containers.into_iter().flatten().any(is_proxy) {
        return None;
    }
    let labels = pod.at("metadata.labels");
    let (own, annotated) = (labels.exact(INJECT), pod.at("metadata.annotations").exact(INJECT));
    let wish = if own.is_there() { own } else { annotated };
    if !INJECTED.contains(&wish.text().to_ascii_lowercase().as_str()) {
        return Some((wish.line, format!("{INJECT}: {}", wish.text())));
    }
    let mode = labels.exact(MODE);
    let Some(namespace) = namespace else {
        // What the namespace says is not known; but a pod that ztunnel takes, or not, is hardly one with a sidecar.
        return mode.is_there().then(|| (mode.line, format!("{MODE}: {}", mode.text())));
    };
    let (injection, name) = (namespace.label(INJECTION), namespace.name());
    if injection.is_there() {
        let what = format!("namespace {name}: {INJECTION}: {}", injection.text());
        return (injection.text() != "enabled").then_some((workload.node.line, what));
    }
    let is_chosen = own.text() == "true" || labels.exact(REVISION).is_there() || namespace.label(REVISION).is_there();
    let what = format!("nothing in namespace {name} says that it is captured: {INJECTION}, {REVISION}, {MODE}");
    (!is_chosen).then_some((workload.node.line, what))
}

/// Checks what istiod's `global.proxy` leaves out of every proxy.
pub(super) fn mesh_wide(proxy: &Node, place: &str, finder: &mut Finder<'_>) {
    finder.count("values of istiod");
    for (_, name, harmless) in EXCLUSIONS.iter().filter(|(_, name, _)| !name.is_empty()) {
        excluded(proxy.get(name), name, harmless, place, finder);
    }
}

fn excluded(node: &Node, name: &str, harmless: &[&str], place: &str, finder: &mut Finder<'_>) {
    if node.is_there() && !harmless.contains(&node.text()) {
        finder.add(Rule::ExcludedPort, node.line, place, format!("{name}: {}", node.text()));
    }
}

/// Checks the pods that an object makes.
pub(super) fn check(mesh: &Mesh<'_>, object: &Object<'_>, finder: &mut Finder<'_>) {
    let Some(pod) = object.pod() else { return };
    finder.count("workloads");
    let place = object.place();
    let annotations = pod.at("metadata.annotations");
    for (name, _, harmless) in EXCLUSIONS {
        excluded(annotations.exact(name), name, harmless, &place, finder);
    }
    if let Plane::Nothing(line, what) = mesh.plane(object, pod) {
        finder.add(Rule::NotCaptured, line, &place, what);
    }
    let interception = annotations.exact("sidecar.istio.io/interceptionMode");
    if interception.is_there() && !mesh_config::is_captured(interception) {
        let what = format!("sidecar.istio.io/interceptionMode: {}", interception.text());
        finder.add(Rule::NotCaptured, interception.line, &place, what);
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
