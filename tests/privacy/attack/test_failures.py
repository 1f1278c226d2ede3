"""Whatever fails, doubt is the highest class: canaries that no detector knows stay at home all the same."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.spool import SpoolUnwritable
from gateway.privacy.detect import Finding
from router_policies.types import PrivacyClass
from tests.privacy.attack.arena import LEAKY, Arena, arena, encoded
from tests.privacy.attack.canaries import marker
from tests.privacy.attack.fields import FIELDS
from tests.privacy.attack.locks import unproved
from tests.support.stack import FLOOR_KEY

TAGS = ("", "first-choice", "fallback", "retry", "hedge", "hedge-outside")

# A model's name is written down unless a detector finds something in it, and none knows these canaries.
UNNAMED = [field for field in FIELDS if field != "model name"]


class Broken:
    """A detector that answers with what `misbehave` returns, or as it raises."""

    name = "broken"

    def __init__(self, misbehave: Any, *, linear: bool = False, clears: Any = None) -> None:
        self.scan, self.linear = misbehave, linear
        if clears is not None:
            self.clears = clears


def raising(error: type[BaseException]) -> Any:
    def scan(text: str) -> Sequence[Finding]:
        raise error(f"cannot read {text}")

    return scan


def telling(text: str) -> Any:
    """The kind of a finding is written down: it must be a name."""
    return [Finding(0, 1, text[-40:], PrivacyClass.PUBLIC, 1.0)]


RELEASED = threading.Event()
BROKEN: dict[str, Any] = {
    "raises": lambda: Broken(raising(RuntimeError)),
    "raises inline": lambda: Broken(raising(RuntimeError), linear=True),
    "cannot decode": lambda: Broken(raising(ValueError), linear=True),
    "out of memory": lambda: Broken(raising(MemoryError)),
    "out of memory inline": lambda: Broken(raising(MemoryError), linear=True),
    "out of stack inline": lambda: Broken(raising(RecursionError), linear=True),
    "ends its thread": lambda: Broken(raising(SystemExit)),
    "hangs": lambda: Broken(lambda text: RELEASED.wait(60)),
    "returns none": lambda: Broken(lambda text: None),
    "returns dicts": lambda: Broken(lambda text: [{"kind": "fine", "privacy": -1}], linear=True),
    "returns text": lambda: Broken(lambda text: text),
    "a class of its own": lambda: Broken(lambda text: [Finding(0, 1, "x", -1, 1.0)]),  # type: ignore[arg-type]
    "content as a kind": lambda: Broken(telling),
    "beyond the text": lambda: Broken(
        lambda text: [Finding(0, len(text) + 1, "x", PrivacyClass.PUBLIC, 1.0)]
    ),
    "clears and raises": lambda: Broken(raising(RuntimeError), linear=True, clears=raising(RuntimeError)),
    "clears with a word": lambda: Broken(raising(RuntimeError), linear=True, clears=lambda text: "yes"),
}


def strike(ring: Arena, field: str, number: int, seed: str, **how: str) -> None:
    hidden = marker(f"{seed} {field}")
    where, tag = FIELDS[field], TAGS[number % len(TAGS)]
    ring.forget_script()
    answer = ring.attack(
        where.endpoint, encoded(where.build(hidden.text)), hidden, x_headgate_tags=tag, **how
    )
    ring.assert_stayed(hidden, answer)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_detector(broken: str, tmp_path: Path) -> None:
    """Every field, one leaky route after the other: nothing is outside, nothing of what it raised written."""
    RELEASED.clear()
    with unproved(), arena(tmp_path, *LEAKY, detectors=[BROKEN[broken]()]) as ring:
        for number, field in enumerate(UNNAMED):
            strike(ring, field, number, broken)
        ring.bystand()
        assert ring.at_home == ring.sent
        RELEASED.set()


def test_the_header_says_restricted(leaky: Arena) -> None:
    """Whatever detectors find, a client that asks for more gets it, on every leaky route."""
    for number, field in enumerate(UNNAMED):
        strike(leaky, field, number, "header", x_headgate_privacy="restricted")


def test_the_key_says_restricted(leaky: Arena) -> None:
    """A key's floor holds, and the header cannot lower it."""
    for number, field in enumerate(UNNAMED):
        strike(leaky, field, number, "key", key=FLOOR_KEY, x_headgate_privacy="public")


@pytest.mark.parametrize("known", ["the database", "the spool"])
def test_a_ledger_that_cannot_be_written(known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database: the request stays at home. No spool either: it is refused. Neither writes content."""
    with unproved(), arena(tmp_path, *LEAKY) as ring:
        if known == "the database":
            monkeypatch.setattr(ring.app.ledger.store, "insert_rows", raising(OSError))
        else:
            monkeypatch.setattr(ring.app.ledger._writer, "append", _full)
        for number, field in enumerate(UNNAMED):
            strike(ring, field, number, known, x_headgate_privacy="restricted")
        assert (ring.at_home > 0) == (known == "the database")
        ring.bystand()
        monkeypatch.undo()


def _full(*_: object) -> int:
    raise SpoolUnwritable("no room")
