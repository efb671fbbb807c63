"""The reader of NetworkPolicies that `test_paths.py` relies on: it has to read them as Kubernetes does."""

from __future__ import annotations

from typing import Any

import pytest
from netpol import Pod, ruleset

BOT = Pod("agents", "bot", "10.0.1.1", {"app": "bot"})
CRM = Pod("tools", "crm", "10.0.2.1", {"app": "crm", "tier": "gold"}, ports={"http": 8080})
MAIL = Pod("tools", "mail", "10.0.2.2", {"app": "mail"})
PODS = [BOT, CRM, MAIL]


def lines(spec: dict[str, Any], pod: Pod = CRM, direction: str = "Ingress") -> list[str] | None:
    """What one policy in the namespace `tools` lets through to (or from) this pod; nothing (`None`) where it is open."""
    text = ruleset([{"metadata": {"namespace": "tools"}, "spec": spec}], PODS).splitlines()
    head = f"chain {pod.namespace}_{pod.name}_{direction} {{"
    if head not in text:
        return None
    begin = text.index(head) + 1
    chain = text[begin : text.index("}", begin)]
    assert "reject" in chain[-1], "what is not allowed is refused, last of all"
    return [line.strip().removesuffix("return").strip() for line in chain[:-1]]


def test_who_is_not_selected_is_open_and_who_is_selected_is_closed() -> None:
    spec = {"podSelector": {"matchLabels": {"app": "crm"}}}
    assert (lines(spec), lines(spec, MAIL), lines(spec, BOT)) == ([], None, None)
    assert lines({"podSelector": {}}, MAIL) == []
    assert lines({"podSelector": {}}, BOT) is None, "of another namespace"


def test_directions_are_those_that_are_named_or_else_those_with_rules() -> None:
    egress = {"podSelector": {}, "egress": [{}]}
    assert lines({"podSelector": {}}, CRM, "Egress") is None
    assert (lines(egress, CRM, "Egress"), lines(egress, CRM, "Ingress")) == ([""], [])
    assert lines({**egress, "policyTypes": ["Egress"]}, CRM, "Ingress") is None
    assert lines({"podSelector": {}, "policyTypes": ["Egress"]}, CRM, "Egress") == []


BY_NAME = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "agents"}}}


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({}, [""]),
        ({"from": [], "ports": []}, [""]),
        ({"from": [{"podSelector": {"matchLabels": {"app": "mail"}}}]}, ["ip saddr 10.0.2.2"]),
        # Both selectors of one peer have to match; two peers are either.
        ({"from": [{**BY_NAME, "podSelector": {"matchLabels": {"app": "mail"}}}]}, []),
        ({"from": [BY_NAME, {"podSelector": {"matchLabels": {"app": "mail"}}}]}, ["ip saddr 10.0.1.1", "ip saddr 10.0.2.2"]),
        ({"from": [{"namespaceSelector": {}}]}, ["ip saddr 10.0.1.1", "ip saddr 10.0.2.1", "ip saddr 10.0.2.2"]),
        ({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}, ["tcp dport 80", "udp dport 53"]),
        ({"ports": [{"port": 80, "endPort": 90}, {"protocol": "TCP"}]}, ["tcp dport 80-90", "meta l4proto tcp"]),
        # A name is the receiver's own; one that it has not allows nothing.
        ({"ports": [{"port": "http"}, {"port": "metrics"}]}, ["tcp dport 8080"]),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}}], "ports": [{"port": 1}]},
            ["ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 ip saddr != 10.2.0.0/16 tcp dport 1"],
        ),
    ],
)
def test_a_rule_allows(rule: dict[str, Any], wanted: list[str]) -> None:
    assert lines({"podSelector": {}, "ingress": [rule]}) == wanted


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"key": "tier", "operator": "In", "values": ["gold", "silver"]}, {"crm"}),
        ({"key": "tier", "operator": "NotIn", "values": ["gold"]}, {"mail"}),
        ({"key": "tier", "operator": "Exists"}, {"crm"}),
        ({"key": "tier", "operator": "DoesNotExist"}, {"mail"}),
    ],
)
def test_an_expression_selects(expression: dict[str, Any], matches: set[str]) -> None:
    spec = {"podSelector": {"matchExpressions": [expression]}}
    assert {pod.name for pod in (CRM, MAIL) if lines(spec, pod) is not None} == matches


def test_a_named_port_of_egress_is_that_of_each_peer() -> None:
    spec = {"podSelector": {}, "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}]}
    assert lines(spec, MAIL, "Egress") == ["ip daddr 10.0.2.1 tcp dport 8080"]


def test_what_it_does_not_know_it_does_not_pass_over() -> None:
    for spec in (
        {"podSelector": {"matchFields": []}},
        {"podSelector": {}, "ingress": [{"to": []}]},
        {"podSelector": {}, "ingress": [{"from": [{"serviceSelector": {}}]}]},
        {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "Gt", "values": ["1"]}]}},
    ):
        with pytest.raises(AssertionError):
            lines(spec)
