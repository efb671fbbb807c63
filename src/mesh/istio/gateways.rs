//! Gateways and waypoints: what they see of a call, and of who makes it. And `Sidecar`, which says what a sidecar takes.

use super::Mesh;
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::kubernetes::Object;
use crate::mesh::node::Node;

/// Says who calls behind a waypoint.
const IDENTITY: &str = "ambient.istio.io/xfcc-include-client-identity";
/// Makes a listener of the Gateway API ask for client certificates, in Istio.
const TERMINATION: &str = "gateway.istio.io/tls-terminate-mode";

/// Checks Istio's own `Gateway`.
pub(super) fn istio(object: &Object<'_>, finder: &mut Finder<'_>) {
    finder.count("gateways");
    for server in object.spec().get("servers").items() {
        let place = format!("{}, port {}", object.place(), server.at("port.number").text());
        let mode = server.at("tls.mode");
        match mode.text() {
            "MUTUAL" | "ISTIO_MUTUAL" => {}
            "PASSTHROUGH" | "AUTO_PASSTHROUGH" => {
                finder.add(Rule::Passthrough, mode.line, &place, format!("tls.mode: {}", mode.text()));
            }
            _ if server.at("tls.httpsRedirect").is_true() => {}
            "" => finder.add(Rule::NoClientCertificate, server.line, &place, "no TLS"),
            other => finder.add(Rule::NoClientCertificate, mode.line, &place, format!("tls.mode: {other}")),
        }
    }
}

/// Checks the Gateway API's `Gateway`.
pub(super) fn kubernetes(object: &Object<'_>, finder: &mut Finder<'_>) {
    finder.count("gateways");
    let spec = object.spec();
    if is_waypoint(object) {
        // istiod looks at the Gateway, and hands what is below `infrastructure` on to the waypoint's pods.
        let handed_on = spec.at("infrastructure.annotations").exact(IDENTITY);
        if !object.annotation(IDENTITY).is_true() && !handed_on.is_true() {
            finder.add(
                Rule::WaypointIdentity,
                object.node.line,
                &object.place(),
                format!("{IDENTITY} is not \"true\""),
            );
        }
        return;
    }
    for listener in spec.get("listeners").items() {
        let place = format!("{}, listener {}", object.place(), listener.get("name").text());
        let tls = listener.get("tls");
        if tls.get("mode").text() == "Passthrough" {
            finder.add(Rule::Passthrough, tls.line, &place, "tls.mode: Passthrough");
            continue;
        }
        let asks = |tls: &Node| {
            matches!(tls.get("options").exact(TERMINATION).text(), "MUTUAL" | "ISTIO_MUTUAL")
                || !tls.at("frontendValidation.caCertificateRefs").items().is_empty()
                || !tls.at("validation.caCertificateRefs").items().is_empty()
        };
        let frontend = spec.at("tls.frontend.default");
        if !asks(tls) && !asks(frontend) {
            finder.add(Rule::NoClientCertificate, listener.line, &place, "asks for no certificate");
        }
    }
}

/// Whether it is a waypoint, by its class.
pub(super) fn is_waypoint(object: &Object<'_>) -> bool {
    object.spec().get("gatewayClassName").text().ends_with("waypoint")
}

/// Whether istiod makes no pods for a Gateway, as it is that of a workload among the files: its address names a Service of that.
pub(super) fn leads_elsewhere(mesh: &Mesh<'_>, object: &Object<'_>) -> bool {
    object.spec().get("addresses").items().iter().any(|address| {
        let mut names = address.get("value").text().split('.');
        let (name, namespace) = (names.next().unwrap_or_default(), names.next().unwrap_or(object.namespace()));
        mesh.leads(name, namespace)
    })
}

/// Checks a `Sidecar`.
pub(super) fn sidecar(object: &Object<'_>, finder: &mut Finder<'_>) {
    let spec = object.spec();
    let place = object.place();
    for listener in spec.get("ingress").items().iter().chain(spec.get("egress").items()) {
        let capture = listener.get("captureMode");
        if capture.is_there() && !["DEFAULT", "IPTABLES"].contains(&capture.text()) {
            finder.add(Rule::NotCaptured, capture.line, &place, format!("captureMode: {}", capture.text()));
        }
    }
    let mode = spec.at("outboundTrafficPolicy.mode");
    if mode.is_there() && !mode.is_enum("REGISTRY_ONLY", 0) {
        finder.add(Rule::OutboundOpen, mode.line, &place, format!("outboundTrafficPolicy.mode: {}", mode.text()));
    }
}
