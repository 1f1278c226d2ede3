"""`headgate report`: what was spent, for a terminal, a spreadsheet or a machine."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.cli.serve import ConfigOption
from gateway.finance.reports import cost_report, render_table, write_csv
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy
from gateway.settings import load_settings

UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def report(
    config: ConfigOption = Path("headgate.yaml"),
    by: Annotated[
        str, typer.Option(help=f"Groups, in order: {', '.join(g.value for g in GroupBy)}.")
    ] = "team,model,adapter",
    since: Annotated[str, typer.Option(help="30d, 12h, 2w or a date: 2026-11-01 (UTC).")] = "30d",
    csv: Annotated[
        Path | None, typer.Option(help="Write the rows and their total to this file as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Print cost by team, model and adapter from the ledger.

    Example: headgate report --by team,adapter --since 7d --csv november.csv
    """
    groups, start = read_groups(by), read_since(since, datetime.now(UTC))
    store = Store(load_settings(config, environment=None).database_url)
    store.migrate()
    found = cost_report(store, groups, start)
    if csv is not None:
        with csv.open("w", newline="", encoding="utf-8-sig") as file:
            write_csv(found, file)
    if as_json:
        Console().print_json(data=found.to_dict())
    else:
        Console().print(render_table(found))


def read_groups(text: str) -> tuple[GroupBy, ...]:
    """Raises typer.BadParameter naming the known ones."""
    try:
        return tuple(GroupBy(word.strip()) for word in text.split(","))
    except ValueError as error:
        known = ", ".join(g.value for g in GroupBy)
        raise typer.BadParameter(f"{error}; known are {known}", param_hint="--by") from error


def read_since(text: str, now: datetime) -> datetime:
    """A span back from `now`, or a date. Raises typer.BadParameter."""
    try:
        if text[-1:] in UNITS:
            return now - timedelta(**{UNITS[text[-1]]: int(text[:-1])})
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is neither 30d, 12h, 2w nor a date", param_hint="--since"
        ) from error
