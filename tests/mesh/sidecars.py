"""Pods of one service whose sidecars come and go: each a Palisade and a tools' Envoy, in front of a mesh's CRM; and the Envoy of
an agent that calls them, to which somebody says which of them there are, as a control plane does.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import envoys

from demo import evidence, mesh, ports, wire
from demo.mesh import ROOT, Mesh
from demo.processes import Component, wait_until

AGENT = "support-bot"
# Here is looked at order, not at speed: a debug build on a busy machine has all the time it needs.
_DECIDES_MS, _ENVOY_WAITS = 20_000, "30s"

_CONFIG = """
[[listener]]
{listener}
[admin]
listen = "127.0.0.1:{admin}"
[identity]
trust_domains = ["example.org"]
[bundle]
path = {bundle}
[audit]
directory = {log}
[server]
deadline_ms = {deadline}
drain_seconds = 30
"""


class Pod:
    """Palisade and the Envoy that asks it; nothing is started at first."""

    def __init__(self, mesh: Mesh, name: str, unix: bool) -> None:
        self.mesh, self.name = mesh, name
        self.port, self._authz, self._palisade_admin, self._envoy_admin = ports.some(4)
        self._socket = mesh.path(f"{name}.sock") if unix else None

    # --------------------------------------------------------------------------------------------------- start and end

    def start_palisade(self) -> None:
        """Returns when it is ready."""
        where = f"unix = {_toml(self._socket)}" if self._socket else f'tcp = "127.0.0.1:{self._authz}"'
        config = self.mesh.path(f"{self.name}.toml")
        config.write_text(
            _CONFIG.format(
                listener=where,
                admin=self._palisade_admin,
                bundle=_toml(self.mesh.settings.bundle.resolve()),
                log=_toml(self._log),
                deadline=_DECIDES_MS,
            )
        )
        self._palisade = self._spawn("palisade", self.mesh.settings.palisade, "serve", "--config", config)
        self._palisade.wait_ready(lambda: evidence.answers(self._palisade_admin, "/readyz"))

    def start_envoy(self) -> None:
        """Returns when it is ready."""
        config = envoys.config(
            "tools.yaml", CERTS=self.mesh.path("certs"), CRM_PORT=self.port, CRM_SOCKET=self.mesh.path("crm.sock"),
            A2A_PORT=0, RESEARCHER_SOCKET=self.mesh.path("researcher.sock"), OTLP_PORT=self.mesh.ports.otlp,
            AUTHZ_PORT=self._authz, ADMIN_PORT=self._envoy_admin, UPGRADES="[]",
            ACCESS_LOG=self.mesh.path(f"{self.name}-access.jsonl"),
        )  # fmt: skip
        crm = envoys.listener(config, "crm")
        envoys.ext_authz(crm)["grpc_service"]["timeout"] = _ENVOY_WAITS
        if self._socket:
            envoys.lead(config, "palisade", {"pipe": {"path": str(self._socket)}})
        self._envoy = self._spawn("envoy", *_envoy(self.mesh.path(f"{self.name}-envoy.yaml"), config))
        self._envoy.wait_ready(lambda: evidence.answers(self._envoy_admin, "/ready"))

    def end_envoy(self) -> None:
        """As Istio ends it: not healthy, draining, ended when nobody is connected any more."""
        for page in ("/healthcheck/fail", "/drain_listeners?graceful&skip_exit"):
            assert wire.send(wire.plain(self._envoy_admin), "POST", "localhost", page, body=b"").status == 200
        wait_until(lambda: self._connected() == 0, f"nobody is connected to {self.name}")
        _end(self._envoy)

    def end_palisade(self) -> int | None:
        """SIGTERM, and its exit code."""
        return _end(self._palisade)

    def ask_palisade_to_end(self) -> None:
        self._palisade.ask_to_stop()

    # -------------------------------------------------------------------------------------------------------- evidence

    def records(self) -> list[evidence.Line]:
        """All decisions, of a Palisade that has ended."""
        show = [self.mesh.settings.palisade, "audit", "show", self._log, "--json"]
        shown = subprocess.run(show, check=True, stdout=subprocess.PIPE, text=True).stdout
        return [line for line in map(json.loads, shown.splitlines()) if "decisionId" in line]

    @property
    def _log(self) -> Path:
        return self.mesh.path(f"{self.name}-log")

    def _connected(self) -> int:
        page = evidence.get(self._envoy_admin, "/stats?filter=^http.crm.downstream_cx_active$").body.decode()
        return int(page.split(":")[1])

    def _spawn(self, what: str, *command: object) -> Component:
        return _spawn(self.mesh, f"{self.name}-{what}", *command)


class Client:
    """The agent's Envoy."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self._version = mesh, 0
        self.port, self._admin = ports.some(2)
        self._endpoints = mesh.path("endpoints.json")

    def start(self) -> None:
        config = envoys.config(
            "agents.yaml", AGENT=AGENT, AGENT_PORT=self.port, CERTS=self.mesh.path("certs"), CRM_PORT=0, A2A_PORT=0,
            ADMIN_PORT=self._admin,
        )  # fmt: skip
        config["node"] = {"id": AGENT, "cluster": AGENT}
        crm = envoys.cluster(config, f"{AGENT}-crm")
        del crm["load_assignment"]
        crm["type"] = "EDS"
        crm["eds_cluster_config"] = {"eds_config": {"path_config_source": {"path": str(self._endpoints)}}}
        component = _spawn(self.mesh, "client", *_envoy(self.mesh.path("client.yaml"), config))
        component.wait_ready(lambda: evidence.answers(self._admin, "/ready"))

    def use(self, *pods: Pod) -> None:
        """Says which pods there are; returns when the Envoy knows."""
        self._version += 1
        type = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
        there = [{"endpoint": {"address": envoys.tcp("127.0.0.1", pod.port)}} for pod in pods]
        resource = {"@type": type, "cluster_name": f"{AGENT}-crm", "endpoints": [{"lb_endpoints": there}]}
        aside = self._endpoints.with_suffix(".tmp")
        aside.write_text(json.dumps({"version_info": str(self._version), "resources": [resource]}))
        os.replace(aside, self._endpoints)
        if "client" in self.mesh.components:
            wanted = {pod.port for pod in pods}
            wait_until(lambda: self._knows() == wanted, "the agent's Envoy knows the pods")

    def _knows(self) -> set[int]:
        page = evidence.get(self._admin, "/clusters").body.decode()
        hosts = [line.split("::") for line in page.splitlines() if line.startswith(f"{AGENT}-crm::127.0.0.1:")]
        return {int(words[1].rpartition(":")[2]) for words in hosts}


