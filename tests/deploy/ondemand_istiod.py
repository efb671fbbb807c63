"""What istiod and istioctl make of `istio/` today. On demand, for building them takes long (istiod: 8 minutes of CPU time,
once): this file is not collected by its name.

    .venv/bin/python -m pytest tests/deploy/ondemand_istiod.py
    UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/deploy/ondemand_istiod.py -k istiod     # and read the difference

Run it when a resource of `istio/` changes, or the version of Istio. Each run of the other tests holds what is in fixtures/istio.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from istio_sets import PLACES, SETS, TOOLS, Json, mesh_config, resources, run
from istiod import DUMPS, FIXTURES, generate


@pytest.fixture(scope="module")
def generated() -> dict[str, Json]:
    return generate()


@pytest.mark.parametrize("name", DUMPS)
def test_istiod_says_what_it_said(name: str, generated: dict[str, Json]) -> None:
    path = FIXTURES / f"{name}.json"
    text = json.dumps(generated[name], indent=1) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


def istioctl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    run("tests/deploy/install.sh", "istioctl")
    environment = {**os.environ, "KUBECONFIG": "/nonexistent"}
    command = [TOOLS / "istioctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("file", sorted({it.file for it in resources() if "istio.io" in it.body["apiVersion"]}))
def test_istioctl_validates(file: str) -> None:
    done = istioctl("validate", "-f", SETS / file)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("\t*")]
    # What Istio has to say of every EnvoyFilter, and nothing else.
    assert done.returncode == 0 and all("EnvoyFilter exposes internal" in line for line in said), said


@pytest.mark.parametrize("place", PLACES)
def test_istioctl_has_nothing_against_a_place(place: str, tmp_path: Path) -> None:
    folders = ["mesh", place] if place != "sidecar" else ["mesh", "sidecar", "sidecar/unix"]
    files = []
    for folder in folders:
        for path in sorted((SETS / folder).glob("*.yaml")):
            if path.name == "istiod-values.yaml":
                continue
            text = path.read_text()
            if str(path).endswith("sidecar/checks.yaml"):
                text = text.replace("metadata:\n", "metadata:\n  namespace: tools\n")
            files.append(tmp_path / f"{folder.replace('/', '-')}-{path.name}")
            files[-1].write_text(text)
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(yaml.safe_dump(mesh_config()))
    done = istioctl("analyze", "--use-kube=false", "--meshConfigFile", mesh, "--output", "json", *files)
    said = json.loads(done.stdout[done.stdout.index("[") :]) if "[" in done.stdout else []
    # What another folder, or the cluster, would bring.
    absent = {"IST0101"}
    assert not [one for one in said if one["code"] not in absent], said
