"""Calls with the official MCP and A2A SDKs, through an agent's proxy, keeping the decision id of every answer.

The SDKs are not patched or configured beyond "use this proxy": a denial has to make sense to clients as they are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2
import mcp
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.helpers import get_stream_response_text, new_text_message
from a2a.types import Role, SendMessageRequest
from mcp.client.streamable_http import streamable_http_client

from demo import researcher_agent, wire
from demo.processes import UndecidedError

MCP_URL = "http://crm.example.org/mcp"
A2A_URL = "http://researcher.example.org"


@dataclass(frozen=True)
class Seen:
    """One HTTP answer, as the SDK's HTTP client got it."""

    method: str
    rpc: str | None  # the JSON-RPC method of the request
    status: int
    decision_id: str | None


def _see(log: list[Seen], response: httpx.Response | httpx2.Response) -> None:
    body = response.request.content
    rpc = json.loads(body).get("method") if body else None
    log.append(Seen(response.request.method, rpc, response.status_code, response.headers.get(wire.DECISION_ID)))


@contextlib.asynccontextmanager
async def mcp_client(
    proxy: str, log: list[Seen], mode: str = "auto", headers: Mapping[str, str] | None = None
) -> AsyncIterator[mcp.Client]:
    """The MCP client, connected; `mode` "legacy" for sessions with the initialize handshake.

    `headers` go with each request, such as the task that it is for.
    """

    async def hook(response: httpx2.Response) -> None:
        _see(log, response)

    async with (
        httpx2.AsyncClient(
            proxy=proxy, trust_env=False, timeout=10, headers=headers, event_hooks={"response": [hook]}
        ) as http,
        mcp.Client(streamable_http_client(MCP_URL, http_client=http), mode=mode, cache=None) as client,
    ):
        yield client


async def call_tool(proxy: str, tool: str, arguments: dict[str, Any]) -> str:
    """Call a tool; return the decision id of that call, or of whatever the agent was denied before it came to that."""
    log: list[Seen] = []
    try:
        async with mcp_client(proxy, log) as client:
            await client.call_tool(tool, arguments)
    except* mcp.MCPError:
        pass  # a denial; its decision id is in the log
    return _decision([seen for seen in log if seen.rpc == "tools/call"] or log)


@contextlib.asynccontextmanager
async def _a2a_http(proxy: str, log: list[Seen]) -> AsyncIterator[httpx.AsyncClient]:
    async def hook(response: httpx.Response) -> None:
        _see(log, response)

    async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=10, event_hooks={"response": [hook]}) as http:
        yield http


async def ask_researcher(proxy: str, question: str, log: list[Seen], *, discover: bool = True) -> str:
    """Send a message and return the answer's text; `A2AClientError` when denied.

    Fetches the agent card first, as a stranger does, unless the caller is to know it already (`discover=False`).
    """
    async with _a2a_http(proxy, log) as http:
        card = await A2ACardResolver(http, A2A_URL).get_agent_card() if discover else researcher_agent.card()
        client = ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create(card)
        request = SendMessageRequest(message=new_text_message(question, role=Role.ROLE_USER))
        return "".join([get_stream_response_text(event) async for event in client.send_message(request)])


async def send_message(proxy: str, question: str) -> str:
    """Send the researcher a message; return the decision id of that request, permitted or denied."""
    log: list[Seen] = []
    with contextlib.suppress(A2AClientError):
        await ask_researcher(proxy, question, log, discover=False)
    return _decision(log)


def _decision(log: list[Seen]) -> str:
    decided = [seen.decision_id for seen in log if seen.decision_id]
    if not decided:
        raise UndecidedError(f"no answer carried a decision id: {log}")
    return decided[-1]
