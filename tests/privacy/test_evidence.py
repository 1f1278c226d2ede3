"""Signatures, and the proof over a month of rows that were really stored."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from gateway.errors import ConfigError
from gateway.ledger.ledger import Ledger
from gateway.ledger.store import Store
from gateway.ledger.tables import COLUMNS, encode, to_row
from gateway.privacy.audit import Audit, audit
from gateway.privacy.evidence import KEY_FILE, Keyring, known_keyring, open_keyring
from gateway.types import Entry, Outcome, Reach
from router_policies.privacy import DEFAULT_SCALE
from tests.ledger.samples import STARTED_NS, begun, entry

KEYS = Keyring(["old-" + "0" * 40, "new-" + "1" * 40], "test")
HOME = Reach(backend="own", zone="home", local=True, ceiling="restricted", privacy="restricted")


def rented(call_id: str, **changes: Any) -> Reach:
    values: dict[str, Any] = {
        "backend": "openai-main",
        "zone": "us",
        "local": False,
        "ceiling": "internal",
        "privacy": "internal",
        "permit": f"{call_id}.1",
        "digest": "5e" * 32,
    }
    return Reach(**(values | changes))


def sent(call_id: str, *reached: Reach, **changes: Any) -> Entry:
    reached = reached or (rented(call_id),)
    values: dict[str, Any] = {"backend": reached[-1].backend, "attempts": len(reached), "reached": reached}
    return entry(call_id, **(values | changes))


MONTH = (
    sent("c1"),
    sent("c2", HOME, privacy="restricted"),
    sent("c3", rented("c3", refused=True), HOME, privacy="restricted"),
    sent("c4", rented("c4"), rented("c4", permit="c4.2", backend="other", zone="eu")),
    sent("c5", rented("c5", masked=True), privacy="restricted"),
    entry("c6", outcome=Outcome.REFUSED, backend="", attempts=0),
)


class Books:
    """A ledger's database, and how somebody with access to it changes a row."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/ledger.db"
        self.ledger = Ledger(self.url, folder / "spool", sign=KEYS.sign)

    def store(self, *entries: Entry) -> "Books":
        for settled in entries:
            self.ledger.settle(settled)
        assert self.ledger.flush(10)
        return self

    def change(self, statement: str, **values: Any) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            assert connection.execute(text(statement), values).rowcount == 1
        engine.dispose()

    def audit(self, keys: Keyring = KEYS, **period: Any) -> Audit:
        store = Store(self.url)
        found = audit(
            store.rows(period.get("since"), period.get("until"), period.get("privacy")), keys, DEFAULT_SCALE
        )
        store.close()
        return found


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = Books(tmp_path)
    yield made
    made.ledger.close(1)


def whys(found: Audit) -> dict[str, str]:
    assert found.count == len(found.violations)
    return {violation.call_id: violation.why for violation in found.violations}


# The proof.


def test_a_clean_month(books: Books) -> None:
    """Every row verifies, attempts are counted by class and zone, and what stayed in is told apart."""
    found = books.store(*MONTH).audit()
    assert (found.clean, found.violations) == (True, [])
    assert (found.rows, found.kept_in, found.refused) == (6, 1, 1)
    assert found.sent == {
        ("internal", "us"): 3,
        ("internal", "eu"): 1,
        ("restricted", "home"): 2,
    }


def test_a_call_that_was_lost_is_signed_too(tmp_path: Path) -> None:
    """Its process died before it settled: the row that then stands is signed by who adopts it."""
    books = Books(tmp_path)
    books.ledger.begin(begun("lost", attempts=1, reached=(rented("lost"),), backend="openai-main"))
    books.ledger.close(5)
    adopted = Books(tmp_path)
    assert adopted.ledger.flush(10)
    found = adopted.audit()
    assert (found.clean, found.rows, found.sent["internal", "us"]) == (True, 1, 1)
    adopted.ledger.close(5)


def test_periods_and_classes(books: Books) -> None:
    """The beginning is included, the end is not; a class leaves its own requests alone."""
    books.store(sent("a", started_ns=100), sent("b", HOME, started_ns=200, privacy="restricted"))
    assert [books.audit(since=a, until=b).rows for a, b in ((100, 200), (200, 300), (201, 300))] == [1, 1, 0]
    assert books.audit(privacy="restricted").sent == {("restricted", "home"): 1}


