//! The filter that asks Palisade, setting by setting.

use super::connection_manager::HARMLESS_AFTER;
use super::typed;
use crate::mesh::Settings;
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::node::Node;

/// Envoy's own timeout of a check, where none is set, in milliseconds.
const DEFAULT_TIMEOUT_MS: f64 = 200.0;
/// Beyond that a hanging Palisade holds up its callers, in milliseconds.
const LONG_MS: f64 = 1000.0;
/// Palisade's own deadline unless configured, in milliseconds.
const DEADLINE_MS: f64 = 150.0;
/// How Istio names the policies whose calls a provider is asked about.
const ISTIO_POLICIES: &str = "istio-ext-authz-";

/// The filters by which Istio selects calls: their names, under which they write what they find, and their types.
const RBAC: &[(&str, &str)] = &[
    ("envoy.filters.http.rbac", "envoy.extensions.filters.http.rbac.v3.RBAC"),
    ("envoy.filters.network.rbac", "envoy.extensions.filters.network.rbac.v3.RBAC"),
];

/// How much of the filter there is to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it: what is absent has Envoy's default.
    Whole,
    /// All of it, where no certificate of a caller arrives.
    Tunnelled,
    /// What a patch changes: of what is absent nothing is known.
    Patch,
}

/// Checks the configuration of one `envoy.extensions.filters.http.ext_authz.v3.ExtAuthz`.
pub fn check(config: &Node, extent: Extent, place: &str, finder: &mut Finder<'_>, settings: &Settings) {
    check_connections(config, extent, place, finder);
    let is_whole = extent != Extent::Patch;
    let mut bad = |rule, name, is_bad: &dyn Fn(&Node) -> bool| bad(config, rule, name, is_bad, place, finder);
    let is_not_on = |node: &Node| if is_whole { !node.is_true() } else { node.is_false() };
    bad(Rule::Shadow, "shadow_mode", &is_on);
    bad(Rule::RouteCache, "clear_route_cache", &is_on);
    bad(Rule::AnotherAuthorizer, "http_service", &Node::is_there);
    bad(Rule::HeadersWithheld, "allowed_headers", &has_patterns);
    bad(Rule::HeadersWithheld, "disallowed_headers", &has_patterns);
    bad(Rule::HeadersJoined, "encode_raw_headers", &is_not_on);
    bad(Rule::NoCertificate, "include_peer_certificate", &|node| extent != Extent::Tunnelled && is_not_on(node));
    bad(Rule::Mutations, "validate_mutations", &is_not_on);
    bad(Rule::StatusOnError, "status_on_error", &|node| {
        (is_whole || node.is_there()) && !node.get("code").is_enum("ServiceUnavailable", 503)
    });
    bad(Rule::Conditional, "filter_enabled", &is_a_share);
    if is_whole || config.get("with_request_body").is_there() {
        body(config, extent, place, finder, settings);
    }
}

/// Checks the configuration of one `envoy.extensions.filters.network.ext_authz.v3.ExtAuthz`, all of which HTTP's has as well.
pub fn check_connections(config: &Node, extent: Extent, place: &str, finder: &mut Finder<'_>) {
    bad(config, Rule::FailOpen, "failure_mode_allow", &is_on, place, finder);
    let is_not_istios = |node: &Node| node.is_there() && selection(node).is_none();
    bad(config, Rule::Conditional, "filter_enabled_metadata", &is_not_istios, place, finder);
    timeout(config, extent, place, finder);
}

fn bad(config: &Node, rule: Rule, name: &str, is_bad: &dyn Fn(&Node) -> bool, place: &str, finder: &mut Finder<'_>) {
    let node = config.get(name);
    if is_bad(node) {
        finder.add(rule, node.line.max(config.line), place, said(name, node));
    }
}

/// Checks that Istio, which asks only about calls that its policies select, by an RBAC filter `before` this one, selects them all. Gives
/// back that filter's name, if it is one: what a route says of it counts as well.
pub(super) fn check_selection<'n>(
    config: &'n Node,
    before: &[Node],
    place: &str,
    finder: &mut Finder<'_>,
) -> Option<&'n str> {
    let (name, key, prefix) = selection(config.get("filter_enabled_metadata"))?;
    // The last one counts that may have changed what is looked for.
    let last = before.iter().rev().find(|filter| writes(filter, key) || !is_harmless(filter));
    if !last.is_some_and(|filter| filter.get("name").text() == name && selects_all(filter, key, prefix)) {
        let what = format!("no filter {name} before it that has a policy of {prefix} about every call, and no others");
        finder.add(Rule::Conditional, config.line, place, what);
    }
    Some(name)
}

