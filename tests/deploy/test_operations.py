"""What docs/operations.md says is what the program does: its exit codes, and the tests that it names as its witnesses."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "operations.md").read_text()


def test_every_exit_code_and_only_those() -> None:
    source = (ROOT / "src" / "cli.rs").read_text()
    module = re.search(r"pub mod exit \{(.*?)\n\}", source, re.S)
    assert module
    codes = [int(code) for code in re.findall(r"pub const \w+: u8 = (\d+);", module[1])]
    assert len(codes) > 5 and len(set(codes)) == len(codes)
    chapter = re.search(r"^## Exit codes\n(.*?)^## ", GUIDE, re.M | re.S)
    assert chapter
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", chapter[1], re.M)]
    # 2 is that of the command line's parser.
    assert told == sorted([*codes, 2])


def test_the_tests_that_are_named_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.(?:rs|py))`, `(\w+)`", GUIDE)
    assert len(named) >= 8
    for file, name in named:
        assert re.search(rf"^ *(?:fn|def) {name}\(", (ROOT / file).read_text(), re.M), f"no {name} in {file}"
