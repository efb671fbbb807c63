"""What an operator holds stops with the next call, and what has a limit at the limit: at real Envoys and clients."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mcp
import pytest
from conftest import decided, is_decided
from controls import (
    CODER,
    DENIED,
    HELD,
    NO_GRANT,
    TASK,
    WRITES,
    asked,
    call,
    done,
    grant,
    grant_options,
    held,
    hold,
    own_task,  # noqa: F401, a fixture
    permits_by,
    read,
    release,
    said,
    settings,
    shared_mesh,  # noqa: F401, a fixture
    some_email,
    write,
)
from idp import Idp
from journals import ran

from demo import evidence, sdk, wire
from demo.mesh import Mesh
from demo.names import CONTROLLERS, SERVERS
from demo.processes import wait_until


# --------------------------------------------------------------------------------------------------------------- holds


class Replay:
    """One call in a session of the coder's, with a user's token and by a grant, to be sent again byte by byte."""

    def __init__(self, mesh: Mesh, idp: Idp, task: str) -> None:
        self.mesh, self.email = mesh, some_email()
        self.token = token = idp.user_token(client="coder", claims={"sid": f"sid-{task}"})
        self.headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {token}",
            TASK: task,
        }
        start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        opened = decided(lambda: self._post("initialize", start))
        assert opened.status == 200, opened
        self.headers |= {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}

    def _post(self, method: str, params: dict[str, Any]) -> wire.Answer:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        return wire.send(self.mesh.as_agent("coder"), "POST", "crm.example.org", "/mcp", self.headers, body)

    def again(self) -> wire.Answer:
        arguments = {"customer_id": 2, "email": self.email}
        return decided(lambda: self._post("tools/call", {"name": WRITES, "arguments": arguments}))

    def runs(self) -> int:
        return sum(line.get("arguments", {}).get("email") == self.email for line in self.mesh.journal("crm"))


@pytest.fixture
def replay(mesh: Mesh, idp: Idp, task: str) -> Replay:
    grant(mesh, WRITES, task)
    return Replay(mesh, idp, task)


def token_id(token: str) -> str:
    """The `jti`, of which records have a digest alone."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])


def subjects(replay: Replay, record: dict[str, Any]) -> list[str]:
    """All that the call has to do with, as a hold names it."""
    return [
        "everything",
        f"bundle:{record['bundle']}",
        "namespace:example.org/agents",
        f"agent:{CODER}",
        "user:idp/alice",
        f"session:idp/{record['caller']['session']}",
        f"task:{record['task']}",
        f"token:idp/{token_id(replay.token)}",
        # Without the signature, of which there may be several.
        f"token:sha256:{record['caller']['tokens'][0]['sha256']}",
        f"session:sha256:{record['calls'][0]['sessionSha256']}",
        f"agent:{SERVERS['crm']}",
        "server:crm",
        f"tool:crm/{WRITES}",
    ]


def test_a_hold_on_whatever_a_call_has_to_do_with_stops_its_replay(mesh: Mesh, replay: Replay) -> None:
    first = replay.again()
    assert first.status == 200, first
    for subject in subjects(replay, mesh.record(str(first.decision_id))):
        before = replay.runs()
        with held(mesh, subject) as id:
            answer = replay.again()
            assert said(mesh, answer) == HELD, subject
            record = mesh.record(str(answer.decision_id))
            assert (record["hold"], record["detail"]) == (id, f"hold {id} on {subject}: INC-42")
            assert answer.json()["error"]["data"]["code"] == "held"
            assert "INC-42" not in answer.body.decode(), "why somebody is held is nobody's business"
            assert replay.runs() == before, subject
        # Neither did the hold end the session, nor the token or the grant: released, the same bytes pass.
        assert replay.again().status == 200, subject
        assert replay.runs() == before + 1


def test_a_held_agent_is_stopped_and_nobody_else(mesh: Mesh, task: str) -> None:
    log: list[sdk.Seen] = []

    async def session() -> None:
        async with sdk.mcp_client(mesh.proxy("coder"), log, "legacy") as client:
            await client.call_tool("get_customer", {"customer_id": 4})
            id = await asyncio.to_thread(hold, mesh, f"agent:{CODER}")
            try:
                with pytest.raises(mcp.MCPError) as denied:
                    await client.call_tool("get_customer", {"customer_id": 4})
                assert denied.value.error.data["code"] == "held"
                # Not a list, not a status page, not the task that it had: nothing.
                with pytest.raises(mcp.MCPError):
                    await client.list_tools()
                status = wire.send(mesh.as_agent("coder"), "GET", "crm.example.org", "/status")
                assert said(mesh, status) == HELD
                assert read(mesh, "reviewer").status == 200
            finally:
                await asyncio.to_thread(release, mesh, id)
            # The session that was open all the time goes on.
            found = await client.call_tool("get_customer", {"customer_id": 4})
            assert found.structured_content["name"] == "Katherine Johnson"

    asyncio.run(session())


