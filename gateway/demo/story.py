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
from gateway.demo.parts import Parts, running
from gateway.demo.rented import ERROR_RATE
from gateway.demo.rows import Rows, label, messages, question, split_into
from gateway.demo.screen import Screen
from gateway.demo.tables import COST_NOTE, live_table, shift_table, tour_table
from gateway.demo.traffic import PER_SECOND, Batch, LiveTraffic, ask_all
from gateway.errors import HeadgateError

SWAP_WITHIN_S = 30.0  # from the release until live traffic has met the adapter
HEARTBEAT_S = 15.0  # between lines on the live traffic where the trainer's bar is not seen


class Unmet(HeadgateError):
    """The demo cannot go on: something that it needs did not come about."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What the acts play on."""

    screen: Screen
    folder: Path
    rows: Rows
    parts: Parts
    app: Client
    people: Client
    checks: Checks


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
    live = await _fine_tune(stage)
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
    stage.screen.note(COST_NOTE + " — : nothing was spent, or a stream, whose cost only the ledger knows.")
    wrong = [stop.title for stop, answer in seen if not stop.as_expected(answer)]
    stage.checks.expect(not wrong, f"{len(seen)} requests went where the policy says", "; ".join(wrong))


async def _before(stage: Stage) -> Batch:
    screen = stage.screen
    screen.act(3, f"Before: the held-out rows, asked of {TASK}")
    batch = await _ask(stage, TASK)
    screen.say(
        f"{len(batch.answers)} requests, answered by [bold]{batch.who}[/bold]: exact match "
        f"{batch.exact_match:.2f}, ${batch.usd_per_thousand:.5f} per 1,000 requests, "
        f"{1 - batch.owned_share:.0%} left this machine."
    )
    if stage.parts.rented.stand_in:
        screen.note(f"The stand-in's exact match is set: a label is wrong in {ERROR_RATE:.0%} of all rows.")
    await _report(stage)
    return batch


async def _fine_tune(stage: Stage) -> LiveTraffic:
    screen, rows = stage.screen, stage.rows
    screen.act(4, "Fine-tune an adapter, and swap it in under live traffic")
    command = [
        *(
            "finetune",
            "--base",
            BASE,
            "--data",
            str(rows.train_file),
            "--validation",
            str(rows.held_out_file),
        ),
        *("--suffix", TASK, "--output", str(stage.folder / "runs"), "--licence", "Apache-2.0"),
        *("--gateway", stage.parts.url),
    ]
    screen.note(
        f"Live traffic meanwhile: {PER_SECOND:g} requests a second, the task, private ones and others."
    )
    screen.line(f"$ headgate {' '.join(command)}")
    async with LiveTraffic(stage.app, rows.train) as live:
        await _train(stage, command, live)
        try:
            await asyncio.wait_for(live.swapped.wait(), SWAP_WITHIN_S)
        except TimeoutError:
            raise Unmet(f"live traffic did not meet the adapter within {SWAP_WITHIN_S:.0f} s") from None
    _say_swap(stage, live)
    return live


async def _train(stage: Stage, command: list[str], live: LiveTraffic) -> None:
    """Runs the public command on this terminal."""
    environment = {**stage.screen.environment, "HEADGATE_ADMIN_KEY": stage.parts.keys.admin}
    heartbeat = asyncio.create_task(_heartbeat(stage.screen, live))
    try:
        status = await children.run(*command, environment=environment)
    finally:
        heartbeat.cancel()
    if status:
        raise Unmet(f"`headgate finetune` ended with status {status}: no adapter was released")


async def _heartbeat(screen: Screen, live: LiveTraffic) -> None:
    """On an output that is no terminal the trainer's bar is not seen: a line now and then instead."""
    while not screen.live:
        await asyncio.sleep(HEARTBEAT_S)
        answered = len(live.answers)
        screen.note(f"  {live.seconds:.0f} s: {answered} live requests answered, {len(live.failed)} failed")


def _say_swap(stage: Stage, live: LiveTraffic) -> None:
    first = live.by_adapter[0]
    stage.screen.show(live_table(live))
    stage.screen.say(
        f"{len(live.answers)} requests during training and swap, [bold]{len(live.failed)} failed[/bold]. "
        f"[bold]{first.adapter}[/bold] gave its first answer {first.at - live.started:.1f} s after the "
        "training began; no process was restarted."
    )
    for answer in live.failed[:5]:
        stage.screen.failed(f"failed: status {answer.status}, {answer.error}, {answer.reason}")


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
    checks.traffic(before, live)
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
