"""A conversation's class never falls: over requests, workers, restarts, nor when its past is unreadable."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.errors import ApiError, BadRequest
from gateway.ledger.store import DAY_NS, SessionSeen, Store, StoreUnavailable
from gateway.privacy import sessions as module
from gateway.privacy.sessions import Sessions, key_of
from gateway.types import Classification
from router_policies.types import PrivacyClass
from tests.ledger.samples import entry
from tests.support.stack import FLOOR_KEY, KEY, Stack, running_stack

CARD = "my card is 4111 1111 1111 1111"
LOW, MIDDLE, HIGH = PrivacyClass.PUBLIC, PrivacyClass.CONFIDENTIAL, PrivacyClass.RESTRICTED


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/ledger.db")
    made.migrate()
    yield made
    made.close()


class Clock:
    def __init__(self) -> None:
        self.ns = 10**18

    def __call__(self) -> int:
        return self.ns


async def said(sessions: Sessions, privacy: PrivacyClass, session: str = "s", team: str = "t") -> str:
    """The label of the class that a request of that class has within the session."""
    own = Classification(privacy=privacy, reason="own")
    recalled = await sessions.recall(own, team=team, session=session, previous=None)
    assert recalled.session == key_of(team, session)
    return recalled.classification.privacy.label


async def test_the_class_never_falls(store: Store) -> None:
    """It rises with what is said, and stays; what it was is the reason."""
    sessions = Sessions(store)
    classes = (LOW, MIDDLE, LOW, HIGH, MIDDLE, LOW)
    assert [await said(sessions, privacy) for privacy in classes] == [
        "public", "confidential", "confidential", "restricted", "restricted", "restricted",
    ]  # fmt: skip
    recalled = await sessions.recall(Classification(privacy=LOW), team="t", session="s", previous=None)
    assert recalled.classification.reason == "session has been restricted"


async def test_another_worker_and_another_start_know_it(store: Store) -> None:
    """A rise is in the database before the request goes on, also where a worker knows an older class."""
    first, second = Sessions(store), Sessions(store)
    assert await said(first, MIDDLE) == "confidential"
    assert await said(second, HIGH) == "restricted"
    assert await said(first, LOW) == "restricted"
    assert await said(Sessions(store), LOW) == "restricted"


async def test_what_was_never_sensitive_has_no_row(store: Store) -> None:
    """Sessions of the lowest class cost no write and no room."""
    sessions = Sessions(store)
    assert await said(sessions, LOW) == "public"
    assert store.session(key_of("t", "s")) is None


async def test_teams_do_not_share_sessions(store: Store) -> None:
    """The same name in another team is another session: it learns nothing, and touches nothing."""
    sessions = Sessions(store)
    assert await said(sessions, HIGH, team="a") == "restricted"
    assert await said(sessions, LOW, team="b") == "public"
    assert key_of("ab", "c") != key_of("a", "bc")


async def test_names_are_not_kept(store: Store, tmp_path: Path) -> None:
    """A session may be named after a customer: the database holds a digest."""
    await said(Sessions(store), HIGH, session="jane.doe@example.com")
    store.close()
    found = [(tmp_path / name).read_bytes() for name in os.listdir(tmp_path)]
    assert found
    assert all(b"jane.doe" not in data for data in found)


async def test_an_expired_session_is_refused(store: Store) -> None:
    """After its days without a request it is neither taken for a new one nor forgotten; use keeps it."""
    clock = Clock()
    sessions = Sessions(store, days=2.0, now_ns=clock)
    await said(sessions, MIDDLE)
    for _ in range(5):
        clock.ns += DAY_NS
        assert await said(sessions, LOW) == "confidential"
    clock.ns += 2 * DAY_NS
    for _ in range(2):
        with pytest.raises(BadRequest) as caught:
            await said(Sessions(store, days=2.0, now_ns=clock), LOW)
        assert (caught.value.code, caught.value.param) == ("session_expired", "x-headgate-session")


async def test_a_restricted_session_in_use_does_not_expire(store: Store) -> None:
    """Although this process needs not ask any more what its class is."""
    clock = Clock()
    sessions = Sessions(store, days=2.0, now_ns=clock)
    for _ in range(5):
        assert await said(sessions, HIGH) == "restricted"
        clock.ns += DAY_NS
    assert await said(Sessions(store, days=2.0, now_ns=clock), LOW) == "restricted"


async def test_a_class_that_is_not_on_the_scale_any_more(store: Store) -> None:
    """The configuration has other classes now: what the session was counts as the highest."""
    store.raise_session(key_of("t", "s"), "cosmic", [], Clock().ns)
    assert await said(Sessions(store, now_ns=Clock()), LOW) == "restricted"


class Broken:
    """A database that fails in a way of its own."""

    def __init__(self, fault: Callable[[], object]) -> None:
        self._fault = fault

    def session(self, key: str) -> SessionSeen | None:
        self._fault()
        raise AssertionError("it should have failed")

    def raise_session(self, *_: object) -> None:
        raise StoreUnavailable("down")

    def answers(self, team: str, response_id: str) -> list[tuple[str, str]]:
        self._fault()
        raise AssertionError("it should have failed")


def unavailable() -> None:
    raise StoreUnavailable("down")


def exhausted() -> None:
    raise MemoryError


@pytest.mark.parametrize("fault", [unavailable, exhausted, "hangs"])
async def test_a_past_that_cannot_be_read_is_the_worst(fault: Any) -> None:
    """Down, out of memory or silent: the highest class, and the reason says so; a rise is refused."""
    released = threading.Event()
    sessions = Sessions(Broken((lambda: released.wait(30)) if fault == "hangs" else fault), deadline_s=0.05)
    own = Classification(privacy=LOW, reason="own")
    recalled = await sessions.recall(own, team="t", session="s", previous=None)
    assert recalled.classification.privacy == HIGH
    assert recalled.classification.reason.startswith("session: its past cannot be read: ")
    with pytest.raises(ApiError) as caught:
        await said(sessions, MIDDLE)
    assert (caught.value.status, caught.value.code) == (503, "session_unwritable")
    with pytest.raises(ApiError) as caught:
        await sessions.recall(own, team="t", session=None, previous="resp_1")
    assert (caught.value.status, caught.value.code) == (503, "session_unreadable")
    released.set()


async def test_threads_that_hang_are_not_waited_for() -> None:
    """With all of them stuck the answer comes at once, and is the highest class."""
    released = threading.Event()
    sessions = Sessions(Broken(lambda: released.wait(30)), deadline_s=0.01)
    for _ in range(module.THREADS + 1):
        recalled = await sessions.recall(Classification(privacy=LOW), team="t", session="s", previous=None)
        assert recalled.classification.privacy == HIGH
    assert "stuck" in recalled.classification.reason
    released.set()


async def test_memory_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forgotten is asked for again: nothing falls open."""
    monkeypatch.setattr(module, "MOST_KNOWN", 2)
    sessions = Sessions(store)
    for name in "abc":
        await said(sessions, HIGH, session=name)
        sessions.kept(entry(name, response_id=f"resp_{name}", backend="own"))
    assert len(sessions._sessions) == len(sessions._answers) == 2
    assert await said(sessions, LOW, session="a") == "restricted"


