"""What `make run` starts: the mesh on its documented ports, the tour, and then everything stays up until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOPPED = "\nstopped, nothing is left behind\n"


def _leave(_signal: int, _frame: object) -> None:
    os.write(1, _STOPPED.encode())
    os._exit(0)


if __name__ == "__main__":
    # Before anything is started there is nothing to stop: whoever presses Ctrl-C while Python loads what it needs gets
    # one line, wherever the interpreter is. `make run` holds the signal back until here.
    for _number in _SIGNALS:
        signal.signal(_number, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402


def port(text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 65_515:
        raise argparse.ArgumentTypeError(f"`{text}` is no port from 1024 to 65515")
    return int(text)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--palisade", type=Path, help="the program (default: PALISADE_BIN, else target/release/palisade)"
    )
    parser.add_argument("--base-port", type=port, help="first of the 20 ports (default: 18000)")
    parser.add_argument("--bundle", type=Path, help="bundle directory (default: cedar)")
    parser.add_argument("--record", type=Path, help="keep the captured checks in this directory, for `palisade check`")
    parser.add_argument("--tour-only", action="store_true", help="stop after the tour; status 1 if a verdict surprises")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from demo import guide, names, ports, tour, watch
    from demo import mesh as meshes

    # From here on there is something to stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio knows this one, and ends its tasks in order
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    meshes.clean_up_after_the_dead()
    settings = meshes.Settings(
        palisade=arguments.palisade or meshes.binary("release"),
        ports=ports.demo(list(names.AGENTS), arguments.base_port or ports.DEMO_BASE),
        bundle=arguments.bundle or meshes.ROOT / "cedar",
        captures=arguments.record and arguments.record.resolve(),
    )
    with meshes.Mesh(settings) as mesh:
        rows = asyncio.run(tour.rows(mesh))
        print("\n".join(tour.table(rows)), flush=True)
        print(f"\n{tour.totals(mesh, rows)}\n", flush=True)
        if arguments.tour_only:
            return 0 if all(row.as_expected for row in rows) else 1
        print(guide.text(mesh, rows), flush=True)
        watch.Watch(mesh).forever()
    return 0


def main() -> int:
    arguments = _arguments()
    try:
        # The SDKs take a second to load. They are loaded inside `_run`: the line is there at once.
        print("starting the mesh ...", flush=True)
        from demo.ports import PortBusy
        from demo.processes import MeshError

        try:
            return _run(arguments)
        except (MeshError, PortBusy) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # it is over already
        print(_STOPPED, end="", flush=True)
        return 0


if __name__ == "__main__":
    sys.exit(main())
