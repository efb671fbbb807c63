"""The image: BuildKit takes its Dockerfile without a warning, what is sent to be built is enough and no more, and what comes out is what
the charts count on. It is not built here: that takes a container engine and two base images.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: object, **options: Any) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def report() -> dict[str, Any]:
    """What BuildKit makes of the Dockerfile; the program fails with the warnings, if there are any."""
    run(ROOT / "tests/deploy/install.sh", "dockerfile")
    return json.loads(run(ROOT / ".tools/deploy/dockerfile", ROOT))


def test_the_image_is_what_the_charts_count_on(report: dict[str, Any]) -> None:
    config = report["image"]["config"]
    assert report["warnings"] == []
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/palisade"]
    assert config["Cmd"] == ["serve", "--config", "/etc/palisade/palisade.toml"]
    assert set(config["ExposedPorts"]) == {"9191/tcp", "9192/tcp", "9194/tcp"}
    # No shell there: the binary asks itself.
    asks = ["CMD", "/usr/bin/palisade", "health", "--config", "/etc/palisade/palisade.toml"]
    assert config["Healthcheck"]["Test"] == asks
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert (labels["title"], labels["licenses"], labels["version"]) == ("Palisade", "Apache-2.0", version)


def test_the_linter_does_complain(tmp_path: Path, report: dict[str, Any]) -> None:
    text = (ROOT / "Dockerfile").read_text()
    (tmp_path / ".dockerignore").write_text("*\n")
    for wrong in (text + "CMD serve\n", text.replace("AS build", "as build"), text.replace("COPY . .", "COPY nothing")):
        (tmp_path / "Dockerfile").write_text(wrong)
        done = subprocess.run([ROOT / ".tools/deploy/dockerfile", tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout


def test_what_is_sent_to_be_built_is_what_cargo_needs_and_no_more(report: dict[str, Any], tmp_path: Path) -> None:
    sent = set(report["context"])
    tracked = set(run("git", "ls-files", cwd=ROOT).split())
    beyond = {path for path in sent if not path.startswith(("src/", "proto/"))}
    entries = {"tests/server/main.rs", "tests/decisions/main.rs", *(str(p.relative_to(ROOT)) for p in ROOT.glob("benches/*.rs"))}
    assert beyond == {"Cargo.toml", "Cargo.lock", "build.rs", "cedar/palisade.cedarschema", *entries}
    assert {path for path in tracked if path.startswith(("src/", "proto/"))} <= sent
    for path in sent:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    # Cargo finds every file that Cargo.toml names, and the compiler every one that is compiled in.
    run("cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version", "1", cwd=tmp_path)
    for source in (tmp_path / "src").rglob("*.rs"):
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            assert (source.parent / name).exists(), f"{source} includes {name}"


@pytest.mark.parametrize(
    ("rust", "base", "allow", "built"),
    [
        ("rust:1@sha256:" + "0" * 64, "base:1@sha256:" + "0" * 64, "", True),
        ("rust:1@sha256:" + "0" * 64, "base:1", "", False),
        ("rust:1", "base:1@sha256:" + "0" * 64, "", False),
        ("rust:1", "base:1", "1", True),
    ],
)
def test_both_images_need_a_digest(rust: str, base: str, allow: str, built: bool) -> None:
    text = (ROOT / "Dockerfile").read_text()
    found = re.search(r"^RUN (case .*?esac)$", text, re.M | re.S)
    assert found
    script = found[1].replace("\\\n", " ")
    environment = {"PATH": os.environ["PATH"], "RUST_IMAGE": rust, "BASE_IMAGE": base, "ALLOW_TAGS": allow}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, check=False)
    assert (done.returncode == 0) == built
