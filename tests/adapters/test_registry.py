"""The registry: a release is registered once and goes through its states; aliases move between releases."""

from itertools import count, pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine

from adapters.errors import (
    AliasMoved,
    ArtifactTampered,
    NoPrevious,
    NotServable,
    UnknownAlias,
    UnknownRelease,
)
from adapters.manifest import Manifest
from adapters.registry import Registry
from adapters.states import DROPPABLE, TRANSITIONS, State
from adapters.tables import create_tables
from tests.support.adapters import read_manifest
from tests.support.artifacts import make_artifact, write_manifest

WAY_UP = (State.LOADING, State.PROBING, State.STABLE)


def some_manifest(tmp_path: Path, seed: int = 0, name: str = "desk") -> Manifest:
    return read_manifest(make_artifact(tmp_path / f"{name}-{seed}", name=name, seed=seed))


def stable(registry: Registry, manifest: Manifest) -> str:
    registry.register(manifest)
    for state in WAY_UP:
        registry.advance(manifest.release, state)
    return manifest.release


@pytest.fixture
def releases(registry: Registry, tmp_path: Path) -> tuple[str, str, str]:
    one, two, three = (stable(registry, some_manifest(tmp_path, seed)) for seed in range(3))
    return one, two, three


def test_tables_may_be_created_twice(engine: Engine) -> None:
    """The gateway's migrations and a tool may both ask for the tables."""
    create_tables(engine)


def test_registering_again_is_no_change(registry: Registry, tmp_path: Path) -> None:
    """A second registration neither resets the state nor makes a second version."""
    manifest = some_manifest(tmp_path)
    stable(registry, manifest)
    assert registry.register(manifest).state is State.STABLE
    assert [version.release for version in registry.versions("desk")] == [manifest.release]
    assert registry.versions("other") == ()


def test_another_manifest_under_the_same_release_is_refused(registry: Registry, tmp_path: Path) -> None:
    """The digest does not cover evaluation and probes; the registry holds them fast."""
    folder = make_artifact(tmp_path / "desk")
    registry.register(read_manifest(folder))
    with pytest.raises(ArtifactTampered, match="not the one that was registered"):
        registry.register(write_manifest(folder, licence="another"))


@pytest.mark.parametrize(("before", "after"), [(a, b) for a in State for b in State])
def test_states_follow_the_table(before: State, after: State, registry: Registry, tmp_path: Path) -> None:
    """Every pair of states: a step of the table is taken, any other is refused and changes nothing."""
    manifest = some_manifest(tmp_path)
    registry.register(manifest)
    for step in path_to(before):
        registry.advance(manifest.release, step)
    if after in TRANSITIONS[before]:
        registry.advance(manifest.release, after, "because")
        assert registry.version(manifest.release).state is after
        assert registry.version(manifest.release).reason == "because"
    else:
        with pytest.raises(NotServable):
            registry.advance(manifest.release, after)
        assert registry.version(manifest.release).state is before


def path_to(state: State) -> tuple[State, ...]:
    ways = {
        State.REGISTERED: (),
        State.FAILED: (State.LOADING, State.FAILED),
        State.SHADOW: (State.LOADING, State.PROBING, State.SHADOW),
        State.CANARY: (State.LOADING, State.PROBING, State.CANARY),
        State.ROLLED_BACK: (State.LOADING, State.PROBING, State.CANARY, State.ROLLED_BACK),
        State.RETIRED: (*WAY_UP, State.RETIRED),
    }
    return ways[state] if state in ways else WAY_UP[: WAY_UP.index(state) + 1]


def test_the_table_is_whole() -> None:
    """Every state has its row and can be reached; no state is a dead end; work in progress is not at rest."""
    assert set(TRANSITIONS) == set(State)
    assert set().union(*TRANSITIONS.values()) == set(State) - {State.REGISTERED}
    assert all(TRANSITIONS.values())
    kept = {State.LOADING, State.PROBING, State.SHADOW, State.CANARY, State.STABLE, State.ROLLED_BACK}
    assert set(State) - DROPPABLE == kept
    for state in State:
        assert all(b in TRANSITIONS[a] for a, b in pairwise((State.REGISTERED, *path_to(state))))


def test_promotion_moves_an_alias_and_remembers(registry: Registry, releases: tuple[str, str, str]) -> None:
    """An alias points at what was promoted last and remembers the one before; both are wanted on replicas."""
    one, two, three = releases
    for release in releases:
        registry.promote(release, by="ann")
    alias = registry.alias("desk")
    assert (alias.alias, alias.release, alias.previous, alias.moved_by) == ("desk@stable", three, two, "ann")
    assert registry.wanted() == {two, three}
    moves = [(move.from_release, move.to_release) for move in registry.history("desk")]
    assert moves == [(None, one), (one, two), (two, three)]


