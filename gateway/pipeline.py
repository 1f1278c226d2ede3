"""THE flow: admit → limit → classify → decide → hold → call → record. All requests take it, top to bottom.

    admit     the key says who is asking                              admission.py
    limit     requests and tokens a minute, and at once               limits/
    parse     the body is decoded once                                parsing.py
    classify  how sensitive it is; doubt means most sensitive         privacy/classify.py
    recall    what the conversation has been; its class never falls   privacy/sessions.py
    mask      where the policy may want it: what can be taken out     privacy/mask.py, restore.py
    decide    a pure function of policy, facts and fleet snapshot     router_policies/decide.py
    hold      what it may cost, in the budgets that cover it          holds.py, ledger/budgets/
    call      candidates in order, with retries and hedges, each      calls.py, resilience/
              through its backend, which asks the one door out        backends/, privacy/egress.py
    record    one ledger row, whatever happened                       record.py, ledger/

Errors leave as ApiError; the data plane renders them.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec
from msgspec.structs import replace

from gateway.admission import Keys, check_model, check_route
from gateway.answering import pass_answer, upstream_failed
from gateway.backends.wire import stream_error
from gateway.calls import Caller
from gateway.errors import BackendError, Denied
from gateway.holds import Holds
from gateway.ledger.tokens import estimate_prompt_tokens
from gateway.limits.limiter import Grant, Limiter, Rules
from gateway.parsing import Request, changed, content_of, parse
from gateway.privacy.classify import Classifier
from gateway.privacy.content import words_of
from gateway.privacy.egress import Outgoing
from gateway.privacy.mask import mask
from gateway.privacy.sessions import Recalled, Sessions
from gateway.record import WITHHELD, Record, Recorder
from gateway.replies import Reply, Restoring
from gateway.shadows import Shadows
from gateway.types import Call, Classification, Principal
from router_policies.compiled import CompiledPolicy
from router_policies.decide import decide
from router_policies.language import language
from router_policies.types import (
    Decision,
    Denial,
    ErrorClass,
    Facts,
    Parameters,
    PrivacyClass,
    Snapshot,
)

log = logging.getLogger("headgate.pipeline")


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request of a client, its body read."""

    call_id: str
    endpoint: str  # below /v1/
    body: bytes
    authorization: str = ""
    api_key: str = ""  # x-api-key
    privacy: tuple[str, ...] = ()  # x-headgate-privacy
    session: str | None = None  # x-headgate-session
    tags: frozenset[str] = frozenset()  # x-headgate-tags
    task: str = ""  # x-headgate-task
    traceparent: str = ""


