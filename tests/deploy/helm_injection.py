"""The chart's template, merged into a pod by Istio's own injector. On demand, for istioctl takes long to build:

python -m pytest tests/deploy/helm_injection.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import charts
import pytest
import yaml

# Nothing answers there: the injector has its configuration from files.
NOWHERE = """
apiVersion: v1
kind: Config
clusters: [{name: x, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: x, context: {cluster: x, user: x}}]
users: [{name: x, user: {}}]
current-context: x
"""


def istioctl(folder: Path, *arguments: str) -> str:
    (folder / "kubeconfig").write_text(NOWHERE)
    program = os.environ.get("ISTIOCTL") or charts.program("istioctl")
    environment = dict(os.environ, KUBECONFIG=str(folder / "kubeconfig"))
    done = subprocess.run([program, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def injected(case: str, folder: Path, native: bool, plugin: bool) -> dict[str, Any]:
    """A tool's pod, through `istioctl kube-inject` with the configuration that istiod's own chart makes of the values that ours hands over."""
    [handed] = [one for one in charts.of_kind(case, "ConfigMap") if one["metadata"]["name"].endswith("-injection")]
    values = yaml.safe_load(handed["data"]["istiod-values.yaml"])
    operator = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator",
                "spec": {"profile": "default", "components": {"cni": {"enabled": plugin}}, "values": values}}
    (folder / "operator.yaml").write_text(yaml.safe_dump(operator))
    manifests = charts.load(istioctl(folder, "manifest", "generate", "-f", str(folder / "operator.yaml")))
    maps = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
    pod = charts.tool_pod()
    pod["metadata"]["annotations"]["sidecar.istio.io/nativeSidecar"] = str(native).lower()
    injector = maps["istio-sidecar-injector"]
    for name, text in {"config": injector["config"], "values": injector["values"], "mesh": maps["istio"]["mesh"], "pod": yaml.safe_dump(pod)}.items():
        (folder / name).write_text(text)
    [made] = charts.load(istioctl(
        folder, "kube-inject", "--revision", "default", "--injectConfigFile", str(folder / "config"),
        "--valuesFile", str(folder / "values"), "--meshConfigFile", str(folder / "mesh"), "-f", str(folder / "pod")))
    # What only this way of asking needs, and the images of the release that is tried.
    del made["metadata"]["annotations"]["sidecar.istio.io/nativeSidecar"]
    made["metadata"].pop("creationTimestamp", None)
    made.pop("status", None)
    for one in [*made["spec"]["initContainers"], *made["spec"]["containers"]]:
        if one["name"].startswith("istio-"):
            one["image"] = "registry.example/proxyv2:1.31.1"
    return made


@pytest.mark.parametrize(("case", "native", "plugin"), [("sidecar", True, True), ("sidecar-classic", False, False)])
def test_istio_puts_palisade_beside_its_proxy(case: str, native: bool, plugin: bool, tmp_path: Path):
    pod = injected(case, tmp_path, native, plugin)
    charts.conforms([pod], "1.37.2")
    assert charts.admission(charts.objects(case), [{"object": pod, "subresource": ""}], tmp_path) == [[]]
    every = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    assert [one["name"] for one in every if any(mount["name"] == "palisade-socket" for mount in one.get("volumeMounts", []))] == (
        ["istio-proxy", "palisade"] if native else ["palisade", "istio-proxy"])
    beside = {one["name"]: one.get("restartPolicy") for one in pod["spec"]["initContainers"]}
    assert (beside.get("istio-proxy"), beside.get("palisade")) == (("Always", "Always") if native else (None, None))
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == "15020"


def test_admission_would_not_take_what_the_plugin_is_told_to_leave_out(tmp_path: Path):
    pod = injected("sidecar", tmp_path, True, True)
    pod["metadata"]["annotations"]["traffic.sidecar.istio.io/excludeInboundPorts"] = "15020,8080"
    [messages] = charts.admission(charts.objects("sidecar"), [{"object": pod, "subresource": ""}], tmp_path)
    assert any("left out of capture" in one for one in messages)
