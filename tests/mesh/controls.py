"""A planner, a coder, a reviewer and an operator: their mesh, their calls, and the commands, each as a workload."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import at_any_hour
from conftest import decided, running_mesh
from idp import RESOURCE, Idp

from demo import wire
from demo.mesh import Mesh
from demo.names import AGENTS

DENIED = 10  # the exit code of a command that policies deny
TEMPLATE = "granted-crm-tool"
CODER = AGENTS["coder"]
REVIEWER = "spiffe://example.org/ns/agents/sa/reviewer"
TASK = "x-palisade-task"
WRITES = "update_customer_email"
# A status, and the reason on record.
NO_GRANT = (403, "no_policy_permits")
HELD = (403, "held")

_POLICIES = """
@id("developers-read") @reason("Who works on the code, and who reviews it, looks customers up")
permit (principal in AgentGroup::"developers", action == Action::"crm/get_customer", resource);

@id("analyst-looks-up") @reason("The analyst looks single customers up, a few in a while")
@limit("lookups")
permit (principal == Agent::"%s", action == Action::"crm/get_customer", resource);

@id("reviewer-lists") @reason("The reviewer lists customers, few at a time")
@limit("rows")
permit (principal == Agent::"%s", action == Action::"crm/query_customers", resource);
""" % (AGENTS["analyst"], REVIEWER)

_LIMITS = """
[[limit]]
name = "lookups"
per = ["agent"]
rate = { units = 1, seconds = 3, burst = 2 }

[[limit]]
name = "rows"
per = ["agent"]
quota = { units = 50, seconds = 86400 }
cost = { argument = "/limit", default = 1, max = 50 }
"""


def settings(folder: Path, idp: Idp | None = None) -> dict[str, Any]:
    """Of a mesh with a reviewer, whose Palisade believes the identity provider's tokens."""
    agents = {**AGENTS, "reviewer": REVIEWER}
    return {"bundle": _bundle(folder), "agents": agents, "tokens": _tokens(idp) if idp else ""}


def _bundle(folder: Path) -> Path:
    """The default bundle, with a reviewer, who reads as the coder does, and with limits."""
    bundle = at_any_hour(folder / "bundle")
    (bundle / "policies" / "developers.cedar").write_text(_POLICIES)
    with (bundle / "limits.toml").open("a") as limits:
        limits.write(_LIMITS)
    entities = bundle / "agents.entities.json"
    everybody: list[dict[str, Any]] = json.loads(entities.read_text())
    developers = {"type": "AgentGroup", "id": "developers"}
    everybody.append({"uid": developers, "attrs": {}, "parents": []})
    everybody.append({"uid": {"type": "Agent", "id": REVIEWER}, "attrs": {}, "parents": [developers]})
    next(one for one in everybody if one["uid"]["id"] == CODER)["parents"].append(developers)
    entities.write_text(json.dumps(everybody))
    return bundle


def _tokens(idp: Idp) -> str:
    keys = f'{{ discovery = true, allow_private_addresses = true, ca_file = "{idp.ca.root}" }}'
    return f"""
[[token]]
header = "authorization"
role = "user"
[[issuer]]
name = "idp"
issuer = "{idp.issuer}"
audiences = ["{RESOURCE}"]
actors = {{ "coder" = "{CODER}" }}
keys = {keys}
"""


# ------------------------------------------------------------------------------------------------------------ fixtures
# To be imported by whoever wants them: other tests have a `mesh` of their own.


@pytest.fixture(scope="module", name="mesh")
def shared_mesh(idp: Idp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Shared by the tests of a file: each has a task of its own, and releases what it holds."""
    with running_mesh(**settings(tmp_path_factory.mktemp("control"), idp)) as mesh:
        yield mesh


@pytest.fixture(name="task")
def own_task() -> str:
    return f"task-{uuid.uuid4()}"


# ------------------------------------------------------------------------------------------------------------ commands


def command(mesh: Mesh, options: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command with whatever options say where and as whom."""
    # The answer of a debug build may take its time on a busy machine.
    words = [str(mesh.settings.palisade), *arguments, *options, "--timeout", "60s"]
    return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=90)


def asked(mesh: Mesh, who: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command as this workload."""
    return command(mesh, mesh.control_options(who), *arguments)


def done(mesh: Mesh, who: str, *arguments: str) -> Any:
    """The same of one that succeeds: what it says."""
    said = asked(mesh, who, *arguments, "--json")
    assert (said.returncode, said.stderr) == (0, ""), said
    return json.loads(said.stdout)


def grant_options(tool: str, task: str, calls: int, agent: str = CODER, span: str = "1h") -> list[str]:
    what = ["--template", TEMPLATE, "--agent", agent, "--resource", f'Tool::"crm/{tool}"']
    return ["grant", *what, "--task", task, "--calls", str(calls), "--for", span, "--reason", "BUG-7"]


def grant(mesh: Mesh, tool: str, task: str, calls: int = 20) -> str:
    """The planner grants the coder a tool: the grant's id."""
    return str(done(mesh, "planner", *grant_options(tool, task, calls))["grant"]["id"])


def hold(mesh: Mesh, subject: str) -> str:
    """The operator on call holds: the hold's id."""
    return str(done(mesh, "on-call", "hold", subject, "--reason", "INC-42")["hold"]["id"])


def release(mesh: Mesh, hold: str) -> None:
    assert done(mesh, "on-call", "release", hold, "--reason", "false alarm")["released"]


@contextlib.contextmanager
def held(mesh: Mesh, subject: str) -> Iterator[str]:
    """Held, and released whatever happens: other tests go on with this mesh."""
    id = hold(mesh, subject)
    try:
        yield id
    finally:
        release(mesh, id)


# --------------------------------------------------------------------------------------------------------------- calls


def some_email() -> str:
    return f"{uuid.uuid4()}@example.org"


def said(mesh: Mesh, answer: wire.Answer) -> tuple[int, str]:
    """The status, and the reason on record; "" for a permit."""
    return answer.status, str(mesh.record(str(answer.decision_id)).get("reason", ""))


def call(mesh: Mesh, agent: str, tool: str, arguments: dict[str, Any], **headers: str) -> wire.Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return decided(lambda: wire.call_tool(mesh.as_agent(agent), tool, arguments, headers=named))


def write(mesh: Mesh, task: str | None, email: str | None = None, agent: str = "coder", **headers: str) -> wire.Answer:
    arguments = {"customer_id": 2, "email": email or some_email()}
    named = {"x_palisade_task": task} if task else {}
    return call(mesh, agent, WRITES, arguments, **named, **headers)


def read(mesh: Mesh, agent: str) -> wire.Answer:
    return call(mesh, agent, "get_customer", {"customer_id": 4})


def permits_by(mesh: Mesh, grant: str) -> int:
    """How many calls this grant let pass, by the records."""
    calls = [one for line in mesh.records() if line["verdict"] == "PERMIT" for one in line["calls"]]
    return [policy["id"] for one in calls for policy in one["policies"]].count(grant)