def test_promoting_what_is_there_is_no_move(registry: Registry, releases: tuple[str, str, str]) -> None:
    """Promoting twice does not lose the release to go back to, nor fill the history."""
    one, two, _ = releases
    for release in (one, two, two):
        registry.promote(release, by="ann")
    assert registry.alias("desk").previous == one
    assert len(registry.history("desk")) == 2


def test_rollback_swaps(registry: Registry, releases: tuple[str, str, str]) -> None:
    """A rollback points back, a second one forward again: no release is lost by it."""
    one, two, _ = releases
    registry.promote(one, by="ann")
    registry.promote(two, by="ann")
    assert registry.rollback("desk", by="bob").release == one
    assert registry.alias("desk").previous == two
    assert registry.rollback("desk", by="bob").release == two
    assert registry.history("desk")[-1].moved_by == "bob"


def test_aliases_are_apart(registry: Registry, releases: tuple[str, str, str]) -> None:
    """Aliases of one adapter, and adapters of other names, do not touch each other."""
    one, two, _ = releases
    registry.promote(one, by="ann")
    registry.promote(two, "next", by="ann")
    assert {name: alias.release for name, alias in registry.aliases().items()} == {
        "desk@stable": one,
        "desk@next": two,
    }
    assert registry.wanted() == {one, two}


@pytest.mark.parametrize("state", [state for state in State if state is not State.STABLE])
def test_only_stable_releases_are_promoted(state: State, registry: Registry, tmp_path: Path) -> None:
    """An alias cannot be pointed at what has not passed its rollout, whatever the reason."""
    manifest = some_manifest(tmp_path)
    registry.register(manifest)
    for step in path_to(state):
        registry.advance(manifest.release, step)
    with pytest.raises(NotServable, match=state.value):
        registry.promote(manifest.release, by="ann")
    assert registry.aliases() == {}


def test_concluding_is_one_commit(registry: Registry, tmp_path: Path) -> None:
    """A rollout's end makes the release stable and moves the alias; from loading it does neither."""
    manifest = some_manifest(tmp_path)
    registry.register(manifest)
    registry.advance(manifest.release, State.LOADING)
    with pytest.raises(NotServable):
        registry.conclude(manifest.release, by="ann")
    registry.advance(manifest.release, State.PROBING)
    assert registry.conclude(manifest.release, by="ann").release == manifest.release
    assert registry.version(manifest.release).state is State.STABLE


def test_what_is_not_there(registry: Registry, releases: tuple[str, str, str]) -> None:
    """Unknown releases and aliases, and an alias without a past, are told apart."""
    with pytest.raises(UnknownRelease):
        registry.promote("desk@" + "0" * 12, by="ann")
    with pytest.raises(UnknownRelease):
        registry.version("desk")
    with pytest.raises(UnknownAlias):
        registry.rollback("desk", by="ann")
    registry.promote(releases[0], by="ann")
    with pytest.raises(NoPrevious):
        registry.rollback("desk", by="ann")


@pytest.mark.parametrize("alias", ["", "UP", "a/b", "0" * 12, "stable\n"])
def test_names_that_cannot_be_aliases(alias: str, registry: Registry, releases: tuple[str, str, str]) -> None:
    """An alias never reads like a release, nor like a path."""
    with pytest.raises(ValueError, match="cannot be the name of an alias"):
        registry.promote(releases[0], alias, by="ann")


def test_of_two_moves_at_once_one_wins(engine: Engine, releases: tuple[str, str, str]) -> None:
    """Another gateway moves the alias between our reading and our writing: we are told, it stays."""
    one, two, three = releases
    ours, theirs = Registry(engine), Registry(engine)
    ours.promote(one, by="ann")
    ticks = count(1)

    def they_are_quicker() -> int:
        theirs.promote(two, by="bob")
        return next(ticks)

    racing = Registry(engine, clock_ns=they_are_quicker)  # the clock is read between the two
    with pytest.raises(AliasMoved):
        racing.promote(three, by="ann")
    assert ours.alias("desk").release == two
    assert [move.to_release for move in ours.history("desk")] == [one, two]


def test_of_two_first_moves_one_wins(engine: Engine, releases: tuple[str, str, str]) -> None:
    """The same for an alias that did not exist."""
    one, two, _ = releases
    theirs = Registry(engine)

    def they_are_quicker() -> int:
        if not theirs.aliases():
            theirs.promote(two, by="bob")
        return 1

    with pytest.raises(AliasMoved):
        Registry(engine, clock_ns=they_are_quicker).promote(one, by="ann")
    assert theirs.alias("desk").release == two
