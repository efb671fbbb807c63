"""Requests that are not fully seen, or can be read in two ways, never reach a server."""

from __future__ import annotations

import gzip
import http.client
import uuid

import pytest
from journals import arrived

from demo import wire
from demo.mesh import Mesh

LIMIT = 65536  # `max_request_bytes` in envoy/tools.yaml
READ = wire.mcp_body("query_customers", {"segment": "startup"})


def post(
    mesh: Mesh, body: bytes, headers: dict[str, str] | None = None, tool: str = "query_customers"
) -> tuple[wire.Answer, bool]:
    """POST to /mcp as support-bot, whom the plain request is permitted; also say whether it arrived at the CRM."""
    marker = str(uuid.uuid4())
    everything = {**wire.mcp_headers(tool), "x-test": marker, **(headers or {})}
    answer = wire.send(mesh.as_agent("support-bot"), "POST", "crm.example.org", "/mcp", everything, body)
    return answer, arrived(mesh, "crm", marker)


def refused(mesh: Mesh, answer: wire.Answer, status: int, code: str) -> None:
    assert answer.status == status, answer
    assert answer.json()["error"]["data"] == {"decision_id": answer.decision_id, "code": code}
    record = mesh.record(str(answer.decision_id))
    assert (record["verdict"], record["reason"]) == ("DENIAL", code)


def test_the_request_that_the_others_are_bent_from_is_permitted(mesh: Mesh) -> None:
    answer, at_server = post(mesh, READ)
    assert (answer.status, at_server) == (200, True)


def test_oversize_body_is_413_from_envoy_and_nobody_else_hears_of_it(mesh: Mesh) -> None:
    before = len(mesh.records())
    padded = wire.mcp_body("query_customers", {"segment": "x" * LIMIT})
    answer, at_server = post(mesh, padded)
    assert (answer.status, at_server) == (413, False)
    assert answer.decision_id is None
    assert len(mesh.records()) == before


def test_oversize_body_without_length_is_413_too(mesh: Mesh) -> None:
    marker = str(uuid.uuid4())
    connection = mesh.past_own_envoy("support-bot")
    chunks = (b"x" * 8192 for _ in range(LIMIT // 8192 + 2))
    headers = {**wire.mcp_headers("query_customers"), "host": "crm.example.org", "x-test": marker}
    try:
        connection.request("POST", "/mcp", body=chunks, headers=headers, encode_chunked=True)
    except (BrokenPipeError, ConnectionResetError):
        pass  # Envoy has answered before the end
    try:
        assert connection.getresponse().status == 413
    except (http.client.RemoteDisconnected, ConnectionResetError):
        pass  # the answer was lost with the connection: it is refused all the same
    assert not arrived(mesh, "crm", marker)


def test_body_in_chunks_is_seen_whole(mesh: Mesh) -> None:
    connection = mesh.as_agent("support-bot")
    headers = {**wire.mcp_headers("delete_customer"), "host": "crm.example.org"}
    body = wire.mcp_body("delete_customer", {"customer_id": 2})
    connection.request("POST", "/mcp", body=iter([body[:50], body[50:]]), headers=headers, encode_chunked=True)
    response = connection.getresponse()
    assert response.status == 403
    assert mesh.record(response.headers[wire.DECISION_ID])["reason"] == "policy_forbids"
    connection.close()


def test_a_tool_named_twice(mesh: Mesh) -> None:
    twice = READ.replace(b'"name": "query_customers"', b'"name": "query_customers", "name": "delete_customer"')
    assert twice != READ
    answer, at_server = post(mesh, twice)
    refused(mesh, answer, 400, "json_duplicate_key")
    assert not at_server


def test_a_key_named_twice_by_escapes(mesh: Mesh) -> None:
    twice = READ.replace(b'"name": "query_customers"', b'"name": "query_customers", "n\\u0061me": "delete_customer"')
    assert twice != READ
    answer, at_server = post(mesh, twice)
    refused(mesh, answer, 400, "json_duplicate_key")
    assert not at_server


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(READ[:-1], "json_malformed", id="cut short"),
        pytest.param(READ + b"x", "json_trailing_data", id="data behind it"),
        pytest.param(READ + READ, "json_trailing_data", id="two messages"),
        pytest.param(b"\xef\xbb\xbf" + READ, "json_bom", id="byte order mark"),
        pytest.param(b"null", "json_rpc_malformed", id="null"),
        pytest.param(b"", "body_missing", id="empty"),
    ],
)
def test_malformed_body(mesh: Mesh, body: bytes, code: str) -> None:
    answer, at_server = post(mesh, body)
    refused(mesh, answer, 400, code)
    assert not at_server


def test_compressed_body_cannot_be_inspected(mesh: Mesh) -> None:
    answer, at_server = post(mesh, gzip.compress(READ), {"content-encoding": "gzip"})
    refused(mesh, answer, 415, "content_encoding_refused")
    assert not at_server


def test_headers_that_name_another_tool_than_the_body(mesh: Mesh) -> None:
    answer, at_server = post(mesh, READ, tool="get_customer")
    refused(mesh, answer, 400, "mcp_header_mismatch")
    assert answer.json()["error"]["code"] == -32020  # HeaderMismatch of MCP 2026-07-28
    assert not at_server


def test_websocket_upgrade_is_denied(mesh: Mesh) -> None:
    """Envoy buffers no body of an upgrade request: the check would decide on an empty one."""
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    marker = str(uuid.uuid4())
    headers = {**wire.mcp_headers("query_customers"), **upgrade, "x-test": marker}
    answer = wire.send(mesh.past_own_envoy("support-bot"), "POST", "crm.example.org", "/mcp", headers, READ)
    refused(mesh, answer, 403, "upgrade_refused")
    assert not arrived(mesh, "crm", marker)


@pytest.mark.parametrize("path", ["/mcp%2fx", "/status%5c..%5cmcp", "/status/..%2fmcp"])
def test_paths_that_can_be_read_in_two_ways_end_at_envoy(mesh: Mesh, path: str) -> None:
    answer = wire.send(mesh.past_own_envoy("support-bot"), "GET", "crm.example.org", path)
    assert answer.status == 400


def test_dot_segments_are_resolved_before_the_decision(mesh: Mesh) -> None:
    answer = wire.send(mesh.past_own_envoy("support-bot"), "GET", "crm.example.org", "/status/x/..//headers")
    assert answer.status == 200
    assert mesh.record(str(answer.decision_id))["request"]["path"] == "/status/headers"
