"""What is known of one request while it lasts, and the one ledger row that it becomes."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

import msgspec

from gateway.backends.wire import StreamMeter, answer_text, usage_of
from gateway.errors import ApiError, BackendError
from gateway.ledger.pricing import PriceBook, Priced, usd
from gateway.ledger.selfhost import BusyMeter
from gateway.ledger.spool import SpoolUnwritable
from gateway.ledger.tokens import count_text, estimate_prompt_tokens
from gateway.monitor.metrics import Metrics
from gateway.parsing import Request
from gateway.types import Call, Entry, Outcome, Usage
from router_policies.types import Candidate, Decision, Denial, ErrorClass

log = logging.getLogger("headgate.record")


class Charge(Protocol):
    """How a backend's work is paid for."""

    def start(self) -> int:
        """An attempt begins; returns the token to finish it with."""
        ...

    def finish(self, token: int, model: str, usage: Usage) -> Priced: ...

    def estimate(self, model: str, usage: Usage) -> Priced:
        """For the row of a call whose end nobody saw."""
        ...


class ByToken:
    """Rented: tokens at the price book's rates."""

    def __init__(self, prices: PriceBook, provider: str) -> None:
        self._prices, self._provider = prices, provider

    def start(self) -> int:
        return 0

    def finish(self, token: int, model: str, usage: Usage) -> Priced:
        return self._prices.cost(model, self._provider, usage)

    def estimate(self, model: str, usage: Usage) -> Priced:
        return self._prices.cost(model, self._provider, usage)


class ByTheHour:
    """Owned: an hourly rate, shared by whatever is in flight on the replica."""

    def __init__(self, nano_per_hour: int) -> None:
        self._meter = BusyMeter(nano_per_hour, time.monotonic_ns())

    def start(self) -> int:
        return self._meter.start(time.monotonic_ns())

    def finish(self, token: int, model: str, usage: Usage) -> Priced:
        return Priced(cost_nano=self._meter.finish(token, time.monotonic_ns()), source=self._meter.source)

    def estimate(self, model: str, usage: Usage) -> Priced:
        """Unknown: the time that it took is gone with the process."""
        return Priced(cost_nano=None, source=self._meter.source)


class Ledger(Protocol):
    """What a record needs of `gateway.ledger.ledger.Ledger`."""

    def begin(self, entry: Entry) -> None: ...

    def settle(self, entry: Entry) -> None: ...


class Recorder:
    """Opens a record for each request; its parts are shared by all of them."""

    def __init__(
        self, ledger: Ledger, charges: Mapping[str, Charge], metrics: Metrics, serving: Counter[str]
    ) -> None:
        """`serving` counts the requests that each adapter release is answering."""
        self.ledger, self.charges, self.metrics, self.serving = ledger, charges, metrics, serving

    def record(self, call: Call, request: Request, verdict: Decision | Denial) -> "Record":
        return Record(self, call, request, verdict)


