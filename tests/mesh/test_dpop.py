"""Tokens that a real OpenID provider bound to a key, presented with proofs of that key through real Envoys."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import running_mesh
from idp import DpopKey, Idp
from test_tokens import tokens

from demo import wire
from demo.mesh import Mesh
from demo.processes import wait_until

# What the target calls itself in the default bundle, before the path of its messages. No agent connects to it by this name.
URL = "https://crm.example.org/mcp"
TOOL, ARGUMENTS = "query_customers", {"segment": "startup"}


@pytest.fixture(scope="module")
def shared(idp: Idp) -> Iterator[tuple[Mesh, Idp]]:
    with running_mesh(tokens=tokens(idp)) as mesh:
        yield mesh, idp


@pytest.fixture
def with_nonces(start_mesh: Callable[..., Mesh], idp: Idp) -> tuple[Mesh, Idp]:
    return start_mesh(tokens=tokens(idp) + '[dpop]\nnonces = "required"\n'), idp


def call(mesh: Mesh, token: str, proof: str | None, agent: str = "support-bot", scheme: str = "DPoP") -> wire.Answer:
    headers = {"authorization": f"{scheme} {token}"} | ({"dpop": proof} if proof is not None else {})
    return wire.call_tool(mesh.as_agent(agent), TOOL, ARGUMENTS, headers=headers)


def calls_served(mesh: Mesh) -> int:
    return sum(line["kind"] == "tool" for line in mesh.journal("crm"))


def refused(mesh: Mesh, answer: wire.Answer, error: str = "invalid_dpop_proof") -> str:
    """Why; the client is told how to do better."""
    assert answer.status == 401, answer
    assert answer.headers["www-authenticate"].startswith(f'DPoP error="{error}", '), answer.headers
    assert ' algs="ES256 ' in answer.headers["www-authenticate"]
    return str(mesh.record(str(answer.decision_id))["reason"])


def test_a_proof_is_good_for_one_call(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    key = DpopKey()
    token = idp.user_token(dpop=key)
    proof = key.proof("POST", URL, token=token)
    served = calls_served(mesh)
    answer = call(mesh, token, proof)
    assert answer.status == 200, answer
    assert mesh.record(str(answer.decision_id))["caller"]["user"] == "idp/alice"
    assert calls_served(mesh) == served + 1
    assert refused(mesh, call(mesh, token, proof)) == "token_proof_replayed"
    assert calls_served(mesh) == served + 1, "what is sent again does not reach the server"
    assert call(mesh, token, key.proof("POST", URL, token=token)).status == 200
    # Nothing of token and proof is in what is kept of them.
    kept = mesh.records_path.read_text() + mesh.path("palisade.log").read_text()
    assert proof.split(".")[2] not in kept and key.jwk["x"] not in kept and token.split(".")[2] not in kept


def test_a_proof_is_for_its_request_and_its_token_alone(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    key = DpopKey()
    token, other = idp.user_token(dpop=key), idp.user_token(dpop=key)
    for proof, expected in [
        (key.proof("POST", "https://crm.example.org/status", token=token), "token_proof_uri_mismatch"),
        (key.proof("POST", "https://evil.example/mcp", token=token), "token_proof_uri_mismatch"),
        (key.proof("POST", "http://crm.example.org/mcp", token=token), "token_proof_uri_mismatch"),
        (key.proof("GET", URL, token=token), "token_proof_method_mismatch"),
        (key.proof("POST", URL, token=other), "token_proof_token_mismatch"),
        (key.proof("POST", URL), "token_proof_claim_missing"),
        (key.proof("POST", URL, token=token, claims={"iat": int(time.time()) - 90}), "token_proof_expired"),
        (key.proof("POST", URL, token=token, claims={"iat": int(time.time()) + 60}), "token_proof_not_yet_valid"),
        (key.proof("POST", URL, token=token, header={"typ": "JWT"}), "token_proof_type_refused"),
        (key.proof("POST", URL, token=token, header={"kid": "k"}), "token_proof_key_refused"),
        (None, "token_proof_missing"),
    ]:
        assert refused(mesh, call(mesh, token, proof)) == expected
    assert call(mesh, token, key.proof("POST", URL, token=token)).status == 200


def test_a_stolen_token_is_worth_nothing(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    key, thief = DpopKey(), DpopKey()
    token = idp.user_token(dpop=key)
    by_thief = call(mesh, token, thief.proof("POST", URL, token=token))
    assert refused(mesh, by_thief, "invalid_token") == "token_proof_key_mismatch"
    # The owner's key is in every proof, and does not sign.
    forged = thief.proof("POST", URL, token=token, header={"jwk": key.jwk})
    assert refused(mesh, call(mesh, token, forged)) == "token_proof_signature_invalid"
    as_bearer = call(mesh, token, None, scheme="Bearer")
    assert refused(mesh, as_bearer, "invalid_token") == "token_scheme_mismatch"
    # Not even with the owner's own proof: the token was handed to another workload.
    proof = key.proof("POST", URL, token=token)
    elsewhere = call(mesh, token, proof, agent="auditor")
    assert mesh.record(str(elsewhere.decision_id))["reason"] == "token_actor_mismatch"
    assert call(mesh, token, proof).status == 200, "nobody could use it up for its owner"


def test_two_proofs_are_none(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    key = DpopKey()
    token = idp.user_token(dpop=key)
    one, other = (key.proof("POST", URL, token=token) for _ in range(2))
    two_headers = {"authorization": f"DPoP {token}", "dpop": one, "DPoP": other}
    for headers in (two_headers, {"authorization": f"DPoP {token}", "dpop": f"{one},{other}"}):
        answer = wire.call_tool(mesh.as_agent("support-bot"), TOOL, ARGUMENTS, headers=headers)
        assert refused(mesh, answer) == "token_proof_duplicate"


def test_a_key_binds_a_token_that_nothing_else_binds(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    # No workload is configured for this client.
    unbound = call(mesh, idp.user_token(client="scraper"), None, scheme="Bearer")
    assert mesh.record(str(unbound.decision_id))["reason"] == "token_unbound"
    key = DpopKey()
    bound = idp.user_token(client="scraper", dpop=key)
    assert call(mesh, bound, key.proof("POST", URL, token=bound)).status == 200


def test_a_nonce_is_asked_for_and_taken(with_nonces: tuple[Mesh, Idp]) -> None:
    mesh, idp = with_nonces
    key = DpopKey()
    token = idp.user_token(dpop=key)
    first = call(mesh, token, key.proof("POST", URL, token=token))
    assert refused(mesh, first, "use_dpop_nonce") == "token_proof_nonce_missing"
    nonce = first.headers["dpop-nonce"]
    assert first.headers["cache-control"] == "no-store"
    proof = key.proof("POST", URL, token=token, nonce=nonce)
    assert call(mesh, token, proof).status == 200
    assert refused(mesh, call(mesh, token, proof)) == "token_proof_replayed"
    invented = call(mesh, token, key.proof("POST", URL, token=token, nonce="A" * 43))
    assert refused(mesh, invented, "use_dpop_nonce") == "token_proof_nonce_invalid"
    assert call(mesh, token, key.proof("POST", URL, token=token, nonce=invented.headers["dpop-nonce"])).status == 200


def test_there_is_exactly_one_nonce_and_a_permit_renews_it(start_mesh: Callable[..., Mesh], idp: Idp) -> None:
    mesh = start_mesh(tokens=tokens(idp) + '[dpop]\nnonces = "required"\nnonce_seconds = 5\n')
    key = DpopKey()
    token = idp.user_token(dpop=key)

    def ask(nonce: str | None) -> http.client.HTTPResponse:
        connection = mesh.as_agent("support-bot")
        proof = key.proof("POST", URL, token=token, nonce=nonce)
        headers = {**wire.mcp_headers(TOOL), "host": "crm.example.org", "authorization": f"DPoP {token}", "dpop": proof}
        connection.request("POST", "/mcp", wire.mcp_body(TOOL, ARGUMENTS), headers)
        response = connection.getresponse()
        response.read()
        return response

    def handed_out(answer: http.client.HTTPResponse) -> str:
        (nonce,) = answer.headers.get_all("dpop-nonce")
        assert answer.headers.get_all("cache-control") == ["no-store"]
        return nonce

    refusal = ask(None)
    assert refusal.status == 401 and len(refusal.headers.get_all("www-authenticate")) == 1
    nonce = handed_out(refusal)

    def renews() -> bool:
        """Whether a permit brought another nonce that counts; the first one does until the end of the slice behind its own."""
        nonlocal nonce
        answer = ask(nonce)
        if answer.status == 200 and "dpop-nonce" not in answer.headers:
            return False  # still fresh
        if answer.status == 200:
            renewed = handed_out(answer)
            assert renewed != nonce
            nonce, answer = renewed, ask(renewed)
        if answer.status == 401:
            # Nothing ran here for longer than a nonce counts: once more, with the one that is due.
            assert answer.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"'), answer.headers
            nonce = handed_out(answer)
        return answer.status == 200

    wait_until(renews, "a fresh nonce with a permit", 120)
