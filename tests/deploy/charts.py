"""Helm and kubeconform, and the chart that they look at."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

import schemas
from demo.certs import ThrowAwayCa

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/palisade"
VALUES = Path(__file__).parent / "helm"
CASES = sorted(path.stem for path in VALUES.glob("*.yaml"))

Object = dict[str, Any]


@functools.cache
def program(name: str) -> str:
    """A program of tests/deploy/tools, built if need be."""
    subprocess.run([ROOT / "tests/deploy/install.sh", name], check=True)
    return str(ROOT / ".tools/deploy" / name)


def palisade() -> str:
    found = os.environ.get("PALISADE") or str(ROOT / "target/debug/palisade")
    assert Path(found).is_file(), f"{found} is missing: cargo build, or name another one in PALISADE"
    return found


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("helm"), *arguments], capture_output=True, text=True)


def values(case: str) -> Path:
    return VALUES / f"{case}.yaml"


def templating(case: str) -> list[str]:
    return ["template", "palisade", str(CHART), "--namespace", "palisade-system", "--kube-version", "1.34.4", "--values", str(values(case))]


@functools.cache
def template(case: str) -> str:
    done = helm(*templating(case))
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(text: str) -> list[Object]:
    return [one for one in yaml.safe_load_all(text) if one]


def objects(case: str) -> list[Object]:
    return load(template(case))


def of_kind(case: str, kind: str) -> list[Object]:
    return [one for one in objects(case) if one["kind"] == kind]


def configuration_text(case: str) -> str:
    return next(one["data"]["palisade.toml"] for one in of_kind(case, "ConfigMap") if "palisade.toml" in one["data"])


def configuration(case: str) -> Object:
    return tomllib.loads(configuration_text(case))


def check_configuration(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`palisade config check`, with what the pod would have at /etc, /var and /run below a folder."""
    for place in ("/etc/palisade", "/var/lib/palisade", "/run/palisade"):
        (folder / place[1:]).mkdir(parents=True)
        text = text.replace(f'"{place}/', f'"{folder}{place}/')
    bundle = folder / "etc/palisade/bundle"
    # What is fetched is a folder in the volume, to which a link leads.
    shutil.copytree(ROOT / "cedar", bundle / "current" if "bundle/current" in text else bundle)
    ThrowAwayCa(folder / "authority").issue("palisade", "spiffe://cluster.local/ns/palisade-system/sa/palisade")
    control = folder / "etc/palisade/control"
    control.mkdir()
    for name, made in {"tls.crt": "palisade.pem", "tls.key": "palisade.key", "ca.crt": "ca.pem"}.items():
        shutil.copy(folder / "authority" / made, control / name)
    secrets = folder / "etc/palisade/secrets"
    secrets.mkdir()
    for name, content in {"palisade.key": bytes(range(32)), "log.key": b"5a" * 32, "store.password": b"secret"}.items():
        (secrets / name).write_bytes(content)
        (secrets / name).chmod(0o440)
    shutil.copy(control / "ca.crt", secrets / "store-ca.pem")
    file = folder / "etc/palisade/palisade.toml"
    file.write_text(text)
    return subprocess.run([palisade(), "config", "check", file], capture_output=True, text=True)


