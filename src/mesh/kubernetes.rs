//! Kubernetes objects, as far as it matters here: what they are, what they are called, and the pods that they make.

use super::node::Node;

/// One object of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'n> {
    pub(super) file: &'n str,
    pub(super) node: &'n Node,
    /// The group of its `apiVersion`: "security.istio.io"; empty for Kubernetes' own.
    pub(super) group: &'n str,
    pub(super) kind: &'n str,
    /// The namespace of those that name none: that of the command that applies them.
    default: &'n str,
}

/// The group that stands for a bare `MeshConfig`, or values of istiod's chart, which are no objects.
pub(super) const MESH_CONFIG: &str = "MeshConfig";

/// Kinds that are looked at, and their groups.
const KINDS: &[(&str, &[&str])] = &[
    ("AuthorizationPolicy", &["security.istio.io"]),
    ("PeerAuthentication", &["security.istio.io"]),
    ("EnvoyFilter", &["networking.istio.io"]),
    ("Sidecar", &["networking.istio.io"]),
    ("VirtualService", &["networking.istio.io"]),
    ("Gateway", &["networking.istio.io", "gateway.networking.k8s.io"]),
    ("HTTPRoute", &["gateway.networking.k8s.io"]),
    ("GRPCRoute", &["gateway.networking.k8s.io"]),
    ("WasmPlugin", &["extensions.istio.io"]),
    ("TrafficExtension", &["extensions.istio.io"]),
    ("IstioOperator", &["install.istio.io"]),
    ("Istio", &["sailoperator.io"]),
    ("Namespace", &[""]),
    ("Service", &[""]),
    ("ConfigMap", &[""]),
    ("Pod", &[""]),
    ("ReplicationController", &[""]),
    ("Deployment", &["apps"]),
    ("StatefulSet", &["apps"]),
    ("DaemonSet", &["apps"]),
    ("ReplicaSet", &["apps"]),
    ("Job", &["batch"]),
    ("CronJob", &["batch"]),
];

/// Whether it says that it is an object.
pub(super) fn is_object(node: &Node) -> bool {
    ["apiVersion", "kind"].iter().all(|name| !node.get(name).text().is_empty())
}

/// Adds what `node` is to `objects`: itself, or what is in a list.
///
/// # Errors
/// If it is no object, and no `MeshConfig`.
pub(super) fn take<'n>(
    file: &'n str,
    default: &'n str,
    node: &'n Node,
    objects: &mut Vec<Object<'n>>,
) -> Result<(), String> {
    let version = node.get("apiVersion").text();
    let kind = node.get("kind").text();
    if !version.is_empty() && kind.ends_with("List") && !node.get("items").items().is_empty() {
        return node.get("items").items().iter().try_for_each(|item| take(file, default, item, objects));
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    if is_object(node) {
        objects.push(Object { file, node, group, kind, default });
        return Ok(());
    }
    // Values of Istio's chart, and what they hold.
    let mesh = if node.get("meshConfig").is_there() { node.get("meshConfig") } else { node };
    if [
        "extensionProviders",
        "defaultConfig",
        "pathNormalization",
        "outboundTrafficPolicy",
        "accessLogFile",
        "rootNamespace",
    ]
    .iter()
    .any(|name| mesh.get(name).is_there())
        || node.at("global.proxy").is_there()
    {
        objects.push(Object { file, node, group: MESH_CONFIG, kind: MESH_CONFIG, default });
        return Ok(());
    }
    Err(format!(
        "{file}: line {}: is neither a Kubernetes object nor Istio's MeshConfig nor Envoy's bootstrap or config dump",
        node.line
    ))
}

impl<'n> Object<'n> {
    pub(super) fn name(&self) -> &'n str {
        self.node.at("metadata.name").text()
    }

    /// Whether it is a policy that counts where somebody applies it.
    pub(super) fn names_no_namespace(&self) -> bool {
        matches!(self.kind, "AuthorizationPolicy" | "PeerAuthentication" | "EnvoyFilter")
            && self.node.at("metadata.namespace").text().is_empty()
    }

    pub(super) fn namespace(&self) -> &'n str {
        let namespace = self.node.at("metadata.namespace").text();
        if namespace.is_empty() { self.default } else { namespace }
    }

    pub(super) fn spec(&self) -> &'n Node {
        self.node.get("spec")
    }

    pub(super) fn annotation(&self, name: &str) -> &'n Node {
        self.node.at("metadata.annotations").exact(name)
    }

    pub(super) fn label(&self, name: &str) -> &'n Node {
        self.node.at("metadata.labels").exact(name)
    }

    /// Of a kind that is looked at, but of another group: those that it should be of.
    pub(super) fn other_groups(&self) -> Option<&'static [&'static str]> {
        let (_, groups) = KINDS.iter().find(|(kind, _)| *kind == self.kind)?;
        (!groups.contains(&self.group)).then_some(groups)
    }

    /// Kind and name, as people say it.
    pub(super) fn place(&self) -> String {
        if self.kind == MESH_CONFIG {
            return self.kind.to_owned();
        }
        format!("{} {}/{}", self.kind, self.namespace(), self.name())
    }

    /// The pods that it makes: metadata and spec; nothing if it makes none.
    pub(super) fn pod(&self) -> Option<&'n Node> {
        let pod = match (self.group, self.kind) {
            ("", "Pod") => self.node,
            ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => {
                self.node.at("spec.template")
            }
            ("", "ReplicationController") => self.node.at("spec.template"),
            ("batch", "CronJob") => self.node.at("spec.jobTemplate.spec.template"),
            _ => return None,
        };
        pod.is_there().then_some(pod)
    }
}

/// Whether `labels` have everything that `selector` asks for; an empty one asks for nothing.
pub(super) fn selects(selector: &Node, labels: &Node) -> bool {
    selector.members().iter().all(|(name, value)| has_label(labels, name, value.text()))
}

/// Whether a label is there with that value: one that is not there has none, not even an empty one.
pub(super) fn has_label(labels: &Node, name: &str, value: &str) -> bool {
    labels.members().iter().any(|(label, own)| label == name && own.text() == value)
}
