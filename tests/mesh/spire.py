"""SPIRE for the tests: a server and an agent of one trust domain, whose workloads are this user's processes."""

from __future__ import annotations

import functools
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from cryptography import x509

from demo import ports
from demo.mesh import ROOT
from demo.processes import STOP_SECONDS, Component, MeshError, uninterrupted, wait_until

_FOLDER = ROOT / "tests" / "spire"
_TOOLS = ROOT / ".tools" / "spire"

AUDIENCE = "palisade"

_SERVER = """\
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "{name}"
  data_dir = "{folder}"
  log_level = "INFO"
  federation {{
    bundle_endpoint {{
      address = "127.0.0.1"
      port = {endpoint}
      refresh_hint = "1s"
      profile "https_spiffe" {{}}
    }}
  }}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{folder}/server.db"
    }}
  }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""

_AGENT = """\
agent {{
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_domain = "{name}"
  trust_bundle_path = "{folder}/bundle.pem"
  data_dir = "{folder}/agent"
  log_level = "INFO"
  experimental {{ sync_interval = "1s" }}
  {more}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  # With the program's path, so that programs of one user can be told apart.
  WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true }} }}
}}
"""


# Those that are up: whose logs to show when a test fails.
up: list[Spire] = []


class Spire:
    """A trust domain; it runs from `with` to its end."""

    def __init__(self, name: str, agent: str = "") -> None:
        self.name = name
        self._agent = agent  # more of its configuration
        self.components: dict[str, Component] = {}
        # The path of a Unix socket has at most 107 bytes: not below pytest's folders.
        self.directory = Path(tempfile.mkdtemp(prefix=f"palisade-{os.getpid()}-"))
        self._port, self.endpoint_port = ports.some(2)

    def __enter__(self) -> Self:
        try:
            _install()
            up.append(self)
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        values = {
            "name": self.name,
            "folder": self.directory,
            "port": self._port,
            "endpoint": self.endpoint_port,
            "more": self._agent,
        }
        (self.directory / "server.conf").write_text(_SERVER.format(**values))
        (self.directory / "agent.conf").write_text(_AGENT.format(**values))
        self._spawn("server", "run", "-config", self.directory / "server.conf")
        (self.directory / "bundle.pem").write_text(self._server("bundle", "show", "-format", "pem"))
        token = self.server("token", "generate", "-spiffeID", self._node)["value"]
        self._spawn("agent", "run", "-config", self.directory / "agent.conf", "-joinToken", token)

    def _spawn(self, name: str, *arguments: str | Path) -> None:
        program = _TOOLS / f"spire-{name}"
        with uninterrupted():
            log = self.directory / f"{name}.log"
            self.components[name] = Component(f"spire-{name}", [program, *arguments], log, self.directory)
        check = [program, "healthcheck", "-socketPath", self.directory / f"{name}.sock"]
        self.components[name].wait_ready(
            lambda: subprocess.run(check, capture_output=True).returncode == 0
        )

    def stop(self) -> None:
        with uninterrupted():
            running = list(reversed(self.components.values()))
            for component in running:
                component.ask_to_stop()
            deadline = time.monotonic() + STOP_SECONDS
            for component in running:
                component.stopped(deadline)
            self.components.clear()
            if self in up:
                up.remove(self)
            shutil.rmtree(self.directory, ignore_errors=True)

    def stop_agent(self) -> None:
        """End it at once, as a crash would."""
        with uninterrupted():
            self.components.pop("agent").kill()

    # ---------------------------------------------------------------------------------------------------- trust domain

    @property
    def _node(self) -> str:
        return f"spiffe://{self.name}/node"

    @property
    def socket(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def workload_api(self) -> str:
        return f"unix://{self.socket}"

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.endpoint_port}/"

    @property
    def endpoint_id(self) -> str:
        return f"spiffe://{self.name}/spire/server"

    def bundle(self) -> str:
        """In SPIFFE's format, as it is handed to partners."""
        return self._server("bundle", "show", "-format", "spiffe")

    def federate_with(self, other: Spire) -> None:
        """Know the other's bundle, for the workloads whose entries say so."""
        command = self._command("bundle", "set", "-id", f"spiffe://{other.name}", "-format", "spiffe")
        _checked(subprocess.run(command, input=other.bundle(), capture_output=True, text=True))

    def endpoint_is_of(self, authority: str) -> bool:
        """Whether the bundle endpoint's certificate is signed by this authority: the id of its key."""
        text = ssl.get_server_certificate(("127.0.0.1", self.endpoint_port))
        certificate = x509.load_pem_x509_certificate(text.encode())
        signer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        return signer is not None and signer.hex() == authority

    def register(self, spiffe_id: str, *more: str) -> str:
        """A workload: whatever this user runs is one. Returns the id of its entry, once the agent knows it."""
        entry = self.server("entry", "create", *self._workload(spiffe_id), *more)
        # Before, the agent refuses whoever asks.
        self.jwt_svid(spiffe_id, "registered")
        return str(entry["results"][0]["entry"]["id"])

    def register_program(self, spiffe_id: str, program: Path) -> None:
        """A workload: whatever this user runs from that file, and nothing else."""
        self.server("entry", "create", *self._workload(spiffe_id), "-selector", f"unix:path:{program}")

    def change(self, entry: str, spiffe_id: str, *more: str) -> None:
        """Have this entry say this, and nothing else."""
        self.server("entry", "update", "-entryID", entry, *self._workload(spiffe_id), *more)

    def _workload(self, spiffe_id: str) -> list[str]:
        return ["-parentID", self._node, "-spiffeID", spiffe_id, "-selector", f"unix:uid:{os.getuid()}"]

    def jwt_svid(self, spiffe_id: str, audience: str = AUDIENCE) -> str:
        """Fetched from the agent, as soon as that knows the workload."""
        fetched: list[str] = []

        def fetch() -> bool:
            done = subprocess.run(
                [
                    _TOOLS / "spire-agent", "api", "fetch", "jwt", "-socketPath", self.socket,
                    "-audience", audience, "-spiffeID", spiffe_id, "-output", "json",
                ],
                capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode == 0:
                fetched.append(json.loads(done.stdout)[0]["svids"][0]["svid"])
            return done.returncode == 0

        wait_until(fetch, f"a JWT-SVID of {spiffe_id}", every=0.2)
        return fetched[0]

    def server(self, *command: str) -> Any:
        """What the server answers to a command, as JSON."""
        return json.loads(self._server(*command, "-output", "json"))

    def _command(self, *command: str) -> list[str | Path]:
        # A subcommand has several words; flags come after the socket.
        words = [word for word in command if not word.startswith("-")]
        at = next((at for at, word in enumerate(command) if word.startswith("-")), len(words))
        socket = ["-socketPath", self.directory / "server.sock"]
        return [_TOOLS / "spire-server", *command[:at], *socket, *command[at:]]

    def _server(self, *command: str) -> str:
        return _checked(subprocess.run(self._command(*command), capture_output=True, text=True))


def _checked(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        raise MeshError(f"{done.args}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@functools.cache
def _install() -> None:
    done = subprocess.run([_FOLDER / "install.sh"], capture_output=True, text=True)
    if done.returncode != 0:
        raise MeshError(done.stderr.strip())