def test_a_held_tool_is_stopped_for_everybody_and_no_other_tool(mesh: Mesh, task: str) -> None:
    with held(mesh, "tool:crm/get_customer"):
        assert said(mesh, read(mesh, "coder")) == HELD
        assert said(mesh, read(mesh, "reviewer")) == HELD
        grant(mesh, WRITES, task)
        assert write(mesh, task).status == 200
    assert read(mesh, "reviewer").status == 200


def test_a_grant_of_a_held_author_does_not_count(mesh: Mesh, task: str) -> None:
    grant(mesh, WRITES, task)
    with held(mesh, f"agent:{CONTROLLERS['planner']}"):
        assert said(mesh, write(mesh, task)) == NO_GRANT
        # Who is held controls nothing either.
        assert asked(mesh, "planner", *grant_options(WRITES, task, 1)).returncode == DENIED
    assert write(mesh, task).status == 200


def test_a_hold_and_a_grant_survive_a_kill(start_mesh: Callable[..., Mesh], tmp_path: Path, task: str) -> None:
    mesh = start_mesh(**settings(tmp_path))

    def decides() -> bool:
        return is_decided(wire.call_tool(mesh.as_agent("reviewer"), "get_customer", {"customer_id": 4}))

    granted = grant(mesh, WRITES, task)
    assert write(mesh, task).status == 200
    held_ = hold(mesh, f"agent:{CODER}")
    mesh.stop_palisade()
    email = some_email()
    dead = wire.call_tool(mesh.as_agent("coder"), WRITES, {"customer_id": 2, "email": email}, headers={TASK: task})
    assert dead.status == 503
    mesh.start_palisade()
    wait_until(decides, "Envoy finds the new process")
    assert said(mesh, write(mesh, task, email)) == HELD
    assert not ran(mesh, WRITES, email=email)
    status = done(mesh, "on-call", "status")
    assert [one["id"] for one in status["holds"]] == [held_]
    assert [one["id"] for one in status["grants"]] == [granted]
    release(mesh, held_)
    answer = write(mesh, task, email)
    assert answer.status == 200 and ran(mesh, WRITES, email=email)
    assert permits_by(mesh, granted) == 2
    # What was over before a kill is over behind it.
    done(mesh, "planner", "complete", task)
    mesh.stop_palisade()
    mesh.start_palisade()
    wait_until(decides, "Envoy finds the new process")
    assert said(mesh, write(mesh, task)) == NO_GRANT


def test_an_operator_watches_what_happens(mesh: Mesh, task: str, tmp_path: Path) -> None:
    seen, complaints = tmp_path / "watch.jsonl", tmp_path / "watch.log"
    words = [str(mesh.settings.palisade), "watch", "--json", *mesh.control_options("on-call"), "--timeout", "60s"]
    with seen.open("wb") as out, complaints.open("wb") as error:
        watch = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=error)
    try:
        evidence.find(seen, lambda line: "status" in line, "the beginning")
        granted = grant(mesh, WRITES, task)
        with held(mesh, f"task:{task}") as held_:
            pass
        done(mesh, "planner", "complete", task)
        for what, id in [("granted", granted), ("held", held_), ("released", held_), ("ended", granted)]:
            evidence.find(seen, lambda line: line.get(what, {}).get("id") == id, what)  # noqa: B023
    finally:
        watch.kill()
        watch.wait()


# -------------------------------------------------------------------------------------------------------------- limits


def test_beyond_a_rate_there_is_429_and_when_to_come_back(mesh: Mesh) -> None:
    answers = [read(mesh, "analyst")]
    while answers[-1].status == 200:
        assert len(answers) < 60, "there is no limit"
        answers.append(read(mesh, "analyst"))
    beyond = answers[-1]
    assert said(mesh, beyond) == (429, "limit_exceeded")
    assert 1 <= int(beyond.headers["retry-after"]) <= 3
    assert beyond.json()["error"]["data"]["code"] == "limit_exceeded"
    assert "lookups" in mesh.record(str(beyond.decision_id))["detail"]
    assert "lookups" not in beyond.body.decode()
    # Others have their own, and what was denied took nothing: it passes when there is room.
    assert read(mesh, "coder").status == 200
    wait_until(lambda: read(mesh, "analyst").status == 200, "room again", every=0.1)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_the_sdk_takes_429_as_an_error_and_goes_on(mesh: Mesh, mode: str) -> None:
    rows = {"limit": 10}
    for _ in range(60):
        beyond = call(mesh, "reviewer", "query_customers", rows)
        if beyond.status != 200:
            break
    assert said(mesh, beyond) == (429, "limit_exceeded")
    log: list[sdk.Seen] = []

    async def session() -> None:
        async with sdk.mcp_client(mesh.proxy("reviewer"), log, mode) as client:
            with pytest.raises(mcp.MCPError) as exceeded:
                await client.call_tool("query_customers", rows)
            assert exceeded.value.code == beyond.json()["error"]["code"]
            assert exceeded.value.error.data["code"] == "limit_exceeded"
            found = await client.call_tool("get_customer", {"customer_id": 4})
            assert found.structured_content["name"] == "Katherine Johnson"

    asyncio.run(session())
    # It looks at no `retry-after`, and does not try again by itself: that is for the agent, which is told why.
    assert [seen.rpc for seen in log if seen.status == 429] == ["tools/call"]
