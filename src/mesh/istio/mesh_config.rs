//! `MeshConfig`: what all proxies have in common, and how Palisade is asked.

use crate::mesh::Settings;
use crate::mesh::envoy::{Extent, check_body, check_timeout};
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::node::Node;

/// Istio's timeout of a check where none is set, in milliseconds.
const DEFAULT_TIMEOUT_MS: f64 = 600_000.0;
/// What makes no caller's word of `x-forwarded-client-cert`. Istio takes numbers of enumerations as well as their names.
const BELIEVED: &[(&str, u64)] = &[("UNDEFINED", 0), ("SANITIZE", 1), ("SANITIZE_SET", 4)];
/// Where it is said, for all proxies and for gateways.
const FORWARDED: &[&str] = &["proxyHeaders.forwardedClientCert", "gatewayTopology.forwardClientCertDetails"];
/// How traffic gets to a proxy.
const CAPTURED: &[(&str, u64)] = &[("REDIRECT", 0), ("TPROXY", 1)];
/// What makes something else of the proxy than the Envoy that Istio configures.
const REPLACED: &[&str] = &["binaryPath", "customConfigFile", "proxyBootstrapTemplatePath", "runtimeValues"];

/// Checks it.
pub(super) fn check(config: &Node, place: &str, finder: &mut Finder<'_>, settings: &Settings) {
    finder.count("mesh configurations");
    let providers = config.get("extensionProviders").items();
    let name = |provider: &Node| provider.get("name").text().to_owned();
    for provider in providers {
        let place = format!("{place}, provider {}", name(provider));
        let ours = provider.get("envoyExtAuthzGrpc");
        if ours.is_there() {
            finder.count("ext_authz providers");
            self::provider(ours, &place, finder, settings);
        }
        // The policies of a provider are found by the beginning of their names.
        let hidden = providers.iter().map(name).find(|other| {
            *other != name(provider) && name(provider).starts_with(other.as_str()) && is_authorizer(provider)
        });
        if let Some(other) = hidden.filter(|_| providers.iter().filter(|provider| is_authorizer(provider)).count() > 1)
        {
            finder.add(Rule::Provider, provider.line, &place, format!("its name begins with that of {other}"));
        }
    }
    normalization(config, place, finder);
    let outbound = config.at("outboundTrafficPolicy.mode");
    if !outbound.is_enum("REGISTRY_ONLY", 0) {
        let what = format!(
            "outboundTrafficPolicy.mode: {}",
            if outbound.is_there() { outbound.text() } else { "ALLOW_ANY (default)" }
        );
        finder.add(Rule::OutboundOpen, outbound.line.max(config.line), place, what);
    }
    proxy(config.get("defaultConfig"), place, finder);
}

fn is_authorizer(provider: &Node) -> bool {
    provider.get("envoyExtAuthzGrpc").is_there() || provider.get("envoyExtAuthzHttp").is_there()
}

fn provider(config: &Node, place: &str, finder: &mut Finder<'_>, settings: &Settings) {
    let line = |node: &Node| node.line.max(config.line);
    let open = config.get("failOpen");
    if open.is_there() && open.text() != "false" {
        finder.add(Rule::FailOpen, line(open), place, format!("failOpen: {}", open.text()));
    }
    let status = config.get("statusOnError");
    if status.text() != "503" {
        let what = if status.is_there() { status.text() } else { "403 (default)" };
        finder.add(Rule::StatusOnError, line(status), place, format!("statusOnError: {what}"));
    }
    let clear = config.get("clearRouteCache");
    if clear.is_true() {
        finder.add(Rule::RouteCache, line(clear), place, "clearRouteCache: true");
    }
    let timeout = config.get("timeout");
    check_timeout(timeout, DEFAULT_TIMEOUT_MS, line(timeout), place, finder);
    let body = config.get("includeRequestBodyInCheck");
    if body.is_there() {
        let flags = ["maxRequestBytes", "allowPartialMessage", "packAsBytes"].map(|name| body.get(name));
        check_body(flags, Extent::Whole, line(body), place, finder, settings);
    } else {
        finder.add(Rule::NoBody, config.line, place, "includeRequestBodyInCheck is not set");
    }
}

fn normalization(config: &Node, place: &str, finder: &mut Finder<'_>) {
    let how = config.at("pathNormalization.normalization");
    let line = how.line.max(config.line);
    let is_one = |known: &[(&str, u64)]| is_one_of(how, known);
    if !how.is_there() {
        finder.add(Rule::PathSpellings, line, place, "pathNormalization: BASE (default)");
    } else if is_one(&[("DEFAULT", 0), ("BASE", 2)]) {
        finder.add(Rule::PathSpellings, line, place, format!("pathNormalization: {}", how.text()));
    } else if !is_one(&[("MERGE_SLASHES", 3), ("DECODE_AND_MERGE_SLASHES", 4)]) {
        finder.add(Rule::PathNotNormal, line, place, format!("pathNormalization: {}", how.text()));
    }
}

fn is_one_of(node: &Node, known: &[(&str, u64)]) -> bool {
    known.iter().any(|(name, number)| node.is_enum(name, *number))
}

/// Whether it says how traffic is captured, and says that it is.
pub(super) fn is_captured(mode: &Node) -> bool {
    is_one_of(mode, CAPTURED)
}

/// Checks a `ProxyConfig`: the mesh's, or a pod's own.
pub(super) fn proxy(config: &Node, place: &str, finder: &mut Finder<'_>) {
    for path in FORWARDED {
        let forwarded = config.at(path);
        let what = format!("{path}: {}", forwarded.text());
        if forwarded.is_enum("APPEND_FORWARD", 3) {
            finder.add(Rule::AppendedIdentity, forwarded.line, place, what);
        } else if forwarded.is_there() && !is_one_of(forwarded, BELIEVED) {
            finder.add(Rule::ForwardedIdentity, forwarded.line, place, what);
        }
    }
    let interception = config.get("interceptionMode");
    if interception.is_there() && !is_captured(interception) {
        let what = format!("interceptionMode: {}", interception.text());
        finder.add(Rule::NotCaptured, interception.line, place, what);
    }
    for (name, node) in REPLACED.iter().map(|name| (name, config.get(name))).filter(|(_, node)| node.is_there()) {
        finder.add(Rule::Unreadable, node.line, place, format!("{name}: another proxy than Istio's"));
    }
}
