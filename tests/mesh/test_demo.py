"""The demo itself: its tour, the commands it prints, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import guide, tour
from demo.mesh import ROOT, Mesh, binary
from demo.processes import wait_until

BASE_PORT = 19000  # not the demo's own 18000: a demo may be up beside the tests


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short path: Unix sockets go into it, and their names may have some 100 characters."""
    with tempfile.TemporaryDirectory(prefix="mesh-", dir="/tmp") as directory:
        yield Path(directory)


def start(scratch: Path, *arguments: str) -> subprocess.Popen[str]:
    demo = [sys.executable, "-u", "-m", "demo.run", "--palisade", str(binary("debug")), "--base-port", str(BASE_PORT)]
    return subprocess.Popen(
        [*demo, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_behind(scratch: Path) -> list[str]:
    """Files of a demo, and processes: all of them have its directory in their command line."""
    processes = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True, check=True)
    return [*map(str, scratch.iterdir()), *(line for line in processes.stdout.splitlines() if str(scratch) in line)]


def test_every_verdict_of_the_tour_is_the_expected_one(mesh: Mesh) -> None:
    rows = asyncio.run(tour.rows(mesh))
    assert [row for row in rows if not row.as_expected] == []
    decided_by_policy = [row for row in rows if row.verdict == tour.PERMIT or row.reason == "policy_forbids"]
    assert [row for row in decided_by_policy if not row.policies] == []
    # The row is about the call itself, not about the handshake that an SDK does around it.
    assert rows[0].policies == ("support-bot-reads-customers",)
    printed = "\n".join(tour.table(rows))
    for row in rows:
        assert row.step.agent in printed
    assert re.fullmatch(r"\d+ records, \d+ spans, palisade_decisions_total \d+", tour.totals(mesh))


def test_printed_curl_commands_work(mesh: Mesh) -> None:
    said = [
        subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
        for command in guide.commands(mesh)
    ]
    status, headers, card, delete = said
    assert '"customers"' in status
    assert "x-palisade-agent" in headers
    assert card.startswith("HTTP/1.1 403") and "x-palisade-decision-id" in card
    assert delete.startswith("HTTP/1.1 403") and '"policy_forbids"' in delete


def test_demo_runs_and_ends_cleanly_on_ctrl_c(scratch: Path) -> None:
    demo = start(scratch)
    assert demo.stdout
    output = ""
    while "Ctrl-C stops everything" not in output:
        line = demo.stdout.readline()
        assert line, f"the demo ended by itself:\n{output}"
        output += line
    assert re.search(r"^\d+ records, \d+ spans, palisade_decisions_total \d+$", output, re.MULTILINE)
    assert "\033" not in output, "colours where nobody sees them"
    assert left_behind(scratch)
    os.killpg(demo.pid, signal.SIGINT)  # the terminal sends it to everyone in the foreground
    rest, _ = demo.communicate(timeout=20)
    assert demo.returncode == 0, rest
    assert "Traceback" not in rest
    assert left_behind(scratch) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["at once", "directory", "certs", "agents-envoy.yaml", "access.jsonl"])
def test_demo_can_be_interrupted_at_any_moment(scratch: Path, moment: str, number: signal.Signals) -> None:
    def reached() -> bool:
        if moment == "at once":
            return True
        return bool(list(scratch.glob("palisade-*" if moment == "directory" else f"palisade-*/{moment}")))

    demo = start(scratch)
    assert demo.stdout and demo.stdout.readline().startswith("starting the mesh")
    wait_until(reached, f"the demo comes to {moment}", 20, every=0.001)
    os.killpg(demo.pid, number)
    rest, _ = demo.communicate(timeout=20)
    assert demo.returncode == 0, rest
    assert "Traceback" not in rest
    assert left_behind(scratch) == []


def test_busy_port_is_one_line(scratch: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", BASE_PORT + 12))
        taken.listen()
        demo = start(scratch)
        said, _ = demo.communicate(timeout=20)
    assert demo.returncode == 1
    [_, line] = said.splitlines()
    assert f"port {BASE_PORT + 12} (Palisade ext_authz) is in use" in line
    assert left_behind(scratch) == []


def test_missing_program_is_one_line(scratch: Path) -> None:
    demo = start(scratch, "--palisade", str(scratch / "nothing"))
    said, _ = demo.communicate(timeout=20)
    assert demo.returncode == 1
    assert len(said.splitlines()) == 2
    assert "cargo build" in said


@pytest.mark.parametrize(("script", "missing"), [("bootstrap.sh", "python3"), ("build.sh", "cargo")])
def test_missing_prerequisite_is_one_line(tmp_path: Path, script: str, missing: str) -> None:
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    ended = subprocess.run(
        ["/bin/sh", str(ROOT / "demo" / script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"palisade: {missing} is missing")
