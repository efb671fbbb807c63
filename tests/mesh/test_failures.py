"""Palisade gone, slow, or back again: without an answer nothing passes."""

from __future__ import annotations

import time
from collections.abc import Callable

from demo import ports, wire
from demo.mesh import Mesh
from demo.processes import wait_until

StartMesh = Callable[..., Mesh]


def read(mesh: Mesh) -> wire.Answer:
    """A call that is permitted while all is well."""
    return wire.call_tool(mesh.as_agent("support-bot"), "query_customers", {"segment": "startup"})


def requests_at_server(mesh: Mesh) -> int:
    """All that the CRM received, but for the launcher's own question whether it is ready."""
    return sum(line.get("path") == "/mcp" for line in mesh.journal("crm"))


def test_no_palisade_no_call(start_mesh: StartMesh) -> None:
    mesh = start_mesh(start_palisade=False)
    assert read(mesh).status == 503
    assert requests_at_server(mesh) == 0
    wait_until(lambda: bool(mesh.access_log()), "a line in Envoy's access log")
    assert mesh.access_log()[0]["details"].startswith("ext_authz_error")


def test_palisade_dies_and_comes_back(start_mesh: StartMesh) -> None:
    mesh = start_mesh()
    assert read(mesh).status == 200
    mesh.stop_palisade()
    assert read(mesh).status == 503
    assert wire.send(mesh.as_agent("coder"), "GET", "crm.example.org", "/status").status == 503
    mesh.start_palisade()
    wait_until(lambda: read(mesh).status == 200, "calls pass again")
    assert requests_at_server(mesh) >= 2


def test_palisade_that_does_not_answer(start_mesh: StartMesh) -> None:
    mesh = start_mesh(patient=False)
    assert read(mesh).status == 200
    before = requests_at_server(mesh)
    palisade = mesh.components["palisade"]
    palisade.suspend()
    try:
        started = time.monotonic()
        answer = read(mesh)
        took = time.monotonic() - started
    finally:
        palisade.resume()
    assert answer.status == 503
    assert answer.decision_id is None, "nobody decided this"
    # Envoy waits for 0.25 s; the rest is for a busy machine. Far from the client's own 10 s in any case.
    assert took < 5
    assert requests_at_server(mesh) == before
    # The check that was still waiting is answered late, to nobody; the next one counts.
    wait_until(lambda: read(mesh).status == 200, "calls pass again")


def test_somebody_else_on_palisades_port(start_mesh: StartMesh) -> None:
    """A server that speaks no ext_authz at all, here the span receiver, must not pass for a permit."""
    chosen = ports.free(["support-bot"])
    mesh = start_mesh(
        ports=chosen, agents={"support-bot": "spiffe://example.org/ns/agents/sa/support-bot"}, authz_port=chosen.otlp
    )
    assert read(mesh).status == 503
    assert requests_at_server(mesh) == 0
