"""Agent to agent, with the official A2A SDK on both sides."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from a2a.client.errors import A2AClientError
from journals import heard

from demo import sdk, wire
from demo.mesh import Mesh


def test_permitted_message_is_answered(mesh: Mesh) -> None:
    question = f"what is {uuid.uuid4()}?"
    log: list[sdk.Seen] = []
    answer = asyncio.run(sdk.ask_researcher(mesh.proxy("analyst"), question, log))
    assert question in answer
    assert heard(mesh, question)
    card, message = (mesh.record(str(seen.decision_id)) for seen in log)
    assert [call["action"] for call in card["calls"]] == ["a2a:card"]
    assert [call["action"] for call in message["calls"]] == ["SendMessage"]
    assert (message["target"], message["protocol"]) == ("researcher", "a2a")


def test_denied_message_is_never_heard(mesh: Mesh) -> None:
    question = f"what is {uuid.uuid4()}?"
    log: list[sdk.Seen] = []
    with pytest.raises(A2AClientError):
        asyncio.run(sdk.ask_researcher(mesh.proxy("coder"), question, log, discover=False))
    assert [seen.status for seen in log] == [403]
    assert mesh.record(str(log[0].decision_id))["reason"] == "no_policy_permits"
    assert not heard(mesh, question)


def test_denied_agent_does_not_even_get_the_card(mesh: Mesh) -> None:
    answer = wire.send(mesh.as_agent("coder"), "GET", "researcher.example.org", "/.well-known/agent-card.json")
    assert answer.status == 403
    assert mesh.record(str(answer.decision_id))["verdict"] == "DENIAL"


def test_old_method_names_are_the_same_actions(mesh: Mesh) -> None:
    params = {"message": {"messageId": "1", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}}
    body = json.dumps({"jsonrpc": "2.0", "id": "old", "method": "message/send", "params": params}).encode()
    headers = {"content-type": "application/json"}
    answer = wire.send(mesh.as_agent("coder"), "POST", "researcher.example.org", "/a2a", headers, body)
    assert answer.status == 403
    assert answer.json()["id"] == "old"
    assert [call["action"] for call in mesh.record(str(answer.decision_id))["calls"]] == ["SendMessage"]
