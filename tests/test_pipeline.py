"""`gateway.pipeline` with backends by script: who is asked, in which order, and what the client hears.

What happens on the wire is tested in dataplane/; here a backend is a list of what it will say.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from gateway.admission import Keys, hash_key
from gateway.backends.base import Source, UpstreamRequest
from gateway.calls import Caller, Upstream
from gateway.errors import ApiError, BackendError, EgressRefused, StreamBroken, Unauthenticated
from gateway.ledger.charges import ByToken
from gateway.ledger.prices import Override, PriceBook
from gateway.monitor.metrics import Metrics
from gateway.monitor.observers import Observers
from gateway.pipeline import Incoming, Pipeline
from gateway.privacy.classify import Classifier
from gateway.privacy.detect import StructuredDetector
from gateway.privacy.egress import digest_of
from gateway.privacy.sessions import Sessions
from gateway.record import Recorder
from gateway.resilience.breaker import Breakers
from gateway.resilience.slots import Slots
from gateway.types import Entry, Principal
from router_policies.load import load
from router_policies.types import BackendInfo, Catalog, ErrorClass, PrivacyClass, Snapshot, Zone
from tests.support.upstream import Response

HOME = Zone(name="home", ceiling=PrivacyClass.RESTRICTED, local=True)
CLOUD = Zone(name="cloud", ceiling=PrivacyClass.INTERNAL)
ZONES = {"own": HOME, "rented": CLOUD, "spare": CLOUD}
LOW = {"privacy": {"at_most": "internal"}}
POLICY = {
    "name": "p",
    "version": 3,
    "routes": [
        {
            "name": "closed",
            "match": {"model": "closed"},
            "deny": {"message": "no", "status": 451, "code": "shut"},
        },
        {
            "name": "german",
            "match": {"model": "tongues", "language": "de"},
            "targets": [{"backend": "own", "model": "own-model"}],
        },
        {
            "name": "rented",
            "match": LOW,
            "targets": [{"backend": b, "model": f"{b}-model"} for b in ("rented", "spare", "own")],
        },
        {"name": "private", "targets": [{"backend": "own", "model": "own-model"}]},
    ],
}
SECRET = "my card is 4111 1111 1111 1111"
WHOLE = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
TOKEN, DONE = b'data: {"choices":[{}]}\n\n', b"data: [DONE]\n\n"


class Scripted:
    """A backend that answers with the next of its script, and keeps what it was asked."""

    def __init__(self, name: str) -> None:
        self.name, self.zone = name, ZONES[name]
        self.script: deque[Any] = deque()
        self.asked: list[UpstreamRequest] = []
        self.answers: list[Response] = []

    async def send(self, request: UpstreamRequest) -> Response:
        self.asked.append(request)
        said = self.script.popleft()
        if isinstance(said, BaseException):
            raise said
        self.answers.append(Response(said if isinstance(said, list) else [said]))
        return self.answers[-1]

    async def aclose(self) -> None: ...


class Client:
    """A reply that keeps what it is given, and breaks when told to."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.status, self.headers, self.body = 0, dict[str, str](), b""
        self._fault = fault

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.start(status, {**headers, "content-length": str(len(body))})
        self.write(body)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        assert not self.status
        self.status, self.headers = status, dict(headers)

    def write(self, chunk: bytes) -> None:
        if self._fault:
            raise self._fault
        self.body += chunk

    def drawn_from(self, source: Source | None) -> None: ...


class Rows:
    def __init__(self) -> None:
        self.begun: list[Entry] = []
        self.settled: list[Entry] = []

    def begin(self, entry: Entry) -> None:
        self.begun.append(entry)

    def settle(self, entry: Entry) -> None:
        self.settled.append(entry)


class NoPast:
    """No request here goes on from another."""

    def session(self, key: str) -> None:
        raise AssertionError

    def raise_session(self, *_: object) -> None:
        raise AssertionError

    def answers(self, team: str, response_id: str) -> list[tuple[str, str]]:
        raise AssertionError


