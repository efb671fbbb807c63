"""In which order sidecars come and go under load: in the one that docs/operations.md prescribes no call fails; in another one
calls fail, and none passes unchecked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from sidecars import Client, Load, Pod

from demo.mesh import Mesh
from demo.names import AGENTS

StartMesh = Callable[..., Mesh]
# So many answers are awaited in each state, from four callers.
CALLS = 400


@pytest.fixture(params=["unix", "tcp"])
def unix(request: pytest.FixtureRequest) -> bool:
    """Where Palisade listens for its Envoy."""
    return request.param == "unix"


@pytest.fixture
def mesh(start_mesh: StartMesh) -> Mesh:
    """With a Palisade and Envoys of its own, which nobody calls here."""
    return start_mesh(agents={"support-bot": AGENTS["support-bot"]})


def started(mesh: Mesh, name: str, unix: bool) -> Pod:
    """Palisade first, then the Envoy that asks it: when that is ready, so is whom it asks."""
    pod = Pod(mesh, name, unix)
    pod.start_palisade()
    pod.start_envoy()
    return pod


def ran(mesh: Mesh) -> int:
    """How many calls the server ran."""
    return sum(line["kind"] == "tool" for line in mesh.journal("crm"))


def test_a_new_pod_first_then_envoy_then_palisade_and_no_call_fails(mesh: Mesh, unix: bool) -> None:
    client, old = Client(mesh), started(mesh, "old", unix)
    client.use(old)
    client.start()
    with Load(client.port) as load:
        load.goes_on(200, CALLS)
        new = started(mesh, "new", unix)
        client.use(old, new)
        load.goes_on(200, CALLS)
        client.use(new)
        old.end_envoy()
        assert old.end_palisade() == 0
        load.goes_on(200, CALLS)
    assert new.end_palisade() == 0
    answers = [answer for _, _, answer in load.answers]
    assert {answer.status for answer in answers} == {200}
    # Each was decided, by one of the two, once; and nothing else was.
    by_old, by_new = ([record["decisionId"] for record in pod.records()] for pod in (old, new))
    assert sorted(by_old + by_new) == sorted(str(answer.decision_id) for answer in answers)
    assert len(by_old) > CALLS and len(by_new) > CALLS
    assert ran(mesh) == len(answers)


def test_palisade_ended_first_no_call_passes_and_started_again_in_its_place_they_do(mesh: Mesh, unix: bool) -> None:
    client, pod = Client(mesh), started(mesh, "pod", unix)
    client.use(pod)
    client.start()
    with Load(client.port) as load:
        load.goes_on(200, CALLS)
        assert pod.end_palisade() == 0
        ended = time.monotonic()
        load.goes_on(503, CALLS)
        back = time.monotonic()
        pod.start_palisade()
        load.goes_on(200, CALLS)
    assert pod.end_palisade() == 0
    answers = [answer for _, _, answer in load.answers]
    assert {answer.status for answer in answers} == {200, 503}
    permitted = [str(answer.decision_id) for answer in answers if answer.status == 200]
    failed = [answer for answer in answers if answer.status == 503]
    # Whoever was in flight when it ended was answered; whoever came after that was told by Envoy alone, or by a Palisade that has no
    # bundle yet.
    assert all(answer.decision_id is None or b"bundle_missing" in answer.body for answer in failed)
    gone = [answer for asked, came, answer in load.answers if ended < asked and came < back]
    assert len(gone) > CALLS / 2 and {(answer.status, answer.decision_id) for answer in gone} == {(503, None)}
    by_it = {record["decisionId"]: record["verdict"] for record in pod.records()}
    assert {by_it.get(decision) for decision in permitted} == {"PERMIT"}
    assert list(by_it.values()).count("PERMIT") == len(permitted)
    assert ran(mesh) == len(permitted)
