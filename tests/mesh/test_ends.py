"""Calls at one time: the end of a call, as Envoy's access log tells of it, makes room for the next."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from bundles import at_any_hour
from conftest import decided, running_mesh

from demo import wire
from demo.mesh import Mesh
from demo.names import AGENTS
from demo.processes import wait_until

# Minutes: whatever passes within this test passes because an end was told.
_LIMITS = """
[[limit]]
name = "one-at-a-time"
per = ["agent"]
concurrent = { calls = 1, seconds = 300 }
"""
_POLICIES = """
@id("one-look-up-at-a-time") @reason("One customer at a time") @limit("one-at-a-time")
permit (principal, action == Action::"crm/get_customer", resource)
unless { principal == Agent::"%s" };

@id("one-stream-at-a-time") @reason("One event stream at a time") @limit("one-at-a-time")
permit (principal, action == Action::"mcp:stream", resource);
""" % AGENTS["support-bot"]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Shared by the tests here: each has an agent of its own."""
    bundle = at_any_hour(tmp_path_factory.mktemp("ends") / "bundle")
    (bundle / "policies" / "ends.cedar").write_text(_POLICIES)
    everyone = bundle / "policies" / "everyone.cedar"
    before, stream, behind = everyone.read_text().partition('    Action::"mcp:stream",\n')
    assert stream, "the policy says something else"
    everyone.write_text(before + behind)
    with (bundle / "limits.toml").open("a") as limits:
        limits.write(_LIMITS)
    with running_mesh(bundle=bundle) as mesh:
        yield mesh


def look_up(mesh: Mesh, agent: str) -> wire.Answer:
    return decided(lambda: wire.call_tool(mesh.as_agent(agent), "get_customer", {"customer_id": 4}))


def entries(mesh: Mesh, outcome: str) -> int:
    """What Envoy told of calls."""
    name = f'palisade_access_log_entries_total{{outcome="{outcome}"}}'
    found = re.search(rf"^{re.escape(name)} (\d+)$", mesh.metrics(), re.MULTILINE)
    assert found, name
    return int(found[1])


def permits(mesh: Mesh, agent: str) -> int:
    by = [line for line in mesh.records() if line["verdict"] == "PERMIT"]
    return sum(line["caller"]["spiffeId"] == AGENTS[agent] for line in by)


def is_full(answer: wire.Answer) -> bool:
    return answer.status == 429 and answer.json()["error"]["data"]["code"] == "limit_exceeded"


def passes_again(mesh: Mesh, agent: str) -> None:
    # What is refused takes nothing, and of what passes the end is told as well.
    wait_until(lambda: look_up(mesh, agent).status == 200, "the next call passes")


@contextlib.contextmanager
def in_progress(mesh: Mesh, agent: str) -> Iterator[http.client.HTTPConnection]:
    """A call that is permitted and on its way: the server does not answer while this lasts."""
    before, connection = permits(mesh, agent), mesh.as_agent(agent)
    mesh.components["crm"].suspend()
    try:
        body = wire.mcp_body("get_customer", {"customer_id": 4})
        headers = {"host": "crm.example.org", **wire.mcp_headers("get_customer")}
        connection.request("POST", "/mcp", body, headers)
        wait_until(lambda: permits(mesh, agent) == before + 1, "the call is permitted")
        yield connection
    finally:
        mesh.components["crm"].resume()


def test_the_next_call_passes_when_the_first_has_ended(mesh: Mesh) -> None:
    with in_progress(mesh, "coder") as first:
        refused = look_up(mesh, "coder")
        assert is_full(refused)
        assert 1 <= int(refused.headers["retry-after"]) <= 300
        # Others have places of their own, and a refused call does not end the one that goes on.
        assert is_full(look_up(mesh, "coder"))
    assert first.getresponse().status == 200
    passes_again(mesh, "coder")
    first.close()


def test_a_caller_that_goes_away_ends_its_call(mesh: Mesh) -> None:
    ended = entries(mesh, "ended")
    with in_progress(mesh, "scraper") as first:
        assert is_full(look_up(mesh, "scraper"))
        first.close()
        wait_until(lambda: entries(mesh, "ended") == ended + 1, "Envoy tells the end")
    passes_again(mesh, "scraper")


def test_an_event_stream_counts_until_it_is_closed(mesh: Mesh) -> None:
    start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start}).encode()
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    opened = decided(lambda: wire.send(mesh.as_agent("coder"), "POST", "crm.example.org", "/mcp", headers, body))
    session = {"accept": "text/event-stream", "mcp-session-id": opened.headers["mcp-session-id"]}
    connection = mesh.as_agent("coder")
    connection.request("GET", "/mcp", headers={"host": "crm.example.org", **session})
    stream = connection.getresponse()
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    # Its answer has begun, and it goes on.
    for _ in range(3):
        assert is_full(look_up(mesh, "coder"))
    stream.close()
    connection.close()
    passes_again(mesh, "coder")


def test_many_calls_end_and_nothing_is_told_of_others(mesh: Mesh) -> None:
    other, unknown = entries(mesh, "other"), entries(mesh, "unknown")
    before = entries(mesh, "ended")
    passed = permits(mesh, "analyst")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: look_up(mesh, "analyst").status, range(40)))
        # Of these no end is awaited: a permit without a limit, and a denial.
        assert look_up(mesh, "support-bot").status == 200
        assert look_up(mesh, "outsider").status == 403
    assert set(answers) <= {200, 429} and 200 in answers
    passed = permits(mesh, "analyst") - passed
    wait_until(lambda: entries(mesh, "ended") == before + passed, "the ends of all calls that passed")
    assert (entries(mesh, "other"), entries(mesh, "unknown"), entries(mesh, "unreadable")) == (other, unknown, 0)
    assert (other, unknown) == (0, 0)
    passes_again(mesh, "analyst")


def test_ends_are_told_to_a_palisade_that_comes_back(mesh: Mesh) -> None:
    passes_again(mesh, "scraper")
    mesh.stop_palisade()
    mesh.start_palisade()
    # Envoy's stream went with the process: for the next end there is another one.
    for _ in range(3):
        passes_again(mesh, "scraper")
    wait_until(lambda: entries(mesh, "ended") >= 3, "the ends of three calls")
