"""The commands put together, and the one place where errors become exit codes."""

import sys

import typer

from gateway.cli import (
    adapters,
    admin,
    backtest,
    data,
    fake,
    finetune,
    import_,
    keys,
    ledger,
    migrate,
    policy,
    prices,
    privacy,
    report,
    runs,
    serve,
    trials,
    up,
    worker,
)
from gateway.errors import HeadgateError

app = typer.Typer(
    name="headgate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Route each request to a model you own or one you rent; train the next adapter from what you see.",
)
app.command("serve")(serve.serve)
app.command("up")(up.up)
app.command("fake")(fake.fake)
app.command("migrate")(migrate.migrate)
app.command("finetune")(finetune.finetune)
app.command("worker")(worker.worker)
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.add_typer(report.app, name="report")
app.add_typer(prices.app, name="prices")
app.add_typer(ledger.app, name="ledger")
app.add_typer(admin.app, name="admin")
app.add_typer(keys.app, name="key")
policy.app.command("test")(trials.run_tests)
policy.app.command("explain")(trials.explain)
policy.app.command("backtest")(backtest.run_backtest)
app.add_typer(policy.app, name="policy")
app.add_typer(privacy.app, name="privacy")
app.add_typer(import_.app, name="import")
app.add_typer(adapters.app, name="adapter")


def main() -> None:
    try:
        app()
    except HeadgateError as error:
        typer.secho("error: ", fg=typer.colors.RED, nl=False, err=True)
        typer.echo(str(error), err=True)
        sys.exit(2)
