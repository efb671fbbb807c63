//! HTTP: how requests are read before anybody decides on them, and which filters they go through.

use super::ext_authz::{self, Extent};
use super::{Envoy, Role, name_of, routes, typed};
use crate::mesh::Settings;
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::node::Node;

/// Filters that may come after the check: they end calls, delay, count or answer, and change neither where a call goes nor what it
/// says. By the part of their type that names them.
pub const HARMLESS_AFTER: &[&str] = &[
    "filters.http.ext_authz.",
    "filters.http.router.",
    "filters.http.rbac.",
    "filters.http.fault.",
    "filters.http.cors.",
    "filters.http.csrf.",
    "filters.http.buffer.",
    "filters.http.local_ratelimit.",
    "filters.http.ratelimit.",
    "filters.http.bandwidth_limit.",
    "filters.http.admission_control.",
    "filters.http.adaptive_concurrency.",
    "filters.http.grpc_stats.",
    "filters.http.compressor.",
    "filters.http.health_check.",
    "filters.http.upstream_codec.",
    // Istio's own: who is at the other end, and metrics.
    "io.istio.http.peer_metadata.",
    "istio.envoy.config.filter.http.alpn.",
    "stats.PluginConfig",
];

/// The filter by which a waypoint says who calls.
const WAYPOINT_IDENTITY: &str = "istio.waypoint.xfcc_client_identity";

