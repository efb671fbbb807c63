//! `EnvoyFilter`: patches of what Istio generates, each read as what it changes.

use super::Mesh;
use super::proxies::Proxy;
use crate::mesh::Settings;
use crate::mesh::envoy::{
    Extent, HARMLESS_AFTER, check_connection_manager, check_connections, check_ext_authz, check_forwarded,
    check_routes, check_upgrades, typed,
};
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::kubernetes::Object;
use crate::mesh::node::Node;

/// What Istio calls the filter that asks.
const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
/// What Istio calls the filter before it, that says about which calls.
const RBAC: &str = "envoy.filters.http.rbac";
/// What Istio puts before the check, in the order of its filters. All others of its own come after it.
const BEFORE: &[&str] = &["istio.metadata_exchange", "istio.waypoint.xfcc_client_identity", RBAC, EXT_AUTHZ];
/// The same for connections that are not HTTP.
const CONNECTION_CHECK: &[&str] = &["envoy.filters.network.ext_authz", "envoy.filters.network.rbac"];
/// Filters of connections that may be put anywhere: they end connections, or count. By the part of their type that names them.
const HARMLESS_CONNECTIONS: &[&str] = &[
    "filters.network.rbac.",
    "filters.network.connection_limit.",
    "filters.network.local_ratelimit.",
    "filters.network.ratelimit.",
];

/// Checks each of its patches.
pub(super) fn check(mesh: &Mesh<'_>, object: &Object<'_>, finder: &mut Finder<'_>, settings: &Settings) {
    finder.count("EnvoyFilters");
    for (number, patch) in object.spec().get("configPatches").items().iter().enumerate() {
        let place = format!("{}, patch {number}", object.place());
        let applies = patch.get("applyTo").text();
        // Palisade's cluster is one of a sidecar's outbound side.
        if patch.at("match.context").text() == "SIDECAR_OUTBOUND" && applies != "CLUSTER" {
            continue;
        }
        let value = patch.at("patch.value");
        match applies {
            "HTTP_FILTER" => http_filter(patch, value, &place, finder, settings),
            "NETWORK_FILTER" => network_filter(patch, value, &place, finder),
            "HTTP_ROUTE" | "VIRTUAL_HOST" | "ROUTE_CONFIGURATION" => {
                check_routes(value, &[EXT_AUTHZ, RBAC], &place, finder, settings);
            }
            "CLUSTER" => cluster(mesh, patch, value, &place, finder),
            other => finder.add(Rule::Unreadable, patch.line, &place, format!("a patch of {other}")),
        }
    }
}

fn http_filter(patch: &Node, value: &Node, place: &str, finder: &mut Finder<'_>, settings: &Settings) {
    let operation = patch.at("patch.operation").text();
    let beside = patch.at("match.listener.filterChain.filter.subFilter.name").text();
    // Without a name a patch is of every filter.
    let asks = beside.is_empty() || [EXT_AUTHZ, RBAC].contains(&beside);
    let is_change = asks && matches!(operation, "REPLACE" | "MERGE");
    if operation == "REMOVE" {
        if asks {
            finder.add(Rule::Unchecked, patch.line, place, "removes the filter that asks, or that says about what");
        }
        return;
    }
    let disabled = value.get("disabled");
    let is_either = is_change || [EXT_AUTHZ, RBAC].contains(&value.get("name").text());
    if is_either && disabled.is_there() && disabled.text() != "false" {
        finder.add(Rule::Conditional, disabled.line, place, format!("disabled: {}", disabled.text()));
    }
    let Some((kind, config)) = typed(value) else {
        if !value.get("disabled").is_there() {
            finder.add(Rule::Unreadable, value.line.max(patch.line), place, "its value has no type");
        }
        return;
    };
    if kind.ends_with("filters.http.ext_authz.v3.ExtAuthz") {
        let extent = if operation == "MERGE" { Extent::Patch } else { Extent::Whole };
        check_ext_authz(config, extent, place, finder, settings);
        selection(config, place, finder);
        return;
    }
    // What has another type than a filter is not merged into it.
    let is_merged = !beside.is_empty() || kind.ends_with("filters.http.rbac.v3.RBAC");
    if is_change && (operation == "REPLACE" || is_merged) {
        let what = format!("{operation} of the filter that asks, or that says about what");
        finder.add(Rule::Unchecked, value.line, place, what);
        return;
    }
    let is_after = match operation {
        "INSERT_FIRST" => false,
        // Before nothing in particular is first.
        "INSERT_BEFORE" => !beside.is_empty() && !BEFORE.contains(&beside),
        "INSERT_AFTER" | "ADD" => true,
        _ => !BEFORE.contains(&beside),
    };
    if is_after && !HARMLESS_AFTER.iter().any(|known| kind.contains(known)) {
        finder.add(Rule::ChangedAfter, value.line, place, format!("{kind} comes after the check"));
    }
}

