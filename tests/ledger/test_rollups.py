"""Roll-ups: what a report reads from them is what the entries say, at any time and after any death."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, text

from gateway.ledger import rollups
from gateway.ledger.rollups import DAY_NS, GRACE_NS, ROLLUP, ROLLUP_DAY, Roller
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy, spans_of, sums_query
from gateway.types import Entry, Outcome, Usage
from tests.ledger.conftest import OpenLedger
from tests.ledger.samples import STARTED_NS, entry

DAY = STARTED_NS // DAY_NS
ALL = list(GroupBy)


def on(day: int, i: int, **changes: Any) -> Entry:
    return entry(f"{day}-{i}", started_ns=STARTED_NS + day * DAY_NS + i, **changes)


def roll_all(store: Store, days: int = 40) -> list[int]:
    due = store.days_to_roll_up(STARTED_NS + days * DAY_NS + GRACE_NS)
    for day in due:
        store.roll_up(day)
    return due


def marked(store: Store) -> set[int]:
    with store._reading() as connection:
        return rollups.rolled_days(connection)


VARIED = [
    on(0, 0),
    on(0, 1, team="bank", key_id="key-2", tags=(), adapter="bank@0123"),
    on(0, 2, cost_nano=None),
    on(1, 0, outcome=Outcome.REFUSED, backend="", cost_nano=None, usage=Usage()),
    on(1, 1, outcome=Outcome.LOST, usage=Usage(input_tokens=7, estimated=True), cost_nano=3),
    on(1, 2, outcome=Outcome.CLIENT_CLOSED, privacy="public", zone="home", route="r", endpoint="embeddings"),
    on(2, 0, usage=Usage(input_tokens=9, cache_write_tokens=4, output_tokens=6, reasoning_tokens=5)),
]


def test_the_migration_makes_the_tables_that_queries_are_written_against(any_store: Store) -> None:
    """DDL and tables agree on names and nullability; the index is there."""
    inspector = inspect(any_store._engine)
    for table in (ROLLUP, ROLLUP_DAY):
        made = {(c["name"], c["nullable"]) for c in inspector.get_columns(table.name)}
        assert made == {(c.name, c.nullable) for c in table.columns}
    assert "rollup_by_day" in {i["name"] for i in inspector.get_indexes("rollup")}


def test_every_grouping_is_the_same_before_and_after(any_store: Store) -> None:
    """Each group alone, all of them together and none: entries and roll-ups give equal sums."""
    any_store.insert(VARIED)
    groupings: list[list[GroupBy]] = [[], ALL, *([group] for group in GroupBy)]
    before = [any_store.sums(group_by) for group_by in groupings]
    assert roll_all(any_store) == [DAY, DAY + 1, DAY + 2]
    with any_store.writing() as connection:
        connection.execute(text("DELETE FROM entry"))  # what is read now can only be the roll-ups
    assert [any_store.sums(group_by) for group_by in groupings] == before
    assert before[0][0].requests == len(VARIED)


def test_a_late_row_is_seen_at_once(any_store: Store) -> None:
    """Its day is read from entries until it is rolled up again; the other days stay as they are."""
    any_store.insert(VARIED)
    roll_all(any_store)
    any_store.insert([on(1, 9, cost_nano=5)])
    assert marked(any_store) == {DAY, DAY + 2}
    (total,) = any_store.sums([])
    assert total.requests == len(VARIED) + 1
    assert roll_all(any_store) == [DAY + 1]
    assert any_store.sums([]) == [total]


def test_periods_that_cut_days_are_exact(any_store: Store) -> None:
    """Whole days come from roll-ups, what is left at either side from entries; ends are exclusive."""
    any_store.insert([on(day, i) for day in range(4) for i in range(3)])
    roll_all(any_store)
    for since, until, expected in [
        (STARTED_NS + 1, None, 11),
        (STARTED_NS + 1, STARTED_NS + 3 * DAY_NS + 2, 10),
        (None, STARTED_NS + 2 * DAY_NS, 6),
        (STARTED_NS + DAY_NS + 1, STARTED_NS + DAY_NS + 2, 1),
        (STARTED_NS + DAY_NS, STARTED_NS + 2 * DAY_NS, 3),
        (STARTED_NS + 5 * DAY_NS, None, 0),
    ]:
        assert any_store.sums([], since, until)[0].requests == expected


def test_a_day_in_progress_is_left_alone(store: Store) -> None:
    """Today, and a day that has only just ended, are read from entries."""
    store.insert(VARIED)
    end_of_second = STARTED_NS + 2 * DAY_NS
    assert store.days_to_roll_up(end_of_second) == [DAY]
    assert store.days_to_roll_up(end_of_second + GRACE_NS) == [DAY, DAY + 1]


def test_rolling_up_again_changes_nothing(any_store: Store) -> None:
    """Twice is once; `anew` mends what somebody damaged."""
    any_store.insert(VARIED)
    roll_all(any_store)
    before = any_store.sums(ALL)
    assert not any_store.roll_up(DAY)
    with any_store.writing() as connection:
        connection.execute(text("UPDATE rollup SET requests = requests + 1"))
    assert any_store.sums(ALL) != before
    for day in range(DAY, DAY + 3):
        assert any_store.roll_up(day, anew=True)
    assert any_store.sums(ALL) == before


def test_groups_split_by_the_length_of_prompts(any_store: Store) -> None:
    """A bound must be exceeded, and the highest one counts; rolled days do not matter."""
    lengths = [10, 100, 101, 200, 201, 999]
    any_store.insert([on(0, i, usage=Usage(input_tokens=n)) for i, n in enumerate(lengths)])
    roll_all(any_store)
    found = any_store.sums([GroupBy.TEAM], prompt_bounds=[200, 100])
    assert [(s.above_tokens, s.requests, s.input_tokens) for s in found] == [
        (0, 2, 110),
        (100, 2, 301),
        (200, 2, 1200),
    ]


def test_rows_that_come_while_a_day_is_rolled_up_are_not_missed(any_store: Store) -> None:
    """Writers and rollers of one day at once: at no instant a report has less than what was committed."""
    any_store.insert([on(0, i) for i in range(50)])
    done = threading.Event()

    def roll() -> None:
        while not done.is_set():
            any_store.roll_up(DAY)

    rollers = [threading.Thread(target=roll) for _ in range(2)]
    for thread in rollers:
        thread.start()
    try:
        for i in range(50, 120):
            any_store.insert([on(0, i)])
            assert any_store.sums([])[0].requests == i + 1
    finally:
        done.set()
        for thread in rollers:
            thread.join()
    any_store.roll_up(DAY)
    assert marked(any_store) == {DAY}
    assert any_store.sums([])[0].requests == 120


ROLLING = """
import sys
from gateway.ledger.store import Store
store = Store(sys.argv[1])
print("rolling", flush=True)
while True:
    store.roll_up(int(sys.argv[2]), anew=True)
