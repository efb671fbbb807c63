"""The official MCP SDKs for TypeScript and Python behind two real Envoys: every method, permitted and denied.

Each client against each server, with sessions, without, and over the deprecated transport. Whoever is denied gets an error
for that call, learns the decision, and goes on: the next call of the same session works.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator

import pytest
import sdks
from conftest import running_mesh
from mcp_calls import EVERYWHERE, GUIDE, WITH_SESSION, Call, denied, give_up, goes_on, named, permitted, refused
from sdks import FREE, Refused, World, decidedly, without

from demo.processes import wait_until

# What not every schema has.
UNKNOWN = {"mcp:unknown"} & sdks.actions()
# A client, and with or without sessions.
MODES = [("ts1", "legacy"), ("ts2", "legacy"), ("ts2", "auto"), ("py", "legacy"), ("py", "auto")]
SESSION_PAIRS = [(client, server) for client in ("ts1", "ts2", "py") for server in ("ts1", "py")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    sdks.install()
    folder = tmp_path_factory.mktemp("sdks")
    denied = sdks.actions()
    bundle = sdks.write_bundle(folder / "bundle", denied)
    agents = sdks.agents(denied)
    with contextlib.ExitStack() as stack:
        mesh = stack.enter_context(running_mesh(bundle=bundle, agents=agents, programs=sdks.PROGRAMS))
        clients = {name: stack.enter_context(sdks.Client(name, folder / f"{name}.log")) for name in sdks.CLIENTS}
        journals = {place: sdks.Lines(mesh.path(f"{place}.jsonl")) for place in sdks.PROGRAMS}
        yield World(mesh, clients, sdks.Lines(mesh.records_path), journals, [])


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@decidedly
def test_every_method_of_a_session(world: World, client: str, server: str) -> None:
    session = world.session(client, FREE, sdks.url(server))
    session.open()
    for call in WITH_SESSION:
        session.mark()
        result = session.do(call.do, **call.facts)
        assert call.answer in json.dumps(result), (call, result)
        permitted(world, session.answer(call.method), call.action)


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@decidedly
def test_streams_and_what_servers_ask(world: World, client: str, server: str) -> None:
    session = world.session(client, FREE, sdks.url(server))
    session.open()
    permitted(world, session.answer("initialize"), "initialize")
    permitted(world, session.answer("notifications/initialized"), "notifications/initialized")
    permitted(world, session.seen(kind="http", method="GET"), "mcp:stream")
    # On the stream of a call: progress, log lines, and questions that the client answers by posting.
    session.do("call", name="progress")
    session.seen(kind="message", method="notifications/progress")
    session.do("call", name="log")
    session.seen(kind="message", method="notifications/message")
    assert "file:///home sampled true" in json.dumps(session.do("call", name="ask"))
    permitted(world, session.answer("response"), "mcp:respond")
    # On the session's own stream.
    session.do("call", name="touch")
    for what in ("resources/updated", "resources/list_changed", "tools/list_changed", "prompts/list_changed"):
        session.seen(kind="message", method=f"notifications/{what}")
    # The client gives a call up.
    given_up = give_up(session)
    permitted(world, session.answer("notifications/cancelled"), "notifications/cancelled")
    assert given_up
    # A stream that ended before the answer came is taken up where it ended.
    session.mark()
    assert "fetched" in json.dumps(session.do("call", name="drop"))
    resumed = session.seen(kind="http", method="GET")
    permitted(world, resumed, "mcp:stream")
    request = world.request(resumed["decision"])
    assert request and request["last_event"]
    session.do("end")
    permitted(world, session.seen(kind="http", method="DELETE"), "mcp:end")


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@pytest.mark.parametrize("call", {call.action: call for call in WITH_SESSION}.values(), ids=str)
@decidedly
def test_each_denied_method_of_a_session(world: World, client: str, server: str, call: Call) -> None:
    session = world.session(client, without(call.action), sdks.url(server))
    session.open()
    if client == "py" and call.action.startswith("notifications/"):
        # The Python SDK has no outcome for what it only tells.
        session.do(call.do, **call.facts)
        denied(world, session.answer(call.method), call.action)
    else:
        said = refused(lambda: session.do(call.do, **call.facts))
        assert denied(world, session.answer(call.method), call.action) in said
    goes_on(session, call.action)


@pytest.mark.parametrize("server", ["ts1", "py"])
@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
@decidedly
def test_revisions_with_sessions(world: World, server: str, revision: str) -> None:
    """The clients above agree on the newest of these; one knows how to speak the others alone."""
    session = world.session("ts2", without("tools/call"), sdks.url(server), mode=revision)
    session.open()
    for call in EVERYWHERE:
        session.mark()
        if call.action == "tools/call":
            said = refused(functools.partial(session.do, call.do, **call.facts))
            assert denied(world, session.answer(call.method), call.action) in said
        else:
            assert call.answer in json.dumps(session.do(call.do, **call.facts))
            permitted(world, session.answer(call.method), call.action)
            request = world.request(session.answer(call.method)["decision"])
            assert request and request["revision"] == revision


@pytest.mark.parametrize(("client", "mode"), MODES)
@decidedly
def test_what_no_policy_was_asked_about(world: World, client: str, mode: str) -> None:
    """A method that no revision has, and a tool that nobody registered: the session goes on as after any other denial."""
    # The method is an action of its own, if the schema has it; else it is refused before any policy.
    agent = without("mcp:unknown") if UNKNOWN else FREE
    session = world.session(client, agent, sdks.url("py"), mode=mode)
    session.open()
    for method, do, facts in (
        ("palisade/nothing", "request", {"method": "palisade/nothing"}),
        ("tools/call", "call", {"name": "drop_tables"}),
    ):
        said = refused(functools.partial(session.do, do, **facts))
        answer = session.answer(method)
        assert answer["status"] == 403
        assert answer["decision"] in said
        assert world.record(answer["decision"])["verdict"] == "DENIAL"
        assert not world.request(answer["decision"])
        goes_on(session, method)


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@decidedly
def test_denied_beginning_of_a_session(world: World, client: str, server: str) -> None:
    session = world.session(client, without("initialize"), sdks.url(server))
    said = refused(session.open)
    assert denied(world, session.answer("initialize"), "initialize") in said
    session = world.session(client, without("notifications/initialized"), sdks.url(server))
    if client == "py":
        session.open()
        denied(world, session.answer("notifications/initialized"), "notifications/initialized")
        goes_on(session, "notifications/initialized")
    else:
        # Connecting is one step of the TypeScript SDKs, and has failed.
        said = refused(session.open)
        assert denied(world, session.answer("notifications/initialized"), "notifications/initialized") in said


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@decidedly
def test_denied_streams_and_ends(world: World, client: str, server: str) -> None:
    session = world.session(client, without("mcp:stream"), sdks.url(server))
    session.open()
    denied(world, session.seen(kind="http", method="GET"), "mcp:stream")
    goes_on(session, "mcp:stream")
    session = world.session(client, without("mcp:end"), sdks.url(server))
    session.open()
    if client == "py":
        # Ends its session when it is closed, and does not mind.
        session.do("end")
        denied(world, session.seen(kind="http", method="DELETE"), "mcp:end")
    else:
        assert "Failed to terminate session" in refused(lambda: session.do("end"))
        denied(world, session.seen(kind="http", method="DELETE"), "mcp:end")
        goes_on(session, "mcp:end")


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@decidedly
def test_denied_answers_to_what_servers_ask(world: World, client: str, server: str) -> None:
    """The server waits for an answer that never comes, so the call ends when the client gives it up."""
    session = world.session(client, without("mcp:respond"), sdks.url(server))
    session.open()
    # The Python SDK asks for the roots on the session's own stream; a question before there is one, it throws away.
    permitted(world, session.seen(kind="http", method="GET"), "mcp:stream")
    asked = session.start("call", name="ask", key="ask")
    denied(world, session.answer("response"), "mcp:respond")
    assert not asked.done()
    session.do("cancel", key="ask")
    refused(asked.result)
    goes_on(session, "mcp:respond")
    session = world.session(client, without("notifications/cancelled"), sdks.url(server))
    session.open()
    give_up(session)
    denied(world, session.answer("notifications/cancelled"), "notifications/cancelled")
    goes_on(session, "notifications/cancelled")


# -------------------------------------------------------------------------------------------------------------------- tasks


@decidedly
def test_tasks(world: World) -> None:
    """Of revision 2025-11-25, and of the TypeScript SDK 1.x alone: at the server, and at the client."""
    session = world.session("ts1", FREE, sdks.url("ts1"))
    session.open()
    made = session.do("task_call", name="echo", arguments={"text": "said"})["task"]["taskId"]
    assert session.do("task_get", task=made)["status"] == "completed"
    assert "said" in json.dumps(session.do("task_result", task=made))
    assert made in json.dumps(session.do("task_list"))
    endless = session.do("task_call", name="wait")["task"]["taskId"]
    assert session.do("task_cancel", task=endless)["status"] == "cancelled"
    session.do("task_call", name="ask")
    for method in (*TASKS.values(), "notifications/tasks/status"):
        permitted(world, session.answer(method), method)


TASKS = {"task_get": "tasks/get", "task_result": "tasks/result", "task_list": "tasks/list", "task_cancel": "tasks/cancel"}


@pytest.mark.parametrize(("do", "action"), TASKS.items())
@decidedly
def test_denied_tasks(world: World, do: str, action: str) -> None:
    session = world.session("ts1", without(action), sdks.url("ts1"))
    session.open()
    task = session.do("task_call", name="wait")["task"]["taskId"]
    said = refused(lambda: session.do(do, task=task))
    assert denied(world, session.answer(action), action) in said
    goes_on(session, action)


@decidedly
def test_denied_news_of_the_clients_own_task(world: World) -> None:
    session = world.session("ts1", without("notifications/tasks/status"), sdks.url("ts1"))
    session.open()
    session.do("task_call", name="ask")
    denied(world, session.answer("notifications/tasks/status"), "notifications/tasks/status")
    goes_on(session, "notifications/tasks/status")


# --------------------------------------------------------------------------------------------------------- without sessions

STATELESS_PAIRS = [(client, server) for client in ("ts2", "py") for server in ("ts2", "py")]
CHANGES = {"resourceSubscriptions": [GUIDE], "toolsListChanged": True}


@pytest.mark.parametrize(("client", "server"), STATELESS_PAIRS)
@decidedly
def test_every_method_without_sessions(world: World, client: str, server: str) -> None:
    session = world.session(client, FREE, sdks.url(server), mode="auto")
    session.open()
    permitted(world, session.answer("server/discover"), "server/discover")
    where = Call("tools/call", "call", '"eu"', {"name": "where", "arguments": {"region": "eu"}})  # and in a header
    # The server asks within its answer, and the client repeats the call.
    ask = Call("tools/call", "call", '"true"', {"name": "ask"})
    for call in (*EVERYWHERE, where, ask):
        session.mark()
        result = session.do(call.do, **call.facts)
        assert call.answer in json.dumps(result), (call, result)
        permitted(world, session.answer(call.method), call.action)
    session.mark()
    session.do("listen", filter=CHANGES)
    permitted(world, session.answer("subscriptions/listen"), "subscriptions/listen")
    permitted(world, session.answer("subscriptions/listen"), "resources/subscribe")
    session.do("call", name="touch")
    session.seen(kind="message", method="notifications/resources/updated")
    session.seen(kind="message", method="notifications/tools/list_changed")
    session.do("unlisten")
    # Who gives up closes the stream of the call, and the server notices.
    given_up = world.ran("wait, given up")
    give_up(session)
    wait_until(lambda: world.ran("wait, given up") > given_up, "the server's notice")
    assert {event["method"] for event in session.events() if event["kind"] == "http"} == {"POST"}


@pytest.mark.parametrize(("client", "server"), STATELESS_PAIRS)
@pytest.mark.parametrize("call", EVERYWHERE, ids=str)
@decidedly
def test_each_denied_method_without_sessions(world: World, client: str, server: str, call: Call) -> None:
    session = world.session(client, without(call.action), sdks.url(server), mode="auto")
    session.open()
    said = refused(lambda: session.do(call.do, **call.facts))
    assert denied(world, session.answer(call.method), call.action) in said
    goes_on(session, call.action)


@pytest.mark.parametrize(("client", "server"), STATELESS_PAIRS)
@decidedly
def test_denied_changes(world: World, client: str, server: str) -> None:
    session = world.session(client, without("subscriptions/listen"), sdks.url(server), mode="auto")
    session.open()
    said = refused(lambda: session.do("listen", filter=CHANGES))
    assert denied(world, session.answer("subscriptions/listen"), "subscriptions/listen") in said
    goes_on(session, "subscriptions/listen")
    # Whoever may not subscribe to a resource may not do it in here either, and may listen to the rest.
    session = world.session(client, without("resources/subscribe"), sdks.url(server), mode="auto")
    session.open()
    said = refused(lambda: session.do("listen", filter=CHANGES))
    assert denied(world, session.answer("subscriptions/listen"), "resources/subscribe") in said
    session.mark()
    session.do("listen", filter={"toolsListChanged": True})
    permitted(world, session.answer("subscriptions/listen"), "subscriptions/listen")


@pytest.mark.parametrize(("client", "server"), STATELESS_PAIRS)
@decidedly
def test_denied_discovery(world: World, client: str, server: str) -> None:
    session = world.session(client, without("server/discover"), sdks.url(server), mode="auto")
    said = ""
    if (client, server) == ("py", "py"):
        # Takes every refusal for an older server's, and begins a session, which this server has, too.
        session.open()
        permitted(world, session.answer("initialize"), "initialize")
    elif client == "py":
        # Likewise; this server has no sessions, and the SDK raises what that says of it.
        assert "Unsupported protocol version" in refused(session.open)
    else:
        said = refused(session.open)
    decision = denied(world, session.answer("server/discover"), "server/discover")
    assert decision in said or client == "py"


# ------------------------------------------------------------------------------------------------- the deprecated transport


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@decidedly
def test_every_method_over_two_endpoints(world: World, client: str, server: str) -> None:
    session = world.session(client, FREE, sdks.url(server, endpoint="sse"), transport="sse")
    session.open()
    permitted(world, session.seen(kind="http", method="GET"), "mcp:stream")
    permitted(world, session.answer("initialize"), "initialize")
    for call in WITH_SESSION:
        session.mark()
        result = session.do(call.do, **call.facts)
        assert call.answer in json.dumps(result), (call, result)
        permitted(world, session.answer(call.method), call.action)
    session.mark()
    assert "file:///home sampled true" in json.dumps(session.do("call", name="ask"))
    permitted(world, session.answer("response"), "mcp:respond")
    give_up(session)
    permitted(world, session.answer("notifications/cancelled"), "notifications/cancelled")


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@pytest.mark.parametrize("action", ["tools/call", "notifications/roots/list_changed"])
@decidedly
def test_denied_over_two_endpoints(world: World, client: str, server: str, action: str) -> None:
    session = world.session(client, without(action), sdks.url(server, endpoint="sse"), transport="sse")
    session.open()
    call = next(call for call in WITH_SESSION if call.action == action)
    outcome = session.start(call.do, **call.facts, key="denied")
    decision = denied(world, session.answer(action), action)
    if client != "py":
        assert decision in refused(outcome.result)
        goes_on(session, action)
        return
    # The Python SDK stops to send after any answer that is an error: this transport survives no denial there.
    assert "Connection closed" in refused(lambda: session.do("list_prompts"))
    if action == "tools/call":
        session.do("cancel", key="denied")
        refused(outcome.result)


@pytest.mark.parametrize(("client", "server"), SESSION_PAIRS)
@decidedly
def test_denied_stream_of_two_endpoints(world: World, client: str, server: str) -> None:
    session = world.session(client, without("mcp:stream"), sdks.url(server, endpoint="sse"), transport="sse")
    assert "403" in refused(session.open)
    denied(world, session.seen(kind="http", method="GET"), "mcp:stream")


@pytest.mark.parametrize("client", sdks.CLIENTS)
@decidedly
def test_answers_to_a_post_are_lost_over_two_endpoints(world: World, client: str) -> None:
    """The SDKs look at the status of that answer alone: a denial in the protocol is no outcome of the call."""
    to = sdks.url("ts1", "json_rpc_200", endpoint="sse")
    session = world.session(client, without("tools/call"), to, transport="sse")
    session.open()
    call = next(call for call in EVERYWHERE if call.action == "tools/call")
    outcome = session.start(call.do, **call.facts, key="denied")
    denied(world, session.answer("tools/call"), "tools/call", 200)
    goes_on(session, "tools/call")
    assert not outcome.done()
    session.do("cancel", key="denied")
    refused(outcome.result)


# ------------------------------------------------------------------------------------------------------ forms of a denial


# What an SDK raises for HTTP 403, and for a JSON-RPC error that came with HTTP 200.
RAISED = {
    "ts1": ("StreamableHTTPError", "McpError"),
    "ts2": ("SdkHttpError", "ProtocolError"),
    "py": ("MCPError", "MCPError"),
}


@pytest.mark.parametrize("profile", sdks.PROFILES)
@pytest.mark.parametrize(("client", "mode"), MODES)
@decidedly
def test_forms_of_a_denial(world: World, client: str, mode: str, profile: str) -> None:
    """The table of docs/mcp-clients.md."""
    status = 403 if profile == "http_403" else 200
    for call in EVERYWHERE[:2]:
        session = world.session(client, without(call.action), sdks.url("py", profile), mode=mode)
        session.open()
        outcome = session.start(call.do, **call.facts)
        decision = denied(world, session.answer(call.method), call.action, status)
        if (profile, call.action) == ("tool_error_200", "tools/call"):
            # No error: what the model gets to read.
            result = outcome.result()
            assert result["isError"] is True
            assert result["content"][0]["text"] == f"denied by policy (policy_forbids, decision {decision})"
        else:
            with pytest.raises(Refused) as refusal:
                outcome.result()
            error = refusal.value.error
            assert error["type"] == RAISED[client][status == 200]
            if status == 200 or client == "py":
                assert error["code"] == 403001
                assert error["data"] == {"code": "policy_forbids", "decision_id": decision}
            else:
                # The answer's text is in that of the error; what it says is for whoever reads it.
                assert f'"decision_id":"{decision}"' in error["message"]
        goes_on(session, call.action)


@pytest.mark.parametrize("profile", sdks.PROFILES)
@pytest.mark.parametrize("client", sdks.CLIENTS)
@decidedly
def test_what_has_no_answer_is_denied_by_status(world: World, client: str, profile: str) -> None:
    """A notification has no id to answer to, so that every form of a denial is the same for it."""
    action = "notifications/roots/list_changed"
    session = world.session(client, without(action), sdks.url("py", profile))
    session.open()
    told = session.start("roots_changed")
    denied(world, session.answer(action), action)
    if client == "py":
        told.result()
    else:
        refused(told.result)
    goes_on(session, action)


def test_sessions_outlive_palisade(world: World) -> None:
    """Nobody decides, so nothing passes; when somebody does again, the same sessions go on."""
    sessions = [world.session(client, FREE, sdks.url("py"), mode=mode) for client, mode in MODES]
    for session in sessions:
        session.open()
        session.mark()
    world.mesh.stop_palisade()
    try:
        for session in sessions:
            refused(functools.partial(session.do, "list_prompts"))
            assert session.answer("prompts/list")["status"] == 503
    finally:
        world.mesh.start_palisade()
    for session in sessions:
        goes_on(session, "prompts/list")
    world.close()


# -------------------------------------------------------------------------------------------------------------- all of it

# Actions that no official SDK has a way to send, with the reason.
UNSENT = {
    "tasks/update": "of the extension io.modelcontextprotocol/tasks, which neither SDK has",
    "mcp:unregistered": "for targets that leave it to policies, which these do not",
}
# Who is denied what, by the tests above.
DENIED = {
    *(call.action for call in WITH_SESSION),
    *("initialize", "notifications/initialized", "mcp:stream", "mcp:end", "mcp:respond", "notifications/cancelled"),
    *TASKS.values(),
    "notifications/tasks/status",
    *("server/discover", "subscriptions/listen"),
    *UNKNOWN,
}


def test_no_action_is_forgotten(world: World) -> None:
    """What the SDKs send comes to all actions of the protocol, and each has an agent that was denied it."""
    test_every_method_of_a_session(world, "ts1", "ts1")
    test_streams_and_what_servers_ask(world, "ts1", "ts1")
    test_tasks(world)
    test_every_method_without_sessions(world, "ts2", "ts2")
    test_what_no_policy_was_asked_about(world, "ts1", "legacy")
    calls = [call for record in world.records.read() for call in record.get("calls", [])]
    sent = {named(call["action"]) for call in calls}
    assert sent == sdks.actions() - UNSENT.keys()
    assert sent == DENIED
