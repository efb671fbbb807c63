"""Start, watch and stop the mesh's processes: only those, and all of those."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# How long to wait for what comes at once: on a machine that does ten other things, and writes all of it to one slow disk.
PATIENCE_SECONDS = 60.0
# How long processes may take to end, and to write the last records to such a disk; who hangs is killed then.
STOP_SECONDS = 20.0
# Loaded before any fork: loading a library between fork and exec can deadlock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class MeshError(Exception):
    """The mesh cannot be had; the message is all that the reader needs."""


class UndecidedError(MeshError):
    """Nobody decided a call in time: Envoy waits a quarter of a second, and a machine may be busy for longer."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and its relatives back until the block is done, then deliver them.

    Between starting a process and noting its pid, and while stopping them, an interrupt would leave something behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only: nothing can interrupt here.
        return
    pending: list[int] = []
    before = {number: signal.signal(number, lambda received, _frame: pending.append(received)) for number in _HELD_BACK}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])


def wait_until(event: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS, every: float = 0.02) -> None:
    """Poll for an event; the only way anything here waits."""
    deadline = time.monotonic() + seconds
    while not event():
        if time.monotonic() > deadline:
            raise MeshError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


class Component:
    """One process with its log file; what it prints goes to another one if `output` says so."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, cwd: Path, output: Path | None = None
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as errors, (output or log).open("ab") as printed:
            self._log_begin = errors.tell()  # one that was started before may have written to it
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=errors,
                cwd=cwd,
                # Ctrl-C at the terminal goes to the launcher alone, which stops the others in order.
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self.status is None

    @property
    def status(self) -> int | None:
        """Its exit status, or the negative number of the signal that ended it."""
        return self._process.poll()

    def wait_ready(self, ready: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Return when `ready` says so; fail with the end of the log when the process dies or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise MeshError(f"{self.name} ended with status {self._process.returncode} at start{self.log_hint()}")
            if time.monotonic() > deadline:
                raise MeshError(f"{self.name} is not ready after {seconds:g} s{self.log_hint()}")
            time.sleep(0.02)

    def suspend(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait()

    def ask_to_stop(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGCONT)  # a suspended process would not notice SIGTERM
            self._process.terminate()

    def stopped(self, deadline: float) -> None:
        """Wait for the end until `deadline` (monotonic), then enforce it."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines: int = 15) -> str:
        try:
            text = self.log.read_bytes()[self._log_begin :].decode(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        except OSError:
            return ""

    def log_hint(self) -> str:
        tail = self.tail()
        return f"; the end of its log:\n{tail}" if tail else "; its log is empty"


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """On Linux, have the kernel end the child when the launcher is killed and cannot do it itself."""
    if _LIBC is None:
        return None

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare
