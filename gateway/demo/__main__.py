"""`python -m gateway.demo`, which is what `make demo` runs.

DETACH=1 ends the demo after its last act; else its gateway answers until Ctrl-C. OPENAI_API_KEY puts OpenAI's
API in the stand-in's place. Exit status 0: every expectation held; 1: one did not, or a part failed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

from gateway.demo.screen import Screen
from gateway.demo.story import tell
from gateway.errors import HeadgateError

FOLDER = Path("var/demo")
INTERRUPTED = 130  # the shell's status for a command that Ctrl-C ended
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    screen = Screen()
    detach = os.environ.get("DETACH", "") not in ("", "0")
    story = tell(screen, FOLDER, openai_key=os.environ.get("OPENAI_API_KEY", ""), detach=detach)
    try:
        return asyncio.run(_interruptible(story, screen))
    except HeadgateError as error:
        screen.failed(f"{error}\nLogs are in {FOLDER}.")
        return 1


async def _interruptible(story: Coroutine[None, None, bool], screen: Screen) -> int:
    """The first signal stops the story, which stops its processes; later ones do not disturb it."""
    task = asyncio.ensure_future(story)
    seen: set[signal.Signals] = set()

    def interrupt(number: signal.Signals) -> None:
        if not seen:
            screen.note("\nstopping everything")
            task.cancel()
        seen.add(number)

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    try:
        return 0 if await task else 1
    except asyncio.CancelledError:
        return 0 if screen.finished else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
