"""Calls of the MCP SDKs, and what has to be seen of one that was permitted and of one that was denied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import sdks
from sdks import Refused, World, without

from demo.evidence import Line

GUIDE = "docs:///guide"
PROMPT = {"type": "ref/prompt", "name": "greet"}
TEMPLATE = {"type": "ref/resource", "uri": "docs:///{id}"}
TYPED = {"name": "who", "value": "al"}


@dataclass(frozen=True)
class Call:
    """A method as the SDKs have it."""

    action: str
    do: str
    answer: str = ""  # what stands in the result, as JSON
    facts: dict[str, Any] = field(default_factory=dict)
    rpc: str | None = None  # the method on the wire, unless it is the action

    def __str__(self) -> str:
        return self.action

    @property
    def method(self) -> str:
        return self.rpc or self.action


EVERYWHERE = [
    Call("tools/list", "list_tools", '"echo"'),
    Call("tools/call", "call", '"said"', {"name": "echo", "arguments": {"text": "said"}}),
    Call("resources/list", "list_resources", '"docs:///guide"'),
    Call("resources/templates/list", "list_templates", '"docs:///{id}"'),
    Call("resources/read", "read", "the text of docs:///guide", {"uri": GUIDE}),
    Call("prompts/list", "list_prompts", '"greet"'),
    Call("prompts/get", "get_prompt", "Hello Ada", {"name": "greet", "arguments": {"who": "Ada"}}),
    Call("completion/complete", "complete", "al-completed", {"ref": PROMPT, "argument": TYPED}),
]
WITH_SESSION = [
    *EVERYWHERE,
    Call("completion/complete", "complete", "al-completed", {"ref": TEMPLATE, "argument": TYPED}),
    Call("ping", "ping"),
    Call("logging/setLevel", "set_level", facts={"level": "info"}),
    Call("resources/subscribe", "subscribe", facts={"uri": GUIDE}),
    Call("resources/unsubscribe", "unsubscribe", facts={"uri": GUIDE}),
    Call("notifications/roots/list_changed", "roots_changed"),
    Call("notifications/progress", "send_progress", facts={"token": 7}),
]


def named(action: str) -> str:
    """An action, or `tools/call` for that of a tool."""
    return "tools/call" if action.partition("/")[0] in sdks.TARGETS else action


def permitted(world: World, answer: Line, action: str) -> None:
    """The evidence of a permitted call: it arrived, and its record says what it was and which policy permitted it."""
    assert answer["status"] in (200, 202), answer
    record = world.record(answer["decision"])
    assert record["verdict"] == "PERMIT", record
    assert action in {named(call["action"]) for call in record["calls"]}
    assert {policy["id"] for call in record["calls"] for policy in call["policies"]} == {"everything"}
    assert world.request(answer["decision"])


def denied(world: World, answer: Line, action: str, status: int = 403) -> str:
    """The evidence of a denied call, and its decision: the one policy, and nothing that came to the server."""
    assert answer["status"] == status, answer
    record = world.record(answer["decision"])
    assert (record["verdict"], record["reason"]) == ("DENIAL", "policy_forbids"), record
    assert action in {named(call["action"]) for call in record["calls"]}
    assert without(action) in {policy["id"] for call in record["calls"] for policy in call["policies"]}
    assert not world.request(answer["decision"])
    return str(answer["decision"])


def refused(outcome: Callable[[], object]) -> str:
    """What the SDK says of a call that it could not do, as text."""
    with pytest.raises(Refused) as error:
        outcome()
    return str(error.value)


def goes_on(session: sdks.Session, action: str) -> None:
    """The connection is what it was: the next call of the same session works, and nobody had to begin anew."""
    other = "list_prompts" if action != "prompts/list" else "list_resources"
    assert session.do(other)
    begun = [event for event in session.events() if event.get("rpc") == "initialize"]
    assert len(begun) <= 1, begun


def give_up(session: sdks.Session) -> str:
    """Calls a tool that does not end, and gives it up once it runs; what the SDK says of the call."""
    session.mark()
    waiting = session.start("call", name="wait", key="wait")
    session.seen(kind="message", method="notifications/progress")
    session.do("cancel", key="wait")
    return refused(waiting.result)
