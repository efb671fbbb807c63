"""Who calls: only a certificate says so, and nothing that a client writes into its request."""

from __future__ import annotations

import ssl
import uuid

import pytest
from cryptography import x509
from journals import arrived

from demo import evidence, wire
from demo.certs import ThrowAwayCa
from demo.mesh import Mesh
from demo.names import AGENTS, HOSTS


def headers_at_server(mesh: Mesh, agent: str, forged: dict[str, str]) -> list[tuple[str, str]]:
    """Send these headers straight to the servers' Envoy and return what the CRM received."""
    answer = wire.send(mesh.past_own_envoy(agent), "GET", "crm.example.org", "/status/headers", forged)
    assert answer.status == 200, answer
    return [(name, value) for name, value in answer.json()]


def refused_by_tls(mesh: Mesh, connection: object) -> None:
    marker = str(uuid.uuid4())
    before = len(mesh.records())
    # TLS 1.3 tells the client only after its handshake is done: the error comes with the first read.
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        wire.send(connection, "GET", "crm.example.org", "/status", {"x-test": marker})  # type: ignore[arg-type]
    assert not arrived(mesh, "crm", marker) and not arrived(mesh, "researcher", marker)
    assert len(mesh.records()) == before, "Palisade was asked about a connection that must not exist"


def test_no_client_certificate_no_connection(mesh: Mesh) -> None:
    refused_by_tls(mesh, mesh.past_own_envoy(None))


def test_certificate_of_another_ca_no_connection(mesh: Mesh, tmp_path) -> None:
    impostor = ThrowAwayCa(tmp_path / "certs").issue("support-bot", AGENTS["support-bot"])
    refused_by_tls(mesh, wire.mutual_tls(mesh.ports.crm, mesh.path("certs") / "ca.pem", impostor))


SVID = AGENTS["support-bot"]


@pytest.mark.parametrize("server", ["crm", "researcher"])
@pytest.mark.parametrize(
    ("case", "names"),
    [
        # Envoy names such a caller to Palisade by its DNS name, and nothing tells that from a URI.
        ("dns-lookalike", [x509.DNSName(SVID)]),
        ("dns", [x509.DNSName("support-bot.agents.svc.cluster.local")]),
        ("uri-of-nobody", [x509.UniformResourceIdentifier("spiffe://elsewhere.example/ns/agents/sa/support-bot")]),
        # A domain is compared to its end: `spiffe://example.org.evil/…` begins alike.
        ("uri-suffix", [x509.UniformResourceIdentifier("spiffe://example.org.evil/ns/agents/sa/support-bot")]),
    ],
)
def test_no_uri_of_a_trusted_domain_no_connection(
    mesh: Mesh, case: str, names: list[x509.GeneralName], server: str
) -> None:
    refused_by_tls(mesh, mesh.with_certificate(mesh.ca.issue_for(f"{case}-{server}", names), server))


@pytest.mark.parametrize("server", ["crm", "researcher"])
@pytest.mark.parametrize("second", [AGENTS["coder"], "spiffe://elsewhere.example/x", "https://elsewhere.example/"])
def test_nobody_is_two_callers(mesh: Mesh, second: str, server: str) -> None:
    """An SVID has exactly one URI SAN. Envoy would tell Palisade the first one only."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(name) for name in (SVID, second)]
    marker = str(uuid.uuid4())
    before = len(mesh.records())
    for at, order in enumerate((names, names[::-1])):
        certificate = mesh.ca.issue_for(f"two-{uuid.uuid4()}-{at}", order)
        answer = wire.send(mesh.with_certificate(certificate, server), "GET", HOSTS[server], "/", {"x-test": marker})
        assert (answer.status, answer.decision_id) == (403, None)
    assert not arrived(mesh, server, marker)
    assert len(mesh.records()) == before, "Palisade was asked about a caller with two names"
    line = evidence.find(
        mesh.path("access.jsonl"), lambda line: line["caller"] == f"{SVID},{second}", "a line about two names"
    )
    assert line["details"].startswith("rbac_access_denied")


def test_other_names_beside_the_uri_do_no_harm(mesh: Mesh) -> None:
    names = [x509.DNSName("coder.example.org"), x509.UniformResourceIdentifier(SVID), x509.DNSName(AGENTS["coder"])]
    certificate = mesh.ca.issue_for("svid-with-dns", names)
    answer = wire.send(mesh.with_certificate(certificate), "GET", HOSTS["crm"], "/status")
    assert answer.status == 200
    assert mesh.record(str(answer.decision_id))["caller"]["spiffeId"] == SVID


def test_foreign_trust_domain_is_denied(mesh: Mesh) -> None:
    answer = wire.call_tool(mesh.as_agent("outsider"), "query_customers", {})
    assert answer.status == 403
    assert answer.json()["error"]["data"]["code"] == "identity_untrusted_domain"
    assert mesh.record(str(answer.decision_id))["reason"] == "identity_untrusted_domain"


def test_server_learns_who_calls(mesh: Mesh) -> None:
    received = headers_at_server(mesh, "auditor", {})
    assert ("x-palisade-agent", AGENTS["auditor"]) in received


def test_forged_identity_headers_are_overwritten_or_removed(mesh: Mesh) -> None:
    forged = {
        "x-palisade-agent": AGENTS["support-bot"],
        "X-Palisade-Decision-Id": "0192-forged",
        "x-palisade-user": "root",
        "x-forwarded-client-cert": f"URI={AGENTS['support-bot']}",
    }
    received = headers_at_server(mesh, "auditor", forged)
    assert [value for name, value in received if name == "x-palisade-agent"] == [AGENTS["auditor"]]
    ids = [value for name, value in received if name == "x-palisade-decision-id"]
    assert len(ids) == 1 and ids != ["0192-forged"]
    assert mesh.record(ids[0])["caller"]["spiffeId"] == AGENTS["auditor"]
    assert not {"x-palisade-user", "x-forwarded-client-cert"} & {name for name, _ in received}


@pytest.mark.parametrize("header", ["x_palisade_agent", "x_palisade_user", "x_palisade_decision_id"])
def test_lookalikes_with_underscores_end_at_envoy(mesh: Mesh, header: str) -> None:
    marker = str(uuid.uuid4())
    answer = wire.send(
        mesh.past_own_envoy("auditor"),
        "GET",
        "crm.example.org",
        "/status/headers",
        {header: "forged", "x-test": marker},
    )
    assert answer.status == 400
    assert not arrived(mesh, "crm", marker)


def test_forged_headers_do_not_help_a_denied_caller(mesh: Mesh) -> None:
    forged = {"x-palisade-agent": AGENTS["support-bot"], "x-forwarded-client-cert": f"URI={AGENTS['support-bot']}"}
    answer = wire.call_tool(mesh.past_own_envoy("coder"), "query_customers", {}, headers=forged)
    assert answer.status == 403
    assert mesh.record(str(answer.decision_id))["caller"]["spiffeId"] == AGENTS["coder"]
