//! `EnvoyFilter`: patches of what Istio generates, each read as what it changes.

use crate::mesh::Settings;
use crate::mesh::envoy::{
    Extent, HARMLESS_AFTER, check_connection_manager, check_ext_authz, check_forwarded, check_routes, typed,
};
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::kubernetes::Object;
use crate::mesh::node::Node;

/// What Istio calls the filter that asks.
const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
const ROUTER: &str = "envoy.filters.http.router";

/// Checks each of its patches.
pub(super) fn check(object: &Object<'_>, finder: &mut Finder<'_>, settings: &Settings) {
    finder.count("EnvoyFilters");
    for (number, patch) in object.spec().get("configPatches").items().iter().enumerate() {
        let place = format!("{}, patch {number}", object.place());
        if patch.at("match.context").text() == "SIDECAR_OUTBOUND" {
            continue;
        }
        let value = patch.at("patch.value");
        match patch.get("applyTo").text() {
            "HTTP_FILTER" => http_filter(patch, value, &place, finder, settings),
            "NETWORK_FILTER" => {
                if let Some((kind, config)) = typed(value)
                    && kind.ends_with("HttpConnectionManager")
                {
                    check_connection_manager(config, Extent::Patch, &place, finder);
                    check_forwarded(config, &place, finder);
                }
            }
            "HTTP_ROUTE" | "VIRTUAL_HOST" | "ROUTE_CONFIGURATION" => {
                check_routes(value, &[EXT_AUTHZ], &place, finder, settings);
            }
            "CLUSTER" => {}
            other => finder.skip(format!("{place}: {other}")),
        }
    }
}

fn http_filter(patch: &Node, value: &Node, place: &str, finder: &mut Finder<'_>, settings: &Settings) {
    let operation = patch.at("patch.operation").text();
    let beside = patch.at("match.listener.filterChain.filter.subFilter.name").text();
    if operation == "REMOVE" {
        if beside == EXT_AUTHZ || beside.is_empty() {
            finder.add(Rule::Unchecked, patch.line, place, "removes the filter that asks");
        }
        return;
    }
    let disabled = value.get("disabled");
    if disabled.is_true() && (beside == EXT_AUTHZ || value.get("name").text() == EXT_AUTHZ) {
        finder.add(Rule::Conditional, disabled.line, place, "disabled: true");
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
        return;
    }
    // Istio's own filters stand before the router, and what is put there comes after them.
    let is_after = match operation {
        "INSERT_BEFORE" => beside == ROUTER || beside.is_empty(),
        "INSERT_AFTER" | "ADD" => true,
        "REPLACE" => beside == EXT_AUTHZ,
        _ => false,
    };
    if is_after && !HARMLESS_AFTER.iter().any(|known| kind.contains(known)) {
        finder.add(Rule::ChangedAfter, value.line, place, format!("{kind} comes after the check"));
    }
}

/// Whether a patch of one of `objects` turns on what Istio itself cannot: `holds` looks at a filter's configuration.
pub(super) fn any(objects: &[Object<'_>], holds: &impl Fn(&str, &Node) -> bool) -> bool {
    let filters = objects.iter().filter(|object| object.kind == "EnvoyFilter");
    filters
        .flat_map(|object| object.spec().get("configPatches").items())
        .filter(|patch| patch.at("match.context").text() != "SIDECAR_OUTBOUND")
        .filter(|patch| patch.at("patch.operation").text() != "REMOVE")
        .filter_map(|patch| typed(patch.at("patch.value")))
        .any(|(kind, config)| holds(kind, config))
}
