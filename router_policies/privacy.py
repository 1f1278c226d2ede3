"""Privacy classes: how sensitive a request is, on a scale that a deployment may choose itself."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import msgspec

from .errors import did_you_mean


class PrivacyClass(int):
    """A step of a scale. Higher means fewer places may see it; steps compare as numbers do.

    The four that are named here are those of the scale that ships. What ships with the product (detectors,
    defaults) speaks of them; `Scale.meaning` says which step stands for each where the scale is another.
    """

    PUBLIC: ClassVar["PrivacyClass"]
    INTERNAL: ClassVar["PrivacyClass"]
    CONFIDENTIAL: ClassVar["PrivacyClass"]
    RESTRICTED: ClassVar["PrivacyClass"]

    label: str

    def __new__(cls, level: int, label: str) -> "PrivacyClass":
        made = super().__new__(cls, level)
        made.label = label
        return made

    def __repr__(self) -> str:
        return f"<PrivacyClass {self.label} ({int(self)})>"

    def __reduce__(self) -> tuple[type["PrivacyClass"], tuple[int, str]]:
        return PrivacyClass, (int(self), self.label)


class Scale(msgspec.Struct, frozen=True):
    """All classes of a deployment, lowest first.

    `meanings` are the classes that stand for PUBLIC, INTERNAL, CONFIDENTIAL and RESTRICTED, in that order.
    """

    classes: tuple[PrivacyClass, ...]
    meanings: tuple[PrivacyClass, ...]

    @property
    def lowest(self) -> PrivacyClass:
        return self.classes[0]

    @property
    def highest(self) -> PrivacyClass:
        return self.classes[-1]

    def __contains__(self, privacy: PrivacyClass) -> bool:
        """Whether it is a class of this scale, and not one of the same height on another."""
        return privacy < len(self.classes) and self.classes[privacy].label == privacy.label

    def __iter__(self) -> Iterator[PrivacyClass]:
        return iter(self.classes)

    def meaning(self, shipped: PrivacyClass) -> PrivacyClass:
        """The class that stands for one of those that are named on PrivacyClass."""
        return self.meanings[shipped]

    def parse(self, label: str) -> PrivacyClass:
        """The class of that name, in any case; ValueError names the known ones."""
        wanted = label.strip().lower()
        for privacy in self.classes:
            if privacy.label == wanted:
                return privacy
        known = ", ".join(privacy.label for privacy in self.classes)
        hint = did_you_mean(wanted, [privacy.label for privacy in self.classes])
        raise ValueError(f"unknown privacy class {label!r}{hint}; known are {known}")


SHIPPED = ("public", "internal", "confidential", "restricted")


def scale_of(labels: tuple[str, ...], stands_for: Mapping[str, str] | None = None) -> Scale:
    """The scale of these labels, lowest first; `stands_for` maps shipped labels to labels of it.

    A shipped label that is on the scale stands for itself, and "public" else for the lowest. ValueError: a
    shipped class would have no meaning, or a lower one than the class below it.
    """
    by_label = {label: PrivacyClass(level, label) for level, label in enumerate(labels)}
    if not labels or len(by_label) < len(labels):
        raise ValueError("each class must have a name of its own, and there must be one")
    chosen = {"public": labels[0], **{label: label for label in SHIPPED if label in by_label}}
    chosen |= stands_for or {}
    if strange := sorted(chosen.keys() - set(SHIPPED)):
        raise ValueError(f"stands_for: {', '.join(strange)} is none of {', '.join(SHIPPED)}")
    if missing := [label for label in SHIPPED if label not in chosen]:
        raise ValueError(f"say which class of the scale stands for {', '.join(missing)}")
    if unknown := sorted(set(chosen.values()) - by_label.keys()):
        raise ValueError(f"{', '.join(unknown)} is not on the scale")
    meanings = tuple(by_label[chosen[label]] for label in SHIPPED)
    if list(meanings) != sorted(meanings):
        raise ValueError(f"the classes that stand for {', '.join(SHIPPED)} must rise in that order")
    return Scale(tuple(by_label.values()), meanings)


DEFAULT_SCALE = scale_of(SHIPPED)
PrivacyClass.PUBLIC, PrivacyClass.INTERNAL, PrivacyClass.CONFIDENTIAL, PrivacyClass.RESTRICTED = DEFAULT_SCALE
