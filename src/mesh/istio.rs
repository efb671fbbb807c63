//! Istio: the mesh's configuration, policies, and the workloads that they are about.

mod coverage;
mod filters;
mod gateways;
mod mesh_config;
mod workloads;

use super::Settings;
use super::finding::{Finder, Report, Rule};
use super::kubernetes::{MESH_CONFIG, Object};
use super::node::{self, Node};

/// Everything of one mesh, sorted.
struct Mesh<'n> {
    configs: Vec<(Object<'n>, &'n Node)>,
    objects: &'n [Object<'n>],
}

/// Checks all objects together.
///
/// # Errors
/// A configuration within an object that cannot be read.
pub(super) fn check(objects: &[Object<'_>], report: &mut Report, settings: &Settings) -> Result<(), String> {
    let nested: Vec<(usize, Node)> = objects.iter().enumerate().filter_map(nested).collect::<Result<_, _>>()?;
    let mut mesh = Mesh { configs: Vec::new(), objects };
    for (number, object) in objects.iter().enumerate() {
        let within = nested.iter().find(|(of, _)| *of == number).map(|(_, node)| node);
        let config = within.or_else(|| inline(object));
        mesh.configs.extend(config.map(|config| (*object, config)));
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
            ("networking.istio.io", "EnvoyFilter") => filters::check(object, &mut finder, settings),
            ("networking.istio.io", "Gateway") => gateways::istio(object, &mut finder),
            ("networking.istio.io", "Sidecar") => gateways::sidecar(object, &mut finder),
            ("gateway.networking.k8s.io", "Gateway") => gateways::kubernetes(object, &mut finder),
            _ if object.pod().is_some() => workloads::check(object, &mut finder),
            (MESH_CONFIG, _) => {}
            _ if mesh.configs.iter().any(|(of, _)| std::ptr::eq(of.node, object.node)) => {}
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
    mesh.ignored(report);
    Ok(())
}

fn finder<'f>(object: &Object<'f>, report: &'f mut Report) -> Finder<'f> {
    Finder { file: object.file, report }
}

/// The mesh's configuration that an object holds as it is.
fn inline<'n>(object: &Object<'n>) -> Option<&'n Node> {
    let config = match (object.group, object.kind) {
        (MESH_CONFIG, _) => object.node,
        ("install.istio.io", "IstioOperator") => object.node.at("spec.meshConfig"),
        ("sailoperator.io", "Istio") => object.node.at("spec.values.meshConfig"),
        _ => return None,
    };
    config.is_there().then_some(config)
}

/// The mesh's configuration that a ConfigMap holds as a text.
fn nested((number, object): (usize, &Object<'_>)) -> Option<Result<(usize, Node), String>> {
    let text = object.node.at("data.mesh");
    if (object.group, object.kind) != ("", "ConfigMap") || !text.is_there() {
        return None;
    }
    Some(
        within(text)
            .map(|node| (number, node))
            .map_err(|error| format!("{}: {}: {error}", object.file, object.place())),
    )
}

/// Reads a text that is a value, as a document of its own whose lines are those of the file.
fn within(text: &Node) -> Result<Node, String> {
    let mut nodes = node::read(text.text())?;
    let mut node = nodes.pop().filter(|_| nodes.is_empty()).ok_or("expected one document")?;
    node.shift(text.line);
    Ok(node)
}

impl Mesh<'_> {
    fn authorization(&self, object: &Object<'_>, finder: &mut Finder<'_>) {
        let spec = object.spec();
        if spec.get("action").text() != "CUSTOM" {
            return;
        }
        finder.count("CUSTOM policies");
        let place = object.place();
        let provider = spec.at("provider.name");
        let name = provider.text();
        let providers = || self.configs.iter().flat_map(|(_, config)| config.get("extensionProviders").items());
        if self.configs.is_empty() {
            finder.skip(format!("the provider {name}: MeshConfig is not among the files"));
        } else if !providers()
            .any(|known| known.get("name").text() == name && known.get("envoyExtAuthzGrpc").is_there())
        {
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
