"""A planner grants, a coder writes, a reviewer reads; and who controls nothing: with real certificates and commands."""

from __future__ import annotations

import asyncio
import shlex
import ssl
import subprocess
from pathlib import Path

import mcp
import pytest
from conftest import decided
from controls import (
    CODER,
    DENIED,
    NO_GRANT,
    TASK,
    TEMPLATE,
    WRITES,
    asked,
    call,
    command,
    done,
    grant,
    grant_options,
    own_task,  # noqa: F401, a fixture
    permits_by,
    read,
    said,
    shared_mesh,  # noqa: F401, a fixture
    some_email,
    write,
)
from idp import Idp
from journals import ran

from demo import evidence, guide, sdk, wire
from demo.certs import ThrowAwayCa
from demo.mesh import Mesh
from demo.names import AGENTS, CONTROLLERS, PALISADE


# -------------------------------------------------------------------------------------------------------------- grants


def test_what_the_planner_grants_the_coder_may(mesh: Mesh, task: str) -> None:
    assert said(mesh, write(mesh, task)) == NO_GRANT
    id = grant(mesh, WRITES, task)
    email = some_email()
    answer = write(mesh, task, email)
    assert answer.status == 200, answer
    assert ran(mesh, WRITES, email=email)
    record = mesh.record(str(answer.decision_id))
    assert (record["verdict"], record["task"], record["caller"]["spiffeId"]) == ("PERMIT", task, CODER)
    (policy,) = record["calls"][0]["policies"]
    assert (policy["id"], policy["template"]) == (id, TEMPLATE)
    assert policy["grant"] == {"author": CONTROLLERS["planner"], "task": task}
    # The same id in Envoy's access log as in the record.
    evidence.find(mesh.path("access.jsonl"), lambda line: line["decision_id"] == answer.decision_id, "the call")
    # What the planner did is on record as well, as the planner's.
    granted = evidence.find(
        mesh.records_path,
        lambda line: any(one["id"] == id for one in line.get("control", {}).get("grants", [])),
        "the grant",
    )
    assert (granted["verdict"], granted["caller"]["spiffeId"]) == ("PERMIT", CONTROLLERS["planner"])
    assert granted["calls"][0]["policies"][0]["id"] == "orchestrators-grant-crm-tools"


def test_a_grant_counts_for_its_task_and_tool_alone(mesh: Mesh, task: str) -> None:
    grant(mesh, WRITES, task)
    for other in (None, "another-task", task + "x", task.upper()):
        email = some_email()
        answer = write(mesh, other, email)
        assert said(mesh, answer) == NO_GRANT, other
        assert answer.json()["error"]["data"] == {"decision_id": answer.decision_id, "code": "no_policy_permits"}
        assert not ran(mesh, WRITES, email=email)
    sent_to = f"https://reports.example.org/{task}"
    exported = call(mesh, "coder", "export_customers", {"destination_url": sent_to}, x_palisade_task=task)
    assert said(mesh, exported) == NO_GRANT
    assert not ran(mesh, "export_customers", destination_url=sent_to)
    # A forbid stands above grants: what destroys needs a user's delegation.
    grant(mesh, "delete_customer", task)
    deleted = call(mesh, "coder", "delete_customer", {"customer_id": 1}, x_palisade_task=task)
    assert said(mesh, deleted) == (403, "policy_forbids")
    assert not ran(mesh, "delete_customer")


