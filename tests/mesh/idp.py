"""The identity provider of the tests (`tests/idp`): start it, get tokens from it, have it misbehave."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import ipaddress
import json
import subprocess
import time
import urllib.parse
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from demo import wire
from demo.certs import ThrowAwayCa
from demo.mesh import ROOT
from demo.names import AGENTS, SERVERS
from demo.processes import STOP_SECONDS, Component, MeshError, uninterrupted

_FOLDER = ROOT / "tests" / "idp"
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"

RESOURCE = "https://crm.example.org"
Certificate = tuple[Path, Path]  # the files of a certificate and of its key


class Options(TypedDict, total=False):
    """How a token is asked for."""

    client: str  # the name of an agent
    certificate: Certificate  # authenticates the client instead of its secret; the token is bound to it
    dpop: DpopKey  # the token is bound to it
    resource: str | None  # its audience; with None the token is opaque
    scope: str
    alg: str  # RS256, PS256, ES256 (unless said otherwise), ES384, EdDSA or Ed25519
    lifetime: int  # in seconds
    claims: Mapping[str, Any]  # over what it would have; None leaves one out
    header: Mapping[str, Any]  # likewise


class DpopKey:
    """The key of a client that proves with every call that a token is its own (RFC 9449)."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.jwk: dict[str, str] = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)

    @property
    def thumbprint(self) -> str:
        """RFC 7638: of the members that make the key, in order, without white space."""
        members = {name: self.jwk[name] for name in ("crv", "kty", "x", "y")}
        return _base64url(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())

    def proof(
        self,
        method: str,
        url: str,
        *,
        token: str | None = None,
        nonce: str | None = None,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> str:
        """The proof for one request. `claims` and `header` are for wrong ones: None leaves one out."""
        proper = {
            "jti": str(uuid.uuid4()),
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
            "ath": _base64url(hashlib.sha256(token.encode()).digest()) if token else None,
            "nonce": nonce,
        }
        payload = {name: value for name, value in {**proper, **(claims or {})}.items() if value is not None}
        return jwt.encode(payload, self.private, "ES256", {"typ": "dpop+jwt", "jwk": self.jwk, **(header or {})})


class Idp:
    """An OpenID provider with keys of its own, on ports of its own; it runs from `with` to its end.

    Its clients are the agents and servers of the demo, each in two ways: by name with a secret, and by SPIFFE ID with a
    certificate of `ca`. Whatever they wish for their tokens, it is the provider that makes and signs them: also those that
    must be refused.
    """

    def __init__(self, directory: Path) -> None:
        self.clients = {**AGENTS, **SERVERS}
        self.ca = ThrowAwayCa(directory / "certs")
        self._log = directory / "idp.log"

    def __enter__(self) -> Self:
        _install()
        certificate, key = self.ca.issue_for("idp", [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        config = {
            "certificate": str(certificate),
            "key": str(key),
            "trusted": [str(self.ca.root)],
            "agents": self.clients,
        }
        with uninterrupted():
            command = ["node", _FOLDER / "server.mjs", json.dumps(config)]
            self.component = Component("the identity provider", command, self._log, _FOLDER)
        try:
            self.component.wait_ready(self._is_ready)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        said = [line for line in self._log.read_text(errors="replace").splitlines(True) if line.startswith('{"issuer":')]
        if not said or not said[0].endswith("\n"):
            return False
        ready = json.loads(said[0])
        self.issuer: str = ready["issuer"]
        self.port: int = ready["port"]
        self._control_port: int = ready["control"]
        return True

    def stop(self) -> None:
        with uninterrupted():
            self.component.ask_to_stop()
            self.component.stopped(time.monotonic() + STOP_SECONDS)

    # ---------------------------------------------------------------------------------------------------------- tokens

    def user_token(self, sub: str = "alice", **options: Unpack[Options]) -> str:
        """The token of a user who logged in at the client. `groups`, `acr`, `amr`, `auth_time` and `sid` are claims."""
        return _token(self.ask({"grant_type": "urn:palisade:test:user", "sub": sub}, **options))

    def client_token(self, **options: Unpack[Options]) -> str:
        """An agent's own token."""
        return _token(self.ask({"grant_type": "client_credentials"}, **options))

    def exchange(self, subject_token: str, actor_token: str | None = None, **options: Unpack[Options]) -> str:
        """The subject's token for the client, or for whom `actor_token` is about, as the actor (RFC 8693)."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject_token,
            "subject_token_type": _ACCESS_TOKEN,
        }
        if actor_token:
            form |= {"actor_token": actor_token, "actor_token_type": _ACCESS_TOKEN}
        return _token(self.ask(form, **options))

    def ask(self, form: Mapping[str, str], **options: Unpack[Options]) -> wire.Answer:
        """A request of the token endpoint, and whatever it answers."""
        assert options.keys() <= Options.__annotations__.keys(), "misspelled, an option would do nothing"
        form, headers = dict(form), dict(_FORM)
        client = options.get("client", "support-bot")
        certificate = options.get("certificate")
        if certificate:
            form["client_id"] = self.clients[client]
        else:
            headers["authorization"] = "Basic " + base64.b64encode(f"{client}:secret".encode()).decode()
        if dpop := options.get("dpop"):
            headers["dpop"] = dpop.proof("POST", f"{self.issuer}/token")
        if resource := options.get("resource", RESOURCE):
            form["resource"] = resource
        if "scope" in options:
            form["scope"] = options["scope"]
        wish = {name: value for name, value in options.items() if name in ("alg", "lifetime", "claims", "header")}
        body = urllib.parse.urlencode({**form, "wish": json.dumps(wish)}).encode()
        return wire.send(self._connect(certificate), "POST", f"127.0.0.1:{self.port}", "/token", headers, body)

    def get(self, path: str) -> wire.Answer:
        return wire.send(self._connect(), "GET", f"127.0.0.1:{self.port}", path)

    def _connect(self, certificate: Certificate | None = None) -> http.client.HTTPSConnection:
        return wire.mutual_tls(self.port, self.ca.root, certificate)

    # --------------------------------------------------------------------------------------------------------- control

    def announce(self) -> None:
        """Publish new keys, which do not sign yet."""
        self._control("/announce")

    def rotate(self) -> None:
        """Sign with the announced keys, or with new ones. The old ones stay published, until `drop`."""
        self._control("/rotate")

    def drop(self) -> None:
        """Publish the old keys no longer."""
        self._control("/drop")

    def requests(self, path: str) -> int:
        """How many requests of this path have come."""
        return self._control("/requests").get(path, 0)

    def down(self) -> None:
        """End every connection, and every new one at once, until `up`."""
        self._control("/down")

    def up(self) -> None:
        self._control("/up")

    def behave(self, path: str) -> None:
        """Answer this path properly again. Requests that hang are answered now."""
        self._control("/behave", path=path)

    def hang(self, path: str) -> None:
        """Answer no request of this path, until told how."""
        self._control("/behave", path=path, hang=True)

    def answer(
        self,
        path: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        body: str = "",
        times: int = 1,
        pause_ms: int = 0,
    ) -> None:
        """Answer this path so, with the body so many times over: rubbish, a redirect, 100 MB, a byte a second."""
        how = {"status": status, "headers": headers or {}, "body": body, "times": times, "pause": pause_ms}
        self._control("/behave", path=path, **how)

    def sent(self, path: str) -> list[int]:
        """Of each answer with a body from `answer` that has ended: how many bytes of it could be sent."""
        return [one["bytes"] for one in self._control("/sent").get(path, []) if one["ended"]]

    def add_headers(self, path: str, headers: Mapping[str, str]) -> None:
        """Answer this path properly, with these headers beside the provider's own."""
        self._control("/behave", path=path, headers=headers)

    def log_out(self, client: str, uri: str, sub: str = "alice", session: str | None = None) -> None:
        """End a session of a user, or all of them, and tell the client's back channel, which leads to `uri`."""
        self._control("/logout", client=client, subject=sub, session=session, uri=uri)

    def trust(self, root: Path) -> None:
        """Accept client certificates of this authority too: those of a mesh."""
        self._control("/trust", file=str(root))

    def _control(self, wish: str, **details: Any) -> Any:
        body = json.dumps(details).encode()
        answer = wire.send(wire.plain(self._control_port), "POST", "localhost", wish, body=body)
        assert answer.status == 200, answer
        return answer.json()


@functools.cache
def _install() -> None:
    done = subprocess.run([_FOLDER / "install.sh"], capture_output=True, text=True)
    if done.returncode != 0:
        raise MeshError(done.stderr.strip())


def certificate_digest(path: Path) -> str:
    """`x5t#S256` of a PEM file (RFC 8705, section 3.1)."""
    return _base64url(x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256()))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(answer: wire.Answer) -> str:
    assert answer.status == 200, answer
    return str(answer.json()["access_token"])
