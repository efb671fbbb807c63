"""The bootstraps of `envoy/`, as Envoy itself reads them. The demo and the mesh tests run them; this is every file, at once and alone."""

from __future__ import annotations

import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from demo.certs import ThrowAwayCa  # noqa: E402
from demo.mesh import envoy  # noqa: E402
from demo.names import AGENTS, HOSTS, SERVERS, TRUST_DOMAIN  # noqa: E402

BOOTSTRAPS = sorted(path.name for path in (ROOT / "envoy").glob("*.yaml"))
_AGENT = "support-bot"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Validating reads the certificates, so there have to be some."""
    ca = ThrowAwayCa(tmp_path_factory.mktemp("envoy") / "certs")
    for name, spiffe_id in {_AGENT: AGENTS[_AGENT], **SERVERS}.items():
        ca.issue(name, spiffe_id)
    return ca.directory


def filled_in(text: str, certs: Path) -> str:
    """With a value for every name that the files have; a name that is new fails here."""
    ports = ["CRM", "A2A", "AUTHZ", "ADMIN", "OTLP", "AGENT", "SERVER"]
    values = {f"{name}_PORT": str(20001 + at) for at, name in enumerate(ports)} | {
        "PORT": "20000",
        "CERTS": certs,
        "AGENT": _AGENT,
        "SERVER": "crm",
        "CRM_SOCKET": certs / "crm.sock",
        "RESEARCHER_SOCKET": certs / "researcher.sock",
        "SERVER_SOCKET": certs / "server.sock",
        "SPIRE_SOCKET": certs / "agent.sock",
        "SPIFFE_ID": SERVERS["crm"],
        "SERVER_ID": SERVERS["crm"],
        "SERVER_HOST": HOSTS["crm"],
        "TRUST_DOMAIN": TRUST_DOMAIN,
        "ACCESS_LOG": certs / "access.jsonl",
        "UPGRADES": "[]",
    }
    return string.Template(text).substitute(values)


def validate(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "bootstrap.yaml"
    path.write_text(text)
    command = [envoy(), "--mode", "validate", "-c", path, "--log-level", "warning"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", BOOTSTRAPS)
def test_envoy_takes_it(name: str, certs: Path, tmp_path: Path) -> None:
    done = validate(filled_in((ROOT / "envoy" / name).read_text(), certs), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # Deprecated fields, and whatever else it would rather tell.
    assert "[warning]" not in done.stderr, done.stderr


def test_envoy_refuses_a_misspelt_setting(certs: Path, tmp_path: Path) -> None:
    text = filled_in((ROOT / "envoy" / "tools.yaml").read_text(), certs)
    done = validate(text.replace("encode_raw_headers:", "encode_raw_header:"), tmp_path)
    assert done.returncode != 0 and "encode_raw_header" in done.stderr


@pytest.mark.parametrize("name", BOOTSTRAPS)
def test_no_check_fails_open(name: str) -> None:
    text = (ROOT / "envoy" / name).read_text()
    checks = len(re.findall(r"@type.*ext_authz\.v3\.ExtAuthz$", text, re.MULTILINE))
    # The two sides of agents enforce nothing, on purpose.
    assert checks == (0 if "agent" in name else 1), f"{checks} checks"
    assert text.count("failure_mode_allow: false") == checks and "failure_mode_allow: true" not in text
    assert text.count("timeout: 0.25s") == checks
