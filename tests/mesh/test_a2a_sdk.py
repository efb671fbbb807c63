"""Every method of A2A in every binding and version, with the official JavaScript SDK on both sides of two real Envoys."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PatientMesh, _up, decided

from demo import wire
from demo.mesh import ROOT, Mesh, Settings, binary

FOLDER = ROOT / "tests" / "a2a"
_CLIENT_SECONDS = 120

# Whatever the client speaks, the next hop speaks too: gRPC is HTTP/2.
_AS_DOWNSTREAM = """
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          use_downstream_protocol_config: { http_protocol_options: {}, http2_protocol_options: {} }
      type: STATIC"""
_GRPC_CLUSTER = """
    - name: researcher_grpc
      connect_timeout: 1s
      type: STATIC
      typed_extension_protocol_options: *http2
      load_assignment:
        cluster_name: researcher_grpc
        endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: "SOCKET" } } } }] }]
"""
_POLICIES = """
@id("analyst-does-everything")
@reason("So that each method is permitted")
permit (
  principal == Agent::"spiffe://example.org/ns/agents/sa/analyst",
  action in Action::"a2a",
  resource == Server::"researcher"
);

@id("no-webhooks-to-metadata")
@reason("A webhook there fetches the credentials of the machine")
@message("webhooks to this address are not allowed")
forbid (principal, action == Action::"CreateTaskPushNotificationConfig", resource)
when { context has a2a && context.a2a has push_host && context.a2a.push_host == "169.254.169.254" };
"""


class SdkMesh(PatientMesh):
    """The mesh with an agent that speaks all bindings: gRPC on a socket of its own, for HTTP/2."""

    def _spawn_server(self, name: str, module: str, *arguments: object) -> None:
        if name != "researcher":
            return super()._spawn_server(name, module, *arguments)
        sockets = {"socket": "researcher.sock", "journal": "researcher.jsonl", "grpc": "grpc.sock"}
        paths = [part for option, path in sockets.items() for part in (f"--{option}", self.path(path))]
        self._spawn(name, "node", FOLDER / "agent.mjs", *paths)

    def _render_agents(self) -> str:
        text, count = re.subn(
            r"(- name: [a-z-]+-researcher\n      connect_timeout: 1s)\n      type: STATIC",
            lambda found: found[1] + _AS_DOWNSTREAM,
            super()._render_agents(),
        )
        assert count == len(self.ports.agents)
        return text

    def _render_tools(self) -> str:
        text = super()._render_tools()
        route = '- match: { prefix: "/" }\n                          route: { cluster: researcher_agent, timeout: 0s }'
        grpc = route.replace('prefix: "/"', 'prefix: "/", grpc: {}').replace("researcher_agent", "researcher_grpc")
        assert text.count(route) == 1
        text = text.replace(route, f"{grpc}\n                        {route}")
        otlp = "\n    - name: otlp\n"
        assert text.count(otlp) == 1
        return text.replace(otlp, _GRPC_CLUSTER.replace("SOCKET", str(self.path("grpc.sock"))) + otlp)


def bundle(folder: Path) -> Path:
    """The default bundle, with an analyst that may do everything but one thing, in all bindings."""
    shutil.copytree(ROOT / "cedar", folder)
    targets = folder / "targets.toml"
    before = 'message_paths = ["/a2a"]'
    text = targets.read_text()
    assert text.count(before) == 1
    more = 'bindings = ["JSONRPC", "HTTP+JSON", "GRPC"]\nrest_prefix = "/rest"'
    targets.write_text(text.replace(before, f"{before}\n{more}"))
    (folder / "policies" / "sdk.cedar").write_text(_POLICIES)
    return folder


@pytest.fixture(scope="module")
def sdk_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    settings = Settings(palisade=binary("debug"), bundle=bundle(tmp_path_factory.mktemp("a2a") / "cedar"))
    with SdkMesh(settings) as mesh, contextlib.ExitStack() as stack:
        _up.append(mesh)
        stack.callback(_up.remove, mesh)
        yield mesh


Answers = dict[str, dict[str, Any]]


def marked(mesh: Mesh) -> str:
    """A decision that is on record: all before it are there, too, for they are written in order."""
    card = "/.well-known/agent-card.json"
    answer = decided(lambda: wire.send(mesh.as_agent("coder"), "GET", "researcher.example.org", card))
    return str(mesh.record(str(answer.decision_id))["decisionId"])


def run(mesh: Mesh, agent: str, binding: str, version: str) -> tuple[Answers, int, list[dict[str, Any]]]:
    """What each method came to, over how many connections, and the records of it."""
    begin = marked(mesh)
    command = ["node", str(FOLDER / "client.mjs"), str(mesh.ports.agents[agent]), binding, version]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_CLIENT_SECONDS, cwd=FOLDER)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    connections = lines.pop()["connections"]
    answers = {line["method"]: line for line in lines}
    end = marked(mesh)
    records = mesh.records()
    ids = [record["decisionId"] for record in records]
    return answers, connections, records[ids.index(begin) + 1 : ids.index(end)]


ALL = [
    "GetExtendedAgentCard",
    "SendMessage",
    "GetTask",
    "ListTasks",
    "SubscribeToTask",
    "CreateTaskPushNotificationConfig",
    "GetTaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs",
    "DeleteTaskPushNotificationConfig",
    "CancelTask",
    "SendStreamingMessage",
]
COMBINATIONS = [(binding, version) for binding in ("JSONRPC", "HTTP+JSON", "GRPC") for version in ("1.0", "0.3")]


def methods(version: str) -> list[str]:
    """The SDK has no ListTasks for 0.3."""
    return [method for method in ALL if (method, version) != ("ListTasks", "0.3")]


@pytest.mark.parametrize(("binding", "version"), COMBINATIONS)
def test_every_permitted_method_works(sdk_mesh: Mesh, binding: str, version: str) -> None:
    answers, connections, records = run(sdk_mesh, "analyst", binding, version)
    denied = answers.pop("a webhook to metadata")
    assert [name for name in answers if "error" in answers[name]] == [], answers
    assert list(answers) == methods(version)
    # Denied in the midst of it, and the next call works. (A stream that its client ends takes its connection along.)
    assert "webhooks to this address are not allowed" in denied["error"]["message"]
    assert connections <= 2
    permitted = [record for record in records if record["verdict"] == "PERMIT"]
    assert [call["action"] for record in permitted for call in record["calls"]] == methods(version)
    [refused] = [record for record in records if record["verdict"] != "PERMIT"]
    assert refused["reason"] == "policy_forbids"


# What a denial is to a client of the SDK.
NAMES = {
    ("JSONRPC", "1.0"): {"name": "JsonRpcTransportError", "envelopeCode": 403001},
    ("JSONRPC", "0.3"): {"name": "JsonRpcTransportError", "envelopeCode": 403001},
    ("HTTP+JSON", "1.0"): {"name": "A2AError", "statusCode": 403},
    ("HTTP+JSON", "0.3"): {"name": "Error"},
    ("GRPC", "1.0"): {"name": "A2AError", "status": 7},
    ("GRPC", "0.3"): {"name": "A2AError", "status": 7},
}


@pytest.mark.parametrize(("binding", "version"), COMBINATIONS)
def test_every_denied_method_is_an_error_that_the_sdk_understands(sdk_mesh: Mesh, binding: str, version: str) -> None:
    before = len(sdk_mesh.journal("researcher"))
    answers, connections, records = run(sdk_mesh, "coder", binding, version)
    assert [name for name in answers if "error" not in answers[name]] == [], answers
    for name, answer in answers.items():
        error = answer["error"]
        assert {key: error.get(key) for key in NAMES[binding, version]} == NAMES[binding, version], (name, error)
        assert "denied by policy" in error["message"] or "webhooks" in error["message"], (name, error)
    # A denial ends no connection. (Of gRPC's the client counts none.)
    assert connections == (0 if binding == "GRPC" else 1)
    assert {record["verdict"] for record in records} == {"DENIAL"}
    assert len(records) == len(answers)
    assert len(sdk_mesh.journal("researcher")) == before
