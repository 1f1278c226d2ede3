"""A policy's own tests: a request as it is given, and the decision that is expected of it.

- name: private requests stay home
  given: {model: gpt-4o, team: legal, privacy: confidential, down: [gpu-1]}
  expect: {route: private, backends: [gpu-2]}
- name: nobody asks for that one
  given: {model: gpt-3}
  expect: {denied: model_not_found}
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

import msgspec
from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from .compiled import CompiledPolicy
from .decide import decide
from .errors import PolicyError
from .privacy import Scale
from .types import UNBOUNDED, Decision, Denial, Facts, Snapshot
from .words import ClassName, FeatureName, Part, Text, as_many

Names = Annotated[tuple[Text, ...], BeforeValidator(as_many)]
Tokens = Annotated[StrictInt, Field(ge=0)]


class Given(Part):
    """What `decide` is told of a request, and of the world when it comes in."""

    model: Text
    endpoint: Text = "chat/completions"
    key: str = ""
    team: str = ""
    tags: Names = ()
    features: Annotated[tuple[FeatureName, ...], BeforeValidator(as_many)] = ()
    prompt_tokens: Tokens = 0
    output_tokens: Tokens = UNBOUNDED
    project: str = ""
    metadata: Annotated[dict[str, str], Field(default_factory=dict)]
    task: str = ""
    language: str = ""
    findings: Names = ()
    user: str = ""
    session: str = ""
    call: Text = "call_case"  # its id, by which shares are drawn
    at: AwareDatetime | None = None  # with its offset; None: the beginning of 1970
    budget_used: Annotated[StrictFloat, Field(ge=0)] = 0.0
    privacy: ClassName | None = None  # as classified; None: the lowest
    down: Names = ()  # backends
    aliases: Annotated[dict[str, str], Field(default_factory=dict)]  # of the adapters that are served

    def facts(self, scale: Scale) -> Facts:
        return Facts(
            call_id=self.call,
            endpoint=self.endpoint,
            model=self.model,
            key_id=self.key,
            team=self.team,
            tags=frozenset(self.tags),
            features=frozenset(self.features),
            prompt_tokens=self.prompt_tokens,
            privacy=scale.lowest if self.privacy is None else self.privacy,
            output_tokens=self.output_tokens,
            project=self.project,
            metadata=self.metadata,
            task=self.task,
            language=self.language,
            findings=frozenset(self.findings),
            user=self.user,
            session=self.session,
            at_s=self.at.timestamp() if self.at is not None else 0.0,
            budget_used=self.budget_used,
        )

    def snapshot(self) -> Snapshot:
        return Snapshot(aliases=self.aliases, down=frozenset(self.down))


class Expect(Part):
    """What is given must hold of the decision."""

    route: Text | None = None
    backends: Names | None = None  # all candidates, in order
    model: Text | None = None  # that the first candidate is asked for
    denied: Text | None = None  # the error's code
    shadow: Text | None = None  # the backend that gets a copy

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("expects nothing: give route, backends, model, shadow or denied")
        if self.denied is not None and self.of_decision:
            raise ValueError("what is denied has neither backends nor a model")
        return self

    @property
    def of_decision(self) -> bool:
        """Whether it expects something that only a decision has."""
        return not (self.backends is None and self.model is None and self.shadow is None)


class Case(Part):
    name: Text
    given: Given
    expect: Expect


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A case whose decision was another one."""

    case: str
    problem: str

    def __str__(self) -> str:
        return f'case "{self.case}": {self.problem}'


_CASES = TypeAdapter(tuple[Case, ...])


def parse_cases(document: object, source: str, scale: Scale) -> tuple[Case, ...]:
    """Reads a list of cases as YAML or JSON gave it. PolicyError lists every problem with its path."""
    try:
        return _CASES.validate_python(document, context=scale)
    except ValidationError as error:
        raise PolicyError(source, [_line(problem) for problem in error.errors(include_url=False)]) from None


def run_cases(policy: CompiledPolicy, cases: Sequence[Case]) -> tuple[Failure, ...]:
    """The cases that fail, with what was decided in place of what they expect."""
    return tuple(
        Failure(case=case.name, problem="; ".join(problems))
        for case in cases
        if (problems := list(_differences(policy, case)))
    )


def _differences(policy: CompiledPolicy, case: Case) -> Iterator[str]:
    verdict = decide(policy, case.given.facts(policy.scale), case.given.snapshot())
    expect = case.expect
    if expect.route is not None and expect.route != verdict.route:
        yield f"expected route {expect.route}, not {verdict.route or 'none'} ({verdict.reason})"
    if isinstance(verdict, Denial):
        yield from _of_denial(expect, verdict)
    else:
        yield from _of_decision(expect, verdict)


def _of_denial(expect: Expect, verdict: Denial) -> Iterator[str]:
    if expect.denied is None and expect.of_decision:
        yield f"denied with {verdict.code}: {verdict.reason}"
    elif expect.denied not in (None, verdict.code):
        yield f"expected it to be denied with {expect.denied}, not {verdict.code} ({verdict.reason})"


def _of_decision(expect: Expect, verdict: Decision) -> Iterator[str]:
    backends = tuple(candidate.backend for candidate in verdict.candidates)
    if expect.denied is not None:
        yield f"expected it to be denied with {expect.denied}; it goes to {', '.join(backends)}"
    if expect.backends is not None and expect.backends != backends:
        yield f"expected backends {', '.join(expect.backends)}, not {', '.join(backends)} ({verdict.reason})"
    if expect.model is not None and expect.model != verdict.candidates[0].model:
        yield f"expected model {expect.model}, not {verdict.candidates[0].model}"
    shadow = verdict.shadow.backend if verdict.shadow else "none"
    if expect.shadow not in (None, shadow):
        yield f"expected a shadow at {expect.shadow}, not {shadow}"


def _line(detail: Any) -> str:
    """One of pydantic's error details as `[0].given.model: what is wrong`."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    what = detail["ctx"]["error"] if detail["type"] == "value_error" else detail["msg"]
    return f"{path.removeprefix('.') or 'the list of cases'}: {what}"
