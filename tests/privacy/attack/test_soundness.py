"""The suite can fail: each hole that is made on purpose is found by the checks that all other tests make."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import pipeline
from gateway.backends.base import UpstreamRequest
from gateway.backends.openai_wire import OpenAIWire
from gateway.errors import BadRequest
from gateway.parsing import Request, parse
from gateway.privacy.classify import Classifier
from gateway.privacy.egress import Door
from gateway.types import Classification
from router_policies.types import PrivacyClass
from tests.privacy.attack.arena import Arena, arena, refuses_connections
from tests.privacy.attack.locks import undecided
from tests.privacy.attack.product import Case
from tests.privacy.attack.test_matrix import strike
from tests.support.stack import UPSTREAM_KEY

CASE = Case("user message", "plain", "payment_card", "as shipped", False)
HIDDEN = CASE._replace(disguise="full width", field="tool result")


def found(what: str) -> Any:
    """Within it the suite's own checks must fail, and say this."""
    return pytest.raises(AssertionError, match=what)


def beside(send: Callable[[UpstreamRequest], Any]) -> Callable[..., Any]:
    """The shipped way out, with another one beside it."""
    shipped = OpenAIWire.send

    async def both(self: OpenAIWire, request: UpstreamRequest) -> Any:
        await send(request)
        return await shipped(self, request)

    return both


@pytest.mark.parametrize("case", [CASE, HIDDEN], ids=["plain", "disguised"])
def test_a_direct_client_is_found(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that also tells a rented API of what it is asked, with a client of its own."""
    with found("went outside"), arena(tmp_path) as ring:
        url, key = (
            f"{ring.fakes['rented'].url}/v1/chat/completions",
            {"authorization": f"Bearer {UPSTREAM_KEY}"},
        )

        async def shadow(request: UpstreamRequest) -> None:
            async with httpx.AsyncClient() as client:
                await client.post(url, content=request.content, headers=key)

        monkeypatch.setattr(OpenAIWire, "send", beside(shadow))
        strike(ring, case)


def test_a_direct_client_is_found_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rented API recorded is read at the end as well, through disguises, whoever sent it."""
    with found("1 of 1 canaries are in: outside"), arena(tmp_path) as ring:

        async def shadow(request: UpstreamRequest) -> None:
            async with httpx.AsyncClient() as client:
                await client.post(f"{ring.fakes['rented'].url}/v1/models", content=request.content)

        monkeypatch.setattr(OpenAIWire, "send", beside(shadow))
        monkeypatch.setattr(Arena, "assert_stayed", lambda *_: None)
        strike(ring, HIDDEN)


def test_a_connection_to_nobody_we_know_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not reach a stand-in, nor anybody: that it was tried is enough."""
    port = refuses_connections()

    async def shadow(_: UpstreamRequest) -> None:
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", port)

    with found("connections past the door"), arena(tmp_path) as ring:
        monkeypatch.setattr(OpenAIWire, "send", beside(shadow))
        strike(ring, CASE)


def test_a_blind_classifier_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lock behind it stands, and none has anything to go by."""

    async def classify(*_: object, **__: object) -> Classification:
        return Classification(privacy=PrivacyClass.PUBLIC)

    monkeypatch.setattr(Classifier, "classify", classify)
    with found("went outside"), arena(tmp_path) as ring:
        strike(ring, CASE)


def test_an_open_door_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class is right and nobody asks for it: proof, decision and door are all lifted."""
    monkeypatch.setattr(Door, "check", lambda *_: None)
    with (
        found("went outside"),
        undecided(),
        arena(tmp_path, "first-choice") as ring,
    ):
        strike(ring, CASE._replace(path="first choice"))


def test_two_lifted_locks_leave_one(tmp_path: Path) -> None:
    """Without proof and decision the door alone refuses, on every leaky route, and says so."""
    tags = ("first-choice", "only-choice", "retry", "hedge-outside")
    with undecided(), arena(tmp_path, *tags) as ring:
        for number, tag in enumerate(tags):
            case = CASE._replace(kind="iban", stream=bool(number % 2))
            strike(ring, case._replace(path=tag.replace("-", " ")))
        answer = ring.ask("chat/completions", b'{"model":"m","messages":[{"role":"user","content":"x"}]}',
                          x_headgate_privacy="restricted", x_headgate_tags="only-choice")  # fmt: skip
        assert (answer.status, b"privacy_egress_refused" in answer.body) == (403, True)


def leaking(leak: Callable[[bytes], None]) -> Callable[..., Request]:
    def parse_and_tell(endpoint: str, raw: bytes) -> Request:
        leak(raw)
        return parse(endpoint, raw)

    return parse_and_tell


def to_a_file(folder: Path) -> Callable[[bytes], None]:
    def leak(raw: bytes) -> None:
        with (folder / "debug.txt").open("ab") as file:
            file.write(raw)

    return leak


LEAKS = {
    "log": lambda _: lambda raw: logging.getLogger("headgate.debug").warning("request: %s", raw),
    "debug.txt": to_a_file,
}


@pytest.mark.parametrize("where", LEAKS)
def test_content_that_is_written_is_found(
    where: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a log, or in a file of which the configuration says nothing."""
    monkeypatch.setattr(pipeline, "parse", leaking(LEAKS[where](tmp_path_factory.mktemp("elsewhere"))))
    with found(f"canaries are in: .*{where}"), arena(tmp_path) as ring:
        strike(ring, HIDDEN)


def test_content_in_an_answer_to_others_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that repeats what somebody else sent."""
    kept = [b""]

    def parse_and_repeat(endpoint: str, raw: bytes) -> Request:
        try:
            return parse(endpoint, raw)
        except BadRequest as error:
            raise BadRequest(f"{error}; unlike {kept[0]!r}") from None
        finally:
            kept[0] = max(kept[0], raw, key=len)

    monkeypatch.setattr(pipeline, "parse", parse_and_repeat)
    with found("canaries are in: answers to others"), arena(tmp_path) as ring:
        strike(ring, CASE)
        ring.bystand()


def test_everything_is_in_view(tmp_path: Path) -> None:
    """Rows, spans, lines and answers did come to where the checks look: empty places would hold nothing."""
    with arena(tmp_path) as ring:
        strike(ring, CASE)
        ring.bystand()
    written = ring.written()
    assert b"private-stays-home" in written["traces"]
    assert b"private-stays-home" in written[str(tmp_path / "access.jsonl")]
    assert b"private-stays-home" in written[str(tmp_path / "var" / "headgate.db")]
    assert b"headgate_requests" in written["answers to others"]
    assert b"payment_card" not in ring.outside()
