"""What a running Palisade makes of signals, as docs/operations.md says it and no test of tests/server does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from demo import evidence, ports  # noqa: E402
from demo.mesh import binary  # noqa: E402
from demo.processes import wait_until  # noqa: E402

CONFIG = """
[[listener]]
unix = {socket}
[admin]
listen = "127.0.0.1:{admin}"
[identity]
trust_domains = ["example.org"]
[bundle]
path = {bundle}
[record]
path = {records}
[server]
drain_seconds = 30
"""
SECONDS = 60


class Palisade:
    def __init__(self, folder: Path) -> None:
        (self.admin,) = ports.some(1)
        self.socket, config = folder / "authz.sock", folder / "palisade.toml"
        paths = {"socket": self.socket, "bundle": ROOT / "cedar", "records": folder / "records.jsonl"}
        words = {key: json.dumps(str(path)) for key, path in paths.items()}
        config.write_text(CONFIG.format(admin=self.admin, **words))
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([binary("debug"), "serve", "--config", config], stdout=log, stderr=log)

    def ready(self) -> bool:
        assert self.process.poll() is None, "it ended"
        return evidence.answers(self.admin, "/readyz")

    def ended(self) -> int:
        return self.process.wait(SECONDS)


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Palisade]:
    palisade = Palisade(tmp_path)
    yield palisade
    palisade.process.kill()
    palisade.process.wait()


@pytest.fixture
def palisade(starting: Palisade) -> Palisade:
    wait_until(starting.ready, "ready")
    return starting


def test_a_sigterm_while_it_starts_counts_when_it_has_started(starting: Palisade) -> None:
    wait_until(starting.socket.exists, "sockets are bound")
    starting.process.terminate()
    assert starting.ended() == 0
    messages = [json.loads(line)["message"] for line in starting.log.read_text().splitlines()]
    assert [one for one in messages if one in ("ready", "draining", "stopped")] == ["ready", "draining", "stopped"]


def test_a_second_sigterm_changes_nothing(palisade: Palisade) -> None:
    for _ in range(20):
        palisade.process.send_signal(signal.SIGTERM)
    assert palisade.ended() == 0
    assert not palisade.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_end_it_at_once(palisade: Palisade, number: signal.Signals) -> None:
    palisade.process.send_signal(number)
    assert palisade.ended() == -number
    assert palisade.socket.exists(), "it did not drain"


def test_sigpipe_and_sighup_end_nothing(palisade: Palisade) -> None:
    for number in (signal.SIGPIPE, signal.SIGHUP):
        palisade.process.send_signal(number)
        assert palisade.ready()
    palisade.process.terminate()
    assert palisade.ended() == 0
