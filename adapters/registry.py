"""Versions and aliases in the database: what exists, how far each release is, and where each alias points.

Each method is one unit of work and one commit, and blocks for as long as the database takes: call it in a
thread from an event loop. An alias and a state are changed by compare-and-set, so that of two gateways that
change one at the same time only one succeeds, on any database.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import CursorResult, Engine, delete, insert, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from adapters import lineage, trials
from adapters.errors import (
    AliasMoved,
    ArtifactTampered,
    NoPrevious,
    NotServable,
    UnknownAlias,
    UnknownRelease,
)
from adapters.lineage import Seen, Touched
from adapters.manifest import Manifest
from adapters.names import PREVIOUS, STABLE, alias_of, split_release
from adapters.states import STAGES, TRANSITIONS, State
from adapters.tables import AdapterAlias, AdapterVersion, AliasMove
from adapters.trials import Trial


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A registered release and how far it is. `reason` says why it failed, when it did."""

    release: str
    name: str
    base: str
    state: State
    reason: str
    registered_ns: int


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """Where an alias points, where it pointed before, and who moved it when (Unix time)."""

    alias: str
    release: str
    previous: str | None
    moved_ns: int
    moved_by: str


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an alias's history."""

    alias: str
    from_release: str | None
    to_release: str
    moved_ns: int
    moved_by: str


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet should serve, read as one."""

    aliases: Mapping[str, Alias] = {}  # by full name, without those of blocked releases
    trials: tuple[Trial, ...] = ()  # canaries under way
    probing: frozenset[str] = frozenset()  # that a rollout is bringing up: aliases may move to them soon
    blocked: frozenset[str] = frozenset()  # that must not be served

    @property
    def needed(self) -> frozenset[str]:
        """The releases that replicas should serve."""
        return wanted(self.aliases)


class Registry:
    """Over an engine whose database has the tables of `adapters.tables`."""

    def __init__(self, engine: Engine, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._engine, self._clock_ns = engine, clock_ns

    def register(self, manifest: Manifest) -> Version:
        """Make a release known. Again is no change; ArtifactTampered if it had another manifest before.

        The digest in a release's name covers weights and base. Its evaluation and probes are held fast here.
        """
        text = msgspec.json.encode(manifest, order="deterministic").decode()
        row = AdapterVersion(
            release=manifest.release,
            name=manifest.name,
            base=manifest.base.name,
            state=State.REGISTERED.value,
            manifest=text,
            registered_ns=self._clock_ns(),
        )
        with Session(self._engine) as session:
            try:
                session.add(row)
                session.commit()
            except IntegrityError:  # it is known already
                session.rollback()
            known = _known(session, manifest.release)
            if known.manifest != text:
                raise ArtifactTampered(manifest.release, ["its manifest is not the one that was registered"])
            version = _version(known)
            try:
                lineage.write_rows(session, manifest.release, manifest.dataset)
                session.commit()
            except IntegrityError:  # another gateway wrote the same rows at the same time
                session.rollback()
            return version

    def version(self, release: str) -> Version:
        """Raises UnknownRelease."""
        with Session(self._engine) as session:
            return _version(_known(session, release))

    def versions(self, name: str | None = None) -> tuple[Version, ...]:
        """All releases, or those of one adapter, oldest first."""
        query = select(AdapterVersion).order_by(
            col(AdapterVersion.registered_ns), col(AdapterVersion.release)
        )
        if name is not None:
            query = query.where(AdapterVersion.name == name)
        with Session(self._engine) as session:
            return tuple(_version(row) for row in session.exec(query))

    def advance(self, release: str, state: State, reason: str = "") -> None:
        """Take one step of the state table. NotServable when it has none from where the release is."""
        with Session(self._engine) as session:
            _advance(session, release, state, reason)
            session.commit()

    def alias(self, name: str, alias: str = STABLE) -> Alias:
        """Raises UnknownAlias."""
        full = alias_of(name, alias)
        with Session(self._engine) as session:
            row = session.get(AdapterAlias, full)
            if row is None:
                raise UnknownAlias(full)
            return _alias(row)

    def aliases(self) -> dict[str, Alias]:
        """All aliases by their full names, `name@stable`."""
        with Session(self._engine) as session:
            return {row.alias: _alias(row) for row in session.exec(select(AdapterAlias))}

    def wanted(self) -> frozenset[str]:
        """The releases that replicas should serve: those behind aliases, and those to roll back to."""
        return self.desired().needed

    def desired(self) -> Desired:
        """What the fleet should serve now. A blocked release is behind no alias and nobody's previous one."""
        probing = select(AdapterVersion.release).where(AdapterVersion.state == State.PROBING.value)
        with Session(self._engine) as session:
            blocked = lineage.blocked(session)
            rows = {row.alias: _alias(row) for row in session.exec(select(AdapterAlias))}
            return Desired(
                aliases={name: kept for name, row in rows.items() if (kept := _without(row, blocked))},
                trials=tuple(
                    msgspec.structs.replace(one, numbers={})  # which change all the time
                    for one in trials.under_way(session)
                    if one.release not in blocked
                ),
                probing=frozenset(session.exec(probing)) - blocked,
                blocked=blocked,
            )

    def history(self, name: str, alias: str = STABLE) -> tuple[Move, ...]:
        """Every move of an alias, oldest first."""
        query = select(AliasMove).where(AliasMove.alias == alias_of(name, alias)).order_by(col(AliasMove.id))
        with Session(self._engine) as session:
            return tuple(
                Move(
                    alias=row.alias,
                    from_release=row.from_release,
                    to_release=row.to_release,
                    moved_ns=row.moved_ns,
                    moved_by=row.moved_by,
                )
                for row in session.exec(query)
            )

    def promote(self, release: str, alias: str = STABLE, *, by: str) -> Alias:
        """Point an alias of the release's adapter at it. Pointing it where it points is no change.

        Raises UnknownRelease, NotServable (it has not passed its rollout) or AliasMoved.
        """
        with Session(self._engine) as session:
            moved = self._promote(session, release, alias, by)
            session.commit()
            return moved

    def conclude(
        self, release: str, alias: str = STABLE, *, by: str, stage: State = State.STABLE, weight: float = 0.0
    ) -> Alias:
        """A release enters a stage, leaves the one before, and an alias points at it, in one commit.

        In between, a stable release that no alias needs would look as if it could be unloaded. As a canary it
        gets `weight`, a share of its adapter's traffic in (0, 1), from now on. Raises UnknownRelease,
        NotServable or AliasMoved.
        """
        with Session(self._engine) as session:
            before = State(_known(session, release).state)
            if before is not stage:
                _advance(session, release, stage, "")
                if stage is State.CANARY:
                    self._begin_trial(session, release, weight, by)
                self._leave(session, release, before, trials.PROMOTED, f"to {stage} by {by}")
            moved = self._promote(session, release, alias if stage is State.STABLE else STAGES[stage], by)
            session.commit()
            return moved

    def withdraw(self, release: str, reason: str) -> None:
        """End a shadow or canary: it is rolled back. Raises UnknownRelease or NotServable."""
        with Session(self._engine) as session:
            before = State(_known(session, release).state)
            if before not in (State.SHADOW, State.CANARY):
                raise NotServable(release, f"it is {before}, neither shadow nor canary; roll its alias back")
            _advance(session, release, State.ROLLED_BACK, reason)
            self._leave(session, release, before, trials.ROLLED_BACK, reason)
            session.commit()

    def rollback(self, name: str, alias: str = STABLE, *, by: str) -> Alias:
        """Point an alias back at its previous release, and make the present one the previous.

        Raises UnknownAlias, NoPrevious or AliasMoved.
        """
        full = alias_of(name, alias)
        with Session(self._engine) as session:
            row = session.get(AdapterAlias, full)
            if row is None:
                raise UnknownAlias(full)
            if row.previous is None:
                raise NoPrevious(full)
            left, back = row.release, row.previous
            _refuse_blocked(session, back)
            moved = self._move(session, full, row, back, by)
            if alias == STABLE:
                _settle(session, left, State.ROLLED_BACK, f"{full} was rolled back by {by}")
                _settle(session, back, State.STABLE, "")
            session.commit()
            return moved

    def trials(self, name: str | None = None) -> tuple[Trial, ...]:
        """Every canary there ever was, or those of one adapter, oldest first."""
        with Session(self._engine) as session:
            return trials.of(session, name)

    def note_trial(self, trial: int, numbers: dict[str, Any]) -> None:
        """Keep the numbers of a canary's test that goes on."""
        with Session(self._engine) as session:
            trials.note(session, trial, numbers)
            session.commit()

    def seen_by(self, release: str) -> tuple[Seen, ...]:
        """The rows that a release saw. Raises UnknownRelease."""
        with Session(self._engine) as session:
            _known(session, release)
            return lineage.seen_by(session, release)

    def who_saw(self, rows: Iterable[str]) -> tuple[Seen, ...]:
        """The releases that saw any of the rows, in training or evaluation."""
        with Session(self._engine) as session:
            return lineage.who_saw(session, rows)

    def erase(self, rows: Iterable[str], *, block: bool, by: str) -> tuple[Touched, ...]:
        """Mark rows as erased; the releases that were trained on them. `block`: those are served no more."""
        rows = tuple(rows)
        with Session(self._engine) as session:
            lineage.erase(session, rows, block=block, by=by, now_ns=self._clock_ns())
            session.commit()
            return lineage.touched(session, rows)

    def touched(self) -> tuple[Touched, ...]:
        """All releases that were trained on erased rows."""
        with Session(self._engine) as session:
            return lineage.touched(session)

    def _begin_trial(self, session: Session, release: str, weight: float, by: str) -> None:
        name, _ = split_release(release)
        if not 0 < weight < 1:
            raise NotServable(release, f"a canary's weight is between 0 and 1, not {weight:g}")
        stable = session.get(AdapterAlias, alias_of(name, STABLE))
        if stable is None:
            raise NotServable(release, f"{name} has no stable release that a canary could be compared with")
        trials.begin(
            session,
            name=name,
            release=release,
            against=stable.release,
            weight=weight,
            by=by,
            now_ns=self._clock_ns(),
        )

    def _leave(self, session: Session, release: str, stage: State, verdict: str, reason: str) -> None:
        """Take the alias of a stage away from the release that leaves it, and end its trial."""
        if stage not in (State.SHADOW, State.CANARY):
            return
        full = alias_of(split_release(release)[0], STAGES[stage])
        gone = (col(AdapterAlias.alias) == full, col(AdapterAlias.release) == release)
        session.connection().execute(delete(AdapterAlias).where(*gone))
        for trial in trials.under_way(session):
            if trial.release == release and stage is State.CANARY:
                trials.end(session, trial.id, verdict, reason, self._clock_ns())
        session.expire_all()

    def _promote(self, session: Session, release: str, alias: str, by: str) -> Alias:
        state = State(_known(session, release).state)
        needed = next((stage for stage, own in STAGES.items() if own == alias), State.STABLE)
        if alias == PREVIOUS or state is not needed:
            raise NotServable(release, f"it is {state}; the alias {alias} points at {needed} releases only")
        _refuse_blocked(session, release)
        full = alias_of(split_release(release)[0], alias)
        row = session.get(AdapterAlias, full)
        if row is not None and row.release == release:
            return _alias(row)
        return self._move(session, full, row, release, by)

    def _move(self, session: Session, full: str, row: AdapterAlias | None, release: str, by: str) -> Alias:
        now = self._clock_ns()
        before = row.release if row is not None else None
        values = {"release": release, "previous": before, "moved_ns": now, "moved_by": by}
        if not _point(session, full, before, values):
            raise AliasMoved(full)
        session.add(AliasMove(alias=full, from_release=before, to_release=release, moved_ns=now, moved_by=by))
        return Alias(alias=full, release=release, previous=before, moved_ns=now, moved_by=by)


