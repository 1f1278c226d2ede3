"""`gateway.record`: what each way through a request costs, and the row that it becomes."""

import asyncio
from collections import Counter
from contextlib import suppress
from decimal import Decimal

import msgspec
import pytest

from gateway.backends.wire import StreamMeter
from gateway.errors import ApiError, BackendError, Denied
from gateway.ledger import charges as module
from gateway.ledger.charges import ByTheHour, ByToken
from gateway.ledger.prices import Override, PriceBook
from gateway.ledger.spool import SpoolUnwritable
from gateway.monitor.metrics import Metrics
from gateway.monitor.observers import Observers
from gateway.parsing import parse
from gateway.record import Record, Recorder
from gateway.types import Call, Classification, Entry, Outcome, Principal, Usage
from router_policies.types import Candidate, Decision, Denial, ErrorClass, Facts, PrivacyClass

RATE = 3_600 * 10**9  # nano-dollars an hour: one dollar a second
REQUEST = parse("chat/completions", b'{"model":"asked","messages":[{"role":"user","content":"hi"}]}')
PROMPT = -(-REQUEST.size // 4)
CALL = Call(
    facts=Facts(
        call_id="call_1",
        endpoint=REQUEST.endpoint,
        model=REQUEST.model,
        key_id="k",
        team="t",
        tags=frozenset({"b", "a"}),
        features=frozenset(),
        prompt_tokens=PROMPT,
        privacy=PrivacyClass.INTERNAL,
    ),
    principal=Principal(key_id="k", team="t"),
    classification=Classification(privacy=PrivacyClass.INTERNAL, findings={"email": 1}),
    started_ns=1,
    clock=0.0,
    tags=frozenset({"b", "a"}),
)
RENTED = Candidate(backend="rented", zone="cloud", model="priced", adapter=None, permit=None)
UNPRICED = msgspec.structs.replace(RENTED, model="nobody-knows")
OWN = Candidate(backend="own", zone="home", model="x@0123456789ab", adapter="x@0123456789ab", permit=None)
DECISION = Decision(
    route="r",
    policy="p@1",
    privacy=PrivacyClass.INTERNAL,
    candidates=(RENTED,),
    fallback_on=frozenset(),
    reason="route r: rented",
)
DENIAL = Denial(
    policy="p@1",
    route=None,
    privacy=PrivacyClass.INTERNAL,
    status=403,
    code="no",
    message="no",
    reason="none left",
)
UNCOUNTED = b'{"choices":[{"message":{"content":"one two three"}}]}'
WHOLE = UNCOUNTED[:-1] + b',"usage":{"prompt_tokens":10,"completion_tokens":5}}'
COST = 10 * 1000 + 5 * 2000
BUSY = BackendError(ErrorClass.SERVER_ERROR, "busy")


class Rows:
    """A ledger that keeps what it is told."""

    def __init__(self, full: bool = False) -> None:
        self.begun: list[Entry] = []
        self.settled: list[Entry] = []
        self._full = full

    def begin(self, entry: Entry) -> None:
        if self._full:
            raise SpoolUnwritable("/secret/path: no room")
        self.begun.append(entry)

    def settle(self, entry: Entry) -> None:
        self.settled.append(entry)


class Clock:
    """Time that passes when it is told to, for the replica's meter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns = 0
        monkeypatch.setattr(module.time, "monotonic_ns", lambda: self.ns)

    def pass_s(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Desk:
    """A recorder with everything it writes to."""

    def __init__(self, full: bool = False) -> None:
        prices = PriceBook({}, "none", {"priced": Override(input=Decimal(1), output=Decimal(2))})
        charges = {"rented": ByToken(prices, "openai"), "own": ByTheHour(RATE)}
        self.rows, self.metrics, self.serving = Rows(full), Metrics(), Counter[str]()
        self._recorder = Recorder(self.rows, charges, Observers(self.metrics), self.serving)

    def record(self, verdict: Decision | Denial = DECISION) -> Record:
        return self._recorder.record(CALL, REQUEST, verdict)

    @property
    def row(self) -> Entry:
        """The one row; nothing is left in flight."""
        (row,) = self.rows.settled
        assert self.metrics.registry.get_sample_value("headgate_in_flight") == 0
        assert set(self.serving.values()) <= {0}
        return row


@pytest.fixture
def desk(clock: Clock) -> Desk:
    return Desk()


def test_a_whole_answer(desk: Desk) -> None:
    """Usage times price, to the nano-dollar, in the row and in the header."""
    with desk.record() as record:
        attempt = record.attempt(RENTED)
        record.answered_whole(attempt, 200, WHOLE)
        assert record.headers()["x-headgate-cost"] == "0.000020000"
        record.completed()
    row = desk.row
    assert (row.outcome, row.status, row.attempts, row.cost_nano) == ("ok", 200, 1, COST)
    assert row.price == "override: priced"
    assert (row.backend, row.zone, row.model, row.adapter) == ("rented", "cloud", "priced", "")
    assert (row.model_asked, row.tags, row.findings) == ("asked", ("a", "b"), {"email": 1})


def test_the_row_is_owed_before_the_backend_is_reached(desk: Desk) -> None:
    """`attempt` writes it down as lost, with an estimate of the cost; a second attempt does so again."""
    with desk.record() as record:
        attempt = record.attempt(RENTED)
        (begun,) = desk.rows.begun
        assert desk.rows.settled == []
        record.failed(attempt, BUSY)
        attempt = record.attempt(UNPRICED)
        record.answered_whole(attempt, 200, WHOLE)
    _, again = desk.rows.begun
    assert [reach.backend for reach in again.reached] == ["rented", "rented"]
    assert (again.outcome, again.attempts, again.cost_nano) == (Outcome.LOST, 2, None)
    assert (begun.outcome, begun.backend, begun.attempts) == (Outcome.LOST, "rented", 1)
    assert begun.usage == Usage(input_tokens=PROMPT, estimated=True)
    assert begun.cost_nano == PROMPT * 1000


@pytest.mark.parametrize("candidate", [UNPRICED, OWN])
def test_what_a_lost_call_cost_may_be_unknown(desk: Desk, candidate: Candidate) -> None:
    """Where nobody can say what a lost call cost, its row says so; zero would be a lie."""
    with desk.record() as record:
        record.attempt(candidate)
    assert desk.rows.begun[0].cost_nano is None


def test_a_refusal_of_ours_costs_nothing(desk: Desk) -> None:
    """Denied before any backend: one row, no begun one, zero."""
    with pytest.raises(Denied), desk.record(DENIAL):
        raise Denied("no", status=403)
    row = desk.row
    assert desk.rows.begun == []
    assert (row.outcome, row.status, row.attempts, row.cost_nano, row.backend) == ("refused", 403, 0, 0, "")
    assert row.reason == "none left"


def test_attempts_that_failed_are_free_elsewhere(desk: Desk) -> None:
    """A rented backend that failed is not paid; the row says why it failed."""
    with suppress(ApiError), desk.record() as record:
        attempt = record.attempt(RENTED)
        record.failed(attempt, BUSY)
        attempt = record.attempt(UNPRICED)
        record.failed(attempt, BUSY)
        raise ApiError("busy", status=502)
    row = desk.row
    assert (row.outcome, row.status, row.attempts, row.cost_nano) == ("failed", 502, 2, 0)
    assert row.error_class is ErrorClass.SERVER_ERROR


def test_both_of_a_hedge_are_settled(desk: Desk) -> None:
    """The one that was given up is paid for the prompt it read, beside the one that answered; one row."""
    with desk.record() as record:
        slow, quick = record.attempt(RENTED), record.attempt(RENTED)
        record.given_up(slow)
        record.answered_whole(quick, 200, WHOLE)
        record.completed()
    assert (desk.row.attempts, desk.row.cost_nano) == (2, PROMPT * 1000 + COST)


def test_by_the_hour(desk: Desk, clock: Clock) -> None:
    """On our own replica a request costs the time it took."""
    with desk.record() as record:
        attempt = record.attempt(OWN)
        assert desk.serving["x@0123456789ab"] == 1
        clock.pass_s(2)
        record.answered_whole(attempt, 200, WHOLE)
        record.completed()
    row = desk.row
    assert row.cost_nano == 2 * 10**9
    assert row.price.startswith("self-hosted")
    assert row.adapter == "x@0123456789ab"


def test_failed_attempts_on_our_own_replica_cost_their_time(desk: Desk, clock: Clock) -> None:
    """The second the replica worked in vain is part of what the request cost, wherever it ends."""
    with desk.record() as record:
        attempt = record.attempt(OWN)
        clock.pass_s(1)
        record.failed(attempt, BUSY)
        clock.pass_s(5)  # nobody's time
        attempt = record.attempt(RENTED)
        record.answered_whole(attempt, 200, WHOLE)
        assert record.headers()["x-headgate-cost"] == "1.000020000"
        record.completed()
    assert (desk.row.cost_nano, desk.row.attempts, desk.row.error_class) == (10**9 + COST, 2, None)


def test_two_on_one_replica_share_the_hour(desk: Desk, clock: Clock) -> None:
    """While two are in flight each pays half: together never more than the clock."""
    with desk.record() as first, desk.record() as second:
        first_attempt = first.attempt(OWN)
        second_attempt = second.attempt(OWN)
        clock.pass_s(2)
        first.answered_whole(first_attempt, 200, WHOLE)
        clock.pass_s(1)
        second.answered_whole(second_attempt, 200, WHOLE)
    assert sorted(row.cost_nano or 0 for row in desk.rows.settled) == [10**9, 2 * 10**9]


def test_an_unknown_price(desk: Desk) -> None:
    """None in the row, and no header."""
    with desk.record() as record:
        attempt = record.attempt(UNPRICED)
        record.answered_whole(attempt, 200, WHOLE)
        assert "x-headgate-cost" not in record.headers()
        record.completed()
    assert (desk.row.cost_nano, desk.row.usage.input_tokens) == (None, 10)


def test_an_answer_without_usage(desk: Desk) -> None:
    """Its words are counted, and the row marked."""
    with desk.record() as record:
        attempt = record.attempt(RENTED)
        record.answered_whole(attempt, 200, UNCOUNTED)
        record.completed()
    assert desk.row.usage == Usage(input_tokens=PROMPT, output_tokens=3, estimated=True)


def test_a_client_that_left_while_the_backend_worked(desk: Desk) -> None:
    """The prompt was read, so it is paid, as an estimate."""
    with suppress(asyncio.CancelledError), desk.record() as record:
        record.attempt(RENTED)
        raise asyncio.CancelledError
    row = desk.row
    assert (row.outcome, row.status, row.cost_nano) == ("client_closed", 0, PROMPT * 1000)
    assert row.usage.estimated


def test_a_client_that_left_a_stream(desk: Desk, clock: Clock) -> None:
    """What was streamed until then is paid, and a replica's time goes on no longer."""
    with suppress(asyncio.CancelledError), desk.record() as record:
        attempt = record.attempt(OWN)
        meter = StreamMeter(strip_usage=True)
        record.answering(attempt, 200, meter)
        meter.feed(b'data: {"choices":[]}\n\n' * 7)
        clock.pass_s(3)
        raise asyncio.CancelledError
    row = desk.row
    assert (row.outcome, row.status, row.cost_nano, row.usage.output_tokens) == (
        "client_closed",
        200,
        3 * 10**9,
        7,
    )


@pytest.mark.parametrize("left", [True, False], ids=["the client leaves", "its deadline passes"])
def test_a_stream_that_is_whole_is_whole(desk: Desk, left: bool) -> None:
    """After [DONE] nobody is owed anything: who hangs up then has had the answer."""
    with suppress(asyncio.CancelledError), desk.record() as record:
        attempt = record.attempt(RENTED)
        meter = StreamMeter(strip_usage=True)
        record.answering(attempt, 200, meter)
        assert not record.over
        meter.feed(b"data: [DONE]\n\n")
        assert record.over
        if left:
            raise asyncio.CancelledError
    assert desk.row.outcome == "ok"


@pytest.mark.parametrize(("began", "outcome", "status"), [(False, "failed", 500), (True, "interrupted", 200)])
def test_a_fault_of_ours(desk: Desk, began: bool, outcome: str, status: int) -> None:
    """A bug of the gateway's leaves one row, and nothing in flight."""
    with suppress(ZeroDivisionError), desk.record() as record:
        attempt = record.attempt(RENTED)
        if began:
            record.answering(attempt, 200, StreamMeter(strip_usage=True))
        raise ZeroDivisionError
    assert (desk.row.outcome, desk.row.status) == (outcome, status)


@pytest.mark.parametrize("candidate", [RENTED, OWN])
def test_a_ledger_that_takes_nothing(clock: Clock, candidate: Candidate) -> None:
    """503 before the backend is reached: nothing charged, nothing counted, no path in the message."""
    desk = Desk(full=True)
    with pytest.raises(ApiError) as caught, desk.record() as record:
        record.attempt(candidate)
    assert (caught.value.status, caught.value.code) == (503, "ledger_unwritable")
    assert "/secret" not in caught.value.message
    row = desk.row
    assert (row.outcome, row.status, row.attempts, row.backend, row.cost_nano) == ("refused", 503, 0, "", 0)


def test_the_stream_settles_by_its_meter(desk: Desk) -> None:
    """The meter's usage, where it came; its events, where it did not."""
    for usage, expected in (
        (
            b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n',
            Usage(input_tokens=10, output_tokens=5),
        ),
        (b"", Usage(input_tokens=PROMPT, output_tokens=1, estimated=True)),
    ):
        with desk.record() as record:
            attempt = record.attempt(RENTED)
            meter = StreamMeter(strip_usage=True)
            record.answering(attempt, 200, meter)
            meter.feed(b'data: {"choices":[{}]}\n\n' + usage)
            record.completed()
        assert desk.rows.settled.pop().usage == expected