class Pipeline:
    def __init__(
        self,
        *,
        keys: Keys,
        classifier_of: Callable[[str], Classifier],
        policy: Callable[[str, str], CompiledPolicy],
        snapshot: Callable[[str], Snapshot],
        caller: Caller,
        recorder: Recorder,
        sessions: Sessions,
        permit_s: float = 600.0,
        holds: Holds | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        """`classifier_of` a team; `policy` gives the one that decides, by the ids of the call and of its key;
        `snapshot` the world as one unit of traffic has it, see `_unit`.

        A permit expires `permit_s` after its request was classified. Without `holds`: no budgets; without
        `limiter`: no rate limits but those of principals.
        """
        self._keys, self._classifier_of, self._policy, self._snapshot = keys, classifier_of, policy, snapshot
        self._caller, self._recorder = caller, recorder
        self._sessions, self._permit_s, self._holds = sessions, permit_s, holds
        self._limiter = limiter or Limiter(Rules())
        self._shadows = Shadows(caller, recorder, holds)

    async def handle(self, incoming: Incoming, reply: Reply) -> None:
        """Answers one request. Raises ApiError while nothing has been sent; after that, never."""
        started_ns, clock = time.time_ns(), time.perf_counter()
        principal = self._keys.admit(incoming.authorization, incoming.api_key)
        grant = self._limiter.open(principal)
        if grant is None:
            await self._handle(incoming, principal, None, reply, started_ns, clock)
            return
        try:
            await grant.take_caller(estimate_prompt_tokens(len(incoming.body)))
            await self._handle(incoming, principal, grant, reply, started_ns, clock)
        finally:
            grant.close()

    async def _handle(
        self,
        incoming: Incoming,
        principal: Principal,
        grant: Grant | None,
        reply: Reply,
        started_ns: int,
        clock: float,
    ) -> None:
        request = parse(incoming.endpoint, incoming.body)
        check_model(principal, request.model)
        classifier = self._classifier_of(principal.team)
        asked = (*incoming.privacy, *request.asked_privacy)

        def classify(body: object) -> Awaitable[Classification]:
            return classifier.classify(
                body, floor=principal.privacy_floor, asked=asked, may_lower=principal.may_lower_privacy
            )

        own = await classify(request.body)
        if incoming.session is None and request.previous is None:
            recalled = Recalled(classification=own)
        else:
            recalled = await self._sessions.recall(
                own, team=principal.team, session=incoming.session, previous=request.previous
            )
        policy = self._policy(incoming.call_id, principal.key_id)
        above = policy.masks_above
        if own.places and above is not None and recalled.classification.privacy > above:
            request = replace(request, masked=await mask(request.body, own, classify, recalled.past))
        facts = self._with_budgets(
            _facts(incoming, request, principal, recalled, started_ns, policy.reads_language), started_ns
        )
        verdict = decide(policy, facts, self._snapshot(_unit(request, facts)))
        check_route(principal, verdict.route)
        if isinstance(verdict, Decision) and verdict.parameters is not None:
            request = _with_parameters(request, verdict.parameters)
        outgoing = self._outgoing(request, recalled)
        if recalled.session and verdict.privacy > facts.privacy:  # the route's floor counts too
            await self._sessions.rise(recalled.session, verdict.privacy)
        call = Call(
            facts=facts,
            principal=principal,
            classification=recalled.classification,
            started_ns=started_ns,
            clock=clock,
            traceparent=incoming.traceparent,
            model_withheld=await _withholds_model(classifier, request, principal.privacy_floor, own),
            tags=await _written_tags(classifier, facts.tags - principal.tags, principal),
            session=recalled.session,
        )
        with self._recorder.record(call, request, verdict) as record:
            if isinstance(verdict, Denial):
                raise Denied(
                    verdict.message, status=verdict.status, code=verdict.code, headers=record.headers()
                )
            if grant is not None:
                record.grant = grant
                await grant.take_route(verdict.route)
            if self._holds is not None:
                record.held = await self._holds.hold(call, verdict, request)
            self._shadows.start(verdict, call, request, outgoing)
            deadline_s = verdict.resilience.deadline_s
            if deadline_s is None:
                await self._answer(verdict, request, outgoing, reply, record)
            else:
                await self._answer_by(clock + deadline_s, verdict, request, outgoing, reply, record)

    async def aclose(self) -> None:
        """Ends what no client waits for."""
        await self._shadows.aclose()
        await self._limiter.aclose()

    def _with_budgets(self, facts: Facts, at_ns: int) -> Facts:
        used = self._holds.used(facts, at_ns) if self._holds is not None else 0.0
        return replace(facts, budget_used=used) if used else facts

    def _outgoing(self, request: Request, recalled: Recalled) -> Outgoing:
        """Encoded now, while it is what was classified: bytes do not change any more."""
        outgoing = Outgoing(
            endpoint=request.endpoint,
            stream=request.stream,
            content=content_of(request),
            until=time.monotonic() + self._permit_s,
            privacy=recalled.classification.privacy,
        )
        if request.masked is None:
            return outgoing
        masked = replace(
            outgoing,
            content=content_of(replace(request, body=request.masked.body)),
            privacy=request.masked.privacy,
        )
        return replace(outgoing, masked=masked)

    async def _answer_by(
        self,
        deadline: float,
        decision: Decision,
        request: Request,
        outgoing: Outgoing,
        reply: Reply,
        record: Record,
    ) -> None:
        """Answers until `deadline`, on the clock of perf_counter, and tells the client when it passes."""
        try:
            async with asyncio.timeout(deadline - time.perf_counter()):
                await self._answer(decision, request, outgoing, reply, record)
        except TimeoutError:
            if record.over:  # only its upstream was still being seen off
                return
            seconds = decision.resilience.deadline_s
            message = f"The route's deadline of {seconds:g} s has passed."
            if not record.begun:
                late = BackendError(ErrorClass.TIMEOUT, message, status=504, code="deadline_exceeded")
                raise upstream_failed(late, record) from None
            record.interrupted()
            reply.write(stream_error(request.endpoint, message, "deadline_exceeded"))

    async def _answer(
        self, decision: Decision, request: Request, outgoing: Outgoing, reply: Reply, record: Record
    ) -> None:
        try:
            begun = await self._caller.first_answer(decision, outgoing, record)
        except BackendError as error:
            raise upstream_failed(error, record) from error
        try:
            if begun.attempt.candidate.masked and request.masked is not None:
                reply = Restoring(reply, request, request.masked.vault, record)
            await pass_answer(request, begun, reply, record)
        finally:
            await begun.aclose()


async def _withholds_model(
    classifier: Classifier, request: Request, floor: PrivacyClass, found: Classification
) -> bool:
    """Whether the model's name is one of the places where detectors find something, or cannot tell."""
    if not found.findings and found.privacy <= floor:
        return False
    return await _finds(classifier, request.model, floor)


async def _written_tags(classifier: Classifier, own: frozenset[str], principal: Principal) -> frozenset[str]:
    """The tags of the key and the client's `own`, but for those in which detectors find something."""
    floor = principal.privacy_floor
    if own and await _finds(classifier, list(own), floor):
        own = frozenset([WITHHELD if await _finds(classifier, tag, floor) else tag for tag in own])
    return principal.tags | own


async def _finds(classifier: Classifier, text: object, floor: PrivacyClass) -> bool:
    found = await classifier.classify(text, floor=floor)
    return bool(found.findings) or found.privacy > floor


def _unit(request: Request, facts: Facts) -> str:
    """What a canary takes as a whole: a user that the client names keeps the release; else each request."""
    user = request.body.get("user")
    return f"{facts.key_id}/{user}" if user and isinstance(user, str) else facts.call_id


def _with_parameters(request: Request, parameters: Parameters) -> Request:
    masked = request.masked
    return replace(
        request,
        body=changed(request.endpoint, request.body, parameters),
        masked=masked and replace(masked, body=changed(request.endpoint, masked.body, parameters)),
    )


def _facts(
    incoming: Incoming,
    request: Request,
    principal: Principal,
    recalled: Recalled,
    started_ns: int,
    reads_language: bool,
) -> Facts:
    return Facts(
        call_id=incoming.call_id,
        endpoint=request.endpoint,
        model=request.model,
        key_id=principal.key_id,
        team=principal.team,
        tags=principal.tags | incoming.tags | request.tags,
        features=request.features,
        prompt_tokens=estimate_prompt_tokens(request.size),
        privacy=recalled.classification.privacy,
        holder=recalled.holder,
        masked=request.masked.privacy if request.masked else None,
        masked_kinds=request.masked.vault.kinds() if request.masked else {},
        project=principal.project,
        metadata=request.metadata,
        findings=frozenset(recalled.classification.findings),
        output_tokens=request.output_tokens,
        task=incoming.task or request.task,
        language=language(words_of(request.body)) if reads_language else "",
        user=request.user,
        session=recalled.session,
        at_s=started_ns / 1e9,
    )
