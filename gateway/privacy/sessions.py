"""What a conversation has been: its class never falls, and what it goes on from stays where it is.

A session (`x-headgate-session`) belongs to a team: the same name means another session in another team. The
database holds the class of each that anything above the lowest class was said in; all others need no row, so
one without a row has held nothing. A rise is in the database before the request goes on, and each request
asks there, so that several workers agree, and a restart forgets nothing. What is remembered here saves
questions only where the answer cannot change: the highest class stays.

A response (`previous_response_id`) is known by its row in the ledger: the class it was given, and the backend
that has it. A request that goes on from it has at least that class and goes to that backend alone. Rows come
in some 200 ms after the answer; in this process it is known at once, and who asks elsewhere waits a little.

Fails closed. When the past cannot be read the class is the highest; when a rise cannot be written, or nobody
knows the response, the request is refused. A session of which nothing was heard for `days` is refused too,
never taken for a new one: its row stays.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.errors import ApiError, BadRequest
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import SessionSeen
from gateway.privacy.workers import AllStuck, Workers
from gateway.types import Classification, Entry
from router_policies.privacy import DEFAULT_SCALE, PrivacyClass, Scale

K = TypeVar("K")
T = TypeVar("T")

MOST_KNOWN = 10_000  # sessions, and responses, that this process remembers
LOOKS_S = (0.0, 0.25, 0.5, 1.0)  # pauses before each look for a response that is not known yet
THREADS = 4


class Past(Protocol):
    """What this needs of `gateway.ledger.store.Store`."""

    def session(self, key: str) -> SessionSeen | None: ...

    def raise_session(self, key: str, privacy: str, lower: list[str], now_ns: int) -> None: ...

    def answers(self, team: str, response_id: str) -> list[tuple[str, str]]: ...


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """A request in the light of its past."""

    classification: Classification
    session: str = ""  # its key
    holder: str | None = None  # the backend that has the response it goes on from
    past: PrivacyClass = PrivacyClass.PUBLIC  # what went before, which no placeholder takes away


class _Expired(msgspec.Struct, frozen=True):
    """Nothing was heard of the session for too long."""


class _Unreachable(Exception):
    """The database did not answer; the message says how."""


class Sessions:
    """Shared by all requests of one process. Asks the database in threads of its own."""

    def __init__(
        self,
        store: Past,
        *,
        days: float = 30.0,
        scale: Scale = DEFAULT_SCALE,
        deadline_s: float = 2.0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store, self._lifetime_ns, self._deadline_s, self._now_ns = (
            store,
            int(days * DAY_NS),
            deadline_s,
            now_ns,
        )
        self._scale = scale
        self._workers = Workers(THREADS)
        self._sessions: OrderedDict[str, tuple[PrivacyClass, int]] = (
            OrderedDict()
        )  # in the database, and since when
        self._answers: OrderedDict[tuple[str, str], tuple[PrivacyClass, str]] = OrderedDict()

    async def recall(
        self, own: Classification, *, team: str, session: str | None, previous: str | None
    ) -> Recalled:
        """`own` raised to the class of its past, which is raised to it in turn.

        Raises BadRequest (a response that nobody knows, a session that has expired) and ApiError.
        """
        holder, past = None, self._scale.lowest
        if previous is not None:
            past, holder = await self._answer(team, previous)
            own = raised(own, past, f"goes on from a response of class {past.label}")
        if session is None:
            return Recalled(classification=own, holder=holder, past=past)
        key = key_of(team, session)
        so_far, reason = await self._in_session(key, own.privacy)
        return Recalled(
            classification=raised(own, so_far, reason), session=key, holder=holder, past=max(past, so_far)
        )

    async def rise(self, key: str, privacy: PrivacyClass) -> None:
        """The session's class is at least `privacy` from now on. Raises BadRequest and ApiError."""
        await self._in_session(key, privacy)

    def kept(self, entry: Entry) -> None:
        """An answer that a later request may go on from."""
        name = entry.team, entry.response_id
        privacy, holder = self._parsed(entry.privacy), entry.backend
        if name in self._answers:  # a backend that repeats itself, or another one's id
            before, held = self._answers[name]
            privacy, holder = max(privacy, before), holder if holder == held else ""
        _keep(self._answers, name, (privacy, holder))

    # Sessions.

    async def _in_session(self, key: str, own: PrivacyClass) -> tuple[PrivacyClass, str]:
        """The session's class so far, which is raised to `own`, and the reason that it gives."""
        known, since_ns = self._sessions.get(key, (self._scale.lowest, 0))
        if known == self._scale.highest and self._now_ns() - since_ns < DAY_NS:
            self._sessions.move_to_end(key)
            return known, _SAID.format(known.label)
        try:
            found = await self._ask(lambda: self._touch(key, own))
        except _Unreachable as problem:
            if own > known:
                raise _unwritable() from problem
            return self._scale.highest, f"session: its past cannot be read: {problem}"
        if isinstance(found, _Expired):
            raise _expired(self._lifetime_ns)
        if found is None:
            return self._scale.lowest, ""
        _keep(self._sessions, key, (max(found, own), self._now_ns()))
        return found, _SAID.format(found.label)

    def _touch(self, key: str, privacy: PrivacyClass) -> PrivacyClass | _Expired | None:
        """The class so far, raised to `privacy` in the database; None: it has held nothing yet. Blocks."""
        seen, now_ns = self._store.session(key), self._now_ns()
        so_far = self._scale.lowest if seen is None else self._parsed(seen.privacy)
        if seen is not None and now_ns - seen.seen_ns >= self._lifetime_ns:
            return _Expired()
        stale = seen is not None and now_ns - seen.seen_ns >= DAY_NS
        if privacy > so_far or stale:
            highest = max(privacy, so_far)
            self._store.raise_session(
                key, highest.label, [c.label for c in self._scale if c < highest], now_ns
            )
        return None if seen is None and privacy == self._scale.lowest else so_far

    # Responses.

    async def _answer(self, team: str, response_id: str) -> tuple[PrivacyClass, str]:
        """Class and holder of an earlier response. Raises BadRequest, ApiError."""
        for pause_s in LOOKS_S:
            await asyncio.sleep(pause_s)  # until its row, which another worker has written, is there
            found = self._answers.get((team, response_id)) or await self._look_up(team, response_id)
            if found is not None:
                break
        if found is None or not found[1]:
            raise _unknown()
        return found

    async def _look_up(self, team: str, response_id: str) -> tuple[PrivacyClass, str] | None:
        try:
            rows = await self._ask(lambda: self._store.answers(team, response_id))
        except _Unreachable as problem:
            raise _unreadable() from problem
        if not rows:
            return None
        holders = {backend for _, backend in rows}
        return max(self._parsed(label) for label, _ in rows), holders.pop() if len(holders) == 1 else ""

    def _parsed(self, label: str) -> PrivacyClass:
        """A class that is not on the scale any more counts as the highest."""
        try:
            return self._scale.parse(label)
        except ValueError:
            return self._scale.highest

    async def _ask(self, job: Callable[[], T]) -> T:
        """`job()` in a thread. Raises _Unreachable."""
        try:
            return await self._workers.run(job, self._deadline_s)
        except TimeoutError:
            raise _Unreachable(f"no answer within {self._deadline_s:g} s") from None
        except AllStuck:
            raise _Unreachable("all threads are stuck") from None
        except RuntimeError as error:  # named after what was raised
            raise _Unreachable(str(error)) from None


