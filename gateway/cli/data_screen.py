"""How data sets look on a terminal."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune.curate.build import TRAIN, VALIDATION, Version
from finetune.curate.findings import Finding, Preflight, Summary

MOST_LINES = 8  # of a finding, before "…"
MOST_FINDINGS = 100
MOST_LABELS = 30
MOST_RENDERED = 2_000  # characters
STYLES = {"error": "bold red", "warning": "yellow"}


def report(
    console: Console, summaries: Sequence[Summary], findings: Sequence[Finding], preflight: Preflight | None
) -> None:
    """Files, labels, tokens, findings, and in a line whether it is fit."""
    if summaries:
        console.print(_files(summaries))
        if summaries[0].labels:
            console.print(_labels(summaries))
    if preflight is not None:
        console.print(_tokens(preflight))
    if findings:
        console.print(_findings(findings))
        if len(findings) > MOST_FINDINGS:
            console.print(f"… {len(findings) - MOST_FINDINGS:,} more; --json lists all")
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        console.print(f"[bold red]not fit to learn from:[/] {errors} errors")
    elif findings:
        console.print(f"fit to learn from; {len(findings)} warnings to look at")


def version(console: Console, home: Path, made: Version) -> None:
    console.print(f"{home / TRAIN}: {made.train_rows} rows")
    console.print(f"{home / VALIDATION}: {made.validation_rows} rows")
    for dropped in made.dropped:
        rule, lines = dropped.rule.replace("_", " "), _lines(dropped.lines)
        console.print(f"left out, {rule}: {len(dropped.lines)} rows, lines {lines}")


def learned(console: Console, preflight: Preflight) -> None:
    """The first row as the model will see it, with what is learned of it."""
    console.print("\nThe first row as it is rendered; what is learned is [bold green]green[/]:")
    text = Text(preflight.rendered[:MOST_RENDERED])
    at = 0
    for part in preflight.learned:
        start = preflight.rendered.find(part, at)
        if start >= 0:
            at = start + len(part)
            text.stylize("bold green", start, min(at, MOST_RENDERED))
    console.print(text)


def totals(preflight: Preflight) -> dict[str, Any]:
    """What all rows come to, in tokens."""
    counts = [row.tokens for row in preflight.rows if not row.fault]
    return {
        "base": preflight.base,
        "base_takes": preflight.longest,
        "rows": len(counts),
        "tokens": sum(counts),
        "supervised": sum(row.supervised for row in preflight.rows if not row.fault),
        "median": round(median(counts)) if counts else 0,
        "longest": max(counts, default=0),
        "end_learned": sum(row.eos for row in preflight.rows),
        "template_marks_answers": preflight.template_marks_answers,
    }


def spelt(finding: Finding) -> str:
    """`line 3: $.messages[1].weight: must be 0 or 1`"""
    where = f"line {_lines(finding.lines)}: {finding.path}: " if finding.lines else ""
    return where + finding.cause


def _files(summaries: Sequence[Summary]) -> Table:
    table = _table("", "file", "version", "rows", "prompt", "answer", "language")
    for each in summaries:
        languages = ", ".join(f"{name} {number}" for name, number in list(each.languages.items())[:3])
        lengths = (f"{each.prompt_median} characters", f"{each.answer_median} characters")
        table.add_row(each.role, each.name, each.version, str(each.rows), *lengths, languages)
    return table


def _labels(summaries: Sequence[Summary]) -> Table:
    table = _table("label", *(each.role for each in summaries))
    labels = list(summaries[0].labels)
    for label in labels[:MOST_LABELS]:
        table.add_row(Text(label[:60]), *(str(each.labels.get(label, 0)) for each in summaries))
    if len(labels) > MOST_LABELS:
        table.add_row(f"… {len(labels) - MOST_LABELS} more")
    return table


def _tokens(preflight: Preflight) -> Table:
    found = totals(preflight)
    table = _table("tokens by the base's template", "")
    marks = "the template marks them" if preflight.template_marks_answers else "found by rendering prefixes"
    for name, value in (
        ("base", f"{found['base']}, takes {found['base_takes']:,} tokens"),
        ("rows", f"{found['rows']:,} of {len(preflight.rows):,} fit"),
        ("tokens", f"{found['tokens']:,}, median {found['median']:,}, longest {found['longest']:,}"),
        ("learned", f"{found['supervised']:,} tokens of answers: {marks}"),
        ("end of the answer", f"learned in {found['end_learned']:,} rows"),
    ):
        table.add_row(name, value)
    return table


def _findings(findings: Sequence[Finding]) -> Table:
    table = _table("", "check", "file", "lines", "path", "cause")
    for finding in findings[:MOST_FINDINGS]:
        kind = Text(finding.severity, STYLES[finding.severity])
        where = (Text(finding.file), Text(_lines(finding.lines)), Text(finding.path))
        table.add_row(kind, finding.check, *where, Text(finding.cause))
    return table


def _lines(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:MOST_LINES]))
    return shown + (" …" if len(lines) > MOST_LINES else "")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
