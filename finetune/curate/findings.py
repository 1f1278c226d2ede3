"""What the checks find, as frozen values. An error keeps a data set from being trained on; a warning is for
whoever knows the data. Nothing here repeats what the rows say: findings hold lines, numbers and kinds.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from finetune.dataset import Row

Severity = Literal["error", "warning"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. `lines` are 1-based, of `file`; empty: the file as a whole. `check` names the rule."""

    check: str
    severity: Severity
    cause: str
    lines: tuple[int, ...] = ()
    path: str = "$"
    file: str = ""


class RowTokens(msgspec.Struct, frozen=True, kw_only=True):
    """A row as the base's own template and tokenizer see it. Counts are tokens.

    `supervised` is how many are learned; `eos` whether the end of the answer is among them; `fault` why the
    row cannot be trained on.
    """

    line: int
    tokens: int = 0
    supervised: int = 0
    eos: bool = False
    fault: str = ""


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    """What will be learned: from the base, its template and all rows. `rendered` is the first row as text,
    and `learned` the parts of it that are learned.
    """

    base: str
    longest: int  # tokens that the base takes
    template_marks_answers: bool
    rows: tuple[RowTokens, ...]
    rendered: str = ""
    learned: tuple[str, ...] = ()


class DataFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was read. `role` is train, validation or held-out."""

    role: str
    name: str
    sha256: str
    rows: tuple[Row, ...]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of one file. `labels` counts answers where the task is to classify; lengths are characters."""

    role: str
    name: str
    version: str  # the first 12 digits of the file's SHA-256
    rows: int
    labels: Mapping[str, int] = {}
    prompt_median: int = 0
    answer_median: int = 0
    languages: Mapping[str, int] = {}


def count(severity: Severity, findings: Sequence[Finding]) -> int:
    return sum(finding.severity == severity for finding in findings)
