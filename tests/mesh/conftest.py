"""Fixtures of the mesh tests: real Envoys, a real Palisade, real servers. What is missing fails, nothing is skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import spire as spires  # noqa: E402
from idp import Idp  # noqa: E402
from pods import Pods  # noqa: E402

from demo import wire  # noqa: E402
from demo.mesh import Mesh, Settings, binary  # noqa: E402

# The meshes (and pods) and identity providers that are up: whose logs to show when a test fails.
_up: list[Mesh | Pods] = []
_idps: list[Idp] = []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "spire: needs SPIRE's server and agent (`-m spire`)")


def with_patience(bootstrap: str) -> str:
    """With a long time for the answer to a check: below the 10 s that callers here wait."""
    assert bootstrap.count("timeout: 0.25s") == 1
    return bootstrap.replace("timeout: 0.25s", "timeout: 9s")


class PatientMesh(Mesh):
    """Envoy and Palisade wait long for a decision: a busy machine is no failure, and what is late has tests of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(dataclasses.replace(settings, tokens=f"{settings.tokens}\n[server]\ndeadline_ms = 8000\n"))

    def _render_tools(self) -> str:
        return with_patience(super()._render_tools())


@contextlib.contextmanager
def running_mesh(patient: bool = True, **settings: object) -> Iterator[Mesh]:
    """A mesh with these `Settings`; `patient=False`: with the time for a decision that examples and defaults have."""
    kind = PatientMesh if patient else Mesh
    with kind(Settings(palisade=binary("debug"), **settings)) as mesh, shown(mesh):  # type: ignore[arg-type]
        yield mesh


@contextlib.contextmanager
def shown(what: Mesh | Pods) -> Iterator[None]:
    """While this lasts, the logs of its components are shown beside a test that fails."""
    _up.append(what)
    try:
        yield
    finally:
        _up.remove(what)


def is_decided(answer: wire.Answer) -> bool:
    return bool(answer.decision_id) and b'"deadline_missed"' not in answer.body


def decided(call: Callable[[], wire.Answer]) -> wire.Answer:
    """Palisade's own verdict: on a busy machine a debug build may take longer than it or Envoy waits, and is asked again."""
    for _ in range(20):
        answer = call()
        if is_decided(answer):
            return answer
    raise AssertionError(f"nobody decides: {answer}")


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """The mesh that tests share: they may call whatever they like, and must leave everything running."""
    # Envoy lets WebSocket upgrades through, so that it is Palisade that has to refuse them.
    with running_mesh(websockets=True) as mesh:
        yield mesh


@pytest.fixture
def start_mesh() -> Iterator[Callable[..., Mesh]]:
    """For a test that breaks something: start a mesh of its own, with `Settings` as keywords."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running_mesh(**settings))


@contextlib.contextmanager
def _running_idp(directory: Path) -> Iterator[Idp]:
    with Idp(directory) as idp:
        _idps.append(idp)
        try:
            yield idp
        finally:
            _idps.remove(idp)


@pytest.fixture(scope="session")
def idp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Idp]:
    """The identity provider that tests share: they may get any tokens from it, and must not change how it behaves."""
    with _running_idp(tmp_path_factory.mktemp("idp")) as idp:
        yield idp


@pytest.fixture
def start_idp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Idp]]:
    """For a test that rotates keys or breaks something: start an identity provider of its own."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(_running_idp(tmp_path_factory.mktemp("idp")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Show the end of every component's log beside a failure."""
    report = yield
    if report.failed:
        for mesh in _up:
            for component in mesh.components.values():
                if tail := component.tail(30):
                    report.sections.append((f"end of the log of {component.name}", tail))
        for spire in spires.up:
            for name, component in spire.components.items():
                report.sections.append((f"end of the log of SPIRE's {name}, {spire.name}", component.tail(30)))
        for idp in _idps:
            report.sections.append(("end of the log of the identity provider", idp.component.tail(30)))
    return report
