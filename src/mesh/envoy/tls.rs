//! Who may connect: the TLS of a filter chain.

use super::typed;
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::node::Node;

/// The secret of SPIRE's agent that holds every trust domain's own authorities, and takes SPIFFE IDs alone.
const SPIRE_ALL: &str = "ALL";

/// Checks the transport socket of a filter chain that faces callers. With `has_uri_san` a later filter asks for a URI SAN.
pub(super) fn check(chain: &Node, has_uri_san: bool, place: &str, finder: &mut Finder<'_>) {
    let socket = chain.get("transport_socket");
    let Some((kind, config)) = typed(socket) else {
        let what = if socket.is_there() { "a transport socket without a type" } else { "no TLS" };
        finder.add(Rule::PermissiveMtls, chain.line, place, what);
        return;
    };
    let context = match kind.rsplit('.').next() {
        Some("DownstreamTlsContext") => config,
        Some("QuicDownstreamTransport") => config.get("downstream_tls_context"),
        Some("RawBuffer") => {
            finder.add(Rule::PermissiveMtls, socket.line, place, "no TLS");
            return;
        }
        _ => {
            finder.add(Rule::Unreadable, socket.line, place, format!("transport socket {kind}"));
            return;
        }
    };
    if !context.get("require_client_certificate").is_true() {
        let line = context.get("require_client_certificate").line.max(context.line);
        finder.add(Rule::PermissiveMtls, line, place, "require_client_certificate is not true");
    }
    let common = context.get("common_tls_context");
    let combined = common.get("combined_validation_context");
    let own = [common.get("validation_context"), combined.get("default_validation_context")];
    let secret = [common, combined].map(|node| node.get("validation_context_sds_secret_config"));
    let secret = secret.into_iter().find(|secret| secret.is_there());
    let has = |name: &str| own.iter().any(|context| context.get(name).is_there());
    for chain in own.iter().map(|context| context.get("trust_chain_verification")) {
        if chain.is_there() && !chain.is_enum("VERIFY_TRUST_CHAIN", 0) {
            finder.add(Rule::AnyPeer, chain.line, place, format!("trust_chain_verification: {}", chain.text()));
        }
    }
    if !has("trusted_ca") && !has("custom_validator_config") && secret.is_none() {
        finder.add(Rule::AnyPeer, common.line.max(context.line), place, "no trusted_ca");
        return;
    }
    let is_uri = |matcher: &Node| matcher.get("san_type").is_enum("URI", 3);
    let matches_uris = own.iter().any(|context| {
        let matchers = context.get("match_typed_subject_alt_names").items();
        // As Istio still writes it: any kind of name, by its text.
        let texts = context.get("match_subject_alt_names").items();
        let is_spiffe =
            |matcher: &Node| ["prefix", "exact"].iter().any(|how| matcher.get(how).text().starts_with("spiffe://"));
        (!matchers.is_empty() && matchers.iter().all(is_uri)) || (!texts.is_empty() && texts.iter().all(is_spiffe))
    });
    let is_all = secret.is_some_and(|secret| secret.get("name").text() == SPIRE_ALL);
    if !matches_uris && !has_uri_san && !has("custom_validator_config") && !is_all {
        finder.add(Rule::AnySan, common.line.max(context.line), place, "no URI SAN is asked for");
    }
}
