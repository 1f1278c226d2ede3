"""`headgate report …`: what was spent, for a terminal, a spreadsheet or a machine."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from gateway.cli.serve import ConfigOption
from gateway.control.money import money_of
from gateway.finance.desk import REPORTS, Desk, Question
from gateway.finance.files import WRITERS
from gateway.finance.reports import GROUPS
from gateway.finance.screen import render
from gateway.finance.sheet import Sheet
from gateway.finance.usage_files import read_days
from gateway.ledger.store import Store
from gateway.settings import load_settings

app = typer.Typer(no_args_is_help=False, help="What was spent, by whom and on what.")

T = TypeVar("T")
CONFIG = Path("headgate.yaml")
ByOption = Annotated[str, typer.Option(help=f"Groups, in order: {', '.join(GROUPS)}.")]
PeriodOption = Annotated[
    str,
    typer.Option(help="2026-11, 2026-W45, 2026-Q4, 2026, 2026-11-05, first..last; 30d, 12h, 2w until now."),
]
ZoneOption = Annotated[str, typer.Option("--tz", help="Time zone of the period, such as Europe/Berlin.")]
FormatOption = Annotated[
    str, typer.Option("--format", help=f"table, {', '.join(WRITERS)}; left out: by the file's ending.")
]
OutOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write instead of the screen.")
]
AgainstOption = Annotated[str, typer.Option(help="BACKEND/MODEL whose list price is compared with.")]


@app.callback(invoke_without_command=True)
def report(context: typer.Context, config: ConfigOption = CONFIG) -> None:
    """Cost of the last 30 days by team, model and adapter; the commands ask for other reports.

    Example: headgate report chargeback --by team,model --period 2026-11 -o november.xlsx
    """
    if context.invoked_subcommand is None:
        _show(config, "chargeback", Question(), "", None)


@app.command()
def chargeback(
    config: ConfigOption = CONFIG,
    by: ByOption = "team,model,adapter",
    period: PeriodOption = "30d",
    each: Annotated[str, typer.Option(help="day, week or month: a row for each.")] = "",
    tz: ZoneOption = "UTC",
    form: FormatOption = "",
    output: OutOption = None,
) -> None:
    """Requests, tokens and cost by any groups and period, with a total that ties.

    Example: headgate report chargeback --by team,tag --period 2026-Q4 --each month --tz Europe/Berlin
    """
    _show(config, "chargeback", Question(by=by, period=period, each=each, tz=tz), form, output)


@app.command()
def movers(
    config: ConfigOption = CONFIG,
    by: ByOption = "team,model",
    period: PeriodOption = "7d",
    top: Annotated[int, typer.Option(min=1, help="How many rows.")] = 10,
    tz: ZoneOption = "UTC",
    form: FormatOption = "",
    output: OutOption = None,
) -> None:
    """Whose cost changed most against the period of the same length before.

    Example: headgate report movers --by key --period 7d --top 5
    """
    _show(config, "movers", Question(by=by, period=period, top=top, tz=tz), form, output)


@app.command()
def forecast(
    config: ConfigOption = CONFIG, tz: ZoneOption = "UTC", form: FormatOption = "", output: OutOption = None
) -> None:
    """Where the month in progress will end: trend and interval of 95 %.

    Example: headgate report forecast --tz Europe/Berlin
    """
    _show(config, "forecast", Question(tz=tz), form, output)


@app.command()
def savings(
    against: AgainstOption,
    config: ConfigOption = CONFIG,
    by: ByOption = "team,model,adapter",
    period: PeriodOption = "30d",
    tz: ZoneOption = "UTC",
    form: FormatOption = "",
    output: OutOption = None,
) -> None:
    """Cost beside that of the same tokens at another model's list price.

    Example: headgate report savings --against openai/gpt-4o --by adapter --period 2026-11
    """
    _show(config, "savings", Question(by=by, period=period, tz=tz, against=against), form, output)


@app.command()
def hosting(
    config: ConfigOption = CONFIG,
    period: PeriodOption = "30d",
    tz: ZoneOption = "UTC",
    form: FormatOption = "",
    output: OutOption = None,
) -> None:
    """Busy and idle cost of our own replicas, utilisation, and CPTI (cost per 1,000 inferences).

    Example: headgate report hosting --period 2026-11
    """
    _show(config, "hosting", Question(period=period, tz=tz), form, output)


@app.command()
def breakeven(
    replica: Annotated[str, typer.Option(help="Backend of ours.")],
    against: AgainstOption,
    config: ConfigOption = CONFIG,
    adapter: Annotated[str, typer.Option(help="An adapter's release on it, NAME@DIGEST.")] = "",
    training_usd: Annotated[str, typer.Option(help="What its training cost.")] = "0",
    period: PeriodOption = "30d",
    tz: ZoneOption = "UTC",
    chart: Annotated[Path | None, typer.Option(help="Write a drawing (SVG) to this file as well.")] = None,
    form: FormatOption = "",
    output: OutOption = None,
) -> None:
    """From which utilisation on a replica, or an adapter on it, is cheaper than an API.

    Example: headgate report breakeven --replica vllm --against openai/gpt-4o --chart breakeven.svg
    """
    asked = Question(
        period=period, tz=tz, against=against, replica=replica, adapter=adapter, training_usd=training_usd
    )
    if chart is not None:
        chart.write_text(_answered(lambda: _desk(config).breakeven_svg(asked)), encoding="utf-8")
    _show(config, "breakeven", asked, form, output)


@app.command()
def focus(
    config: ConfigOption = CONFIG,
    period: PeriodOption = "30d",
    account: Annotated[str, typer.Option(help="BillingAccountId of every row.")] = "headgate",
    form: FormatOption = "",
    output: OutOption = None,
) -> None:
    """FOCUS 1.2: one row per day, group and token meter, for FinOps tools.

    Example: headgate report focus --period 2026-11 -o november.parquet
    """
    _show(config, "focus", Question(period=period, account=account), form or _ending(output) or "csv", output)


@app.command()
def reconcile(
    config: ConfigOption = CONFIG,
    usage: Annotated[Path | None, typer.Option(help="CSV with the columns day, model, cost_usd.")] = None,
    total: Annotated[str, typer.Option(help="An invoice's total in US dollars.")] = "",
    backend: Annotated[
        list[str] | None, typer.Option(help="Whose account it is; all that are rented without it.")
    ] = None,
    period: PeriodOption = "30d",
    form: FormatOption = "",
    output: OutOption = None,
) -> None:
    """A provider's account or invoice beside the ledger: the variance by day and model, or in all.

    Changes nothing; `headgate prices reconcile` corrects the ledger call by call.

    Example: headgate report reconcile --usage openai.csv --backend openai --period 2026-11
    """
    if (usage is None) == (total == ""):
        raise typer.BadParameter("give either --usage or --total", param_hint="--usage")
    desk = _desk(config)
    if usage is not None:
        account = read_days(usage)
        _show_sheet(lambda: desk.reconcile(period, backend or (), account), form, output)
    else:
        _show_sheet(lambda: desk.reconcile_total(period, backend or (), total), form, output)


@app.command()
def rebuild(
    config: ConfigOption = CONFIG,
    anew: Annotated[bool, typer.Option("--all", help="Days that are rolled up already too.")] = False,
) -> None:
    """Roll up, from the entries, the days that are over. Safe at any time, beside running gateways.

    Example: headgate report rebuild --all
    """
    store = _store(config)
    days = store.days_to_roll_up(time.time_ns(), anew=anew)
    with typer.progressbar(days, label="days", file=sys.stderr) as progress:
        done = sum(store.roll_up(day, anew=anew) for day in progress)
    typer.echo(f"{done} days rolled up")


def _show(config: Path, name: str, asked: Question, form: str, output: Path | None) -> None:
    _show_sheet(lambda: REPORTS[name](_desk(config), asked), form, output)


def _show_sheet(ask: Callable[[], Sheet], form: str, output: Path | None) -> None:
    form = form or _ending(output) or ("table" if output is None else "")
    if form not in ("table", *WRITERS):
        raise typer.BadParameter(
            f"{form or str(output)!r} is none of table, {', '.join(WRITERS)}", param_hint="--format"
        )
    if form in ("xlsx", "parquet") and output is None:
        raise typer.BadParameter(
            f"{form} is no text: write it to a file with --output", param_hint="--format"
        )
    sheet = _answered(ask)
    if form != "table":
        _write(WRITERS[form](sheet), output)
    elif output is None:
        _print(sheet, Console())
    else:
        with output.open("w", encoding="utf-8") as file:
            _print(sheet, Console(file=file, width=100))


def _write(data: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(data)
    else:
        output.write_bytes(data)


def _print(sheet: Sheet, console: Console) -> None:
    console.print(render(sheet))
    for note in sheet.notes:
        console.print(note, style="dim", markup=False)


def _answered(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _ending(output: Path | None) -> str:
    ending = output.suffix.lstrip(".") if output is not None else ""
    return ending if ending in WRITERS else ""


def _desk(config: Path) -> Desk:
    settings = load_settings(config, environment=None)
    return Desk(_store(config), settings, money_of(settings)[0])


def _store(config: Path) -> Store:
    store = Store(load_settings(config, environment=None).database_url)
    store.migrate()
    return store
