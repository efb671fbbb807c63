"""The software bill of materials names every crate of the release binary, as Cargo links it. Apart from the other tests of images
because the program that writes it takes almost three minutes of CPU time to build, once.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGET = "x86_64-unknown-linux-gnu"


def run(*words: object, **options: Any) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, cwd=ROOT, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_bill_of_materials_names_every_crate_of_the_binary() -> None:
    written = []
    for _ in range(2):
        run(ROOT / ".ci/sbom", TARGET, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})
        written.append((ROOT / "target/palisade.cdx.json").read_bytes())
    assert written[0] == written[1], "the same sources, the same bytes"
    bill = json.loads(written[0])
    assert bill["bomFormat"] == "CycloneDX"
    named = {(one["name"], one["version"]) for one in bill["components"]}
    tree = run("cargo", "tree", "--locked", "--edges", "normal,no-proc-macro", "--target", TARGET, "--prefix", "none")
    linked = {(words[0], words[1].removeprefix("v")) for line in tree.splitlines() if (words := line.split())}
    assert len(linked) > 100
    assert linked - {("palisade", bill["metadata"]["component"]["version"])} <= named
    # Nor does it name what is not even in the lock file.
    locked = {(one["name"], one["version"]) for one in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    assert named <= locked
    assert all(one.get("hashes") or one.get("purl") for one in bill["components"])
