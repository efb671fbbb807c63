"""Keys of a real OpenID provider over time: rotated under load; and what it sends, or does not, when it is not well."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from conftest import is_decided
from fetches import fetched, fetches, looked
from idp import Idp
from test_tokens import RESTRICTED, bundle, delete, fresh, reason, tokens  # noqa: F401, a fixture

from demo import wire
from demo.mesh import Mesh
from demo.processes import wait_until

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
OWNER = "idp"
LIMIT_BYTES = 256 * 1024


class Load:
    """Calls without a pause, through Envoy, each with one of `presented` or with a token that was just made."""

    def __init__(self, mesh: Mesh, idp: Idp, presented: Sequence[str]) -> None:
        self.presented = list(presented)
        self.refusals: list[wire.Answer] = []
        self.errors: list[BaseException] = []
        self._mesh, self._idp = mesh, idp
        self._stop = threading.Event()
        callers = [self._presented, self._presented, self._made]
        self._calls, self._late = [0] * len(callers), [0] * len(callers)
        self._threads = [threading.Thread(target=self._run, args=(at, of)) for at, of in enumerate(callers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _presented(self) -> str:
        return random.choice(self.presented)

    def _made(self) -> str:
        return token(self._idp, random.choice(ALGORITHMS))

    def _run(self, at: int, next_token: Callable[[], str]) -> None:
        try:
            while not self._stop.is_set():
                headers = {"authorization": f"Bearer {next_token()}"}
                answer = wire.call_tool(self._mesh.as_agent("support-bot"), RESTRICTED, {"customer_id": 999}, headers=headers)
                if not is_decided(answer):
                    self._late[at] += 1
                elif answer.status != 200:
                    self.refusals.append(answer)
                self._calls[at] += 1
        except BaseException as error:
            self.errors.append(error)
            raise

    def go_on(self, calls: int = 3) -> None:
        """Until every caller made so many more calls: the first of them may have begun before, the others did not."""
        wanted = [made + calls for made in self._calls]

        def made() -> bool:
            assert not self.errors, self.errors
            return all(now >= then for now, then in zip(self._calls, wanted, strict=True))

        wait_until(made, f"{calls} more calls of each caller")

    def check(self) -> None:
        """Once it is over: every call went through."""
        assert not self.errors, self.errors
        assert not self.refusals, [reason(self._mesh, answer) for answer in self.refusals[:10]]
        assert min(self._calls) > 20, self._calls
        # A busy machine is late now and then; whoever waits for keys would be all the time.
        assert 10 * sum(self._late) <= sum(self._calls), (self._late, self._calls)


def token(idp: Idp, alg: str = "ES256") -> str:
    return idp.user_token(claims=fresh(), scope="crm:write", alg=alg)


@pytest.fixture
def quick(
    start_mesh: Callable[..., Mesh],
    start_idp: Callable[[], Idp],
    bundle: Path,  # noqa: F811
) -> Iterator[tuple[Mesh, Idp]]:
    """A provider that is asked every second. Nobody is patient: no call may wait for keys."""
    idp = start_idp()
    yield start_mesh(patient=False, bundle=bundle, tokens=tokens(idp, refresh_seconds=1)), idp


def test_keys_rotate_under_load_without_a_refusal(quick: tuple[Mesh, Idp]) -> None:
    mesh, idp = quick
    old = [token(idp, alg) for alg in ALGORITHMS]
    with Load(mesh, idp, old) as load:
        for _ in range(2):
            load.go_on()
            # As providers do it: the new keys are published first, and sign once whoever asks has seen them.
            idp.announce()
            looked(mesh, OWNER)
            idp.rotate()
            new = [token(idp, alg) for alg in ALGORITHMS]
            load.presented = old + new
            load.go_on(10)
            load.presented = new
            load.go_on()
            # Of the old keys no token is in use any more.
            idp.drop()
            looked(mesh, OWNER)
            load.go_on()
            for gone in old:
                answer = delete(mesh, gone)
                assert (answer.status, reason(mesh, answer)) == (401, "token_key_unknown")
            old = new
    load.check()


def test_what_a_provider_sends_instead_of_keys_refuses_nobody(quick: tuple[Mesh, Idp]) -> None:
    mesh, idp = quick
    keys = idp.get("/jwks").body.decode()
    first = keys[keys.index("{", 1) : keys.index("}") + 1]
    wrong = {
        "a page": {"body": "<!doctype html><title>503</title>", "headers": {"content-type": "text/html"}},
        "half of it": {"body": keys[: len(keys) // 2]},
        "another shape": {"body": f"[{first}]"},
        "no keys": {"body": '{"keys":[]}'},
        "a key twice": {"body": f'{{"keys":[{first},{first}]}}'},
        "a private key": {"body": keys.replace('"kty":"EC"', '"kty":"EC","d":"c2VjcmV0"', 1)},
        "a secret": {"body": keys.replace('{"keys":[', '{"keys":[{"kty":"oct","k":"c2VjcmV0"},', 1)},
        "a redirect": {"status": 302, "headers": {"location": f"{idp.issuer}/elsewhere"}},
    }
    with Load(mesh, idp, [token(idp, alg) for alg in ALGORITHMS]) as load:
        for how in wrong.values():
            idp.answer("/jwks", **how)
            fetched(mesh, OWNER, "failure")
            load.go_on()
            idp.behave("/jwks")
            fetched(mesh, OWNER, "success")
        load.go_on()
    load.check()
    assert idp.requests("/elsewhere") == 0
    log = mesh.path("palisade.log").read_text()
    assert "private member `d`" in log and "private member `k`" in log and "c2VjcmV0" not in log


def test_a_provider_that_is_down_slow_or_endless_refuses_nobody(quick: tuple[Mesh, Idp]) -> None:
    mesh, idp = quick
    presented = [token(idp, alg) for alg in ALGORITHMS]
    wrong = {
        "it accepts, and never answers": lambda: idp.hang("/jwks"),
        "a byte a second": lambda: idp.answer("/jwks", body=" ", times=100_000, pause_ms=1_000),
        "100 MB": lambda: idp.answer("/jwks", body=" " * 1_000, times=100_000),
        "every connection ends": idp.down,
    }
    for how, begin in wrong.items():
        # What is down makes no tokens either: those that were made before are presented.
        begin()
        before = fetches(mesh, OWNER, "failure")
        while fetches(mesh, OWNER, "failure") == before:
            for one in presented:
                assert delete(mesh, one).status == 200, how
        idp.up()
        idp.behave("/jwks")
        fetched(mesh, OWNER, "success")
    # Of 100 MB it took what keys may be long, and what the sockets of both sides hold: some MB, as the system sets it.
    wait_until(lambda: len(idp.sent("/jwks")) >= 2, "the end of what was cut")
    sent = max(idp.sent("/jwks"))
    assert LIMIT_BYTES < sent < 20_000_000, sent

    # And then keys again, which are new ones.
    idp.rotate()
    new = token(idp)
    wait_until(lambda: delete(mesh, new).status == 200, "the new key")


def test_keys_that_are_too_old_are_none_until_there_are_others(
    start_mesh: Callable[..., Mesh],
    start_idp: Callable[[], Idp],
    bundle: Path,  # noqa: F811
) -> None:
    idp = start_idp()
    mesh = start_mesh(bundle=bundle, tokens=tokens(idp, refresh_seconds=1, max_age_seconds=3))
    presented = token(idp)
    wait_until(lambda: delete(mesh, presented).status == 200, "its keys")
    idp.down()
    wait_until(lambda: delete(mesh, presented).status == 503, "the end of its keys")
    answer = delete(mesh, presented)
    assert (answer.status, reason(mesh, answer)) == (503, "token_keys_unavailable")
    idp.up()
    wait_until(lambda: delete(mesh, presented).status == 200, "its keys again")
