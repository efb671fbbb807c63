"""Pods of a mesh on one node: each a network namespace with its own address, its traffic captured for its proxy as Istio does it.

    agent pod ──┐                                      ┌── tool pod: Envoy (15006) ──▶ CRM (8080)
    stranger ───┤ node: routes, and enforces policies  │                └─ Unix socket ─▶ Palisade
    outside ────┘   on everything that passes          ┘

The node is a namespace as well: nothing here touches the machine's own network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import envoys
import netpol
from bundles import at_any_hour

from demo import evidence, mesh
from demo.certs import ThrowAwayCa
from demo.mesh import ROOT
from demo.names import AGENTS, SERVERS
from demo.processes import STOP_SECONDS, Component, MeshError

PROXY_USER = 1337
PALISADE_USER = 65532
APPLICATION_USER = 1000

APPLICATION_PORT = 8080
INBOUND, OUTBOUND = 15006, 15001
AUTHZ_PORT, ADMIN_PORT = 9191, 9192
# Who else there is to reach, each with a web server.
OUTSIDE = {"internet": "203.0.113.10", "metadata": "169.254.169.254", "api-server": "10.96.0.1"}


# What Istio's own init container sets (`istio-iptables`), in the words of nftables.
_CAPTURE = f"""
table ip capture {{
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    tcp dport {{ 15008, 15020, 15021, 15090 }} return
    meta l4proto tcp redirect to :{INBOUND}
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    oifname "lo" ip saddr 127.0.0.6 return
    oifname "lo" ip daddr != 127.0.0.1 meta skuid {PROXY_USER} meta l4proto tcp redirect to :{INBOUND}
    oifname "lo" meta skuid != {PROXY_USER} return
    meta skuid {PROXY_USER} return
    meta skgid {PROXY_USER} return
    ip daddr 127.0.0.1 return
    meta l4proto tcp redirect to :{OUTBOUND}
  }}
}}
"""

_PALISADE = """
[[listener]]
unix = {socket}
unix_mode_octal = "0660"
[[listener]]
tcp = "127.0.0.1:9191"
[admin]
listen = "0.0.0.0:9192"
[identity]
trust_domains = ["example.org"]
[bundle]
path = {bundle}
[record]
path = {records}
"""


class Pods:
    """A context manager: inside it everything runs and is ready, after it nothing is left."""

    def __init__(self, pods: Mapping[str, netpol.Pod], policies: Sequence[netpol.Policy], palisade: Path) -> None:
        """`pods` has "agent", "tool" and "stranger", and may have others, in which nothing runs."""
        self.pods, self.policies, self._palisade = pods, policies, palisade
        self.components: dict[str, Component] = {}
        self._namespaces: list[str] = []

    # ------------------------------------------------------------------------------------------------- start and stop

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _start(self) -> None:
        # Other users than root have to get through to their files.
        self.directory = Path(tempfile.mkdtemp(prefix=f"palisade-{os.getpid()}-"))
        self.directory.chmod(0o755)
        self._make_network()
        self._issue()
        self.path("nothing").mkdir()
        for name, address in OUTSIDE.items():
            serve = ["-m", "http.server", 80, "--bind", address, "--directory", self.path("nothing")]
            self._spawn(name, "outside", 0, sys.executable, *serve)
        database, journal = self.path("crm.db"), self.path("crm.jsonl")
        application = ["-m", "tests.mesh.application", APPLICATION_PORT, database, journal]
        self._spawn("application", "tool", 0, sys.executable, *application)
        self._start_palisade()
        self._start_envoy("tool", self._inbound())
        self._start_envoy("agent", self._outbound())
        self._wait_ready()

    def _stop(self) -> None:
        for component in reversed(self.components.values()):
            component.ask_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        for component in self.components.values():
            component.stopped(deadline)
        for name in self._namespaces:
            _run("ip", "netns", "del", name)
        shutil.rmtree(self.directory, ignore_errors=True)

    # -------------------------------------------------------------------------------------------------------- attempts

    def attempt(self, pod: str, to: Sequence[Any] | str, uid: int = APPLICATION_USER, **wanted: Any) -> dict[str, Any]:
        """What becomes of one attempt of a process in this pod: `status` and so on of an answer, or `refused`."""
        words = json.dumps({"to": to, "uid": uid, **wanted})
        command = ["ip", "netns", "exec", self._namespace(pod), sys.executable, str(ROOT / "tests/mesh/attempt.py"), words]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)

    def certificate_of(self, name: str) -> dict[str, Any]:
        """For `tls`: this workload's certificate; of nobody: none."""
        files = [str(file) for file in self._certificates[name]] if name else None
        return {"root": str(self.ca.root), "certificate": files}

    # ------------------------------------------------------------------------------------------- the rules, and without

    @contextlib.contextmanager
    def without_policies(self) -> Iterator[None]:
        _nft(self._namespace("node"), "flush table inet policies\ndelete table inet policies\n")
        try:
            yield
        finally:
            self._enforce()

    @contextlib.contextmanager
    def without_capture(self, pod: str) -> Iterator[None]:
        """As a pod without a sidecar, or one whose ports are excluded from it."""
        _nft(self._namespace(pod), "flush table ip capture\ndelete table ip capture\n")
        try:
            yield
        finally:
            _nft(self._namespace(pod), _CAPTURE)

    def refusals(self, pod: str, direction: str) -> int:
        """How many packets policies refused this pod, as a sender ("Egress") or as a receiver ("Ingress")."""
        listed = json.loads(_run("ip", "netns", "exec", self._namespace("node"), "nft", "-j", "list", "counters"))
        name = netpol.refusals(self.pods[pod], direction)
        counters = [one["counter"] for one in listed["nftables"] if "counter" in one]
        return sum(one["packets"] for one in counters if one["name"] == name)

    # -------------------------------------------------------------------------------------------------------- evidence

    def path(self, name: str) -> Path:
        return self.directory / name

    @property
    def socket(self) -> Path:
        return self.path("run") / "authz.sock"

    def address(self, pod: str) -> str:
        return self.pods[pod].ip

    def records(self) -> list[evidence.Line]:
        return evidence.lines(self.path("state") / "records.jsonl")

    def record(self, decision_id: str) -> evidence.Line:
        path = self.path("state") / "records.jsonl"
        return evidence.find(path, lambda line: line.get("decisionId") == decision_id, f"decision {decision_id}")

    def arrived(self, marker: str) -> list[evidence.Line]:
        """The requests with this marker in their `x-test` header that reached the application."""
        return [one for one in evidence.lines(self.path("crm.jsonl")) if ["x-test", marker] in one.get("headers", [])]

    # --------------------------------------------------------------------------------------------------------- network

    def _namespace(self, pod: str) -> str:
        return f"palisade-{os.getpid()}-{pod}"

    def _make_network(self) -> None:
        for name in ("node", "outside", *self.pods):
            _run("ip", "netns", "add", self._namespace(name))
            self._namespaces.append(self._namespace(name))
            _run("ip", "-n", self._namespace(name), "link", "set", "lo", "up")
        addresses = {name: [pod.ip] for name, pod in self.pods.items()} | {"outside": [*OUTSIDE.values()]}
        for at, (name, ips) in enumerate(addresses.items()):
            self._wire(name, ips, at)
        forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"
        _run("ip", "netns", "exec", self._namespace("node"), "sh", "-c", forward)
        for pod in ("agent", "tool"):
            _nft(self._namespace(pod), _CAPTURE)
        self._enforce()

    def _wire(self, name: str, ips: Sequence[str], at: int) -> None:
        """A cable from the node, which is the way to everything else."""
        inside, node = self._namespace(name), self._namespace("node")
        link, gateway = f"to-{name}"[:15], f"192.0.2.{4 * at + 1}"
        _run("ip", "-n", node, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", inside)
        _run("ip", "-n", node, "addr", "add", f"{gateway}/32", "dev", link)
        _run("ip", "-n", node, "link", "set", link, "up")
        for ip in ips:
            _run("ip", "-n", inside, "addr", "add", f"{ip}/32", "dev", "eth0")
        _run("ip", "-n", inside, "link", "set", "eth0", "up")
        _run("ip", "-n", inside, "route", "add", gateway, "dev", "eth0", "scope", "link")
        _run("ip", "-n", inside, "route", "add", "default", "via", gateway)
        for ip in ips:
            _run("ip", "-n", node, "route", "add", ip, "dev", link, "scope", "link")

    def _enforce(self) -> None:
        _nft(self._namespace("node"), netpol.ruleset(self.policies, list(self.pods.values())))

    # ------------------------------------------------------------------------------------------------------- processes

    def _spawn(self, name: str, pod: str, user: int, *command: object, group: int | None = None) -> None:
        into = ["ip", "netns", "exec", self._namespace(pod)]
        ids = ["--reuid", user, "--regid", user if group is None else group, "--clear-groups"]
        # Who gives up being root also forgets to die with its parent.
        words = [*into, "setpriv", *ids, "--pdeathsig", "TERM", "--", *command]
        self.components[name] = Component(name, list(map(str, words)), self.path(f"{name}.log"), cwd=ROOT)

    def _reachable(self, program: Path) -> Path:
        """The same program where other users than root get to it."""
        place = self.path(program.name)
        if not place.exists():
            try:
                os.link(program.resolve(), place)
            except OSError:  # another disk
                shutil.copy(program, place)
        return place

    def _issue(self) -> None:
        self.ca = ThrowAwayCa(self.path("certs"))
        agents = {name: AGENTS[name] for name in ("support-bot", "coder")}
        self._certificates = {name: self.ca.issue(name, spiffe_id) for name, spiffe_id in {**agents, **SERVERS}.items()}
        for path in [self.path("certs"), *self.path("certs").iterdir()]:
            os.chown(path, PROXY_USER, PROXY_USER)

    def _start_palisade(self) -> None:
        for name, mode in {"run": 0o2770, "state": 0o750}.items():
            # As an `emptyDir` of a pod with `fsGroup` 1337 is.
            self.path(name).mkdir()
            os.chown(self.path(name), PALISADE_USER, PROXY_USER)
            self.path(name).chmod(mode)
        bundle = at_any_hour(self.path("bundle"))
        _readable(bundle)
        config = self.path("palisade.toml")
        words = {"socket": self.socket, "bundle": bundle, "records": self.path("state") / "records.jsonl"}
        config.write_text(_PALISADE.format(**{key: json.dumps(str(value)) for key, value in words.items()}))
        program = self._reachable(self._palisade)
        self._spawn("palisade", "tool", PALISADE_USER, program, "serve", "--config", config, group=PROXY_USER)

    def _start_envoy(self, pod: str, config: Mapping[str, Any]) -> None:
        path = self.path(f"{pod}.yaml")
        path.write_text(json.dumps(config))  # JSON is YAML
        options = ["--concurrency", 1, "--disable-hot-restart", "--log-level", "warning", "--file-flush-interval-msec", 100]
        self._spawn(f"{pod}-envoy", pod, PROXY_USER, self._reachable(mesh.envoy()), "-c", path, *options)

    def _inbound(self) -> dict[str, Any]:
        """`envoy/tools.yaml` as the proxy of the tool's pod: where its capture leads, with the application on TCP."""
        config = envoys.config(
            "tools.yaml", CERTS=self.path("certs"), CRM_PORT=INBOUND, CRM_SOCKET="none", RESEARCHER_SOCKET="none", A2A_PORT=0,
            OTLP_PORT=4317, AUTHZ_PORT=AUTHZ_PORT, ADMIN_PORT=15000, ACCESS_LOG="/dev/null", UPGRADES="[]",
        )  # fmt: skip
        envoys.listener(config, "crm")["address"] = envoys.tcp("0.0.0.0", INBOUND)
        envoys.lead(config, "palisade", {"pipe": {"path": str(self.socket)}})
        envoys.lead(config, "crm_server", envoys.tcp("127.0.0.1", APPLICATION_PORT))
        return config

    def _outbound(self) -> dict[str, Any]:
        """`envoy/agents.yaml` as the support bot's proxy; to whom it does not know it leads as Istio does by default: as asked."""
        config = envoys.config(
            "agents.yaml", AGENT="support-bot", AGENT_PORT=OUTBOUND, CERTS=self.path("certs"),
            CRM_PORT=APPLICATION_PORT, A2A_PORT=0, ADMIN_PORT=15000,
        )  # fmt: skip
        listener = envoys.listener(config, "support-bot")
        listener["address"] = envoys.tcp("0.0.0.0", OUTBOUND)
        types = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
        listener["listener_filters"] = [{"name": "original_dst", "typed_config": {"@type": types}}]
        anything = {"match": {"prefix": "/"}, "route": {"cluster": "passthrough", "timeout": "5s"}}
        hosts = envoys.manager(listener)["route_config"]["virtual_hosts"]
        hosts.append({"name": "anything", "domains": ["*"], "routes": [anything]})
        passthrough = {"name": "passthrough", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s"}
        config["static_resources"]["clusters"].append(passthrough)
        envoys.lead(config, "support-bot-crm", envoys.tcp(self.address("tool"), APPLICATION_PORT))
        return config

    def _wait_ready(self) -> None:
        asks = {
            "palisade": ("tool", ["127.0.0.1", ADMIN_PORT], "/readyz"),
            "application": ("tool", ["127.0.0.1", APPLICATION_PORT], "/status"),
            "tool-envoy": ("tool", ["127.0.0.1", 15000], "/ready"),
            "agent-envoy": ("agent", ["127.0.0.1", 15000], "/ready"),
        } | {name: ("outside", [address, 80], "/") for name, address in OUTSIDE.items()}
        for name, (pod, to, path) in asks.items():
            def ready(pod: str = pod, to: Sequence[Any] = to, path: str = path) -> bool:
                return self.attempt(pod, to, path=path, host="crm.example.org").get("status") == 200

            self.components[name].wait_ready(ready)


def _readable(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _run(*words: str, text: str | None = None) -> str:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, input=text, env=environment)
    if done.returncode:
        raise MeshError(f"{' '.join(words)}: {done.stderr.strip()} (it takes root, and Debian's iproute2 and nftables)")
    return done.stdout


def _nft(namespace: str, rules: str) -> None:
    _run("ip", "netns", "exec", namespace, "nft", "-f", "-", text=rules)