ABOVE = {
    "above its ceiling": (rented("x", privacy="restricted"), "above ceiling: restricted went to zone us"),
    "of a class that nobody knows": (rented("x", privacy="cosmic"), "above ceiling"),
    "to a ceiling that nobody knows": (rented("x", ceiling="cosmic"), "above ceiling"),
    "without a permit": (rented("x", permit=""), "permit missing: internal went to zone us"),
    "on another call's permit": (rented("x", permit="c1.1"), "permit missing"),
    "without a digest": (rented("x", digest=""), "permit missing"),
    "as another class": (rented("x", privacy="public"), "sent as public, but the request was internal"),
}


@pytest.mark.parametrize("how", ABOVE)
def test_what_left_wrongly_is_found(books: Books, how: str) -> None:
    """A true and signed record of a leak is a violation, with its call and the reason."""
    reach, why = ABOVE[how]
    changes = {"privacy": reach.privacy} if why.startswith("above") else {}
    found = books.store(*MONTH, sent("x", reach, **changes)).audit()
    assert (list(whys(found)), found.clean) == (["x"], False)
    assert whys(found)["x"].startswith(why)


def test_an_attempt_that_is_not_written_down(books: Books) -> None:
    """More attempts than the record tells of, or a backend that answered and is not among them."""
    books.store(sent("more", attempts=2), sent("other", backend="own"), entry("none"))
    assert set(whys(books.audit()).values()) == {"permit missing: an attempt is not written down"}
    assert books.audit().count == 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET privacy = 'public' WHERE call_id = 'c2'",
        "UPDATE entry SET zone = 'home' WHERE call_id = 'c2'",
        "UPDATE entry SET started_ns = started_ns + 1 WHERE call_id = 'c2'",
        "UPDATE entry SET findings = '{}' WHERE call_id = 'c2'",
        "UPDATE entry SET cost_nano = 0 WHERE call_id = 'c2'",
        "UPDATE entry SET stream = 0 WHERE call_id = 'c2'",
        "UPDATE entry SET reached = replace(reached, 'restricted', 'public') WHERE call_id = 'c2'",
        "UPDATE entry SET signature = 'ff' || substr(signature, 3) WHERE call_id = 'c2'",
    ],
)
def test_a_tampered_row_is_found(books: Books, statement: str) -> None:
    """Whatever is altered in the database afterwards, the signature does not fit it any more."""
    books.store(*MONTH).change(statement)
    found = books.audit()
    assert "signature wrong" in [violation.why for violation in found.violations if violation.call_id == "c2"]


def test_a_removed_permit_is_found(books: Books) -> None:
    """Taken out of the record in the database: the signature is wrong, and the attempt has no permit."""
    books.store(*MONTH).change("UPDATE entry SET reached = replace(reached, 'c1.1', '') WHERE call_id = 'c1'")
    assert [v.why for v in books.audit().violations] == [
        "signature wrong",
        "permit missing: internal went to zone us (backend openai-main)",
    ]


def test_a_removed_attempt_is_found(books: Books) -> None:
    """A record of no attempts, for a request that was answered."""
    books.store(*MONTH).change("UPDATE entry SET reached = '[]' WHERE call_id = 'c4'")
    assert {v.call_id for v in books.audit().violations} == {"c4"}
    books.change("UPDATE entry SET reached = 'nonsense' WHERE call_id = 'c4'")
    assert [v.why for v in books.audit().violations] == ["signature wrong", "its attempts cannot be read"]


def test_a_forged_row_is_found(books: Books) -> None:
    """A copy of a true row under another call, a row signed with a key of the forger's, one without any."""
    books.store(*MONTH)
    forger = Keyring(["forged-" + "2" * 40], "test")
    row = to_row(encode(sent("forged")))
    forger.sign(row)
    store = Store(books.url)
    store.insert_rows([row])
    store.insert([sent("bare")])
    store.close()
    names = ", ".join(COLUMNS[1:])
    books.change(
        f"INSERT INTO entry (call_id, {names}) SELECT 'copy', {names} FROM entry WHERE call_id = 'c2'"
    )
    found = whys(books.audit())
    assert found["copy"] == "signature wrong"
    assert found["forged"].startswith("signed with a key that is not known")
    assert found["bare"] == "unsigned"
    assert set(found) == {"copy", "forged", "bare"}


# Keys.


