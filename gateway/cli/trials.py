"""`headgate policy test` and `headgate policy explain`: trying a policy without a gateway or a call."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from gateway.api.explaining import Question, explain_request
from gateway.cli.client import JsonOption
from gateway.cli.serve import ConfigOption
from gateway.errors import ConfigError
from gateway.ledger.prices import usd
from gateway.parts import build_classifier, build_detectors
from gateway.policy_file import build_catalog, load_policy, policy_cases
from gateway.settings import load_settings
from router_policies.cases import run_cases
from router_policies.types import Snapshot


def run_tests(config: ConfigOption = Path("headgate.yaml")) -> None:
    """Run the cases beside the configured policy; exit 2 naming those that fail.

    For policy.yaml they stand in policy.tests.yaml:

        - name: private requests stay home
          given: {model: gpt-4o, privacy: confidential}
          expect: {route: private, backends: [gpu]}

    Example: headgate policy test --config headgate.yaml
    """
    settings = load_settings(config, environment=None)
    policy = load_policy(settings, build_catalog(settings), try_cases=False)
    cases = policy_cases(settings)
    if failures := run_cases(policy, cases):
        raise ConfigError(policy.label, list(map(str, failures)))
    typer.echo(f"{policy.label}: {len(cases)} cases hold")


def explain(
    request: Annotated[Path, typer.Argument(help="The body of a request, as a client would send it.")],
    config: ConfigOption = Path("headgate.yaml"),
    endpoint: Annotated[str, typer.Option(help="Below /v1/.")] = "chat/completions",
    key: Annotated[str, typer.Option(help="Id of the key.")] = "",
    team: Annotated[str, typer.Option(help="Of the key.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Of key or request.")] = None,
    privacy: Annotated[str, typer.Option(help="A class that the request has at least.")] = "",
    down: Annotated[list[str] | None, typer.Option(help="A backend that is down.")] = None,
    project: Annotated[str, typer.Option(help="Of the key.")] = "",
    task: Annotated[str, typer.Option(help="Of the request.")] = "",
    at: Annotated[str, typer.Option(help="When it comes in, with its offset; without it now.")] = "",
    budget_used: Annotated[float, typer.Option(help="Share of the fullest budget.", min=0)] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Say why a request would go where it would go by the configured policy. No call is made.

    Example: headgate policy explain request.json --team support
    """
    settings = load_settings(config, environment=None)
    policy = load_policy(settings, build_catalog(settings))
    asked = _question(
        request,
        endpoint=endpoint,
        key=key or None,
        team=team or None,
        tags=tag or (),
        privacy=privacy or None,
        project=project or None,
        task=task,
        at=at or None,
        budget_used=budget_used,
    )
    snapshot = Snapshot(down=frozenset(down or ()))
    classifier = build_classifier(settings, build_detectors(settings))
    told = asyncio.run(explain_request(policy, asked, classifier, snapshot))
    if as_json:
        Console().print_json(data=told)
    else:
        typer.echo("\n".join(_lines(told)))


def _question(file: Path, **about: Any) -> Question:
    """Raises ConfigError."""
    try:
        body = msgspec.json.decode(file.read_bytes())
        return Question.model_validate({"body": body, **about})
    except OSError as error:
        raise ConfigError(str(file), [f"cannot be read: {error.strerror}"]) from error
    except msgspec.DecodeError as error:
        raise ConfigError(str(file), [f"is not JSON: {error}"]) from error
    except ValueError as error:  # pydantic's; its message names the option, and could quote the body
        wrong = {str(problem["loc"][0]): problem["msg"] for problem in error.errors()}  # type: ignore[attr-defined]
        raise ConfigError(str(file), [f"{name}: {words}" for name, words in wrong.items()]) from None


def _expected(target: dict[str, Any]) -> str:
    """`, about 0.000123000 USD, 800 ms`"""
    nano, ms = target["expected_nano"], target["expected_ms"]
    cost = ", price unknown" if nano is None else f", about {usd(nano)} USD"
    return cost if ms is None else f"{cost}, {ms:.0f} ms"


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [
        f"policy {told['policy']}",
        f"class {told['classified']}: {told['classified_because']}",
        "routes",
    ]
    for route in told["routes"]:
        mark = "→" if route["taken"] else " "
        why = "; ".join(route["unmet"]) or (
            "matches" if route["taken"] else "would match, an earlier one does"
        )
        lines.append(f"  {mark} {route['route']}: {why}")
    if told["targets"]:
        lines.append("targets")
    for target in told["targets"]:
        where = f"{target['target']} in zone {target['zone']} ({target['place']})"
        lines.append(f"    {where}: {target['out'] or 'asked for ' + target['model'] + _expected(target)}")
    end = f"denied: {told['status']} {told['code']}" if told["status"] else f"goes to {told['candidates'][0]}"
    return [*lines, f"{end} ({told['reason']})"]
