"""What a real Palisade and a real Envoy show to Prometheus, once everything is configured that has metrics and calls have been made."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from demo import evidence, ports, wire
from demo.mesh import Mesh, Settings, binary
from demo.processes import wait_until

# An MCP server on loopback whose tools Palisade watches: the CRM itself listens on a socket, behind mTLS.
_WATCHED = textwrap.dedent("""\
    import sys
    import uvicorn
    from mcp.server.mcpserver import MCPServer

    def query_customers(segment: str) -> str:
        return ""

    server = MCPServer("crm", log_level="WARNING")
    server.add_tool(query_customers)
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
    """)

_CONFIGURATION = """\
[[token]]
header = "authorization"
role = "user"
[[issuer]]
name = "corp"
issuer = "https://login.example.org"
audiences = ["https://crm.example.org/mcp"]
keys = {{ file = {keys} }}
[[tool_server]]
target = "crm"
url = "http://127.0.0.1:{tools}/mcp"
allow_private_addresses = true
every_seconds = 10
[comparison]
one_in = 1
"""


@dataclass
class Series:
    """A name as Prometheus has it, with every label and value that was there."""

    labels: dict[str, set[str]] = field(default_factory=dict)


def parsed(text: str) -> dict[str, Series]:
    """Prometheus' text format, as far as names and labels go."""
    found: dict[str, Series] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+", line):
            series = found.setdefault(match[1], Series())
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""):
                series.labels.setdefault(label, set()).add(value)
    return found


@contextmanager
def running(directory: Path) -> Iterator[Mesh]:
    key = json.loads(ECAlgorithm(ECAlgorithm.SHA256).to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    keys = directory / "jwks.json"
    keys.write_text(json.dumps({"keys": [{**key, "kid": "1", "use": "sig", "alg": "ES256"}]}))
    [port] = ports.some(1)
    watched = subprocess.Popen([sys.executable, "-c", _WATCHED, str(port)])
    try:
        wait_until(lambda: evidence.accepts(port), "the watched server listens")
        tokens = _CONFIGURATION.format(keys=json.dumps(str(keys)), tools=port)
        with Mesh(Settings(palisade=binary("debug"), tokens=tokens)) as mesh:
            wait_until(lambda: "palisade_tool_definitions{" in mesh.metrics(), "its tools were listed")
            yield mesh
    finally:
        watched.kill()
        watched.wait()


CALLS: dict[str, dict[str, object]] = {"query_customers": {"segment": "startup"}, "delete_customer": {"customer_id": 1}}


def call(mesh: Mesh, agent: str, tool: str, headers: Mapping[str, str] | None = None) -> None:
    """Until Palisade decides: on a busy machine a debug build may take longer than it or Envoy waits."""
    for _ in range(20):
        answer = wire.call_tool(mesh.as_agent(agent), tool, CALLS[tool], headers=headers)
        if answer.decision_id and b'"deadline_missed"' not in answer.body:
            return
    raise AssertionError(f"nobody decides: {answer}")


def scraped(mesh: Mesh) -> dict[str, Series]:
    """Of Palisade and of the Envoy that asks it."""
    envoy = evidence.get(mesh.ports.tools_envoy_admin, "/stats/prometheus").body.decode()
    return parsed(envoy) | parsed(mesh.metrics())


def chain(mesh: Mesh, tool: str) -> tuple[tuple[str, str], ...]:
    """Service and name of the spans of a call in a sampled trace: the first one below its caller's, down to Palisade's."""
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    call(mesh, "support-bot", tool, {"traceparent": f"00-{trace_id}-{caller}-01"})
    up: list[evidence.Line] = []

    def is_whole() -> bool:
        """Looks at the last decision: one that came too late has a span too."""
        spans = {span["spanId"]: span for span in mesh.spans() if span["traceId"] == trace_id}
        span = next((span for span in reversed(spans.values()) if span["name"].endswith(f"/{tool}")), None)
        up.clear()
        while span is not None:
            up.append(span)
            span = spans.get(span["parentSpanId"])
        return bool(up) and up[-1]["parentSpanId"] == caller

    wait_until(is_whole, "all spans of the call were exported")
    return tuple((span["service"], span["name"]) for span in reversed(up))