def test_two_tasks_named_in_one_call_are_none(mesh: Mesh, task: str) -> None:
    """One of them is granted: which of the two a reader takes must not matter."""
    grant(mesh, WRITES, task)
    email = some_email()
    body = wire.mcp_body(WRITES, {"customer_id": 2, "email": email})

    def twice() -> wire.Answer:
        connection = mesh.as_agent("coder")
        connection.putrequest("POST", "/mcp", skip_host=True, skip_accept_encoding=True)
        sent = [("host", "crm.example.org"), *wire.mcp_headers(WRITES).items(), (TASK, "another"), (TASK, task)]
        for name, value in [*sent, ("content-length", str(len(body)))]:
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = wire.Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    answer = decided(twice)
    assert said(mesh, answer) == (400, "header_duplicate")
    assert not ran(mesh, WRITES, email=email)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_the_sdk_writes_by_a_grant_and_survives_its_end(mesh: Mesh, task: str, mode: str) -> None:
    emails = [some_email() for _ in range(3)]
    log: list[sdk.Seen] = []

    async def session() -> None:
        async with sdk.mcp_client(mesh.proxy("coder"), log, mode, {TASK: task}) as client:
            with pytest.raises(mcp.MCPError) as denied:
                await client.call_tool(WRITES, {"customer_id": 2, "email": emails[0]})
            assert denied.value.code == 403001
            id = await asyncio.to_thread(grant, mesh, WRITES, task)
            done_ = await client.call_tool(WRITES, {"customer_id": 2, "email": emails[1]})
            assert done_.structured_content == {"updated": 1}
            await asyncio.to_thread(done, mesh, "planner", "revoke", id)
            with pytest.raises(mcp.MCPError) as denied:
                await client.call_tool(WRITES, {"customer_id": 2, "email": emails[2]})
            assert denied.value.error.data["code"] == "no_policy_permits"
            # The very same session goes on.
            found = await client.call_tool("get_customer", {"customer_id": 4})
            assert found.structured_content["name"] == "Katherine Johnson"

    asyncio.run(session())
    assert [ran(mesh, WRITES, email=email) for email in emails] == [False, True, False]
    assert sum(seen.status == 403 for seen in log) == 2


def test_the_grant_gives_the_reviewer_nothing(mesh: Mesh, task: str) -> None:
    grant(mesh, WRITES, task)
    assert read(mesh, "reviewer").status == 200
    email = some_email()
    assert said(mesh, write(mesh, task, email, agent="reviewer")) == NO_GRANT
    assert not ran(mesh, WRITES, email=email)
    # Nor is anything of the coder's task left over for the planner, who may grant and not write.
    past = mesh.past_own_envoy("planner")
    arguments = {"customer_id": 2, "email": email}
    own = wire.call_tool(past, WRITES, arguments, headers={TASK: task})
    assert own.status == 403 and not ran(mesh, WRITES, email=email)


def test_a_grant_for_a_user_counts_with_that_user_s_token(mesh: Mesh, idp: Idp, task: str) -> None:
    done(mesh, "planner", *grant_options(WRITES, task, 20), "--user", "idp/alice")

    def as_user(sub: str) -> tuple[int, str]:
        token = idp.user_token(sub=sub, client="coder")
        return said(mesh, write(mesh, task, authorization=f"Bearer {token}"))

    assert said(mesh, write(mesh, task)) == NO_GRANT
    assert as_user("alice")[0] == 200
    assert as_user("mallory") == NO_GRANT


# ------------------------------------------------------------------------------------------------------ ends of grants


def test_a_grant_ends_with_its_last_call(mesh: Mesh, task: str) -> None:
    id = grant(mesh, WRITES, task, calls=3)
    for _ in range(2):
        # The caller's other reads take nothing of it.
        assert read(mesh, "coder").status == 200
    answers = [write(mesh, task)]
    while answers[-1].status == 200:
        assert len(answers) < 10, "there is no end to it"
        answers.append(write(mesh, task))
    assert said(mesh, answers[-1]) == NO_GRANT
    # By the records: of a call that Envoy did not wait for there is no answer.
    assert permits_by(mesh, id) == 3
    assert not done(mesh, "on-call", "status", "--task", task).get("grants")


@pytest.mark.parametrize("by", ["complete", "revoke its id", "revoke its task", "revoke as operator"])
def test_a_grant_ends_when_somebody_says_so(mesh: Mesh, task: str, by: str) -> None:
    id = grant(mesh, WRITES, task)
    assert write(mesh, task).status == 200
    who, words = {
        "complete": ("planner", ["complete", task]),
        "revoke its id": ("planner", ["revoke", id]),
        "revoke its task": ("planner", ["revoke", "--task", task]),
        "revoke as operator": ("on-call", ["revoke", "--agent", CODER, "--task", task]),
    }[by]
    assert [one["id"] for one in done(mesh, who, *words)["revoked"]] == [id]
    email = some_email()
    assert said(mesh, write(mesh, task, email)) == NO_GRANT
    assert not ran(mesh, WRITES, email=email)


