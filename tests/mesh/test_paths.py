"""An agent reaches a tool through the tool's proxy, where Palisade decides, or not at all: with the NetworkPolicies that the
chart renders, and capture as Istio sets it. Each refusal is shown to be that of the rule it is about: without that rule the same
attempt gets as far as the next one, and in the end through.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import decided, shown
from netpol import Pod
from pods import ADMIN_PORT, APPLICATION_PORT, APPLICATION_USER, AUTHZ_PORT, OUTSIDE, PROXY_USER, Pods

from demo import wire
from demo.certs import ThrowAwayCa
from demo.mesh import ROOT, binary
from demo.names import AGENTS

RENDERED = ROOT / "tests" / "deploy" / "goldens" / "helm" / "sidecar.yaml"
PODS = {
    "agent": Pod("agents", "support-bot", "10.244.1.10", {"app": "support-bot"}),
    "tool": Pod("tools", "crm", "10.244.2.10", {"app": "crm"}),
    "stranger": Pod("default", "stranger", "10.244.3.10", {"app": "stranger"}),
    "prometheus": Pod("monitoring", "prometheus", "10.244.4.10", {"app.kubernetes.io/name": "prometheus"}),
}
TOOL = [PODS["tool"].ip, APPLICATION_PORT]
# How an attempt ends that a policy refuses, or the proxy of the receiver because it is no mTLS.
DROPPED = "EHOSTUNREACH"
NOT_MTLS = {"closed", "ECONNRESET"}
FORGED = {"x-forwarded-client-cert": f"By=spiffe://example.org/ns/tools/sa/crm;URI={AGENTS['support-bot']}"}


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    documents = [one for one in yaml.safe_load_all(RENDERED.read_text()) if one]
    policies = [one for one in documents if one["kind"] == "NetworkPolicy"]
    assert {one["metadata"]["namespace"] for one in policies} >= {"agents", "tools"}
    with Pods(PODS, policies, binary("debug")) as pods, shown(pods):
        yield pods


def call(pods: Pods, tool: str, **wanted: Any) -> wire.Answer:
    """One of the CRM's tools, called from the agent's pod; by the agent, through its proxy, unless something else is said."""

    def attempt() -> wire.Answer:
        headers = wire.mcp_headers(tool) | wanted.pop("headers", {})
        body = wire.mcp_body(tool, {}).decode()
        found = pods.attempt("agent", TOOL, path="/mcp", host="crm.example.org", headers=headers, body=body, **wanted)
        assert "status" in found, found
        return wire.Answer(found["status"], found["headers"], found["body"].encode())

    return decided(attempt)


def status(pods: Pods, pod: str, marker: str, to: list[Any] | None = None, **wanted: Any) -> dict[str, Any]:
    """Asks for the application's status page, in plain text unless something else is said."""
    headers = {"x-test": marker} | wanted.pop("headers", {})
    return pods.attempt(pod, to or TOOL, path="/status", host="crm.example.org", headers=headers, **wanted)


@pytest.fixture
def marker() -> str:
    return str(uuid.uuid4())


# ------------------------------------------------------------------------------------------------- through the proxy


@pytest.mark.parametrize(("tool", "http", "verdict"), [("query_customers", 200, "PERMIT"), ("delete_customer", 403, "DENIAL")])
def test_through_both_proxies_a_call_is_decided(pods: Pods, tool: str, http: int, verdict: str, marker: str) -> None:
    answer = call(pods, tool, headers={"x-test": marker})
    assert answer.status == http
    record = pods.record(str(answer.decision_id))
    assert (record["verdict"], record["caller"]["spiffeId"]) == (verdict, AGENTS["support-bot"])
    assert bool(pods.arrived(marker)) == (verdict == "PERMIT")


def test_a_forged_certificate_header_names_nobody(pods: Pods, marker: str) -> None:
    # Past its own proxy, so that nothing but the tool's proxy could take the header away.
    forged = FORGED | {"x-test": marker}
    coder = {"uid": PROXY_USER, "tls": pods.certificate_of("coder")}
    answer = call(pods, "query_customers", headers=forged, **coder)
    assert answer.status == 403
    assert pods.record(str(answer.decision_id))["caller"]["spiffeId"] == AGENTS["coder"]
    assert not pods.arrived(marker)
    # Nor does the server hear of it with a call that is permitted; without its proxy it would.
    assert call(pods, "query_customers", headers=forged).status == 200
    (arrived,) = pods.arrived(marker)
    assert not [value for name, value in arrived["headers"] if name == "x-forwarded-client-cert"]
    with pods.without_capture("tool"):
        status(pods, "agent", marker, uid=PROXY_USER, headers=FORGED)
    assert FORGED.items() <= dict(pods.arrived(marker)[-1]["headers"]).items()


