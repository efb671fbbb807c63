//! Pods: what of their traffic does not go through their proxy.

use super::{Mesh, containers, mesh_config, within};
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
    // What comes in there counts as going out.
    ("traffic.sidecar.istio.io/kubevirtInterfaces", "", &[""]),
    ("istio.io/reroute-virtual-interfaces", "", &[""]),
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
/// Says from which templates the injector makes what it adds.
const TEMPLATES: &str = "inject.istio.io/templates";
/// Those that give a pod its proxy.
const PROXIES: &[&str] = &["sidecar", "gateway"];
/// Those that may come with one: Palisade's, and SPIRE's of `istio/spire`.
const ADDED: &[&str] = &["palisade", "spire", "spire-gateway"];
/// Annotations that make something else of a pod's proxy than what Istio configures.
const REPLACED: &[&str] =
    &["sidecar.istio.io/bootstrapOverride", "sidecar.istio.io/proxyImage", "sidecar.istio.io/discoveryAddress"];

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
    if containers::has_proxy(pod) {
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

/// Checks what istiod's values do to every proxy.
pub(super) fn mesh_wide(values: &Node, place: &str, finder: &mut Finder<'_>) {
    if values.get("global").is_there() {
        finder.count("values of istiod");
    }
    for (_, name, harmless) in EXCLUSIONS.iter().filter(|(_, name, _)| !name.is_empty()) {
        excluded(values.at("global.proxy").get(name), name, harmless, &format!("{place}, global.proxy"), finder);
    }
    let defaults = values.at("sidecarInjectorWebhook.defaultTemplates");
    if !defaults.items().is_empty() {
        templates(defaults, "defaultTemplates", place, finder);
    }
}

fn excluded(node: &Node, name: &str, harmless: &[&str], place: &str, finder: &mut Finder<'_>) {
    if node.is_there() && !harmless.contains(&node.text()) {
        finder.add(Rule::ExcludedPort, node.line, place, format!("{name}: {}", node.text()));
    }
}

/// Checks of which templates a pod is made, in a list or a text: one has to be a proxy's, and others may be anything.
fn templates(node: &Node, name: &str, place: &str, finder: &mut Finder<'_>) {
    let listed: Vec<&str> = node.items().iter().map(Node::text).collect();
    let names = if listed.is_empty() { node.text().split(',').map(str::trim).collect() } else { listed };
    let is_known = |template: &&str| PROXIES.contains(template) || ADDED.contains(template);
    if !names.iter().any(|template| PROXIES.contains(template)) {
        finder.add(Rule::NotCaptured, node.line, place, format!("{name}: {}", names.join(",")));
    } else if let Some(other) = names.into_iter().find(|template| !is_known(template)) {
        finder.add(Rule::Unreadable, node.line, place, format!("{name}: what {other} adds"));
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
    let named = annotations.exact(TEMPLATES);
    if named.is_there() {
        templates(named, TEMPLATES, &place, finder);
    }
    for (name, node) in REPLACED.iter().map(|name| (name, annotations.exact(name))) {
        if node.is_there() {
            finder.add(Rule::Unreadable, node.line, &place, format!("{name}: another proxy than Istio's"));
        }
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
    containers::check(spec, &place, finder);
}
