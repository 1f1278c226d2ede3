"""`headgate policy backtest`: what another policy would have done with the requests in the ledger."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from adapters.registry import Registry
from gateway.cli.client import JsonOption
from gateway.cli.serve import ConfigOption
from gateway.cli.since import read_since
from gateway.errors import ConfigError
from gateway.ledger.past import read_past
from gateway.ledger.prices import usd
from gateway.ledger.store import Store
from gateway.policy_file import build_catalog
from gateway.settings import Settings, load_settings, read_yaml
from router_policies.errors import PolicyError
from router_policies.load import load
from router_policies.simulate import Backtest, RouteChange, backtest, cells


def run_backtest(
    new: Annotated[Path, typer.Argument(help="The policy to try, a file.")],
    config: ConfigOption = Path("headgate.yaml"),
    since: Annotated[str, typer.Option(help="7d, 24h, or a date.")] = "7d",
    as_json: JsonOption = False,
) -> None:
    """Say what another policy would have changed: routes, cost, privacy, latency. No call is made.

    It reads the ledger, which holds no content. What cannot be known from it is said to be unknown.

    Example: headgate policy backtest new.yaml --since 7d
    """
    settings = load_settings(config, environment=None)
    catalog = build_catalog(settings)
    try:
        policy = load(read_yaml(new), str(new), catalog)
    except PolicyError as error:
        raise ConfigError(error.source, error.problems) from error
    store = Store(settings.database_url)
    try:
        recorded = read_past(
            store,
            int(read_since(since, datetime.now(UTC)).timestamp()) * 10**9,
            None,
            cell=cells(policy),
            scale=settings.scale,
            backends=catalog.backends,
        )
    finally:
        store.close()
    found = backtest(policy, recorded, _aliases(settings))
    if as_json:
        Console().print_json(data=msgspec.to_builtins(found))
    else:
        _show(found)


def _aliases(settings: Settings) -> dict[str, str]:
    """As they are now; none where no adapter was ever released."""
    engine = create_engine(settings.database_url)
    try:
        return {name: alias.release for name, alias in Registry(engine).aliases().items()}
    except SQLAlchemyError:
        return {}
    finally:
        engine.dispose()


def _show(found: Backtest) -> None:
    console = Console()
    console.print(f"{found.policy}: {found.requests} requests, {found.unrouted} that no route takes")
    table = Table()
    for name in ("route", "requests", "moved", "refused", "cost USD", "change USD (95 %)", "latency ms"):
        table.add_column(name, justify="left" if name == "route" else "right")
    for route in found.routes:
        table.add_row(
            route.route,
            str(route.requests),
            str(route.moved),
            str(route.refused),
            f"{usd(route.cost_before)} → {usd(route.cost_after)}",
            f"{usd(route.change_low)} to {usd(route.change_high)}",
            f"{_latency(route.latency_before_ms)} → {_latency(route.latency_after_ms)}",
        )
    console.print(table)
    for line in _unknown(found):
        console.print(f"  {line}", highlight=False)
    for exposure in found.exposure:
        console.print(f"leaving our own zones, {exposure.privacy}: {exposure.before} → {exposure.after}")
    console.print("assumed: " + "; ".join(found.assumed), highlight=False)


def _latency(ms: tuple[float, float] | None) -> str:
    """Median and 95th percentile."""
    return "unknown" if ms is None else f"{ms[0]:.0f}/{ms[1]:.0f}"


def _unknown(found: Backtest) -> list[str]:
    lines = [f"unknown: {count} requests: {reason}" for reason, count in found.undecided.items()]
    for route in found.routes:
        lines += _unknown_of(route)
    return lines


def _unknown_of(route: RouteChange) -> list[str]:
    lines = []
    if route.cost_unknown:
        lines.append(f"unknown: the cost of {route.cost_unknown} requests of route {route.route}")
    if route.latency_unknown:
        where = f"{route.latency_unknown} requests of route {route.route}"
        lines.append(f"unknown: the latency of {where}, at a place that hardly answered any")
    return lines