# ------------------------------------------------------------------------------------------------------- around it


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["plain", "forged"])
def test_plain_text_past_its_own_proxy_is_refused_by_the_tool_s(pods: Pods, headers: dict[str, str], marker: str) -> None:
    """As user 1337 an agent is taken for its own proxy, and is not captured."""
    before = len(pods.records())
    assert status(pods, "agent", marker, uid=PROXY_USER, headers=headers).get("refused") in NOT_MTLS
    assert not pods.arrived(marker) and len(pods.records()) == before
    with pods.without_capture("tool"):
        assert status(pods, "agent", marker, uid=PROXY_USER, headers=headers).get("status") == 200
    assert pods.arrived(marker), "the application does listen on that port, for whoever gets there"


def test_a_proxy_of_its_own_that_takes_no_certificate_along_is_refused(pods: Pods, marker: str, tmp_path: Path) -> None:
    impostor = ThrowAwayCa(tmp_path / "certs").issue("support-bot", AGENTS["support-bot"])
    other = {"root": str(pods.ca.root), "certificate": [str(path) for path in impostor]}
    before = len(pods.records())
    for tls in (pods.certificate_of(""), other):
        refused = status(pods, "agent", marker, uid=PROXY_USER, tls=tls).get("refused")
        assert refused in {"tls", *NOT_MTLS}
    assert not pods.arrived(marker) and len(pods.records()) == before
    # The same with the certificate of the pod: that is whom Palisade knows, so it is no way around it.
    with_it = {"uid": PROXY_USER, "tls": pods.certificate_of("support-bot")}
    assert call(pods, "delete_customer", **with_it).status == 403
    assert call(pods, "query_customers", **with_it).status == 200


@pytest.mark.parametrize("whom", OUTSIDE)
def test_there_is_no_way_out_of_the_mesh(pods: Pods, whom: str) -> None:
    to = [OUTSIDE[whom], 80]
    before = pods.refusals("agent", "Egress")
    # Through its own proxy, which would lead anywhere, and past it.
    captured = pods.attempt("agent", to)
    assert captured.get("status") == 503, captured
    assert pods.refusals("agent", "Egress") == before + 1
    assert pods.attempt("agent", to, uid=PROXY_USER).get("refused") == DROPPED
    assert pods.refusals("agent", "Egress") == before + 2
    with pods.without_policies():
        assert pods.attempt("agent", to).get("status") == 200
        assert pods.attempt("agent", to, uid=PROXY_USER).get("status") == 200


def test_strangers_do_not_even_reach_the_tool_s_proxy(pods: Pods, marker: str) -> None:
    before = pods.refusals("tool", "Ingress")
    assert status(pods, "stranger", marker).get("refused") == DROPPED
    assert pods.refusals("tool", "Ingress") == before + 1
    with pods.without_policies():
        assert status(pods, "stranger", marker).get("refused") in NOT_MTLS
        assert status(pods, "stranger", marker, tls=pods.certificate_of("")).get("refused") in {"tls", *NOT_MTLS}
        assert not pods.arrived(marker)
        with pods.without_capture("tool"):
            assert status(pods, "stranger", marker).get("status") == 200
    assert len(pods.arrived(marker)) == 1


@pytest.mark.parametrize("port", [AUTHZ_PORT, ADMIN_PORT])
def test_nobody_reaches_palisade_over_the_network(pods: Pods, port: int) -> None:
    to = [PODS["tool"].ip, port]
    for pod, user in [("agent", PROXY_USER), ("stranger", APPLICATION_USER)]:
        assert pods.attempt(pod, to, uid=user, path="/readyz").get("refused") == DROPPED
    with pods.without_policies():
        # What is left is the proxy, to which all ports lead.
        assert pods.attempt("agent", to, uid=PROXY_USER, path="/readyz").get("refused") in NOT_MTLS
        with pods.without_capture("tool"):
            naked = pods.attempt("agent", to, uid=PROXY_USER, path="/readyz")
    # And where checks are answered, that nobody listens but on loopback.
    assert naked.get("refused") == "ECONNREFUSED" if port == AUTHZ_PORT else naked.get("status") == 200


def test_in_its_own_pod_the_application_reaches_palisade_on_loopback_and_not_on_the_unix_socket(pods: Pods) -> None:
    """Which is why the socket is the default. (That it is mounted for nobody else is for containers, which there are none here.)"""
    # Palisade speaks HTTP/2 there and hangs up on this: somebody who listens all the same.
    hangs_up = {"closed", "ECONNRESET", "no HTTP"}
    assert pods.attempt("tool", ["127.0.0.1", AUTHZ_PORT]).get("refused") in hangs_up
    assert pods.attempt("tool", str(pods.socket)).get("refused") == "EACCES"
    assert pods.attempt("tool", str(pods.socket), gid=PROXY_USER).get("refused") in hangs_up


def test_prometheus_reaches_metrics_and_nothing_else(pods: Pods, marker: str) -> None:
    # Nobody serves them here, but it gets there.
    assert pods.attempt("prometheus", [PODS["tool"].ip, 15020]).get("refused") == "ECONNREFUSED"
    assert status(pods, "prometheus", marker).get("refused") == DROPPED
    assert pods.attempt("stranger", [PODS["tool"].ip, 15020]).get("refused") == DROPPED
