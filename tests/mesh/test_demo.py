"""The demo itself: its tour, the commands it prints, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo import guide, tour, wire
from demo.mesh import ROOT, Mesh, binary
from demo.processes import PATIENCE_SECONDS, wait_until

TOTALS = re.compile(
    r"\d+ records, \d+ spans, palisade_decisions_total \d+: "
    r"the 16 calls above, and \d+ that the MCP client makes around them \(server/discover, tools/list\)"
)
BASE_PORT = 19000  # not the demo's own 18000: a demo may be up beside the tests


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short path: Unix sockets go into it, and their names may have some 100 characters."""
    with tempfile.TemporaryDirectory(prefix="mesh-", dir="/tmp") as directory:
        yield Path(directory)


def start(scratch: Path, *arguments: str) -> subprocess.Popen[str]:
    """As the Makefile does it."""
    demo = [sys.executable, "-u", "-m", "demo.run", "--palisade", str(binary("debug")), "--base-port", str(BASE_PORT)]
    return subprocess.Popen(
        ["env", "--block-signal=INT", *demo, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(demo: subprocess.Popen[str], wanted: str) -> str:
    """What the demo prints up to the line with this."""
    assert demo.stdout
    output = ""
    while wanted not in output:
        line = demo.stdout.readline()
        assert line, f"the demo ended by itself:\n{output}"
        output += line
    return output


def interrupt(demo: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    """End it as the terminal does, which tells everyone in the foreground; return what it still says."""
    os.killpg(demo.pid, number)
    rest, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 0, rest
    assert "Traceback" not in rest
    return rest


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
    # Whole, in any terminal: it is there to be recognised.
    assert printed.count("'https://reports.example.org/q3'") == 2
    assert TOTALS.fullmatch(tour.totals(mesh, rows))


def test_decisions_beyond_the_rows_are_what_the_tour_says(start_mesh: Callable[..., Mesh]) -> None:
    mesh = start_mesh()
    rows = asyncio.run(tour.rows(mesh))
    shown = {row.decision_id for row in rows}
    more = [line for line in mesh.records() if line["decisionId"] not in shown]
    asked = {call.get("method") for line in more for call in line.get("calls", [])}
    assert more and asked == {"server/discover", "tools/list"}


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


def test_printed_check_explains_the_decision_as_it_was(mesh: Mesh) -> None:
    rows = asyncio.run(tour.rows(mesh))
    command = shlex.split(guide.check_command(mesh, rows))
    row = next(row for row in rows if f"{row.decision_id}.json" in command[2])
    capture = mesh.captures_path / f"{row.decision_id}.json"
    wait_until(lambda: capture.exists() and capture.read_text().endswith("}"), "the capture is written")
    explained = subprocess.run(command, capture_output=True, text=True)
    assert explained.returncode == 10, explained
    assert f"DENIAL ({row.reason})" in explained.stdout
    assert set(re.findall(r"^  => (\S+) +forbids: ", explained.stdout, re.MULTILINE)) == set(row.policies)
    assert mesh.record(row.decision_id)["bundle"] in explained.stdout


def test_demo_runs_and_ends_cleanly_on_ctrl_c(scratch: Path) -> None:
    demo = start(scratch)
    output = read_until(demo, "Ctrl-C stops everything")
    assert any(TOTALS.fullmatch(line) for line in output.splitlines())
    assert "\033" not in output, "colours where nobody sees them"
    assert left_behind(scratch)
    interrupt(demo)
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
    wait_until(reached, f"the demo comes to {moment}", every=0.001)
    assert interrupt(demo, number).strip().splitlines()[-1] == "stopped, nothing is left behind"
    assert left_behind(scratch) == []


@pytest.mark.parametrize("seconds", [0.01, 0.03, 0.06, 0.12, 0.25])
def test_ctrl_c_before_the_first_line_is_one_line(scratch: Path, seconds: float) -> None:
    """Python itself is still starting, or loading modules. The moment is arbitrary: nothing announces it."""
    demo = start(scratch)
    time.sleep(seconds)
    said = interrupt(demo)
    assert [line for line in said.splitlines() if line] in (
        ["stopped, nothing is left behind"],
        ["starting the mesh ...", "stopped, nothing is left behind"],
    )
    assert left_behind(scratch) == []


def test_what_a_killed_demo_leaves_the_next_one_removes(scratch: Path) -> None:
    demo = start(scratch)
    read_until(demo, "starting the mesh")
    wait_until(lambda: bool(list(scratch.glob("palisade-*/access.jsonl"))), "the mesh is up")
    # Neither somebody's who is alive, nor anything that is no demo's.
    others = [scratch / f"palisade-{os.getpid()}-alive", scratch / "palisade-notes", scratch / "palisade-0-x"]
    for other in others:
        other.mkdir()
    demo.kill()
    demo.wait()
    [left] = set(scratch.glob("palisade-*")) - set(others)
    wait_until(lambda: left_behind(scratch) == [*map(str, scratch.iterdir())], "the processes of the killed demo end")
    again = start(scratch)
    wait_until(lambda: not left.exists(), "its directory is removed")
    interrupt(again)
    assert set(scratch.iterdir()) == set(others)


def test_palisade_and_its_bundle_are_watched(scratch: Path) -> None:
    bundle = scratch / "bundle"
    shutil.copytree(ROOT / "cedar", bundle)
    demo = start(scratch, "--bundle", str(bundle))
    output = read_until(demo, "Ctrl-C stops everything")

    def status() -> int:
        return wire.send(wire.plain(BASE_PORT + 1), "GET", "crm.example.org", "/status").status

    assert status() == 200
    broken = bundle / "policies" / "broken.cedar"
    broken.write_text("permit (principal, action\n")
    said = read_until(demo, "bundle refused").splitlines()[-1]
    assert "the last good one stays in force" in said and "policies/broken.cedar:" in said
    broken.write_text('@id("nobody") @reason("A test says so")\nforbid (principal, action, resource);\n')
    assert "19 policies" in read_until(demo, "bundle loaded").splitlines()[-1]
    assert status() == 403
    broken.unlink()
    assert "18 policies" in read_until(demo, "bundle loaded").splitlines()[-1]

    found = re.search(r"without Palisade: kill (\d+)", output)
    assert found
    os.kill(int(found[1]), signal.SIGTERM)
    assert "503" in read_until(demo, "Palisade is down")
    assert status() == 503
    assert demo.stdin

    # One that cannot start is no end of the demo either.
    broken.write_text("permit (principal, action\n")
    demo.stdin.write("\n")
    demo.stdin.flush()
    assert "policies/broken.cedar:" in read_until(demo, "Enter tries again")
    broken.unlink()
    demo.stdin.write("\n")
    demo.stdin.flush()
    read_until(demo, "Palisade is up again")
    wait_until(lambda: status() == 200, "calls pass again")
    interrupt(demo)
    assert left_behind(scratch) == [str(bundle)]


def test_a_mesh_that_lost_anything_else_ends(scratch: Path) -> None:
    demo = start(scratch)
    read_until(demo, "Ctrl-C stops everything")
    listed = subprocess.run(["pgrep", "-f", f"{scratch}/palisade-.*/crm.sock"], capture_output=True, text=True)
    os.kill(int(listed.stdout.split()[0]), signal.SIGKILL)
    rest, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 1
    assert "crm ended by itself" in rest
    assert left_behind(scratch) == []


def test_recorded_checks_can_be_kept(scratch: Path) -> None:
    kept = scratch / "kept"
    demo = start(scratch, "--tour-only", "--record", str(kept))
    said, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 0, said
    counted = re.search(r"(\d+) records", said)
    assert counted and len(list(kept.glob("*.json"))) == int(counted[1])
    assert left_behind(scratch) == [str(kept)]


def test_busy_port_is_one_line(scratch: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", BASE_PORT + 12))
        taken.listen()
        demo = start(scratch)
        said, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 1
    [_, line] = said.splitlines()
    assert f"port {BASE_PORT + 12} (Palisade ext_authz) is in use" in line
    assert left_behind(scratch) == []


def test_missing_program_is_one_line(scratch: Path) -> None:
    demo = start(scratch, "--palisade", str(scratch / "nothing"))
    said, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 1
    assert len(said.splitlines()) == 2
    assert "cargo build" in said


@pytest.mark.parametrize("missing", ["cargo", "cc", "python3"])
def test_missing_prerequisite_is_one_line(tmp_path: Path, missing: str) -> None:
    for there in {"cargo", "cc", "python3"} - {missing}:
        (tmp_path / there).symlink_to("/usr/bin/true")
    ended = subprocess.run(
        ["/bin/sh", str(ROOT / "demo" / "require.sh"), missing], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"palisade: {missing} is missing")


@pytest.mark.parametrize("target", ["run", "tour", "test", "mesh-test"])
def test_prerequisites_come_before_anything_is_made(target: str) -> None:
    # These tests may have been started by make themselves.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    would = subprocess.run(
        ["make", "--dry-run", target, "RECORD=some where"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert would[0] == "demo/require.sh cargo cc python3"
    assert {"demo/bootstrap.sh"} < set(would)
    if target in ("run", "tour"):
        assert "--record 'some where'" in would[-1]
