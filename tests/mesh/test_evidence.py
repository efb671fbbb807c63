"""One decision, seen from everywhere: answer, body, record, span, Envoy's access log, metrics."""

from __future__ import annotations

import secrets

import pytest

from demo import evidence, tour, wire
from demo.mesh import Mesh
from demo.names import AGENTS


def span_of(mesh: Mesh, record: evidence.Line) -> evidence.Line:
    return evidence.find(
        mesh.path("spans.jsonl"),
        lambda span: span["service"] == "palisade" and span["spanId"] == record["spanId"],
        f"the span of decision {record['decisionId']}",
    )


@pytest.mark.parametrize(
    ("tool", "status", "verdict"), [("query_customers", 200, "PERMIT"), ("delete_customer", 403, "DENIAL")]
)
def test_same_decision_id_everywhere(mesh: Mesh, tool: str, status: int, verdict: str) -> None:
    arguments = {"customer_id": 5} if tool == "delete_customer" else {}
    answer = wire.call_tool(mesh.as_agent("support-bot"), tool, arguments)
    assert answer.status == status
    decision_id = str(answer.decision_id)

    record = mesh.record(decision_id)
    assert record["verdict"] == verdict
    assert record["caller"] == {"spiffeId": AGENTS["support-bot"]}
    assert (record["target"], record["protocol"]) == ("crm", "mcp")
    [call] = record["calls"]
    assert call["action"] == f"crm/{tool}"
    assert call["resource"] == f'Tool::"crm/{tool}"'
    assert (call["method"], call["tool"]) == ("tools/call", tool)
    assert call["policies"] and all(policy["id"] and policy["reason"] for policy in call["policies"])
    assert record["request"]["method"] == "POST"
    assert record["request"]["path"] == "/mcp"
    assert record["request"]["host"] == "crm.example.org"
    assert record["bundle"]

    if status == 403:
        assert answer.json()["error"]["data"]["decision_id"] == decision_id

    logged = evidence.find(
        mesh.path("access.jsonl"), lambda line: line["decision_id"] == decision_id, f"access log of {decision_id}"
    )
    assert logged["verdict"].upper() == verdict
    assert (logged["reason"] or None) == record.get("reason")
    assert logged["status"] == status
    assert logged["caller"] == AGENTS["support-bot"]
    assert logged["request_id"] == record["request"]["id"]

    span = span_of(mesh, record)
    assert span["traceId"] == record["traceId"]
    assert decision_id in span["attributes"].values()


def test_one_record_for_each_decision(mesh: Mesh) -> None:
    def own() -> list[str]:
        return [line["decisionId"] for line in mesh.records() if line["request"].get("path") == f"/status/{marker}"]

    marker = secrets.token_hex(8)
    ids = [
        wire.send(mesh.as_agent(agent), "GET", "crm.example.org", f"/status/{marker}").decision_id
        for agent in ("support-bot", "outsider") * 10
    ]
    for decision_id in ids:
        mesh.record(str(decision_id))
    assert sorted(own()) == sorted(map(str, ids))
    assert len(set(ids)) == len(ids)


def test_client_trace_reaches_the_exported_span(mesh: Mesh) -> None:
    trace_id = secrets.token_hex(16)
    traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-01"
    answer = wire.call_tool(mesh.as_agent("support-bot"), "query_customers", {}, headers={"traceparent": traceparent})
    assert answer.status == 200
    record = mesh.record(str(answer.decision_id))
    assert record["traceId"] == trace_id

    span = span_of(mesh, record)
    assert span["traceId"] == trace_id
    # Envoy's own span of the check is the parent: what the metadata of the call says, not the client's header.
    check = evidence.find(
        mesh.path("spans.jsonl"),
        lambda span: span["traceId"] == trace_id and "Authorization.Check" in span["name"],
        "Envoy's span of the check",
    )
    assert span["parentSpanId"] == check["spanId"]


def test_unsampled_denial_has_a_span_all_the_same(mesh: Mesh) -> None:
    trace_id = secrets.token_hex(16)
    traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-00"
    answer = wire.call_tool(
        mesh.as_agent("support-bot"), "delete_customer", {"customer_id": 6}, headers={"traceparent": traceparent}
    )
    assert answer.status == 403
    assert span_of(mesh, mesh.record(str(answer.decision_id)))["traceId"] == trace_id


def test_metrics_count_every_decision(mesh: Mesh) -> None:
    before = tour.counted(mesh)
    for _ in range(5):
        wire.send(mesh.as_agent("coder"), "GET", "crm.example.org", "/status")
    assert tour.counted(mesh) == before + 5


def test_no_argument_value_leaves_the_request(mesh: Mesh) -> None:
    secret = f"secret-{secrets.token_hex(8)}"
    answer = wire.call_tool(
        mesh.as_agent("support-bot"),
        "query_customers",
        {"segment": secret},
        headers={"authorization": f"Basic {secret}"},
    )
    record = mesh.record(str(answer.decision_id))
    span_of(mesh, record)
    for written in (mesh.records_path, mesh.path("spans.jsonl"), mesh.path("palisade.log")):
        assert secret not in written.read_text(), written
    assert secret not in mesh.metrics()
