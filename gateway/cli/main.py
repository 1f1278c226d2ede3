"""The commands put together, and the one place where errors become exit codes."""

import sys

import typer
from rich.console import Console

from gateway.cli import adapters, fake, finetune, keys, policy, report, serve
from gateway.errors import ConfigError
from router_policies.errors import PolicyError

app = typer.Typer(
    name="headgate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Route each request to a model you own or one you rent; train the next adapter from what you see.",
)
app.command("serve")(serve.serve)
app.command("fake")(fake.fake)
app.command("report")(report.report)
app.command("finetune")(finetune.finetune)
app.add_typer(keys.app, name="key")
app.add_typer(policy.app, name="policy")
app.add_typer(adapters.app, name="adapter")


def main() -> None:
    try:
        app()
    except (ConfigError, PolicyError) as error:
        Console(stderr=True, highlight=False).print(
            f"[red]{type(error).__name__}[/red]", str(error), markup=True
        )
        sys.exit(2)
