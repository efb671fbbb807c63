//! Routes: where the check can be turned off for one of them.

use super::ext_authz::{self, Extent};
use super::typed;
use crate::mesh::Settings;
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::node::{Node, Value};

/// What changes the path behind the check, in the action of a route.
const PATHS: &[&str] = &["prefix_rewrite", "regex_rewrite", "path_rewrite", "path_rewrite_policy"];
/// What changes something else behind the check, wherever it stands, and what comes of it.
const CHANGES: &[(&str, Rule)] = &[
    ("host_rewrite_literal", Rule::PathRewritten),
    ("host_rewrite_path_regex", Rule::PathRewritten),
    ("auto_host_rewrite", Rule::PathRewritten),
    ("host_rewrite_header", Rule::ChosenByCaller),
    ("cluster_header", Rule::ChosenByCaller),
    ("request_headers_to_add", Rule::ChangedAfter),
    ("request_headers_to_remove", Rule::ChangedAfter),
    ("cluster_specifier_plugin", Rule::Unreadable),
    ("inline_cluster_specifier_plugin", Rule::Unreadable),
    ("vhds", Rule::Unreadable),
];

/// Checks routes, or whatever holds some: the filter can be configured for a whole configuration, a virtual host, a route, one cluster of
/// several, and in the actions of matchers. The filter that asks Palisade has one of `names`.
pub fn check(node: &Node, names: &[&str], place: &str, finder: &mut Finder<'_>, settings: &Settings) {
    one(node, names, place, finder, settings);
    for item in node.items() {
        match item.get("name").text() {
            "" => check(item, names, place, finder, settings),
            name => check(item, names, &format!("{place}, {name}"), finder, settings),
        }
    }
    for (_, value) in node.members() {
        check(value, names, place, finder, settings);
    }
}

/// Checks what one of them says of the filter, and what it does to calls.
fn one(node: &Node, names: &[&str], place: &str, finder: &mut Finder<'_>, settings: &Settings) {
    for (name, config) in node.get("typed_per_filter_config").members() {
        let is_ours = names.contains(&name.as_str());
        let kind = config.exact("@type").text();
        if kind.ends_with("config.route.v3.FilterConfig") {
            if is_ours && config.get("disabled").is_true() {
                finder.add(Rule::RouteDisabled, config.line, place, format!("{name}: disabled"));
            }
            if let Some((kind, inner)) = wrapped(config) {
                filter(kind, inner, is_ours, name, place, finder, settings);
            }
        } else {
            filter(kind, config, is_ours, name, place, finder, settings);
        }
    }
    let action = node.get("route");
    for (name, rule) in CHANGES {
        let change = node.get(name);
        let is_empty = matches!(&change.value, Value::List(items) if items.is_empty());
        if change.is_there() && change.text() != "false" && !is_empty {
            finder.add(*rule, change.line, place, *name);
        }
    }
    for rewrite in PATHS.iter().filter(|name| action.get(name).is_there()) {
        finder.add(Rule::PathRewritten, action.line, place, *rewrite);
    }
    for upgrade in action.get("upgrade_configs").items().iter().filter(|upgrade| !is_disabled(upgrade)) {
        finder.add(Rule::Upgrade, upgrade.line, place, upgrade.get("upgrade_type").text());
    }
}

/// What a `FilterConfig` wraps.
fn wrapped(config: &Node) -> Option<(&str, &Node)> {
    let inner = config.get("config");
    let kind = inner.exact("@type").text();
    (!kind.is_empty()).then_some((kind, inner))
}

pub(super) fn is_disabled(upgrade: &Node) -> bool {
    upgrade.get("enabled").is_false()
}

fn filter(
    kind: &str,
    config: &Node,
    is_ours: bool,
    name: &str,
    place: &str,
    finder: &mut Finder<'_>,
    settings: &Settings,
) {
    if !kind.ends_with("ext_authz.v3.ExtAuthzPerRoute") {
        // By its name it is ours, and of another type, which may be anything.
        if is_ours {
            finder.add(Rule::Unreadable, config.line, place, format!("{name}: a configuration of type {kind}"));
        }
        return;
    }
    if config.get("disabled").is_true() {
        finder.add(Rule::RouteDisabled, config.line, place, format!("{name}: disabled"));
    }
    let check = config.get("check_settings");
    if check.get("disable_request_body_buffering").is_true() {
        finder.add(Rule::NoBody, check.line, place, "disable_request_body_buffering: true");
    }
    if check.get("with_request_body").is_there() {
        ext_authz::body(check, Extent::Whole, place, finder, settings);
    }
    for service in ["grpc_service", "http_service"].map(|name| check.get(name)) {
        if service.is_there() {
            finder.add(Rule::AnotherAuthorizer, service.line, place, "asks another service for this route");
        }
    }
}

/// The name and configuration of a filter, for those who look for one.
pub(super) fn is_ext_authz(filter: &Node) -> bool {
    typed(filter).is_some_and(|(kind, _)| kind.ends_with("filters.http.ext_authz.v3.ExtAuthz"))
}
