"""The act in which an adapter is trained by the public command and swapped in, all under live traffic."""

import asyncio

from gateway.demo import children
from gateway.demo.config import BASE, TASK
from gateway.demo.screen import Screen
from gateway.demo.stage import Stage, Unmet
from gateway.demo.tables import live_table
from gateway.demo.traffic import PER_SECOND, LiveTraffic

SWAP_WITHIN_S = 30.0  # from the release until live traffic has met the adapter
HEARTBEAT_S = 15.0  # between lines on the live traffic where the trainer's bar is not seen


async def fine_tune(stage: Stage) -> LiveTraffic:
    """Train, release, and wait until live traffic has met the adapter. Raises Unmet."""
    screen, rows = stage.screen, stage.rows
    screen.act(4, "Fine-tune an adapter, and swap it in under live traffic")
    files = f"--data {rows.train_file} --validation {rows.held_out_file}"
    release = f"--suffix {TASK} --licence Apache-2.0 --gateway {stage.parts.url}"
    command = f"finetune --base {BASE} {files} --output {stage.folder}/runs {release}"
    screen.note(
        f"Live traffic meanwhile: {PER_SECOND:g} requests a second, the task, private ones and others."
    )
    screen.line(f"$ headgate {command}")
    async with LiveTraffic(stage.app, rows.train) as live:
        await _train(stage, command.split(), live)
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
        "command began; no process was restarted."
    )
    for answer in live.failed[:5]:
        stage.screen.failed(f"failed: status {answer.status}, {answer.error}, {answer.reason}")