# Responses.


async def go_on(sessions: Sessions, previous: str, team: str = "search") -> tuple[str, str | None]:
    own = Classification(privacy=LOW, reason="own")
    recalled = await sessions.recall(own, team=team, session=None, previous=previous)
    return recalled.classification.privacy.label, recalled.holder


async def test_a_response_is_known_by_its_row(store: Store) -> None:
    """Its class and its backend, to its own team; at once here, elsewhere from the ledger."""
    answered = entry("a", response_id="resp_1", privacy="confidential", backend="own")
    here, elsewhere = Sessions(store), Sessions(store)
    here.kept(answered)
    assert await go_on(here, "resp_1") == ("confidential", "own")
    store.insert([answered])
    assert await go_on(elsewhere, "resp_1") == ("confidential", "own")
    with pytest.raises(BadRequest):
        await go_on(elsewhere, "resp_1", team="other")


async def test_a_row_that_is_on_its_way_is_waited_for(store: Store) -> None:
    """The ledger is some 200 ms behind: a client that is quick and meets another worker is not refused."""
    looked = threading.Event()

    class Watched(Store):
        def answers(self, team: str, response_id: str) -> list[tuple[str, str]]:
            found = super().answers(team, response_id)
            if not looked.is_set():
                looked.set()
                store.insert([entry("a", response_id="resp_1", backend="own")])
            return found

    watched = Watched(str(store._engine.url))
    assert await go_on(Sessions(watched), "resp_1") == ("internal", "own")
    watched.close()