/// Istio's selection of calls: the filter that makes it, the key under which it writes the policy, and how the policy's name begins.
fn selection(metadata: &Node) -> Option<(&str, &str, &str)> {
    let [key] = metadata.get("path").items() else { return None };
    let (name, prefix) = (metadata.get("filter").text(), metadata.at("value.string_match.prefix").text());
    let is_istios = !is_on(metadata.get("invert")) && prefix.starts_with(ISTIO_POLICIES);
    is_istios.then_some((name, key.get("key").text(), prefix))
}

/// Whether a filter says under `key` which policy it found.
fn writes(filter: &Node, key: &str) -> bool {
    typed(filter).is_some_and(|(_, config)| {
        key.strip_suffix("shadow_effective_policy_id") == Some(config.get("shadow_rules_stat_prefix").text())
            && ["shadow_rules", "shadow_matcher"].iter().any(|name| config.get(name).is_there())
    })
}

fn is_harmless(filter: &Node) -> bool {
    typed(filter).is_some_and(|(kind, _)| HARMLESS_AFTER.iter().any(|known| kind.contains(known)))
}

/// Whether a filter finds for every call a policy whose name begins with `prefix`.
fn selects_all(filter: &Node, key: &str, prefix: &str) -> bool {
    let Some((kind, config)) = typed(filter) else { return false };
    let is_rbac = RBAC.contains(&(filter.get("name").text(), kind)) && writes(filter, key);
    let may_be_off = ["disabled", "is_optional"].iter().any(|name| is_on(filter.get(name)));
    let rules = config.get("shadow_rules");
    let policies = rules.get("policies").members();
    is_rbac
        && !may_be_off
        && !config.get("shadow_matcher").is_there()
        && rules.get("action").is_enum("DENY", 1)
        && policies.iter().all(|(name, _)| name.starts_with(prefix))
        && policies.iter().any(|(_, policy)| is_about_all(policy))
}

fn is_about_all(policy: &Node) -> bool {
    !["condition", "checked_condition"].iter().any(|name| policy.get(name).is_there())
        && ["permissions", "principals"].iter().all(|name| policy.get(name).items().iter().any(is_any))
}

/// Whether a permission or a principal of RBAC is about everything.
fn is_any(node: &Node) -> bool {
    let of = |name: &str, inner: &str| node.at(name).get(inner).items();
    let all = [of("and_rules", "rules"), of("and_ids", "ids")];
    let one = [of("or_rules", "rules"), of("or_ids", "ids")];
    node.get("any").is_true()
        || all.iter().any(|all| !all.is_empty() && all.iter().all(is_any))
        || one.iter().any(|one| one.iter().any(is_any))
}

fn is_on(node: &Node) -> bool {
    node.is_there() && !is_off(node)
}

/// What says no, in the one way that everybody understands.
fn is_off(node: &Node) -> bool {
    node.text() == "false"
}

fn has_patterns(node: &Node) -> bool {
    !node.get("patterns").items().is_empty()
}

/// Less than every call, or what a runtime key may make less.
fn is_a_share(node: &Node) -> bool {
    let share = node.get("default_value");
    let denominator = share.get("denominator");
    let whole = if !denominator.is_there() || denominator.is_enum("HUNDRED", 0) {
        100
    } else if denominator.is_enum("TEN_THOUSAND", 1) {
        10_000
    } else {
        1_000_000
    };
    let is_less = share.get("numerator").number().unwrap_or(0) < whole;
    node.is_there() && (is_less || node.get("runtime_key").is_there())
}

fn said(name: &str, node: &Node) -> String {
    match node.text() {
        "" if node.is_there() => format!("{name} is set"),
        "" => format!("{name} is not set"),
        text => format!("{name}: {text}"),
    }
}

