"""New policies take effect while calls flow; broken ones change nothing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo import wire
from demo.mesh import ROOT, Mesh
from demo.processes import wait_until

FREEZE = """
@id("test-freeze")
@reason("Nobody queries customers while this test says so")
forbid (principal, action == Action::"crm/query_customers", resource);
"""


class Caller:
    """Calls without a pause, and keeps the status of every answer in order."""

    def __init__(self, mesh: Mesh) -> None:
        self.statuses: list[int] = []
        self._mesh = mesh
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        while not self._stop.is_set():
            answer = wire.call_tool(self._mesh.as_agent("support-bot"), "query_customers", {})
            self.statuses.append(answer.status)

    def wait_for(self, status: int, more: int = 10) -> None:
        """Until that many calls in a row were answered so, beginning now."""
        start = len(self.statuses)
        wait_until(lambda: self.statuses[start:][-more:] == [status] * more, f"{more} answers {status} in a row", 20)

    def changes(self) -> list[int]:
        """The statuses without repetitions."""
        return [
            status for index, status in enumerate(self.statuses) if index == 0 or self.statuses[index - 1] != status
        ]


def put(path: Path, text: str) -> None:
    """Write aside and rename, as every sane tool does it."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.rename(path)


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(ROOT / "cedar", tmp_path / "bundle"))


def test_policies_change_under_load(start_mesh: Callable[..., Mesh], bundle: Path) -> None:
    mesh = start_mesh(bundle=bundle)
    extra = bundle / "policies" / "zz-freeze.cedar"
    with Caller(mesh) as first, Caller(mesh) as second:
        first.wait_for(200)
        for _ in range(3):
            put(extra, FREEZE)
            first.wait_for(403)
            second.wait_for(403)
            extra.unlink()
            first.wait_for(200)
            second.wait_for(200)
    # Never anything else, and no flicker: each change is taken once, whole.
    for caller in (first, second):
        assert caller.changes() == [200, 403, 200, 403, 200, 403, 200]
    records = [line for line in mesh.records() if line["calls"][0].get("tool") == "query_customers"]
    permitted = {line["bundle"] for line in records if line["verdict"] == "PERMIT"}
    denied = {line["bundle"] for line in records if line["verdict"] == "DENIAL"}
    assert len(permitted) == len(denied) == 1, "the same content has the same digest"
    assert permitted != denied


def test_broken_policy_changes_nothing(start_mesh: Callable[..., Mesh], bundle: Path) -> None:
    mesh = start_mesh(bundle=bundle)
    answer = wire.call_tool(mesh.as_agent("support-bot"), "query_customers", {})
    digest = mesh.record(str(answer.decision_id))["bundle"]
    put(bundle / "policies" / "zz-broken.cedar", '@id("broken") @reason("x") forbid (principal, action')
    log = mesh.path("palisade.log")
    wait_until(lambda: "zz-broken.cedar" in log.read_text(), "a log line that names the broken file", 20)
    answer = wire.call_tool(mesh.as_agent("support-bot"), "query_customers", {})
    assert answer.status == 200
    assert mesh.record(str(answer.decision_id))["bundle"] == digest