"""


def test_kill_9_leaves_nothing_wrong(store: Store, database: str) -> None:
    """A roller is killed in the midst of its work, again and again: sums stay what they were."""
    store.insert([on(0, i, team=f"team-{i % 400}") for i in range(2000)])
    before = store.sums(ALL)
    for i in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", ROLLING, database, str(DAY)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "rolling\n"
        time.sleep(0.02 + 0.013 * i)  # not to wait for anything: to kill it at another instant each time
        child.kill()
        child.wait()
        child.stdout.close()
        assert store.sums(ALL) == before
    store.roll_up(DAY)
    assert store.sums(ALL) == before


def test_the_ledgers_thread_rolls_up_and_ends_with_it(open_ledger: OpenLedger, store: Store) -> None:
    """Nobody has to ask: a day that is over is rolled up by the process that writes."""
    ledger = open_ledger()
    ledger.settle(on(0, 0))
    assert ledger.flush(20)
    rolled = threading.Event()

    class Seen:
        def days_to_roll_up(self, now_ns: int) -> list[int]:
            return store.days_to_roll_up(now_ns)

        def roll_up(self, day: int) -> bool:
            done = store.roll_up(day)
            rolled.set()
            return done

    roller = Roller(Seen(), lambda: ledger.ready, every_s=0.01)
    assert rolled.wait(20)
    assert roller.stop(20)
    assert marked(store) == {DAY}
    assert ledger.close()
    assert not [t for t in threading.enumerate() if t.name == "ledger-rollups"]


def test_a_database_that_is_away_does_not_end_the_thread(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, and rolls up once the database is back."""
    store.insert([on(0, 0)])
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    hasty = Store(f"sqlite:///{tmp_path}/ledger.db?timeout=0.01")
    roller = Roller(hasty, lambda: True, every_s=0.01)
    deadline = time.monotonic() + 20
    while "roll-ups of the ledger wait" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.005)
    other.rollback()
    other.close()
    while not marked(store) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert roller.stop(20)
    hasty.close()
    assert "locked" in caplog.text
    assert marked(store) == {DAY}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, DAY_NS - 1), st.sampled_from("ab")), max_size=12
    ),
    rolled=st.sets(st.integers(0, 5)),
    since=st.none() | st.integers(0, 6 * DAY_NS),
    length=st.none() | st.integers(0, 6 * DAY_NS),
)
def test_any_mixture_sums_like_the_entries(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, str]],
    rolled: set[int],
    since: int | None,
    length: int | None,
) -> None:
    """Whichever days are rolled up and wherever a period cuts: the sums are those of its entries."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    store.migrate()
    entries = [
        entry(f"{i}", started_ns=STARTED_NS + day * DAY_NS + ns, team=team)
        for i, (day, ns, team) in enumerate(rows)
    ]
    store.insert(entries)
    for day in rolled:
        store.roll_up(DAY + day)
    start = None if since is None else STARTED_NS + since
    end = None if length is None else (start or STARTED_NS) + length
    within = [e for e in entries if (start or 0) <= e.started_ns and (end is None or e.started_ns < end)]
    found = {s.keys[0]: s.requests for s in store.sums([GroupBy.TEAM], start, end)}
    assert found == {t: n for t in "ab" if (n := sum(e.team == t for e in within))}
    store.close()


def test_spans_join_days_that_follow_each_other() -> None:
    """So that a query names a month as one span."""
    assert spans_of([5, 3, 4, 8]) == [(3, 6), (8, 9)]
    assert spans_of([]) == []


def test_a_wholly_rolled_period_reads_no_entries() -> None:
    """The part over entries has no span to look at."""
    query = sums_query([], (DAY * DAY_NS, (DAY + 30) * DAY_NS), [(DAY - 5, DAY + 40)])
    sql = str(query.compile(compile_kwargs={"literal_binds": True}))
    assert "entry.started_ns >=" not in sql
    assert f"rollup.day >= {DAY} AND rollup.day < {DAY + 30}" in sql
