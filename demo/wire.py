"""HTTP by hand: for what no SDK would send, and to look at each answer as it came over the wire."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DECISION_ID = "x-palisade-decision-id"
_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case; what is there several times is joined (RFC 9110, section 5.3)
    body: bytes

    @property
    def decision_id(self) -> str | None:
        return self.headers.get(DECISION_ID)

    def json(self) -> Any:
        """The body; for an event stream the data of its first event that has any."""
        text = self.body.decode()
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            text = next(line[5:] for line in text.splitlines() if line.startswith("data:") and line[5:].strip())
        return json.loads(text)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float = _TIMEOUT_SECONDS) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def plain(port: int, timeout: float = _TIMEOUT_SECONDS) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)


def mutual_tls(port: int, root: Path, certificate: tuple[Path, Path] | None) -> http.client.HTTPSConnection:
    """A connection past the agents' Envoy, straight to the tools' Envoy; without certificate: one that must fail."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(root)
    context.check_hostname = False  # SPIFFE certificates carry a URI and no host name
    if certificate:
        context.load_cert_chain(*certificate)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS, context=context)


def send(
    connection: http.client.HTTPConnection,
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """Send exactly these headers, plus `host` and `content-length`, and read the whole answer."""
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("host", host)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        if body is not None:
            try:
                connection.send(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before the end of the body: the answer is there already
        response = connection.getresponse()
        names: dict[str, list[str]] = {}
        for name, value in response.getheaders():
            names.setdefault(name.lower(), []).append(value)
        return Answer(response.status, {name: ", ".join(values) for name, values in names.items()}, response.read())
    finally:
        connection.close()


def mcp_headers(tool: str) -> dict[str, str]:
    """The headers of an MCP `tools/call` of revision 2026-07-28, which needs no session: one request is all."""
    return {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": tool,
    }


def mcp_body(tool: str, arguments: Mapping[str, Any], message_id: int | str = 1) -> bytes:
    """The body that goes with `mcp_headers`."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": message_id, "method": "tools/call", "params": params}).encode()


def call_tool(
    connection: http.client.HTTPConnection,
    tool: str,
    arguments: Mapping[str, Any],
    message_id: int | str = 1,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Call one of the CRM's tools."""
    everything = {**mcp_headers(tool), **(headers or {})}
    return send(connection, "POST", "crm.example.org", "/mcp", everything, mcp_body(tool, arguments, message_id))
