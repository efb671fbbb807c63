"""The official MCP SDKs as clients and servers (`tests/mcp`), and the bundle of the mesh between them."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Self

from demo.evidence import Line
from demo.mesh import ROOT, Mesh
from demo.names import HOSTS, SERVERS
from demo.processes import MeshError, wait_until

FOLDER = ROOT / "tests" / "mcp"
# Longer than clients wait for a server, which have to say of themselves that nothing came.
_OUTCOME_SECONDS = 40.0
_STOP_SECONDS = 5.0

CLIENTS: Mapping[str, tuple[str | Path, ...]] = {
    "ts1": ("node", FOLDER / "client.mjs", "ts1"),
    "ts2": ("node", FOLDER / "client.mjs", "ts2"),
    "py": (sys.executable, FOLDER / "client.py"),
}
# SDK of a server → in whose place it is in the mesh.
PLACES = {"ts1": "crm", "ts2": "crm", "py": "researcher"}
PROGRAMS: Mapping[str, tuple[str | Path, ...]] = {
    "crm": ("node", FOLDER / "server.mjs"),
    "researcher": (sys.executable, FOLDER / "server.py"),
}
PROFILES = ("http_403", "json_rpc_200", "tool_error_200")
# The tools of the servers, with their arguments as Cedar declares them.
TOOLS = {
    "echo": "text: String",
    "where": "region: String",
    "progress": "",
    "log": "",
    "ask": "",
    "wait": "",
    "touch": "",
    "drop": "",
}
# Who may do everything; for each action there is somebody who may do everything else.
FREE = "free"


def install() -> None:
    done = subprocess.run([FOLDER / "install.sh"], capture_output=True, text=True)
    if done.returncode != 0:
        raise MeshError(done.stderr.strip())


def without(action: str) -> str:
    """The agent that may do everything but this."""
    return "no-" + re.sub(r"[^a-z]+", "-", action.lower())


def agents(actions: set[str]) -> dict[str, str]:
    names = [FREE, *sorted(map(without, actions))]
    return {name: f"spiffe://example.org/ns/agents/sa/{name}" for name in names}


def actions() -> set[str]:
    """Every action of the protocol, as the schema declares it; all tools are one of them."""
    schema = (ROOT / "cedar" / "palisade.cedarschema").read_text()
    _, _, behind = schema.partition("// ---- MCP ---")
    section, _, _ = behind.partition("// ---- A2A ---")
    declared = re.findall(r'^\s*(?:action )?"([^"]+)"(?=,| in |\s*//|$)', section, re.MULTILINE)
    return set(declared) - {"mcp"}


# -------------------------------------------------------------------------------------------------------------- the bundle


def target(server: str, profile: str) -> str:
    return server if profile == PROFILES[0] else f"{server}-{profile}"


TARGETS = {target(server, profile) for server in PLACES for profile in PROFILES}


def url(server: str, profile: str = PROFILES[0], endpoint: str = "mcp") -> str:
    between = "" if profile == PROFILES[0] else f"/{profile}"
    return f"http://{HOSTS[PLACES[server]]}/{server}{between}/{endpoint}"


def _target(server: str, profile: str) -> str:
    at = "/" + url(server, profile).split("/", 3)[3].removesuffix("/mcp")
    # Beside the one endpoint the two of the deprecated transport: the stream, and where its messages are posted.
    messages, streams = ([f"{at}/{endpoint}" for endpoint in both] for both in (("mcp", "messages"), ("mcp", "sse")))
    return f"""
[[target]]
name = "{target(server, profile)}"
protocol = "mcp"
denial = "{profile}"
message_paths = {json.dumps(messages)}
stream_paths = {json.dumps(streams)}
[target.match]
destination_principal = "{SERVERS[PLACES[server]]}"
path_prefix = "{at}"
"""


def _tools(name: str, tools: Mapping[str, str], shared: str) -> tuple[str, str]:
    """Schema and registry of a target's tools."""
    schema = "\n".join(
        f'action "{name}/{tool}" in ["tools/call"] appliesTo {{\n  principal: [Agent],\n  resource: [Tool],\n'
        f"  context: {{\n  input: {{ {arguments} }},\n{shared}  }},\n}};"
        for tool, arguments in tools.items()
    )
    return schema, json.dumps({"server": name, "tools": [{"name": tool} for tool in tools]})


_EVERYTHING = """\
@id("everything") @reason("Whoever is not forbidden it")
permit (principal in Namespace::"example.org/agents", action in Action::"mcp", resource);
"""
_FORBID = """\
@id("{name}") @reason("To see what its client makes of it")
forbid (principal == Agent::"{agent}", action in Action::"{action}", resource);
"""


def write_bundle(folder: Path, denied: set[str]) -> Path:
    """Everybody may do everything, but for one action each."""
    policies = folder / "policies"
    policies.mkdir(parents=True)
    shutil.copy(ROOT / "cedar" / "palisade.cedarschema", folder)
    vocabulary = (folder / "palisade.cedarschema").read_text()
    found = re.search(r"^type Shared = \{\n(.*?)^\};", vocabulary, re.MULTILINE | re.DOTALL)
    assert found, "what every action knows has another name"
    targets = []
    for server in PLACES:
        # The first that matches is taken: the longer paths come first.
        for profile in reversed(PROFILES):
            name = target(server, profile)
            targets.append(_target(server, profile))
            # One tool will do to see the other forms of a denial.
            tools = TOOLS if profile == PROFILES[0] else {"echo": TOOLS["echo"]}
            schema, registry = _tools(name, tools, found[1])
            (folder / f"{name}.cedarschema").write_text(schema)
            (folder / f"{name}.tools.json").write_text(registry)
    (folder / "targets.toml").write_text("\n".join(targets))
    texts = [_EVERYTHING]
    for action in sorted(denied):
        name = without(action)
        texts.append(_FORBID.format(name=name, agent=agents({action})[name], action=action))
    (policies / "sdks.cedar").write_text("".join(texts))
    return folder


