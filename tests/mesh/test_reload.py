"""New policies take effect while calls flow; broken ones change nothing."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from journals import ran

from benches import bundles
from demo import evidence, wire
from demo.mesh import ROOT, Mesh
from demo.processes import PATIENCE_SECONDS, wait_until

# A debug build on a busy machine takes its time for ten thousand policies.
LOADED_SECONDS = 240

FREEZE = """
@id("test-freeze")
@reason("Nobody queries customers while this test says so")
forbid (principal, action == Action::"crm/query_customers", resource);
"""


class Caller:
    """Calls without a pause, and keeps every answer in order."""

    def __init__(self, mesh: Mesh, agent: str = "support-bot") -> None:
        self.answers: list[wire.Answer] = []
        self._mesh, self._agent = mesh, agent
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
            self.answers.append(wire.call_tool(self._mesh.as_agent(self._agent), "query_customers", {}))

    def wait_for(self, status: int, more: int = 10, seconds: float = PATIENCE_SECONDS) -> None:
        """Until that many calls in a row were answered so, beginning now."""
        start = len(self.answers)

        def answered() -> bool:
            last = self.answers[max(start, len(self.answers) - more) :]
            return [answer.status for answer in last] == [status] * more

        wait_until(answered, f"{more} answers {status} in a row", seconds)

    def changes(self) -> list[int]:
        """The statuses without repetitions."""
        statuses = [answer.status for answer in self.answers]
        return [status for index, status in enumerate(statuses) if index == 0 or statuses[index - 1] != status]


def put(path: Path, text: str) -> None:
    """Write aside and rename, as every sane tool does it."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.rename(path)


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    """The default bundle, for agents that are denied without a pause: how often is what another test is about."""
    bundle = Path(shutil.copytree(ROOT / "cedar", tmp_path / "bundle"))
    limits = bundle / "limits.toml"
    text = limits.read_text()
    assert "burst = 1200\n" in text
    limits.write_text(text.replace("burst = 1200\n", "burst = 100000\n"))
    yield bundle


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


class Volume:
    """A bundle as Kubernetes mounts a ConfigMap: links through `..data`, which is replaced in one step."""

    def __init__(self, path: Path, version: Path) -> None:
        self.path = path
        path.mkdir()
        self.swap(version)
        for entry in version.iterdir():
            (path / entry.name).symlink_to(Path("..data") / entry.name)

    def swap(self, version: Path) -> None:
        aside = self.path / "..data_tmp"
        aside.symlink_to(version)
        os.replace(aside, self.path / "..data")


def mark(version: Path, name: str, mark: str) -> None:
    """A permit for one agent and a forbid for another one, in a file of their own."""
    query = 'action == Action::"crm/query_customers", resource'
    permit = bundles.policy(f"{mark}-permit", "permit", f"principal == {bundles.SUPPORT_BOT}, {query}")
    analyst = 'Agent::"spiffe://example.org/ns/agents/sa/analyst"'
    forbid = bundles.policy(f"{mark}-forbid", "forbid", f"principal == {analyst}, {query}")
    (version / "policies" / name).write_text(permit + forbid)


def in_force(mesh: Mesh) -> str:
    """The digest of the bundle that decides."""
    found = re.search(r"^bundle: (\S+)$", evidence.get(mesh.ports.palisade_admin, "/readyz").body.decode(), re.M)
    assert found
    return found[1]


def metric(mesh: Mesh, name: str) -> float:
    """A metric without labels."""
    return next(float(line.split()[1]) for line in mesh.metrics().splitlines() if line.startswith(f"{name} "))


# What each version decides, and by which policies. The marks are in the first and in the last of the files: without
# one of them, or with another version's policies among its own, a bundle would be half of one.
FEW = {
    "support-bot": ("PERMIT", {"support-bot-reads-customers"}),
    "analyst": ("PERMIT", {"analyst-reads-figures"}),
}
MANY = {
    "support-bot": ("PERMIT", {"support-bot-reads-customers", "first-permit", "last-permit"}),
    "analyst": ("DENIAL", {"first-forbid", "last-forbid"}),
}


