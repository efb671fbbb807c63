"""An MCP client with the official Python SDK; commands and outcomes are those of client.mjs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import warnings
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import mcp
import mcp_types as types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning
from pydantic import BaseModel

warnings.simplefilter("ignore", MCPDeprecationWarning)

TIMEOUT = 20.0  # seconds; whoever waits for this process gives up later


class Session:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._close = asyncio.Event()
        self.calls: dict[str, asyncio.Task[Any]] = {}
        self.unlisten = asyncio.Event()

    async def happened(self, kind: str, **facts: Any) -> None:
        async with self._changed:
            self.events.append({"kind": kind, **facts})
            self._changed.notify_all()

    async def wait(self, match: dict[str, Any], after: int) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((event for event in self.events[after:] if match.items() <= event.items()), None)

        async with self._changed:
            await self._changed.wait_for(found)
        event = found()
        assert event is not None
        return event

    # --------------------------------------------------------------------------------------------- what the SDK calls

    async def _answered(self, response: httpx2.Response) -> None:
        sent = response.request
        said = json.loads(sent.content) if sent.method == "POST" else {}
        rpc = said.get("method", "response") if said else None
        decision = response.headers.get("x-palisade-decision-id")
        await self.happened("http", method=sent.method, rpc=rpc, status=response.status_code, decision=decision)

    async def _message(self, message: Any) -> None:
        if isinstance(message, Exception):
            await self.happened("error", message=str(message))
        else:
            said = message.model_dump(by_alias=True, mode="json", exclude_none=True)
            await self.happened("message", method=said["method"], params=said.get("params"))

    async def _roots(self, _context: Any) -> types.ListRootsResult:
        await self.happened("message", method="roots/list")
        return types.ListRootsResult(roots=[types.Root(uri="file:///home", name="home")])

    async def _sample(self, _context: Any, _params: Any) -> types.CreateMessageResult:
        await self.happened("message", method="sampling/createMessage")
        return types.CreateMessageResult(model="none", role="assistant", content=types.TextContent(text="sampled"))

    async def _elicit(self, _context: Any, _params: Any) -> types.ElicitResult:
        await self.happened("message", method="elicitation/create")
        return types.ElicitResult(action="accept", content={"yes": True})

    async def progressed(self, progress: float, total: float | None, _message: str | None) -> None:
        params = {"progress": progress, "total": total}
        await self.happened("message", method="notifications/progress", params=params)

    # -------------------------------------------------------------------------------------------------- open and close

    def _client(self, **settings: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            **{"timeout": TIMEOUT, **settings}, trust_env=False, event_hooks={"response": [self._answered]}
        )

    @contextlib.asynccontextmanager
    async def _connected(self, proxy: str, url: str, transport: str, mode: str) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if transport == "sse":

                def factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
                    return self._client(proxy=proxy, headers=headers, timeout=timeout, auth=auth)

                streams: Any = sse_client(url, httpx_client_factory=factory)
            else:
                http = await stack.enter_async_context(self._client(proxy=proxy))
                streams = streamable_http_client(url, http_client=http)
            self.client = await stack.enter_async_context(
                mcp.Client(
                    streams,
                    mode=mode,
                    cache=None,
                    read_timeout_seconds=TIMEOUT,
                    sampling_callback=self._sample,
                    list_roots_callback=self._roots,
                    elicitation_callback=self._elicit,
                    message_handler=self._message,
                    log_level="info",
                )
            )
            yield

    async def live(self, opened: asyncio.Future[Any], **how: Any) -> None:
        """From the first request to the last, in one task: the SDK's scopes belong to whoever entered them."""
        try:
            async with self._connected(**how):
                opened.set_result(dump(self.client.server_capabilities))
                await self._close.wait()
        except BaseException as error:
            if not opened.done():
                opened.set_exception(root(error))

    async def close(self) -> None:
        self._close.set()
        await self.life

    # -------------------------------------------------------------------------------------------------------- commands

    async def listen(self, filter: dict[str, Any]) -> None:
        wanted = types.SubscriptionFilter.model_validate(filter).model_dump(exclude_none=True)
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def follow() -> None:
            try:
                async with self.client.listen(**wanted):
                    opened.set_result(None)
                    await self.unlisten.wait()
            except BaseException as error:
                if not opened.done():
                    opened.set_exception(root(error))

        self.listening = asyncio.create_task(follow())
        await opened


