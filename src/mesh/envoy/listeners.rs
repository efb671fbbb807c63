//! Whom the listeners of an Envoy face.

use std::net::IpAddr;

use super::{Role, name_of};
use crate::mesh::node::Node;

/// Ports of Istio's proxies that are for health and metrics alone.
const OWN_PORTS: &[&str] = &["15021", "15090"];
/// The clusters to which those lead.
const OWN_CLUSTERS: &[&str] = &["agent", "prometheus_stats"];
/// The listener of a waypoint behind its tunnel, where policies are, and the cluster that leads there.
pub(super) const BEHIND_TUNNEL: &str = "main_internal";
/// What leads to clusters that are not named where `cluster` is.
const ELSEWHERE: &[&str] = &[
    "rds",
    "scoped_routes",
    "weighted_clusters",
    "cluster_header",
    "cluster_specifier_plugin",
    "inline_cluster_specifier_plugin",
    "config_discovery",
];

/// Who can reach a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Facing {
    Callers,
    /// The proxy itself, those for whom it calls, or who asks how it is.
    Nobody,
    /// Nobody can say: Istio makes no such listener.
    Unknown,
}

pub(super) fn facing(role: Role, listener: &Node) -> Facing {
    let direction = listener.get("traffic_direction").text();
    let is_inner = listener.get("internal_listener").is_there();
    let is_own = || {
        OWN_PORTS.contains(&listener.at("address.socket_address.port_value").text())
            && leads_only_to(listener, OWN_CLUSTERS)
    };
    let is_for_nobody = match role {
        // One without a direction is no generated one, but callers reach it, unless nobody but the proxy itself can.
        Role::Sidecar => direction == "OUTBOUND" || (direction != "INBOUND" && (is_inner || is_own())),
        Role::Gateway => is_own(),
        Role::Waypoint if is_inner => name_of(listener) != BEHIND_TUNNEL,
        Role::Waypoint if is_own() || leads_only_to(listener, &[BEHIND_TUNNEL]) => true,
        Role::Waypoint => return Facing::Unknown,
        // The direction is a mere remark: what counts is that nobody else can connect, or is asked who it is.
        Role::Plain => direction == "OUTBOUND" && is_local(listener) && !has_tls(listener),
    };
    if is_for_nobody { Facing::Nobody } else { Facing::Callers }
}

fn is_local(listener: &Node) -> bool {
    let more = listener.get("additional_addresses").items().iter().map(|more| more.get("address"));
    std::iter::once(listener.get("address")).chain(more).all(|address| {
        let ip = address.at("socket_address.address").text().parse::<IpAddr>();
        address.get("pipe").is_there() || ip.is_ok_and(|ip| ip.is_loopback())
    })
}

fn has_tls(listener: &Node) -> bool {
    let mut has = false;
    listener.each(&mut |node| has |= node.get("transport_socket").is_there());
    has
}

fn leads_only_to(listener: &Node, clusters: &[&str]) -> bool {
    let (mut some, mut others) = (false, false);
    listener.each(&mut |node| {
        let cluster = node.get("cluster");
        some |= cluster.is_there();
        others |= cluster.is_there() && !clusters.contains(&cluster.text());
        others |= ELSEWHERE.iter().any(|name| node.get(name).is_there());
    });
    some && !others
}
