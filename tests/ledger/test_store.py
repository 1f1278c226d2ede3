"""The database: schema, rows, idempotence, errors."""

import sqlite3
import threading
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import create_engine, inspect

from gateway.errors import ConfigError
from gateway.ledger import migrations
from gateway.ledger.store import RowRefused, Store, StoreUnavailable
from gateway.ledger.sums import GroupBy
from gateway.ledger.tables import COLUMNS, ENTRY, SCHEMA_VERSION, SESSION, encode, to_row
from gateway.types import Entry, Outcome, Usage
from router_policies.types import ErrorClass
from tests.ledger.samples import STARTED_NS, entry


def test_migrations_make_the_tables_that_queries_are_written_against(store: Store, database: str) -> None:
    """DDL and SQLModel agree on names, order, nullability and indexes."""
    engine = create_engine(database)
    inspector = inspect(engine)
    for table in (ENTRY, SCHEMA_VERSION, SESSION):
        made = [(c["name"], c["nullable"]) for c in inspector.get_columns(table.name)]
        assert made == [(c.name, c.nullable) for c in table.columns]
    assert {i["name"] for i in inspector.get_indexes("entry")} == {i.name for i in ENTRY.indexes}
    engine.dispose()


def test_every_field_of_an_entry_has_a_column() -> None:
    """A field that is added to Entry or Usage cannot be forgotten here."""
    fields = {*Entry.__struct_fields__, *Usage.__struct_fields__} - {"usage"}
    assert fields == set(ENTRY.columns.keys())
    assert len(to_row(encode(entry("a")))) == len(ENTRY.columns)


def test_migrating_is_idempotent_also_from_many_threads_at_once(database: str) -> None:
    """Each migration is applied exactly once, whoever comes first."""
    applied: list[tuple[int, ...]] = []
    start = threading.Barrier(4)

    def one() -> None:
        store = Store(database)
        start.wait()
        applied.append(store.migrate())
        store.close()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [(), (), (), tuple(version for version, _ in migrations.MIGRATIONS)]


def test_an_older_database_keeps_its_rows(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first schema to the newest: the rows stay, and a call in them is still stored once."""
    store = Store(database)
    monkeypatch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
    assert store.migrate() == (1,)
    first = to_row(encode(entry("a", cost_nano=1)))[: COLUMNS.index("cause")]
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute(f"INSERT INTO entry VALUES ({', '.join('?' * len(first))})", first)
    connection.close()
    monkeypatch.undo()
    assert store.migrate() == tuple(version for version, _ in migrations.MIGRATIONS[1:])
    assert store.insert([entry("a", cost_nano=2), entry("b")]) == 1
    assert {e.call_id: e.cost_nano for e in store.last(9)} == {"a": 1, "b": 150_000}
    assert store.last(9)[0] == entry("a", cost_nano=1)  # what came later has its default
    store.close()


def test_a_database_from_the_future_is_refused(store: Store, tmp_path: Path) -> None:
    """An older program does not write into a newer schema."""
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("INSERT INTO schema_version VALUES (999, 'later')")
    connection.close()
    with pytest.raises(ConfigError, match="version 999"):
        store.migrate()


def test_entries_come_back_as_they_went_in(store: Store) -> None:
    """Every field survives: enums, tuples, None, the usage."""
    whole = entry(
        "a",
        error_class=ErrorClass.TIMEOUT,
        outcome=Outcome.INTERRUPTED,
        usage=Usage(
            input_tokens=5,
            cached_input_tokens=2,
            cache_write_tokens=1,
            output_tokens=4,
            reasoning_tokens=3,
            cache_write_1h_tokens=1,
            audio_input_tokens=1,
            image_input_tokens=1,
            audio_output_tokens=1,
            image_output_tokens=1,
            service_tier="flex",
        ),
        corrects="other",
        resolves=3,
        recorded_ns=9,
    )
    bare = entry("b", started_ns=STARTED_NS + 1, cost_nano=None, first_byte_ms=None, tags=(), findings={})
    assert store.insert([whole, bare]) == 2
    assert store.last(5) == [bare, whole]
    assert store.last(1) == [bare]


def test_a_call_is_stored_once(store: Store) -> None:
    """A second row of one call changes nothing, within a batch and across batches."""
    assert store.insert([entry("a", cost_nano=1), entry("a", cost_nano=2)]) == 1
    assert store.insert([entry("a", cost_nano=3), entry("b")]) == 1
    assert {e.call_id: e.cost_nano for e in store.last(9)} == {"a": 1, "b": 150_000}


def test_a_row_that_cannot_be_stored_leaves_the_others_out_too(store: Store) -> None:
    """A batch is all or nothing, so that the caller can tell what is in."""
    with pytest.raises(RowRefused):
        store.insert([entry("a"), entry("b", usage=Usage(input_tokens=2**70))])
    assert store.last(9) == []


def test_nul_characters_do_not_reach_the_database(store: Store) -> None:
    """PostgreSQL cannot hold them in text; a client may put them into a model's name."""
    store.insert([entry("a", model_asked="x\x00y")])
    assert store.last(1)[0].model_asked == "x\ufffdy"


def test_sums_have_inclusive_starts_and_exclusive_ends(store: Store) -> None:
    """An entry at a period's end belongs to the next period."""
    store.insert([entry("a", started_ns=100), entry("b", started_ns=200)])
    assert [store.sums([], a, b)[0].requests for a, b in ((100, 200), (200, 300), (None, None))] == [1, 1, 2]
    assert store.sums([GroupBy.TEAM], 300, 400) == []


def test_a_locked_database_is_unavailable_and_the_error_shows_no_values(tmp_path: Path) -> None:
    """Contention is an error that may pass, in words without the row."""
    store = Store(f"sqlite:///{tmp_path}/ledger.db?timeout=0.01")
    store.migrate()
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="locked") as caught:
        store.insert([entry("a")])
    assert "search" not in str(caught.value)
    other.close()
    store.close()


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:"])
def test_urls_that_cannot_work_fail_early(url: str) -> None:
    """An operator sees it at start, not in the first lost row."""
    with pytest.raises(ConfigError, match="ledger database"):
        Store(url)


def test_sums_add_up(store: Store) -> None:
    """Each counter counts what its name says."""
    store.insert(
        [
            entry("ok"),
            entry("refused", outcome=Outcome.REFUSED, backend="", cost_nano=None, usage=Usage()),
            entry("lost", outcome=Outcome.LOST, cost_nano=None),
            entry("failed", outcome=Outcome.FAILED, usage=Usage(estimated=True), cost_nano=0),
            entry("gone", outcome=Outcome.CLIENT_CLOSED, cost_nano=7),
        ]
    )
    (sums,) = store.sums([GroupBy.TEAM, GroupBy.DAY])
    assert msgspec.structs.asdict(sums) == {
        "keys": ("search", 20454),
        "above_tokens": 0,
        "requests": 5,
        "refused": 1,
        "failed": 2,
        "estimated": 1,
        "unknown_price": 1,
        "input_tokens": 3000,
        "cached_input_tokens": 1200,
        "cache_write_tokens": 0,
        "output_tokens": 150,
        "reasoning_tokens": 0,
        "cache_write_1h_tokens": 0,
        "audio_input_tokens": 0,
        "image_input_tokens": 0,
        "audio_output_tokens": 0,
        "image_output_tokens": 0,
        "cost_nano": 150_007,
    }
