"""The admission policies of the chart, evaluated by the API server's own code: which pods are refused, and by which rule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import charts
import pytest

Change = Callable[[dict[str, Any]], object]


def asked(case: str, change: Change, tmp_path: Path, subresource: str = "", pod: dict[str, Any] | None = None) -> list[str]:
    found = copy.deepcopy(pod or charts.injected(case)[0])
    change(found)
    return charts.admission(charts.objects(case), [{"object": found, "subresource": subresource}], tmp_path)[0]


def application(pod: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in pod["spec"]["containers"] if one["name"] == "application")


def proxy(pod: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]] if one["name"] == "istio-proxy")


def palisade(pod: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]] if one["name"] == "palisade")


def volume(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in pod["spec"]["volumes"] if one["name"] == name)


def context(**values: Any) -> Change:
    return lambda pod: application(pod)["securityContext"].update(values)


def annotate(key: str, value: str) -> Change:
    return lambda pod: pod["metadata"].setdefault("annotations", {}).update({key: value})


def label(key: str, value: str) -> Change:
    return lambda pod: pod["metadata"].setdefault("labels", {}).update({key: value})


def spec(**values: Any) -> Change:
    return lambda pod: pod["spec"].update(values)


def mount(name: str) -> Change:
    return lambda pod: application(pod).setdefault("volumeMounts", []).append({"name": name, "mountPath": "/x"})


def extra(**values: Any) -> Change:
    base = {"name": "more", "image": "x", "securityContext": {
        "runAsUser": 1000, "runAsGroup": 1000, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    return lambda pod: pod["spec"].setdefault("initContainers", []).append({**base, **values})


def istio_init(image: str, **more: Any) -> Change:
    context = {"runAsUser": 0, "runAsGroup": 0, "allowPrivilegeEscalation": False, "privileged": False,
               "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}}
    return extra(**{"name": "istio-init", "image": image, "args": charts.REDIRECTION, "securityContext": context, **more})


def validation(pod: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in pod["spec"]["initContainers"] if one["name"] == "istio-validation")


def environment(name: str, **value: Any) -> Change:
    """Of the proxy; the injector merges a pod's own over what it writes."""
    def change(pod: dict[str, Any]) -> None:
        variables = proxy(pod)["env"]
        variables[:] = [one for one in variables if one["name"] != name] + [{"name": name, **value}]
    return change


def volumes(*added: dict[str, Any]) -> Change:
    return lambda pod: pod["spec"]["volumes"].extend(added)


def mounted(container: Callable[[dict[str, Any]], dict[str, Any]], name: str, path: str, **source: Any) -> Change:
    return lambda pod: (
        container(pod).setdefault("volumeMounts", []).append({"name": name, "mountPath": path}),
        pod["spec"]["volumes"].append({"name": name, **source}) if source else None)


SHELL = {"exec": {"command": ["bash", "-c", "curl http://elsewhere"]}}
MINE = {"configMap": {"name": "mine"}}


@pytest.mark.parametrize("case", ["sidecar", "sidecar-classic"])
def test_a_pod_as_the_injector_leaves_it_gets_in(case: str, tmp_path: Path):
    assert asked(case, lambda pod: None, tmp_path) == []


@pytest.mark.parametrize("name", ["palisade-test", "palisade-test-probe"])
def test_the_pods_of_helm_test_get_in(name: str, tmp_path: Path):
    [tester] = [pod for pod in charts.of_kind("sidecar", "Pod") if pod["metadata"]["name"] == name]
    [pod] = charts.injected("sidecar", tester)
    charts.conforms([pod], "1.37.2")
    assert charts.admission(charts.objects("sidecar"), [{"object": pod, "subresource": ""}], tmp_path) == [[]]


def test_no_pod_of_helm_test_would_wait_for_ordinary_sidecars():
    assert charts.of_kind("sidecar-classic", "Pod") == []