fn network_filter(patch: &Node, value: &Node, place: &str, finder: &mut Finder<'_>) {
    let operation = patch.at("patch.operation").text();
    let beside = patch.at("match.listener.filterChain.filter.name").text();
    if operation == "REMOVE" {
        if CONNECTION_CHECK.contains(&beside) {
            let what = "removes the filter that asks, or that says about what";
            finder.add(Rule::UncheckedConnection, patch.line, place, what);
        } else {
            finder.add(Rule::Unreadable, patch.line, place, format!("removes {beside}"));
        }
        return;
    }
    let is_merged = operation == "MERGE";
    match typed(value) {
        Some((kind, config)) if is_merged && kind.ends_with("HttpConnectionManager") => {
            check_connection_manager(config, Extent::Patch, place, finder);
            check_forwarded(config, place, finder);
            check_upgrades(config, place, finder);
            for whole in ["http_filters", "route_config", "rds", "scoped_routes"].map(|name| config.get(name)) {
                if whole.is_there() {
                    finder.add(Rule::Unreadable, whole.line, place, "other filters, or routes");
                }
            }
        }
        Some((kind, config)) if kind.ends_with("network.ext_authz.v3.ExtAuthz") => {
            let extent = if is_merged { Extent::Patch } else { Extent::Whole };
            check_connections(config, extent, place, finder);
            selection(config, place, finder);
        }
        Some((kind, _))
            if matches!(operation, "INSERT_FIRST" | "INSERT_BEFORE" | "INSERT_AFTER" | "ADD")
                && HARMLESS_CONNECTIONS.iter().any(|known| kind.contains(known)) => {}
        Some((kind, _)) => finder.add(Rule::Unreadable, value.line, place, format!("{operation} of {kind}")),
        None => finder.add(Rule::Unreadable, value.line.max(patch.line), place, "its value has no type"),
    }
}

/// Istio itself says of which calls the filter asks; what a patch says instead may be any.
fn selection(config: &Node, place: &str, finder: &mut Finder<'_>) {
    let metadata = config.get("filter_enabled_metadata");
    if metadata.is_there() {
        let what = "says by metadata of which calls Palisade is asked, as Istio itself should";
        finder.add(Rule::Conditional, metadata.line.max(config.line), place, what);
    }
}

/// A cluster can be led elsewhere; where it may be Palisade's, somebody else would be asked.
fn cluster(mesh: &Mesh<'_>, patch: &Node, value: &Node, place: &str, finder: &mut Finder<'_>) {
    let hosts: Vec<&str> = mesh.providers().map(host).collect();
    let names = if patch.at("patch.operation").text() == "ADD" {
        vec![value.get("name")]
    } else {
        ["name", "service"].map(|name| patch.at("match.cluster").get(name)).to_vec()
    };
    let is_another = |name: &&Node| !name.text().is_empty() && hosts.iter().all(|host| !name.text().contains(host));
    if hosts.is_empty() || !names.iter().any(is_another) {
        finder.add(Rule::Unreadable, patch.line, place, "a patch of clusters, of which Palisade's may be one");
    }
}

/// The host of a provider, which may have its namespace before it.
fn host(provider: &Node) -> &str {
    let service = provider.at("envoy_ext_authz_grpc.service").text();
    service.rsplit_once('/').map_or(service, |(_, host)| host)
}

/// Whether a patch of an EnvoyFilter turns on at `proxy` what Istio itself cannot: `holds` looks at a filter's configuration.
pub(super) fn sets(object: &Object<'_>, proxy: &Proxy<'_>, holds: &impl Fn(&str, &Node) -> bool) -> bool {
    let patches = object.spec().get("configPatches").items().iter();
    patches
        .filter(|patch| proxy.hears(patch.at("match.context").text()))
        .filter(|patch| patch.at("patch.operation").text() != "REMOVE")
        .filter_map(|patch| typed(patch.at("patch.value")))
        .any(|(kind, config)| holds(kind, config))
}