# ------------------------------------------------------------------------------------------------------------- the clients


class Refused(Exception):
    """The SDK raised an error for a call."""

    def __init__(self, error: Line) -> None:
        super().__init__(json.dumps(error))
        self.error = error


class Client:
    """A process with an SDK in it that does what it is told; see `tests/mcp/client.mjs`."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in CLIENTS[name]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=FOLDER,
                text=True,
                bufsize=1,
                start_new_session=True,
            )
        self._ids = itertools.count(1)
        self._outcomes: dict[int, concurrent.futures.Future[Any]] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The end of its input is the end of the process, also when this process dies.
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            outcome = json.loads(line)
            future = self._outcomes.pop(outcome["id"])
            if "error" in outcome:
                future.set_exception(Refused(outcome["error"]))
            else:
                future.set_result(outcome["result"])
        for future in self._outcomes.values():
            future.set_exception(MeshError(f"the client {self.name} ended"))

    def start(self, do: str, **facts: object) -> concurrent.futures.Future[Any]:
        number = next(self._ids)
        future = self._outcomes[number] = concurrent.futures.Future()
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"id": number, "do": do, **facts}) + "\n")
        return future


class Session:
    """One connection of a client to a server, as an agent."""

    def __init__(self, client: Client, port: int, to: str, transport: str, mode: str) -> None:
        self._client = client
        self._name = f"session-{next(_SESSIONS)}"
        self._after = 0
        self._how = {"url": to, "port": port, "transport": transport, "mode": mode}

    def open(self) -> Any:
        return self.do("open", **self._how)

    def start(self, do: str, **facts: object) -> concurrent.futures.Future[Any]:
        return self._client.start(do, session=self._name, **facts)

    def do(self, do: str, **facts: object) -> Any:
        """The result; `Refused` when the SDK raises an error."""
        return self.start(do, **facts).result(_OUTCOME_SECONDS)

    def mark(self) -> None:
        """From here on `seen` sees what comes."""
        self._after = len(self.events())

    def seen(self, **match: object) -> Line:
        """The first event with these members since the mark, as soon as it is there."""
        event: Line = self.do("await", match=match, after=self._after)
        return event

    def answer(self, rpc: str) -> Line:
        """The HTTP answer to this JSON-RPC method; "response" when it is the client that answers."""
        return self.seen(kind="http", rpc=rpc)

    def events(self) -> list[Line]:
        events: list[Line] = self.do("events")
        return events


_SESSIONS = itertools.count(1)


# ------------------------------------------------------------------------------------------------------------ the evidence


class Lines:
    """JSON lines of a file that grows, each read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.all: list[Line] = []

    def read(self) -> list[Line]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            complete = file.read()
        complete = complete[: complete.rfind(b"\n") + 1]
        self._offset += len(complete)
        self.all += map(json.loads, complete.splitlines())
        return self.all


@dataclass
class World:
    """The mesh with the SDKs' servers, its clients and what it leaves."""

    mesh: Mesh
    clients: dict[str, Client]
    records: Lines
    journals: dict[str, Lines]
    sessions: list[Session]

    def session(self, client: str, agent: str, to: str, transport: str = "http", mode: str = "legacy") -> Session:
        session = Session(self.clients[client], self.mesh.ports.agents[agent], to, transport, mode)
        self.sessions.append(session)
        return session

    def close(self) -> None:
        """End all sessions, as far as they can be."""
        closing = [session.start("close") for session in self.sessions]
        concurrent.futures.wait(closing, _STOP_SECONDS)
        self.sessions.clear()

    def record(self, decision: str) -> Line:
        found: list[Line] = []

        def written() -> bool:
            found.extend(line for line in self.records.read() if line.get("decisionId") == decision)
            return bool(found)

        wait_until(written, f"the record of {decision}")
        return found[0]

    def request(self, decision: str) -> Line | None:
        """What came to a server of the request of this decision."""
        noted = (line for journal in self.journals.values() for line in journal.read())
        return next((line for line in noted if line.get("decision") == decision), None)


    def ran(self, tool: str) -> int:
        """How often this tool ran."""
        return sum(line.get("tool") == tool for journal in self.journals.values() for line in journal.read())


P = ParamSpec("P")


def decidedly(test: Callable[P, None]) -> Callable[P, None]:
    """A test that is repeated when Palisade or Envoy had no time for a verdict, as on a busy machine; see README.md."""

    @functools.wraps(test)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> None:
        world = next(arg for arg in (*args, *kwargs.values()) if isinstance(arg, World))
        for _ in range(10):
            try:
                return test(*args, **kwargs)
            except Exception:
                statuses = {event.get("status") for session in world.sessions for event in session.events()}
                if not statuses & {503, 504}:
                    raise
            finally:
                world.close()
        raise AssertionError("nobody decides")

    return repeated
