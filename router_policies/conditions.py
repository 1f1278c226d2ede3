"""What a route asks of a request, and when one route's conditions contain another's."""

from collections.abc import Mapping

import msgspec

from .types import Feature, PrivacyClass

Span = tuple[int, int]  # of minutes of the week, from Monday; the end is not part of it


class Window(msgspec.Struct, frozen=True):
    """Times of the week in a zone of the tz database. Spans are in order and do not touch."""

    zone: str
    spans: tuple[Span, ...]

    def holds(self, minute: int) -> bool:
        return any(start <= minute < end for start, end in self.spans)

    def covers(self, other: "Window") -> bool:
        """Whether it holds whenever the other does. Between two zones nothing is said."""
        return self.zone == other.zone and all(
            any(start <= s and e <= end for start, end in self.spans) for s, e in other.spans
        )


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """A route's `match`, ready for use. None stands for any value.

    `prefixes` are the model patterns that end in *; any model at all is the prefix "".
    """

    endpoints: frozenset[str] | None
    models: frozenset[str]
    prefixes: frozenset[str]
    keys: frozenset[str] | None
    teams: frozenset[str] | None
    projects: frozenset[str] | None
    tasks: frozenset[str] | None
    languages: frozenset[str] | None
    tags: frozenset[str]
    metadata: Mapping[str, frozenset[str]]  # key -> values, one of which it has
    features: frozenset[Feature]
    without_features: frozenset[Feature]
    least_tokens: int
    most_tokens: int
    least_output: int
    most_output: int
    classes: frozenset[PrivacyClass]
    findings: frozenset[str] | None  # one of which is there
    without_findings: frozenset[str]
    window: Window | None
    least_budget: float
    most_budget: float
    down: frozenset[str]
    up: frozenset[str]

    @property
    def can_hold(self) -> bool:
        """Whether some request meets them; ranges are known to be in order."""
        found = self.findings is None or not self.findings <= self.without_findings
        return found and not (self.features & self.without_features or self.down & self.up)

    def takes_model(self, model: str) -> bool:
        return model in self.models or model.startswith(tuple(self.prefixes))

    def cover(self, other: "Conditions") -> bool:
        """Whether every request that meets `other` meets these too, privacy class left aside.

        Sound and incomplete: True is always right; False may only mean that it was not seen.
        """
        return (
            self._cover_names(other)
            and self._cover_sets(other)
            and self._cover_ranges(other)
            and self._cover_models(other)
            and (self.window is None or (other.window is not None and self.window.covers(other.window)))
        )

    def _cover_names(self, other: "Conditions") -> bool:
        return (
            _allow(self.endpoints, other.endpoints)
            and _allow(self.keys, other.keys)
            and _allow(self.teams, other.teams)
            and _allow(self.projects, other.projects)
            and _allow(self.tasks, other.tasks)
            and _allow(self.languages, other.languages)
            and _allow(self.findings, other.findings)
            and all(_allow(values, other.metadata.get(key)) for key, values in self.metadata.items())
        )

    def _cover_sets(self, other: "Conditions") -> bool:
        return (
            self.tags <= other.tags
            and self.features <= other.features
            and self.without_features <= other.without_features
            and self.without_findings <= other.without_findings
            and self.down <= other.down
            and self.up <= other.up
        )

    def _cover_ranges(self, other: "Conditions") -> bool:
        return (
            self.least_tokens <= other.least_tokens
            and self.most_tokens >= other.most_tokens
            and self.least_output <= other.least_output
            and self.most_output >= other.most_output
            and self.least_budget <= other.least_budget
            and self.most_budget >= other.most_budget
        )

    def _cover_models(self, other: "Conditions") -> bool:
        prefixes = tuple(self.prefixes)
        return all(map(self.takes_model, other.models)) and all(
            p.startswith(prefixes) for p in other.prefixes
        )


def _allow(mine: frozenset[str] | None, theirs: frozenset[str] | None) -> bool:
    return mine is None or (theirs is not None and theirs <= mine)
