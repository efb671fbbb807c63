"""The configuration of the Envoy that calls are measured through."""

from __future__ import annotations

from pathlib import Path


def config(authz: int, plain: int, checked: int, root: Path, server: tuple[Path, Path]) -> dict:
    """Two listeners that take the whole body and answer by themselves, one of them with ext_authz in front."""
    types = "type.googleapis.com/envoy.extensions"
    tls = {"name": "tls", "typed_config": {
        "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"filename": str(server[0])}, "private_key": {"filename": str(server[1])}}],
            "validation_context": {
                "trusted_ca": {"filename": str(root)},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://example.org/"}}]}}}}

    def listener(name: str, port: int, filters: list) -> dict:
        manager = {
            "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}]}]},
            "http_filters": [*filters, {"name": "router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}],
        }
        chain = {"transport_socket": tls, "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        return {"name": name, "address": _address(port), "filter_chains": [chain]}

    ext_authz = {"name": "envoy.filters.http.ext_authz", "typed_config": {
        "@type": f"{types}.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "palisade"}, "timeout": "0.25s"},
        "with_request_body": {"max_request_bytes": 65536, "allow_partial_message": False, "pack_as_bytes": True},
        "encode_raw_headers": True, "failure_mode_allow": False, "status_on_error": {"code": "ServiceUnavailable"}}}
    # Without it, Envoy answers before it has the body, and closes the connection.
    whole_body = {"name": "buffer", "typed_config": {"@type": f"{types}.filters.http.buffer.v3.Buffer", "max_request_bytes": 65536}}
    http2 = {f"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{types}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(authz)}}]}]
    return {"static_resources": {
        "listeners": [listener("plain", plain, [whole_body]), listener("checked", checked, [whole_body, ext_authz])],
        "clusters": [{"name": "palisade", "connect_timeout": "1s", "type": "STATIC", "typed_extension_protocol_options": http2,
                      "load_assignment": {"cluster_name": "palisade", "endpoints": endpoints}}]}}


def _address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
