"""Envoys whose certificates are of SPIRE, over SDS: `envoy/spire.yaml` and `envoy/spire-agent.yaml`, with a real server and agent.

Programs are told apart by where they are: each Envoy here is a file of its own, and SPIRE's agent asks the kernel which one it talks to.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import decided, running_mesh
from spire import Spire

from demo import evidence, ports, wire
from demo.certs import ThrowAwayCa
from demo.mesh import ROOT, Mesh, envoy
from demo.names import AGENTS, HOSTS, SERVERS, TRUST_DOMAIN
from demo.processes import Component, wait_until

pytestmark = pytest.mark.spire

PARTNER = "partner.example"
# Envoy waits 15 s for a first secret before it goes on without.


class Envoys:
    """The server's Envoy and those of agents, each a program of its own, in front of the mesh's CRM and Palisade."""

    def __init__(
        self, mesh: Mesh, spire: Spire, prefix: str = "spire-", *, certificate: str | None = None, roots: str = "ALL"
    ) -> None:
        self.mesh = mesh
        self.spire = spire
        self._prefix = prefix
        self._certificate = certificate  # none: by the SPIFFE ID
        self._roots = roots
        self.port, self.admin = ports.some(2)
        self._start("tools", "spire.yaml", SERVERS["crm"], self.admin, PORT=self.port, **self._server())

    def _server(self) -> dict[str, object]:
        return {
            "SERVER_SOCKET": self.mesh.path("crm.sock"),
            "TRUST_DOMAIN": TRUST_DOMAIN,
            "AUTHZ_PORT": self.mesh.ports.authz,
            "ACCESS_LOG": self.access_log,
        }

    @property
    def access_log(self) -> Path:
        return self.mesh.path(f"{self._prefix}access.jsonl")

    def agent(self, name: str, spiffe_id: str, *, spire: Spire | None = None, registered: bool = True) -> int:
        """Another agent's Envoy; returns the port at which the agent calls out."""
        port, admin = ports.some(2)
        values = {"AGENT_PORT": port, "SERVER_ID": SERVERS["crm"], "SERVER_PORT": self.port, "SERVER_HOST": HOSTS["crm"]}
        self._start(name, "spire-agent.yaml", spiffe_id, admin, spire=spire, registered=registered, **values)
        return port

    def _start(
        self, name: str, bootstrap: str, spiffe_id: str, admin: int, *, spire: Spire | None = None,
        registered: bool = True, **values: object,
    ) -> None:  # fmt: skip
        spire = spire or self.spire
        name = self._prefix + name
        program = self._program(name)
        if registered:
            spire.register_program(spiffe_id, program)
        template = (ROOT / "envoy" / bootstrap).read_text()
        assert "name: ALL\n" in template
        text = string.Template(template.replace("name: ALL\n", f"name: {self._roots}\n"))
        config = self.mesh.path(f"{name}.yaml")
        config.write_text(
            text.substitute(
                values, SPIFFE_ID=self._certificate or spiffe_id, SPIRE_SOCKET=spire.socket, ADMIN_PORT=admin
            )
        )
        command = [
            program, "-c", config, "--concurrency", 1, "--disable-hot-restart",
            "--log-level", "warning", "--file-flush-interval-msec", 100,
        ]  # fmt: skip
        component = Component(name, [str(part) for part in command], self.mesh.path(f"{name}.log"), cwd=ROOT)
        self.mesh.components[name] = component
        component.wait_ready(lambda: evidence.answers(admin, "/ready"))
        if registered:
            # SPIRE's agent hears of a new entry some seconds later, and Envoy does not wait for its certificate for ever.
            active = "/config_dump?resource=dynamic_active_secrets"
            wait_until(lambda: b"certificate_chain" in evidence.get(admin, active).body, f"a certificate of {name}")

    def _program(self, name: str) -> Path:
        program = self.mesh.path(f"{name}-envoy")
        try:
            os.link(envoy(), program)
        except OSError:
            shutil.copy(envoy(), program)
        return program


@pytest.fixture(scope="module")
def home() -> Iterator[Spire]:
    with Spire(TRUST_DOMAIN) as spire:
        yield spire


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with running_mesh() as mesh:
        yield mesh


@pytest.fixture(scope="module")
def envoys(mesh: Mesh, home: Spire) -> Envoys:
    return Envoys(mesh, home)


@pytest.fixture(scope="module")
def support_bot(envoys: Envoys) -> int:
    return envoys.agent("support-bot", AGENTS["support-bot"])


def call(port: int, tool: str, arguments: dict[str, object]) -> wire.Answer:
    return wire.call_tool(wire.plain(port), tool, arguments)


