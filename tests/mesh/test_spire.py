"""SPIRE as the source of keys: a trust domain of our own by the Workload API, a partner's by its bundle endpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest
from conftest import decided, running_mesh
from fetches import fetches, looked
from spire import AUDIENCE, Spire

from demo import evidence, wire
from demo.mesh import ROOT, Mesh
from demo.names import AGENTS, TRUST_DOMAIN
from demo.processes import wait_until

pytestmark = pytest.mark.spire

PARTNER = "partner.example"
PERMITTED = (200, "")
OWN, PARTNERS = AGENTS["support-bot"], AGENTS["outsider"]
# An agent keeps what it fetched for one audience: for another it fetches anew.
LATER = ["later", "latest"]

ADMITTED = f"""
@id("partner-reads-customers") @reason("The partner's agent looks customers up")
permit (principal == Agent::"{PARTNERS}", action == Action::"crm/get_customer", resource);
"""


def own_keys(spire: Spire, *others: Spire) -> str:
    domains = [f'[[trust_domain]]\nname = "{it.name}"\nkeys = {{ workload_api = true }}\n' for it in (spire, *others)]
    return f"""
[[token]]
header = "authorization"
role = "agent"
[svid]
audiences = {json.dumps([AUDIENCE, *LATER])}
[workload_api]
socket = "{spire.workload_api}"
{"".join(domains)}"""


def partner_keys(spire: Spire, bootstrap: Path) -> str:
    bootstrap.write_text(spire.bundle())
    source = {
        "url": spire.endpoint,
        "endpoint_spiffe_id": spire.endpoint_id,
        "bootstrap_file": str(bootstrap),
        "allow_private_addresses": True,
        "refresh_seconds": 1,
    }
    inline = ", ".join(f"{name} = {json.dumps(value)}" for name, value in source.items())
    return f"""
[[trust_domain]]
name = "{spire.name}"
keys = {{ {inline} }}
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Spire]:
    with Spire(TRUST_DOMAIN) as spire:
        spire.register(OWN)
        yield spire


@pytest.fixture(scope="module")
def partner() -> Iterator[Spire]:
    with Spire(PARTNER) as spire:
        spire.register(PARTNERS)
        yield spire


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spire") / "bundle"
    shutil.copytree(ROOT / "cedar", folder)
    return folder


