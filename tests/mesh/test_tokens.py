"""Tokens of a real OpenID provider, presented through real Envoys: believed for the agent that they were issued to."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundles import at_any_hour
from conftest import decided, running_mesh
from fetches import fetched
from idp import RESOURCE, Idp

from demo import ports, wire
from demo.mesh import Mesh
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
[[token]]
header = "x-delegation"
role = "chain"
[[issuer]]
name = "idp"
issuer = "{idp.issuer}"
audiences = ["{RESOURCE}"]
actors = {{ "support-bot" = "{AGENTS["support-bot"]}", "coder" = "{AGENTS["coder"]}" }}
keys = {{ {inline} }}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle without its office hours, and with a permit that needs a token."""
    folder = at_any_hour(tmp_path_factory.mktemp("tokens") / "bundle")
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
    return restricted(mesh, agent, {"authorization": f"Bearer {token}"} if token else {})


def restricted(mesh: Mesh, agent: str, headers: dict[str, str]) -> wire.Answer:
    return decided(lambda: wire.call_tool(mesh.as_agent(agent), RESTRICTED, {"customer_id": 999}, headers=headers))


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
    ("groups", "scope", "age"), [(["sales"], "crm:write", 0), (["crm"], "crm:read", 0), (["crm"], "crm:write", 3600)]
)
def test_policies_see_what_the_token_says(shared: tuple[Mesh, Idp], groups: list[str], scope: str, age: int) -> None:
    mesh, idp = shared
    # Made here: a login that is fresh when tests are collected is none an hour later.
    claims = fresh(groups=groups, auth_time=int(time.time()) - age)
    answer = delete(mesh, idp.user_token(claims=claims, scope=scope))
    assert (answer.status, reason(mesh, answer)) == (403, "no_policy_permits")


def test_each_agent_of_a_chain_proves_its_step(shared: tuple[Mesh, Idp]) -> None:
    """The user's authority goes to the coder, and from there to the support bot, by the provider's token exchange."""
    mesh, idp = shared
    login = idp.user_token(claims=fresh(), scope="crm:read crm:write", client="coder")
    coder = idp.exchange(login, client="coder", resource=AGENTS["support-bot"])
    own = idp.exchange(coder, scope="crm:write")

    def call(token: str, *before: str, agent: str = "support-bot") -> wire.Answer:
        headers = {"authorization": f"Bearer {token}"}
        if before:
            headers["x-delegation"] = ", ".join(before)
        return restricted(mesh, agent, headers)

    # The guardrail of the default bundle wants every step proved, and the token alone proves the last one.
    answer = call(own)
    assert (answer.status, reason(mesh, answer)) == (403, "policy_forbids")
    answer = call(own, coder)
    assert answer.status == 200, answer
    caller = mesh.record(str(answer.decision_id))["caller"]
    assert (caller["user"], caller["proved"]) == ("idp/alice", [AGENTS["coder"]])
    assert caller["actors"] == ["support-bot", "coder"]

    other = idp.exchange(idp.user_token("bob", client="coder"), client="coder", resource=AGENTS["support-bot"])
    elsewhere = idp.user_token(claims=fresh(), client="auditor")
    for before in ([other], [coder, coder], [elsewhere], [login, coder]):
        answer = call(own, *before)
        assert (answer.status, reason(mesh, answer)) == (401, "token_chain_broken")
    narrow = idp.exchange(login, client="coder", scope="crm:read", resource=AGENTS["support-bot"])
    answer = call(own, narrow)
    assert (answer.status, reason(mesh, answer)) == (401, "token_chain_widened")
    # The coder's token is evidence: it lets nobody call, and not even the coder call this server.
    for agent in ("support-bot", "coder"):
        answer = call(coder, agent=agent)
        assert (answer.status, reason(mesh, answer)) == (401, "token_audience_mismatch")


def test_the_tokens_of_other_agents_end_at_envoy(start_mesh: Callable[..., Mesh], idp: Idp, bundle: Path, tmp_path: Path) -> None:
    own_bundle = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    mesh = start_mesh(bundle=own_bundle, tokens=tokens(idp))
    login = idp.user_token(claims=fresh(), client="coder")
    coder = idp.exchange(login, client="coder", resource=AGENTS["support-bot"])
    own = f"Bearer {idp.exchange(coder)}"

    def at_server() -> dict[str, str]:
        headers = {"authorization": own, "x-delegation": coder}
        answer = wire.send(mesh.as_agent("support-bot"), "GET", "crm.example.org", "/status/headers", headers)
        assert answer.status == 200, answer
        return dict(answer.json())

    received = at_server()
    assert "x-delegation" not in received
    assert received["authorization"] == own, "the caller's own token is the server's to verify"
    record = mesh.record(received["x-palisade-decision-id"])
    assert [(token["role"], token["issuer"]) for token in record["caller"]["tokens"]] == [("user", "idp"), ("chain", "idp")]
    assert all(token["idSha256"] for token in record["caller"]["tokens"])
    # An agent as a target has to show them to the next one.
    targets = own_bundle / "targets.toml"
    changed = targets.read_text().replace('name = "crm-status"', 'name = "crm-status"\nchain = "pass"')
    replacement = tmp_path / "targets.toml"
    replacement.write_text(changed)
    replacement.rename(targets)
    wait_until(lambda: at_server().get("x-delegation") == coder, "the chain at an agent")


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
        ({"claims": {"exp": 1_700_000_060, "iat": 1_700_000_000}}, "token_expired"),
        ({"claims": {"aud": "https://elsewhere.example"}}, "token_audience_mismatch"),
        ({"claims": {"jti": None}}, "token_claim_missing"),
        ({"claims": {"iss": "https://elsewhere.example"}}, "token_issuer_unknown"),
        ({"claims": {"act": {"sub": "auditor"}}}, "token_actor_mismatch"),
        ({"client": "coder"}, "token_actor_mismatch"),
        ({"client": "scraper"}, "token_unbound"),
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


