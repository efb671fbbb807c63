"""The sample MCP server: a CRM over SQLite, with tools from harmless to dangerous. It knows nothing of authorization.

It keeps a journal of JSON lines, so that it can be shown what reached it and what did not: every HTTP request, and
every tool that ran. `python -m demo.crm_server --socket crm.sock --database crm.db --journal crm.jsonl`
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import inspect
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from demo.journal import Journal, NoteRequests
from demo.names import HOSTS

_SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, segment TEXT NOT NULL, email TEXT NOT NULL);
CREATE TABLE orders (customer_id INTEGER NOT NULL REFERENCES customers, year INTEGER NOT NULL, cents INTEGER NOT NULL);
"""
_CUSTOMERS = [
    (1, "Ada Lovelace", "enterprise", "ada@analytical.example"),
    (2, "Grace Hopper", "enterprise", "grace@compilers.example"),
    (3, "Alan Turing", "startup", "alan@machines.example"),
    (4, "Katherine Johnson", "government", "katherine@orbits.example"),
    (5, "Edsger Dijkstra", "startup", "edsger@paths.example"),
    (6, "Barbara Liskov", "enterprise", "barbara@types.example"),
]
_ORDERS = [(1, 2025, 120000), (1, 2026, 80000), (2, 2025, 45000), (3, 2026, 9900), (4, 2025, 310000), (6, 2026, 52000)]


class Crm:
    """The database behind the tools. One connection per call: tools run in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self.open() as db:
            db.executescript(_SCHEMA)
            db.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", _CUSTOMERS)
            db.executemany("INSERT INTO orders VALUES (?, ?, ?)", _ORDERS)

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path)
        db.row_factory = sqlite3.Row
        try:
            with db:
                yield db
        finally:
            db.close()

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        with self.open() as db:
            return [dict(row) for row in db.execute(sql, values)]

    def change(self, sql: str, *values: Any) -> int:
        with self.open() as db:
            return db.execute(sql, values).rowcount


def build(crm: Crm, journal: Journal, issuer: str | None = None) -> ASGIApp:
    server = MCPServer("crm", instructions="Customers of an imaginary company.", log_level="WARNING")

    def tool(*, read_only: bool, destructive: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a tool under its function's name, and journal each run of it."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            signature = inspect.signature(function)

            @functools.wraps(function)
            def noted(*args: Any, **kwargs: Any) -> Any:
                arguments = signature.bind(*args, **kwargs).arguments
                journal.note("tool", tool=function.__name__, arguments=arguments)
                return function(*args, **kwargs)

            hints = ToolAnnotations(read_only_hint=read_only, destructive_hint=destructive)
            server.add_tool(noted, annotations=hints)
            return noted

        return register

    @tool(read_only=True)
    def query_customers(segment: str | None = None, limit: int = 10) -> list[dict[str, Any]]:
        """List customers, optionally of one segment."""
        return crm.rows("SELECT * FROM customers WHERE ?1 IS NULL OR segment = ?1 LIMIT ?2", segment, limit)

    @tool(read_only=True)
    def get_customer(customer_id: int) -> dict[str, Any]:
        """Look one customer up."""
        found = crm.rows("SELECT * FROM customers WHERE id = ?", customer_id)
        if not found:
            raise ValueError(f"there is no customer {customer_id}")
        return found[0]

    @tool(read_only=False)
    def update_customer_email(customer_id: int, email: str) -> dict[str, Any]:
        """Change a customer's e-mail address."""
        return {"updated": crm.change("UPDATE customers SET email = ? WHERE id = ?", email, customer_id)}

    @tool(read_only=False, destructive=True)
    def delete_customer(customer_id: int) -> dict[str, Any]:
        """Delete a customer for good."""
        return {"deleted": crm.change("DELETE FROM customers WHERE id = ?", customer_id)}

    @tool(read_only=False)
    def export_customers(destination_url: str, format: Literal["csv", "json"] = "csv") -> dict[str, Any]:
        """Send all customers to a URL. (The demo only says what it would send.)"""
        rows = crm.rows("SELECT * FROM customers")
        text = json.dumps(rows) if format == "json" else _csv(rows)
        return {"would_send_to": destination_url, "bytes": len(text.encode()), "customers": len(rows)}

    @tool(read_only=True)
    def revenue_report(year: int) -> list[dict[str, Any]]:
        """Revenue per segment in one year, in cents."""
        return crm.rows(
            "SELECT segment, SUM(cents) AS cents FROM orders JOIN customers ON id = customer_id"
            " WHERE year = ? GROUP BY segment ORDER BY segment",
            year,
        )

    @server.custom_route("/status", methods=["GET"])
    async def status(_request: Request) -> JSONResponse:
        return JSONResponse({"service": "crm", "customers": len(crm.rows("SELECT id FROM customers"))})

    @server.custom_route("/status/headers", methods=["GET"])
    async def received_headers(request: Request) -> JSONResponse:
        """What the server is told about its caller: which headers Envoy and Palisade set, overwrite and remove."""
        return JSONResponse(request.headers.items())

    if issuer:

        @server.custom_route("/.well-known/oauth-protected-resource/mcp", methods=["GET"])
        async def metadata(_request: Request) -> JSONResponse:
            """Where a client gets a token for this server (RFC 9728). Whether it needs one is not decided here."""
            return JSONResponse({"resource": f"http://{HOSTS['crm']}/mcp", "authorization_servers": [issuer]})

    app = server.streamable_http_app(transport_security=TransportSecuritySettings(allowed_hosts=[HOSTS["crm"]]))
    return NoteRequests(app, journal)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen on")
    parser.add_argument("--database", type=Path, required=True, help="SQLite file to create")
    parser.add_argument("--journal", type=Path, required=True, help="JSON lines of what reached the server")
    parser.add_argument("--issuer", help="who issues tokens for this server, told to clients that ask")
    arguments = parser.parse_args()
    app = build(Crm(arguments.database), Journal(arguments.journal), arguments.issuer)
    # One second for open event streams to end: the demo should stop when told so.
    uvicorn.run(app, uds=str(arguments.socket), log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
