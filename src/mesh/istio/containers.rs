//! Containers: which are Istio's or Palisade's own, and what lets another one go around the proxy.

use crate::mesh::finding::{Finder, Rule};
use crate::mesh::node::Node;

/// The user and the group of Istio's proxy, whose traffic is not captured.
const PROXY: &str = "1337";
/// What the proxy's own containers are called, and what they run.
const ISTIOS: &[(&str, &str)] =
    &[("istio-proxy", "proxy"), ("istio-init", "istio-iptables"), ("istio-validation", "istio-iptables")];
/// Palisade's, which share the proxy's group for the socket between them.
const PALISADES: &[(&str, &str)] = &[("palisade", "serve"), ("palisade-bundle", "bundle")];
/// What lets a container change what is captured, or reach the proxy.
const CAPABILITIES: &[&str] = &["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "ALL"];
/// Those of them that Istio's own have to have.
const NETWORK: &[&str] = &["NET_ADMIN", "NET_RAW"];
/// Where a pod has containers.
const LISTS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];

/// Whether it is Istio's own, as the injector makes it, or the place of one, and not merely called so.
pub(super) fn is_istios(container: &Node) -> bool {
    let image = image(container);
    let has_image = matches!(image, "" | "auto") || image.starts_with("proxyv2");
    has_image && runs(container, ISTIOS, container.get("args").items().is_empty())
}

/// Whether it is one of Palisade's, as the chart makes it.
pub(super) fn is_palisades(container: &Node) -> bool {
    let has_ports = !container.get("ports").items().is_empty();
    runs(container, PALISADES, false) && !has_ports && image(container).contains("palisade")
}

/// Whether it has one of those names and runs what goes with it, or what its image says if that will do.
fn runs(container: &Node, known: &[(&str, &str)], by_default: bool) -> bool {
    let program = container.get("args").items().first().map(Node::text);
    let is_known =
        |(name, runs): &(&str, &str)| container.get("name").text() == *name && (by_default || program == Some(*runs));
    known.iter().any(is_known) && !container.get("command").is_there()
}

/// The last part of an image's name, and its tag.
fn image(container: &Node) -> &str {
    let image = container.get("image").text();
    image.rsplit_once('/').map_or(image, |(_, name)| name)
}

/// What a pod runs as long as it lives, but what is Palisade's, and the proxy beside it.
pub(super) fn servers(pod: &Node) -> impl Iterator<Item = &Node> {
    let spec = pod.get("spec");
    let beside = spec.get("initContainers").items().iter();
    let beside = beside.filter(|one| one.get("restartPolicy").text() == "Always" && !is_istios(one));
    spec.get("containers").items().iter().chain(beside).filter(|one| !is_palisades(one))
}

/// Whether a pod has its proxy already, and not the place of one.
pub(super) fn has_proxy(pod: &Node) -> bool {
    let spec = pod.get("spec");
    let mut all = LISTS.iter().flat_map(|list| spec.get(list).items());
    all.any(|one| is_istios(one) && !matches!(image(one), "" | "auto"))
}

/// Checks those of a pod.
pub(super) fn check(spec: &Node, place: &str, finder: &mut Finder<'_>) {
    let shared = spec.get("securityContext");
    own("fsGroup", shared.get("fsGroup"), place, finder);
    for group in shared.get("supplementalGroups").items() {
        own("supplementalGroups", group, place, finder);
    }
    for name in ["hostPID", "shareProcessNamespace"] {
        let node = spec.get(name);
        if node.is_there() && node.text() != "false" {
            finder.add(Rule::ProxyUser, node.line, place, format!("{name}: {}", node.text()));
        }
    }
    for list in LISTS {
        for one in spec.get(list).items() {
            container(one, shared, &format!("{place}, container {}", one.get("name").text()), finder);
        }
    }
}

fn container(container: &Node, shared: &Node, place: &str, finder: &mut Finder<'_>) {
    let (is_istios, is_palisades) = (is_istios(container), is_palisades(container));
    if !is_istios && ISTIOS.iter().any(|(name, _)| container.get("name").text() == *name) {
        // The injector would make its own out of it.
        let what = "is called as Istio's, and has another image, command or arguments";
        finder.add(Rule::Unreadable, container.line, place, what);
    }
    let context = container.get("securityContext");
    for name in ["runAsUser", "runAsGroup"] {
        let node = if context.get(name).is_there() { context.get(name) } else { shared.get(name) };
        let is_shared = is_istios || (is_palisades && name == "runAsGroup");
        if !is_shared {
            own(name, node, place, finder);
        }
    }
    let privileged = context.get("privileged");
    if privileged.is_there() && privileged.text() != "false" {
        finder.add(Rule::ProxyUser, privileged.line, place, format!("privileged: {}", privileged.text()));
    }
    for capability in context.at("capabilities.add").items() {
        let name = capability.text().to_ascii_uppercase();
        let name = name.trim_start_matches("CAP_");
        if CAPABILITIES.contains(&name) && !(is_istios && NETWORK.contains(&name)) {
            finder.add(Rule::ProxyUser, capability.line, place, format!("capability {name}"));
        }
    }
}

/// Checks that a user or group is not the proxy's own. YAML has more forms of a number than all its readers know (0x539, 02471).
fn own(name: &str, node: &Node, place: &str, finder: &mut Finder<'_>) {
    let text = node.text();
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text == PROXY {
        finder.add(Rule::ProxyUser, node.line, place, format!("{name}: {PROXY}"));
    } else if node.is_there() && !(is_decimal && (text == "0" || !text.starts_with('0'))) {
        finder.add(Rule::Unreadable, node.line, place, format!("{name}: {text} is no plain number"));
    }
}
