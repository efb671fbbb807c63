"""A caller whose token does not do learns what would: from the real provider, with the MCP SDK as it is, through real Envoys."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.parse
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx2
import mcp
import pytest
from bundles import at_any_hour
from conftest import running_mesh
from idp import DpopKey, Idp
from journals import ran
from mcp.client.auth import TokenStorage
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.auth.utils import (
    extract_field_from_www_auth,
    extract_resource_metadata_from_www_auth,
    extract_scope_from_www_auth,
)
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from demo import sdk, wire
from demo.mesh import Mesh
from demo.names import AGENTS

METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
METADATA = f"http://crm.example.org{METADATA_PATH}"
RESOURCE = sdk.MCP_URL
LOGIN = "https://login.example.org/again"
MFA = "urn:example:mfa"
POLICIES = f"""
@id("metadata") @reason("Who has no token yet finds out where to get one")
permit (
  principal in Namespace::"example.org/agents",
  action in [Action::"GET", Action::"HEAD"],
  resource == Endpoint::"crm{METADATA_PATH}"
);

@id("coder-with-scopes") @reason("The coder reads what it was granted")
@scopes("crm:list crm:read")
permit (principal == Agent::"{AGENTS["coder"]}", action == Action::"crm/query_customers", resource);

@id("deletes-with-mfa") @reason("A user who logged in lately, and strongly")
@step_up("{MFA} max_age=300")
permit (principal == Agent::"{AGENTS["support-bot"]}", action == Action::"crm/delete_customer", resource);
"""


def tokens(idp: Idp) -> str:
    source = {"discovery": True, "allow_private_addresses": True, "ca_file": str(idp.ca.root)}
    inline = ", ".join(f"{name} = {json.dumps(value)}" for name, value in source.items())
    actors = ", ".join(f'"{name}" = "{AGENTS[name]}"' for name in ("support-bot", "coder"))
    return f"""
[[token]]
header = "authorization"
role = "user"
[[issuer]]
name = "idp"
issuer = "{idp.issuer}"
audiences = ["{RESOURCE}"]
actors = {{ {actors} }}
keys = {{ {inline} }}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = at_any_hour(tmp_path_factory.mktemp("challenges") / "bundle")
    targets = folder / "targets.toml"
    asks = [f'audiences = ["{RESOURCE}"]', f'resource_metadata = "{METADATA}"', f'step_up_url = "{LOGIN}"']
    required = "\n".join(['tokens = "require"', *asks])
    targets.write_text(targets.read_text().replace('tokens = "verify"', required, 1))
    (folder / "policies" / "challenges.cedar").write_text(POLICIES)
    return folder


@pytest.fixture(scope="module")
def shared(idp: Idp, bundle: Path) -> Iterator[tuple[Mesh, Idp]]:
    with running_mesh(bundle=bundle, tokens=tokens(idp), issuer=idp.issuer) as mesh:
        yield mesh, idp


def reason(mesh: Mesh, answer: wire.Answer) -> str:
    return str(mesh.record(str(answer.decision_id)).get("reason", ""))


def challenge(answer: wire.Answer) -> httpx2.Response:
    """The answer as the SDK's own readers of challenges take it."""
    return httpx2.Response(answer.status, headers=answer.headers)


def delete(mesh: Mesh, token: str | None) -> wire.Answer:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return wire.call_tool(mesh.as_agent("support-bot"), "delete_customer", {"customer_id": 999}, headers=headers)


