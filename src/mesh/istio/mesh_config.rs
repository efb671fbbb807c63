//! `MeshConfig`: what all proxies have in common, and how Palisade is asked.

use crate::mesh::Settings;
use crate::mesh::envoy::{Extent, check_body, check_timeout};
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::node::Node;

/// Istio's timeout of a check where none is set, in milliseconds.
const DEFAULT_TIMEOUT_MS: f64 = 600_000.0;

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
    if outbound.text() != "REGISTRY_ONLY" {
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
    match how.text() {
        "NONE" => finder.add(Rule::PathNotNormal, line, place, "pathNormalization: NONE"),
        "MERGE_SLASHES" | "DECODE_AND_MERGE_SLASHES" => {}
        "" => finder.add(Rule::PathSpellings, line, place, "pathNormalization: BASE (default)"),
        other => finder.add(Rule::PathSpellings, line, place, format!("pathNormalization: {other}")),
    }
}

/// Checks a `ProxyConfig`: the mesh's, or a pod's own.
pub(super) fn proxy(config: &Node, place: &str, finder: &mut Finder<'_>) {
    let forwarded = config.at("proxyHeaders.forwardedClientCert");
    if matches!(forwarded.text(), "ALWAYS_FORWARD_ONLY" | "FORWARD_ONLY") {
        finder.add(
            Rule::ForwardedIdentity,
            forwarded.line,
            place,
            format!("forwardedClientCert: {}", forwarded.text()),
        );
    }
    let interception = config.get("interceptionMode");
    if interception.text() == "NONE" {
        finder.add(Rule::NotCaptured, interception.line, place, "interceptionMode: NONE");
    }
}