/// Checks one `HttpConnectionManager` with its filters and routes.
pub(super) fn check(envoy: &Envoy<'_>, manager: &Node, place: &str, finder: &mut Finder<'_>, all: &Settings) {
    settings(manager, Extent::Whole, place, finder);
    if envoy.role == Role::Waypoint {
        overwritten(manager, place, finder);
    } else {
        forwarded(manager, place, finder);
    }
    let mut names = filters(envoy, manager, "http_filters", place, finder, all);
    upgrades(manager, place, finder);
    // The filters of an upgrade are a chain of their own, also of one that a route may turn on.
    for upgrade in manager.get("upgrade_configs").items() {
        let own = upgrade.get("filters").items();
        if own.iter().any(routes::is_ext_authz) || (!own.is_empty() && routes::is_disabled(upgrade)) {
            let place = format!("{place}, upgrade {}", upgrade.get("upgrade_type").text());
            names.extend(filters(envoy, upgrade, "filters", &place, finder, all));
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).chain(by_uri_san(manager).map(name_of)).collect();
    let (inline, discovered) = (manager.get("route_config"), manager.get("rds"));
    let name = discovered.get("route_config_name").text();
    if inline.is_there() {
        routes::check(inline, &names, place, finder, all);
    } else if let Some(found) = envoy.routes.get(name) {
        for routes in found {
            routes::check(routes, &names, &format!("{place}, routes {name}"), finder, all);
        }
    } else {
        let hint = if envoy.is_dump { "they are not in this dump" } else { "a config dump has them" };
        let what = if name.is_empty() { format!("its routes: {hint}") } else { format!("routes {name}: {hint}") };
        finder.add(Rule::Unreadable, manager.line, place, what);
    }
}

/// Checks what a connection can become.
pub fn upgrades(manager: &Node, place: &str, finder: &mut Finder<'_>) {
    for upgrade in manager.get("upgrade_configs").items().iter().filter(|upgrade| !routes::is_disabled(upgrade)) {
        let kind = upgrade.get("upgrade_type").text();
        finder.add(Rule::Upgrade, upgrade.line, place, kind);
        let own = upgrade.get("filters").items();
        if !own.is_empty() && !own.iter().any(routes::is_ext_authz) {
            finder.add(Rule::Unchecked, upgrade.line, place, format!("the filters of {kind} have no ext_authz"));
        }
    }
}

/// Checks the filters that `node` has as its `list`, and gives back the names of those that ask Palisade, or decide whether to.
fn filters(
    envoy: &Envoy<'_>,
    node: &Node,
    list: &str,
    place: &str,
    finder: &mut Finder<'_>,
    all: &Settings,
) -> Vec<String> {
    let mut names = Vec::new();
    let filters = node.get(list).items();
    for (number, filter) in filters.iter().enumerate() {
        let name = name_of(filter);
        let place = format!("{place}, filter {name}");
        let Some((kind, config)) = envoy.typed(filter) else {
            finder.add(Rule::Unreadable, filter.line, &place, "its configuration is not here");
            continue;
        };
        if kind.ends_with("matching.v3.ExtensionWithMatcher") {
            if routes::is_ext_authz(config.get("extension_config")) {
                names.push(name.to_owned());
                finder.add(Rule::Conditional, filter.line, &place, "a matcher is around it");
            } else if !names.is_empty() {
                finder.add(Rule::ChangedAfter, filter.line, &place, "comes after the check, and depends on a matcher");
            }
            continue;
        }
        if kind.ends_with("filters.http.ext_authz.v3.ExtAuthz") {
            names.push(name.to_owned());
            finder.count("ext_authz filters");
            asks(envoy, filter, config, &place, finder, all);
            let before = filters.get(..number).unwrap_or_default();
            names.extend(ext_authz::check_selection(config, before, &place, finder).map(str::to_owned));
        } else if !names.is_empty() {
            after(kind, config, filter, &place, finder);
            upstream(envoy, config.get("upstream_http_filters").items(), &place, finder);
        }
    }
    if names.is_empty() {
        finder.add(Rule::Unchecked, node.line, place, "no ext_authz filter");
    }
    names
}

fn asks(envoy: &Envoy<'_>, filter: &Node, config: &Node, place: &str, finder: &mut Finder<'_>, all: &Settings) {
    for flag in ["disabled", "is_optional"].map(|name| filter.get(name)).into_iter().filter(|flag| flag.is_true()) {
        finder.add(Rule::Conditional, flag.line, place, "the filter is disabled, or optional");
    }
    // Behind a waypoint's tunnel there is no certificate to hand over.
    let extent = if envoy.role == Role::Waypoint { Extent::Tunnelled } else { Extent::Whole };
    ext_authz::check(config, extent, place, finder, all);
}

/// Its filters that decide by the URI SANs of the caller's certificate.
pub(super) fn by_uri_san(manager: &Node) -> impl Iterator<Item = &Node> {
    manager.get("http_filters").items().iter().filter(|filter| {
        let matcher = typed(filter).map_or(Node::NULL, |(_, config)| config.get("matcher"));
        let mut asks = false;
        matcher.each(&mut |node| asks |= node.exact("@type").text().ends_with("ssl.v3.UriSanInput"));
        asks && !matcher.get("on_no_match").is_there()
            && !["disabled", "is_optional"].iter().any(|name| filter.get(name).is_true())
    })
}

/// Checks filters behind the router's choice, be they its own or a cluster's.
pub(super) fn upstream(envoy: &Envoy<'_>, filters: &[Node], place: &str, finder: &mut Finder<'_>) {
    for filter in filters {
        let place = format!("{place}, filter {}", name_of(filter));
        match envoy.typed(filter) {
            Some((kind, config)) => after(kind, config, filter, &place, finder),
            None => finder.add(Rule::Unreadable, filter.line, &place, "its configuration is not here"),
        }
    }
}

fn after(kind: &str, config: &Node, filter: &Node, place: &str, finder: &mut Finder<'_>) {
    if !HARMLESS_AFTER.iter().any(|known| kind.contains(known)) {
        finder.add(Rule::ChangedAfter, filter.line, place, format!("{kind} comes after the check"));
    }
    let mut clears = false;
    config.each(&mut |node| clears |= node.get("clear_route_cache").is_true());
    if clears {
        finder.add(Rule::RouteCache, filter.line, place, "clear_route_cache: true, after the check");
    }
}

/// Checks how requests are read. Of a patch only what it says.
pub fn settings(manager: &Node, extent: Extent, place: &str, finder: &mut Finder<'_>) {
    let is_whole = extent == Extent::Whole;
    let is_not_on = |node: &Node| if is_whole { !node.is_true() } else { node.is_false() };
    let normal = manager.get("normalize_path");
    if is_not_on(normal) {
        finder.add(Rule::PathNotNormal, normal.line.max(manager.line), place, "normalize_path is not true");
    }
    let merge = manager.get("merge_slashes");
    if is_not_on(merge) {
        finder.add(Rule::PathSpellings, merge.line.max(manager.line), place, "merge_slashes is not true");
    }
    let escaped = manager.get("path_with_escaped_slashes_action");
    let known = [("REJECT_REQUEST", 2), ("UNESCAPE_AND_REDIRECT", 3), ("UNESCAPE_AND_FORWARD", 4)];
    if !known.iter().any(|(name, number)| escaped.is_enum(name, *number)) && (is_whole || escaped.is_there()) {
        let what = "path_with_escaped_slashes_action leaves %2F as it is";
        finder.add(Rule::PathSpellings, escaped.line.max(manager.line), place, what);
    }
    let options = manager.get("common_http_protocol_options");
    let underscores = options.get("headers_with_underscores_action");
    let is_allowed = !underscores.is_enum("REJECT_REQUEST", 1) && !underscores.is_enum("DROP_HEADER", 2);
    if is_allowed && (is_whole || underscores.is_there()) {
        finder.add(Rule::Underscores, underscores.line.max(manager.line), place, "headers with underscores are taken");
    }
    let stream = options.get("max_stream_duration");
    if (is_whole || stream.is_there()) && !ends(stream) {
        finder.add(Rule::Unbounded, stream.line.max(manager.line), place, "no max_stream_duration");
    }
    let chunked = manager.at("http_protocol_options.allow_chunked_length");
    if chunked.is_true() {
        finder.add(Rule::Ambiguous, chunked.line, place, "allow_chunked_length: true");
    }
    for options in ["http2_protocol_options", "http3_protocol_options"] {
        let connect = manager.get(options).get("allow_connect");
        let connect = if connect.is_there() { connect } else { manager.get(options).get("allow_extended_connect") };
        if connect.is_true() {
            finder.add(Rule::Upgrade, connect.line, place, "extended CONNECT");
        }
    }
}

/// Whether a stream of at most that duration ends ever: 0 stands for no limit.
#[must_use]
pub fn ends(duration: &Node) -> bool {
    ext_authz::milliseconds(duration).is_some_and(|time| time > 0.0)
}

/// Behind a waypoint's tunnel the header is what its own filter writes over whatever was sent.
fn overwritten(manager: &Node, place: &str, finder: &mut Finder<'_>) {
    let writes = manager.get("http_filters").items().iter().any(|filter| name_of(filter) == WAYPOINT_IDENTITY);
    if !writes {
        finder.add(Rule::WaypointIdentity, manager.line, place, format!("no filter {WAYPOINT_IDENTITY}"));
    }
}

/// Checks whose word `x-forwarded-client-cert` is.
pub fn forwarded(manager: &Node, place: &str, finder: &mut Finder<'_>) {
    let mode = manager.get("forward_client_cert_details");
    if mode.is_there() && !mode.is_enum("SANITIZE", 0) && !mode.is_enum("SANITIZE_SET", 3) {
        let is_appended = mode.is_enum("APPEND_FORWARD", 2);
        let rule = if is_appended { Rule::AppendedIdentity } else { Rule::ForwardedIdentity };
        finder.add(rule, mode.line, place, format!("forward_client_cert_details: {}", mode.text()));
    }
    let format = manager.at("set_current_client_cert_details.format");
    let matcher = manager.get("forward_client_cert_matcher");
    let is_odd = format.is_there() && !matches!(format.text(), "TEXT" | "FORMAT_UNSPECIFIED" | "0");
    for node in [is_odd.then_some(format), matcher.is_there().then_some(matcher)].into_iter().flatten() {
        finder.add(Rule::IdentityFormat, node.line, place, "x-forwarded-client-cert is not written as ever");
    }
}
