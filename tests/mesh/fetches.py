"""Attempts to fetch keys, as Palisade counts them."""

from __future__ import annotations

from demo.mesh import Mesh
from demo.processes import wait_until


def fetches(mesh: Mesh, owner: str, outcome: str) -> int:
    name = f'palisade_key_fetches_total{{outcome="{outcome}",owner="{owner}"}} '
    found = [line for line in mesh.metrics().splitlines() if line.startswith(name)]
    assert len(found) == 1, (owner, outcome)
    return int(found[0].removeprefix(name))


def fetched(mesh: Mesh, owner: str, outcome: str, attempts: int = 1) -> None:
    """Until so many more attempts have ended so."""
    before = fetches(mesh, owner, outcome)
    wait_until(lambda: fetches(mesh, owner, outcome) >= before + attempts, f"{attempts} attempts, {outcome}")


def looked(mesh: Mesh, owner: str) -> None:
    """Until keys have been fetched by an attempt that began after now: the first that ends may have begun before."""
    fetched(mesh, owner, "success", attempts=2)
