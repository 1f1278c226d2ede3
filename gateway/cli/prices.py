"""`headgate prices …`: what models cost, what a new map changes, and corrections once a price is known."""

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.serve import ConfigOption
from gateway.cli.since import read_since
from gateway.control.money import money_of
from gateway.finance.list_prices import providers_of
from gateway.finance.periods import to_ns
from gateway.finance.usage_files import read_calls
from gateway.ledger.budgets.budget import Covering
from gateway.ledger.corrections import Corrected, Corrector
from gateway.ledger.prices import usd
from gateway.ledger.prices.diff import changes, rates_of
from gateway.ledger.prices.listed import bundled, read_map
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy
from gateway.privacy.evidence import open_keyring
from gateway.settings import Settings, load_settings
from gateway.types import Usage

app = typer.Typer(no_args_is_help=True, help="What models cost, and corrections once it is known.")
CONFIG = Path("headgate.yaml")
SHOWN = 20  # ids of calls that the ledger does not have


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="As backends name it, such as gpt-4o-mini.")],
    config: ConfigOption = CONFIG,
    provider: Annotated[str, typer.Option(help="As litellm names it, such as openai or azure.")] = "",
) -> None:
    """What a model costs, in US dollars per million tokens, with where that is from and since when.

    Exits with 1 where no price is known.

    Example: headgate prices show gpt-4o-mini --provider openai
    """
    versions = money_of(load_settings(config, environment=None))[0].versions(model, provider)
    console = Console()
    for version in versions:
        since = datetime.fromtimestamp(version.since_ns // 10**9, UTC)
        console.print(version.source + (f", from {since:%Y-%m-%d}" if version.since_ns else ""), markup=False)
        _print(console, ("rate", "USD"), _rows(rates_of(version.price)) if version.price else ())
    if versions[-1].price is None:
        console.print("unknown: its requests are counted as such; a price in headgate.yaml makes it known")
        raise typer.Exit(1)


@app.command()
def diff(
    new: Annotated[Path, typer.Argument(help="Another version of litellm's map, a JSON file.")],
    config: ConfigOption = CONFIG,
    old: Annotated[Path | None, typer.Option(help="Compare with this one, not the bundled.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All models, not only those in the ledger.")] = False,
) -> None:
    """What a new price map changes for the models in the ledger.

    Exits with 1 where something changes, for use in scripts.

    Example: headgate prices diff model_prices_and_context_window.json
    """
    listed = bundled()[0] if old is None else read_map(old)
    settings = load_settings(config, environment=None)
    keys = None if every else _used(settings)
    found = list(changes(listed, read_map(new), keys))
    rows = [(c.key, c.what, _usd(c.old), _usd(c.new)) for c in found]
    _print(Console(), ("model", "rate", "old USD", "new USD"), rows)
    typer.echo(f"{len(found)} rates change")
    raise typer.Exit(1 if found else 0)


@app.command()
def rerate(
    config: ConfigOption = CONFIG,
    since: Annotated[str, typer.Option(help="30d, 12h, 2w or a date: 2026-10-01 (UTC).")] = "365d",
    until: Annotated[str, typer.Option(help="The same; not included. Empty: now.")] = "",
) -> None:
    """Price the requests whose price was unknown and is known by now, by a correction row for each.

    Example: headgate prices rerate --since 2026-10-01
    """
    now = datetime.now(UTC)
    span = to_ns(read_since(since, now)), to_ns(read_since(until, now) if until else now)
    _say(_corrector(config).rerate(*span))


@app.command()
def reconcile(
    usage: Annotated[Path, typer.Argument(help="CSV, a line for each call.")],
    config: ConfigOption = CONFIG,
    complete: Annotated[
        str, typer.Option(help="A backend whose calls are all in the file: those it lacks cost nothing.")
    ] = "",
    since: Annotated[str, typer.Option(help="With --complete, from when on: 30d, 12h or a date.")] = "30d",
    until: Annotated[str, typer.Option(help="The same; not included. Empty: now.")] = "",
) -> None:
    """Put a provider's own count in the place of the ledger's, by a correction row where they differ.

    Columns: call_id (the provider got it as x-client-request-id), input_tokens, output_tokens, and where
    there are such cached_input_tokens and the other meters, service_tier, cost_usd. To compare by day and
    model without changing anything: `headgate report reconcile`.

    With --complete, calls of the period with estimated tokens that the file does not have, such as those of a
    process that died before it had sent them, are taken to have cost nothing.

    Example: headgate prices reconcile provider.csv --complete openai --since 2026-11-01 --until 2026-12-01
    """
    counted, corrector = read_calls(usage), _corrector(config)
    if complete:
        now = datetime.now(UTC)
        span = to_ns(read_since(since, now)), to_ns(read_since(until, now) if until else now)
        named = {call_id for call_id, _, _ in counted}
        absent = [id for id in corrector.store.estimated(complete, *span) if id not in named]
        counted += [(call_id, Usage(), 0) for call_id in absent]
    _say(corrector.reconcile(counted))


def _corrector(config: Path) -> Corrector:
    settings = load_settings(config, environment=None)
    keyring = open_keyring(settings.state, settings.privacy.signing_key_env, os.environ)
    book, budgets = money_of(settings)
    store = Store(settings.database_url)
    store.migrate()
    return Corrector(store, book, providers_of(settings), Covering(budgets), keyring.sign, time.time_ns)


def _say(done: Corrected) -> None:
    typer.echo(
        f"{done.calls} calls looked at, {done.corrections} corrected by {usd(done.added_nano)} USD in all; "
        f"{done.unpriced} still have no known price"
    )
    for call_id in done.unknown[:SHOWN]:
        typer.echo(f"not in the ledger: {call_id}")
    if len(done.unknown) > SHOWN:
        typer.echo(f"and {len(done.unknown) - SHOWN} more")


def _used(settings: Settings) -> set[str]:
    """The map's keys that price what the ledger has seen."""
    store = Store(settings.database_url)
    store.migrate()
    book, providers = money_of(settings)[0], providers_of(settings)
    pairs = [(str(s.keys[0]), str(s.keys[1])) for s in store.sums([GroupBy.MODEL, GroupBy.BACKEND])]
    sources = [book.at(model, providers[backend]).source for model, backend in pairs if backend in providers]
    return {source.partition(": ")[2] for source in sources}


def _rows(rates: dict[str, Decimal]) -> Iterable[tuple[str, str]]:
    return ((what, _usd(rate)) for what, rate in rates.items())


def _usd(rate: Decimal | None) -> str:
    return "unknown" if rate is None else f"{rate.normalize():f}"


def _print(console: Console, names: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    table = Table()
    for name in names:
        table.add_column(name, justify="right" if name.endswith("USD") else "left")
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console.print(table)
