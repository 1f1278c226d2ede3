"""A route's shadow: a copy of a request for another target, whose answer nobody sees."""

import asyncio
import logging
from collections.abc import Mapping

from msgspec.structs import replace

from gateway.answering import pass_answer, upstream_failed
from gateway.backends.base import Source
from gateway.calls import Caller
from gateway.errors import ApiError, BackendError
from gateway.holds import Holds
from gateway.parsing import Request
from gateway.privacy.egress import Outgoing
from gateway.record import Recorder
from gateway.types import Call
from router_policies.types import Decision, Resilience, shadow_id

MOST_SHADOWS = 64  # under way at once

log = logging.getLogger("headgate.pipeline")


class Shadows:
    """Copies of requests for a route's shadow. Nobody waits for them, and what comes back goes nowhere.

    Each is a request of its own: with a row, tagged `shadow`, and a hold in the budgets. Where a budget, the
    backend or the process has no room for it, there is none.
    """

    def __init__(self, caller: Caller, recorder: Recorder, holds: Holds | None) -> None:
        self._caller, self._recorder, self._holds = caller, recorder, holds
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, decision: Decision, call: Call, request: Request, outgoing: Outgoing) -> None:
        """Starts a copy, if the decision has a shadow."""
        shadow = decision.shadow
        if shadow is None or len(self._tasks) >= MOST_SHADOWS or not self._caller.has_room(shadow.backend):
            return
        facts = call.facts
        copied = replace(facts, call_id=shadow_id(facts.call_id), tags=facts.tags | {"shadow"})
        alone = replace(
            decision,
            candidates=(shadow,),
            reason=f"shadow of {facts.call_id}",
            resilience=Resilience(),
            shadow=None,
        )
        # Without the vault: it is the client's answer that has its values put back.
        task = asyncio.create_task(
            self._run(
                replace(call, facts=copied, tags=call.tags | {"shadow"}, session=""),
                alone,
                replace(request, masked=None),
                outgoing,
            )
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, call: Call, decision: Decision, request: Request, outgoing: Outgoing) -> None:
        try:
            with self._recorder.record(call, request, decision) as record:
                if self._holds is not None:
                    record.held = await self._holds.hold(call, decision, request)
                try:
                    begun = await self._caller.first_answer(decision, outgoing, record)
                except BackendError as error:
                    raise upstream_failed(error, record) from error
                try:
                    await pass_answer(request, begun, Dropped(), record)
                finally:
                    await begun.aclose()
        except ApiError as error:
            log.info("request %s: %s", call.facts.call_id, error.code or error.status)
        except Exception:  # a fault of ours must not end in a task that nobody looks at
            log.exception("request %s failed on a fault of ours", call.facts.call_id)


class Dropped:
    """A reply that goes nowhere."""

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None: ...

    def start(self, status: int, headers: Mapping[str, str]) -> None: ...

    def write(self, chunk: bytes) -> None: ...

    def drawn_from(self, source: Source | None) -> None: ...