# --------------------------------------------------------------------------------------------------------- who may not


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("coder", "no_policy_permits"),
        ("reviewer", "no_policy_permits"),
        ("crm", "policy_forbids"),
        ("outsider", "identity_untrusted_domain"),
    ],
)
def test_who_has_no_policy_for_it_controls_nothing(mesh: Mesh, who: str, reason: str) -> None:
    for words in (["hold", "everything", "--reason", "let me"], ["complete", "patch-bug"], ["status"], ["watch"]):
        refused = asked(mesh, who, *words)
        assert (refused.returncode, refused.stdout) == (DENIED, ""), refused
        assert f"reason {reason}" in refused.stderr, refused
    assert read(mesh, "reviewer").status == 200


def test_who_is_nobody_here_is_not_told_what_there_is(mesh: Mesh) -> None:
    """A certificate of the CA, of a trust domain that Palisade does not believe: it could ask for what is held."""
    for words in (["release", "everything", "--reason", "let me"], ["revoke", "--agent", AGENTS["scraper"]]):
        refused = asked(mesh, "outsider", *words)
        assert (refused.returncode, refused.stdout) == (DENIED, ""), refused
        assert "reason identity_untrusted_domain" in refused.stderr, refused


def test_nobody_controls_more_than_policies_say(mesh: Mesh, task: str) -> None:
    too_long = grant_options(WRITES, task, 1, span="61m")
    outsider = grant_options(WRITES, task, 1, agent=AGENTS["outsider"])
    allowed = grant_options(WRITES, task, 1)
    holds = ["hold", f"agent:{CODER}", "--reason", "no operator"]
    by_planner = [("planner", words) for words in (too_long, outsider, holds)]
    for who, words in [*by_planner, ("coder", allowed), ("on-call", allowed)]:
        refused = asked(mesh, who, *words)
        assert refused.returncode == DENIED, (who, refused)
        assert "no_policy_permits" in refused.stderr or "policy_forbids" in refused.stderr, refused
    assert said(mesh, write(mesh, task)) == NO_GRANT


def test_a_certificate_of_another_ca_does_not_connect(mesh: Mesh, tmp_path: Path) -> None:
    other = ThrowAwayCa(tmp_path / "certs")
    forged = other.issue("on-call", CONTROLLERS["on-call"])
    records = len(mesh.records())
    refused = command(mesh, mesh.control_options_with(forged), "hold", "everything", "--reason", "let me")
    assert refused.returncode == 1, refused
    assert "received fatal alert" in refused.stderr
    assert read(mesh, "reviewer").status == 200
    assert len(mesh.records()) == records + 1, "it never came to a decision"


def test_no_certificate_no_control(mesh: Mesh) -> None:
    context = ssl.create_default_context(cafile=str(mesh.ca.root))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    plain = wire.plain(mesh.ports.palisade_control)
    plain.connect()
    # With TLS 1.3 the client hears of it behind its own end of the handshake.
    with pytest.raises(ssl.SSLError), context.wrap_socket(plain.sock) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        while connection.recv(1024):
            pass


def test_no_other_workload_is_taken_for_palisade(mesh: Mesh) -> None:
    """Certificates of the mesh's own CA: whoever has one could listen on that port."""
    options = mesh.control_options("on-call")
    options[options.index(PALISADE)] = "spiffe://example.org/ns/tools/sa/crm"
    refused = command(mesh, options, "status")
    assert refused.returncode == 1, refused
    assert PALISADE in refused.stderr


def test_whoever_runs_the_mesh_is_on_call_at_its_socket(mesh: Mesh) -> None:
    for word, expected in [("hold", 403), ("release", 200)]:
        subprocess.run(shlex.split(guide.control_command(mesh, word)), check=True, capture_output=True, timeout=60)
        assert read(mesh, "support-bot").status == expected
