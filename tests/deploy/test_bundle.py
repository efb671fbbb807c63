"""`palisade bundle fetch` as the chart's init container runs it: from a real server, by its digest, into a link that is swapped at once."""

from __future__ import annotations

import hashlib
import http.server
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import charts

ROOT = Path(__file__).resolve().parents[2]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        archive: bytes = self.server.archive  # type: ignore[attr-defined]
        if self.path == "/moved.tar.gz":
            self.send_response(302)
            self.send_header("location", "/bundle.tar.gz")
            self.end_headers()
            return
        self.send_response(200 if self.path in ("/bundle.tar.gz", "/cut.tar.gz") else 404)
        self.send_header("content-length", str(len(archive)))
        self.end_headers()
        self.wfile.write(archive[: len(archive) // 2] if self.path == "/cut.tar.gz" else archive)

    def log_message(self, *_: object) -> None:
        pass


def packed(folder: Path, into: Path) -> tuple[bytes, str]:
    with tarfile.open(into, "w:gz") as archive:
        archive.add(folder, ".")
    content = into.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def fetch(server: http.server.ThreadingHTTPServer, name: str, digest: str, link: Path) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    command = [charts.palisade(), "bundle", "fetch", url, "--sha256", digest, "--into", str(link), "--timeout", "20s"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_bundle_is_fetched_by_its_digest_or_not_at_all(server: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    # What GNU tar makes of a folder, by the name `.`.
    server.archive, digest = packed(ROOT / "cedar", tmp_path / "bundle.tar.gz")  # type: ignore[attr-defined]
    link = tmp_path / "volume" / "current"
    link.parent.mkdir()
    done = fetch(server, "bundle.tar.gz", digest, link)
    assert done.returncode == 0, done.stderr
    first = link.resolve()
    assert charts.check_bundle(link).returncode == 0
    # The container that fetches runs again when the pod's sandbox does.
    assert fetch(server, "bundle.tar.gz", digest.upper(), link).returncode == 0 and link.resolve() == first

    for name, wanted, why in [
        ("bundle.tar.gz", "0" * 64, "its SHA-256 is"),
        ("moved.tar.gz", digest, "302"),
        ("missing.tar.gz", digest, "404"),
        ("cut.tar.gz", digest, "did not come whole"),
    ]:
        done = fetch(server, name, wanted, link)
        assert done.returncode == 1 and why in done.stderr and name in done.stderr, done
        assert link.resolve() == first
    assert fetch(server, "bundle.tar.gz", "no digest", link).returncode == 2

    # Another bundle is another folder, to which the same link leads.
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in ("palisade.cedarschema", "targets.toml", "crm.cedarschema", "crm.tools.json"):
        (changed / file).write_bytes((ROOT / "cedar" / file).read_bytes())
    server.archive, digest = packed(changed, tmp_path / "changed.tar.gz")  # type: ignore[attr-defined]
    assert fetch(server, "bundle.tar.gz", digest, link).returncode == 0
    assert link.resolve() != first and not (link / "policies").exists()
