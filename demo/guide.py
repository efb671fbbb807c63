"""What to try while the demo is up: commands to paste, and where to look."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from demo import tour, wire
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


def check_command(mesh: Mesh, rows: list[tour.Row]) -> str:
    """Have one denial of the tour explained, offline. The capture names its moment, so it is decided as it was."""
    row = next(row for row in rows if row.reason == "policy_forbids")
    parts = [
        _shown(mesh.settings.palisade), "check", _shown(mesh.captures_path / f"{row.decision_id}.json"),
        "--bundle", _shown(mesh.settings.bundle), "--config", _shown(mesh.config_path),
    ]  # fmt: skip
    return shlex.join(parts)


def probe_command(mesh: Mesh) -> str:
    """Calls that have to be denied, the way that an agent's calls take."""
    through = f"http://127.0.0.1:{mesh.ports.agents['support-bot']}/mcp"
    return shlex.join([_shown(mesh.settings.palisade), "mesh", "probe", "--through", through, "--host", HOSTS["crm"]])


def lint_command(mesh: Mesh) -> str:
    """Whether what the servers' Envoy runs with lets a call pass unchecked. For a shell: it is two commands."""
    dump = f"curl -s '127.0.0.1:{mesh.ports.tools_envoy_admin}/config_dump?include_eds'"
    return f"{dump} | {shlex.quote(_shown(mesh.settings.palisade))} mesh lint --config-dump -"


def control_command(mesh: Mesh, command: str) -> str:
    """Hold an agent, or release it, as the operator on call: whoever runs the mesh is that one at its socket."""
    parts = [
        _shown(mesh.settings.palisade), command, f"agent:{mesh.settings.agents['support-bot']}",
        "--reason", "drill", "--socket", str(mesh.control_socket),
    ]  # fmt: skip
    return shlex.join(parts)


def _shown(path: Path) -> str:
    """As short as it can be typed here."""
    path, here = path.resolve(), Path.cwd()
    return os.path.relpath(path) if path.is_relative_to(here) else str(path)


def text(mesh: Mesh, rows: list[tour.Row]) -> str:
    agents = "  ".join(f"{name} {port}" for name, port in mesh.ports.agents.items())
    return "\n".join(
        [
            "Everything is running. Each agent calls out through a port of its own, an HTTP proxy on 127.0.0.1:",
            f"  {agents}",
            "",
            "Try it; change the port to be another agent, and the tool's name (in header and body) and its arguments to call another tool:",
            *(f"  {command}" for command in commands(mesh)),
            "",
            "Ask why: every check is captured in the folder of this one, named by its decision id:",
            f"  {check_command(mesh, rows)}",
            "",
            "Look at it:",
            f"  curl 127.0.0.1:{mesh.ports.palisade_admin}/metrics",
            f"  {_shown(mesh.settings.palisade)} audit show {mesh.log_path} --follow",
            f"  {_shown(mesh.settings.palisade)} audit verify {mesh.log_path}",
            f"  tail -f {mesh.path('spans.jsonl')}",
            f"  tail -f {mesh.path('access.jsonl')}",
            "",
            "Look for a way around it (docs/mesh.md): in what the servers' Envoy runs with, and with calls that have to be denied:",
            f"  {lint_command(mesh)}",
            f"  {probe_command(mesh)}",
            "",
            f"Change a policy in {mesh.settings.bundle} and call again half a second later. What Palisade",
            f"says to it is shown here, and stands in {mesh.path('palisade.log')}; a refused bundle also in",
            f"  curl 127.0.0.1:{mesh.ports.palisade_admin}/readyz",
            "Stop an agent with its next call, whatever policies permit (docs/control.md); `release` lets it go on:",
            f"  {control_command(mesh, 'hold')}",
            f"See what happens without Palisade: kill {mesh.components['palisade'].pid}, and call.",
            "",
            f"Ctrl-C stops everything and removes {mesh.directory}.",
        ]
    )