def check_bundle(bundle: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([palisade(), "check", "--bundle", bundle], capture_output=True, text=True)


def injected(case: str, pod: Object | None = None) -> list[Object]:
    """A pod, a tool's unless another is given, as Istio's injector leaves it: with a proxy, and the template of the chart merged over it."""
    maps = [one for one in of_kind(case, "ConfigMap") if one["metadata"]["name"].endswith("-injection")]
    if not maps:
        return []
    text = yaml.safe_load(maps[0]["data"]["istiod-values.yaml"])["sidecarInjectorWebhook"]["templates"]["palisade"]
    # The only thing that the template asks of the pod is whether it has a group for its files: here it has none.
    overlay = yaml.safe_load("\n".join(line for line in text.splitlines() if not line.strip().startswith("{{")))
    pod = copy.deepcopy(pod) if pod else tool_pod()
    add_proxy(pod, native="initContainers" in overlay["spec"] and "containers" not in overlay["spec"])
    merge(pod, overlay)
    return [pod]


def tool_pod() -> Object:
    application = {
        "name": "application",
        "image": "registry.example/crm:1",
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    metadata = {"name": "crm", "namespace": "tools", "labels": {"app": "crm"},
                "annotations": {"inject.istio.io/templates": "sidecar,palisade"}}
    spec = {"serviceAccountName": "crm", "containers": [application]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


REDIRECTION = ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*",
               "-d", "15090,15021,15020", "--log_output_level=default:info"]
CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "privileged": False, "readOnlyRootFilesystem": True,
            "runAsNonRoot": True, "runAsUser": 1337, "runAsGroup": 1337}


def add_proxy(pod: Object, native: bool) -> None:
    """What the injector's own template does to a pod, but for fields of status and resources; helm_injection.py has the injector itself do it."""
    of_pod = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "INSTANCE_IP": "status.podIP",
              "SERVICE_ACCOUNT": "spec.serviceAccountName", "HOST_IP": "status.hostIP", "ISTIO_META_NODE_NAME": "spec.nodeName"}
    written = {"PILOT_CERT_PROVIDER": "istiod", "CA_ADDR": "istiod.istio-system.svc:15012", "PROXY_CONFIG": "{}\n",
               "ISTIO_META_APP_CONTAINERS": "application", "ISTIO_META_INTERCEPTION_MODE": "REDIRECT", "TRUST_DOMAIN": "cluster.local"}
    mounts = {"workload-socket": "/var/run/secrets/workload-spiffe-uds", "istiod-ca-cert": "/var/run/secrets/istio",
              "istio-data": "/var/lib/istio/data", "istio-envoy": "/etc/istio/proxy", "istio-token": "/var/run/secrets/tokens",
              "istio-podinfo": "/etc/istio/pod"}
    ready: Object = {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 15}
    proxy: Object = {
        "name": "istio-proxy",
        "image": "registry.example/proxyv2:1.31.1",
        "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--proxyLogLevel=warning",
                 "--proxyComponentLogLevel=misc:error", "--log_output_level=default:info"],
        "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in of_pod.items()]
        + [{"name": name, "value": value} for name, value in written.items()],
        "readinessProbe": ready,
        "securityContext": copy.deepcopy(CONFINED),
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    if native:
        drain = ["pilot-agent", "request", "--debug-port=15020", "POST", "drain"]
        validation = {"name": "istio-validation", "image": proxy["image"], "args": [*REDIRECTION, "--run-validation", "--skip-rule-apply"],
                      "securityContext": copy.deepcopy(CONFINED)}
        proxy |= {"restartPolicy": "Always", "startupProbe": copy.deepcopy(ready), "lifecycle": {"preStop": {"exec": {"command": drain}}}}
        pod["spec"].setdefault("initContainers", [])[:0] = [validation, proxy]
    else:
        pod["spec"]["containers"].append(proxy)
    token = {"serviceAccountToken": {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}
    pod["spec"].setdefault("volumes", []).extend([
        {"name": "workload-socket"},
        {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
        {"name": "istio-data", "emptyDir": {}},
        {"name": "istio-token", "projected": {"sources": [token]}},
        {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
        {"name": "istio-podinfo", "downwardAPI": {"items": [
            {"path": path, "fieldRef": {"fieldPath": f"metadata.{path}"}} for path in ("labels", "annotations")]}},
    ])
    pod["metadata"].setdefault("labels", {})["security.istio.io/tlsMode"] = "istio"
    pod["metadata"].setdefault("annotations", {}).update({"istio.io/rev": "default", "sidecar.istio.io/status": "{}"})


def merge(into: Object, overlay: Object) -> None:
    """Strategic merge as far as pods need it: maps by key, lists of named things by name."""
    for key, value in overlay.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            existing = into.setdefault(key, [])
            by = "mountPath" if key == "volumeMounts" else "name"
            for one in value:
                same = [old for old in existing if old.get(by) == one.get(by)]
                if same:
                    merge(same[0], one)
                else:
                    existing.append(copy.deepcopy(one))
        else:
            into[key] = value


def conforms(manifests: list[Object], version: str) -> None:
    """Kubeconform takes all of them, by schemas that know no other field."""
    schemas.main()
    where = [f"{schemas.SCHEMAS}/{folder}/{schemas.LOCATION}" for folder in (version, "custom")]
    done = subprocess.run(
        [program("kubeconform"), "-strict", "-output", "json", "-summary", *(f"-schema-location={one}" for one in where)],
        input=yaml.safe_dump_all(manifests), capture_output=True, text=True,
    )
    answer = json.loads(done.stdout)
    assert done.returncode == 0, json.dumps(answer, indent=1) + done.stderr
    assert answer["summary"]["valid"] == len(manifests), answer["summary"]


def admission(policies: list[Object], pods: list[Object], folder: Path) -> list[list[str]]:
    """By which messages each pod is refused; each is {"object": …, "subresource": …}."""
    file = folder / "policies.yaml"
    file.write_text(yaml.safe_dump_all(policies))
    done = subprocess.run([program("admission"), str(file)], input=json.dumps(pods), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bundle_with_agents(folder: Path) -> Path:
    """The default bundle, a code runner in it, and what the chart adds."""
    bundle = folder / "bundle"
    shutil.copytree(ROOT / "cedar", bundle)
    targets = bundle / "targets.toml"
    targets.write_text(targets.read_text() + CODE_RUNNER)
    [added] = [one for one in of_kind("sidecar", "ConfigMap")
               if one["metadata"]["name"] == "palisade-agents" and one["metadata"]["namespace"] == "tools"]
    for name, text in added["data"].items():
        (bundle / name).write_text(text)
    return bundle


CODE_RUNNER = """
[[target]]
name = "code-runner"
protocol = "mcp"
message_paths = ["/mcp"]

[target.match]
destination_principal = "spiffe://cluster.local/ns/tools/sa/code-runner"
"""