def arrived(mesh: Mesh) -> int:
    return len(mesh.journal("crm"))


def secrets(envoys: Envoys) -> str:
    return evidence.get(envoys.admin, "/config_dump?resource=dynamic_active_secrets").body.decode()


def test_a_call_is_permitted_under_the_name_that_spire_gave(mesh: Mesh, envoys: Envoys, support_bot: int) -> None:
    before = arrived(mesh)
    answer = decided(lambda: call(support_bot, "get_customer", {"customer_id": 1}))
    assert answer.status == 200, answer
    record = mesh.record(str(answer.decision_id))
    assert record["caller"]["spiffeId"] == AGENTS["support-bot"], record
    assert arrived(mesh) > before
    line = evidence.find(
        envoys.access_log, lambda line: line["decision_id"] == answer.decision_id, "the call in the access log"
    )
    assert (line["caller"], line["verdict"]) == (AGENTS["support-bot"], "permit")


def test_another_is_denied(mesh: Mesh, envoys: Envoys, support_bot: int) -> None:
    before = arrived(mesh)
    answer = decided(lambda: call(support_bot, "delete_customer", {"customer_id": 1}))
    assert answer.status == 403, answer
    assert mesh.record(str(answer.decision_id))["verdict"] == "DENIAL"
    # The very same call is another's to make or not: it is the name that decides.
    scraper = envoys.agent("scraper", AGENTS["scraper"])
    answer = decided(lambda: call(scraper, "get_customer", {"customer_id": 1}))
    assert answer.status == 403, answer
    assert mesh.record(str(answer.decision_id))["caller"]["spiffeId"] == AGENTS["scraper"]
    assert arrived(mesh) == before


def test_a_workload_without_registration_gets_no_connection(mesh: Mesh, envoys: Envoys, support_bot: int) -> None:
    before, decisions = arrived(mesh), len(mesh.records())
    # It asks for a name that somebody else has.
    nobody = envoys.agent("nobody", AGENTS["support-bot"], registered=False)
    answer = call(nobody, "get_customer", {"customer_id": 1})
    assert (answer.status, answer.decision_id) == (503, None), answer
    assert "workload is not authorized" in mesh.components["spire-nobody"].tail(50), "SPIRE's own answer"
    assert arrived(mesh) == before and len(mesh.records()) == decisions


def test_certificates_of_other_authorities_get_no_connection(mesh: Mesh, envoys: Envoys, tmp_path: Path) -> None:
    decisions = len(mesh.records())
    ca = ThrowAwayCa(tmp_path / "certs")
    forged = ca.issue("forged", AGENTS["support-bot"])
    for certificate in (forged, None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(*certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", envoys.port, timeout=10, context=context)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            wire.call_tool(connection, "get_customer", {"customer_id": 1})
    assert len(mesh.records()) == decisions


def test_a_partner_that_nobody_federates_with_gets_no_connection(mesh: Mesh, envoys: Envoys) -> None:
    decisions = len(mesh.records())
    with Spire(PARTNER) as partner:
        outsider = envoys.agent("outsider", AGENTS["outsider"], spire=partner)
        answer = call(outsider, "get_customer", {"customer_id": 1})
        assert (answer.status, answer.decision_id) == (503, None), answer
    assert len(mesh.records()) == decisions


def test_roots_are_kept_apart_by_trust_domain(envoys: Envoys, support_bot: int) -> None:
    dump = secrets(envoys)
    assert "envoy.tls.cert_validator.spiffe" in dump
    active = json.loads(dump)["configs"]
    names = {secret["name"] for secret in active}
    assert names == {SERVERS["crm"], "ALL"}, names
    context = next(secret["secret"]["validation_context"] for secret in active if secret["name"] == "ALL")
    domains = context["custom_validator_config"]["typed_config"]["trust_domains"]
    assert [domain["name"] for domain in domains] == [TRUST_DOMAIN]


def test_istios_proxies_find_what_they_ask_for(mesh: Mesh) -> None:
    block = (ROOT / "istio" / "spire" / "agent-sds.conf").read_text()
    with Spire(TRUST_DOMAIN, agent=block) as spire:
        envoys = Envoys(mesh, spire, "istio-", certificate="default", roots="ROOTCA")
        port = envoys.agent("support-bot", AGENTS["support-bot"])
        answer = decided(lambda: call(port, "get_customer", {"customer_id": 1}))
        assert answer.status == 200, answer
        assert mesh.record(str(answer.decision_id))["caller"]["spiffeId"] == AGENTS["support-bot"]
        # Not one bundle for all, but each authority for its own trust domain.
        assert "envoy.tls.cert_validator.spiffe" in secrets(envoys)
