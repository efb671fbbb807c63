"""What reached the servers, from their journals: the other half of every refusal."""

from __future__ import annotations

from demo.mesh import Mesh


def arrived(mesh: Mesh, server: str, marker: str) -> bool:
    """Whether a request with this marker in its `x-test` header reached the server."""
    return any(["x-test", marker] in line.get("headers", []) for line in mesh.journal(server))


def ran(mesh: Mesh, tool: str, **arguments: object) -> bool:
    """Whether the CRM ran this tool with (at least) these arguments."""
    return any(
        line["kind"] == "tool" and line["tool"] == tool and arguments.items() <= line["arguments"].items()
        for line in mesh.journal("crm")
    )


def heard(mesh: Mesh, question: str) -> bool:
    """Whether the researcher was asked this."""
    return any(line["kind"] == "message" and line["text"] == question for line in mesh.journal("researcher"))
