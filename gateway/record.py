"""What is known of one request while it lasts, and the one ledger row that it becomes."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol

from msgspec.structs import replace

from gateway.backends.wire import Meter, answer_id, answer_text, usage_of
from gateway.errors import ApiError, BackendError, EgressRefused
from gateway.holds import Held
from gateway.ledger.charges import Charge
from gateway.ledger.prices import Priced, usd
from gateway.ledger.spool import SpoolUnwritable
from gateway.ledger.tokens import count_text, estimate_prompt_tokens
from gateway.limits.limiter import Grant
from gateway.monitor.observers import Observers
from gateway.parsing import Request
from gateway.privacy.egress import Sealed
from gateway.types import Call, Entry, Outcome, Reach, Usage
from router_policies.types import Candidate, Decision, Denial, ErrorClass, PrivacyClass

log = logging.getLogger("headgate.record")

WITHHELD = "(withheld)"  # in place of a model's name or a tag that holds what detectors look for
FREE = Priced(cost_nano=0, source="")


class Ledger(Protocol):
    """What a record needs of `gateway.ledger.ledger.Ledger`."""

    def begin(self, entry: Entry) -> None: ...

    def settle(self, entry: Entry) -> None: ...


class Recorder:
    """Opens a record for each request; its parts are shared by all of them."""

    def __init__(
        self,
        ledger: Ledger,
        charges: Mapping[str, Charge],
        observers: Observers,
        serving: Counter[str],
        kept: Callable[[Entry], None] = lambda _: None,
    ) -> None:
        """`serving` counts the requests that each adapter release is answering; `kept` is told of responses
        that a later request may go on from."""
        self.ledger, self.charges, self.observers, self.serving = ledger, charges, observers, serving
        self.kept = kept

    def record(self, call: Call, request: Request, verdict: Decision | Denial) -> "Record":
        return Record(self, call, request, verdict)


class Attempt:
    """One call to one backend, which goes on until it is settled."""

    __slots__ = ("_charge", "_started_ns", "_token", "candidate", "number")

    def __init__(self, candidate: Candidate, charge: Charge, number: int, started_ns: int) -> None:
        """`number` counts the attempts of one request, from 0; `started_ns` is when the request began."""
        self.candidate, self._charge, self._token = candidate, charge, charge.start()
        self.number, self._started_ns = number, started_ns

    def settle(self, usage: Usage) -> Priced:
        return self._charge.finish(self._token, self.candidate.model, usage, self._started_ns)


class Record:
    """One request. As a context it settles exactly one ledger row, however the request ends.

    Several attempts may be under way at once, where a route hedges; one of them answers.
    """

    def __init__(self, parts: Recorder, call: Call, request: Request, verdict: Decision | Denial) -> None:
        self.call_id = call.facts.call_id
        self._parts, self._call, self._request, self._verdict = parts, call, request, verdict
        self._outcome = Outcome.CLIENT_CLOSED  # until something else is known
        self._status = 0
        self._reached: list[Reach] = []  # one for each attempt
        self._open: list[Attempt] = []  # not settled
        self._latest: Candidate | None = None  # that answers, or was tried last
        self._begun: Entry | None = None  # the row as it stands if this process dies
        self._waiting_since = 0.0
        self._waited_s = 0.0  # for backends, until the first byte
        self._error_class: ErrorClass | None = None
        self._first_byte_ms: float | None = None
        self._usage: Usage | None = None
        self._meter: Meter | None = None
        self._priced: Priced | None = None  # the attempt that answered
        self._answering: Attempt | None = None
        self._spent_nano = 0  # on all others
        self._response_id = ""
        self.held: Held | None = None  # in budgets, by the pipeline
        self.grant: Grant | None = None  # in rate limits, by the pipeline
        self._given_up = FREE  # the last of those that another was quicker than

    def __enter__(self) -> "Record":
        self._parts.observers.metrics.in_flight.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.observers.metrics.in_flight.dec()
        if error is not None:
            self._ended_by(error)
        elif self._outcome is Outcome.CLIENT_CLOSED:  # the deadline passed after the stream's own end
            failed = self._meter is not None and self._meter.failed
            self._outcome = Outcome.INTERRUPTED if failed else Outcome.OK
        entry = self._settled()
        self._parts.ledger.settle(entry)
        if self.held is not None:
            self.held.settle(entry)
        if self.grant is not None:
            self.grant.used = entry.usage.input_tokens + entry.usage.output_tokens
        if entry.response_id:
            self._parts.kept(entry)
        self._parts.observers.settled(entry, self._overhead_ms(), self._call.traceparent)
        if self._request.masked is not None:
            self._request.masked.vault.clear()

    # What happens, in the order in which it may.

    def attempt(self, candidate: Candidate, sealed: Sealed | None = None) -> Attempt:
        """A backend is about to be reached: from here on a row is owed, even if this process dies.

        Raises ApiError when the disk would not keep it: a call that could be lost is not made.
        """
        charge = self._parts.charges[candidate.backend]
        self._reached.append(_reach(candidate, sealed, self._verdict.privacy))
        self._begin(candidate, charge)
        self._latest = candidate
        attempt = Attempt(candidate, charge, len(self._reached) - 1, self._call.started_ns)
        if not self._open:
            self._waiting_since = time.perf_counter()
        self._open.append(attempt)
        self._parts.serving[candidate.adapter or ""] += 1
        return attempt

    def failed(self, attempt: Attempt, error: BackendError) -> None:
        """A failed attempt costs the time it took on our own replica, and nothing elsewhere."""
        if isinstance(error, EgressRefused):
            self._reached[attempt.number] = replace(self._reached[attempt.number], refused=True)
        self._error_class = error.error_class
        self._spent_nano += self._close(attempt, Usage()).cost_nano or 0

    def given_up(self, attempt: Attempt) -> None:
        """Another attempt was quicker. The backend has read the prompt: that is paid, as an estimate."""
        priced = self._close(attempt, self._estimated_usage())
        self._spent_nano += priced.cost_nano or 0
        if self._given_up.cost_nano is not None:  # else unknown, and once unknown it stays so
            self._given_up = replace(priced, cost_nano=None if priced.cost_nano is None else 0)

    def answered_whole(self, attempt: Attempt, status: int, body: bytes) -> None:
        self._answered(attempt, status)
        self._usage = usage_of(body) or self._counted(body)
        if self._request.endpoint == "responses":
            self._response_id = answer_id(body)
        self._priced = self._close(attempt, self._usage)

    def answering(self, attempt: Attempt, status: int, meter: Meter) -> None:
        self._answered(attempt, status)
        self._meter = meter

    @property
    def begun(self) -> bool:
        """Whether an answer has begun: no other may take its place any more."""
        return self._answering is not None

    @property
    def over(self) -> bool:
        """Whether the client has the whole answer, or knows that it never will."""
        said = self._meter is not None and (self._meter.done or self._meter.failed)
        return said or self._outcome is not Outcome.CLIENT_CLOSED

    def completed(self) -> None:
        self._outcome = Outcome.OK

    def interrupted(self) -> None:
        self._outcome = Outcome.INTERRUPTED

    def unrestored(self, count: int) -> None:
        """So many placeholders of a masked answer could not be given their values."""
        self._parts.observers.metrics.counter(
            "headgate_placeholders_unrestored", "Placeholders in answers without their values."
        ).inc(count)

    def headers(self) -> dict[str, str]:
        """The `x-headgate-…` headers, with what is known by now."""
        candidate, verdict = self._latest, self._verdict
        headers = {
            "x-headgate-policy": verdict.policy,
            "x-headgate-privacy-class": self._verdict.privacy.label,
            "x-headgate-route": verdict.route or "",
            "x-headgate-reason": verdict.reason if isinstance(verdict, Decision) else verdict.code,
            "x-headgate-attempts": str(len(self._reached)),
            "x-headgate-overhead-ms": f"{self._overhead_ms():.2f}",
        }
        if candidate is not None:
            headers["x-headgate-backend"] = candidate.backend
            headers["x-headgate-model"] = candidate.model
            if candidate.adapter:
                headers["x-headgate-adapter"] = candidate.adapter
            if candidate.masked and self._request.masked is not None:
                headers["x-headgate-masked"] = str(len(self._request.masked.vault))
        if self.held is not None:
            headers["x-headgate-budget-used"] = f"{self.held.used:.3f}"
        if self.grant is not None:
            headers |= self.grant.headers()
        if self._priced is not None and (cost := self._cost_nano(self._priced)) is not None:
            headers["x-headgate-cost"] = usd(cost)
        return headers

    # Attempts.

    def _begin(self, candidate: Candidate, charge: Charge) -> None:
        """Writes down the row that stands if this process dies: what the call would cost, as an estimate.

        Where budgets are held for it, at least as much as is held: what a lost call may have cost is not
        spent again.
        """
        usage = self._estimated_usage()
        priced = charge.estimate(candidate.model, usage, self._call.started_ns)
        held = 0 if self.held is None else self.held.amount_nano
        if priced.cost_nano is not None and held > priced.cost_nano:
            priced = Priced(cost_nano=held, source=f"{priced.source}, as much as was held")
        lost = self._row(candidate, usage, priced)
        try:
            self._parts.ledger.begin(lost)
        except SpoolUnwritable as error:
            self._reached.pop()
            log.error("request %s: the ledger's disk takes nothing: %s", self.call_id, error)
            raise ApiError(
                "The gateway cannot write its ledger at present and takes no requests; its operator has "
                "been told.",
                status=503,
                code="ledger_unwritable",
                headers=self.headers(),
            ) from error
        self._begun = lost

    def _answered(self, attempt: Attempt, status: int) -> None:
        now = time.perf_counter()
        self._waited_s += now - self._waiting_since
        self._first_byte_ms = (now - self._call.clock) * 1e3
        self._answering = attempt
        self._latest, self._status, self._error_class = attempt.candidate, status, None

    def _close(self, attempt: Attempt, usage: Usage) -> Priced:
        self._open.remove(attempt)
        self._parts.serving[attempt.candidate.adapter or ""] -= 1
        if not self._open and self._first_byte_ms is None:
            self._waited_s += time.perf_counter() - self._waiting_since
        return attempt.settle(usage)

    def _overhead_ms(self) -> float:
        """All the time so far that was not spent waiting for a backend."""
        return max(0.0, time.perf_counter() - self._call.clock - self._waited_s) * 1e3

    # The row.

    def _ended_by(self, error: BaseException) -> None:
        if isinstance(error, ApiError):
            self._outcome = Outcome.FAILED if self._reached else Outcome.REFUSED
            self._status, error.recorded = error.status, True
        elif isinstance(error, asyncio.CancelledError):
            if self._meter is not None and self._meter.done:  # many clients hang up at [DONE]
                self._outcome = Outcome.OK
        elif self._first_byte_ms is None:  # a fault of ours
            self._outcome, self._status = Outcome.FAILED, 500
        else:  # the client has seen the backend's status, and an answer that is not whole
            self._outcome = Outcome.INTERRUPTED

    def _settled(self) -> Entry:
        usage = self._settled_usage()
        for attempt in self._open[:]:
            if attempt is self._answering:
                self._priced = self._close(attempt, usage)
            else:  # a fault of ours, or the client's leaving, came in between
                self.given_up(attempt)
        priced = self._priced or self._given_up
        begun, latest = self._begun, self._latest
        if begun is None or latest is None:
            return replace(self._row(None, usage, priced), outcome=self._outcome)
        return replace(
            begun,
            backend=latest.backend,
            zone=latest.zone,
            model=self._written(latest.model),
            adapter=latest.adapter or "",
            attempts=len(self._reached),
            status=self._status,
            outcome=self._outcome,
            error_class=self._error_class,
            usage=usage,
            cost_nano=self._cost_nano(priced),
            price=priced.source,
            first_byte_ms=self._first_byte_ms,
            duration_ms=(time.perf_counter() - self._call.clock) * 1e3,
            response_id=self._response_id or (self._meter.response_id() if self._meter is not None else ""),
            reached=tuple(self._reached),
        )

    def _row(self, candidate: Candidate | None, usage: Usage, priced: Priced) -> Entry:
        facts, verdict = self._call.facts, self._verdict
        return Entry(
            call_id=facts.call_id,
            started_ns=self._call.started_ns,
            key_id=facts.key_id,
            team=facts.team,
            tags=tuple(sorted(self._call.tags)) if self._call.tags else (),
            endpoint=facts.endpoint,
            model_asked=self._written(facts.model),
            privacy=verdict.privacy.label,
            findings=self._call.classification.findings,
            policy=verdict.policy,
            route=verdict.route or "",
            reason=verdict.reason,
            backend=candidate.backend if candidate else "",
            zone=candidate.zone if candidate else "",
            model=self._written(candidate.model) if candidate else "",
            adapter=(candidate.adapter or "") if candidate else "",
            stream=self._request.stream,
            attempts=len(self._reached),
            status=self._status,
            outcome=Outcome.LOST,
            usage=usage,
            cost_nano=self._cost_nano(priced),
            price=priced.source,
            duration_ms=(time.perf_counter() - self._call.clock) * 1e3,
            cause=self._call.classification.reason,
            session=self._call.session,
            reached=tuple(self._reached),
        )

    def _written(self, model: str) -> str:
        """The name that the row has: the client's own word for it only if there is nothing in that."""
        withheld = self._call.model_withheld and model == self._call.facts.model
        return WITHHELD if withheld else model

    def _cost_nano(self, priced: Priced) -> int | None:
        unknown = priced.cost_nano is None or self._given_up.cost_nano is None
        return None if unknown else (priced.cost_nano or 0) + self._spent_nano

    def _settled_usage(self) -> Usage:
        if self._usage is None and self._meter is not None:
            self._usage = self._meter.usage or self._estimated_usage(output_tokens=self._meter.events)
        if self._usage is None and self._outcome is Outcome.CLIENT_CLOSED and self._reached:
            self._usage = self._estimated_usage()
        return self._usage or Usage()

    def _estimated_usage(self, output_tokens: int = 0) -> Usage:
        """In the service tier that was asked for, since no answer names one."""
        prompt, asked = estimate_prompt_tokens(self._request.size), self._request.body.get("service_tier")
        tier = asked if asked in ("flex", "priority") else ""
        return Usage(input_tokens=prompt, output_tokens=output_tokens, estimated=True, service_tier=tier)

    def _counted(self, body: bytes) -> Usage:
        """For a provider that gives no usage."""
        model = self._latest.model if self._latest else ""
        return self._estimated_usage(count_text(model, answer_text(body)))


def _reach(candidate: Candidate, sealed: Sealed | None, privacy: PrivacyClass) -> Reach:
    """What the row says of an attempt; `privacy` is the request's class."""
    return Reach(
        backend=candidate.backend,
        zone=candidate.zone,
        local=candidate.local,
        ceiling=candidate.ceiling.label,
        privacy=(privacy if candidate.privacy is None else candidate.privacy).label,
        masked=candidate.masked,
        permit="" if sealed is None else sealed.permit.id,
        digest="" if sealed is None else sealed.digest,
    )
