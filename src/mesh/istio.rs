//! Istio: the mesh's configuration, policies, and the workloads that they are about.

mod containers;
mod coverage;
mod filters;
mod gateways;
mod mesh_config;
mod proxies;
mod routes;
mod workloads;

use super::Settings;
use super::finding::{Finder, Report, Rule};
use super::kubernetes::{MESH_CONFIG, Object};
use super::node::{self, Node};

/// Everything of one mesh, sorted.
struct Mesh<'n> {
    configs: Vec<(&'n Object<'n>, Node)>,
    objects: &'n [Object<'n>],
}

/// Checks all objects together.
///
/// # Errors
/// A configuration within an object that cannot be read.
pub(super) fn check(objects: &[Object<'_>], report: &mut Report, settings: &Settings) -> Result<(), String> {
    let mut mesh = Mesh { configs: Vec::new(), objects };
    for object in objects {
        mesh.configs.extend(config(object)?.map(|config| (object, config)));
    }
    for (object, config) in &mesh.configs {
        mesh_config::check(config, &object.place(), &mut finder(object, report), settings);
    }
    let mut others: Vec<(&str, usize)> = Vec::new();
    for object in objects {
        let mut finder = finder(object, report);
        match (object.group, object.kind) {
            ("security.istio.io", "AuthorizationPolicy") => mesh.authorization(object, &mut finder),
            ("security.istio.io", "PeerAuthentication") => coverage::peer_authentication(object, &mut finder),
            ("networking.istio.io", "EnvoyFilter") => filters::check(&mesh, object, &mut finder, settings),
            ("networking.istio.io", "Gateway") => gateways::istio(object, &mut finder),
            ("networking.istio.io", "Sidecar") => gateways::sidecar(object, &mut finder),
            ("networking.istio.io", "VirtualService") => mesh.virtual_service(object, &mut finder),
            ("gateway.networking.k8s.io", "Gateway") => gateways::kubernetes(object, &mut finder),
            ("gateway.networking.k8s.io", "HTTPRoute" | "GRPCRoute") => mesh.route(object, &mut finder),
            ("extensions.istio.io", "WasmPlugin" | "TrafficExtension") => extension(object, &mut finder),
            _ if object.pod().is_some() => workloads::check(&mesh, object, &mut finder),
            _ if values(object).is_there() => workloads::mesh_wide(values(object), &object.place(), &mut finder),
            _ if mesh.configs.iter().any(|(of, _)| std::ptr::eq(*of, object)) => {}
            (_, kind) if let Some(groups) = object.other_groups() => {
                let version = object.node.get("apiVersion");
                let what = format!("{kind} of {}: what is looked at is of {}", version.text(), groups.join(" or "));
                finder.add(Rule::Unreadable, version.line, &object.place(), what);
            }
            (_, kind) => match others.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => others.push((kind, 1)),
            },
        }
    }
    for (kind, count) in others {
        report.skipped.push(format!("{count} {kind}"));
    }
    mesh.coverage(report);
    Ok(())
}

fn finder<'f>(object: &Object<'f>, report: &'f mut Report) -> Finder<'f> {
    Finder { file: object.file, report }
}

/// Values of istiod's chart.
fn values<'n>(object: &Object<'n>) -> &'n Node {
    match (object.group, object.kind) {
        (MESH_CONFIG, _) => object.node,
        ("install.istio.io", "IstioOperator") | ("sailoperator.io", "Istio") => object.node.at("spec.values"),
        _ => Node::NULL,
    }
}

/// The mesh's configuration that an object holds: as a text, in values, or as it is.
fn config(object: &Object<'_>) -> Result<Option<Node>, String> {
    let text = object.node.at("data.mesh");
    if (object.group, object.kind) == ("", "ConfigMap") && text.is_there() {
        return within(text).map(Some).map_err(|error| format!("{}: {}: {error}", object.file, object.place()));
    }
    let values = values(object);
    let inner = values.get("meshConfig");
    let config = match object.group {
        // What the operator says itself is laid over the values.
        "install.istio.io" => inner.clone().overlaid(object.node.at("spec.meshConfig")),
        // Bare, unless it is values.
        MESH_CONFIG if !inner.is_there() && !values.get("global").is_there() => values.clone(),
        _ => inner.clone(),
    };
    Ok(Some(config).filter(Node::is_there))
}

/// Reads a text that is a value, as a document of its own whose lines are those of the file.
fn within(text: &Node) -> Result<Node, String> {
    let mut nodes = node::read(text.text())?;
    let mut node = nodes.pop().filter(|_| nodes.is_empty()).ok_or("expected one document")?;
    node.shift(text.line);
    Ok(node)
}

/// Istio puts all of them after the check, whatever their phase.
fn extension(object: &Object<'_>, finder: &mut Finder<'_>) {
    let phase = object.spec().get("phase").text();
    let what = format!("phase {}: after the check, as all are", if phase.is_empty() { "not set" } else { phase });
    finder.add(Rule::ChangedAfter, object.node.line, &object.place(), what);
}

impl Mesh<'_> {
    /// Whom checks can be asked of.
    fn providers(&self) -> impl Iterator<Item = &Node> {
        let all = self.configs.iter().flat_map(|(_, config)| config.get("extensionProviders").items());
        all.filter(|provider| provider.get("envoyExtAuthzGrpc").is_there())
    }

    fn authorization(&self, object: &Object<'_>, finder: &mut Finder<'_>) {
        let spec = object.spec();
        if spec.get("action").text() != "CUSTOM" {
            return;
        }
        finder.count("CUSTOM policies");
        let place = object.place();
        let provider = spec.at("provider.name");
        let name = provider.text();
        if self.configs.is_empty() {
            finder.skip(format!("the provider {name}: MeshConfig is not among the files"));
        } else if !self.providers().any(|known| known.get("name").text() == name) {
            finder.add(
                Rule::Provider,
                provider.line.max(spec.line),
                &place,
                format!("provider {name} is no envoyExtAuthzGrpc of MeshConfig"),
            );
        }
        let rules = spec.get("rules");
        // An empty rule is about everything.
        let is_about_all = |rule: &Node| rule.members().iter().all(|(_, value)| value.items().is_empty());
        if !rules.items().iter().any(is_about_all) {
            let what = if rules.items().is_empty() {
                "without rules it is about nothing"
            } else {
                "its rules have conditions"
            };
            finder.add(Rule::Conditional, rules.line.max(spec.line), &place, what);
        }
        let dry = object.annotation("istio.io/dry-run");
        if dry.is_true() {
            finder.add(Rule::DryRun, dry.line, &place, "istio.io/dry-run");
        }
    }
}