def key_of(team: str, session: str) -> str:
    """What stands for a session in the database: 32 hex digits. Its name may hold content."""
    name = f"{team}\0{session}".encode()
    return hashlib.blake2b(name, digest_size=16, person=b"headgate-session").hexdigest()


def raised(own: Classification, privacy: PrivacyClass, reason: str) -> Classification:
    """`own`, at least of class `privacy`, with the reasons of whatever gave it its class."""
    if privacy < own.privacy or privacy == 0:  # the lowest of any scale
        return own
    reasons = [own.reason] if privacy == own.privacy and own.reason else []
    return replace(own, privacy=privacy, reason="; ".join([*reasons, reason]))


_SAID = "session has been {}"


def _keep(known: OrderedDict[K, tuple[PrivacyClass, T]], name: K, value: tuple[PrivacyClass, T]) -> None:
    known[name] = value
    known.move_to_end(name)
    if len(known) > MOST_KNOWN:
        known.popitem(last=False)


def _expired(lifetime_ns: int) -> BadRequest:
    days = lifetime_ns / DAY_NS
    return BadRequest(
        f"Nothing was heard of this session for {days:g} days: what was said in it is not known any more. "
        "Begin a new one under another name.",
        param="x-headgate-session",
        code="session_expired",
    )


def _unwritable() -> ApiError:
    return ApiError(
        "The gateway cannot note how sensitive this session has become, so it does not go on with it. "
        "Please try again shortly.",
        status=503,
        code="session_unwritable",
    )


def _unknown() -> BadRequest:
    return BadRequest(
        "'previous_response_id' refers to an earlier response that this gateway has no record of, so it "
        "cannot tell how sensitive the request is. Send all of the content in 'input'.",
        param="previous_response_id",
        code="unsupported_parameter",
    )


def _unreadable() -> ApiError:
    return ApiError(
        "The gateway cannot look up the response that this request goes on from. Please try again shortly.",
        status=503,
        code="session_unreadable",
    )
