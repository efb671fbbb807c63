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


def istio_init(image: str) -> Change:
    return extra(name="istio-init", image=image, securityContext={"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}})


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
    "one that is going": lambda pod: (
        pod["metadata"].update(deletionTimestamp="2026-11-23T00:00:00Z"), pod["spec"].update(hostNetwork=True)),
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
    "a program of one's own as the proxy": (lambda pod: proxy(pod).update(command=["sh"]), "running as the proxy"),
    "other arguments of the proxy": (lambda pod: proxy(pod).update(args=["wait"]), "running as the proxy"),
    "an image of one's own as the proxy": (lambda pod: proxy(pod).update(image="mine"), "proxyImages"),
    "istio-init where the plugin does it": (istio_init("registry.example/proxyv2:1.31.1"), "runAsUser"),
    "no Palisade": (lambda pod: pod["spec"]["initContainers"].remove(palisade(pod)), "has no Palisade"),
    "an image of one's own as Palisade": (lambda pod: palisade(pod).update(image="registry.example/palisade-mine:1"), "Palisade's image"),
    "another configuration of Palisade": (lambda pod: palisade(pod).update(args=["serve", "--config", "/mine.toml"]), "arguments"),
    "a command in Palisade's place": (lambda pod: palisade(pod).update(command=["/bin/sh"]), "arguments"),
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


def test_istios_own_init_container_gets_in_where_it_is_wanted(tmp_path: Path):
    assert asked("sidecar-classic", istio_init("registry.example/proxyv2:1.31.1"), tmp_path) == []
    assert asked("sidecar-classic", istio_init("mine"), tmp_path)


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
