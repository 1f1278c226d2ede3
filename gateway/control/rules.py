"""The rules of admins on the hot path: for each team a classifier with the rules for all and its own."""

from collections.abc import Callable, Mapping, Sequence

from gateway.control.records import Dictionary, Pattern
from gateway.control.state import ControlState
from gateway.errors import ConfigError, NotReady
from gateway.privacy.classify import Classifier
from gateway.privacy.detect import Detector
from gateway.privacy.rules import CustomPattern, RuleDetector, Rules
from gateway.privacy.rules import Dictionary as DictionaryRule
from router_policies.privacy import Scale

Make = Callable[[Sequence[Detector]], Classifier]
"""A classifier of what ships and these."""

EVERYBODY = ""


class Classifiers:
    """By team. A change replaces all at once; while the newest rules cannot be used the last ones guard."""

    def __init__(self, make: Make, scale: Scale) -> None:
        self._make, self._scale = make, scale
        self._plain = make(())
        self._by_team: Mapping[str, Classifier] = {}  # empty until the rules were read once
        self._read: tuple[Mapping[str, Dictionary], Mapping[str, Pattern]] = ({}, {})

    def __call__(self, team: str) -> Classifier:
        """Raises NotReady while nobody knows the rules: without them a class could come out too low."""
        found = self._by_team.get(team) or self._by_team.get(EVERYBODY)
        if found is None:
            raise NotReady("its privacy rules")
        return found

    @property
    def ready(self) -> bool:
        return bool(self._by_team)

    def follow(self, state: ControlState) -> list[str]:
        """Puts the rules of `state` into force, or none of them, and says why not. From one thread."""
        read = (state.dictionaries, state.patterns)
        if self._by_team and read == self._read:
            return []
        teams = {rule.team or EVERYBODY for part in read for rule in part.values()} | {EVERYBODY}
        try:
            self._by_team = {team: self._of(state, team) for team in teams}
        except (ConfigError, ValueError) as error:
            return [f"privacy rules: {error}"]
        self._read = read
        return []

    def _of(self, state: ControlState, team: str) -> Classifier:
        owners = (None, team)
        rules = Rules(
            dictionaries=tuple(
                dictionary_rule(id, rule, self._scale)
                for id, rule in state.dictionaries.items()
                if rule.team in owners
            ),
            patterns=tuple(
                pattern_rule(id, rule, self._scale)
                for id, rule in state.patterns.items()
                if rule.team in owners
            ),
        )
        if not rules.dictionaries and not rules.patterns:
            return self._plain
        return self._make((RuleDetector(rules),))


def dictionary_rule(id: str, rule: Dictionary, scale: Scale) -> DictionaryRule:
    """Raises ValueError: its class is not on the scale."""
    return DictionaryRule(
        name=id,
        privacy=scale.parse(rule.privacy),
        terms=rule.terms,
        whole_words=rule.whole_words,
        fold_case=rule.fold_case,
    )


def pattern_rule(id: str, rule: Pattern, scale: Scale) -> CustomPattern:
    """Raises ValueError: its class is not on the scale."""
    return CustomPattern(
        name=id,
        privacy=scale.parse(rule.privacy),
        pattern=rule.pattern,
        matches=rule.matches,
        leaves=rule.leaves,
    )