class World:
    def __init__(self, document: Mapping[str, Any] = POLICY) -> None:
        self.backends = {name: Scripted(name) for name in ZONES}
        self.rows, self.serving = Rows(), Counter[str]()
        catalog = Catalog(backends={n: BackendInfo(name=n, zone=z, models=("*",)) for n, z in ZONES.items()})
        policy = load(document, "test", catalog)
        price = Override(input=Decimal(1), output=Decimal(1))
        prices = PriceBook({}, "none", {f"{name}-model": price for name in ZONES})
        charges = {name: ByToken(prices, "") for name in ZONES}
        upstreams = {name: Upstream(b, Slots(9), 0.0) for name, b in self.backends.items()}
        self.snapshot, self.units = Snapshot(), list[str]()
        classifier = Classifier([StructuredDetector()])
        self.pipeline = Pipeline(
            keys=Keys([(hash_key("sk"), Principal(key_id="k", team="t"))]),
            classifier_of=lambda _: classifier,
            policy=lambda *_: policy,
            snapshot=self._snapshot_for,
            caller=Caller(upstreams, Breakers(upstreams, random=lambda: 0.5)),
            recorder=Recorder(self.rows, charges, Observers(Metrics()), self.serving),
            sessions=Sessions(NoPast()),
        )

    def _snapshot_for(self, unit: str) -> Snapshot:
        self.units.append(unit)
        return self.snapshot

    async def ask(
        self,
        client: Client | None = None,
        *,
        content: str = "hi",
        key: str = "sk",
        tags: Collection[str] = (),
        **more: Any,
    ) -> Client:
        body = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
        client = client or Client()
        incoming = Incoming(
            call_id="call_1",
            endpoint="chat/completions",
            body=msgspec.json.encode(body),
            api_key=key,
            tags=frozenset(tags),
        )
        await self.pipeline.handle(incoming, client)
        return client

    def asked(self) -> list[str]:
        """The backends that were reached, those outside with a permit for this very call."""
        for name, backend in self.backends.items():
            for request in backend.asked:
                permit = request.permit
                assert (permit is None) is ZONES[name].local
                assert permit is None or permit.digest == digest_of(request.content)
                assert permit is None or (permit.permit.call_id, permit.permit.backend) == ("call_1", name)
                assert (request.call_id, request.model) == ("call_1", f"{name}-model")
            assert all(answer.closed for answer in backend.answers)
        return [name for name, backend in self.backends.items() for _ in backend.asked]

    @property
    def row(self) -> Entry:
        (row,) = self.rows.settled
        assert len(self.rows.begun) == row.attempts == len(row.reached)
        assert set(self.serving.values()) <= {0}
        return row


@pytest.fixture
def world() -> World:
    return World()


def failed(error_class: ErrorClass, **fields: Any) -> BackendError:
    return BackendError(error_class, "it failed", **fields)


async def test_the_first_choice_answers(world: World) -> None:
    """One backend is asked; the answer's bytes are its own, the headers say who it was and why."""
    world.backends["rented"].script.append(WHOLE)
    client = await world.ask()
    assert (client.status, client.body) == (200, WHOLE)
    assert world.asked() == ["rented"]
    assert client.headers["content-length"] == str(len(WHOLE))
    said = {name.removeprefix("x-headgate-"): value for name, value in client.headers.items()}
    assert (said["policy"], said["route"], said["backend"], said["model"]) == (
        "p@3",
        "rented",
        "rented",
        "rented-model",
    )
    assert (said["privacy-class"], said["attempts"], said["cost"]) == ("public", "1", "0.000002000")
    assert float(said["overhead-ms"]) >= 0
    assert (world.row.outcome, world.row.cost_nano) == ("ok", 2000)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error_class", list(ErrorClass))
