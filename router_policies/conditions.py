"""What a route asks of a request, and when one route's conditions contain another's."""

import msgspec

from .types import Feature, PrivacyClass


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """A route's `match`, ready for use. None stands for any value.

    `prefixes` are the model patterns that end in *; any model at all is the prefix "".
    """

    endpoints: frozenset[str] | None
    models: frozenset[str]
    prefixes: frozenset[str]
    keys: frozenset[str] | None
    teams: frozenset[str] | None
    tags: frozenset[str]
    features: frozenset[Feature]
    without_features: frozenset[Feature]
    least_tokens: int
    most_tokens: int
    classes: frozenset[PrivacyClass]

    @property
    def can_hold(self) -> bool:
        """Whether some request meets them; ranges are known to be in order."""
        return not self.features & self.without_features

    def takes_model(self, model: str) -> bool:
        return model in self.models or model.startswith(tuple(self.prefixes))

    def cover(self, other: "Conditions") -> bool:
        """Whether every request that meets `other` meets these too, privacy class left aside.

        Sound and incomplete: True is always right; False may only mean that it was not seen.
        """
        return (
            _allow(self.endpoints, other.endpoints)
            and _allow(self.keys, other.keys)
            and _allow(self.teams, other.teams)
            and self.tags <= other.tags
            and self.features <= other.features
            and self.without_features <= other.without_features
            and self.least_tokens <= other.least_tokens
            and self.most_tokens >= other.most_tokens
            and self._cover_models(other)
        )

    def _cover_models(self, other: "Conditions") -> bool:
        prefixes = tuple(self.prefixes)
        return all(map(self.takes_model, other.models)) and all(
            p.startswith(prefixes) for p in other.prefixes
        )


def _allow(mine: frozenset[str] | None, theirs: frozenset[str] | None) -> bool:
    return mine is None or (theirs is not None and theirs <= mine)
