"""Connections without HTTP: Envoy's TCP filter asks once, about who calls, where to, and under which name."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import string
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import at_any_hour
from conftest import running_mesh, with_patience
from cryptography import x509

from demo import evidence, ports
from demo.mesh import ROOT, Mesh
from demo.names import AGENTS, SERVERS
from demo.processes import wait_until

# The server behind it has the CRM's certificate; that it is another target is told by its port.
TARGETS = """
[[target]]
name = "ledger"
protocol = "opaque"
match = {{ destination_principal = "{crm}", port = {port}, sni = "ledger.example.org" }}

# Under any other name it is nobody's: a target that reads HTTP.
[[target]]
name = "ledger-http"
protocol = "http"
match = {{ destination_principal = "{crm}", port = {port}, sni = "http.example.org" }}

"""
POLICY = """
@id("bot-connects-to-the-ledger")
@reason("The support bot keeps the ledger")
permit (principal == Agent::"{agent}", action == Action::"opaque:connect", resource == Server::"ledger")
when {{
  context.connection has ip && context.connection.ip.isLoopback() &&
  context.connection has port && context.connection.port == {port} &&
  context.connection has principal && context.connection.principal == "{crm}" &&
  context.connection has sni && context.connection.sni == "ledger.example.org" &&
  !(context has request)
}};

@id("analyst-keeps-one-connection")
@reason("The analyst has one connection to the ledger at a time")
@limit("one-connection")
permit (principal == Agent::"{analyst}", action == Action::"opaque:connect", resource == Server::"ledger");
"""
LIMIT = """
[[limit]]
name = "one-connection"
per = ["agent"]
concurrent = { calls = 1, seconds = 300 }
"""


class Echo(socketserver.ThreadingUnixStreamServer):
    """Says back what it hears, and remembers it."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.heard = bytearray()
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                while chunk := self.request.recv(4096):
                    server.heard.extend(chunk)
                    self.request.sendall(chunk)

        super().__init__(str(path), Handler)


class Ledger:
    """A mesh with one more Envoy, in front of a server that speaks no HTTP."""

    def __init__(self, mesh: Mesh, echo: Echo, port: int) -> None:
        self.mesh, self.echo, self.port = mesh, echo, port

    def say(self, certificate: tuple[Path, Path], text: bytes, sni: str | None = "ledger.example.org") -> bytes:
        """What comes back; nothing, if the connection is closed instead."""
        with self.said(certificate, text, sni) as (_open, back):
            return back

    @contextlib.contextmanager
    def said(
        self, certificate: tuple[Path, Path], text: bytes, sni: str | None = "ledger.example.org"
    ) -> Iterator[tuple[ssl.SSLSocket, bytes]]:
        """The same, and the connection stays open while this lasts."""
        context = ssl.create_default_context(cafile=str(self.mesh.ca.root))
        context.check_hostname = False
        context.load_cert_chain(*certificate)
        with (
            contextlib.closing(socket.create_connection(("127.0.0.1", self.port), timeout=20)) as plain,
            context.wrap_socket(plain, server_hostname=sni) as tls,
        ):
            tls.sendall(text)
            try:
                back = tls.recv(4096)
            except ConnectionResetError:
                back = b""
            yield tls, back

    def decided(self, certificate: tuple[Path, Path], text: bytes, sni: str | None) -> tuple[bytes, evidence.Line]:
        """The same, with the record of it. On a busy machine a debug build may be slower than it may be: then again."""
        for _ in range(20):
            before = len(self.mesh.records())
            back = self.say(certificate, text, sni)
            record = self.next_record(before)
            if record.get("reason") != "deadline_missed":
                return back, record
        raise AssertionError("nobody decides")

    def next_record(self, before: int) -> evidence.Line:
        deadline = time.monotonic() + 20
        while len(records := self.mesh.records()) <= before:
            assert time.monotonic() < deadline, "no record"
            time.sleep(0.02)
        return records[before]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    port, admin = ports.some(2)
    bundle = at_any_hour(tmp_path_factory.mktemp("ledger") / "bundle")
    targets = bundle / "targets.toml"
    # Before the others: they would take every connection to the CRM's workload.
    targets.write_text(TARGETS.format(crm=SERVERS["crm"], port=port) + targets.read_text())
    policy = POLICY.format(agent=AGENTS["support-bot"], analyst=AGENTS["analyst"], crm=SERVERS["crm"], port=port)
    (bundle / "policies" / "ledger.cedar").write_text(policy)
    with (bundle / "limits.toml").open("a") as limits:
        limits.write(LIMIT)
    with running_mesh(bundle=bundle) as mesh, Echo(mesh.path("ledger.sock")) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        config = string.Template((ROOT / "envoy" / "connections.yaml").read_text()).substitute(
            CERTS=mesh.path("certs"),
            SERVER="crm",
            PORT=port,
            SERVER_SOCKET=mesh.path("ledger.sock"),
            AUTHZ_PORT=mesh.ports.authz,
            ADMIN_PORT=admin,
        )
        mesh.spawn_envoy("connections-envoy", with_patience(config), admin)
        yield Ledger(mesh, echo, port)
        echo.shutdown()


