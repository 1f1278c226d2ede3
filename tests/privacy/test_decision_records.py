"""What the ledger says of a decision: everywhere that a request went, and why it had its class.

Each failure of item after item of the way means the highest class or a refusal, and the record says which.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.ledger.store import Store, StoreUnavailable
from gateway.privacy import content
from gateway.privacy.audit import audit
from gateway.privacy.detect import Finding
from gateway.privacy.egress import digest_of
from gateway.privacy.evidence import known_keyring
from gateway.types import Entry, Reach
from router_policies.privacy import DEFAULT_SCALE
from tests.support.stack import KEY, POLICY, UPSTREAM_KEY, Stack, running_stack

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
TWO = {
    "name": "tests",
    "version": 7,
    "routes": [
        {
            "name": "both",
            "match": {"privacy": {"at_most": "internal"}},
            "targets": [{"backend": "rented"}, {"backend": "home", "model": "home-model"}],
            "retry": {"attempts": 1},
        },
        {"name": "home", "targets": [{"backend": "home", "model": "home-model"}]},
    ],
}


def post(stack: Stack, body: Any = CHAT, **headers: str) -> httpx.Response:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    bearer = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    return httpx.post(f"{stack.url}/chat/completions", content=raw, headers=bearer | headers, timeout=30)


def script(url: str, *behaviours: dict[str, Any]) -> None:
    bearer = {"authorization": f"Bearer {UPSTREAM_KEY}"}
    httpx.post(f"{url}/__fake__/script", json=list(behaviours), headers=bearer).raise_for_status()


def reached(row: Entry) -> list[tuple[str, str, str, bool]]:
    return [(r.backend, r.zone, r.permit, r.refused) for r in row.reached]


# Where it went.


def test_every_attempt_is_in_the_record(tmp_path: Path) -> None:
    """A retry and a fallback: three attempts, the rented ones with permit and digest, all provable."""
    with running_stack(tmp_path, policy=TWO) as stack:
        script(stack.rented.url, {"status": 500, "times": 2})
        call = post(stack).headers["x-headgate-call-id"]
        (row,) = stack.rows()
        assert reached(row) == [
            ("rented", "cloud", f"{call}.1", False),
            ("rented", "cloud", f"{call}.1", False),
            ("home", "home", "", False),
        ]
        sent = msgspec.json.encode({"messages": CHAT["messages"]})
        assert [r.digest for r in row.reached] == [digest_of(sent)] * 2 + [""]
        assert {(r.ceiling, r.privacy, r.local) for r in row.reached} == {
            ("internal", "public", False),
            ("restricted", "public", True),
        }
        assert (row.policy, row.backend, row.attempts) == ("tests@7", "home", 3)
        assert stack.rented.called == 2
        assert_proved(tmp_path)


def test_both_of_a_hedge_are_in_the_record(tmp_path: Path) -> None:
    """Also the attempt that another was quicker than: its provider has read the prompt."""
    hedged = {**TWO, "routes": [{**TWO["routes"][0], "hedge": {"after_ms": 10}}, TWO["routes"][1]]}
    with running_stack(tmp_path, policy=hedged) as stack:
        script(stack.rented.url, {"hang": True})
        assert post(stack).headers["x-headgate-backend"] == "home"
        (row,) = stack.rows()
        assert [r.backend for r in row.reached] == ["rented", "home"]
        assert_proved(tmp_path)


def test_what_the_door_refuses_has_not_left(tmp_path: Path) -> None:
    """A permit that has expired: 403, nothing at the provider, and the record says that it was refused."""
    changes = {"privacy": {"permit_s": 1e-9}}
    with running_stack(tmp_path, policy=TWO, changes=changes) as stack:
        answer = post(stack)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "privacy_egress_refused")
        assert stack.rented.received == []
        (row,) = stack.rows()
        assert [(r.backend, r.refused) for r in row.reached] == [("rented", True)]
        assert_proved(tmp_path)


def assert_proved(folder: Path) -> None:
    """By the key and the database alone, as the command does it."""
    store = Store(f"sqlite:///{folder}/var/headgate.db")
    found = audit(store.rows(None, None), known_keyring(folder / "var", "", {}), DEFAULT_SCALE)
    store.close()
    assert (found.rows > 0, found.violations) == (True, [])


# Why it had its class.


class Detector:
    """Fails in a way of its own."""

    linear = False

    def __init__(self, name: str, fault: Callable[[], Any]) -> None:
        self.name, self._fault = name, fault

    def scan(self, text: str) -> Sequence[Finding]:
        return self._fault()  # type: ignore[no-any-return]


def raises(error: BaseException) -> Callable[[], Any]:
    def fault() -> Any:
        raise error

    return fault


RELEASED = threading.Event()
FAILURES: dict[str, tuple[Detector, str]] = {
    "exception": (Detector("d", raises(ValueError("secret"))), "detector d: raised ValueError"),
    "out of memory": (Detector("d", raises(MemoryError())), "detector d: raised MemoryError"),
    "ends its thread": (Detector("d", raises(SystemExit())), "detector d: ended its thread with SystemExit"),
    "timeout": (Detector("d", lambda: RELEASED.wait(30)), "detector d: no answer within 0.25 s"),
    "rubbish": (Detector("d", lambda: ["nothing"]), "detector d: returned an invalid finding"),
    "nothing at all": (Detector("d", lambda: None), "detector d: returned NoneType, not a list of findings"),
    "rules not loaded": (
        Detector("rules", raises(StoreUnavailable("down"))),
        "detector rules: raised StoreUnavailable",
    ),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_detector_that_fails_is_named(tmp_path: Path, how: str) -> None:
    """The highest class, at home, and the record says who failed and how, without a word of content."""
    detector, cause = FAILURES[how]
    with running_stack(tmp_path, detectors=[detector]) as stack:
        assert post(stack).headers["x-headgate-backend"] == "home"
        (row,) = stack.rows()
        assert (row.privacy, row.cause) == ("restricted", cause)
        assert stack.rented.called == 0
        assert_proved(tmp_path)
    if how == "timeout":
        RELEASED.set()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("records")) as running:
        yield running


def last(stack: Stack) -> Entry:
    row: Entry = stack.rows()[-1]
    return row


def test_more_than_anybody_reads(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text beyond the limit is not read in part: the highest class, and the record gives the limit."""
    monkeypatch.setattr(content, "MAX_CHARACTERS", 1000)
    assert post(stack, {**CHAT, "user": "x" * 2000}).headers["x-headgate-backend"] == "home"
    assert (last(stack).privacy, last(stack).cause) == (
        "restricted",
        "cannot be read: more than 1000 characters",
    )


