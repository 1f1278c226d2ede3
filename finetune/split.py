"""Split rows into train and held-out: seeded, stratified by answer, and without leaks.

Rows that ask the same thing stay on one side. "The same" is the prompt with case and runs of white space
set aside, so neither an exact duplicate nor the same question with another answer can be learned by heart and
then scored.
"""

import hashlib
from collections.abc import Iterable

import msgspec

from finetune.dataset import Row, canonical_json


class Split(msgspec.Struct, frozen=True):
    """Disjoint parts of a data set, each without duplicates, in the order of the file."""

    train: tuple[Row, ...]
    held_out: tuple[Row, ...]


def split_rows(rows: Iterable[Row], share: float, seed: int) -> Split:
    """Hold out about `share` (0 to 1) of the distinct rows. The same rows and seed give the same split.

    Where answers repeat (classification), each answer gives its share, so that a held-out answer was also
    trained on whenever it has two questions or more; answers seen once form one stratum of their own.
    """
    distinct = deduplicate(rows)
    groups: dict[str, list[Row]] = {}
    for row in distinct:
        groups.setdefault(prompt_key(row), []).append(row)
    chosen: set[str] = set()
    debt = 0.0  # what rounding still owes to the held-out part, carried from stratum to stratum
    for stratum in _strata(groups).values():
        due = len(stratum) * share + debt
        count = min(max(round(due), 0), len(stratum) - 1) if len(stratum) > 1 else int(due >= 1)
        debt = due - count
        # Order by seeded hash: it does not depend on where in the file a row stands.
        chosen.update(sorted(stratum, key=lambda key: _seeded(key, seed))[:count])
    return Split(
        train=tuple(row for row in distinct if prompt_key(row) not in chosen),
        held_out=tuple(row for row in distinct if prompt_key(row) in chosen),
    )


def given_split(train: Iterable[Row], held_out: Iterable[Row]) -> Split:
    """The user's own two files. Held-out rows whose prompt is also trained on prove nothing and go."""
    kept = deduplicate(train)
    seen = {prompt_key(row) for row in kept}
    return Split(kept, tuple(row for row in deduplicate(held_out) if prompt_key(row) not in seen))


def deduplicate(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The first of each group of equal rows."""
    return tuple({row.id: row for row in reversed(list(rows))}.values())[::-1]


def prompt_key(row: Row) -> str:
    """Equal for rows that ask the same thing, whatever their case, white space and system message."""
    asked = [
        (message["role"], " ".join(str(message.get("content")).lower().split()))
        for message in row.prompt
        if message["role"] not in ("system", "developer")
    ]
    return hashlib.sha256(canonical_json(asked)).hexdigest()


def _strata(groups: dict[str, list[Row]]) -> dict[str, list[str]]:
    """Prompt keys by answer; answers that occur once share the stratum ''."""
    by_answer: dict[str, list[str]] = {}
    for key, rows in groups.items():
        answer = canonical_json([rows[0].answer.get("content"), rows[0].answer.get("tool_calls")]).decode()
        by_answer.setdefault(answer, []).append(key)
    strata: dict[str, list[str]] = {}
    for answer in sorted(by_answer):
        keys = by_answer[answer]
        strata.setdefault(answer if len(keys) > 1 else "", []).extend(keys)
    return strata


def _seeded(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {key}".encode()).hexdigest()
