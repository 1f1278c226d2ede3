"""`gateway.control.follow`: what a process knows, and what it does while the database is away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control.follow import Follower
from gateway.control.state import ControlState
from gateway.control.store import ControlStore
from tests.control.test_store import made, sql
from tests.support.waiting import until


class Applied:
    """Keeps the states that it is given; says of each what it is told to."""

    def __init__(self) -> None:
        self.states: list[ControlState] = []
        self.faults: list[str] = []

    def __call__(self, state: ControlState) -> list[str]:
        self.states.append(state)
        return self.faults


@pytest.fixture
def applied() -> Applied:
    return Applied()


@pytest.fixture
def follower(database: str, applied: Applied) -> Iterator[Follower]:
    follower = Follower(ControlStore(database), applied, poll_s=0.02)
    follower.start()
    yield follower
    follower.stop()


def test_the_first_state(follower: Follower, applied: Applied) -> None:
    """An empty database is a state too: it is read once, and not again while nothing changes."""
    assert follower.reached(0, 10)
    assert [s.revision for s in applied.states] == [0]
    assert follower.loaded


def test_a_change_elsewhere(follower: Follower, applied: Applied, store: ControlStore) -> None:
    """What another process wrote arrives whole."""
    revision = made(store, "a", name="A")
    assert follower.reached(revision, 10)
    assert applied.states[-1].teams["a"].name == "A"
    assert follower.status().revision == revision


def test_a_state_that_cannot_be_used_is_reported(
    follower: Follower, applied: Applied, store: ControlStore
) -> None:
    """Faults are in the status until a later state has none."""
    applied.faults = ["policy x is unsafe"]
    assert follower.reached(made(store, "a"), 10)
    assert follower.status().faults == ("policy x is unsafe",)
    applied.faults = []
    assert follower.reached(made(store, "b"), 10)
    assert follower.status().faults == ()


def test_a_record_of_a_newer_version(follower: Follower, applied: Applied, store: ControlStore) -> None:
    """A field that this program does not know may be a restriction: the state before stays."""
    assert follower.reached(made(store, "a"), 10)
    count = len(applied.states)
    assert not follower.reached(made(store, "b", only_on_sundays=True), 0.3)
    assert len(applied.states) == count


async def test_a_database_that_fails(
    follower: Follower, applied: Applied, database: str, store: ControlStore
) -> None:
    """The last state stays, its age grows and tells; when the database is back the process catches up."""
    assert follower.reached(made(store, "a"), 10)
    sql("ALTER TABLE control_audit RENAME TO away")(database)
    await until(lambda: follower.age_s() > 0.3)
    assert applied.states[-1].teams.keys() == {"a"}
    sql("ALTER TABLE away RENAME TO control_audit")(database)
    await until(lambda: follower.age_s() < 0.2)
    assert follower.reached(made(store, "b"), 10)


async def test_a_start_without_a_database(tmp_path: Path, applied: Applied) -> None:
    """Nothing is in force before the first state; that comes as soon as the database does."""
    folder = tmp_path / "later"
    follower = Follower(ControlStore(f"sqlite:///{folder}/control.db"), applied, poll_s=0.02)
    follower.start()
    try:
        assert not follower.reached(0, 0.2)
        assert (follower.loaded, follower.status().age_s, applied.states) == (False, None, [])
        folder.mkdir()
        await until(lambda: follower.loaded)
    finally:
        follower.stop()
