"""The checks: each takes rows and yields findings. What a detector of personal data finds is asked of `scan`,
which the caller brings: this package knows none.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from finetune.curate.findings import DataFile, Finding, Preflight, Summary
from finetune.curate.near import groups, near_pairs, shingles
from finetune.dataset import Row, canonical_json
from finetune.job import ROWS_PER_LABEL
from finetune.row_rules import is_trained
from finetune.split import prompt_key
from router_policies.language import language

Scan = Callable[[str], Sequence[str]]
"""The kinds of personal data and secrets in a text, such as email; one for each that is found."""

OUTLIER = 6.0  # median absolute deviations of the logarithm of a length
LEAST_ROWS = 20  # before a row can stray from the others
RARE = 0.1  # languages below this share of the rows stray from the rest
FEW = 2  # rows of a label that are too few to learn it and to hold one out


def text_of(row: Row) -> str:
    """What the row's last prompt says, system messages set aside."""
    said = [message for message in row.prompt if message["role"] not in ("system", "developer")]
    return "\n".join(str(message.get("content") or "") for message in said)


def answer_of(row: Row) -> str:
    """The answer as one text; equal for equal answers."""
    content, calls = row.answer.get("content"), row.answer.get("tool_calls")
    return str(content) if not calls else canonical_json([content, calls]).decode()


def labels_of(rows: Sequence[Row]) -> Mapping[str, int]:
    """How often each answer stands there, where the task is to classify; else nothing."""
    found = Counter(map(answer_of, rows))
    return dict(found.most_common()) if len(found) * ROWS_PER_LABEL <= len(rows) else {}


def summarise(file: DataFile) -> Summary:
    rows = file.rows
    return Summary(
        role=file.role,
        name=file.name,
        version=file.sha256[:12],
        rows=len(rows),
        labels=labels_of(rows),
        prompt_median=round(median([len(text_of(row)) for row in rows])) if rows else 0,
        answer_median=round(median([len(answer_of(row)) for row in rows])) if rows else 0,
        languages=dict(Counter(language(text_of(row)) or "unknown" for row in rows).most_common()),
    )


def all_findings(
    files: Sequence[DataFile], scan: Scan | None = None, preflight: Preflight | None = None
) -> list[Finding]:
    """Everything that is wrong with files that could be read, the training file first."""
    found: list[Finding] = []
    for file in files:
        checks = [duplicates(file), contradictions(file), near_duplicates(file), outliers(file)]
        checks += [strays(file), thin_labels(file)]
        if scan is not None:
            checks.append(personal(file, scan))
        found += [finding for check in checks for finding in check]
    found += overlaps(files)
    if preflight is not None:
        found += tokens(files[0], preflight)
    return found


def duplicates(file: DataFile) -> Iterator[Finding]:
    """Rows that are equal, whatever the order of their keys."""
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for row in file.rows:
        lines[row.id].append(row.line)
    for same in lines.values():
        if len(same) > 1:
            yield _warning(file, "duplicate", same, f"{len(same)} rows are the same; one is learned from")


def contradictions(file: DataFile) -> Iterator[Finding]:
    """The same prompt, case and white space set aside, with several answers."""
    for rows in _by_prompt(file.rows).values():
        answers = Counter(map(answer_of, rows))
        if len(answers) > 1:
            cause = f"the same prompt has {len(answers)} different answers"
            yield _error(file, "contradiction", [row.line for row in rows], cause)


def near_duplicates(file: DataFile) -> Iterator[Finding]:
    """Prompts that hardly differ: they count several times over. Where labels differ, some are wrong.

    Other answers may well differ: they copy what differs.
    """
    labels = bool(labels_of(file.rows))
    firsts = [rows[0] for rows in _by_prompt(file.rows).values()]  # equal prompts are told elsewhere
    sets = [shingles(text_of(row)) for row in firsts]
    for group in groups(len(firsts), near_pairs(sets)):
        rows = [firsts[at] for at in group]
        answers = len({answer_of(row) for row in rows})
        if answers > 1 and not labels:
            continue
        more = "" if answers == 1 else f", with {answers} different answers"
        cause = f"{len(rows)} prompts hardly differ{more}"
        check = "near_duplicate" if answers == 1 else "near_contradiction"
        yield _warning(file, check, [row.line for row in rows], cause)


