"""`gateway.control.store` and `audit`: one transaction a change, one chain of all changes."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from gateway.control.audit import GENESIS
from gateway.control.records import Kind
from gateway.control.store import Author, ControlStore, Transaction
from gateway.errors import ApiError, BadRequest

ANN = Author("ann", "because")


def made(store: ControlStore, id: str, **body: Any) -> int:
    """The revision that making a team made."""

    def create(changes: Transaction) -> dict[str, Any]:
        changes.create(Kind.TEAM, id, body)
        return {}

    return store.once(ANN, None, create)[1]


def changed(store: ControlStore, id: str, **body: Any) -> None:
    def change(changes: Transaction) -> dict[str, Any]:
        changes.replace(changes.get(Kind.TEAM, id), body)
        return {}

    store.once(ANN, None, change)


def removed(store: ControlStore, id: str) -> None:
    def remove(changes: Transaction) -> dict[str, Any]:
        changes.remove(changes.get(Kind.TEAM, id))
        return {}

    store.once(ANN, None, remove)


def test_migrations_are_applied_once(store: ControlStore) -> None:
    """Another process finds the tables there."""
    assert store.migrate() == ()
    assert store.revision() == 0


def test_the_log_says_who_when_why_and_what(store: ControlStore) -> None:
    """Each change is one row, in order, with what was before and after it."""
    made(store, "a", name="A")
    changed(store, "a", name="B")
    removed(store, "a")
    third, second, first = store.log(before=99, limit=9)
    assert [e.action for e in (first, second, third)] == ["team.create", "team.change", "team.delete"]
    assert (second.actor, second.reason, second.target) == ("ann", "because", "a")
    assert (second.before, second.after) == ('{"name":"A"}', '{"name":"B"}')
    assert (first.before, third.after, third.digest) == ("null", "null", "")
    assert (first.previous, second.previous) == (GENESIS, first.hash)
    assert [e.seq for e in store.log(before=3, limit=1, actor="ann")] == [2]
    assert store.log(before=99, limit=9, actor="bob") == []


def test_secrets_are_masked(store: ControlStore) -> None:
    """The log holds no hash of a key and no term of a dictionary."""

    def create(changes: Transaction) -> dict[str, Any]:
        old = [{"sha256": "0ld5ecret", "until": 1}]
        changes.create(Kind.KEY, "k", {"team": "t", "sha256": "5ecret", "former": old})
        changes.create(Kind.DICTIONARY, "d", {"terms": ["Projekt Pflaume"]})
        return {}

    store.once(ANN, None, create)
    assert not any(word in str(store.log(before=99, limit=9)) for word in ("5ecret", "Pflaume"))


def test_what_raises_leaves_nothing(store: ControlStore) -> None:
    """Neither record nor row of a change that failed half-way."""

    def fail(changes: Transaction) -> dict[str, Any]:
        changes.create(Kind.TEAM, "a", {})
        raise BadRequest("no")

    with pytest.raises(BadRequest):
        store.once(ANN, None, fail)
    assert (store.revision(), store.find(Kind.TEAM, "a")) == (0, None)


def test_what_json_cannot_hold_is_refused(store: ControlStore) -> None:
    """A lone surrogate is the client's fault, not a crash."""
    with pytest.raises(BadRequest):
        made(store, "a", name="\ud800")


def test_a_version_that_moved(store: ControlStore) -> None:
    """Who names an older version is refused; one that was deleted and made again is another one."""
    first = made(store, "a")
    removed(store, "a")
    made(store, "a")
    with pytest.raises(ApiError) as caught:
        store.once(ANN, None, lambda c: {"x": c.replace(c.get(Kind.TEAM, "a"), {}, f'"{first}"')})
    assert caught.value.status == 412


def test_writers_at_once_make_one_chain(database: str, store: ControlStore) -> None:
    """Threads with stores of their own, as processes have: no number is given twice, the chain holds."""

    def write(name: str) -> None:
        own = ControlStore(database)
        for number in range(10):
            made(own, f"{name}{number}")
        own.close()

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    proof = store.prove()
    assert (proof.intact, proof.rows, store.revision()) == (True, 40, 40)


def sql(statement: str) -> Callable[[str], None]:
    def run(database: str) -> None:
        engine = create_engine(database)
        with engine.begin() as connection:
            connection.execute(text(statement))
        engine.dispose()

    return run


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (sql("UPDATE control_audit SET actor = 'bob' WHERE seq = 2"), "row 2 was changed"),
        (sql("UPDATE control_audit SET at = at - 60 WHERE seq = 1"), "row 1 was changed"),
        (sql("DELETE FROM control_audit WHERE seq = 2"), "row 2 is missing"),
        (sql("DELETE FROM control_audit WHERE seq = 3"), "changed past the log"),
        (sql("UPDATE control_audit SET seq = 9 WHERE seq = 3"), "row 3 is missing"),
        (sql("UPDATE control_record SET body = '{}' WHERE id = 'a'"), "'a' was changed past the log"),
        (sql("DELETE FROM control_record WHERE id = 'b'"), "'b' was changed past the log"),
        (sql("INSERT INTO control_record VALUES ('team', 'x', 1, '', '{}', 1, 1)"), "'x' was changed past"),
    ],
)
def test_tampering_shows(
    store: ControlStore, database: str, tamper: Callable[[str], None], problem: str
) -> None:
    """Whatever somebody with access to the database changes past this program is found and named."""
    made(store, "a", name="A")
    made(store, "b")
    changed(store, "a", name="B")
    assert store.prove().intact
    tamper(database)
    proof = store.prove()
    assert not proof.intact
    assert problem in proof.problem


def test_an_end_that_was_cut_off(store: ControlStore, database: str) -> None:
    """The newest rows and their records taken out together: found by who kept the head's hash."""
    made(store, "a")
    before = store.prove().head
    made(store, "b")
    head = store.prove().head
    assert store.prove(before).intact
    sql("DELETE FROM control_audit WHERE seq = 2")(database)
    sql("DELETE FROM control_record WHERE id = 'b'")(database)
    assert store.prove().intact
    assert "cut off" in store.prove(head).problem
