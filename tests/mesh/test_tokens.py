"""Tokens of a real OpenID provider, presented through real Envoys: believed for the agent that they were issued to."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import running_mesh
from idp import RESOURCE, Idp

from demo import wire
from demo.mesh import ROOT, Mesh
from demo.names import AGENTS
from demo.processes import wait_until

# What nobody may without a user's delegation, in the default bundle.
RESTRICTED = "delete_customer"
POLICIES = """
@id("user-deletes") @reason("A user who is in the CRM's group, by a fresh login")
permit (
  principal == Agent::"%s",
  action == Action::"crm/delete_customer",
  resource
)
when {
  context has user && context.user in UserGroup::"idp/crm" &&
  context has scopes && context.scopes.contains("crm:write") &&
  context has session && context.session.bound && context.session has auth_time &&
  context.now.durationSince(context.session.auth_time) < duration("5m")
};
""" % AGENTS["support-bot"]


def tokens(idp: Idp, **keys: object) -> str:
    source = {"discovery": True, "allow_private_addresses": True, "ca_file": str(idp.ca.root), **keys}
    inline = ", ".join(f"{name} = {json.dumps(value)}" for name, value in source.items())
    return f"""
[[token]]
header = "authorization"
role = "user"
[[issuer]]
name = "idp"
issuer = "{idp.issuer}"
audiences = ["{RESOURCE}"]
actors = {{ "support-bot" = "{AGENTS["support-bot"]}" }}
keys = {{ {inline} }}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle without its office hours, and with a permit that needs a token."""
    folder = tmp_path_factory.mktemp("tokens") / "bundle"
    shutil.copytree(ROOT / "cedar", folder)
    guardrails = folder / "policies" / "guardrails.cedar"
    text = guardrails.read_text()
    start = text.index('@id("changes-in-office-hours")')
    end = text.find("@id(", start + 4)
    guardrails.write_text(text[:start] + (text[end:] if end > 0 else ""))
    (folder / "policies" / "tokens.cedar").write_text(POLICIES)
    return folder


@pytest.fixture
def running(start_mesh: Callable[..., Mesh], start_idp: Callable[[], Idp], bundle: Path) -> tuple[Mesh, Idp]:
    """For a test that changes how the provider behaves."""
    idp = start_idp()
    return start_mesh(bundle=bundle, tokens=tokens(idp)), idp


@pytest.fixture(scope="module")
def shared(idp: Idp, bundle: Path) -> Iterator[tuple[Mesh, Idp]]:
    with running_mesh(bundle=bundle, tokens=tokens(idp)) as mesh:
        yield mesh, idp


def delete(mesh: Mesh, token: str | None, agent: str = "support-bot") -> wire.Answer:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return wire.call_tool(mesh.as_agent(agent), RESTRICTED, {"customer_id": 999}, headers=headers)


def reason(mesh: Mesh, answer: wire.Answer) -> str:
    return str(mesh.record(str(answer.decision_id)).get("reason", ""))


def fresh(**claims: object) -> dict[str, object]:
    return {"groups": ["crm"], "auth_time": int(time.time()), "acr": "mfa", "sid": "session-1", **claims}


def test_a_user_s_token_lets_its_own_agent_do_more(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    assert reason(mesh, delete(mesh, None)) == "policy_forbids"
    token = idp.user_token(claims=fresh(), scope="crm:write")
    answer = delete(mesh, token)
    assert answer.status == 200, answer
    record = mesh.record(str(answer.decision_id))
    assert record["calls"][0]["policies"][0]["id"] == "user-deletes"
    assert (record["caller"]["user"], record["caller"]["session"]) == ("idp/alice", "session-1")
    # Nothing of the token is in what is kept of it.
    assert token.split(".")[2] not in mesh.records_path.read_text() + mesh.path("palisade.log").read_text()

    # Not the agent that it was issued to.
    stolen = delete(mesh, token, agent="auditor")
    assert (stolen.status, reason(mesh, stolen)) == (401, "token_actor_mismatch")
    assert stolen.headers["www-authenticate"].startswith('Bearer error="invalid_token"')


@pytest.mark.parametrize(
    ("claims", "scope"),
    [
        (fresh(groups=["sales"]), "crm:write"),
        (fresh(), "crm:read"),
        (fresh(auth_time=int(time.time()) - 3600), "crm:write"),
    ],
)
def test_policies_see_what_the_token_says(shared: tuple[Mesh, Idp], claims: dict[str, object], scope: str) -> None:
    mesh, idp = shared
    answer = delete(mesh, idp.user_token(claims=claims, scope=scope))
    assert (answer.status, reason(mesh, answer)) == (403, "no_policy_permits")


def test_every_algorithm_of_the_provider(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    for algorithm in ("RS256", "PS256", "ES256", "EdDSA", "Ed25519"):
        answer = delete(mesh, idp.user_token(claims=fresh(), scope="crm:write", alg=algorithm))
        assert answer.status == 200, (algorithm, answer)
    answer = delete(mesh, idp.user_token(claims=fresh(), scope="crm:write", alg="ES384"))
    assert reason(mesh, answer) == "token_algorithm_refused", "not in the issuer's rules"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"header": {"typ": "JWT"}}, "token_type_refused"),
        ({"header": {"zip": "DEF"}}, "token_extension_unsupported"),
        ({"header": {"jku": "https://evil.example/jwks"}}, "token_key_embedded"),
        ({"claims": {"exp": int(time.time()) - 60, "iat": int(time.time()) - 120}}, "token_expired"),
        ({"claims": {"aud": "https://elsewhere.example"}}, "token_audience_mismatch"),
        ({"claims": {"jti": None}}, "token_claim_missing"),
        ({"claims": {"iss": "https://elsewhere.example"}}, "token_issuer_unknown"),
        ({"claims": {"act": {"sub": "auditor"}}}, "token_actor_mismatch"),
        ({"client": "coder"}, "token_unbound"),
        ({"lifetime": 7200}, "token_lifetime_too_long"),
    ],
)
def test_what_the_provider_signs_and_must_not_count(
    shared: tuple[Mesh, Idp], options: dict[str, object], expected: str
) -> None:
    mesh, idp = shared
    answer = delete(mesh, idp.user_token(scope="crm:write", **options))  # type: ignore[arg-type]
    assert (answer.status, reason(mesh, answer)) == (401, expected)


def test_a_token_bound_to_a_certificate_counts_with_that_alone(running: tuple[Mesh, Idp]) -> None:
    mesh, idp = running
    idp.trust(mesh.path("certs") / "ca.pem")
    own, other = mesh.certificate_of("support-bot"), mesh.certificate_of("auditor")
    token = idp.user_token(claims=fresh(), scope="crm:write", certificate=own)
    assert delete(mesh, token).status == 200
    stolen = idp.user_token(claims=fresh(), scope="crm:write", client="auditor", certificate=other)
    answer = delete(mesh, stolen)
    assert (answer.status, reason(mesh, answer)) == (401, "token_binding_mismatch")


def test_a_token_of_a_new_key_has_it_looked_for(running: tuple[Mesh, Idp]) -> None:
    mesh, idp = running
    before = idp.user_token(claims=fresh(), scope="crm:write")
    assert delete(mesh, before).status == 200
    idp.rotate()
    after = idp.user_token(claims=fresh(), scope="crm:write")
    # An unknown key asks for an early look; until then it is refused, and never fetched while a call waits.
    wait_until(lambda: delete(mesh, after).status == 200, "the new key", 45)
    assert delete(mesh, before).status == 200, "the old key is still published"


def test_a_provider_that_is_gone_takes_nothing_with_it(running: tuple[Mesh, Idp]) -> None:
    mesh, idp = running
    token = idp.user_token(claims=fresh(), scope="crm:write")
    idp.down()
    assert delete(mesh, token).status == 200, "the last good keys count"


def test_without_keys_no_token_counts_and_the_fault_is_ours(
    start_mesh: Callable[..., Mesh], start_idp: Callable[[], Idp], bundle: Path
) -> None:
    idp = start_idp()
    token = idp.user_token(claims=fresh(), scope="crm:write")
    idp.down()
    mesh = start_mesh(bundle=bundle, tokens=tokens(idp))
    answer = delete(mesh, token)
    assert (answer.status, reason(mesh, answer)) == (503, "token_keys_unavailable")
    idp.up()
    wait_until(lambda: delete(mesh, token).status == 200, "keys that came late", 45)
