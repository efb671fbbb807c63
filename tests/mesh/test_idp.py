"""The identity provider of the tests is what it says: its tokens, held against an independent implementation."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from idp import RESOURCE, DpopKey, Idp, certificate_digest
from jwt.algorithms import OKPAlgorithm

from demo import wire
from demo.certs import ThrowAwayCa
from demo.names import AGENTS
from demo.processes import PATIENCE_SECONDS, wait_until

# PyJWT knows the algorithm by its older name alone, `EdDSA`.
jwt.register_algorithm("Ed25519", OKPAlgorithm())

StartIdp = Callable[[], Idp]
LOGIN = {
    "groups": ["support", "managers"],
    "acr": "urn:example:mfa",
    "amr": ["pwd", "otp"],
    "auth_time": 1_700_000_000,
    "sid": "session-1",
}


def key_ids(idp: Idp) -> set[str]:
    return {key["kid"] for key in idp.get("/jwks").json()["keys"]}


def verified(idp: Idp, token: str) -> dict[str, Any]:
    """The claims of a token, if PyJWT believes it with the provider's published keys, and RFC 9068 is kept."""
    header = jwt.get_unverified_header(token)
    assert set(header) == {"alg", "typ", "kid"} and header["typ"] == "at+jwt"
    (key,) = (key for key in idp.get("/jwks").json()["keys"] if key["kid"] == header["kid"])
    return jwt.decode(
        token,
        jwt.PyJWK(key).key,
        algorithms=[header["alg"]],
        audience=RESOURCE,
        issuer=idp.issuer,
        options={"require": ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]},
    )


def test_discovery_leads_to_the_keys(idp: Idp) -> None:
    # With the name checked, as a stranger would do it.
    trust = ssl.create_default_context(cafile=str(idp.ca.root))
    connection = http.client.HTTPSConnection("127.0.0.1", idp.port, timeout=10, context=trust)
    answer = wire.send(connection, "GET", f"127.0.0.1:{idp.port}", "/.well-known/openid-configuration")
    document = answer.json()
    assert document["issuer"] == idp.issuer == f"https://127.0.0.1:{idp.port}"
    assert document["jwks_uri"] == f"{idp.issuer}/jwks"
    assert document["token_endpoint"] == f"{idp.issuer}/token"
    assert document["tls_client_certificate_bound_access_tokens"] is True
    keys = idp.get("/jwks").json()["keys"]
    assert [key.get("alg") for key in keys] == ["RS256", "PS256", "ES256", "ES384", None]
    assert len({key["kid"] for key in keys}) == 5
    for key in keys:
        assert key["use"] == "sig" and not set(key) & {"d", "p", "q", "dp", "dq", "qi", "k"}


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"])
def test_a_user_token(idp: Idp, alg: str) -> None:
    before = int(time.time())
    token = idp.user_token("alice", scope="crm.read crm.write", alg=alg, lifetime=60, claims=LOGIN)
    assert jwt.get_unverified_header(token)["alg"] == alg
    claims = verified(idp, token)
    assert before <= claims["iat"] <= time.time()
    del claims["iat"], claims["jti"]
    assert 60 + before <= claims.pop("exp") <= 60 + time.time()
    assert claims == {
        "iss": idp.issuer,
        "sub": "alice",
        "aud": RESOURCE,
        "client_id": "support-bot",
        "scope": "crm.read crm.write",
        **LOGIN,
    }


def test_a_client_token(idp: Idp) -> None:
    first, second = (verified(idp, idp.client_token(client="coder", scope="crm.read")) for _ in range(2))
    assert (first["sub"], first["client_id"], first["scope"]) == ("coder", "coder", "crm.read")
    assert first["jti"] != second["jti"]
    assert not {"cnf", "act"} & set(first)


def test_without_a_resource_a_token_is_opaque(idp: Idp) -> None:
    assert "." not in idp.client_token(resource=None)
    assert "." not in idp.user_token(resource=None)


def test_wishes_make_tokens_that_must_be_refused(idp: Idp) -> None:
    wrong = idp.user_token(claims={"exp": 1, "aud": ["a", "b"], "client_id": None}, header={"typ": "JWT", "kid": None})
    header = jwt.get_unverified_header(wrong)
    claims = jwt.decode(wrong, options={"verify_signature": False})
    assert (header["typ"], "kid" in header) == ("JWT", False)
    assert (claims["exp"], claims["aud"], "client_id" in claims) == (1, ["a", "b"], False)


def test_a_wrong_secret_is_no_client(idp: Idp) -> None:
    answer = idp.ask({"grant_type": "client_credentials"}, client="nobody")
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")