def test_ten_thousand_policies_come_and_go_under_load(start_mesh: Callable[..., Mesh], tmp_path: Path) -> None:
    few = bundles.write(tmp_path / "few", 15)
    many = bundles.write(tmp_path / "many", 9_996)
    mark(many, "00-first.cedar", "first")
    mark(many, "zz-last.cedar", "last")
    volume = Volume(tmp_path / "volume", few)
    mesh = start_mesh(bundle=volume.path)
    decided_by = {in_force(mesh): FEW}
    with Caller(mesh) as support_bot, Caller(mesh, "analyst") as analyst:
        analyst.wait_for(200)
        for version, status, policies in [(many, 403, 10_000), (few, 200, 19)]:
            volume.swap(version)
            analyst.wait_for(status, seconds=LOADED_SECONDS)
            support_bot.wait_for(200)
            wait_until(lambda: metric(mesh, "palisade_bundle_policies") == policies, f"{policies} policies")  # noqa: B023
            decided_by.setdefault(in_force(mesh), MANY)
    assert len(decided_by) == 2, "what is back has the digest it had"
    # No call failed, and each change was taken once.
    assert support_bot.changes() == [200]
    assert analyst.changes() == [200, 403, 200]
    assert metric(mesh, "palisade_bundle_load_failures_total") == 0
    # Each answer is the one of the bundle that its record names, decided by all of that bundle's policies.
    for caller, agent in [(support_bot, "support-bot"), (analyst, "analyst")]:
        mesh.record(str(caller.answers[-1].decision_id))
        records = {line["decisionId"]: line for line in mesh.records()}
        for answer in caller.answers:
            record = records[answer.decision_id]
            named = {policy["id"] for policy in record["calls"][0]["policies"]}
            assert (record["verdict"], named) == decided_by[record["bundle"]][agent]
            assert answer.status == {"PERMIT": 200, "DENIAL": 403}[record["verdict"]]


def test_a_forbid_that_fails_denies_and_is_named(start_mesh: Callable[..., Mesh], bundle: Path) -> None:
    scope = 'principal, action == Action::"crm/query_customers", resource'
    overflows = "when { context.input has limit && context.input.limit * 4611686018427387904 > 0 }"
    put(bundle / "policies" / "zz-fails.cedar", bundles.policy("test-fails", "forbid", scope, overflows))
    mesh = start_mesh(bundle=bundle)
    answer = wire.call_tool(mesh.as_agent("support-bot"), "query_customers", {"limit": 7})
    assert answer.status == 403
    record = mesh.record(str(answer.decision_id))
    assert (record["verdict"], record["reason"]) == ("DENIAL", "policy_error")
    assert record["calls"][0]["errors"] == [{"id": "test-fails", "error": "an integer overflowed"}]
    assert not ran(mesh, "query_customers", limit=7)
    assert metric(mesh, "palisade_policy_errors_total") == 1
    # The policy fails for that argument alone.
    assert wire.call_tool(mesh.as_agent("support-bot"), "query_customers", {}).status == 200
    assert metric(mesh, "palisade_policy_errors_total") == 1


def test_a_broken_bundle_changes_nothing_until_it_is_mended(start_mesh: Callable[..., Mesh], bundle: Path) -> None:
    mesh = start_mesh(bundle=bundle)
    digest = in_force(mesh)
    extra = bundle / "policies" / "zz-freeze.cedar"
    with Caller(mesh) as caller:
        caller.wait_for(200)
        put(extra, FREEZE.replace("resource);", "resource"))
        wait_until(lambda: metric(mesh, "palisade_bundle_stale") == 1, "the metric of a broken bundle")
        caller.wait_for(200)
        assert in_force(mesh) == digest
        assert metric(mesh, "palisade_bundle_load_failures_total") == 1
        log = mesh.path("palisade.log").read_text()
        assert "bundle refused; the last good one stays in force" in log
        assert "zz-freeze.cedar" in log
        put(extra, FREEZE)
        caller.wait_for(403)
        wait_until(lambda: metric(mesh, "palisade_bundle_stale") == 0, "the metric of a mended bundle")
    assert caller.changes() == [200, 403]
    records = [mesh.record(str(answer.decision_id)) for answer in (caller.answers[0], caller.answers[-1])]
    assert [record["bundle"] for record in records] == [digest, in_force(mesh)]
    assert digest != in_force(mesh)
