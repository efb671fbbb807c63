"""What istiod makes of the resources of `istio/`: its own code, without a cluster (tools/istiod)."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml
from istio_sets import ROOT, TOOLS, Json, mesh_config, resources, run

FIXTURES = ROOT / "tests" / "deploy" / "fixtures" / "istio"
DUMPS = ["sidecar-unix", "sidecar-loopback", "egress-gateway", "ingress-gateway", "waypoint"]
_CORE = {"v1", "apps/v1"}


def _service(namespace: str, name: str, port: int, address: str, app_protocol: str, selector: Json) -> Json:
    ports = [{"name": "port", "port": port, "targetPort": port, "appProtocol": app_protocol, "protocol": "TCP"}]
    spec = {"clusterIP": address, "clusterIPs": [address], "ports": ports, "selector": selector}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _pod(namespace: str, name: str, address: str, labels: Json, annotations: Json | None = None) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations or {}},
        "spec": {"serviceAccountName": name, "containers": [{"name": name}]},
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


class World:
    """Files of `istio/` as they are applied, and the pods whose proxies are asked about."""

    def __init__(self, *places: str, without: str = "") -> None:
        self.kubernetes: list[Json] = []
        self.istio: list[Json] = []
        self.proxies: list[Json] = []
        for it in resources():
            folder = it.file.rsplit("/", 1)[0]
            if folder in ("mesh", *places) and str(it) != without:
                self._apply(it.body, it.file)
        # What the resources name and do not bring.
        http, grpc = ("10.96.1.1", "http"), ("10.96.1.2", "grpc")
        self.kubernetes += [
            _service("agents", "researcher", 80, *http, {"app": "researcher"}),
            _service("observability", "otel-collector", 4317, *grpc, {"app": "otel-collector"}),
        ]

    def _apply(self, resource: Json, file: str) -> None:
        body = copy.deepcopy(resource)
        if body["apiVersion"] not in _CORE:
            if file == "sidecar/checks.yaml":
                body["metadata"]["namespace"] = "tools"
            target = self.kubernetes if body["apiVersion"].startswith("gateway.networking.k8s.io") else self.istio
            target.append(body)
        elif body["kind"] == "Service":
            body["spec"] |= {"clusterIP": f"10.96.0.{len(self.kubernetes) + 1}"}
            body["spec"]["clusterIPs"] = [body["spec"]["clusterIP"]]
            for port in body["spec"]["ports"]:
                port["protocol"] = "TCP"
            self.kubernetes.append(body)
        elif body["kind"] == "Namespace":
            self.kubernetes.append(body)

    def proxy(self, name: str, kind: str, namespace: str, account: str, labels: Json, annotations: Json) -> None:
        address = f"10.1.0.{len(self.proxies) + 1}"
        self.kubernetes.append(_pod(namespace, account, address, labels, annotations))
        self.proxies.append({
            "name": name, "type": kind, "namespace": namespace, "serviceAccount": account, "address": address,
            "labels": labels, "annotations": annotations,
        })  # fmt: skip

    def generate(self, **environment: str) -> dict[str, Json]:
        run("tests/deploy/install.sh", "istiod")
        mesh = {**mesh_config(), "rootNamespace": "istio-system"}
        asked = {
            "kubernetes": "\n---\n".join(map(yaml.safe_dump, self.kubernetes)),
            "istio": "\n---\n".join(map(yaml.safe_dump, self.istio)),
            "mesh": yaml.safe_dump(mesh),
            "proxies": self.proxies,
        }
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "dumps.json"
            done = subprocess.run(
                [TOOLS / "istiod", answer], input=json.dumps(asked), capture_output=True, text=True, timeout=120,
                env={**os.environ, **environment},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[:4000]
            return {name: stable(dump) for name, dump in json.loads(answer.read_text()).items()}


# Lists without an order: istiod builds them from maps.
_SETS = {"dynamic_listeners", "dynamic_active_clusters", "dynamic_route_configs"}


def stable(value: Any) -> Any:
    """The same text for the same configuration: sorted, but for lists in which order matters."""
    if isinstance(value, dict):
        inside = {key: stable(value[key]) for key in sorted(value)}
        return {key: sorted(one, key=json.dumps) if key in _SETS else one for key, one in inside.items()}
    if isinstance(value, list):
        return [stable(inside) for inside in value]
    return value


def generate() -> dict[str, Json]:
    """A config dump for each of `DUMPS`."""
    crm = {"app": "crm"}
    unix = World("sidecar", "sidecar/unix", "egress-gateway", "ingress-gateway")
    unix.proxy("sidecar-unix", "sidecar", "tools", "crm", crm, {})
    for gateway in ("egress", "ingress"):
        labels = {"istio": f"{gateway}-gateway"}
        unix.proxy(f"{gateway}-gateway", "router", gateway, f"{gateway}-gateway", labels, {})
    loopback = World("sidecar", "sidecar/loopback", without="mesh/provider.yaml ServiceEntry palisade-ext-authz")
    loopback.proxy("sidecar-loopback", "sidecar", "tools", "crm", crm, {})
    return {**unix.generate(), **loopback.generate(), **_ambient().generate(PILOT_ENABLE_AMBIENT="true")}


def _ambient() -> World:
    world = World("waypoint")
    named = {"gateway.networking.k8s.io/gateway-name": "waypoint"}
    service = _service("tools", "waypoint", 15008, "10.96.2.1", "hbone", named)
    world.kubernetes.append(service)
    for body in world.kubernetes:
        if body["kind"] == "Gateway":
            annotations = body["spec"]["infrastructure"]["annotations"]
            # As istiod's own controller says once the waypoint is there.
            body["status"] = {"addresses": [{"type": "Hostname", "value": "waypoint.tools.svc.cluster.local"}]}
    world.proxy("waypoint", "waypoint", "tools", "waypoint", named, annotations)
    world.kubernetes.append(_pod("tools", "crm", "10.1.1.1", {"app": "crm"}, {"ambient.istio.io/redirection": "enabled"}))
    return world
