"""Kubernetes' NetworkPolicies as nftables rules of a node through which pods reach one another.

As the API defines them: a pod that no policy selects for a direction is open in it; one that is selected by any is closed but for what
one of them allows; a connection needs both its sender's egress and its receiver's ingress; answers belong to their connection.
What a network plugin drops in silence is told at once here, as "administratively prohibited", and counted: nobody waits for nothing.
IPv4 alone. What a plugin adds of its own (Calico's and Cilium's own kinds) is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as policies see it."""

    namespace: str
    name: str
    ip: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)  # container ports by name

    def all_namespace_labels(self) -> Mapping[str, str]:
        """With the one that the API server puts on every namespace."""
        return {**self.namespace_labels, "kubernetes.io/metadata.name": self.namespace}


def ruleset(policies: Sequence[Policy], pods: Sequence[Pod]) -> str:
    """The whole table `policies`, for `nft -f`; each place of refusal counts in a counter of its own."""
    chains, jumps, counters = [], [], []
    for pod in pods:
        for direction, side in (("Egress", "saddr"), ("Ingress", "daddr")):
            applying = [one for one in policies if _selects(one, pod) and direction in _directions(one)]
            if not applying:
                continue
            name = refusals(pod, direction)
            allowed = [rule for one in applying for rule in _allowed(one, direction, pod, pods)]
            lines = [f"{rule} return" for rule in allowed]
            lines.append(f'counter name "{name}" reject with icmp type admin-prohibited')
            chains.append(_chain(name, lines))
            jumps.append(f"ip {side} {pod.ip} jump {name}")
            counters.append(f"counter {name} {{ }}")
    hook = "type filter hook forward priority 0; policy accept;"
    forward = _chain("through", [hook, "ct state established,related accept", *jumps])
    return "\n".join(["table inet policies {", *counters, *chains, forward, "}", ""])


def refusals(pod: Pod, direction: str) -> str:
    """The name of the counter of what this pod was not allowed to send, or nobody to send to it."""
    return f"{pod.namespace}_{pod.name}_{direction}".replace("-", "_")


def _chain(name: str, lines: Iterable[str]) -> str:
    return "\n".join([f"chain {name} {{", *(f"  {line}" for line in lines), "}"])


def _selects(policy: Policy, pod: Pod) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and matches(policy["spec"].get("podSelector"), pod.labels)


def _directions(policy: Policy) -> Sequence[str]:
    """What is left out is ingress, and egress where there are rules for it."""
    spec = policy["spec"]
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """A label selector; one that says nothing matches everything."""
    selector = selector or {}
    unknown = set(selector) - {"matchLabels", "matchExpressions"}
    assert not unknown, f"a selector with {unknown}"
    equal = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return equal and all(_holds(one, labels) for one in selector.get("matchExpressions") or [])


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise AssertionError(f"an operator {expression['operator']}")


def _allowed(policy: Policy, direction: str, subject: Pod, pods: Sequence[Pod]) -> list[str]:
    """What the rules of one policy allow this pod, as conditions of nftables."""
    rules, peers_key, side = {
        "Ingress": (policy["spec"].get("ingress"), "from", "saddr"),
        "Egress": (policy["spec"].get("egress"), "to", "daddr"),
    }[direction]
    lines = []
    for rule in rules or []:
        assert not set(rule) - {peers_key, "ports"}, f"a rule with {sorted(rule)}"
        for peer, address in _peers(rule.get(peers_key), policy, side, pods):
            # A port's name is one of the pod that receives.
            receiver = subject if direction == "Ingress" else peer
            lines += [f"{address}{port}" for port in _ports(rule.get("ports"), receiver)]
    return lines


def _peers(
    peers: Sequence[Mapping[str, Any]] | None, policy: Policy, side: str, pods: Sequence[Pod]
) -> list[tuple[Pod | None, str]]:
    """Conditions on the other end, with the pod that it is, where it is one. None, or an empty list, is anybody."""
    if not peers:
        return [(None, "")]
    found: list[tuple[Pod | None, str]] = []
    for peer in peers:
        if block := peer.get("ipBlock"):
            without = "".join(f"ip {side} != {cidr} " for cidr in block.get("except") or [])
            found.append((None, f"ip {side} {block['cidr']} {without}"))
            continue
        assert set(peer) <= {"podSelector", "namespaceSelector"} and peer, f"a peer with {sorted(peer)}"
        for pod in pods:
            if "namespaceSelector" in peer:
                there = matches(peer["namespaceSelector"], pod.all_namespace_labels())
            else:
                there = pod.namespace == policy["metadata"]["namespace"]
            if there and matches(peer.get("podSelector"), pod.labels):
                found.append((pod, f"ip {side} {pod.ip} "))
    return found


def _ports(ports: Sequence[Mapping[str, Any]] | None, receiver: Pod | None) -> list[str]:
    """Conditions on protocol and port. None, or an empty list, is every port of every protocol."""
    if not ports:
        return [""]
    found = []
    for port in ports:
        protocol = port.get("protocol", "TCP").lower()
        number = port.get("port")
        if isinstance(number, str):
            # A name that the receiver does not have allows nothing there.
            number = receiver.ports.get(number) if receiver else None
            if number is None:
                continue
        if number is None:
            found.append(f"meta l4proto {protocol}")
        else:
            end = f"-{port['endPort']}" if "endPort" in port else ""
            found.append(f"{protocol} dport {number}{end}")
    return found
