"""What `make run` starts: the mesh on its documented ports, the tour, and then everything stays up until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demo.mesh import Mesh


def port(text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 65_515:
        raise argparse.ArgumentTypeError(f"`{text}` is no port from 1024 to 65515")
    return int(text)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--palisade", type=Path, help="the program (default: PALISADE_BIN, else target/release/palisade)"
    )
    parser.add_argument("--base-port", type=port, help="first of the 20 ports (default: 18000)")
    parser.add_argument("--bundle", type=Path, help="bundle directory (default: cedar)")
    parser.add_argument("--tour-only", action="store_true", help="stop after the tour; status 1 if a verdict surprises")
    return parser.parse_args()


def _stay_up(mesh: Mesh) -> None:
    from demo.processes import MeshError

    while True:
        time.sleep(0.5)
        for component in mesh.components.values():
            if not component.running:
                raise MeshError(f"{component.name} ended by itself; the end of its log:\n{component.tail()}")


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from demo import guide, names, ports, tour
    from demo import mesh as meshes

    settings = meshes.Settings(
        palisade=arguments.palisade or meshes.binary("release"),
        ports=ports.demo(list(names.AGENTS), arguments.base_port or ports.DEMO_BASE),
        bundle=arguments.bundle or meshes.ROOT / "cedar",
    )
    with meshes.Mesh(settings) as mesh:
        rows = asyncio.run(tour.rows(mesh))
        print("\n".join(tour.table(rows)), flush=True)
        print(f"\n{tour.totals(mesh)}\n", flush=True)
        if arguments.tour_only:
            return 0 if all(row.as_expected for row in rows) else 1
        print(guide.text(mesh), flush=True)
        _stay_up(mesh)
    return 0


def main() -> int:
    arguments = _arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # end as cleanly as on Ctrl-C
    try:
        # The SDKs take a second to load. They are loaded inside `_run`: Ctrl-C is a clean end in that second, too.
        print("starting the mesh ...", flush=True)
        from demo.ports import PortBusy
        from demo.processes import MeshError

        try:
            return _run(arguments)
        except (MeshError, PortBusy) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        print("\nstopped, nothing is left behind", flush=True)
        return 0


if __name__ == "__main__":
    sys.exit(main())
