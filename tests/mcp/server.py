"""An MCP server with the official Python SDK, which offers what features.mjs offers: sessions and revision 2026-07-28 alike.

`python server.py --socket FILE --journal FILE`; messages at /py/…/mcp, and with the two endpoints of revision 2024-11-05 at
/py/…/sse and /py/…/messages.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

# What 2026-07-28 has no more is what half of these tests is about.
warnings.simplefilter("ignore", MCPDeprecationWarning)

GUIDE = "docs:///guide"
TEMPLATE = "docs:///{id}"
STATELESS = "2026-07-28"
EMPTY = {"type": "object", "properties": {}}
REGION = {"type": "string", "x-mcp-header": "Region"}
ARGUMENTS = {
    "echo": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "where": {"type": "object", "properties": {"region": REGION}, "required": ["region"]},
}
NAMES = ("echo", "where", "progress", "log", "ask", "wait", "touch", "drop")
QUESTION: dict[str, Any] = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}


class Journal:
    """JSON lines, one write each."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def note(self, kind: str, **facts: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **facts}) + "\n")


def text(said: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=said)])


class Tools:
    """One method per tool."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.bus = InMemorySubscriptionBus()

    async def call(
        self, ctx: Any, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        if params.name not in NAMES:
            raise ValueError(f"no tool {params.name}")
        self._journal.note("tool", tool=params.name)
        result: types.CallToolResult | types.InputRequiredResult = await getattr(self, params.name)(ctx, params)
        return result

    async def echo(self, _ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        return text(str((params.arguments or {})["text"]))

    async def where(self, _ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        return text(str((params.arguments or {})["region"]))

    async def progress(self, ctx: Any, _params: types.CallToolRequestParams) -> types.CallToolResult:
        for progress in (1, 2):
            await ctx.session.report_progress(progress, 2)
        return text("done")

    async def log(self, ctx: Any, _params: types.CallToolRequestParams) -> types.CallToolResult:
        await ctx.session.send_log_message("info", "noted", related_request_id=ctx.request_id)
        return text("logged")

    async def ask(
        self, ctx: Any, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        """Everything that a server can ask of a client."""
        if ctx.protocol_version != STATELESS:
            roots = await ctx.session.list_roots()
            message = types.SamplingMessage(role="user", content=types.TextContent(text="Hello?"))
            sampled = await ctx.session.create_message([message], max_tokens=10, related_request_id=ctx.request_id)
            elicited = await ctx.session.elicit("Go on?", QUESTION, related_request_id=ctx.request_id)
            return text(f"{roots.roots[0].uri} {sampled.content.text} {str(elicited.content['yes']).lower()}")
        if not params.input_responses:
            form = types.ElicitRequestFormParams(message="Go on?", requested_schema=QUESTION)
            return types.InputRequiredResult(input_requests={"confirm": types.ElicitRequest(params=form)})
        answer = params.input_responses["confirm"]
        return text(str(answer.content["yes"]).lower())

    async def wait(self, ctx: Any, _params: types.CallToolRequestParams) -> types.CallToolResult:
        """Does not end by itself."""
        await ctx.session.report_progress(1)
        try:
            await anyio.sleep_forever()
        finally:
            self._journal.note("tool", tool="wait, given up")
        return text("given up")

    async def drop(self, ctx: Any, _params: types.CallToolRequestParams) -> types.CallToolResult:
        """The client has to fetch this answer anew."""
        await ctx.session.report_progress(1)
        await ctx.close_sse_stream()
        return text("fetched")

    async def touch(self, ctx: Any, _params: types.CallToolRequestParams) -> types.CallToolResult:
        if ctx.protocol_version == STATELESS:
            events = (ResourceUpdated(uri=GUIDE), ResourcesListChanged(), ToolsListChanged(), PromptsListChanged())
            for event in events:
                await self.bus.publish(event)
        else:
            await ctx.session.send_resource_updated(GUIDE)
            await ctx.session.send_resource_list_changed()
            await ctx.session.send_tool_list_changed()
            await ctx.session.send_prompt_list_changed()
        return text("touched")


def build(tools: Tools) -> Server[Any]:
    async def list_tools(_ctx: Any, _params: Any) -> types.ListToolsResult:
        listed = [types.Tool(name=name, description=name, input_schema=ARGUMENTS.get(name, EMPTY)) for name in NAMES]
        return types.ListToolsResult(tools=listed)

    async def list_resources(_ctx: Any, _params: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[types.Resource(uri=GUIDE, name="guide")])

    async def list_templates(_ctx: Any, _params: Any) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(uri_template=TEMPLATE, name="page")
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read(_ctx: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        contents = types.TextResourceContents(uri=params.uri, text=f"the text of {params.uri}")
        return types.ReadResourceResult(contents=[contents])

    async def list_prompts(_ctx: Any, _params: Any) -> types.ListPromptsResult:
        prompt = types.Prompt(name="greet", arguments=[types.PromptArgument(name="who")])
        return types.ListPromptsResult(prompts=[prompt])

    async def get_prompt(_ctx: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        said = types.TextContent(text=f"Hello {(params.arguments or {}).get('who')}")
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=said)])

    async def complete(_ctx: Any, params: types.CompleteRequestParams) -> types.CompleteResult:
        return types.CompleteResult(completion=types.Completion(values=[f"{params.argument.value}-completed"]))

    async def nothing(_ctx: Any, _params: Any) -> types.EmptyResult:
        return types.EmptyResult()

    async def told(_ctx: Any, _params: Any) -> None:
        pass

    return Server(
        "py",
        version="1",
        get_tool_input_schema=lambda name: ARGUMENTS.get(name, EMPTY),
        on_list_tools=list_tools,
        on_call_tool=tools.call,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read,
        on_subscribe_resource=nothing,
        on_unsubscribe_resource=nothing,
        on_subscriptions_listen=ListenHandler(tools.bus),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=nothing,
        on_roots_list_changed=told,
        on_progress=told,
    )


class Events(EventStore):
    """Events of a stream, for clients that lost it."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._kept.append((stream_id, message))
        return str(len(self._kept) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        stream = self._kept[last][0]
        for at, (of, message) in enumerate(self._kept):
            if at > last and of == stream and message is not None:
                await send_callback(EventMessage(message, str(at)))
        return stream


class NoteRequests:
    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app = app
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            self._journal.note(
                "request",
                method=scope["method"],
                path=scope["path"],
                decision=headers.get("x-palisade-decision-id"),
                revision=headers.get("mcp-protocol-version"),
                last_event=headers.get("last-event-id"),
            )
        await self._app(scope, receive, send)


class TwoEndpoints:
    """The transport of revision 2024-11-05: the stream opens with the path at which messages are posted."""

    def __init__(self, server: Server[Any], messages: str) -> None:
        self._server = server
        self._transport = SseServerTransport(messages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            return await self._transport.handle_post_message(scope, receive, send)
        async with self._transport.connect_sse(scope, receive, send) as (read, write):
            await self._server.run(read, write, self._server.create_initialization_options(NotificationOptions()))


def app(journal: Journal) -> ASGIApp:
    tools = Tools(journal)
    server = build(tools)
    manager = StreamableHTTPSessionManager(app=server, event_store=Events(), retry_interval=20)
    two = TwoEndpoints(server, "/py/messages")

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            yield

    async def ready(_request: Request) -> Response:
        return Response()

    routes = [
        Route("/.well-known/agent-card.json", ready),  # where the mesh looks whether the researcher is there
        Route("/py/sse", two),
        Route("/py/messages", two),
        Route("/{path:path}/mcp", StreamableHTTPASGIApp(manager)),
    ]
    return NoteRequests(Starlette(routes=routes, lifespan=lifespan), journal)


class AtOnce(uvicorn.Server):
    """Ends when it is told to: for calls that nobody waits for any more, which these tests leave, the SDK would wait."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    arguments = parser.parse_args()
    config = uvicorn.Config(app(Journal(arguments.journal)), uds=str(arguments.socket), log_level="warning")
    AtOnce(config).run()


if __name__ == "__main__":
    main()
