"""Read what the mesh leaves: records, spans, access log, journals, metrics; and wait for what is still on its way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import wire
from demo.processes import wait_until

Line = dict[str, Any]


def lines(path: Path) -> list[Line]:
    """The complete JSON lines of a file that may still grow; none when it does not exist yet."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    complete = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in complete.splitlines()]


def find(path: Path, wanted: Callable[[Line], bool], what: str) -> Line:
    """The first line that is wanted, as soon as it is there."""
    found: list[Line] = []

    def is_there() -> bool:
        found.extend(filter(wanted, lines(path)))
        return bool(found)

    wait_until(is_there, f"{what} in {path.name}")
    return found[0]


def get(port: int, path: str) -> wire.Answer:
    """One GET of an admin page."""
    return wire.send(wire.plain(port), "GET", "localhost", path)


def answers(port: int, path: str) -> bool:
    """Whether the page answers 200."""
    try:
        return get(port, path).status == 200
    except OSError:
        return False


def answers_on_socket(socket: Path, path: str, host: str) -> bool:
    try:
        return wire.send(wire.UnixConnection(socket), "GET", host, path).status == 200
    except OSError:
        return False


def accepts(port: int) -> bool:
    """Whether somebody listens; for servers that have no page to ask."""
    connection = wire.plain(port, timeout=1)
    try:
        connection.connect()
    except OSError:
        return False
    connection.close()
    return True
