"""Byte-level fuzz of both HTTP directions and of server-sent events: a whole gateway on real sockets.

    python -m tests.dataplane.fuzz SECONDS [SEED]        or: make fuzz SECONDS=600

A case is a client that sends mutated requests, or a backend that sends a mutated answer. Cases run in
batches, many at once; after each batch the gateway must be as new:

    nothing hangs         each client has its answer, or a closed connection, within the limits
    nothing breaks        no fault of ours in the log, and a plain request is answered
    nothing is smuggled   a backend sees only what our encoder writes, and no body that no client sent
    nothing is left over  no request in flight, no slot, no connection; a row for each that reached a backend
    nothing is invented   a stream that ends well had its [DONE] from the backend

A failure names the case's seed and what is left of it after shrinking.
"""

import asyncio
import logging
import re
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import h11
import msgspec
import uvloop

from gateway.resilience.breaker import Breakers, Limits
from tests.dataplane.conftest import Gateway, running_gateway
from tests.dataplane.mutate import asking, mutated, pieces, request, said
from tests.dataplane.test_faults import GOOD, GOOD_STREAM
from tests.dataplane.test_framing import post
from tests.support.toxic import Peer

BATCH = 96
PATIENCE_S = 15.0  # far beyond all limits: who still waits then hangs
SHRINKING_S = 30.0
LIMITS = {"body_timeout_s": 0.25}
OURS = re.compile(
    rb"POST /v1/[a-z/]+ HTTP/1\.1\r\nhost: 127\.0\.0\.1:\d+\r\ncontent-type: application/json\r\n"
    rb"accept-encoding: identity\r\nuser-agent: headgate\r\n"
    rb"x-client-request-id: call_[0-9a-f]+\r\ncontent-length: (\d+)\r\n\r\n"
)
NEVER = Limits(run=10**9, volume=10**9)  # no breaker opens: each case stands for itself


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What the client sends and, where that is what is mutated, what the backend answers."""

    seed: int
    sent: list[bytes]
    answered: list[bytes] | None = None
    hangs_up: bool = False

    @classmethod
    def of(cls, seed: int) -> "Case":
        random, user = Random(seed), f"case-{seed}"
        if seed % 2:
            body = asking(random, user)
            streaming = b'"stream"' in body
            good = said(random, streaming=streaming)
            bad = mutated(random, good, said(random, streaming=not streaming))
            parts = pieces(random, bad, random.choice((0, 3, 30)))
            return cls(seed=seed, sent=[post(body)], answered=parts, hangs_up=random.random() < 0.5)
        good = b"".join(request(random, user) for _ in range(random.choice((1, 1, 2, 3))))
        bad = mutated(random, good, request(random, user))
        return cls(seed=seed, sent=pieces(random, bad, random.choice((0, 3, 30))))


class Faults(logging.Handler):
    """Keeps what the log should never say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (
            record.exc_info
            or "fault of ours" in record.getMessage()
            or record.name in ("asyncio", "uvicorn.error")
        ):
            self.seen.append(self.format(record))


