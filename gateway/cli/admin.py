"""`headgate admin …`: teams, keys, policies and the audit log of a running gateway, over its admin API.

Exit codes: 0 done; 1 the audit log is not intact; 2 refused, or the gateway does not answer.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.client import DEFAULT_GATEWAY, GatewayOption, JsonOption, ReasonOption, because, call, every
from gateway.settings import read_yaml

app = typer.Typer(no_args_is_help=True, help="Teams, keys, policies and the audit log of a running gateway.")
teams = typer.Typer(no_args_is_help=True, help="Teams: who requests are booked to.")
keys = typer.Typer(no_args_is_help=True, help="Client keys and keys of people.")
policies = typer.Typer(no_args_is_help=True, help="Versions of the policy.")
audit = typer.Typer(no_args_is_help=True, help="Who changed what, when and why.")
for name, part in (("teams", teams), ("keys", keys), ("policies", policies), ("audit", audit)):
    app.add_typer(part, name=name)

NONE = "—"
SECONDS = {"h": 3_600, "d": 86_400, "w": 604_800}
IdArgument = Annotated[str, typer.Argument(metavar="ID")]


@teams.command("list")
def list_teams(gateway: GatewayOption = DEFAULT_GATEWAY, as_json: JsonOption = False) -> None:
    """List all teams.

    Example: headgate admin teams list
    """
    found = list(every(gateway, "/admin/teams"))
    show(found, ("id", "name", "privacy_floor", "tags", "disabled"), as_json)


@teams.command("create")
def create_team(
    id: IdArgument,
    title: Annotated[str, typer.Option("--name", help="For people.")] = "",
    floor: Annotated[str, typer.Option(help="Class that all its requests have at least.")] = "",
    reason: ReasonOption = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Create a team.

    Example: headgate admin teams create search --name "Search" --floor internal
    """
    body = {"id": id, "name": title, "privacy_floor": floor or None}
    made = call(gateway, "POST", "/admin/teams", body, headers=because(reason))
    show([made], ("id", "name", "privacy_floor"), as_json)


