"""Each disguise of each kind of identifier in the plainest place, and what is not seen through yet."""

import pytest

from tests.privacy.attack.arena import Arena, encoded
from tests.privacy.attack.canaries import KINDS, canary
from tests.privacy.attack.disguises import DISGUISES, KNOWN_GAPS
from tests.privacy.attack.fields import FIELDS, GAPS, Field
from tests.privacy.attack.product import suits

FIELD = FIELDS["user message"]


def classed(arena: Arena, field: Field, text: str) -> str:
    """The class that the gateway gives a request with `text` in it."""
    return arena.ask(field.endpoint, encoded(field.build(text))).headers["x-headgate-privacy-class"]


@pytest.mark.parametrize("disguise", [name for name in DISGUISES if any(suits(name, kind) for kind in KINDS)])
def test_seen_through(shipped: Arena, disguise: str) -> None:
    """The identifier is found as if it stood there plainly, and stays at home."""
    shipped.news_outside()
    for kind in filter(lambda kind: suits(disguise, kind), KINDS):
        hidden = canary(kind, disguise)
        body = encoded(FIELD.build(DISGUISES[disguise].change(hidden.text)))
        answer = shipped.attack(FIELD.endpoint, body, hidden)
        shipped.assert_stayed(hidden, answer)
        assert answer.status == 200


@pytest.mark.parametrize(
    ("disguise", "kind"),
    [
        pytest.param(
            name, kind, marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason=gap.reason)
        )
        for name, gap in KNOWN_GAPS.items()
        for kind in sorted(gap.kinds & DISGUISES[name].kinds)
    ],
)
def test_not_seen_through(shipped: Arena, disguise: str, kind: str) -> None:
    """A known gap: strike it from KNOWN_GAPS when this passes, so that the whole matrix has it."""
    text = DISGUISES[disguise].change(canary(kind, 1).text)
    assert classed(shipped, FIELD, text) in ("confidential", "restricted")


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))
        for name, (_, reason) in GAPS.items()
    ],
)
def test_not_put_together(shipped: Arena, place: str) -> None:
    """An IBAN in pieces that nothing joins: move the place to FIELDS when this passes."""
    assert classed(shipped, GAPS[place][0], canary("iban", 1).text) == "restricted"
