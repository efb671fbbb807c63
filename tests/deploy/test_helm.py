"""The chart renders what is in goldens/helm for each file of values in helm/, all of it is what Kubernetes takes, and what it says
of safety holds for every pod in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import charts
from charts import CASES, ROOT

GOLDENS = Path(__file__).parent / "goldens/helm"
ALL = pytest.mark.parametrize("case", CASES)


def test_there_is_a_golden_for_each_case_and_no_other():
    assert {path.stem for path in GOLDENS.glob("*.yaml")} == set(CASES)


@ALL
def test_the_chart_renders_its_golden(case: str):
    rendered = charts.template(case)
    golden = GOLDENS / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(rendered)
    assert rendered == golden.read_text(), f"UPDATE_GOLDEN=1, and read what changes in {golden.name}"


@ALL
def test_helm_finds_nothing_to_say(case: str):
    done = charts.helm("lint", "--strict", str(charts.CHART), "--values", str(charts.values(case)), "--kube-version", "1.34.4")
    assert done.returncode == 0, done.stdout + done.stderr


@ALL
@pytest.mark.parametrize("version", ["1.37.2", "1.34.4"])
def test_kubernetes_takes_every_manifest(case: str, version: str):
    objects = charts.objects(case) + [pod for pod in charts.injected(case)]
    charts.conforms(objects, version)


def test_a_field_that_there_is_not_would_be_found():
    pod = next(iter(charts.injected("sidecar")))
    pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(AssertionError, match="readOnlyRootFileSystem"):
        charts.conforms([pod], "1.37.2")


@ALL
def test_what_it_says_after_installing(case: str):
    done = charts.helm("install", "palisade", str(charts.CHART), "--namespace", "palisade-system", "--dry-run=client",
                       "--values", str(charts.values(case)))
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert ("sidecar,palisade" if case.startswith("sidecar") else "failOpen: false") in notes
    assert ("WITHOUT NETWORK POLICIES" in notes) == (case == "shared-alone")


REFUSED = {
    "a misspelt key": ("sidecar", {"networkPolicys": {}}, "networkPolicys"),
    "a misspelt key further in": ("sidecar", {"guard": {"enable": False}}, "enable"),
    "failing open": ("sidecar", {"failOpen": True}, "failOpen"),
    "failing open in the configuration": ("sidecar", {"config": {"failOpen": True}}, "failOpen"),
    "failing open as Envoy says it": ("shared", {"config": {"failureModeAllow": True}}, "failureModeAllow"),
    "the network of the node": ("shared", {"hostNetwork": True}, "hostNetwork"),
    "another security context": ("shared", {"securityContext": {"privileged": True}}, "securityContext"),
    "a form that there is not": ("sidecar", {"form": "statefulset"}, "form"),
    "a directory of the node as bundle": ("shared", {"bundle": {"configMaps": [], "volume": {"hostPath": {"path": "/"}}}}, "hostPath"),
    "two bundles": ("sidecar", {"bundle": {"url": "https://x.example/b.tar.gz", "sha256": "0" * 64}}, "exactly one"),
    "no bundle": ("sidecar", {"bundle": {"configMaps": []}}, "exactly one"),
    "a bundle without a digest": ("sidecar-classic", {"bundle": {"sha256": ""}}, "digest"),
    "a bundle over plain HTTP": ("sidecar-classic", {"bundle": {"url": "http://bundles.example.org/b.tar.gz"}}, "url"),
    "a log that would have its pod evicted": ("sidecar", {"state": {"volume": "emptyDir"}}, "state.volume"),
    "canaries from nowhere": ("shared-alone", {"mesh": {"agents": {"namespaces": []}}, "test": {"through": "http://crm.tools:8080"}}, "test.through"),
    "canaries of a pod that never ends": ("sidecar-classic", {"test": {"through": "http://crm.tools:8080"}}, "test.through"),
    "agents that the bundle does not have": ("daemonset", {"bundle": {"includesAgents": False}}, "includesAgents"),
    "an agent of which nothing is said": ("sidecar", {"agents": [{"namespace": "agents", "serviceAccount": "x"}]}, "agents"),
    "an agent twice": ("sidecar", {"agents": [{"namespace": "agents", "serviceAccount": "x", "runtimeClass": "kata"}] * 2}, "twice"),
    "an agent with a quotation mark": ("sidecar", {"agents": [{"namespace": "a' || 'a", "serviceAccount": "x", "runtimeClass": "kata"}]}, "namespace"),
    "nobody who may ask": ("shared", {"clients": []}, "who may ask"),
    "a client without labels": ("shared", {"clients": [{"namespace": "x", "serviceAccount": "who", "podLabels": {}}]}, "podLabels"),
    "a client among tools": ("shared", {"clients": [{"namespace": "tools", "serviceAccount": "who", "podLabels": {"a": "b"}}]}, "sidecar form"),
    "clients of a sidecar": ("sidecar", {"clients": [{"namespace": "x", "serviceAccount": "who", "podLabels": {"a": "b"}}]}, "clients"),
    "a peer without labels": ("sidecar", {"peers": {"prometheus": [{"namespace": "x", "podLabels": {}}]}}, "podLabels"),
    "Palisade's port as a tool's": ("sidecar", {"mesh": {"tools": {"ports": [9191]}}}, "ports"),
    "the proxy's own port as a tool's": ("sidecar", {"mesh": {"tools": {"ports": [15006]}}}, "ports"),
    "tools anywhere": ("sidecar", {"mesh": {"tools": {"ports": []}}}, "mesh.tools.ports"),
    "agents among tools": ("sidecar", {"mesh": {"tools": {"namespaces": ["agents"]}}}, "neighbour"),
    "tools beside Palisade": ("sidecar", {"mesh": {"tools": {"namespaces": ["palisade-system"]}}}, "apart"),
    "a sidecar in ambient mode": ("sidecar", {"mesh": {"dataPlane": "ambient"}}, "ambient"),
    "a waypoint among tools": ("daemonset", {"peers": {"waypoints": [{"namespace": "tools", "podLabels": {"a": "b"}}]}}, "waypoint"),
    "no waypoint": ("daemonset", {"peers": {"waypoints": []}}, "waypoints"),
    "everything as a tool's egress": ("sidecar", {"networkPolicies": {"toolsEgress": [{}]}}, "toolsEgress"),
    "everywhere as a tool's egress": (
        "sidecar", {"networkPolicies": {"toolsEgress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}]}}, "cidr"),
    "a proxy of any image": ("sidecar", {"guard": {"proxyImages": []}}, "proxyImages"),
    "holds at one of several": ("shared", {"config": {"sharedStore": {"urls": []}}}, "sharedStore"),
    "control in a sidecar": ("sidecar", {"control": {"enabled": True, "secretName": "x"}}, "control"),
    "control without a certificate": ("shared", {"control": {"secretName": ""}}, "secretName"),
    "a store without a secret": ("shared", {"config": {"secretName": ""}}, "secretName"),
    "no time to drain": ("shared", {"terminationGracePeriodSeconds": 10}, "terminationGracePeriodSeconds"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_values_that_are_refused(what: str, tmp_path: Path):
    case, change, message = REFUSED[what]
    changed = tmp_path / "values.yaml"
    changed.write_text(yaml.safe_dump(change))
    done = charts.helm(*charts.templating(case), "--values", str(changed))
    assert done.returncode != 0, "it is rendered"
    assert message in done.stderr, done.stderr


# ---- What is safe about every pod ---------------------------------------------------------------------------------------


def pods() -> list[Any]:
    """Each pod of each case, with the sidecar injected where that is the form."""
    found = []
    for case in CASES:
        for one in charts.objects(case):
            if one["kind"] in ("Deployment", "DaemonSet"):
                found.append(pytest.param(one["spec"]["template"], id=f"{case} {one['kind']}"))
            elif one["kind"] == "Pod":
                found.append(pytest.param(one, id=f"{case} {one['metadata']['name']}"))
        for one in charts.injected(case):
            found.append(pytest.param(one, id=f"{case} injected"))
    return found


EVERY_POD = pytest.mark.parametrize("pod", pods())


def ours(pod: dict[str, Any]) -> list[dict[str, Any]]:
    spec = pod["spec"]
    return [one for one in [*spec.get("initContainers", []), *spec["containers"]] if one["name"] not in ("istio-proxy", "istio-validation", "application")]


@EVERY_POD
def test_every_container_is_confined(pod: dict[str, Any]):
    assert ours(pod)
    for container in ours(pod):
        context = container["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] == 65532
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False and context["privileged"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        seccomp = context.get("seccompProfile") or pod["spec"]["securityContext"]["seccompProfile"]
        assert seccomp == {"type": "RuntimeDefault"}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"} and container["resources"]["limits"]["memory"]
        assert all(mount.get("readOnly") for mount in container.get("volumeMounts", [])
                   if mount["name"].partition("-")[2] not in ("state", "socket") and container["name"] != "palisade-bundle")
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(pod["spec"])
    assert not any("hostPath" in volume for volume in pod["spec"].get("volumes", []))


@EVERY_POD
def test_no_container_has_a_token(pod: dict[str, Any]):
    if pod["spec"].get("automountServiceAccountToken") is False:
        return
    # A sidecar cannot say that for its pod. Kubernetes mounts the token where nothing is mounted.
    for container in ours(pod):
        [mount] = [one for one in container["volumeMounts"] if one["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"]
        [volume] = [one for one in pod["spec"]["volumes"] if one["name"] == mount["name"]]
        assert set(volume) == {"name", "emptyDir"}


@EVERY_POD
def test_palisade_is_probed_from_within(pod: dict[str, Any]):
    for container in ours(pod):
        if container["name"] != "palisade":
            continue
        probes = {kind: container[kind]["exec"]["command"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
        assert probes["startupProbe"] == probes["readinessProbe"] == ["/usr/bin/palisade", "health", "--config", "/etc/palisade/palisade.toml"]
        assert "--live" in probes["livenessProbe"]
        assert "ports" not in container, "a port of its own is one that others reach"


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("sidecar")])
def test_the_socket_is_for_the_proxy_alone(case: str):
    [pod] = charts.injected(case)
    users = {one["name"] for one in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
             if any(mount["name"] == "palisade-socket" for mount in one.get("volumeMounts", []))}
    assert users == {"palisade", "istio-proxy"}
    [palisade] = [one for one in ours(pod) if one["name"] == "palisade"]
    assert palisade["securityContext"]["runAsGroup"] == 1337


def test_a_native_sidecar_starts_before_the_proxy_and_ends_after_it():
    [pod] = charts.injected("sidecar")
    [palisade] = [one for one in pod["spec"]["initContainers"] if one["name"] == "palisade"]
    assert palisade["restartPolicy"] == "Always" and palisade["startupProbe"]
    assert pod["metadata"]["annotations"]["sidecar.istio.io/init-containers-before-proxy"].split(",")[-1] == "palisade"


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("sidecar")])
def test_nobody_asks_a_shared_one_but_its_clients(case: str):
    found = {one["kind"]: one for one in charts.objects(case)}
    for listener in charts.configuration(case)["listener"]:
        assert listener["tcp"] == "127.0.0.1:9191"
    assert charts.configuration(case)["admin"]["listen"].startswith("127.0.0.1:")
    assert all(port["defaultEndpoint"].startswith("127.0.0.1:") for port in found["Sidecar"]["spec"]["ingress"])
    assert found["PeerAuthentication"]["spec"]["mtls"] == {"mode": "STRICT"}
    assert "9191" not in found["PeerAuthentication"]["spec"].get("portLevelMtls", {})
    policy = found["AuthorizationPolicy"]["spec"]
    assert policy["action"] == "ALLOW"
    for rule in policy["rules"]:
        ports = [port for to in rule["to"] for port in to["operation"]["ports"]]
        assert ports == ["9191"] and rule["from"][0]["source"]["principals"] or ports in (["9192"], ["9194"])
    assert found["DaemonSet" if case == "daemonset" else "Deployment"]["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"
    assert all(one.get("spec", {}).get("action") != "CUSTOM" for one in charts.objects(case))


# ---- Configuration and bundle -------------------------------------------------------------------------------------------


@ALL
def test_palisade_takes_the_configuration(case: str, tmp_path: Path):
    done = charts.check_configuration(charts.configuration_text(case), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_repeated_table_in_extra_is_found(tmp_path: Path):
    text = charts.configuration_text("shared") + '\n[admin]\nlisten = "0.0.0.0:9192"\n'
    assert "admin" in charts.check_configuration(text, tmp_path).stderr


def test_what_is_said_of_agents_is_part_of_a_bundle(tmp_path: Path):
    bundle = charts.bundle_with_agents(tmp_path)
    done = charts.check_bundle(bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sandboxed-code-runner" in (bundle / "sandboxed.cedar").read_text()


def test_a_bundle_of_a_configmap_loads_as_kubernetes_lays_it_out(tmp_path: Path):
    """Files are links into `..data`, which is a link to a directory that has the time in its name."""
    real = tmp_path / "..2026_11_23_00_00_00.1"
    real.mkdir()
    for path in sorted((ROOT / "cedar").rglob("*")):
        if path.is_file() and path.suffix != ".md" and "tests" not in path.parts:
            (real / path.name).write_bytes(path.read_bytes())
            (tmp_path / path.name).symlink_to(Path("..data") / path.name)
    (tmp_path / "..data").symlink_to(real.name)
    done = charts.check_bundle(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_know_a_shared_palisade_by_its_container():
    """No container declares a port, so Prometheus would give the target no such label."""
    for case in CASES:
        for monitor in charts.of_kind(case, "ServiceMonitor"):
            [endpoint] = monitor["spec"]["endpoints"]
            assert {"action": "replace", "targetLabel": "container", "replacement": "palisade"} in endpoint["relabelings"]


def test_an_ordinary_sidecar_outlasts_the_proxy():
    [pod] = charts.injected("sidecar-classic")
    [palisade] = [one for one in pod["spec"]["containers"] if one["name"] == "palisade"]
    assert palisade["lifecycle"]["preStop"]["sleep"]["seconds"] > 5


def test_rules_and_dashboard_are_rendered_as_they_are():
    rules, dashboard = (charts.CHART / name for name in ("rules/palisade.yaml", "dashboards/palisade.json"))
    rendered = charts.helm(*charts.templating("sidecar"), "--set", "monitoring.rules=true,monitoring.dashboards=true")
    objects = charts.load(rendered.stdout)
    [rule] = [one for one in objects if one["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load(rules.read_text())
    [board] = [one for one in objects if one["metadata"]["name"].endswith("-dashboards")]
    assert board["data"]["palisade.json"].strip() == dashboard.read_text().strip()
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    charts.conforms([rule, board], "1.37.2")