def wanted(aliases: Mapping[str, Alias]) -> frozenset[str]:
    """The releases that `aliases` need on the replicas, the previous ones included."""
    both = ((alias.release, alias.previous) for alias in aliases.values())
    return frozenset(release for pair in both for release in pair if release is not None)


def _without(alias: Alias, blocked: frozenset[str]) -> Alias | None:
    """The alias as far as it points at releases that may be served."""
    if alias.release in blocked:
        return None
    return msgspec.structs.replace(alias, previous=None) if alias.previous in blocked else alias


def _refuse_blocked(session: Session, release: str) -> None:
    if rows := lineage.blocking_rows(session, release):
        raise NotServable(release, f"it was trained on {rows} rows that were erased since; train it anew")


def _settle(session: Session, release: str, state: State, reason: str) -> None:
    """The state of a release whose alias has moved, where the table has that step."""
    if state in TRANSITIONS[State(_known(session, release).state)]:
        _advance(session, release, state, reason)


def _known(session: Session, release: str) -> AdapterVersion:
    row = session.get(AdapterVersion, release)
    if row is None:
        raise UnknownRelease(release)
    return row


def _advance(session: Session, release: str, state: State, reason: str) -> None:
    before = State(_known(session, release).state)
    if state not in TRANSITIONS[before]:
        raise NotServable(release, f"it is {before} and cannot become {state}")
    moved = session.connection().execute(
        update(AdapterVersion)
        .where(col(AdapterVersion.release) == release, col(AdapterVersion.state) == before.value)
        .values(state=state.value, reason=reason)
    )
    if not _changed(moved):
        raise NotServable(release, "somebody else is at work on it")
    session.expire_all()  # the statement went past what the session has read


def _point(session: Session, full: str, before: str | None, values: Mapping[str, object]) -> bool:
    """Set an alias's row if it still points at `before` (None: if there is none). Says whether it did."""
    connection = session.connection()
    if before is None:
        name, _, _ = full.partition("@")
        try:
            connection.execute(insert(AdapterAlias).values(alias=full, name=name, **values))
        except IntegrityError:
            return False
        return True
    where = (col(AdapterAlias.alias) == full, col(AdapterAlias.release) == before)
    return _changed(connection.execute(update(AdapterAlias).where(*where).values(**values)))


def _changed(result: CursorResult[tuple[()]]) -> bool:
    return result.rowcount == 1


def _version(row: AdapterVersion) -> Version:
    return Version(
        release=row.release,
        name=row.name,
        base=row.base,
        state=State(row.state),
        reason=row.reason,
        registered_ns=row.registered_ns,
    )


def _alias(row: AdapterAlias) -> Alias:
    return Alias(
        alias=row.alias,
        release=row.release,
        previous=row.previous,
        moved_ns=row.moved_ns,
        moved_by=row.moved_by,
    )