class Fuzz:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.faults = gateway, Faults()
        self.cases = 0
        self._by_user: dict[str, Case] = {}
        self._seen: list[bytes] = []  # bodies that backends were asked with
        self._foreign: list[bytes] = []  # requests that our encoder did not write
        gateway.first.otherwise = self._play
        gateway.second.otherwise = self._play
        logging.getLogger().addHandler(self.faults)

    def close(self) -> None:
        self.gateway.first.otherwise = self.gateway.second.otherwise = None
        logging.getLogger().removeHandler(self.faults)

    async def batch(self, seeds: range) -> None:
        """Raises AssertionError with a small case that fails."""
        cases = [Case.of(seed) for seed in seeds]
        self.cases += len(cases)
        problem = await self.problem(cases)
        if problem is None:
            return
        print(f"\nseeds {seeds}: {problem}\nshrinking", flush=True)
        for case in cases:
            if await self.problem([case]) is not None:
                small = await self._shrunk(case)
                raise AssertionError(f"seed {case.seed}: {await self.problem([small]) or problem}\n{small}")
        raise AssertionError(f"seeds {seeds}, only together: {problem}")

    async def problem(self, cases: list[Case]) -> str | None:
        """What is wrong after these were run at once; None: nothing."""
        self._by_user = {f"case-{case.seed}": case for case in cases}
        self.gateway.app.caller.breakers = Breakers(
            self.gateway.app.caller._upstreams, NEVER, random=Random(0).random
        )
        self._seen, self._foreign, self.faults.seen = [], [], []
        started_ns = time.time_ns()
        asking = {asyncio.ensure_future(self._ask(case)): case for case in cases}
        _, hanging = await asyncio.wait(asking, timeout=PATIENCE_S)
        if hanging:
            for task in hanging:
                task.cancel()
            await asyncio.wait(hanging)
            return f"hanging: seeds {[asking[task].seed for task in hanging]}; log: {self.faults.seen[:1]}"
        answers = [task.result() for task in asking]
        try:
            for case, answered in zip(cases, answers, strict=True):
                _check_answers(case, answered)
            await self._check_rest(cases, answers, started_ns)
        except (AssertionError, TimeoutError, h11.ProtocolError) as error:
            return f"{type(error).__name__}: {error}"
        return None

    async def _play(self, peer: Peer) -> None:
        """A backend: what the case says, or a good answer."""
        try:
            while True:
                asked = await peer.request()
                body = asked.partition(b"\r\n\r\n")[2]
                found = OURS.match(asked)
                if not found or int(found[1]) != len(body):
                    self._foreign.append(asked)
                self._seen.append(body)
                fields = msgspec.json.decode(body)
                case = self._by_user.get(str(fields.get("user")))
                if case is None or case.answered is None:
                    peer.send(GOOD_STREAM if fields.get("stream") else GOOD)
                    continue
                for part in case.answered:
                    peer.send(part)
                    await peer.drain()
                if case.hangs_up:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway has left

    async def _ask(self, case: Case) -> bytes:
        """All that the client gets: until the gateway closes, or has nothing more to say."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        answered = bytearray()

        async def read() -> None:
            try:
                while data := await reader.read(65536):
                    answered.extend(data)
            except ConnectionError:
                pass

        reading = asyncio.ensure_future(read())
        name = writer.get_extra_info("sockname")
        try:
            for part in case.sent:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        quiet = 0
        try:
            while not reading.done() and quiet < 3:
                size = len(answered)
                await asyncio.wait([reading], timeout=0.01)
                silent = len(answered) == size and bool(answered or case.answered is None)
                quiet = quiet + 1 if silent and self._at_rest(name) else 0
        finally:
            writer.transport.abort()
        await reading
        return bytes(answered)

    def _at_rest(self, client: tuple[str, int]) -> bool:
        """Whether the gateway waits for this client's next request."""
        connections: set[Any] = self.gateway.server.server_state.connections
        found = next((c for c in connections if c.client == client), None)
        return found is not None and not (found._busy or found._arriving or found._deaf)

    async def _check_rest(self, cases: list[Case], answers: list[bytes], started_ns: int) -> None:
        gateway = self.gateway
        await gateway.at_rest()
        assert not self.faults.seen, self.faults.seen[0]
        assert not self._foreign, f"not ours: {self._foreign[0]!r}"
        self._check_bodies(cases)
        plain = await gateway.ask("one")
        assert (plain.status_code, plain.content) == (200, GOOD.partition(b"\r\n\r\n")[2])
        assert await asyncio.to_thread(gateway.app.ledger.flush, 10)
        stats = gateway.app.ledger.stats()
        assert (stats.open_calls, stats.duplicates, stats.rejected) == (0, 0, 0), stats
        rows = await asyncio.to_thread(gateway.app.ledger.store.last, 20 * BATCH)
        rows = [
            row
            for row in rows
            if row.started_ns >= started_ns and row.call_id != plain.headers["x-request-id"]
        ]
        ids = set(re.findall(rb"x-headgate-call-id: (\w+)\r\n", b"".join(answers)))
        reached = {row.call_id.encode() for row in rows if row.attempts}
        assert len(rows) == len({row.call_id for row in rows})
        gone = {row.call_id.encode() for row in rows if row.outcome == "client_closed"}
        assert reached <= ids | gone, f"rows of nobody's: {reached - ids}"
        attempts = sum(row.attempts for row in rows)
        assert sum(row.outcome == "ok" for row in rows) <= len(self._seen) - 1 <= 2 * attempts

    def _check_bodies(self, cases: list[Case]) -> None:
        """Each body at a backend is one that a client sent, as another parser (h11) reads what it sent.

        Where h11 refuses what llhttp takes, one request of the connection may be unknown, and no more.
        """
        sent, unknown = set[bytes](), 0
        for case in cases:
            bodies, whole = _bodies(b"".join(case.sent))
            sent |= set(map(_bare, bodies))
            unknown += not whole
        strange = Counter(map(_bare, self._seen)).keys() - sent
        assert len(strange) <= unknown, f"never sent: {strange}"

    async def _shrunk(self, case: Case) -> Case:
        """A part of the case that still fails, found by leaving out ever smaller pieces of its bytes."""
        field = "sent" if case.answered is None else "answered"
        step = max(1, len(b"".join(getattr(case, field))) // 2)
        until = time.monotonic() + SHRINKING_S
        while time.monotonic() < until:
            data = b"".join(getattr(case, field))
            for at in range(0, len(data), step):
                less = msgspec.structs.replace(case, **{field: [data[:at] + data[at + step :]]})
                if await self.problem([less]) is not None:
                    case = less
                    break
            else:
                if step == 1:
                    break
                step //= 2
        return case


def _check_answers(case: Case, answered: bytes) -> None:
    """The gateway's side is good HTTP, whatever it was sent; streams end as they must."""
    finals, rest = 0, answered
    while rest:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
        client.send(h11.EndOfMessage())
        client.receive_data(rest)
        body, status, content_type = b"", 0, b""
        while not isinstance(found := client.next_event(), h11.EndOfMessage):
            if found is h11.NEED_DATA:
                assert case.answered is None, f"half an answer: {rest!r}"
                return  # the client has left, or an answer ends with its connection
            if isinstance(found, h11.Response):
                status, content_type = found.status_code, dict(found.headers).get(b"content-type", b"")
            elif isinstance(found, h11.Data):
                body += found.data
        finals += 1
        rest = client.trailing_data[0]
        if status == 200 and content_type.startswith(b"text/event-stream"):
            _check_stream(case, body)
    assert case.answered is None or finals == 1, f"{finals} answers: {answered!r}"


_FRAMING = re.compile(rb"\r\n[0-9A-Fa-f]+[^\r\n]*\r\n")  # between two chunks: an event may lie in both


def _check_stream(case: Case, events: bytes) -> None:
    done = re.search(rb"^data: ?\[DONE\]", events, re.MULTILINE)
    failed = re.search(rb'^data: ?\{\s*"error"\s*:', events, re.MULTILINE)
    assert done or failed, f"an end without a word: {events!r}"
    if done and case.answered is not None and b"pair" not in case.sent[0] and b"hedged" not in case.sent[0]:
        unframed = re.sub(rb"\r\n[0-9a-fA-F]+\r\n", b"", b"".join(case.answered))
        assert b"[DONE]" in unframed or b"retried" in case.sent[0], f"invented: {events!r}"


def _bodies(sent: bytes) -> tuple[list[bytes], bool]:
    """The bodies of all requests in `sent`, and whether that is all there is."""
    bodies: list[bytes] = []
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(sent)
    body = b""
    while True:
        try:
            found = server.next_event()
        except h11.RemoteProtocolError:
            return bodies, False
        if isinstance(found, h11.Request):
            body = b""
        elif isinstance(found, h11.Data):
            body += found.data
        elif isinstance(found, h11.EndOfMessage):
            bodies.append(body)
            server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
                return bodies, True
            server.start_next_cycle()
        else:
            return bodies, True


def _bare(body: bytes) -> bytes:
    """Without what the gateway may change."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body
    if not isinstance(fields, dict):
        return body
    kept = {name: value for name, value in fields.items() if name not in ("model", "stream_options")}
    return msgspec.json.encode(kept, order="deterministic")


async def run(seconds: float, seed: int, folder: Path) -> None:
    async with running_gateway(folder, limits=LIMITS, patience_s=0.25) as gateway:
        fuzz, started = Fuzz(gateway), time.monotonic()
        while (spent := time.monotonic() - started) < seconds:
            await fuzz.batch(range(seed, seed + BATCH))
            seed += BATCH
            print(
                f"\r{fuzz.cases} cases, {fuzz.cases / max(spent, 1):.0f}/s, next seed {seed}",
                end="",
                flush=True,
            )
        print(f"\n{fuzz.cases} cases in {spent:.0f} s, {fuzz.cases / spent:.0f}/s: nothing found")
        fuzz.close()


if __name__ == "__main__":
    seconds, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() // 10**9
    with TemporaryDirectory(prefix="headgate-fuzz-") as folder:
        uvloop.run(run(seconds, seed, Path(folder)))