def told_of_logouts(idp: Idp) -> tuple[int, str]:
    """The port where the provider's logout tokens arrive, and the configuration that says so."""
    told = tokens(idp).replace("[[issuer]]", '[[issuer]]\nleeway_seconds = 0\nlogout_audiences = ["support-bot"]')
    (port,) = ports.some(1)
    return port, told + f'[sessions]\nlisten = "127.0.0.1:{port}"\n'


def test_an_agent_whose_user_has_logged_out_can_do_nothing(
    start_mesh: Callable[..., Mesh], start_idp: Callable[[], Idp], bundle: Path
) -> None:
    """The provider itself makes and sends the logout token."""
    idp = start_idp()
    port, told = told_of_logouts(idp)
    before = idp.user_token(claims=fresh(sid="session-1"), scope="crm:write")
    mesh = start_mesh(bundle=bundle, tokens=told)
    channel = f"http://127.0.0.1:{port}/backchannel-logout"
    answer = delete(mesh, before)
    assert (answer.status, reason(mesh, answer)) == (401, "session_ended"), "nobody knows what ended before the start"

    def later(**claims: object) -> str:
        return idp.user_token(claims=fresh(**claims), scope="crm:write")

    wait_until(lambda: delete(mesh, later(sid="session-1")).status == 200, "tokens of a later second")
    one, other, nameless = later(sid="session-1"), later(sid="session-2"), later(sid=None)
    assert [delete(mesh, token).status for token in (one, other, nameless)] == [200, 200, 200]
    idp.log_out("support-bot", channel, session="session-1")
    outcomes = [reason(mesh, delete(mesh, token)) for token in (one, other, nameless)]
    assert outcomes == ["session_ended", "", "session_ended"]
    idp.log_out("support-bot", channel)
    assert reason(mesh, delete(mesh, other)) == "session_ended"
    # Another client's logout is not for us, and neither is anything that is not signed.
    with pytest.raises(AssertionError):
        idp.log_out("auditor", channel, sub="bob")
    for form in (b"", b"logout_token=", b"logout_token=a.b.c", b"x" * 20_000):
        headers = {"content-type": "application/x-www-form-urlencoded"}
        told_of = wire.send(wire.plain(port), "POST", "localhost", "/backchannel-logout", headers, form)
        assert told_of.status in (400, 413), told_of
    assert 'palisade_logout_tokens_total{outcome="accepted"} 2' in mesh.metrics()


def test_a_logout_that_comes_before_its_key_is_not_lost(
    start_mesh: Callable[..., Mesh], start_idp: Callable[[], Idp], bundle: Path
) -> None:
    """The provider has changed its keys, and tells of the logout once."""
    idp = start_idp()
    port, told = told_of_logouts(idp)
    mesh = start_mesh(bundle=bundle, tokens=told + 'issued_before_start = "accept"\n')
    token = idp.user_token(claims=fresh(sid="session-1"), scope="crm:write")
    assert delete(mesh, token).status == 200
    idp.rotate()
    with pytest.raises(AssertionError):  # 503
        idp.log_out("support-bot", f"http://127.0.0.1:{port}/backchannel-logout", session="session-1")
    assert 'palisade_logout_tokens_waiting{owner="idp"} 1' in mesh.metrics()
    wait_until(lambda: reason(mesh, delete(mesh, token)) == "session_ended", "the key of the logout token")
    assert 'palisade_logout_tokens_total{outcome="accepted"} 1' in mesh.metrics()


def test_a_token_of_a_new_key_has_it_looked_for(running: tuple[Mesh, Idp]) -> None:
    mesh, idp = running
    before = idp.user_token(claims=fresh(), scope="crm:write")
    assert delete(mesh, before).status == 200
    idp.rotate()
    after = idp.user_token(claims=fresh(), scope="crm:write")
    # An unknown key asks for an early look; until then it is refused, and never fetched while a call waits.
    wait_until(lambda: delete(mesh, after).status == 200, "the new key")
    assert delete(mesh, before).status == 200, "the old key is still published"


def test_a_provider_that_is_gone_takes_nothing_with_it(
    start_mesh: Callable[..., Mesh], start_idp: Callable[[], Idp], bundle: Path
) -> None:
    idp = start_idp()
    mesh = start_mesh(bundle=bundle, tokens=tokens(idp, refresh_seconds=1))
    # Never presented before: nothing of it is remembered.
    token = idp.user_token(claims=fresh(), scope="crm:write")
    idp.down()
    # The first that ends may have begun before.
    fetched(mesh, "idp", "failure", attempts=2)
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
    wait_until(lambda: delete(mesh, token).status == 200, "keys that came late")
