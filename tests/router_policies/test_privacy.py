"""The scale of privacy classes."""

import copy
import pickle

import pytest

from router_policies.privacy import DEFAULT_SCALE, SHIPPED, PrivacyClass, scale_of


def test_the_shipped_scale() -> None:
    """Four classes in rising order, each standing for itself."""
    assert [c.label for c in DEFAULT_SCALE] == list(SHIPPED)
    assert PrivacyClass.PUBLIC < PrivacyClass.INTERNAL < PrivacyClass.CONFIDENTIAL < PrivacyClass.RESTRICTED
    assert all(DEFAULT_SCALE.meaning(c) is c for c in DEFAULT_SCALE)
    assert DEFAULT_SCALE.parse(" Restricted ") is PrivacyClass.RESTRICTED


def test_another_scale_says_what_the_shipped_classes_are_called() -> None:
    """Names that are on the scale stand for themselves, public for the lowest, all others as said."""
    scale = scale_of(("open", "internal", "sealed"), {"confidential": "sealed", "restricted": "sealed"})
    assert [scale.meaning(c).label for c in DEFAULT_SCALE] == ["open", "internal", "sealed", "sealed"]
    assert (scale.lowest.label, scale.highest.label) == ("open", "sealed")
    assert PrivacyClass.RESTRICTED not in scale
    assert PrivacyClass.INTERNAL in scale


@pytest.mark.parametrize(
    ("labels", "stands_for", "problem"),
    [
        (("open", "shut"), {}, "say which class of the scale stands for internal, confidential, restricted"),
        (SHIPPED, {"restricted": "sealed"}, "sealed is not on the scale"),
        (SHIPPED, {"internal": "restricted"}, "must rise in that order"),
        (SHIPPED, {"secret": "restricted"}, "stands_for: secret is none of public"),
        (("a", "a"), {}, "a name of its own"),
        ((), {}, "there must be one"),
    ],
)
def test_a_scale_that_cannot_be_used(
    labels: tuple[str, ...], stands_for: dict[str, str], problem: str
) -> None:
    """Each fault is told; none gives a scale in which a shipped class means too little."""
    with pytest.raises(ValueError, match=problem):
        scale_of(labels, stands_for)


def test_an_unknown_label_is_told_with_the_known_ones() -> None:
    """Who mistypes a class reads which ones there are."""
    with pytest.raises(ValueError, match=r'did you mean "restricted".*known are public, internal'):
        DEFAULT_SCALE.parse("restrictd")


def test_copies_keep_their_label() -> None:
    """A class crosses processes whole: detectors may run in one of their own."""
    for copied in (copy.deepcopy(PrivacyClass.INTERNAL), pickle.loads(pickle.dumps(PrivacyClass.INTERNAL))):
        assert (copied, copied.label) == (PrivacyClass.INTERNAL, "internal")