# ------------------------------------------------------------------------------------------------------------- binding


def test_bound_to_a_certificate(idp: Idp) -> None:
    certificate = idp.ca.issue("bound", AGENTS["support-bot"])
    expected = {"x5t#S256": certificate_digest(certificate[0])}
    own = verified(idp, idp.client_token(certificate=certificate))
    assert own["cnf"] == expected
    assert own["sub"] == own["client_id"] == AGENTS["support-bot"]
    users = verified(idp, idp.user_token(certificate=certificate))
    assert users["cnf"] == expected
    assert (users["sub"], users["client_id"]) == ("alice", AGENTS["support-bot"])


def test_a_certificate_is_its_own_agents_alone(idp: Idp) -> None:
    certificate = idp.ca.issue("of-coder", AGENTS["coder"])
    answer = idp.ask({"grant_type": "client_credentials"}, client="support-bot", certificate=certificate)
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")


def test_certificates_of_another_authority_count_once_it_is_trusted(start_idp: StartIdp, tmp_path) -> None:
    idp = start_idp()
    other = ThrowAwayCa(tmp_path / "certs")
    certificate = other.issue("support-bot", AGENTS["support-bot"])
    assert idp.ask({"grant_type": "client_credentials"}, certificate=certificate).status == 401
    idp.trust(other.root)
    claims = verified(idp, idp.client_token(certificate=certificate))
    assert claims["cnf"] == {"x5t#S256": certificate_digest(certificate[0])}


def test_bound_to_a_key(idp: Idp) -> None:
    key = DpopKey()
    for token in (idp.client_token(dpop=key), idp.user_token(dpop=key), idp.exchange(idp.user_token(), dpop=key)):
        assert verified(idp, token)["cnf"] == {"jkt": key.thumbprint}


def test_a_proof_is_for_its_request(idp: Idp) -> None:
    class Elsewhere(DpopKey):
        def proof(self, method: str, url: str, **_: Any) -> str:
            return super().proof(method, url + "/elsewhere")

    answer = idp.ask({"grant_type": "client_credentials"}, dpop=Elsewhere())
    assert (answer.status, answer.json()["error"]) == (400, "invalid_dpop_proof")


def test_a_proof_for_a_token() -> None:
    key = DpopKey()
    proof = key.proof("POST", "https://crm.example.org/mcp", token="abc", nonce="n", claims={"jti": None})
    header = jwt.get_unverified_header(proof)
    assert (header["typ"], header["alg"], header["jwk"]) == ("dpop+jwt", "ES256", key.jwk)
    assert set(key.jwk) == {"kty", "crv", "x", "y"}
    claims = jwt.decode(proof, jwt.PyJWK(header["jwk"]).key, algorithms=["ES256"])
    # RFC 9449, section 4.2; the digest of "abc" is that of FIPS 180-2, appendix B.1.
    assert claims.pop("ath") == "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"
    assert claims.pop("iat") <= time.time()
    assert claims == {"htm": "POST", "htu": "https://crm.example.org/mcp", "nonce": "n"}


# ---------------------------------------------------------------------------------------------------------- delegation


def test_an_exchange_says_who_acts(idp: Idp) -> None:
    login = idp.user_token("alice", scope="crm.read crm.write", claims=LOGIN)
    first = idp.exchange(login, client="support-bot", scope="crm.read")
    claims = verified(idp, first)
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("alice", "support-bot", "crm.read")
    assert claims["act"] == {"sub": "support-bot"}
    assert {name: claims[name] for name in LOGIN} == LOGIN
    # The next one acts by certificate, so it is known by its SPIFFE ID, and gets a bound token.
    certificate = idp.ca.issue("analyst", AGENTS["analyst"])
    second = verified(idp, idp.exchange(first, client="analyst", certificate=certificate))
    assert second["act"] == {"sub": AGENTS["analyst"], "act": {"sub": "support-bot"}}
    assert second["cnf"] == {"x5t#S256": certificate_digest(certificate[0])}
    assert (second["sub"], second["scope"]) == ("alice", "crm.read")


def test_an_exchange_for_somebody_else(idp: Idp) -> None:
    actor = idp.client_token(client="coder")
    assert verified(idp, idp.exchange(idp.user_token(), actor, client="support-bot"))["act"] == {"sub": "coder"}