def overlaps(files: Sequence[DataFile]) -> Iterator[Finding]:
    """What stands in two of the files, exactly or nearly: what was learned by heart proves nothing."""
    for at, file in enumerate(files):
        for other in files[at + 1 :]:
            known = _by_prompt(file.rows)
            exact = [row.line for row in other.rows if prompt_key(row) in known]
            if exact:
                cause = f"{len(exact)} prompts also stand in the {file.role} file ({file.name})"
                yield _error(other, "overlap", exact, cause)
            near = _near_across(file, other) - set(exact)
            if near:
                cause = f"{len(near)} prompts hardly differ from ones in the {file.role} file ({file.name})"
                yield _warning(other, "near_overlap", sorted(near), cause)


def outliers(file: DataFile) -> Iterator[Finding]:
    """Rows whose prompt or answer is far longer or shorter than is usual here."""
    for name, measure in (("prompt", text_of), ("answer", answer_of)):
        lengths = [math.log1p(len(measure(row))) for row in file.rows]
        if len(lengths) < LEAST_ROWS:
            continue
        middle = median(lengths)
        spread = max(median([abs(length - middle) for length in lengths]), 0.1)
        pairs = zip(file.rows, lengths, strict=True)
        far = [row for row, length in pairs if abs(length - middle) > OUTLIER * spread]
        if far:
            sizes = [len(measure(row)) for row in far]
            usual = f"{math.expm1(middle):,.0f} characters are usual"
            cause = f"{len(far)} {name}s of {min(sizes):,} to {max(sizes):,} characters; {usual}"
            yield _warning(file, "length", [row.line for row in far], cause)


def strays(file: DataFile) -> Iterator[Finding]:
    """Rows in a language that few others are in."""
    known = [(row, found) for row in file.rows if (found := language(text_of(row)))]
    counts = Counter(found for _, found in known)
    if len(known) < LEAST_ROWS:
        return
    usual = counts.most_common(1)[0][0]
    for name, count in counts.items():
        if name != usual and count < RARE * len(known):
            lines = [row.line for row, found in known if found == name]
            yield _warning(file, "language", lines, f"{count} prompts look like {name}, most like {usual}")


def thin_labels(file: DataFile) -> Iterator[Finding]:
    """Labels with so few rows that they are hardly learned."""
    labels = labels_of(file.rows) if file.role == "train" else {}
    for label, number in labels.items():
        if number < FEW:
            lines = [row.line for row in file.rows if answer_of(row) == label]
            yield _warning(file, "thin_label", lines, f"an answer that only {number} row has")


def personal(file: DataFile, scan: Scan) -> Iterator[Finding]:
    """Personal data and secrets, by kind; in what is learned they may come out again."""
    for row in file.rows:
        for at, message in enumerate(row.messages):
            text = str(message.get("content") or "") + _arguments(message)
            kinds = Counter(scan(text))
            if kinds:
                listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
                where = "in an answer that is learned: " if is_trained(message) else ""
                cause, path = f"{where}{listed}", f"$.messages[{at}]"
                yield _warning(file, "personal_data", [row.line], cause, path)


def tokens(file: DataFile, preflight: Preflight) -> Iterator[Finding]:
    """What the base's own template says against rows: too long, not rendered, an end that is not learned."""
    for row in preflight.rows:
        if row.fault:
            yield _error(file, "tokens", [row.line], row.fault, "$.messages")
        elif not row.eos:
            cause = "the end of the answer is not learned: the model would not stop"
            yield _error(file, "tokens", [row.line], cause, "$.messages")


def _by_prompt(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[prompt_key(row)].append(row)
    return found


def _near_across(file: DataFile, other: DataFile) -> set[int]:
    """Lines of `other` whose prompts hardly differ from one of `file`."""
    sets = [shingles(text_of(row)) for row in (*file.rows, *other.rows)]
    border = len(file.rows)
    return {
        other.rows[second - border].line for first, second in near_pairs(sets) if first < border <= second
    }


def _arguments(message: Mapping[str, object]) -> str:
    return canonical_json(message["tool_calls"]).decode() if "tool_calls" in message else ""


def _warning(file: DataFile, check: str, lines: Sequence[int], cause: str, path: str = "$") -> Finding:
    return Finding(
        check=check, severity="warning", cause=cause, lines=tuple(lines), path=path, file=file.name
    )


def _error(file: DataFile, check: str, lines: Sequence[int], cause: str, path: str = "$") -> Finding:
    return Finding(check=check, severity="error", cause=cause, lines=tuple(lines), path=path, file=file.name)
