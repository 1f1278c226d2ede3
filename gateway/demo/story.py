"""The demo's acts in order. What they find out is handed on; `checks` says whether it is as it should be."""

import asyncio
import json
import shlex
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from gateway.demo import children, tour
from gateway.demo.checks import Checks
from gateway.demo.client import Client
from gateway.demo.config import BASE, TASK
from gateway.demo.parts import running
from gateway.demo.rented import ERROR_RATE
from gateway.demo.rows import Rows, label, messages, question, split_into
from gateway.demo.screen import Screen
from gateway.demo.stage import Stage, Unmet
from gateway.demo.swap import fine_tune
from gateway.demo.tables import COST_NOTE, shift_table, tour_table
from gateway.demo.traffic import Batch, LiveTraffic, ask_all

STAND_IN_NOTE = (
    "That match is no measurement: the stand-in knows the labels, and gets "
    f"{ERROR_RATE:.0%} of them wrong on purpose."
)
REAL_NOTE = "The prompts do not list the labels: the rented model has to guess how they are written."


class After(msgspec.Struct, frozen=True):
    """The held-out rows asked of the task's name, and of the base by its own."""

    task: Batch
    base: Batch


async def tell(screen: Screen, folder: Path, *, openai_key: str, detach: bool) -> bool:
    """All acts; whether every expectation held. Unless `detach`, the gateway then answers until cancelled.

    Raises HeadgateError when a part fails.
    """
    rows = _clean(folder)
    _introduce(screen, rows)
    async with AsyncExitStack() as stack:
        screen.act(1, "Start the parts")
        parts = await stack.enter_async_context(running(folder, rows, openai_key, screen))
        app, people = [
            await stack.enter_async_context(Client(parts.url, key))
            for key in (parts.keys.app, parts.keys.people)
        ]
        stage = Stage(
            screen=screen,
            folder=folder,
            rows=rows,
            parts=parts,
            app=app,
            people=people,
            checks=Checks(),
        )
        await _acts(stage)
        if stage.checks.hold and not detach:
            await _stay(stage)
    return stage.checks.hold


async def _acts(stage: Stage) -> None:
    await _tour(stage)
    before = await _before(stage)
    live = await fine_tune(stage)
    after = await _after(stage, before)
    _checks(stage, before, live, after)


def _clean(folder: Path) -> Rows:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return split_into(folder)


def _introduce(screen: Screen, rows: Rows) -> None:
    example = rows.held_out[0]
    screen.say(
        "[bold]Headgate demo[/bold]: a gateway sends each request to a model that you own or one that you "
        "rent, and trains the adapter that takes work over from the rented one.\n"
        f"The task, model name [bold]{TASK}[/bold]: sort messages to a library's desk by what they want, "
        f"as [italic]“{question(example)}”[/italic] → [italic]{label(example)}[/italic]. "
        f"{len(rows.train)} curated rows to learn from, {len(rows.held_out)} held out."
    )


async def _tour(stage: Stage) -> None:
    stage.screen.act(2, "Where requests go, and why")
    stage.screen.say(
        "Sent with the OpenAI SDK; all columns but the first are from the x-headgate-* response headers.\n"
        f"No adapter for {TASK} exists yet, so the policy ({stage.folder}/policy.yaml) rents."
    )
    seen = [(stop, await stop.send()) for stop in tour.stops(stage.app, stage.people, stage.rows.held_out[0])]
    stage.screen.show(tour_table(seen))
    stage.screen.note(COST_NOTE + " No cost: refused, or a stream, whose cost the ledger has.")
    for stop, answer in seen:
        if not stop.as_expected(answer):
            raise Unmet(f"“{stop.title}” was not to be answered so: {answer.status} {answer.error}")
    stage.checks.expect(True, f"{len(seen)} requests of all kinds went where the policy says")


async def _before(stage: Stage) -> Batch:
    screen = stage.screen
    screen.act(3, f"Before: the held-out rows, asked of {TASK}")
    batch = await _ask(stage, TASK)
    if batch.failed:
        raise Unmet(f"{batch.failed} of {len(batch.answers)} requests failed")
    screen.say(
        f"{len(batch.answers)} requests, answered by [bold]{batch.who}[/bold]: exact match "
        f"{batch.exact_match:.2f}, ${batch.usd_per_thousand:.5f} per 1,000 requests, "
        f"{1 - batch.owned_share:.0%} left this machine."
    )
    screen.note(STAND_IN_NOTE if stage.parts.rented.stand_in else REAL_NOTE)
    await _report(stage)
    return batch


async def _after(stage: Stage, before: Batch) -> After:
    stage.screen.act(5, "After: the same rows, the same model name")
    batch = await _ask(stage, TASK)
    base = await _ask(stage, BASE)
    stage.screen.show(shift_table(before, batch))
    stage.screen.say(
        f"Held-out exact match, both asked through the gateway: base {BASE} [bold]{base.exact_match:.2f}"
        f"[/bold] → adapter {batch.who} [bold]{batch.exact_match:.2f}[/bold]"
    )
    await _report(stage)
    return After(batch, base)


async def _ask(stage: Stage, model: str) -> Batch:
    rows = stage.rows.held_out
    with stage.screen.counting(f"asking {model}", len(rows)) as step:
        return await ask_all(stage.app, model, rows, step)


async def _report(stage: Stage) -> None:
    stage.screen.line(f"$ headgate report --config {stage.parts.config}")
    environment = {**stage.screen.environment, **stage.parts.environment}
    status = await children.run("report", "--config", str(stage.parts.config), environment=environment)
    if status:
        raise Unmet(f"`headgate report` ended with status {status}")


def _checks(stage: Stage, before: Batch, live: LiveTraffic, after: After) -> None:
    screen, checks = stage.screen, stage.checks
    screen.act(6, "What had to hold")
    checks.traffic(live)
    checks.learning(after.base, after.task)
    checks.shift(before, after.task)
    checks.privacy(stage.parts.rented.stand_in, tour.CARD)
    for check in checks.made:
        screen.check(check.holds, check.text)
    screen.say(f"\nThe demo took {screen.seconds:.0f} s.")
    screen.finished = checks.hold


async def _stay(stage: Stage) -> None:
    """The gateway answers until the demo is cancelled."""
    stage.screen.act(7, "Yours")
    body = {"model": TASK, "messages": list(messages(stage.rows.held_out[0])), "temperature": 0}
    stage.screen.line(
        f"The gateway answers at {stage.parts.url}/v1 until Ctrl-C. Try:\n\n"
        f"curl -s {stage.parts.url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f"  -H 'authorization: Bearer {stage.parts.keys.app}' \\\n"
        f"  -d {shlex.quote(json.dumps(body))}\n"
    )
    await asyncio.Event().wait()