def test_whoever_has_no_token_finds_the_metadata(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    answer = delete(mesh, None)
    assert (answer.status, reason(mesh, answer)) == (401, "token_absent")
    assert extract_resource_metadata_from_www_auth(challenge(answer)) == METADATA
    assert extract_field_from_www_auth(challenge(answer), "error") is None
    found = wire.send(mesh.as_agent("support-bot"), "GET", "crm.example.org", METADATA_PATH)
    assert (found.status, found.json()["authorization_servers"]) == (200, [idp.issuer])
    record = mesh.record(str(found.decision_id))
    assert record["calls"][0]["resource"] == f'Endpoint::"crm{METADATA_PATH}"'
    # That path is all that is open, and to agents of the mesh alone.
    for method, path in (("POST", METADATA_PATH), ("GET", METADATA_PATH + "/x"), ("GET", "/.well-known/x"), ("GET", "/mcp")):
        refused = wire.send(mesh.as_agent("support-bot"), method, "crm.example.org", path)
        assert refused.status in (401, 403), (method, path, refused)
    assert wire.send(mesh.as_agent("outsider"), "GET", "crm.example.org", METADATA_PATH).status == 403


def test_a_fresher_and_stronger_login_is_asked_for(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared

    def with_login(**claims: object) -> wire.Answer:
        return delete(mesh, idp.user_token(claims=claims, resource=RESOURCE))

    for claims in (
        {"acr": "urn:example:password", "auth_time": int(time.time())},
        {"acr": MFA, "auth_time": int(time.time()) - 600},
        {"acr": MFA},
    ):
        answer = with_login(**claims)
        assert (answer.status, reason(mesh, answer)) == (401, "step_up_required"), claims
        said = {name: extract_field_from_www_auth(challenge(answer), name) for name in ("error", "acr_values", "max_age")}
        assert said == {"error": "insufficient_user_authentication", "acr_values": MFA, "max_age": "300"}
        assert answer.json()["id"] == 1, "and the client knows which of its calls it was"
        record = mesh.record(str(answer.decision_id))
        assert record["calls"][0]["demanding"][0]["id"] == "deletes-with-mfa"
    answer = with_login(acr=MFA, auth_time=int(time.time()))
    assert answer.status == 200, answer


def raw_challenges(mesh: Mesh, headers: dict[str, str]) -> list[str]:
    """Each `www-authenticate` as it came through Envoy: a header of its own."""
    connection = mesh.as_agent("support-bot")
    tool = "delete_customer"
    sent = {**wire.mcp_headers(tool), "host": "crm.example.org", **headers}
    connection.request("POST", "/mcp", wire.mcp_body(tool, {"customer_id": 999}), sent)
    response = connection.getresponse()
    response.read()
    assert response.status == 401
    return response.headers.get_all("www-authenticate")


def test_a_challenge_is_in_the_scheme_of_the_token_or_in_each_that_would_do(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    bearer, dpop = raw_challenges(mesh, {})
    assert bearer == f'Bearer resource_metadata="{METADATA}"'
    assert dpop.startswith(f'DPoP resource_metadata="{METADATA}", algs="ES256 ')
    # A client may send some already; what it sends is no challenge of ours.
    assert raw_challenges(mesh, {"www-authenticate": "Basic"}) == [bearer, dpop]
    key = DpopKey()

    def as_dpop(**claims: object) -> dict[str, str]:
        token = idp.user_token(dpop=key, claims=claims, resource=RESOURCE)
        return {"authorization": f"DPoP {token}", "dpop": key.proof("POST", "https://crm.example.org/mcp", token=token)}

    weak = {"acr": "urn:example:password", "auth_time": int(time.time())}
    (asked,) = raw_challenges(mesh, as_dpop(**weak))
    assert asked.startswith('DPoP error="insufficient_user_authentication", ') and f'acr_values="{MFA}"' in asked
    assert ' algs="ES256 ' in asked
    (asked,) = raw_challenges(mesh, {"authorization": f"Bearer {idp.user_token(claims=weak, resource=RESOURCE)}"})
    assert asked.startswith('Bearer error="insufficient_user_authentication", ') and "algs" not in asked
    (wrong,) = raw_challenges(mesh, {"authorization": "DPoP a.b.c"})
    assert wrong.startswith('DPoP error="invalid_token", ')
    strong = as_dpop(acr=MFA, auth_time=int(time.time()))
    answer = wire.call_tool(mesh.as_agent("support-bot"), "delete_customer", {"customer_id": 999}, headers=strong)
    assert answer.status == 200, answer


class Memory(TokenStorage):
    """What the SDK keeps of its tokens."""

    def __init__(self) -> None:
        self.granted: list[str | None] = []
        self.current: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.current

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.current = tokens
        self.granted.append(tokens.scope)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        pass


def test_the_sdk_finds_its_way_alone(shared: tuple[Mesh, Idp]) -> None:
    """From no token at all over the metadata and the provider to a call that needs more scopes than the first token has."""
    mesh, idp = shared
    memory, statuses = Memory(), []

    async def note(response: httpx2.Response) -> None:
        statuses.append((response.request.url.host, response.status_code))

    async def run() -> mcp.types.CallToolResult:
        auth = ClientCredentialsOAuthProvider(RESOURCE, memory, "coder", "secret", issuer=idp.issuer)
        trusted = ssl.create_default_context(cafile=str(idp.ca.root))
        mounts = {
            "http://crm.example.org": httpx2.AsyncHTTPTransport(proxy=mesh.proxy("coder")),
            "https://127.0.0.1": httpx2.AsyncHTTPTransport(verify=trusted),
        }
        async with (
            httpx2.AsyncClient(mounts=mounts, auth=auth, trust_env=False, timeout=10, event_hooks={"response": [note]}) as http,
            mcp.Client(streamable_http_client(RESOURCE, http_client=http), cache=None) as client,
        ):
            return await client.call_tool("query_customers", {"segment": "startup"})

    result = asyncio.run(run())
    assert not result.is_error, result
    assert ("crm.example.org", 401) in statuses
    assert ("crm.example.org", 403) in statuses
    assert memory.granted[-1] is not None
    assert set(memory.granted[-1].split()) >= {"crm:list", "crm:read"}, memory.granted


def test_all_missing_scopes_are_named_at_once(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    for scope in ("other", "crm:list"):
        token = idp.client_token(client="coder", resource=RESOURCE, scope=scope)
        answer = wire.call_tool(
            mesh.as_agent("coder"), "query_customers", {}, headers={"authorization": f"Bearer {token}"}
        )
        assert (answer.status, reason(mesh, answer)) == (403, "scope_insufficient")
        assert extract_scope_from_www_auth(challenge(answer)) == "crm:list crm:read"
        assert extract_resource_metadata_from_www_auth(challenge(answer)) == METADATA


def test_a_token_for_another_server_is_none_for_this_one(shared: tuple[Mesh, Idp]) -> None:
    mesh, idp = shared
    answer = delete(mesh, idp.user_token(resource="http://mail.example.org/mcp"))
    assert (answer.status, reason(mesh, answer)) == (401, "token_audience_mismatch")


class Bearer(httpx2.Auth):
    """Whatever token the user has now."""

    def __init__(self, token: str) -> None:
        self.token = token

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["authorization"] = f"Bearer {self.token}"
        yield request


def test_the_sdk_has_its_user_log_in_inside_the_protocol(shared: tuple[Mesh, Idp]) -> None:
    """The SDK opens the URL that it is given, and repeats the call: with the state, and with the token of the new login."""
    mesh, idp = shared
    auth = Bearer(idp.user_token(resource=RESOURCE))
    opened: list[str] = []

    async def log_in(_context: object, params: mcp.types.ElicitRequestParams) -> mcp.types.ElicitResult:
        assert isinstance(params, mcp.types.ElicitRequestURLParams)
        opened.append(params.url)
        auth.token = idp.user_token(claims={"acr": MFA, "auth_time": int(time.time())}, resource=RESOURCE)
        return mcp.types.ElicitResult(action="accept")

    async def run() -> mcp.types.CallToolResult:
        async with (
            httpx2.AsyncClient(proxy=mesh.proxy("support-bot"), auth=auth, trust_env=False, timeout=10) as http,
            mcp.Client(
                streamable_http_client(RESOURCE, http_client=http), cache=None, elicitation_callback=log_in
            ) as client,
        ):
            return await client.call_tool("delete_customer", {"customer_id": 999})

    result = asyncio.run(run())
    assert not result.is_error, result
    [url] = opened
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert url.startswith(LOGIN)
    assert (query["acr_values"], query["max_age"]) == ([MFA], ["300"])
    asked = mesh.record(query["decision_id"][0])
    assert (asked["verdict"], asked["reason"]) == ("DENIAL", "step_up_required")
    assert ran(mesh, "delete_customer", customer_id=999)
