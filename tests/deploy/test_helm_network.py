"""What the chart's network policies let through; tests/mesh/test_paths.py sends packets through the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import charts
import yaml
import pytest
from charts import CASES

Rule = dict[str, Any]
ENABLED = [case for case in CASES if case != "shared-alone"]
EACH = pytest.mark.parametrize("case", ENABLED)
# Istio's in a pod, by proxies and by everybody; Palisade's.
NEVER = {15000, 15001, 15006, 15021, 15090, 9191, 9192, 9193, 9194}
METADATA = "169.254.169.254/32"
# Where ztunnel makes the kubelet's probes come from, to whatever port a pod is probed at.
PROBES = "169.254.7.127/32"


def policies(case: str, suffix: str) -> list[dict[str, Any]]:
    return [one for one in charts.of_kind(case, "NetworkPolicy") if one["metadata"]["name"].endswith(suffix)]


def rules(policy: dict[str, Any], direction: str) -> Iterator[tuple[list[Rule], list[int]]]:
    for rule in policy["spec"].get(direction) or []:
        peers = rule.get("from" if direction == "ingress" else "to")
        yield peers, [port["port"] for port in rule["ports"]] if "ports" in rule else []


def named(peer: Rule) -> set[str]:
    """The namespaces of a peer."""
    selector = peer["namespaceSelector"]
    if "matchLabels" in selector:
        assert set(selector["matchLabels"]) == {"kubernetes.io/metadata.name"}
        return set(selector["matchLabels"].values())
    [expression] = selector["matchExpressions"]
    assert (expression["key"], expression["operator"]) == ("kubernetes.io/metadata.name", "In")
    return set(expression["values"])


def test_switched_off_there_are_none():
    assert not charts.of_kind("shared-alone", "NetworkPolicy")


@EACH
def test_every_pod_of_agents_and_tools_is_closed_both_ways(case: str):
    mesh = yaml.safe_load(charts.values(case).read_text())["mesh"]
    for suffix, who in (("-agents", "agents"), ("-tools", "tools")):
        found = policies(case, suffix)
        assert {one["metadata"]["namespace"] for one in found} == set(mesh[who]["namespaces"])
        for one in found:
            assert one["spec"]["podSelector"] == {} and one["spec"]["policyTypes"] == ["Ingress", "Egress"]


@EACH
def test_no_rule_is_for_everybody_or_every_port(case: str):
    for policy in charts.of_kind(case, "NetworkPolicy"):
        for direction in ("ingress", "egress"):
            for peers, ports in rules(policy, direction):
                if peers == [{"ipBlock": {"cidr": PROBES}}]:
                    continue
                assert peers and ports, policy["metadata"]
                for peer in peers:
                    if "ipBlock" in peer:
                        assert peer["ipBlock"]["cidr"].endswith("/32") and peer["ipBlock"]["cidr"] != METADATA
                    else:
                        assert named(peer)


@EACH
def test_agents_reach_pods_of_the_mesh_and_no_port_of_palisade(case: str):
    mesh = yaml.safe_load(charts.values(case).read_text())["mesh"]
    ambient = mesh.get("dataPlane") == "ambient"
    for policy in policies(case, "-agents"):
        for peers, ports in rules(policy, "egress"):
            assert not NEVER & set(ports)
            for peer in peers:
                if "ipBlock" in peer:
                    assert (peer["ipBlock"]["cidr"], set(ports)) == ("169.254.20.10/32", {53})
                elif named(peer) & set(mesh["tools"]["namespaces"]):
                    assert not ambient and set(ports) <= set(mesh["tools"]["ports"])
                assert "palisade-system" not in (named(peer) if "ipBlock" not in peer else ())


@EACH
def test_tools_are_reached_at_captured_ports_alone(case: str):
    values = yaml.safe_load(charts.values(case).read_text())
    mesh = values["mesh"]
    waypoints = {one["namespace"] for one in values.get("peers", {}).get("waypoints", [])}
    for policy in policies(case, "-tools"):
        seen = set()
        for peers, ports in rules(policy, "ingress"):
            for peer in peers:
                if "ipBlock" in peer:
                    assert mesh["dataPlane"] == "ambient" and peer["ipBlock"]["cidr"] == PROBES
                    continue
                seen |= named(peer)
                if mesh.get("dataPlane") == "ambient":
                    assert named(peer) <= waypoints and ports == [15008]
                elif ports != [15020]:
                    assert set(ports) <= set(mesh["tools"]["ports"])
        assert seen, "nobody reaches it"


def test_in_ambient_mode_the_way_is_through_a_waypoint():
    [agents] = policies("daemonset", "-agents")
    reached = {name: ports for peers, ports in rules(agents, "egress") for peer in peers for name in named(peer)}
    assert reached["waypoints"] == [15008] and "tools" not in reached and "agents" not in reached


@pytest.mark.parametrize("case", ["shared", "daemonset"])
def test_a_shared_one_is_reached_by_who_may(case: str):
    [policy] = [one for one in charts.of_kind(case, "NetworkPolicy") if one["metadata"]["name"] == "palisade"]
    values = yaml.safe_load(charts.values(case).read_text())
    assert policy["metadata"]["namespace"] == "palisade-system"
    expected = {(one["namespace"], 9191) for one in values["clients"]}
    expected |= {(one["namespace"], 9192) for one in values["peers"].get("prometheus", [])}
    expected |= {(one["namespace"], 9194) for one in values["peers"].get("operators", [])}
    found = {(name, port) for peers, ports in rules(policy, "ingress") for peer in peers for name in named(peer) for port in ports}
    assert found == expected
    assert all(peer["podSelector"]["matchLabels"] for peers, _ in rules(policy, "ingress") for peer in peers)


def test_cilium_denies_what_nobody_opens_again():
    found = {one["metadata"]["name"]: one["spec"] for one in charts.of_kind("shared", "CiliumClusterwideNetworkPolicy")}
    assert set(found["palisade-agents"]["egressDeny"][0]["toEntities"]) == {"world", "host", "remote-node", "kube-apiserver"}
    assert found["palisade-tools"]["egressDeny"] == [{"toCIDR": [METADATA]}]
    assert all(one["ingressDeny"] == [{"fromEntities": ["world", "remote-node"]}] for one in found.values())


@pytest.mark.parametrize("case", ["sidecar-classic", "daemonset"])
def test_calico_denies_before_any_other(case: str):
    found = {one["metadata"]["name"]: one["spec"] for one in charts.of_kind(case, "GlobalNetworkPolicy")}
    [rule] = found["palisade-agents"]["egress"]
    assert rule["action"] == "Deny" and rule["destination"]["notSelector"] == "has(projectcalico.org/namespace)"
    assert rule["destination"].get("notNets", []) == (["169.254.20.10/32"] if case == "sidecar-classic" else [])
    assert found["palisade-tools"]["egress"] == [{"action": "Deny", "destination": {"nets": [METADATA]}}]
    assert {one["order"] for one in found.values()} == {10}