async def test_what_nobody_knows_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record, or two backends that gave the same id: 400, as if there were no such parameter."""
    monkeypatch.setattr(module, "LOOKS_S", (0.0, 0.0))
    sessions = Sessions(store)
    store.insert([entry("a", response_id="twice", backend="own"), entry("b", response_id="twice")])
    for entry_of in ("own", "other"):
        sessions.kept(entry("c", response_id="here", backend=entry_of))
    for previous in ("resp_unknown", "twice", "here"):
        with pytest.raises(BadRequest) as caught:
            await go_on(sessions, previous)
        assert (caught.value.param, caught.value.code) == ("previous_response_id", "unsupported_parameter")


# Through the gateway.

POLICY: dict[str, Any] = {
    "name": "tests",
    "version": 1,
    "routes": [
        {
            "name": "private",
            "match": {"privacy": {"at_least": "confidential"}},
            "targets": [{"backend": "home", "model": "home-model"}],
        },
        {
            "name": "own",
            "match": {"model": "home-model"},
            "targets": [{"backend": "home"}, {"backend": "rented"}],
        },
        {"name": "any", "targets": [{"backend": "rented"}, {"backend": "home", "model": "home-model"}]},
    ],
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("sessions"), policy=POLICY) as running:
        yield running


def ask(stack: Stack, content: str, session: str | None, key: str = KEY) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} | ({"x-headgate-session": session} if session else {})
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}
    return httpx.post(f"{stack.url}/chat/completions", json=body, headers=headers, timeout=30)


def test_once_restricted_the_conversation_stays_home(stack: Stack) -> None:
    """A harmless question in a session that held a card number never reaches the rented backend."""
    assert ask(stack, "hello", "s1").headers["x-headgate-backend"] == "rented"
    assert ask(stack, CARD, "s1").headers["x-headgate-backend"] == "home"
    answer = ask(stack, "and-now-this", "s1")
    assert answer.headers["x-headgate-backend"] == "home"
    assert answer.headers["x-headgate-privacy-class"] == "restricted"
    assert not stack.rented.saw(b"and-now-this")
    assert ask(stack, "hello", "s2").headers["x-headgate-backend"] == "rented"
    assert ask(stack, "hello", None).headers["x-headgate-backend"] == "rented"
    row = stack.rows()[2]
    assert (row.privacy, row.cause) == ("restricted", "session has been restricted")
    assert row.session == stack.rows()[0].session == key_of("support", "s1")


def test_another_tenant_cannot_touch_it(stack: Stack) -> None:
    """A key of another team that gives the same name raises a session of its own."""
    assert ask(stack, CARD, "shared", key=FLOOR_KEY).headers["x-headgate-backend"] == "home"
    assert ask(stack, "hello", "shared").headers["x-headgate-backend"] == "rented"


@pytest.mark.parametrize("name", ["", "x" * 129, "caf\u00e9", "a\tb"])
def test_a_name_that_will_not_do(stack: Stack, name: str) -> None:
    """400 names the header."""
    headers = {b"authorization": f"Bearer {KEY}".encode(), b"x-headgate-session": name.encode("latin-1")}
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = httpx.post(f"{stack.url}/chat/completions", json=body, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-headgate-session")


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_goes_on_where_it_is(stack: Stack, stream: bool) -> None:
    """The next one goes to the backend that has it, with at least its class, whole or streamed."""
    client = openai.OpenAI(base_url=stack.url, api_key=KEY, max_retries=0)

    def respond(
        text: str, previous: str | None = None, model: str = "gpt-4o-mini"
    ) -> tuple[str, httpx.Headers]:
        given = {"previous_response_id": previous} if previous else {}
        raw = client.responses.with_raw_response.create(model=model, input=text, stream=stream, **given)  # type: ignore[call-overload]
        parsed = raw.parse()
        last = list(parsed)[-1].response if stream else parsed
        return last.id, raw.headers

    first, at = respond(CARD)
    assert at["x-headgate-backend"] == "home"
    second, at = respond(f"go-on-{stream}", first)
    assert (at["x-headgate-backend"], at["x-headgate-privacy-class"]) == ("home", "restricted")
    third, at = respond("further", second)
    assert at["x-headgate-backend"] == "home"
    assert not stack.rented.saw(f"go-on-{stream}".encode())
    low, at = respond("hello", model="home-model")
    assert (at["x-headgate-backend"], at["x-headgate-privacy-class"]) == ("home", "public")
    _, at = respond("hello again", low)
    assert at["x-headgate-backend"] == "home"  # although the route would rather go elsewhere
    there, at = respond("hello")
    assert at["x-headgate-backend"] == "rented"
    with pytest.raises(openai.BadRequestError) as caught:
        respond(CARD, there)  # must stay at home, which does not have it
    assert caught.value.code == "previous_response_elsewhere"
    assert not stack.rented.saw(b"4111 1111")
    assert {row.response_id for row in stack.rows()} >= {first, second, third, low, there}
    client.close()


def test_a_response_of_another_team_is_unknown(stack: Stack) -> None:
    """Its id alone gives nobody access: 400, as for one that never was."""
    body: dict[str, Any] = {"model": "home-model", "input": "hi"}
    url, bearer = f"{stack.url}/responses", {"authorization": f"Bearer {KEY}"}
    made = httpx.post(url, json=body, headers=bearer, timeout=30).json()["id"]
    for key, status in ((KEY, 200), (FLOOR_KEY, 400)):
        answer = httpx.post(
            url,
            json=body | {"previous_response_id": made},
            headers={"authorization": f"Bearer {key}"},
            timeout=30,
        )
        assert answer.status_code == status