class Load:
    """Callers without a pause, though not for ever, and every answer with the moments between which it was asked for and came."""

    def __init__(self, port: int, callers: int = 4, at_most: int = 20_000) -> None:
        self.answers: list[tuple[float, float, wire.Answer]] = []
        self._port, self._each = port, at_most // callers
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        for _ in range(self._each):
            if self._stop.is_set():
                return
            asked = time.monotonic()
            answer = wire.call_tool(wire.plain(self._port, timeout=60), "query_customers", {})
            self.answers.append((asked, time.monotonic(), answer))

    def goes_on(self, status: int, more: int = 100) -> None:
        """Returns after so many more answers with this status."""
        start = len(self.answers)

        def came() -> bool:
            assert any(thread.is_alive() for thread in self._threads), "so many calls were not thought of"
            return sum(answer.status == status for _, _, answer in self.answers[start:]) >= more

        wait_until(came, f"{more} more answers {status}", 120)


def _spawn(mesh: Mesh, name: str, *command: object) -> Component:
    component = Component(name, list(map(str, command)), mesh.path(f"{name}.log"), cwd=ROOT)
    mesh.components[name] = component
    return component


def _envoy(path: Path, config: envoys.Config) -> Sequence[Any]:
    path.write_text(json.dumps(config))  # JSON is YAML
    return [mesh.envoy(), "-c", path, "--concurrency", 1, "--disable-hot-restart", "--log-level", "warning"]


def _end(component: Component) -> int | None:
    component.ask_to_stop()
    component.stopped(time.monotonic() + 60)
    return component.status


def _toml(path: Path | None) -> str:
    return json.dumps(str(path))