fn timeout(config: &Node, extent: Extent, place: &str, finder: &mut Finder<'_>) {
    let service = config.get("grpc_service");
    if extent == Extent::Patch && !service.get("timeout").is_there() {
        return;
    }
    if extent != Extent::Patch && !service.is_there() && !config.get("http_service").is_there() {
        finder.add(Rule::AnotherAuthorizer, config.line, place, "grpc_service is not set");
        return;
    }
    let written = service.get("timeout");
    let line = written.line.max(config.line);
    check_timeout(written, DEFAULT_TIMEOUT_MS, line, place, finder);
}

/// Checks a timeout of checks, which is `default` milliseconds where none is written.
pub fn check_timeout(written: &Node, default: f64, line: usize, place: &str, finder: &mut Finder<'_>) {
    let what = || if written.is_there() { format!("timeout: {}", written.text()) } else { "no timeout is set".into() };
    match if written.is_there() { milliseconds(written) } else { Some(default) } {
        None => finder.add(Rule::Unreadable, line, place, what()),
        // None at all since Envoy 1.38; before, none that an answer could keep.
        Some(0.0) => finder.add(Rule::Timeout, line, place, what()),
        Some(time) if time > LONG_MS => finder.add(Rule::Timeout, line, place, what()),
        Some(time) if time <= DEADLINE_MS => finder.add(Rule::TimeoutShort, line, place, what()),
        Some(_) => {}
    }
}

/// A duration, as protobuf's JSON (`0.25s`), Go (`250ms`, `1m30s`) or a dump with seconds and nanoseconds has it.
pub(super) fn milliseconds(node: &Node) -> Option<f64> {
    if let (text, true) = (node.text(), node.members().is_empty()) {
        let mut sum = 0.0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
            let (number, unit) = rest.split_at(digits);
            let end = unit.find(|letter: char| letter.is_ascii_digit()).unwrap_or(unit.len());
            let (unit, left) = unit.split_at(end);
            let scale = match unit {
                "h" => 3_600_000.0,
                "m" => 60_000.0,
                "s" => 1000.0,
                "ms" => 1.0,
                "us" | "µs" => 0.001,
                "ns" => 0.000_001,
                _ => return None,
            };
            sum += number.parse::<f64>().ok()? * scale;
            rest = left;
        }
        return (!text.is_empty()).then_some(sum);
    }
    let part = |name: &str| if node.get(name).is_there() { node.get(name).text().parse().ok() } else { Some(0.0) };
    Some(part("seconds")? * 1000.0 + part("nanos")? / 1_000_000.0)
}

/// Checks `with_request_body`, of the filter or of a route.
pub(super) fn body(config: &Node, extent: Extent, place: &str, finder: &mut Finder<'_>, settings: &Settings) {
    let body = config.get("with_request_body");
    let line = body.line.max(config.line);
    if !body.is_there() {
        finder.add(Rule::NoBody, line, place, "with_request_body is not set");
        return;
    }
    let flags = ["max_request_bytes", "allow_partial_message", "pack_as_bytes"].map(|name| body.get(name));
    check_body(flags, extent, line, place, finder, settings);
}

/// Checks what of a body is handed over: the most bytes, whether a part is enough, whether as bytes.
pub fn check_body(
    [most, partial, bytes]: [&Node; 3],
    extent: Extent,
    line: usize,
    place: &str,
    finder: &mut Finder<'_>,
    settings: &Settings,
) {
    if partial.is_there() && !is_off(partial) {
        finder.add(Rule::PartialBody, partial.line.max(line), place, "parts of bodies are handed over");
    }
    if if extent != Extent::Patch { !bytes.is_true() } else { bytes.is_false() } {
        finder.add(Rule::TextBody, bytes.line.max(line), place, "bodies are handed over as text");
    }
    match most.number() {
        None if extent == Extent::Patch && !most.is_there() => {}
        Some(most) if most <= settings.body_bytes => {}
        Some(bytes) => {
            let what = format!("{bytes} bytes; Palisade takes {}", settings.body_bytes);
            finder.add(Rule::BodyLimit, most.line.max(line), place, what);
        }
        None => finder.add(Rule::Unreadable, most.line.max(line), place, "the most bytes of a body are no number"),
    }
}
