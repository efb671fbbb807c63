"""What proxies are told, as istiod makes it of `istio/` (fixtures/istio; `ondemand_istiod.py` makes them anew, on demand).

A manifest that is right by its schema can still say nothing: a patch that matches no filter is dropped without a word. Here it has landed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from istio_sets import ROOT, Json, walk
from istiod import DUMPS, FIXTURES

sys.path.insert(0, str(ROOT))

from demo.mesh import envoy  # noqa: E402

AUTHZ = "envoy.filters.http.ext_authz"
HCM = "envoy.filters.network.http_connection_manager"
CLUSTER = "outbound|9191||palisade-ext-authz.local"
# Istio's own, which Envoy has not: telemetry and what sidecars tell one another. None of them decides anything.
OF_ISTIO = ("istio.", "envoy.filters.http.peer_metadata", "envoy.filters.network.metadata_exchange", "connect_authority", "istio_authn")


def dump(name: str) -> Json:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def configs(name: str, kind: str) -> Json:
    (found,) = [one for one in dump(name)["configs"] if one["@type"] == f"type.googleapis.com/envoy.admin.v3.{kind}ConfigDump"]
    return found


def listeners(name: str) -> list[Json]:
    return [one["active_state"]["listener"] for one in configs(name, "Listeners")["dynamic_listeners"]]


def clusters(name: str) -> dict[str, Json]:
    return {one["cluster"]["name"]: one["cluster"] for one in configs(name, "Clusters")["dynamic_active_clusters"]}


def entrances(name: str) -> list[tuple[str, Json, Json]]:
    """Where calls come in over HTTP that are for somebody: the name of the chain, the chain, its connection manager."""
    wanted = {"waypoint": "main_internal"}.get(name, "virtualInbound" if name.startswith("sidecar") else "0.0.0.0_8443")
    (listener,) = [one for one in listeners(name) if one["name"] == wanted]
    found = []
    for chain in [*listener.get("filter_chains", []), *filter(None, [listener.get("default_filter_chain")])]:
        for one in chain.get("filters", []):
            if one["name"] == HCM:
                found.append((chain.get("name", ""), chain, one["typed_config"]))
    return found


def filters(connections: Json) -> list[str]:
    return [one["name"] for one in connections["http_filters"]]


@pytest.mark.parametrize("name", DUMPS)
def test_every_call_is_checked_as_palisade_needs_it(name: str) -> None:
    found = entrances(name)
    assert found
    for chain, _, connections in found:
        checks = [one for one in connections["http_filters"] if one["name"] == AUTHZ]
        assert len(checks) == 1, f"{chain}: {filters(connections)}"
        check = checks[0]["typed_config"]
        assert check["grpc_service"]["timeout"] == "0.250s"
        assert check["grpc_service"]["envoy_grpc"]["cluster_name"] == CLUSTER
        assert check["status_on_error"] == {"code": "ServiceUnavailable"} and "failure_mode_allow" not in check
        assert check["with_request_body"] == {"max_request_bytes": 65536, "pack_as_bytes": True}
        # These are of the EnvoyFilter: its patch has landed.
        assert check["encode_raw_headers"] is True and check["validate_mutations"] is True
        assert check.get("include_peer_certificate", False) is (name != "waypoint")
        assert not {"filter_enabled", "deny_at_disable", "shadow_mode", "clear_route_cache", "disallowed_headers"} & set(check)
        # It is asked when the shadow rules before it matched. They are for any request, and for this provider.
        rules = [one["typed_config"] for one in connections["http_filters"][: filters(connections).index(AUTHZ)] if one["name"] == "envoy.filters.http.rbac"]
        (policies,) = [one["shadow_rules"]["policies"] for one in rules if "shadow_rules" in one]
        assert list(policies.values()) == [{"permissions": [{"and_rules": {"rules": [{"any": True}]}}], "principals": [{"and_ids": {"ids": [{"any": True}]}}]}]
        assert next(iter(policies)).startswith("istio-ext-authz-palisade")


@pytest.mark.parametrize("name", DUMPS)
def test_nothing_after_the_check_moves_the_call(name: str) -> None:
    for _, _, connections in entrances(name):
        names = filters(connections)
        assert names[-1] == "envoy.filters.http.router"
        # Telemetry, and what faults and CORS rules of routes would say, of which there are none.
        after = set(names[names.index(AUTHZ) + 1 : -1])
        harmless = {"envoy.filters.http.grpc_stats", "envoy.filters.http.fault", "envoy.filters.http.cors", "envoy.filters.http.set_filter_state"}
        assert all(one in harmless or one.startswith(OF_ISTIO) or one == "waypoint_upstream_peer_metadata" for one in after), after


@pytest.mark.parametrize("name", DUMPS)
def test_identities_of_the_callers_own_making_are_removed_before(name: str) -> None:
    for _, _, connections in entrances(name):
        names = filters(connections)
        before = names[: names.index(AUTHZ)]
        assert "palisade.forged-identity" in before
        assert ("palisade.one-uri-san" in before) is (name != "waypoint")
        if name == "waypoint":
            assert before.index("palisade.forged-identity") < before.index("istio.waypoint.xfcc_client_identity")
            (own,) = [one for one in connections["http_filters"] if one["name"] == "istio.waypoint.xfcc_client_identity"]
            (mutation,) = own["typed_config"]["mutations"]["request_mutations"]
            assert mutation["append"]["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"
            assert mutation["append"]["header"]["key"] == "x-forwarded-client-cert"


@pytest.mark.parametrize("name", DUMPS)
def test_paths_headers_and_streams_are_bounded(name: str) -> None:
    for _, _, connections in entrances(name):
        assert connections["normalize_path"] and connections["merge_slashes"]
        assert connections["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
        options = connections["common_http_protocol_options"]
        assert options["headers_with_underscores_action"] == "REJECT_REQUEST" and options["max_stream_duration"] == "600s"


@pytest.mark.parametrize("name", DUMPS)
def test_the_access_log_has_the_decision(name: str) -> None:
    for _, _, connections in entrances(name):
        (log,) = [one["typed_config"] for one in connections["access_log"] if one["name"] == "envoy.access_loggers.file"]
        assert log["log_format"]["json_format"]["decision_id"] == f"%DYNAMIC_METADATA({AUTHZ}:decision_id)%"
        assert connections["tracing"]["provider"]["name"] == "envoy.tracers.opentelemetry"


@pytest.mark.parametrize("name", [name for name in DUMPS if name != "waypoint"])
def test_there_is_no_connection_without_a_certificate(name: str) -> None:
    for chain, body, _ in entrances(name):
        if chain == "virtualInbound-blackhole":
            continue
        tls = body["transport_socket"]["typed_config"]
        assert tls["require_client_certificate"] is True, chain
        context = tls["common_tls_context"]["combined_validation_context"]
        names = context["default_validation_context"].get("match_subject_alt_names", [])
        wanted = {
            "sidecar-unix": [{"prefix": "spiffe://cluster.local/"}],
            "sidecar-loopback": [{"prefix": "spiffe://cluster.local/"}],
            "egress-gateway": [],
            "ingress-gateway": [{"exact": "spiffe://partner.example/ns/agents/sa/outsider"}],
        }
        assert names == wanted[name]


@pytest.mark.parametrize("name", DUMPS)
def test_the_proxy_knows_where_palisade_is(name: str) -> None:
    cluster = clusters(name)[CLUSTER]
    text = json.dumps(cluster)
    assert "http2_protocol_options" in text
    sockets = {inside for path, inside in walk(cluster) if path.endswith("transport_socket.typed_config.@type")}
    assert not any("tls" in str(one) for one in sockets), "no TLS to a socket"
    assert cluster["circuit_breakers"]["thresholds"][0]["max_requests"] == 1024


@pytest.mark.parametrize("name", DUMPS)
def test_nobody_asks_palisade_through_the_proxy(name: str) -> None:
    """But the proxy itself, in its check: no route, listener or address of its own leads to that cluster."""
    for kind in ("Listeners", "Routes"):
        leads = [path for path, value in walk(configs(name, kind)) if value == CLUSTER and not path.endswith(".envoy_grpc.cluster_name")]
        assert not leads, leads
    hosts = [value for _, value in walk(configs(name, "Routes")) if isinstance(value, str) and "palisade-ext-authz" in value]
    assert not hosts


@pytest.mark.parametrize("name", [name for name in DUMPS if name not in ("egress-gateway", "ingress-gateway")])
def test_what_is_not_http_is_checked_as_a_connection(name: str) -> None:
    wanted = "main_internal" if name == "waypoint" else "virtualInbound"
    (listener,) = [one for one in listeners(name) if one["name"] == wanted]
    connections = 0
    for chain in listener["filter_chains"]:
        names = [one["name"] for one in chain["filters"]]
        if "envoy.filters.network.tcp_proxy" in names and not chain["name"].endswith("-blackhole"):
            check = chain["filters"][names.index("envoy.filters.network.ext_authz")]["typed_config"]
            assert "failure_mode_allow" not in check and check["grpc_service"]["timeout"] == "0.250s"
            connections += 1
        # Plaintext has no chain of its own (STRICT). At a waypoint ztunnel's mTLS has ended before.
        assert name == "waypoint" or chain["name"].endswith("-blackhole") or "transport_socket" in chain
    assert connections


def test_calls_outside_go_through_the_gateway_which_does_the_tls() -> None:
    routes = {one["route_config"]["name"]: one["route_config"] for one in configs("sidecar-unix", "Routes")["dynamic_route_configs"]}
    (outside,) = [one for one in routes["80"]["virtual_hosts"] if "tools.partner.example" in one["domains"]]
    assert [one["route"]["cluster"] for one in outside["routes"]] == [
        "outbound|443|tools-partner-example|egress-gateway.egress.svc.cluster.local"
    ]
    # REGISTRY_ONLY: any other name is answered by the agent's own proxy.
    (rest,) = [one for one in routes["80"]["virtual_hosts"] if one["domains"] == ["*"]]
    assert rest["name"] == "block_all"
    # Nobody listens for https to it.
    assert not [one for one in clusters("sidecar-unix") if one.startswith("outbound|443") and "tools.partner.example" in one]

    tls = clusters("egress-gateway")["outbound|80||tools.partner.example"]["transport_socket"]["typed_config"]
    assert tls["sni"] == "tools.partner.example"
    context = tls["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    assert [one.get("exact") or one["matcher"]["exact"] for one in context.get("match_subject_alt_names", context.get("match_typed_subject_alt_names", []))] == ["tools.partner.example"]


def test_a_waypoint_says_which_service_is_called() -> None:
    found = [value for _, _, connections in entrances("waypoint") for path, value in walk(connections["route_config"]) if path.endswith(".context_extensions")]
    assert found and all(one == {"palisade.target": "crm"} for one in found)


# ------------------------------------------------------------------------------------------------------- as Envoy reads it


def untyped(found: list[Json]) -> list[Json]:
    return [{key: value for key, value in one.items() if key != "@type"} for one in found]


def without_istios_own(value: object) -> object:
    """Envoy from its own project lacks Istio's telemetry filters; the rest it has to take as it is."""
    if isinstance(value, dict):
        return {key: without_istios_own(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [without_istios_own(one) for one in value if not _is_istios_own(one)]
    return value


def _is_istios_own(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("typed_config"), dict):
        return False
    kinds = [str(value["typed_config"].get(key, "")).removeprefix("type.googleapis.com/") for key in ("@type", "type_url")]
    # Objects of its own in the state of a stream are set by Envoy's filter, and made by Istio's code.
    own = ("stats.", "io.istio.", "istio.", "udpa.type.v1.TypedStruct", "envoy.tcp.metadataexchange.")
    return kinds[0].startswith(own) or kinds[0].endswith(".set_filter_state.v3.Config")


def bootstrap(name: str) -> Json:
    xds = {"resource_api_version": "V3", "api_type": "GRPC", "transport_api_version": "V3"}
    internal = "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
    services = [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]
    socket = {"load_assignment": {"cluster_name": "x", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "/nowhere"}}}}]}]}}
    own = [{"name": one, "type": "STATIC", **socket} for one in ("xds-grpc", "sds-grpc")]
    return {
        "node": {"id": "n", "cluster": "c"},
        "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": internal}}],
        "dynamic_resources": {"ads_config": {key: xds[key] for key in ("api_type", "transport_api_version")} | {"grpc_services": services}},
        "static_resources": {
            "listeners": without_istios_own(untyped(listeners(name))),
            "clusters": [*own, *without_istios_own(untyped(list(clusters(name).values())))],
        },
    }


@pytest.mark.parametrize("name", DUMPS)
def test_envoy_takes_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap(name)))
    done = subprocess.run([envoy(), "--mode", "validate", "-c", path, "--log-level", "error"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]


def test_dumps_are_small_and_of_example_names() -> None:
    for path in _fixtures():
        assert path.stat().st_size < 200_000, path


def _fixtures() -> Iterator[Path]:
    yield from (FIXTURES / f"{name}.json" for name in DUMPS)
