//! What stands before Palisade: whether the mesh's configuration lets a call pass that Palisade was not asked about, or hands it over
//! so that it is read as something else. Palisade itself fails closed; this looks at those who ask it.

pub mod envoy;
pub mod finding;
mod istio;
mod kubernetes;
pub mod node;
pub mod probe;

use finding::{Finder, Report};
use kubernetes::Object;
use node::Node;

/// What is counted of things that take calls.
const TAKES_CALLS: [&str; 3] = ["workloads", "gateways", "listeners"];

/// What the configuration is held against.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most bytes of a body that Palisade takes.
    pub body_bytes: u64,
    /// The version of Envoy, where the files do not say it.
    pub envoy_version: Option<envoy::Version>,
    /// The namespace of objects that name none.
    pub namespace: String,
}

/// What may be why a text is not read.
fn hint(text: &str) -> &'static str {
    if text.contains("${") {
        "; it has placeholders (`${…}`): fill them in first, or take the dump of a running Envoy"
    } else if text.contains("{{") {
        "; it looks like a template: render it first"
    } else {
        ""
    }
}

/// Whether a text is for [`lint`]: something in it is of a kind that is read, or it cannot be read at all.
#[must_use]
pub fn concerns(text: &str) -> bool {
    let is_of_ours = |node: &Node| envoy::is_envoy(node) || kubernetes::take("", "", node, &mut Vec::new()).is_ok();
    node::read(text).map_or(true, |nodes| nodes.iter().filter(|node| node.is_there()).any(is_of_ours))
}

/// Looks at files together: a policy in one of them is about a workload in another.
///
/// # Errors
/// A file that cannot be read, or is neither Kubernetes' nor Istio's nor Envoy's, or files in which nothing is looked at; what is wrong,
/// behind the name.
pub fn lint(files: &[(String, String)], settings: &Settings) -> Result<Report, String> {
    let mut report = Report::default();
    let mut documents: Vec<(&str, Vec<Node>)> = Vec::new();
    for (file, text) in files {
        let nodes = node::read(text).map_err(|error| format!("{file}: {error}{}", hint(text)))?;
        documents.push((file, nodes.into_iter().filter(Node::is_there).collect()));
    }
    let mut objects: Vec<Object<'_>> = Vec::new();
    for (file, nodes) in &documents {
        if nodes.is_empty() {
            return Err(format!("{file}: holds nothing"));
        }
        for node in nodes {
            if envoy::is_envoy(node) && kubernetes::is_object(node) {
                return Err(format!(
                    "{file}: line {}: is both Kubernetes' and Envoy's: either reads its own part",
                    node.line
                ));
            }
            if envoy::is_envoy(node) {
                envoy::check(node, &mut Finder { file, report: &mut report }, settings);
            } else {
                kubernetes::take(file, &settings.namespace, node, &mut objects)?;
            }
        }
    }
    // Files of Istio do not say it; what was told then is all that there is.
    if settings.envoy_version.is_some()
        && documents.iter().flat_map(|(_, nodes)| nodes).all(|node| !envoy::is_envoy(node))
    {
        envoy::check_version(Node::NULL, settings, &mut Finder { file: "--envoy-version", report: &mut report });
    }
    istio::check(&objects, &mut report, settings)?;
    if report.checked.is_empty() && report.findings.is_empty() {
        let files: Vec<&str> = files.iter().map(|(file, _)| file.as_str()).collect();
        return Err(format!("{}: holds nothing that is looked at", files.join(", ")));
    }
    if !report.checked.iter().any(|(kind, _)| TAKES_CALLS.contains(kind)) {
        report
            .skipped
            .push("whether calls are checked: nothing that takes calls is here (workload, gateway, listener)".into());
    }
    report.findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(report)
}