@pytest.fixture(scope="module")
def mesh(home: Spire, partner: Spire, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    bootstrap = tmp_path_factory.mktemp("bootstrap") / "bundle.json"
    tokens = own_keys(home) + partner_keys(partner, bootstrap)
    with running_mesh(bundle=bundle, tokens=tokens, trust_domains=[TRUST_DOMAIN, PARTNER]) as mesh:
        yield mesh


def call(mesh: Mesh, agent: str, token: str | None) -> wire.Answer:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return decided(
        lambda: wire.call_tool(mesh.as_agent(agent), "get_customer", {"customer_id": 1}, headers=headers)
    )


def outcome(mesh: Mesh, answer: wire.Answer) -> tuple[int, str]:
    return answer.status, str(mesh.record(str(answer.decision_id)).get("reason", ""))


def key_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def test_a_workload_is_believed_by_what_its_agent_fetched(mesh: Mesh, home: Spire) -> None:
    token = home.jwt_svid(OWN)
    answer = call(mesh, "support-bot", token)
    assert answer.status == 200, (answer, outcome(mesh, answer))
    # Not from another peer, not for another audience, not with another signature.
    assert outcome(mesh, call(mesh, "analyst", token)) == (401, "token_actor_mismatch")
    assert outcome(mesh, call(mesh, "support-bot", home.jwt_svid(OWN, "elsewhere"))) == (401, "token_audience_mismatch")
    head, claims, signature = token.split(".")
    forged = ".".join([head, claims, ("B" if signature[0] == "A" else "A") + signature[1:]])
    assert outcome(mesh, call(mesh, "support-bot", forged)) == (401, "token_signature_invalid")


@pytest.fixture(scope="module")
def admitted(mesh: Mesh, partner: Spire, bundle: Path) -> Mesh:
    """The mesh once a policy lets the partner's agent do something; until then its token is believed, and does nothing."""
    token = partner.jwt_svid(PARTNERS)
    assert outcome(mesh, call(mesh, "outsider", token)) == (403, "policy_forbids"), "believed, and nothing more"

    guardrails = bundle / "policies" / "guardrails.cedar"
    text = guardrails.read_text()
    own = 'principal in Namespace::"example.org/agents" ||'
    assert own in text
    guardrails.write_text(text.replace(own, f'{own} principal == Agent::"{PARTNERS}" ||'))
    (bundle / "policies" / "partner.cedar").write_text(ADMITTED)
    wait_until(lambda: call(mesh, "outsider", token).status == 200, "the policy that admits it")
    return mesh


def test_a_partners_agent_is_admitted_by_policy_and_by_nothing_else(
    admitted: Mesh, home: Spire, partner: Spire
) -> None:
    mesh, token = admitted, partner.jwt_svid(PARTNERS)
    assert outcome(mesh, call(mesh, "outsider", token)) == PERMITTED
    # Its trust domain vouches for its own, and for nobody else's.
    assert outcome(mesh, call(mesh, "support-bot", token)) == (401, "token_actor_mismatch")
    assert outcome(mesh, call(mesh, "outsider", home.jwt_svid(OWN))) == (401, "token_actor_mismatch")
    answer = wire.call_tool(
        mesh.as_agent("outsider"), "query_customers", {}, headers={"authorization": f"Bearer {token}"}
    )
    assert outcome(mesh, answer) == (403, "no_policy_permits"), "admitted to one tool"


@pytest.mark.parametrize("domain", ["home", "partner"])
def test_signing_keys_are_rotated_and_revoked(admitted: Mesh, domain: str, request: pytest.FixtureRequest) -> None:
    mesh = admitted
    spire: Spire = request.getfixturevalue(domain)
    agent, spiffe_id = ("support-bot", OWN) if domain == "home" else ("outsider", PARTNERS)
    before = spire.jwt_svid(spiffe_id)
    prepared = spire.server("localauthority", "jwt", "prepare")["prepared_authority"]["authority_id"]
    spire.server("localauthority", "jwt", "activate", "-authorityID", prepared)
    after = spire.jwt_svid(spiffe_id, LATER[0])
    assert key_of(before) != key_of(after) == prepared
    wait_until(lambda: outcome(mesh, call(mesh, agent, after)) == PERMITTED, "the new key")
    assert outcome(mesh, call(mesh, agent, before)) == PERMITTED, "the old key is still in the bundle"

    spire.server("localauthority", "jwt", "taint", "-authorityID", key_of(before))
    spire.server("localauthority", "jwt", "revoke", "-authorityID", key_of(before))
    gone = (401, "token_key_unknown")
    wait_until(lambda: outcome(mesh, call(mesh, agent, before)) == gone, "the end of the old key")
    assert outcome(mesh, call(mesh, agent, after)) == PERMITTED


def test_a_bundle_endpoint_is_followed_while_its_own_authority_rotates(admitted: Mesh, partner: Spire) -> None:
    mesh = admitted
    authority = ("localauthority", "x509")
    old = partner.server(*authority, "show")["active"]["authority_id"]
    new = partner.server(*authority, "prepare")["prepared_authority"]["authority_id"]
    looked(mesh, PARTNER)
    partner.server(*authority, "activate", "-authorityID", new)
    partner.server(*authority, "taint", "-authorityID", old)
    # The endpoint's certificate is of the new one when the old one cannot be needed any more.
    wait_until(lambda: partner.endpoint_is_of(new), "the endpoint's new certificate")
    partner.server(*authority, "revoke", "-authorityID", old)

    prepared = partner.server("localauthority", "jwt", "prepare")["prepared_authority"]["authority_id"]
    partner.server("localauthority", "jwt", "activate", "-authorityID", prepared)
    token = partner.jwt_svid(PARTNERS, LATER[1])
    assert key_of(token) == prepared
    wait_until(lambda: outcome(mesh, call(mesh, "outsider", token)) == PERMITTED, "a key of after the rotation")


def test_what_the_workload_api_withdraws_is_gone_and_an_agent_that_dies_takes_nothing(
    start_mesh: Callable[..., Mesh],
) -> None:
    with Spire(TRUST_DOMAIN) as spire:
        entry = spire.register(OWN)
        token = spire.jwt_svid(OWN)
        mesh = start_mesh(tokens=own_keys(spire))
        assert call(mesh, "support-bot", token).status == 200

        # Nothing is registered any more, so nothing is what this workload may have.
        spire.server("entry", "delete", "-entryID", entry)
        gone = (503, "token_keys_unavailable")
        wait_until(lambda: outcome(mesh, call(mesh, "support-bot", token)) == gone, "the withdrawal")
        ready = evidence.get(mesh.ports.palisade_admin, "/readyz").body.decode()
        assert "gives this workload nothing" in ready, ready

        spire.register(OWN)
        wait_until(lambda: call(mesh, "support-bot", token).status == 200, "the keys again")
        failed = fetches(mesh, TRUST_DOMAIN, "failure")
        spire.stop_agent()
        wait_until(lambda: fetches(mesh, TRUST_DOMAIN, "failure") > failed, "the broken stream")
        assert call(mesh, "support-bot", token).status == 200, "the last good keys count"


def test_a_federated_trust_domain_comes_and_goes_with_the_entry(
    start_mesh: Callable[..., Mesh], partner: Spire
) -> None:
    with Spire(TRUST_DOMAIN) as spire:
        spire.federate_with(partner)
        entry = spire.register(OWN, "-federatesWith", f"spiffe://{PARTNER}")
        own, partners = spire.jwt_svid(OWN), partner.jwt_svid(PARTNERS, LATER[1])
        mesh = start_mesh(tokens=own_keys(spire, partner), trust_domains=[TRUST_DOMAIN, PARTNER])
        assert call(mesh, "support-bot", own).status == 200
        # Believed, and no policy lets it do anything.
        assert outcome(mesh, call(mesh, "outsider", partners)) == (403, "policy_forbids")

        spire.change(entry, OWN)
        gone = (503, "token_keys_unavailable")
        wait_until(lambda: outcome(mesh, call(mesh, "outsider", partners)) == gone, "its end")
        assert call(mesh, "support-bot", own).status == 200, "nobody else's keys are gone"
