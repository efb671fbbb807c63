"""What reached a server: the proof that a refused call did not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


class Journal:
    """JSON lines, one write each: lines of concurrent requests never mix."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def note(self, kind: str, **facts: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **facts}) + "\n")


class NoteRequests:
    """ASGI middleware: note each request before anything else sees it."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app = app
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
            self._journal.note("request", method=scope["method"], path=scope["path"], headers=headers)
        await self._app(scope, receive, send)