async def test_only_declared_errors_lead_on(world: World, error_class: ErrorClass, stream: bool) -> None:
    """By default the four that say nothing about the request; never a refusal, least of all a safety one."""
    leads_on = error_class in {"connection", "timeout", "rate_limit", "server_error"}
    world.backends["rented"].script.append(failed(error_class, status=418))
    world.backends["spare"].script.append([TOKEN, DONE] if stream else WHOLE)
    if leads_on:
        assert (await world.ask(stream=stream)).status == 200
    else:
        with pytest.raises(ApiError) as caught:
            await world.ask(stream=stream)
        assert (caught.value.status, caught.value.code) == (418, None)  # its own words, none of ours
    assert world.asked() == ["rented", "spare"] if leads_on else ["rented"]
    assert world.row.attempts == (2 if leads_on else 1)


async def test_when_nobody_is_left(world: World) -> None:
    """Everybody is asked once, in order, and the client hears the last one."""
    for name in ZONES:
        world.backends[name].script.append(
            failed(ErrorClass.RATE_LIMIT, status=429, code=name, retry_after="9")
        )
    with pytest.raises(ApiError) as caught:
        await world.ask()
    assert world.asked() == ["own", "rented", "spare"]
    assert (caught.value.status, caught.value.code, caught.value.headers["retry-after"]) == (429, "own", "9")
    assert (world.row.attempts, world.row.backend, world.row.error_class) == (3, "own", "rate_limit")
    assert (world.row.outcome, world.row.cost_nano) == ("failed", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_breaks_before_it_begins_leads_on(world: World, stream: bool) -> None:
    """A broken whole answer, or a stream without one event, has reached nobody: others may still answer."""
    world.backends["rented"].script.append([b"data: {", StreamBroken("gone")])
    world.backends["spare"].script.append([TOKEN, DONE] if stream else WHOLE)
    client = await world.ask(stream=stream)
    assert client.body == (TOKEN + DONE if stream else WHOLE)
    assert world.asked() == ["rented", "spare"]


async def test_a_shut_door_leads_nowhere(world: World) -> None:
    """A refusal of egress is final: no other way out is tried with the same content."""
    world.backends["rented"].script.append(EgressRefused("no permit"))
    with pytest.raises(ApiError) as caught:
        await world.ask()
    assert (caught.value.status, caught.value.code) == (403, "privacy_egress_refused")
    assert world.asked() == ["rented"]


async def test_private_content_stays_at_home(world: World) -> None:
    """What a detector classes above the ceiling goes to the backend at home, and nowhere if that fails."""
    world.backends["own"].script.append(failed(ErrorClass.SERVER_ERROR, status=500))
    with pytest.raises(ApiError):
        await world.ask(content=SECRET)
    assert world.asked() == ["own"]
    assert (world.row.route, world.row.privacy) == ("private", "restricted")
    assert "4111" not in msgspec.json.encode(world.row).decode()


async def test_tags_are_written_down_without_content(world: World) -> None:
    """A client's tag in which a detector finds something is told in the ledger, and not said."""
    world.backends["rented"].script.append(WHOLE)
    await world.ask(tags=["urgent", "jo@example.org"])
    assert world.row.tags == ("(withheld)", "urgent")


async def test_what_is_down_is_not_asked(world: World) -> None:
    """A backend that the snapshot calls down is passed over without an attempt."""
    world.snapshot = Snapshot(down=frozenset({"rented"}))
    world.backends["spare"].script.append(WHOLE)
    await world.ask()
    assert (world.asked(), world.row.attempts) == (["spare"], 1)


async def test_denied_by_the_policy(world: World) -> None:
    """The policy's own words and status; a row, and nobody asked."""
    with pytest.raises(ApiError) as caught:
        await world.ask(model="closed")
    assert (caught.value.status, caught.value.code, caught.value.message) == (451, "shut", "no")
    assert caught.value.headers["x-headgate-route"] == "closed"
    assert world.asked() == []
    assert (world.row.outcome, world.row.status, world.row.cost_nano) == ("refused", 451, 0)


async def test_strangers_leave_no_row(world: World) -> None:
    """An unknown key is turned away before its body is looked at."""
    with pytest.raises(Unauthenticated):
        await world.ask(key="sk-unknown", model=None)
    assert world.rows.settled == []


async def test_our_credentials_are_not_the_clients(world: World) -> None:
    """A 401 from a backend becomes a 502, without its words: they may quote our key."""
    world.backends["rented"].script.append(failed(ErrorClass.REFUSED, status=401))
    with pytest.raises(ApiError) as caught:
        await world.ask()
    assert (caught.value.status, caught.value.code) == (502, "backend_credentials_refused")
    assert "it failed" not in caught.value.message


@pytest.mark.parametrize(
    ("parts", "outcome", "ends_with"),
    [
        ([TOKEN, DONE], "ok", DONE),
        ([TOKEN + DONE, StreamBroken("late")], "ok", DONE),
        ([TOKEN], "interrupted", b"without [DONE]"),
        ([TOKEN, b"data: {", StreamBroken("gone")], "interrupted", b"gone"),
        ([TOKEN, b'data: {"error":{}}\n\n'], "interrupted", b'data: {"error":{}}\n\n'),
        ([TOKEN, b'data: {"error":{}}\n\n', StreamBroken("gone")], "interrupted", b'data: {"error":{}}\n\n'),
        ([TOKEN, b'data: {"choices":[],"error":null}\n\n', DONE], "ok", DONE),
    ],
)
async def test_how_streams_end(world: World, parts: list[Any], outcome: str, ends_with: bytes) -> None:
    """With [DONE], with the backend's error or with ours: one of them, once, and never anything invented."""
    world.backends["rented"].script.append(parts)
    client = await world.ask(stream=True)
    assert client.body.startswith(TOKEN)
    events = client.body.split(b"\n\n")
    assert ends_with.strip() in events[-2]
    assert sum(b'"error":{' in event for event in events) == (outcome == "interrupted")
    assert b"finish_reason" not in client.body
    assert world.asked() == ["rented"]
    assert (world.row.outcome, world.row.status) == (outcome, 200)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_cannot_be_written_to(world: World, stream: bool) -> None:
    """The answer is closed, and the row settled, when the way back breaks too."""
    world.backends["rented"].script.append([TOKEN, DONE])
    with pytest.raises(asyncio.CancelledError):
        await world.ask(Client(asyncio.CancelledError()), stream=stream)
    assert world.asked() == ["rented"]
    assert world.row.outcome == "client_closed"
    assert world.row.first_byte_ms is not None


async def test_a_fault_of_ours_in_a_backend(world: World) -> None:
    """An exception that no backend should raise is no reason to ask another; the row says 500."""
    world.backends["rented"].script.append(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        await world.ask()
    assert world.asked() == ["rented"]
    assert (world.row.outcome, world.row.status) == ("failed", 500)


async def test_a_canary_takes_users_or_requests_as_a_whole(world: World) -> None:
    """A user that the client names is one unit of traffic, of that key; else each request is one."""
    world.backends["rented"].script.extend([WHOLE] * 3)
    for more in ({"user": "u-1"}, {"user": "u-1"}, {}):
        await world.ask(**more)
    assert world.units == ["k/u-1", "k/u-1", "call_1"]


async def test_a_route_may_ask_for_the_language(world: World) -> None:
    """It is told from the conversation; what is in another language goes on to the next route."""
    for name in ("own", "rented"):
        world.backends[name].script.append(WHOLE)
    await world.ask(model="tongues", content="Wie kann ich meine Karte sperren, und was kostet das?")
    await world.ask(model="tongues", content="How can I block my card, and what does it cost?")
    assert [row.route for row in world.rows.settled] == ["german", "rented"]
