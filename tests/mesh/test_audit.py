"""The log of records and its proofs, checked by another implementation of the specifications (tests/tlog). No Envoy is needed for that."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from demo import evidence, ports
from demo.mesh import ROOT, binary
from demo.names import AGENTS, SERVERS
from demo.processes import Component, wait_until

_TOOL = ROOT / ".tools" / "tlog-check"
_SECONDS = 60.0
# Three epochs and some, and three tiles and some in each.
_EPOCH, _CHECKS = 1_000, 3_300
# So many checks are in flight.
_AT_ONCE = 32
# Exit codes of `palisade audit`, and of the other implementation.
_TAMPERED, _REFUSED = 15, 1

_CONFIG = """\
[[listener]]
tcp = "127.0.0.1:{port}"
identity = "source_principal"
[admin]
listen = "127.0.0.1:{admin}"
[identity]
trust_domains = ["example.org"]
[bundle]
path = {bundle}
[audit]
directory = {log}
durability = "written"
pod = "test"
checkpoint_ms = 100
checkpoint_entries = 150
epoch_entries = {epoch}
"""


# ---- a check as Envoy sends it (envoy.service.auth.v3), by the numbers of its fields


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _field(number: int, value: str | bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _check(tool: str, arguments: dict[str, object]) -> bytes:
    params = {"name": tool, "arguments": arguments}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    headers = {
        ":authority": "crm.example.org",
        ":path": "/mcp",
        ":method": "POST",
        ":scheme": "https",
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "mcp-protocol-version": "2025-11-25",
        "x-envoy-auth-partial-body": "false",
    }
    pairs = b"".join(_field(1, _field(1, name) + _field(3, value)) for name, value in headers.items())
    http = b"".join(
        _field(number, value)
        for number, value in {
            1: "1", 2: "POST", 4: "/mcp", 5: "crm.example.org", 6: "https", 9: "HTTP/2", 10: len(body), 12: body, 13: pairs
        }.items()
    )  # fmt: skip
    source, destination = (_field(4, of) for of in (AGENTS["support-bot"], SERVERS["crm"]))
    return _field(1, _field(1, source) + _field(2, destination) + _field(4, _field(2, http)))


def _checks(port: int, count: int) -> list[str]:
    """The ids of so many decisions, of which each was answered: two in three are permits, records are of many lengths."""
    ids: list[str] = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")
        for first in range(0, count, _AT_ONCE):
            asked = [
                ask.future(
                    _check("query_customers", {"segment": "s" * (at % 40)}) if at % 3 else _check("delete_customer", {"customer_id": at}),
                    timeout=_SECONDS,
                )
                for at in range(first, min(first + _AT_ONCE, count))
            ]
            for future in asked:
                found = re.search(rb"x-palisade-decision-id\x12.([0-9a-f-]{36})", future.result())
                assert found, future.result()
                ids.append(found[1].decode())
    return ids


# ---- a log


@dataclasses.dataclass(frozen=True)
class Log:
    path: Path
    key: str
    ids: list[str]  # in the order of asking

    def epochs(self) -> list[Path]:
        return [self.path / line.split()[0] for line in (self.path / "epochs").read_text().splitlines()]

    def copy(self, to: Path) -> Log:
        return dataclasses.replace(self, path=Path(shutil.copytree(self.path, to, ignore=shutil.ignore_patterns("private"))))


def audit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary("debug"), "audit", *arguments], capture_output=True, text=True, timeout=_SECONDS)


def tlog_check(log: Log, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_TOOL, *arguments, "-key", log.key], capture_output=True, text=True, timeout=_SECONDS)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A log of several epochs, whose process was killed once and then ended; nobody may change it."""
    assert os.access(_TOOL, os.X_OK), f"there is no {_TOOL.relative_to(ROOT)}: run tests/tlog/install.sh"
    directory = tmp_path_factory.mktemp("audit")
    path, config = directory / "log", directory / "palisade.toml"
    port, admin = ports.some(2)
    config.write_text(
        _CONFIG.format(port=port, admin=admin, bundle=json.dumps(str(ROOT / "cedar")), log=json.dumps(str(path)), epoch=_EPOCH)
    )
    ids: list[str] = []
    for count in (_CHECKS // 2, _CHECKS - _CHECKS // 2):
        palisade = Component("palisade", [binary("debug"), "serve", "--config", config], directory / "palisade.log", ROOT)
        try:
            palisade.wait_ready(lambda: evidence.answers(admin, "/readyz"), _SECONDS)
            ids += _checks(port, count)
        finally:
            if len(ids) < _CHECKS:
                palisade.kill()
            else:
                palisade.ask_to_stop()
                wait_until(lambda: not palisade.running, "the end of Palisade")
    assert palisade.status == 0, palisade.tail()
    key = audit("key", path)
    assert key.returncode == 0, key.stderr
    yield Log(path, key.stdout.strip(), ids)


@pytest.fixture(scope="module")
def proofs(log: Log, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Proofs of decisions by their ids: the first and the last, on both sides of ends of tiles and epochs, and some by chance."""
    directory = tmp_path_factory.mktemp("proofs")
    places = {0, 1, len(log.ids) - 1, *(around + by for around in (255, 511, 999, 1023, 2000) for by in (-1, 0, 1, 2))}
    places.update(random.sample(range(len(log.ids)), 8))
    made = {log.ids[place]: directory / f"{place}.tlog-proof" for place in places}
    for decision_id, file in made.items():
        proved = audit("prove", log.path, decision_id, "--key", log.key, "--out", file)
        assert proved.returncode == 0, proved.stderr
    return made


def agree(log: Log, file: Path, *, proved: bool) -> None:
    """Both implementations say this of a proof."""
    own, theirs = audit("check-proof", file, "--key", log.key), tlog_check(log, "proof", file)
    codes = (0, 0) if proved else (_TAMPERED, _REFUSED)
    assert (own.returncode, theirs.returncode) == codes, f"{own}\n{theirs}\n{file.read_bytes()!r}"


# ---- the tests


def test_every_epoch_is_what_the_specifications_say(log: Log) -> None:
    verified = audit("verify", log.path, "--key", log.key, "--json")
    assert verified.returncode == 0, verified.stdout
    epochs = log.epochs()
    assert len(epochs) > _CHECKS // _EPOCH
    entries = 0
    for epoch in epochs:
        checked = tlog_check(log, "log", epoch)
        assert checked.returncode == 0, checked.stderr
        told = re.fullmatch(r"verified (\S+): (\d+) entries, (\d+) checkpoints, root [0-9a-f]{64}\n", checked.stdout)
        assert told and told[1] == f"{log.key.split('+')[0]}/{epoch.name}"
        assert int(told[3]) > 1 or epoch == epochs[-1]
        entries += int(told[2])
    assert entries == json.loads(verified.stdout)["entries"]


def test_every_answered_decision_is_in_it(log: Log) -> None:
    shown = audit("show", log.path, "--json")
    assert shown.returncode == 0, shown.stderr
    recorded = [line["decisionId"] for line in map(json.loads, shown.stdout.splitlines()) if "decisionId" in line]
    assert sorted(recorded) == sorted(log.ids)


def test_another_key_verifies_nothing(log: Log, proofs: dict[str, Path]) -> None:
    name = log.key.split("+")[0]
    # The one of the example in the specification of signed notes, and this log's own key under another log's name.
    for key in ("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", _renamed(log.key, f"{name}-other")):
        other = dataclasses.replace(log, key=key)
        assert audit("verify", log.path, "--key", key).returncode == _TAMPERED
        assert tlog_check(other, "log", log.epochs()[0]).returncode == _REFUSED
        agree(other, next(iter(proofs.values())), proved=False)


def _renamed(vkey: str, name: str) -> str:
    key = vkey.split("+", 2)[2]
    digest = hashlib.sha256(name.encode() + b"\n" + base64.b64decode(key)).hexdigest()
    return f"{name}+{digest[:8]}+{key}"


def test_proofs_are_accepted(log: Log, proofs: dict[str, Path]) -> None:
    for decision_id, file in proofs.items():
        agree(log, file, proved=True)
        entry = re.search(rb"^extra (\S+)$", file.read_bytes(), re.MULTILINE)
        assert entry and decision_id.encode() in base64.b64decode(entry[1])


def test_proofs_are_those_that_others_make_from_the_tiles(log: Log, proofs: dict[str, Path]) -> None:
    for file in proofs.values():
        text = file.read_text()
        index, epoch = re.search(r"^index (\d+)$", text, re.MULTILINE), re.search(r"\n\n.+/(\d+)\n", text)
        assert index and epoch
        made = tlog_check(log, "prove", log.path / epoch[1], index[1])
        assert (made.returncode, made.stdout) == (0, text), made.stderr


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _flipped_base64(text: bytes) -> bytes:
    data = base64.b64decode(text)
    return base64.b64encode(_flipped(data, random.randrange(len(data) * 8)))


def test_proofs_in_which_one_bit_differs_are_refused(log: Log, proofs: dict[str, Path], tmp_path: Path) -> None:
    changed = tmp_path / "changed.tlog-proof"
    for file in random.sample(sorted(proofs.values()), 4):
        proof = file.read_bytes()
        head, checkpoint = proof.split(b"\n\n", 1)
        lines = head.split(b"\n") + [b""] + checkpoint.split(b"\n")
        for at, line in enumerate(lines):
            word, _, value = line.rpartition(b" ")
            if word == b"index":
                variants = [b"index %d" % (int(value) ^ 1 << by) for by in range(12)]
            elif len(value) % 4 == 0 and re.fullmatch(rb"[A-Za-z0-9+/]{40,}=*", value):
                # Of the entry, of a hash, of the root, of a signature: what the bytes say, not how they are written.
                variants = [(word + b" " if word else b"") + _flipped_base64(value) for _ in range(4)]
            elif line.isdigit():
                variants = [b"%d" % (int(line) ^ 1 << by) for by in range(12)]
            else:
                variants = []
            for variant in variants:
                changed.write_bytes(b"\n".join([*lines[:at], variant, *lines[at + 1 :]]))
                agree(log, changed, proved=False)
        # Anywhere in the file.
        for bit in random.sample(range(len(proof) * 8), 24):
            changed.write_bytes(_flipped(proof, bit))
            agree(log, changed, proved=False)


def test_proofs_of_which_a_line_is_lost_or_moved_are_refused(log: Log, proofs: dict[str, Path], tmp_path: Path) -> None:
    changed = tmp_path / "changed.tlog-proof"
    first, second = random.sample(sorted(proofs.values()), 2)
    lines = first.read_bytes().split(b"\n")
    for at in range(len(lines)):
        for variant in (lines[:at] + lines[at + 1 :], [*lines[:at], *lines[at : at + 2][::-1], *lines[at + 2 :]]):
            if variant != lines:
                changed.write_bytes(b"\n".join(variant))
                agree(log, changed, proved=False)
    # The entry of one, with the proof of another.
    lines[1] = second.read_bytes().split(b"\n")[1]
    changed.write_bytes(b"\n".join(lines))
    agree(log, changed, proved=False)


def _files(epoch: Path, kind: str) -> tuple[list[Path], list[Path]]:
    """Those of the last checkpoint's tree, and partial ones of earlier checkpoints that larger ones have taken the place of."""
    if kind.startswith("checkpoint"):
        return [epoch / kind], []
    size = int((epoch / "checkpoint").read_text().splitlines()[1]) >> 8 * (int(kind) if kind.isdigit() else 0)
    current = {epoch / "tile" / kind / f"{number:03}" for number in range(size // 256)}
    if size % 256:
        current.add(epoch / "tile" / kind / f"{size // 256:03}.p" / str(size % 256))
    there = {file for file in (epoch / "tile" / kind).rglob("*") if file.is_file()}
    assert there >= current
    return sorted(current), sorted(there - current)


def _changed(log: Log, copy: Log, epoch: Path, file: Path) -> tuple[int, int]:
    """What both say with another bit of this file: their exit codes."""
    whole = file.read_bytes()
    file.write_bytes(_flipped(whole, random.randrange(len(whole) * 8)))
    own, theirs = audit("verify", copy.path, "--key", log.key, "--quiet"), tlog_check(copy, "log", epoch)
    file.write_bytes(whole)
    return own.returncode, theirs.returncode


@pytest.mark.parametrize("kind", ["entries", "0", "1", "checkpoint", "checkpoints"])
def test_a_log_in_which_one_bit_differs_is_refused(log: Log, tmp_path: Path, kind: str) -> None:
    copy = log.copy(tmp_path / "copy")
    for epoch in copy.epochs():
        for file in _files(epoch, kind)[0]:
            assert _changed(log, copy, epoch, file) == (_TAMPERED, _REFUSED), file
    assert audit("verify", copy.path, "--key", log.key).returncode == 0
    assert all(tlog_check(copy, "log", epoch).returncode == 0 for epoch in copy.epochs())


def test_a_log_that_names_an_earlier_checkpoint_is_refused(log: Log, tmp_path: Path) -> None:
    copy = log.copy(tmp_path / "copy")
    for epoch in copy.epochs()[:-1]:
        lines = (epoch / "checkpoints").read_text().splitlines(keepends=True)
        (epoch / "checkpoint").write_text("".join(lines[:5]))  # three of text, an empty one, a signature
        assert audit("verify", copy.path, "--key", log.key).returncode == _TAMPERED
        assert tlog_check(copy, "log", epoch).returncode == _REFUSED
        (epoch / "checkpoint").write_text("".join(lines[-5:]))
    assert audit("verify", copy.path, "--key", log.key).returncode == 0


# Palisade looks at the tiles of the last checkpoint alone.
@pytest.mark.parametrize("who", ["tlog-check"])
@pytest.mark.parametrize("kind", ["entries", "0", "1"])
def test_a_log_of_which_an_earlier_tile_differs_is_refused(log: Log, tmp_path: Path, kind: str, who: str) -> None:
    """A log serves the partial tiles of every checkpoint that it signed, until there are the full ones (tlog-tiles, partial tiles)."""
    copy = log.copy(tmp_path / "copy")
    found = [(epoch, file) for epoch in copy.epochs() for file in _files(epoch, kind)[1]]
    assert found, "no checkpoint left a partial tile"
    for epoch, file in found:
        own, theirs = _changed(log, copy, epoch, file)
        assert theirs == _REFUSED if who == "tlog-check" else own == _TAMPERED, file