def test_a_permitted_connection_is_passed_on_unread(ledger: Ledger) -> None:
    text = b"\x00\x03\x00\x00 anything at all"
    back, record = ledger.decided(ledger.mesh.certificate_of("support-bot"), text, "ledger.example.org")
    assert back == text
    assert (record["verdict"], record["target"], record["protocol"]) == ("PERMIT", "ledger", "opaque")
    assert record["caller"]["spiffeId"] == AGENTS["support-bot"]
    (call,) = record["calls"]
    assert (call["action"], call["resource"]) == ("opaque:connect", 'Server::"ledger"')
    assert [policy["id"] for policy in call["policies"]] == ["bot-connects-to-the-ledger"]
    assert record["request"] == {"destination": f"127.0.0.1:{ledger.port}", "sni": "ledger.example.org"}


@pytest.mark.parametrize(
    ("agent", "sni", "reason", "target"),
    [
        ("coder", "ledger.example.org", "no_policy_permits", "ledger"),
        ("support-bot", "http.example.org", "check_not_http", "ledger-http"),
        # The default bundle's targets read HTTP as well, on the paths that they name.
        ("support-bot", "other.example.org", "target_unknown", None),
        ("support-bot", None, "target_unknown", None),
    ],
)
def test_any_other_is_closed_before_a_byte_is_passed_on(
    ledger: Ledger, agent: str, sni: str | None, reason: str, target: str | None
) -> None:
    text = f"hello from {agent} to {sni}".encode()
    back, record = ledger.decided(ledger.mesh.certificate_of(agent), text, sni)
    assert back == b""
    assert (record["verdict"], record["reason"], record.get("target")) == ("DENIAL", reason, target)
    assert text not in bytes(ledger.echo.heard)
    span = evidence.find(
        ledger.mesh.path("spans.jsonl"),
        lambda span: span["attributes"].get("authz.decision.id") == record["decisionId"],
        "the span",
    )
    attributes = span["attributes"]
    assert (attributes["server.address"], attributes.get("tls.client.server_name")) == ("127.0.0.1", sni)


def test_a_connection_counts_until_it_is_closed(ledger: Ledger) -> None:
    analyst = ledger.mesh.certificate_of("analyst")
    with contextlib.ExitStack() as first:
        # On a busy machine nobody may have decided: then again.
        for _ in range(20):
            back = first.enter_context(ledger.said(analyst, b"first"))[1]
            if back:
                break
        assert back == b"first"
        back, record = ledger.decided(analyst, b"second", "ledger.example.org")
        assert (back, record["reason"]) == (b"", "limit_exceeded")
    # Long before its 300 seconds are over.
    wait_until(lambda: ledger.say(analyst, b"third") == b"third", "the next connection passes")


def test_nobody_is_two_callers(ledger: Ledger) -> None:
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(name) for name in (AGENTS["support-bot"], AGENTS["coder"])
    ]
    before = len(ledger.mesh.records())
    assert ledger.say(ledger.mesh.ca.issue_for("two-names", names), b"hello from both") == b""
    assert b"hello from both" not in bytes(ledger.echo.heard)
    assert len(ledger.mesh.records()) == before, "Palisade was asked about a caller with two names"


def test_without_palisade_nothing_passes(ledger: Ledger) -> None:
    ledger.mesh.stop_palisade()
    try:
        assert ledger.say(ledger.mesh.certificate_of("support-bot"), b"is anybody there") == b""
        assert b"is anybody there" not in bytes(ledger.echo.heard)
    finally:
        ledger.mesh.start_palisade()