def test_what_is_no_text(stack: Stack) -> None:
    """Token ids cannot be read by any detector."""
    bearer = {"authorization": f"Bearer {KEY}"}
    body = {"model": "gpt-4o-mini", "prompt": [1, 2, 3]}
    assert httpx.post(f"{stack.url}/completions", json=body, headers=bearer, timeout=30).status_code == 200
    assert last(stack).cause == "cannot be read: token ids in place of text"
    assert last(stack).reached[0].local


def test_attachments_have_their_class(stack: Stack) -> None:
    """Confidential unless configured otherwise; the record says that nobody has read them."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert post(stack, {**CHAT, "messages": [{"role": "user", "content": [image]}]}).status_code == 200
    assert (last(stack).privacy, last(stack).cause) == ("confidential", "attachments cannot be read")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b'{"model":"m","messages":[{"role":"user","content":"\xff\xfe"}]}', 400),
        (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', 400),
        ('{"model":"m","messages":[{"role":"user","content":"hi"}]}'.encode("utf-16"), 400),
        (b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * (33 << 20) + b'"}]}', 413),
    ],
    ids=["not UTF-8", "half a surrogate pair", "UTF-16", "oversize"],
)
def test_what_cannot_be_decoded_is_refused(stack: Stack, raw: bytes, status: int) -> None:
    """Wrong encoding and oversize never get as far as a class: refused, sent nowhere."""
    before = len(stack.rented.received), len(stack.home.received)
    assert post(stack, raw).status_code == status
    assert (len(stack.rented.received), len(stack.home.received)) == before


def test_a_session_whose_past_cannot_be_read(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """At home for now, with the reason; what would have to be written down is refused."""

    def down(*_: object) -> None:
        raise StoreUnavailable("down")

    with monkeypatch.context() as patched:
        patched.setattr(stack.app.ledger.store, "session", down)
        answer = post(stack, **{"x-headgate-session": "unlucky"})
        refused = post(stack, **{"x-headgate-session": "unlucky", "x-headgate-privacy": "internal"})
    assert answer.headers["x-headgate-backend"] == "home"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "session_unwritable")
    assert last(stack).cause == "session: its past cannot be read: StoreUnavailable"


def test_floors_and_words_are_causes_too(stack: Stack) -> None:
    """Who gave the class is told, be it nobody."""
    post(stack)
    assert last(stack).cause == "floor public; nothing found"
    post(stack, **{"x-headgate-privacy": "restricted"})
    assert last(stack).cause == "asked for restricted"


def test_a_denied_request_has_its_record(tmp_path: Path) -> None:
    """Nowhere to go: nothing reached, its class and the findings all the same."""
    policy = POLICY | {"routes": POLICY["routes"][1:]}
    with running_stack(tmp_path, policy=policy) as stack:
        card = {**CHAT, "messages": [{"role": "user", "content": "4111 1111 1111 1111"}]}
        assert post(stack, card).status_code >= 400
        (row,) = stack.rows()
        assert (row.reached, row.privacy, row.findings) == ((), "restricted", {"payment_card": 1})
        assert_proved(tmp_path)


def test_a_record_holds_no_content() -> None:
    """A reach has room for names, classes and digests only."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(Reach)}
    assert set(kinds.values()) == {str, bool}
    assert "content" not in kinds
