"""Waiting for a condition that another task or process brings about, never for a time to pass."""

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    """Return as soon as `condition` holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to set
            await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """The same outside an event loop."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
