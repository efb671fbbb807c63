"""Says what happens to the mesh while it is up: Palisade's word on a changed bundle, its end, and its return."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator

from demo.mesh import Mesh
from demo.processes import MeshError

_LOADED = "bundle loaded"
_PUT_BACK = "bundle on disk is the one in force again"
_REFUSED = "bundle refused; the last good one stays in force"


class Watch:
    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._log = mesh.components["palisade"].log
        self._read = self._log.stat().st_size  # what the log says of the start is no news
        self._down = False
        self._typing = sys.stdin is not None

    def forever(self) -> None:
        """Until Ctrl-C, or until a part ends that nobody is expected to end."""
        while True:
            for line in self.news():
                print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
            if self._enter(0.5) and self._down:
                self._start_again()

    def news(self) -> Iterator[str]:
        yield from self._bundles()
        for component in self._mesh.components.values():
            if component.running:
                continue
            if component.name != "palisade":
                raise MeshError(f"{component.name} ended by itself{component.log_hint()}")
            if not self._down:
                self._down = True
                yield (
                    f"Palisade is down (status {component.status}): every call is answered 503 by Envoy, none passes. "
                    "Enter starts it again, Ctrl-C stops everything."
                )

    def _bundles(self) -> Iterator[str]:
        with self._log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            if not line.startswith(b"{"):
                continue
            said = json.loads(line)
            if said.get("message") == _LOADED:
                yield f"Palisade: {_LOADED}, {said['policies']} policies, {said['digest'][:15]}…"
            elif said.get("message") == _REFUSED:
                yield f"Palisade: {_REFUSED}: {said['error']}"
            elif said.get("message") == _PUT_BACK:
                yield f"Palisade: {_PUT_BACK}"

    def _start_again(self) -> None:
        try:
            self._mesh.start_palisade()
        except MeshError as error:
            # One that is only slow is up all the same: a second one would find its ports taken.
            self._down = not self._mesh.components["palisade"].running
            print(f"{error}\n{'Enter tries again.' if self._down else 'It is running.'}", flush=True)
            return
        self._down = False
        print(f"Palisade is up again, as process {self._mesh.components['palisade'].pid}.", flush=True)

    def _enter(self, seconds: float) -> bool:
        """Whether somebody pressed Enter within this time."""
        if not self._typing:
            time.sleep(seconds)
            return False
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return False
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            time.sleep(seconds)  # in the background: what is typed is for somebody else
            return False
        typed = os.read(0, 4096)
        self._typing = typed != b""
        return self._typing
