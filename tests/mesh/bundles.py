"""Bundles of the tests: the default one, and what a test changes in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from demo.mesh import ROOT


def at_any_hour(folder: Path) -> Path:
    """A copy of the default bundle in which customers may be changed at any hour: tests run at night, too."""
    shutil.copytree(ROOT / "cedar", folder)
    guardrails = folder / "policies" / "guardrails.cedar"
    before, _, behind = guardrails.read_text().partition('@id("changes-in-office-hours")')
    assert behind, "the policy has another name"
    _, following, rest = behind.partition("@id(")
    guardrails.write_text(before + following + rest)
    return folder