def root(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def dump(result: Any) -> Any:
    return result.model_dump(by_alias=True, mode="json", exclude_none=True) if isinstance(result, BaseModel) else result


sessions: dict[str, Session] = {}


async def obey(command: dict[str, Any]) -> Any:
    match command:
        case {"do": "open", "session": name, "url": url, "port": port, "transport": transport, "mode": mode}:
            session = sessions[name] = Session()
            opened = asyncio.get_running_loop().create_future()
            how = {"proxy": f"http://127.0.0.1:{port}", "url": url, "transport": transport, "mode": mode}
            session.life = asyncio.create_task(session.live(opened, **how))
            return {"capabilities": await opened}
    session = sessions[command["session"]]
    client = getattr(session, "client", None)
    match command:
        case {"do": "close" | "end"}:
            # To end a session is part of closing it.
            return await session.close()
        case {"do": "await", "match": wanted}:
            return await session.wait(wanted, command.get("after", 0))
        case {"do": "events"}:
            return session.events
        case {"do": "ping"}:
            return await client.send_ping()
        case {"do": "discover"}:
            return await client.session.discover()
        case {"do": "set_level", "level": level}:
            return await client.set_logging_level(level)
        case {"do": "list_tools"}:
            return await client.list_tools()
        case {"do": "list_resources"}:
            return await client.list_resources()
        case {"do": "list_templates"}:
            return await client.list_resource_templates()
        case {"do": "list_prompts"}:
            return await client.list_prompts()
        case {"do": "read", "uri": uri}:
            return await client.read_resource(uri)
        case {"do": "subscribe", "uri": uri}:
            return await client.subscribe_resource(uri)
        case {"do": "unsubscribe", "uri": uri}:
            return await client.unsubscribe_resource(uri)
        case {"do": "get_prompt", "name": name, "arguments": given}:
            return await client.get_prompt(name, given)
        case {"do": "complete", "ref": {"type": "ref/prompt", "name": name}, "argument": argument}:
            return await client.complete(types.PromptReference(name=name), argument)
        case {"do": "complete", "ref": {"uri": uri}, "argument": argument}:
            return await client.complete(types.ResourceTemplateReference(uri=uri), argument)
        case {"do": "send_progress", "token": token}:
            return await client.send_progress_notification(token, 1)
        case {"do": "roots_changed"}:
            return await client.send_roots_list_changed()
        case {"do": "request", "method": method}:
            return await client.session.send_request(types.Request[Any, str](method=method, params=None), types.EmptyResult)
        case {"do": "listen", "filter": filter}:
            return await session.listen(filter)
        case {"do": "unlisten"}:
            session.unlisten.set()
            return await session.listening
        case {"do": "call", "name": name}:
            given = command.get("arguments", {})
            call = asyncio.create_task(client.call_tool(name, given, progress_callback=session.progressed))
            session.calls[command.get("key", "")] = call
            return await call
        case {"do": "cancel", "key": key}:
            session.calls[key].cancel("not wanted any more")
            return None
    raise ValueError(f"no command {command['do']}")


async def answer(command: dict[str, Any]) -> None:
    line: dict[str, Any]
    try:
        result = await obey(command)
        line = {"result": dump(result)}
    except BaseException as caught:
        error = root(caught)
        known = error.error if isinstance(error, mcp.MCPError) else None
        line = {
            "error": {
                "type": type(error).__name__,
                "message": known.message if known else str(error),
                "code": known.code if known else None,
                "data": known.data if known else None,
            }
        }
    print(json.dumps({"id": command["id"], **line}), flush=True)


async def main() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


if __name__ == "__main__":
    asyncio.run(main())