# What the injector writes where Istio's CNI plugin is.
PLUGIN = {
    "sidecar.istio.io/interceptionMode": "REDIRECT",
    "traffic.sidecar.istio.io/includeOutboundIPRanges": "*",
    "traffic.sidecar.istio.io/includeInboundPorts": "*",
    "traffic.sidecar.istio.io/excludeInboundPorts": "15020",
}
ADMITTED: dict[str, Change] = {
    "a port below 1024": context(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
    "group 0, as some images want it": context(runAsGroup=0),
    "user and group of the pod": lambda pod: (
        pod["spec"].update(securityContext={"runAsUser": 1000, "runAsGroup": 1000}),
        [application(pod)["securityContext"].pop(key) for key in ("runAsUser", "runAsGroup")]),
    "another init container": extra(),
    "capture by Istio's plugin": lambda pod: pod["metadata"]["annotations"].update(PLUGIN),
    "a larger proxy": annotate("sidecar.istio.io/proxyMemory", "1Gi"),
    "a label of its own": label("team", "crm"),
    "a namespace that is not concerned": lambda pod: (pod["metadata"].update(namespace="elsewhere"), pod["spec"].update(hostNetwork=True)),
    "a variable that the mesh adds": environment("MESH_SETTING", value="x"),
    "an application that has a token of its own": volumes({"name": "mine", "projected": {"sources": [{"serviceAccountToken": {"path": "x"}}]}}),
    "the API server's token in each container": lambda pod: [
        one.setdefault("volumeMounts", []).append({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"})
        for one in (proxy(pod), validation(pod), application(pod))],
    "a proxy that holds the application": lambda pod: proxy(pod)["lifecycle"].update(postStart={"exec": {"command": ["pilot-agent", "wait"]}}),
}


@pytest.mark.parametrize("what", ADMITTED)
def test_what_gets_in(what: str, tmp_path: Path):
    assert asked("sidecar", ADMITTED[what], tmp_path) == []


REFUSED: dict[str, tuple[Change, str]] = {
    "the proxy's user": (context(runAsUser=1337), "runAsUser"),
    "the proxy's user by the pod": (lambda pod: (
        pod["spec"].update(securityContext={"runAsUser": 1337}), application(pod)["securityContext"].pop("runAsUser")), "runAsUser"),
    "whatever user the image has": (lambda pod: application(pod)["securityContext"].pop("runAsUser"), "runAsUser"),
    "root, who becomes anybody": (context(runAsUser=0), "runAsUser"),
    "the proxy's group": (context(runAsGroup=1337), "runAsGroup"),
    "whatever group the image has": (lambda pod: application(pod)["securityContext"].pop("runAsGroup"), "runAsGroup"),
    "the proxy's group beside": (spec(securityContext={"supplementalGroups": [1337]}), "group 1337"),
    "the proxy's group of files": (spec(securityContext={"fsGroup": 1337}), "group 1337"),
    "NET_ADMIN": (context(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}), "capabilities"),
    "NET_RAW": (context(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]}), "capabilities"),
    "SETUID, which is kept": (context(capabilities={"drop": ["NET_RAW"]}), "capabilities"),
    "privileged": (context(privileged=True), "capabilities"),
    "a setuid program": (context(allowPrivilegeEscalation=True), "capabilities"),
    "nothing said of privileges": (lambda pod: application(pod).pop("securityContext"), "capabilities"),
    "an init container as the proxy": (extra(securityContext={
        "runAsUser": 1337, "runAsGroup": 1, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}), "runAsUser"),
    "the network of the node": (spec(hostNetwork=True), "hostNetwork"),
    "the processes of the node": (spec(hostPID=True), "hostPID"),
    "the proxy's processes": (spec(shareProcessNamespace=True), "shareProcessNamespace"),
    "a directory of the node": (lambda pod: pod["spec"]["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "directory of the node"),
    "a port in that is left out": (annotate("traffic.sidecar.istio.io/excludeInboundPorts", "8080"), "left out of capture"),
    "a port out that is left out": (annotate("traffic.sidecar.istio.io/excludeOutboundPorts", "443"), "annotations"),
    "a range that is left out": (annotate("traffic.sidecar.istio.io/excludeOutboundIPRanges", "0.0.0.0/0"), "annotations"),
    "ports that alone are taken": (annotate("traffic.sidecar.istio.io/includeInboundPorts", ""), "left out of capture"),
    "interfaces that are left out": (annotate("traffic.sidecar.istio.io/excludeInterfaces", "eth0"), "annotations"),
    "no redirection, as the plugin reads it": (annotate("sidecar.istio.io/interceptionMode", "NONE"), "left out of capture"),
    "the plugin's ports with one more": (annotate("traffic.sidecar.istio.io/excludeInboundPorts", "15020,8080"), "left out of capture"),
    "another image of the proxy": (annotate("sidecar.istio.io/proxyImage", "mine"), "annotations"),
    "another bootstrap": (annotate("sidecar.istio.io/bootstrapOverride", "mine"), "annotations"),
    "a proxy that was overridden": (annotate("proxy.istio.io/overrides", "{}"), "annotations"),
    "another configuration of the proxy": (annotate("proxy.istio.io/config", "{}"), "annotations"),
    "out of the ambient mesh by a label": (label("istio.io/dataplane-mode", "none"), "annotations"),
    "no injection": (label("sidecar.istio.io/inject", "false"), "inject"),
    "no injection, by an annotation": (annotate("sidecar.istio.io/inject", "false"), "inject"),
    "other templates": (annotate("inject.istio.io/templates", "mine"), "templates"),
    "no proxy": (lambda pod: pod["spec"]["initContainers"].remove(proxy(pod)), "has Istio's proxy"),
    "a program of one's own as the proxy": (lambda pod: proxy(pod).update(command=["sh"]), "their own program"),
    "other arguments of the proxy": (lambda pod: proxy(pod).update(args=["wait"]), "arguments"),
    "another bootstrap by an argument": (lambda pod: proxy(pod)["args"].append("--templateFile=/mine/x"), "arguments"),
    "no arguments of the proxy": (lambda pod: proxy(pod).pop("args"), "arguments"),
    "a hook in the proxy": (lambda pod: proxy(pod)["lifecycle"].update(postStart=SHELL), "by a hook or a probe"),
    "another end of the proxy": (lambda pod: proxy(pod)["lifecycle"].update(preStop=SHELL), "by a hook or a probe"),
    "a probe in the proxy": (lambda pod: proxy(pod).update(startupProbe=SHELL), "by a hook or a probe"),
    "a proxy as root": (lambda pod: proxy(pod)["securityContext"].update(runAsUser=0), "user and group 1337"),
    "a privileged proxy": (lambda pod: proxy(pod)["securityContext"].update(privileged=True), "capabilities"),
    "a proxy that may change the redirection": (lambda pod: proxy(pod)["securityContext"].update(capabilities={"add": ["NET_ADMIN"], "drop": ["ALL"]}), "capabilities"),
    "a proxy of which nothing is said": (lambda pod: proxy(pod).pop("securityContext"), "user and group 1337"),
    "programs of one's own in the proxy": (mounted(proxy, "mine", "/usr/local/bin", **MINE), "mounted into the proxy"),
    "a file of one's own in the proxy": (
        lambda pod: proxy(pod)["volumeMounts"].append({"name": "istio-data", "mountPath": "/etc/istio/proxy", "subPath": "x"}), "mounted into the proxy"),
    "another configuration by the environment": (environment("PROXY_CONFIG", value='{"binaryPath": "/bin/sh"}'), "guard.proxyConfigs"),
    "another configuration from a ConfigMap": (
        environment("PROXY_CONFIG", valueFrom={"configMapKeyRef": {"name": "mine", "key": "x"}}), "guard.proxyConfigs"),
    "a variable twice, the last of which counts": (
        lambda pod: proxy(pod)["env"].append({"name": "PROXY_CONFIG", "value": "{}"}), "environment"),
    "another bootstrap by the environment": (environment("ISTIO_BOOTSTRAP_OVERRIDE", value="/mine"), "environment"),
    "a proxy that says it is of another namespace": (environment("POD_NAMESPACE", value="open"), "environment"),
    "a proxy whose namespace is its service account's name": (
        environment("POD_NAMESPACE", valueFrom={"fieldRef": {"fieldPath": "spec.serviceAccountName"}}), "environment"),
    "labels of one's own for the proxy": (
        lambda pod: (volume(pod, "istio-podinfo").pop("downwardAPI"), volume(pod, "istio-podinfo").update(MINE)), "the proxy's own"),
    "annotations as labels for the proxy": (
        lambda pod: volume(pod, "istio-podinfo")["downwardAPI"]["items"][0]["fieldRef"].update(fieldPath="metadata.annotations"), "the proxy's own"),
    "a proxy that redirects nothing": (environment("ISTIO_META_INTERCEPTION_MODE", value="NONE"), "environment"),
    "variables from a Secret": (lambda pod: proxy(pod).update(envFrom=[{"secretRef": {"name": "mine"}}]), "environment"),
    "the proxy's directory": (mount("istio-envoy"), "the proxy's own"),
    "the proxy's keys": (mount("istio-data"), "the proxy's own"),
    "the proxy's directory of one's own": (lambda pod: volume(pod, "istio-envoy").update(configMap={"name": "mine"}, emptyDir=None), "the proxy's own"),
    "a token for Istio's CA": (volumes({"name": "mine", "projected": {"sources": [
        {"serviceAccountToken": {"path": "x", "audience": "istio-ca"}}]}}), "Istio's CA"),
    "istio-validation with a program of one's own": (lambda pod: validation(pod).update(command=["bash"]), "their own program"),
    "istio-validation with other arguments": (lambda pod: validation(pod).update(args=["istio-iptables", "-o", "443"]), "redirect everything"),
    "istio-validation that goes on": (lambda pod: validation(pod).update(restartPolicy="Always"), "in the place"),
    "istio-validation beside the application": (lambda pod: pod["spec"]["containers"].append(validation(pod)), "in the place"),
    "istio-validation as root": (lambda pod: validation(pod)["securityContext"].update(runAsUser=0), "user and group 1337"),
    "a privileged istio-validation": (lambda pod: validation(pod)["securityContext"].update(privileged=True), "capabilities"),
    "istio-validation with the socket": (
        lambda pod: validation(pod).setdefault("volumeMounts", []).append({"name": "palisade-socket", "mountPath": "/x"}), "mounted by them alone"),
    "istio-validation with a file": (mounted(validation, "mine", "/x", **MINE), "mounted into the proxy"),
    "a proxy that does not go on": (lambda pod: proxy(pod).pop("restartPolicy"), "in the place"),
    "Palisade with a hook": (lambda pod: palisade(pod).update(lifecycle={"postStart": SHELL}), "by a hook or a probe"),
    "Palisade with a probe of one's own": (lambda pod: palisade(pod).update(livenessProbe={"exec": {"command": ["/usr/bin/palisade", "mesh", "probe"]}}), "by a hook or a probe"),
    "a privileged Palisade": (lambda pod: palisade(pod)["securityContext"].update(privileged=True), "capabilities"),
    "Palisade as the proxy": (lambda pod: palisade(pod)["securityContext"].update(runAsUser=1337), "its own user"),
    "policies of one's own": (mounted(palisade, "palisade-mine", "/etc/palisade/bundle/mine", **MINE), "own files"),
    "a place of one's own for the socket": (lambda pod: volume(pod, "palisade-socket").update(configMap={"name": "mine"}, emptyDir=None), "own files"),
    "Palisade's files elsewhere": (
        lambda pod: palisade(pod)["volumeMounts"].append({"name": "palisade-state", "mountPath": "/etc/palisade/bundle/x"}), "own files"),
    "a bundle that is fetched where none is": (extra(
        name="palisade-bundle", image="registry.example/palisade:1.2.3", args=["bundle", "fetch", "http://mine/x", "--sha256", "0", "--into", "/x"],
        securityContext={**charts.CONFINED, "runAsUser": 65532}), "arguments"),
    "an image of one's own as the proxy": (lambda pod: proxy(pod).update(image="mine"), "proxyImages"),
    "istio-init where the plugin does it": (istio_init("registry.example/proxyv2:1.31.1"), "runAsUser"),
    "no Palisade": (lambda pod: pod["spec"]["initContainers"].remove(palisade(pod)), "has no Palisade"),
    "an image of one's own as Palisade": (lambda pod: palisade(pod).update(image="registry.example/palisade-mine:1"), "Palisade's image"),
    "another configuration of Palisade": (lambda pod: palisade(pod).update(args=["serve", "--config", "/mine.toml"]), "arguments"),
    "a command in Palisade's place": (lambda pod: palisade(pod).update(command=["/bin/sh"]), "their own program"),
    "Palisade's environment": (lambda pod: palisade(pod).update(env=[{"name": "X", "value": "y"}]), "arguments"),
    "another bundle": (lambda pod: volume(pod, "palisade-bundle")["projected"]["sources"].append({"configMap": {"name": "mine"}}), "own files"),
    "another file in Palisade": (lambda pod: palisade(pod)["volumeMounts"].append({"name": "mine", "mountPath": "/etc/palisade/bundle/x"}), "own files"),
    "another configuration by its volume": (lambda pod: volume(pod, "palisade-config")["configMap"].update(name="mine"), "own files"),
    "Palisade's socket": (mount("palisade-socket"), "mounted by them alone"),
    "Palisade's secrets": (mount("palisade-secrets"), "mounted by them alone"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_get_in(what: str, tmp_path: Path):
    change, message = REFUSED[what]
    assert any(message in one for one in asked("sidecar", change, tmp_path))


def test_nor_as_an_ephemeral_container(tmp_path: Path):
    debugger = {"name": "debugger", "image": "x", "securityContext": {"runAsUser": 1337}}
    assert asked("sidecar", spec(ephemeralContainers=[debugger]), tmp_path, subresource="ephemeralcontainers")


@pytest.mark.parametrize("name", ["istio-validation", "istio-proxy", "palisade", "palisade-bundle"])
def test_nor_under_a_name_that_is_known(name: str, tmp_path: Path):
    debugger = {**charts.CONFINED, "allowPrivilegeEscalation": False}
    debugger = {"name": name, "image": "registry.example/proxyv2:1.31.1", "securityContext": debugger, "targetContainerName": "istio-proxy"}
    assert asked("sidecar", spec(ephemeralContainers=[debugger]), tmp_path, subresource="ephemeralcontainers")


@pytest.mark.parametrize("name", ["istio-validation", "istio-proxy", "istio-init", "palisade", "palisade-bundle"])
def test_no_name_is_known_in_ambient_mode(name: str, tmp_path: Path):
    pod = charts.tool_pod()
    pod["metadata"]["annotations"] = {"ambient.istio.io/redirection": "enabled"}
    assert asked("daemonset", lambda pod: None, tmp_path, pod=pod) == []
    messages = asked("daemonset", extra(name=name, securityContext={"privileged": True, "runAsUser": 0}), tmp_path, pod=pod)
    assert any("capabilities" in one for one in messages) and any("runAsUser" in one for one in messages)
    assert any("ambient mesh" in one for one in asked("daemonset", annotate("ambient.istio.io/redirection", "disabled"), tmp_path, pod=pod))


def test_istios_own_init_container_gets_in_where_it_is_wanted(tmp_path: Path):
    image = "registry.example/proxyv2:1.31.1"
    assert asked("sidecar-classic", istio_init(image), tmp_path) == []
    assert asked("sidecar-classic", istio_init("mine"), tmp_path)
    assert asked("sidecar-classic", istio_init(image, args=[*charts.REDIRECTION, "-o", "443"]), tmp_path)
    assert asked("sidecar-classic", istio_init(image, command=["sh"]), tmp_path)
    assert asked("sidecar-classic", istio_init(image, securityContext={"privileged": True}), tmp_path)
    assert asked("sidecar-classic", istio_init(image, securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}), tmp_path)


def test_a_bundle_that_is_fetched_is_the_one_of_the_values(tmp_path: Path):
    def fetch(pod: dict[str, Any]) -> dict[str, Any]:
        return next(one for one in pod["spec"]["initContainers"] if one["name"] == "palisade-bundle")

    assert asked("sidecar-classic", lambda pod: None, tmp_path) == []
    other = asked("sidecar-classic", lambda pod: fetch(pod)["args"].__setitem__(2, "https://mine.example/b.tar.gz"), tmp_path)
    assert any("arguments" in one for one in other)
    # A pod from before the values changed goes on: nobody can change its arguments.
    old = charts.injected("sidecar-classic")[0]
    fetch(old)["args"][4] = "1" * 64
    assert changed("sidecar-classic", old, label("team", "crm"), tmp_path) == []


# ---- Pods that are there already ----------------------------------------------------------------------------------------


def changed(case: str, old: dict[str, Any], change: Change, tmp_path: Path) -> list[str]:
    new = copy.deepcopy(old)
    change(new)
    return charts.admission(charts.objects(case), [{"object": new, "old": old, "subresource": ""}], tmp_path)[0]


def test_one_that_is_going_may_lose_its_finalizers_and_nothing_else(tmp_path: Path):
    old = charts.injected("sidecar")[0]
    coder(old)
    # From before there was a guard.
    old["spec"]["hostNetwork"] = True
    old["metadata"].update(deletionTimestamp="2026-11-23T00:00:00Z", finalizers=["example.org/x"])
    assert changed("sidecar", old, lambda pod: pod["metadata"].pop("finalizers"), tmp_path) == []
    assert any("label team" in one for one in changed("sidecar", old, lambda pod: pod["metadata"].pop("labels"), tmp_path))
    assert changed("sidecar", old, annotate("x", "y"), tmp_path)
    assert changed("sidecar", old, spec(ephemeralContainers=[{"name": "x", "image": "x"}]), tmp_path)
    # Which says so when it is made is not going.
    assert asked("sidecar", lambda pod: pod["metadata"].update(deletionTimestamp="2026-11-23T00:00:00Z"), tmp_path) == []
    assert asked("sidecar", lambda pod: (
        pod["metadata"].update(deletionTimestamp="2026-11-23T00:00:00Z"), pod["spec"].update(hostNetwork=True)), tmp_path)


def test_an_agent_that_takes_no_calls_needs_no_palisade(tmp_path: Path):
    agent = charts.tool_pod()
    charts.add_proxy(agent, native=False)
    agent["metadata"]["namespace"] = "agents"
    assert asked("sidecar-classic", lambda pod: None, tmp_path, pod=agent) == []
    agent["metadata"]["namespace"] = "tools"
    assert asked("sidecar-classic", lambda pod: None, tmp_path, pod=agent)


# ---- What entities say of agents ----------------------------------------------------------------------------------------


CODER_LABELS = {"team": "crm", "app.kubernetes.io/name": "coder"}


def coder(pod: dict[str, Any]) -> None:
    pod["metadata"].update(namespace="agents", labels=dict(CODER_LABELS))
    pod["spec"].update(serviceAccountName="coder", runtimeClassName="gvisor")


def then(change: Change) -> Change:
    return lambda pod: (coder(pod), change(pod))


AGENTS: dict[str, tuple[Change, list[str]]] = {
    "as its entity says": (then(lambda pod: None), []),
    "outside of the sandbox": (then(lambda pod: pod["spec"].pop("runtimeClassName")), ["runtime class gvisor"]),
    "in another sandbox": (then(spec(runtimeClassName="kata")), ["runtime class gvisor"]),
    "of another team": (then(label("team", "sales")), ["label team: crm"]),
    "without labels": (then(lambda pod: pod["metadata"].pop("labels")), ["label app.kubernetes.io/name", "label team"]),
    "another agent": (then(lambda pod: (pod["spec"].update(serviceAccountName="other"), pod["spec"].pop("runtimeClassName"))), []),
    "its name in another namespace": (then(lambda pod: (pod["metadata"].update(namespace="tools"), pod["spec"].pop("runtimeClassName"))), []),
}


@pytest.mark.parametrize("what", AGENTS)
def test_an_agent_is_what_its_entity_says(what: str, tmp_path: Path):
    change, expected = AGENTS[what]
    messages = asked("sidecar", change, tmp_path)
    assert len(messages) == len(expected)
    assert all(any(one in message for message in messages) for one in expected)


def test_also_when_it_is_changed_later():
    for policy in charts.of_kind("sidecar", "ValidatingAdmissionPolicy"):
        [rule] = policy["spec"]["matchConstraints"]["resourceRules"]
        assert rule["operations"] == ["CREATE", "UPDATE"]
        assert policy["spec"]["failurePolicy"] == "Fail"
