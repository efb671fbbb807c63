"""What to try while the demo is up: commands to paste, and where to look."""

from __future__ import annotations

from demo import wire
from demo.mesh import Mesh
from demo.names import HOSTS


def commands(mesh: Mesh) -> list[str]:
    """`curl` commands that work as they are; the mesh tests paste them."""
    port = mesh.ports.agents
    crm, researcher = HOSTS["crm"], HOSTS["researcher"]
    tool = "delete_customer"
    headers = " ".join(f"-H '{name}: {value}'" for name, value in wire.mcp_headers(tool).items())
    body = wire.mcp_body(tool, {"customer_id": 1}).decode()
    return [
        f"curl -x 127.0.0.1:{port['support-bot']} http://{crm}/status",
        f"curl -x 127.0.0.1:{port['support-bot']} http://{crm}/status/headers",
        f"curl -i -x 127.0.0.1:{port['coder']} http://{researcher}/.well-known/agent-card.json",
        f"curl -i -x 127.0.0.1:{port['support-bot']} http://{crm}/mcp {headers} -d '{body}'",
    ]


def text(mesh: Mesh) -> str:
    agents = "  ".join(f"{name} {port}" for name, port in mesh.ports.agents.items())
    return "\n".join(
        [
            "Everything is running. Each agent calls out through a port of its own, an HTTP proxy on 127.0.0.1:",
            f"  {agents}",
            "",
            "Try it; change the port to be another agent, and the tool's name in header and body to call another tool:",
            *(f"  {command}" for command in commands(mesh)),
            "",
            "Look at it:",
            f"  curl 127.0.0.1:{mesh.ports.palisade_admin}/metrics",
            f"  tail -f {mesh.records_path}",
            f"  tail -f {mesh.path('spans.jsonl')}",
            f"  tail -f {mesh.path('access.jsonl')}",
            f"Change a policy in {mesh.settings.bundle} and call again: the next decision follows it.",
            "",
            f"Ctrl-C stops everything and removes {mesh.directory}.",
        ]
    )