@keys.command("list")
def list_keys(
    team: Annotated[str, typer.Option(help="Only those of this team.")] = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """List keys, without their secrets. Those of origin "file" stand in headgate.yaml.

    Example: headgate admin keys list --team search
    """
    found = list(every(gateway, "/admin/keys", team=team))
    show(found, ("id", "team", "project", "role", "prefix", "expires_at", "disabled", "origin"), as_json)


@keys.command("create")
def create_key(
    id: IdArgument,
    team: Annotated[str, typer.Option(help="That its requests are booked to.")],
    project: Annotated[str, typer.Option(help="Of the team.")] = "",
    role: Annotated[str, typer.Option(help="owner, operator, finance or viewer, for people.")] = "",
    model: Annotated[list[str] | None, typer.Option(help="The only models it may ask for.")] = None,
    route: Annotated[list[str] | None, typer.Option(help="The only routes it may take.")] = None,
    floor: Annotated[str, typer.Option(help="Class that its requests have at least.")] = "",
    expires: Annotated[str, typer.Option(help="After 30d, 12h or 2w.")] = "",
    reason: ReasonOption = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its secret is shown once.

    Example: headgate admin keys create support-app --team support --model 'gpt-4o*' --expires 90d
    """
    body = {
        "id": id,
        "team": team,
        "project": project or None,
        "role": role or None,
        "models": model or None,
        "routes": route or None,
        "privacy_floor": floor or None,
        "expires_at": int(time.time()) + seconds(expires, "--expires") if expires else None,
    }
    show_secret(call(gateway, "POST", "/admin/keys", body, headers=because(reason)), as_json)


@keys.command("rotate")
def rotate_key(
    id: IdArgument,
    overlap: Annotated[
        str, typer.Option(help="The old secret stays good for 1h, 7d …; 0h: not at all.")
    ] = "1h",
    reason: ReasonOption = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Give a key a new secret, which is shown once.

    Example: headgate admin keys rotate support-app --overlap 24h
    """
    body = {"overlap_s": seconds(overlap, "--overlap")}
    path = f"/admin/keys/{quote(id, safe='')}/rotate"
    show_secret(call(gateway, "POST", path, body, headers=because(reason)), as_json)


@keys.command("disable")
def disable_key(
    id: IdArgument,
    reason: ReasonOption = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Refuse a key from now on; its name stays taken.

    Example: headgate admin keys disable support-app --reason "laptop stolen"
    """
    path = f"/admin/keys/{quote(id, safe='')}"
    found = call(gateway, "GET", path)
    about = ("id", "version", "created_at", "changed_at", "prefix", "origin", "former_until")
    terms = {name: value for name, value in found.items() if name not in about}
    headers = because(reason, found["version"])
    show(
        [call(gateway, "PUT", path, terms | {"disabled": True}, headers=headers)], ("id", "disabled"), as_json
    )


@policies.command("list")
def list_policies(gateway: GatewayOption = DEFAULT_GATEWAY, as_json: JsonOption = False) -> None:
    """List all versions and which one is in force.

    Example: headgate admin policies list
    """
    found = list(every(gateway, "/admin/policies"))
    show(found, ("id", "state", "in_force", "created_at"), as_json)


@policies.command("create")
def create_policy(
    file: Annotated[
        Path, typer.Argument(help="The policy in YAML; FILE.tests.yaml beside it holds its cases.")
    ],
    reason: ReasonOption = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Keep a version as a draft, with the cases that stand beside it.

    Example: headgate admin policies create policy.yaml
    """
    cases = file.with_suffix(".tests.yaml")
    body = {"document": read_yaml(file), "cases": read_yaml(cases) if cases.exists() else []}
    made = call(gateway, "POST", "/admin/policies", body, headers=because(reason))
    show([made], ("id", "state"), as_json)


@policies.command("diff")
def diff_policy(
    id: IdArgument,
    against: Annotated[str, typer.Option(help="Another version; else what is in force.")] = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Print what a version changes.

    Example: headgate admin policies diff support@8
    """
    found = call(gateway, "GET", f"/admin/policies/{quote(id)}/diff", params={"against": against})
    if as_json:
        Console().print_json(data=found)
    else:
        typer.echo("\n".join(found["diff"]) or f"no difference to {found['against']}")


@policies.command("activate")
def activate_policy(
    id: IdArgument,
    percent: Annotated[float, typer.Option(help="Share of the requests that it decides.")] = 100.0,
    by: Annotated[str, typer.Option(help="Draw each call, or each key with all its calls.")] = "call",
    reason: ReasonOption = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Prove a version, run its cases and put it into force.

    Example: headgate admin policies activate support@8 --percent 10 --reason "cheaper first"
    """
    body = {"percent": percent, "by": by}
    path = f"/admin/policies/{quote(id)}/activate"
    show_rollout(call(gateway, "POST", path, body, headers=because(reason)), as_json)


@policies.command("rollback")
def roll_back(
    reason: ReasonOption = "", gateway: GatewayOption = DEFAULT_GATEWAY, as_json: JsonOption = False
) -> None:
    """End a roll-out by percentage; without one go back to the version before.

    Example: headgate admin policies rollback --reason "error rate"
    """
    show_rollout(call(gateway, "POST", "/admin/rollout/rollback", headers=because(reason)), as_json)


@audit.command("list")
def list_changes(
    limit: Annotated[int, typer.Option(min=1, max=200, help="So many of the newest.")] = 30,
    actor: Annotated[str, typer.Option(help="Only this key's.")] = "",
    target: Annotated[str, typer.Option(help="Only of this record.")] = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """List changes, the newest first.

    Example: headgate admin audit list --actor ann --limit 10
    """
    params = {"limit": limit, "actor": actor, "target": target}
    found = call(gateway, "GET", "/admin/audit", params=params)["data"]
    show(found, ("seq", "at", "actor", "action", "target", "reason"), as_json)


@audit.command("verify")
def verify_log(
    expect: Annotated[
        str, typer.Option(help="A hash that the log must hold: the head of an earlier proof.")
    ] = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Prove that no row was changed, put in or taken out; exit 1 when one was. Keep the head elsewhere.

    Example: headgate admin audit verify --expect 3f0c…
    """
    proof = call(gateway, "GET", "/admin/audit/verify", params={"expect": expect})
    if as_json:
        Console().print_json(data=proof)
    else:
        verdict = "intact" if proof["intact"] else f"NOT INTACT: {proof['problem']}"
        typer.echo(f"{proof['rows']} rows, {verdict}\nhead {proof['head']}")
    if not proof["intact"]:
        raise typer.Exit(1)


def seconds(text: str, option: str) -> int:
    """A span such as 12h, 30d or 2w. Raises typer.BadParameter."""
    number = text[:-1]
    if text[-1:] not in SECONDS or not number.isdecimal() or len(number) > 6:
        raise typer.BadParameter(f"{text!r} is neither 12h, 30d nor 2w", param_hint=option)
    return int(number) * SECONDS[text[-1]]


def show(rows: Sequence[dict[str, Any]], columns: Iterable[str], as_json: bool) -> None:
    """The rows as a table that fits a terminal, or all of them as JSON."""
    if as_json:
        Console().print_json(data=list(rows))
        return
    table = Table(box=None)
    for column in columns:
        table.add_column(column.removesuffix("_at"), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(column, row[column]) for column in columns))
    Console().print(table)


def show_secret(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        Console().print_json(data=made)
        return
    typer.echo(f"key (keep it; it is not stored): {made['key']}")
    if made["former_until"]:
        typer.echo(f"the former one is good until {_time(made['former_until'])}")


def show_rollout(rollout: dict[str, Any], as_json: bool) -> None:
    if as_json:
        Console().print_json(data=rollout)
        return
    typer.echo(f"in force: {rollout['active'] or 'the policy of the configuration'}")
    if rollout["candidate"]:
        typer.echo(f"beside it: {rollout['candidate']}, {rollout['percent']:g} % by {rollout['by']}")


def _cell(column: str, value: Any) -> Text:
    if value is None or value == "" or value == []:
        return Text(NONE)
    if column.endswith("at") and isinstance(value, int):
        return Text(_time(value) if value else NONE)
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    return Text(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _time(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