class Record:
    """One request. As a context it settles exactly one ledger row, however the request ends."""

    def __init__(self, parts: Recorder, call: Call, request: Request, verdict: Decision | Denial) -> None:
        self.call_id = call.facts.call_id
        self._parts, self._call, self._request, self._verdict = parts, call, request, verdict
        self._clock = time.perf_counter()
        self._outcome = Outcome.CLIENT_CLOSED  # until something else is known
        self._status = 0
        self._candidate: Candidate | None = None
        self._charge_token = 0
        self._attempts = 0
        self._upstream_s = 0.0  # waiting for backends, until the first byte
        self._attempt_clock = 0.0
        self._error_class: ErrorClass | None = None
        self._first_byte_ms: float | None = None
        self._usage: Usage | None = None
        self._meter: StreamMeter | None = None
        self._priced: Priced | None = None
        self._spent_nano = 0  # on attempts that failed

    def __enter__(self) -> "Record":
        self._parts.metrics.in_flight.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.metrics.in_flight.dec()
        if isinstance(error, ApiError):
            self._outcome = Outcome.FAILED if self._attempts else Outcome.REFUSED
            self._status = error.status
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            self._fault_of_ours()
        entry = self._entry(self._settled_usage(), self._price())
        self._parts.ledger.settle(entry)
        self._parts.metrics.settled(entry)

    # What happens, in the order in which it may.

    def attempt(self, candidate: Candidate) -> None:
        """A backend is about to be reached: from here on a row is owed, even if this process dies.

        Raises ApiError when the disk would not keep it: a call that could be lost is not made.
        """
        self._candidate = candidate
        self._attempts += 1
        if self._attempts == 1:
            self._begin(candidate)
        self._attempt_clock = time.perf_counter()
        self._charge_token = self._parts.charges[candidate.backend].start()
        self._parts.serving[candidate.adapter or ""] += 1

    def attempt_failed(self, error: BackendError) -> None:
        """A failed attempt costs the time it took on our own replica, and nothing elsewhere."""
        self._upstream_s += time.perf_counter() - self._attempt_clock
        self._error_class = error.error_class
        priced = self._finish_charge(Usage())
        self._spent_nano += priced.cost_nano or 0 if priced else 0

    def answered_whole(self, status: int, body: bytes) -> None:
        self._answered(status)
        self._usage = usage_of(body) or self._counted(body)
        self._priced = self._finish_charge(self._usage)

    def answering(self, status: int, meter: StreamMeter) -> None:
        self._answered(status)
        self._meter = meter

    def completed(self) -> None:
        self._outcome = Outcome.OK

    def interrupted(self) -> None:
        self._outcome = Outcome.INTERRUPTED

    def headers(self) -> dict[str, str]:
        """The `x-headgate-…` headers, with what is known by now."""
        candidate, verdict = self._candidate, self._verdict
        headers = {
            "x-headgate-policy": verdict.policy,
            "x-headgate-privacy-class": self._call.classification.privacy.label,
            "x-headgate-route": verdict.route or "",
            "x-headgate-reason": verdict.reason if isinstance(verdict, Decision) else verdict.code,
            "x-headgate-attempts": str(self._attempts),
            "x-headgate-overhead-ms": f"{self._overhead_ms():.2f}",
        }
        if candidate is not None:
            headers |= {"x-headgate-backend": candidate.backend, "x-headgate-model": candidate.model}
            if candidate.adapter:
                headers["x-headgate-adapter"] = candidate.adapter
        if self._priced is not None and self._priced.cost_nano is not None:
            headers["x-headgate-cost"] = usd(self._priced.cost_nano + self._spent_nano)
        return headers

    # The row.

    def _begin(self, candidate: Candidate) -> None:
        """Writes down the row that stands if this process dies: what the call would cost, as an estimate."""
        usage = self._estimated_usage()
        priced = self._parts.charges[candidate.backend].estimate(candidate.model, usage)
        lost = msgspec.structs.replace(self._entry(usage, priced), outcome=Outcome.LOST)
        try:
            self._parts.ledger.begin(lost)
        except SpoolUnwritable as error:
            self._candidate, self._attempts = None, 0  # no backend was reached, none will be
            log.error("request %s: the ledger's disk takes nothing: %s", self.call_id, error)
            raise ApiError(
                "The gateway cannot write its ledger at present and takes no requests; its operator has "
                "been told.",
                status=503,
                code="ledger_unwritable",
                headers=self.headers(),
            ) from error

    def _fault_of_ours(self) -> None:
        if self._first_byte_ms is None:
            self._outcome, self._status = Outcome.FAILED, 500
        else:  # the client has seen the backend's status, and an answer that is not whole
            self._outcome = Outcome.INTERRUPTED

    def _answered(self, status: int) -> None:
        now = time.perf_counter()
        self._upstream_s += now - self._attempt_clock
        self._first_byte_ms = (now - self._clock) * 1e3
        self._status, self._error_class = status, None

    def _overhead_ms(self) -> float:
        """All the time so far that was not spent waiting for a backend."""
        since_start = (time.time_ns() - self._call.started_ns) / 1e9
        return max(0.0, since_start - self._upstream_s) * 1e3

    def _finish_charge(self, usage: Usage) -> Priced | None:
        if self._candidate is None or self._charge_token < 0:
            return None
        token, self._charge_token = self._charge_token, -1
        self._parts.serving[self._candidate.adapter or ""] -= 1
        return self._parts.charges[self._candidate.backend].finish(token, self._candidate.model, usage)

    def _settled_usage(self) -> Usage:
        if self._usage is None and self._meter is not None:
            self._usage = self._meter.usage or self._estimated_usage(output_tokens=self._meter.events)
        if self._usage is None and self._outcome is Outcome.CLIENT_CLOSED and self._attempts:
            self._usage = self._estimated_usage()
        return self._usage or Usage()

    def _estimated_usage(self, output_tokens: int = 0) -> Usage:
        prompt = estimate_prompt_tokens(self._request.size)
        return Usage(input_tokens=prompt, output_tokens=output_tokens, estimated=True)

    def _counted(self, body: bytes) -> Usage:
        """For a provider that gives no usage."""
        model = self._candidate.model if self._candidate else ""
        return self._estimated_usage(count_text(model, answer_text(body)))

    def _price(self) -> Priced | None:
        if self._priced is None:
            self._priced = self._finish_charge(self._settled_usage())
        return self._priced

    def _entry(self, usage: Usage, priced: Priced | None) -> Entry:
        facts, verdict, candidate = self._call.facts, self._verdict, self._candidate
        return Entry(
            call_id=facts.call_id,
            started_ns=self._call.started_ns,
            key_id=facts.key_id,
            team=facts.team,
            tags=tuple(sorted(facts.tags)),
            endpoint=facts.endpoint,
            model_asked=facts.model,
            privacy=facts.privacy.label,
            findings=self._call.classification.findings,
            policy=verdict.policy,
            route=verdict.route or "",
            reason=verdict.reason,
            backend=candidate.backend if candidate else "",
            zone=candidate.zone if candidate else "",
            model=candidate.model if candidate else "",
            adapter=(candidate.adapter or "") if candidate else "",
            stream=self._request.stream,
            attempts=self._attempts,
            status=self._status,
            outcome=self._outcome,
            error_class=self._error_class,
            usage=usage,
            cost_nano=self._cost_nano(priced),
            price=priced.source if priced else "",
            first_byte_ms=self._first_byte_ms,
            duration_ms=(time.perf_counter() - self._clock) * 1e3,
        )

    def _cost_nano(self, priced: Priced | None) -> int | None:
        if priced is None:  # nothing but failed attempts, or none at all
            return self._spent_nano
        return None if priced.cost_nano is None else priced.cost_nano + self._spent_nano
