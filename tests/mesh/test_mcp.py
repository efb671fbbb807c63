"""MCP through the mesh: what is permitted arrives, what is denied does not, and clients survive a denial."""

from __future__ import annotations

import asyncio
import json
import uuid

import mcp
import pytest
from journals import ran

from demo import sdk, wire
from demo.mesh import Mesh


def test_permitted_call_reaches_the_server_and_its_answer_the_agent(mesh: Mesh) -> None:
    answer = wire.call_tool(mesh.as_agent("support-bot"), "get_customer", {"customer_id": 4}, message_id=71)
    assert answer.status == 200, answer
    reply = answer.json()
    assert reply["id"] == 71
    assert reply["result"]["structuredContent"]["name"] == "Katherine Johnson"
    assert ran(mesh, "get_customer", customer_id=4)


@pytest.mark.parametrize("message_id", [7, "seven", 9007199254740991])
def test_denial_keeps_the_id_and_the_call_never_arrives(mesh: Mesh, message_id: int | str) -> None:
    answer = wire.call_tool(mesh.as_agent("support-bot"), "delete_customer", {"customer_id": 1}, message_id)
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/json"
    assert "www-authenticate" not in answer.headers
    reply = answer.json()
    assert reply["jsonrpc"] == "2.0"
    assert reply["id"] == message_id
    assert reply["error"]["code"] == 403001
    assert reply["error"]["data"] == {"decision_id": answer.decision_id, "code": "policy_forbids"}
    assert not ran(mesh, "delete_customer")


def test_denial_tells_the_caller_nothing_about_policies(mesh: Mesh) -> None:
    answer = wire.call_tool(mesh.as_agent("scraper"), "export_customers", {"destination_url": "https://evil.example"})
    record = mesh.record(str(answer.decision_id))
    policies = [policy for call in record["calls"] for policy in call["policies"]]
    assert policies
    for policy in policies:
        assert policy["id"] not in answer.body.decode()


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_sdk_session_survives_a_denial(mesh: Mesh, mode: str) -> None:
    """Both eras of the protocol: sessions with initialize, GET stream and DELETE; and stateless requests."""
    email = f"{uuid.uuid4()}@example.org"
    log: list[sdk.Seen] = []

    async def session() -> None:
        async with sdk.mcp_client(mesh.proxy("auditor"), log, mode) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert {"query_customers", "delete_customer"} <= tools
            with pytest.raises(mcp.MCPError) as denied:
                await client.call_tool("update_customer_email", {"customer_id": 1, "email": email})
            assert denied.value.code == 403001
            decision = mesh.record(denied.value.error.data["decision_id"])
            assert decision["verdict"] == "DENIAL"
            # The very same session goes on.
            found = await client.call_tool("query_customers", {"segment": "government"})
            assert [row["name"] for row in found.structured_content["result"]] == ["Katherine Johnson"]

    asyncio.run(session())
    assert not ran(mesh, "update_customer_email", email=email)
    assert {seen.status for seen in log} <= {200, 202, 403}
    assert sum(seen.status == 403 for seen in log) == 1
    assert all(seen.decision_id for seen in log), "an answer without decision id"
    if mode == "legacy":
        assert {"POST", "GET", "DELETE"} == {seen.method for seen in log}


def test_event_stream_opens_with_a_decision_of_its_own(mesh: Mesh) -> None:
    start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start}).encode()
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    opened = wire.send(mesh.as_agent("auditor"), "POST", "crm.example.org", "/mcp", headers, body)
    assert opened.status == 200, opened

    connection = mesh.as_agent("auditor")
    session = {"accept": "text/event-stream", "mcp-session-id": opened.headers["mcp-session-id"]}
    connection.request("GET", "/mcp", headers={"host": "crm.example.org", **session})
    stream = connection.getresponse()
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    record = mesh.record(stream.headers[wire.DECISION_ID])
    assert [call["action"] for call in record["calls"]] == ["mcp:stream"]
    connection.close()


def test_unregistered_tool_is_denied_even_when_the_server_would_know_it(mesh: Mesh) -> None:
    answer = wire.call_tool(mesh.as_agent("support-bot"), "drop_tables", {})
    assert answer.status == 403
    assert answer.json()["error"]["data"]["code"] == "tool_unregistered"


def test_plain_http_of_the_same_server_has_its_own_target(mesh: Mesh) -> None:
    answer = wire.send(mesh.as_agent("coder"), "GET", "crm.example.org", "/status")
    assert answer.status == 200
    assert answer.json()["customers"] > 0
    record = mesh.record(str(answer.decision_id))
    assert (record["target"], record["protocol"]) == ("crm-status", "http")


def test_denied_plain_http_is_a_problem_document(mesh: Mesh) -> None:
    answer = wire.send(mesh.as_agent("coder"), "DELETE", "crm.example.org", "/status")
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 403
    assert problem["decision_id"] == answer.decision_id
    assert problem["code"] == mesh.record(str(answer.decision_id))["reason"]
