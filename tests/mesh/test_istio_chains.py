"""Envoy with what istiod makes of `istio/sidecar`, in front of the CRM: a real Envoy asks a real Palisade as Istio would have it.

The configuration is the sidecar's inbound chain of tests/deploy/fixtures/istio, which istiod's own code generated. What is put in its place
here, and only that: certificates come from files (Istio: SDS), the two clusters lead to this mesh (Istio: the pod's own), the trust domain
is this mesh's, and Istio's telemetry filters, which Envoy's own build lacks, are left out.
"""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import decided, running_mesh
from cryptography import x509

from demo import ports, wire
from demo.mesh import ROOT, Mesh
from demo.names import AGENTS, HOSTS
from demo.processes import wait_until

Json = dict[str, Any]
AUTHZ = "outbound|9191||palisade-ext-authz.local"
INBOUND = "inbound|8080||"


def _without_istios_own(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_istios_own(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_without_istios_own(one) for one in value if not _is_istios_own(one)]
    return value


def _is_istios_own(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("typed_config"), dict):
        return False
    return not value["typed_config"]["@type"].startswith("type.googleapis.com/envoy.")


def _of(dump: Json, kind: str) -> Json:
    (found,) = [one for one in dump["configs"] if one["@type"].endswith(f".{kind}ConfigDump")]
    return found


def _to(cluster: Json, address: Json) -> Json:
    """The cluster as istiod made it, with an address instead of where Istio finds one."""
    kept = {key: value for key, value in cluster.items() if key not in ("@type", "eds_cluster_config", "filters", "metadata", "lb_policy")}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {**kept, "type": "STATIC", "load_assignment": {"cluster_name": cluster["name"], "endpoints": [endpoint]}}


def _chain(dump: Json, listener: str, name: str | None) -> Json:
    """The filter chain of that name, or the only one, without its match."""
    listeners = [one["active_state"]["listener"] for one in _of(dump, "Listeners")["dynamic_listeners"]]
    (found,) = [one for one in listeners if one["name"] == listener]
    (chain,) = [one for one in found["filter_chains"] if name in (None, one.get("name"))]
    chain = _without_istios_own({key: value for key, value in chain.items() if key != "filter_chain_match"})
    (connections,) = [one["typed_config"] for one in chain["filters"]]
    # Its spans would go to a collector that is not here.
    del connections["tracing"]
    return chain


def _with_certificates(chain: Json, mesh: Mesh) -> None:
    tls = chain["transport_socket"]["typed_config"]["common_tls_context"]
    certificate, key = mesh.certificate_of("crm")
    del tls["tls_certificate_sds_secret_configs"]
    tls["tls_certificates"] = [{"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}]
    combined = tls.pop("combined_validation_context")["default_validation_context"]
    tls["validation_context"] = {**combined, "trusted_ca": {"filename": str(mesh.ca.root)}}


def _to_palisade(dump: Json, port: int) -> Json:
    clusters = {one["cluster"]["name"]: one["cluster"] for one in _of(dump, "Clusters")["dynamic_active_clusters"]}
    cluster = {key: value for key, value in clusters[AUTHZ].items() if key != "transport_socket_matches"}
    return _to(cluster, {"socket_address": {"address": "127.0.0.1", "port_value": port}})


def _envoy_config(chain: Json, port: int, admin: int, clusters: list[Json]) -> Json:
    def loopback(port: int) -> Json:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    listener = {"name": "istio", "address": loopback(port), "filter_chains": [chain]}
    return {"admin": {"address": loopback(admin)}, "static_resources": {"listeners": [listener], "clusters": clusters}}


class Sidecar:
    """The proxy of the CRM's pod."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.port, self.admin = ports.some(2)
        text = (ROOT / "tests" / "deploy" / "fixtures" / "istio" / "sidecar-unix.json").read_text()
        dump = json.loads(text.replace("spiffe://cluster.local/", "spiffe://example.org/"))
        mesh.spawn_envoy("istio-sidecar", json.dumps(self._bootstrap(dump)), self.admin)

    def _bootstrap(self, dump: Json) -> Json:
        chain = _chain(dump, "virtualInbound", "0.0.0.0_8080")
        _with_certificates(chain, self.mesh)
        server = _to({"name": INBOUND, "connect_timeout": "1s"}, {"pipe": {"path": str(self.mesh.path("crm.sock"))}})
        return _envoy_config(chain, self.port, self.admin, [_to_palisade(dump, self.mesh.ports.authz), server])

    def call(self, agent: str, tool: str = "get_customer", headers: dict[str, str] | None = None) -> wire.Answer:
        return wire.call_tool(self.connection(agent), tool, {"customer_id": 1}, headers=headers)

    def connection(self, agent: str) -> Any:
        return wire.mutual_tls(self.port, self.mesh.ca.root, self.mesh.certificate_of(agent))

    def get(self, path: str, headers: dict[str, str] | None = None) -> wire.Answer:
        return wire.send(self.connection("support-bot"), "GET", HOSTS["crm"], path, headers)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with running_mesh() as mesh:
        yield mesh


@pytest.fixture(scope="module")
def sidecar(mesh: Mesh) -> Sidecar:
    return Sidecar(mesh)


def test_calls_are_permitted_and_denied_by_who_makes_them(mesh: Mesh, sidecar: Sidecar) -> None:
    answer = decided(lambda: sidecar.call("support-bot"))
    assert answer.status == 200, answer
    record = mesh.record(str(answer.decision_id))
    assert (record["caller"]["spiffeId"], record["verdict"]) == (AGENTS["support-bot"], "PERMIT")
    before = len(mesh.journal("crm"))
    for agent, tool in (("support-bot", "delete_customer"), ("scraper", "get_customer")):
        denied = decided(lambda: sidecar.call(agent, tool))
        assert denied.status == 403 and mesh.record(str(denied.decision_id))["verdict"] == "DENIAL", denied
    assert len(mesh.journal("crm")) == before


def test_the_access_log_has_the_decision(mesh: Mesh, sidecar: Sidecar) -> None:
    answer = decided(lambda: sidecar.call("support-bot"))
    # Istio's access log is the proxy's standard output.
    found: list[Json] = []

    def logged() -> bool:
        lines = mesh.path("istio-sidecar.log").read_text().splitlines()
        found[:] = [json.loads(line) for line in lines if line.startswith("{") and str(answer.decision_id) in line]
        return bool(found)

    wait_until(logged, "the call in the log")
    assert (found[0]["verdict"], found[0]["caller"]) == ("permit", AGENTS["support-bot"])


def test_a_forged_identity_does_not_reach_the_server(mesh: Mesh, sidecar: Sidecar) -> None:
    forged = {"x-forwarded-client-cert": f"By=x;URI={AGENTS['auditor']}", "x-palisade-agent": AGENTS["auditor"]}
    answer = decided(lambda: sidecar.call("support-bot", headers=forged))
    assert answer.status == 200, answer
    (*_, received) = [line["headers"] for line in mesh.journal("crm") if line["kind"] == "request"]
    assert [value for name, value in received if name == "x-palisade-agent"] == [AGENTS["support-bot"]]
    assert not [value for name, value in received if name == "x-forwarded-client-cert"]


def test_the_proxy_refuses_by_itself(mesh: Mesh, sidecar: Sidecar) -> None:
    decisions = len(mesh.records())
    refused = [
        sidecar.get("/status%2fadmin"),
        sidecar.get("/status", {"x_palisade_agent": "me"}),
        wire.send(sidecar.connection("support-bot"), "POST", HOSTS["crm"], "/mcp", {}, b" " * 65537),
    ]
    assert [answer.status for answer in refused] == [400, 400, 413]
    two = mesh.ca.issue_for("istio-two", [x509.UniformResourceIdentifier(AGENTS[name]) for name in ("support-bot", "coder")])
    connection = wire.mutual_tls(sidecar.port, mesh.ca.root, two)
    answer = wire.call_tool(connection, "get_customer", {"customer_id": 1})
    assert (answer.status, answer.decision_id) == (403, None)
    assert len(mesh.records()) == decisions


def test_headers_arrive_as_they_were_sent(mesh: Mesh, sidecar: Sidecar) -> None:
    # Twice the same header: joined with a comma it would be one, and another.
    connection = sidecar.connection("support-bot")
    connection.putrequest("POST", "/mcp", skip_host=True, skip_accept_encoding=True)
    body = wire.mcp_body("get_customer", {"customer_id": 1})
    for name, value in [("host", HOSTS["crm"]), *wire.mcp_headers("get_customer").items(), ("mcp-name", "delete_customer")]:
        connection.putheader(name, value)
    connection.putheader("content-length", str(len(body)))
    connection.endheaders()
    connection.send(body)
    response = connection.getresponse()
    assert response.status == 400
    record = mesh.record(str(response.getheader(wire.DECISION_ID)))
    assert record["reason"] == "header_duplicate", record


def test_without_palisade_nothing_passes(mesh: Mesh, sidecar: Sidecar) -> None:
    before = len(mesh.journal("crm"))
    mesh.stop_palisade()
    try:
        answer = sidecar.call("support-bot")
        assert (answer.status, answer.decision_id) == (503, None), answer
        assert len(mesh.journal("crm")) == before
    finally:
        mesh.start_palisade()
    assert decided(lambda: sidecar.call("support-bot")).status == 200


# --------------------------------------------------------------------------------------------------- an ingress gateway

PARTNERS_HOST = "partner.agents.example.org"


@pytest.fixture(scope="module")
def ingress(mesh: Mesh) -> int:
    """Where a partner's agents connect: the gateway's chain and its routes."""
    port, admin = ports.some(2)
    dump = json.loads((ROOT / "tests" / "deploy" / "fixtures" / "istio" / "ingress-gateway.json").read_text())
    chain = _chain(dump, "0.0.0.0_8443", None)
    _with_certificates(chain, mesh)
    connections = chain["filters"][0]["typed_config"]
    wanted = connections.pop("rds")["route_config_name"]
    (routes,) = [
        one["route_config"] for one in _of(dump, "Routes")["dynamic_route_configs"] if one["route_config"]["name"] == wanted
    ]
    connections["route_config"] = {key: value for key, value in routes.items() if key != "@type"}
    server = {"name": "outbound|80||researcher.agents.svc.cluster.local", "connect_timeout": "1s"}
    clusters = [
        _to_palisade(dump, mesh.ports.authz),
        _to(server, {"pipe": {"path": str(mesh.path("researcher.sock"))}}),
    ]
    mesh.spawn_envoy("istio-ingress", json.dumps(_envoy_config(chain, port, admin, clusters)), admin)
    return port


def get_card(mesh: Mesh, port: int, certificate: tuple[Path, Path]) -> wire.Answer:
    connection = wire.mutual_tls(port, mesh.ca.root, certificate)
    return wire.send(connection, "GET", PARTNERS_HOST, "/.well-known/agent-card.json")


def test_a_partner_is_asked_about_by_its_own_name(mesh: Mesh, ingress: int) -> None:
    answer = decided(lambda: get_card(mesh, ingress, mesh.certificate_of("outsider")))
    record = mesh.record(str(answer.decision_id))
    # Palisade knows who it is, and this mesh's believes in no partner.
    assert (answer.status, record["reason"]) == (403, "identity_untrusted_domain")
    # Somebody of ours has another way in.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get_card(mesh, ingress, mesh.certificate_of("support-bot"))


def test_a_partners_name_counts_where_a_name_belongs(mesh: Mesh, ingress: int) -> None:
    decisions = len(mesh.records())
    partner, other = AGENTS["outsider"], "spiffe://partner.example/ns/agents/sa/another"
    dns = mesh.ca.issue_for("istio-dns", [x509.DNSName(partner)])
    two = mesh.ca.issue_for("istio-ours", [x509.UniformResourceIdentifier(it) for it in (partner, other)])
    ours = mesh.ca.issue_for("istio-both", [x509.DNSName(partner), x509.UniformResourceIdentifier(AGENTS["auditor"])])
    for certificate in (dns, two, ours):
        # Istio lets them connect: some name of theirs is on the list. The EnvoyFilter does not.
        answer = get_card(mesh, ingress, certificate)
        assert (answer.status, answer.decision_id, answer.body) == (403, None, b"RBAC: access denied"), answer
    assert len(mesh.records()) == decisions


# ----------------------------------------------------------------------------------------------------------- a waypoint

WAYPOINT_AUTHZ = """
[[listener]]
tcp = "127.0.0.1:{port}"
identity = "xfcc"
"""


class Waypoint:
    """The waypoint's chain for the service `crm`. Who called is in the state of the stream, where Istio's listener before this one, which
    Envoy's own build cannot be, puts what ztunnel proved: here a filter puts it there, or does not."""

    def __init__(self, mesh: Mesh, authz: int) -> None:
        self.mesh = mesh
        self.authz = authz
        text = (ROOT / "tests" / "deploy" / "fixtures" / "istio" / "waypoint.json").read_text()
        self.dump = json.loads(text)

    def start(self, name: str, caller: str | None) -> int:
        port, admin = ports.some(2)
        self.mesh.spawn_envoy(f"istio-waypoint-{name}", json.dumps(self._bootstrap(port, admin, caller)), admin)
        return port

    def _bootstrap(self, port: int, admin: int, caller: str | None) -> Json:
        service = "inbound-vip|80|http|crm.tools.svc.cluster.local"
        chain = _chain(self.dump, "main_internal", service)
        if caller:
            chain["filters"][0]["typed_config"]["http_filters"].insert(0, _proved(caller))
        server = _to({"name": service, "connect_timeout": "1s"}, {"pipe": {"path": str(self.mesh.path("crm.sock"))}})
        return _envoy_config(chain, port, admin, [_to_palisade(self.dump, self.authz), server])


def _proved(caller: str) -> Json:
    def entry(key: str, value: str) -> Json:
        text = {"text_format_source": {"inline_string": value}}
        return {"object_key": key, "factory_key": "envoy.string", "format_string": text}

    kind = "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config"
    states = [entry("io.istio.peer_principal", caller), entry("io.istio.local_principal", WAYPOINT_ID)]
    return {"name": "proved", "typed_config": {"@type": kind, "on_request_headers": states}}


WAYPOINT_ID = "spiffe://example.org/ns/tools/sa/waypoint"


@pytest.fixture(scope="module")
def waypoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waypoint]:
    bundle = tmp_path_factory.mktemp("istio") / "bundle"
    shutil.copytree(ROOT / "cedar", bundle)
    targets = bundle / "targets.toml"
    by_proxy = 'destination_principal = "spiffe://example.org/ns/tools/sa/crm"\npath_prefix = "/mcp"'
    text = targets.read_text()
    assert by_proxy in text
    targets.write_text(text.replace(by_proxy, 'context_extension = "crm"\npath_prefix = "/mcp"'))
    (authz,) = ports.some(1)
    with running_mesh(bundle=bundle, tokens=WAYPOINT_AUTHZ.format(port=authz)) as mesh:
        yield Waypoint(mesh, authz)


def test_a_waypoint_says_who_called_whatever_the_caller_says(waypoint: Waypoint) -> None:
    mesh = waypoint.mesh
    scraper = waypoint.start("scraper", AGENTS["scraper"])
    support_bot = waypoint.start("support-bot", AGENTS["support-bot"])
    # The host is the client's word, and no target hangs on it: the proxy names the service.
    forged = {"x-forwarded-client-cert": f"By={WAYPOINT_ID};URI={AGENTS['support-bot']}"}
    for port, caller, status in ((support_bot, "support-bot", 200), (scraper, "scraper", 403)):
        answer = decided(lambda: wire.call_tool(wire.plain(port), "get_customer", {"customer_id": 1}, headers=forged))
        assert answer.status == status, answer
        record = mesh.record(str(answer.decision_id))
        assert record["caller"]["spiffeId"] == AGENTS[caller], record


def test_a_waypoint_without_a_proved_caller_lets_nobody_in(waypoint: Waypoint) -> None:
    mesh = waypoint.mesh
    before = len(mesh.journal("crm"))
    nobody = waypoint.start("nobody", None)
    forged = {"x-forwarded-client-cert": f"By={WAYPOINT_ID};URI={AGENTS['support-bot']}"}
    answer = decided(lambda: wire.call_tool(wire.plain(nobody), "get_customer", {"customer_id": 1}, headers=forged))
    assert answer.status == 403, answer
    assert mesh.record(str(answer.decision_id))["reason"].startswith("identity_")
    assert len(mesh.journal("crm")) == before