def test_a_new_key_leaves_old_rows_good(books: Books) -> None:
    """Rotation: the last key signs, those before it verify; without the old one its rows are unknown."""
    old = Keyring(["old-" + "0" * 40], "test")
    row = to_row(encode(sent("before")))
    old.sign(row)
    store = Store(books.url)
    books.store(sent("after"))
    store.insert_rows([row])
    store.close()
    assert books.audit().clean
    assert set(whys(books.audit(old))) == {"after"}
    assert set(whys(books.audit(Keyring(["new-" + "1" * 40], "test")))) == {"before"}


def test_the_key_file_is_made_once(tmp_path: Path) -> None:
    """Whichever worker comes first: all have the same key, and nobody else may read it."""
    rings: list[Keyring] = []
    start = threading.Barrier(8)

    def one() -> None:
        start.wait()
        rings.append(open_keyring(tmp_path / "state", "", {}))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [to_row(encode(sent("a"))) for _ in rings]
    for ring, row in zip(rings, rows, strict=True):
        ring.sign(row)
    assert [rings[0].fault(row) for row in rows] == [""] * 8
    assert os.listdir(tmp_path / "state") == [KEY_FILE]
    assert stat.S_IMODE((tmp_path / "state" / KEY_FILE).stat().st_mode) == 0o600


def test_keys_of_the_environment(tmp_path: Path) -> None:
    """Where a variable is named the file is neither made nor read."""
    ring = open_keyring(tmp_path, "AUDIT", {"AUDIT": f"{'a' * 40} {'b' * 40}"})
    row = to_row(encode(sent("a")))
    ring.sign(row)
    assert Keyring(["b" * 40], "test").fault(row) == ""
    assert list(tmp_path.iterdir()) == []


def test_keys_that_will_not_do(tmp_path: Path) -> None:
    """None, too short, readable by others, or not there for whoever only verifies: said at the start."""
    for environment in ({}, {"AUDIT": ""}, {"AUDIT": "short"}):
        with pytest.raises(ConfigError, match="AUDIT"):
            open_keyring(tmp_path, "AUDIT", environment)
    with pytest.raises(ConfigError, match="no audit key"):
        known_keyring(tmp_path, "", {})
    open_keyring(tmp_path, "", {})
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        known_keyring(tmp_path, "", {})


def test_keys_are_not_shown(tmp_path: Path) -> None:
    """Neither by a ring's own words nor by an error about a key."""
    assert "0000" not in repr(KEYS) + str(vars(KEYS).keys())
    with pytest.raises(ConfigError) as caught:
        Keyring(["very-secret"], "test")
    assert "very-secret" not in str(caught.value)


# What is signed.


def test_a_signature_stays_good() -> None:
    """Rows of years are verified by later versions: what is signed, and how, does not change."""
    row = to_row(encode(sent("c1")))
    KEYS.sign(row)
    assert row[COLUMNS.index("signed_by")] == "acba2bf4c76e"
    assert (
        row[COLUMNS.index("signature")] == "c7efb8b3910da9ff4be6c161d46c1b7397cc6e589b90bcd95265a473a655bbae"
    )
    assert KEYS.fault([*row, "a column that came later"]) == ""


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(
    model=texts,
    reason=texts,
    findings=st.dictionaries(texts, st.integers(0, 2**40), max_size=3),
    tags=st.lists(texts, max_size=3),
    number=st.integers(-(2**63), 2**63 - 1),
    took=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
)
def test_a_row_that_comes_back_is_the_one_that_was_signed(
    tmp_path_factory: pytest.TempPathFactory, flag: bool, number: int, took: float, **given_: Any
) -> None:
    """Whatever text and numbers it holds: SQLite gives back what was signed, bit for bit."""
    made = entry(
        "a",
        model_asked=given_["model"],
        reason=given_["reason"],
        findings=given_["findings"],
        tags=tuple(given_["tags"]),
        cost_nano=number,
        duration_ms=took,
        stream=flag,
        started_ns=STARTED_NS,
    )
    row = to_row(encode(made))
    KEYS.sign(row)
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('row')}/ledger.db")
    store.migrate()
    store.insert_rows([row])
    (back,) = store.rows(None, None)
    store.close()
    assert KEYS.fault(back) == ""
    altered = [*back]
    altered[COLUMNS.index("model_asked")] = f"{made.model_asked}x"
    assert KEYS.fault(altered) == "signature wrong"
    assert msgspec.json.encode(back) != msgspec.json.encode(altered)