def test_an_exchange_only_narrows(idp: Idp) -> None:
    login = idp.user_token(scope="crm.read", lifetime=30)
    assert verified(idp, idp.exchange(login))["exp"] <= verified(idp, login)["exp"]
    with pytest.raises(AssertionError, match="invalid_scope"):
        idp.exchange(login, scope="crm.read crm.write")
    with pytest.raises(AssertionError, match="invalid_request"):
        idp.exchange(login[:-4] + "AAAA")


# ------------------------------------------------------------------------------------------------------------ rotation


def test_keys_rotate(start_idp: StartIdp) -> None:
    idp = start_idp()
    old_keys, old = key_ids(idp), idp.user_token()
    idp.rotate()
    new = idp.user_token()
    assert jwt.get_unverified_header(new)["kid"] not in old_keys
    assert old_keys < key_ids(idp)
    assert verified(idp, old) and verified(idp, new)
    assert idp.get("/.well-known/openid-configuration").json()["issuer"] == idp.issuer
    # An exchange believes what the old key signed, as long as it is published.
    assert verified(idp, idp.exchange(old))
    idp.drop()
    assert not old_keys & key_ids(idp)
    assert verified(idp, new)
    with pytest.raises(AssertionError, match="invalid_request"):
        idp.exchange(old)


def test_keys_are_announced_before_they_sign(start_idp: StartIdp) -> None:
    idp = start_idp()
    old_keys = key_ids(idp)
    idp.announce()
    announced = key_ids(idp) - old_keys
    assert len(announced) == len(old_keys)
    for alg in ("RS256", "ES256", "EdDSA"):
        assert jwt.get_unverified_header(idp.user_token(alg=alg))["kid"] in old_keys
    idp.rotate()
    assert key_ids(idp) == old_keys | announced
    for alg in ("RS256", "ES256", "EdDSA"):
        assert jwt.get_unverified_header(idp.user_token(alg=alg))["kid"] in announced


# -------------------------------------------------------------------------------------------------------- misbehaviour


def test_it_answers_as_told(start_idp: StartIdp) -> None:
    idp = start_idp()
    keys = idp.get("/jwks").body
    idp.add_headers("/jwks", {"cache-control": "max-age=7"})
    answer = idp.get("/jwks")
    assert (answer.headers["cache-control"], answer.body) == ("max-age=7", keys)
    idp.answer("/jwks", body="<html>")
    assert (idp.get("/jwks").status, idp.get("/jwks").body) == (200, b"<html>")
    idp.answer("/jwks", 302, {"location": "https://elsewhere.example/jwks"})
    answer = idp.get("/jwks")
    assert (answer.status, answer.headers["location"]) == (302, "https://elsewhere.example/jwks")
    assert idp.requests("/jwks") == 5
    idp.behave("/jwks")
    answer = idp.get("/jwks")
    assert ("cache-control" in answer.headers, answer.body) == (False, keys)


def test_it_sends_100_mb(start_idp: StartIdp) -> None:
    idp = start_idp()
    idp.answer("/jwks", body=" " * 1_000, times=100_000)
    assert len(idp.get("/jwks").body) == 100_000_000
    # Who hangs up half-way does it no harm.
    connection = wire.mutual_tls(idp.port, idp.ca.root, None)
    connection.request("GET", "/jwks")
    assert connection.getresponse().read(1_000)
    connection.close()
    wait_until(lambda: len(idp.sent("/jwks")) == 2, "the end of both")
    assert sorted(idp.sent("/jwks"))[1] == 100_000_000 > sorted(idp.sent("/jwks"))[0]
    idp.behave("/jwks")
    assert json.loads(idp.get("/jwks").body)["keys"]


def test_it_sends_a_byte_at_a_time(start_idp: StartIdp) -> None:
    idp = start_idp()
    idp.answer("/jwks", body="x", times=20, pause_ms=1)
    assert idp.get("/jwks").body == b"x" * 20
    wait_until(lambda: idp.sent("/jwks") == [20], "its end")


def test_it_hangs_until_it_is_told_how_to_answer(start_idp: StartIdp) -> None:
    idp = start_idp()
    idp.hang("/jwks")
    answers: list[wire.Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(idp.get("/jwks")))
    waiting.start()
    wait_until(lambda: idp.requests("/jwks") == 1, "the request")
    assert idp.get("/.well-known/openid-configuration").status == 200
    assert not answers
    idp.behave("/jwks")
    waiting.join(PATIENCE_SECONDS)
    assert answers[0].json()["keys"]


def test_it_goes_down_and_comes_back(start_idp: StartIdp) -> None:
    idp = start_idp()
    keys = key_ids(idp)
    idp.down()
    with pytest.raises(OSError):
        idp.get("/jwks")
    idp.up()
    assert key_ids(idp) == keys
