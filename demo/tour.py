"""The scripted tour: who calls what, what Palisade says, and which policies it says it because of."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from demo import evidence, sdk, wire
from demo.mesh import Mesh
from demo.names import HOSTS
from demo.processes import MeshError, UndecidedError, wait_until

PERMIT, DENIAL = "PERMIT", "DENIAL"
# How often a call is made until it is decided in time.
_ATTEMPTS = 10


@dataclass(frozen=True)
class Step:
    agent: str
    call: str
    expected: str | None  # PERMIT or DENIAL; none: it depends on the hour
    act: Callable[[Mesh], Awaitable[str]]  # makes the call, returns the decision id


@dataclass(frozen=True)
class Row:
    step: Step
    verdict: str
    reason: str
    policies: tuple[str, ...]
    decision_id: str

    @property
    def as_expected(self) -> bool:
        return self.step.expected in (None, self.verdict)


# ------------------------------------------------------------------------------------------------------------ the steps


def _tool(agent: str, expected: str | None, tool: str, note: str = "", **arguments: Any) -> Step:
    async def act(mesh: Mesh) -> str:
        return await sdk.call_tool(mesh.proxy(agent), tool, arguments)

    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return Step(agent, f"{tool}({shown}){note}", expected, act)


def _message(agent: str, expected: str, question: str) -> Step:
    async def act(mesh: Mesh) -> str:
        return await sdk.send_message(mesh.proxy(agent), question)

    return Step(agent, f"A2A SendMessage to researcher: {question!r}", expected, act)


def _raw(
    agent: str,
    expected: str,
    call: str,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Step:
    async def act(mesh: Mesh) -> str:
        answer = wire.send(mesh.as_agent(agent), method, HOSTS["crm"], path, headers, body)
        if answer.decision_id is None:
            raise UndecidedError(f"no decision id in the answer: {answer}")
        return answer.decision_id

    return Step(agent, call, expected, act)


def steps() -> list[Step]:
    now = dt.datetime.now(dt.UTC).strftime("%a %H:%M")
    malformed = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call"'
    twice = wire.mcp_body("query_customers", {}).replace(
        b'"name": "query_customers"', b'"name": "query_customers", "name": "delete_customer"'
    )
    headers = wire.mcp_headers("query_customers")
    return [
        _tool("support-bot", PERMIT, "query_customers", segment="startup"),
        _tool("support-bot", None, "update_customer_email", f"  [{now} UTC]", customer_id=3, email="a@turing.example"),
        _tool("support-bot", DENIAL, "delete_customer", customer_id=3),
        _tool("auditor", PERMIT, "get_customer", customer_id=1),
        _tool("auditor", DENIAL, "update_customer_email", customer_id=1, email="x@evil.example"),
        _tool("coder", DENIAL, "query_customers"),
        _tool("analyst", PERMIT, "export_customers", destination_url="https://reports.example.org/q3"),
        _tool("scraper", DENIAL, "export_customers", destination_url="https://reports.example.org/q3"),
        _tool("analyst", DENIAL, "revenue_report", year=2026),
        _tool("support-bot", DENIAL, "drop_tables"),
        _message("analyst", PERMIT, "who buys compilers?"),
        _message("coder", DENIAL, "who buys compilers?"),
        _tool("outsider", DENIAL, "query_customers"),
        _raw("support-bot", DENIAL, "POST /mcp, JSON that ends early", "POST", "/mcp", headers, malformed),
        _raw("support-bot", DENIAL, "POST /mcp, the tool named twice", "POST", "/mcp", headers, twice),
        _raw("support-bot", PERMIT, "plain GET /status", "GET", "/status"),
    ]


async def rows(mesh: Mesh) -> list[Row]:
    return [await _row(mesh, step) for step in steps()]


async def _row(mesh: Mesh, step: Step) -> Row:
    for _ in range(_ATTEMPTS):
        try:
            decision_id = await step.act(mesh)
            record = mesh.record(decision_id)
        except UndecidedError as error:
            undecided = str(error)
            continue
        if record.get("reason") == "deadline_missed":
            undecided = f"decision {decision_id} was late"
            continue
        return _found(step, record)
    raise MeshError(f"{step.agent}: {step.call}: not decided in {_ATTEMPTS} attempts, the last: {undecided}")


def _found(step: Step, record: evidence.Line) -> Row:
    policies = {policy["id"]: None for call in record.get("calls", []) for policy in call.get("policies", [])}
    return Row(step, record["verdict"], record.get("reason", ""), tuple(policies), record["decisionId"])


# ---------------------------------------------------------------------------------------------------------- the output


def table(found: list[Row]) -> Iterator[str]:
    """The rows, fitted to the terminal; colours only where somebody looks at them."""
    colours = sys.stdout.isatty()
    agent, reason, policies = 11, 25, 34
    call = max(50, min(64, shutil.get_terminal_size((140, 0)).columns - agent - reason - policies - 17))
    widths = (agent, call, reason, policies)
    yield _line(("AGENT", "CALL", "REASON", "DETERMINING POLICIES"), widths, f"{'VERDICT':<7}")
    for row in found:
        verdict = "permit" if row.verdict == PERMIT else "denial"
        shown = f"{verdict:<7}"
        if colours:
            shown = f"\033[{32 if verdict == 'permit' else 31}m{shown}\033[0m"
        cells = (row.step.agent, row.step.call, row.reason or "-", ", ".join(row.policies) or "-")
        wrapped = [_wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
        for index in range(max(map(len, wrapped))):
            part = tuple(lines[index] if index < len(lines) else "" for lines in wrapped)
            yield _line(part, widths, shown if index == 0 else " " * 7)
        if not row.as_expected:
            yield f"  ! expected {row.step.expected}; decision {row.decision_id}"


def _wrap(cell: str, width: int) -> list[str]:
    """In lines of about this width. Only a space or an opening bracket ends one, so that a URL stays whole."""
    lines = [""]
    for piece in re.split(r"(?<=[ (])", cell):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _line(cells: tuple[str, ...], widths: tuple[int, ...], verdict: str) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)]
    return "  ".join([*padded[:2], verdict, *padded[2:]]).rstrip()


def totals(mesh: Mesh, found: list[Row]) -> str:
    """How many records, spans and counted decisions there are: three ways to see the same decisions."""
    spans = 0

    def all_exported() -> bool:
        nonlocal spans
        spans = sum("authz.decision.id" in span["attributes"] for span in mesh.spans())
        return spans >= len(mesh.records())

    try:
        # Spans may be lost, records not: nobody waits long for one.
        wait_until(all_exported, "a span for each decision", seconds=10)
    except MeshError:
        pass  # the smaller number speaks for itself
    seen = f"{len(mesh.records())} records, {spans} spans, palisade_decisions_total {counted(mesh)}"
    more = len(mesh.records()) - len(found)
    return f"{seen}: the {len(found)} calls above, and {more} that the MCP client makes around them (server/discover, tools/list)"


def counted(mesh: Mesh) -> int:
    """The sum of the decision counter over all its labels."""
    lines = [line for line in mesh.metrics().splitlines() if line.startswith("palisade_decisions_total")]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))
