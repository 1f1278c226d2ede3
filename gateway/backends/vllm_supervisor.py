"""Keeps one local vLLM server up: started, warmed up, watched, and started again when it ends or hangs.

    state      event                            becomes    and
    starting   answered a first request         serving    the count of failures begins anew
    starting   ended, or was not ready in time  waiting    for a pause that doubles with each failure
    serving    ended, or silent for too long    waiting    likewise
    waiting    the pause is over                starting

The gateway needs no word of it: its reconciler finds the new server empty and gives it its adapters back.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.backends.vllm_process import READY_S, VllmFailed, VllmProcess

FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 60.0
LOOK_S = 0.5
SILENT_S = 60.0  # a server under heavy load answers late; one that hangs never does
log = logging.getLogger("headgate.replica")


class Supervisor:
    """`on_ready` hears the seconds that a start took. Ended by cancelling `run`."""

    def __init__(
        self,
        process: VllmProcess,
        *,
        on_ready: Callable[[float], None] = lambda seconds: None,
        on_progress: Callable[[float, str], None] = lambda seconds, line: None,
        ready_s: float = READY_S,
        silent_s: float = SILENT_S,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._process, self._on_ready, self._on_progress = process, on_ready, on_progress
        self._ready_s, self._silent_s, self._first_pause_s = ready_s, silent_s, first_pause_s
        self.starts = 0

    async def run(self) -> None:
        """Until cancelled; then the server is stopped, gracefully first."""
        failures = 0
        try:
            while True:
                try:
                    self.starts += 1
                    self._process.start()
                    self._on_ready(await self._process.wait_ready(self._on_progress, self._ready_s))
                    failures = 0
                    await self._until_gone()
                except VllmFailed as error:
                    log.error("%s: %s", self._process.url, error)
                failures += 1
                await self._process.stop()  # also what is left of one that ended by itself
                pause = min(self._first_pause_s * 2 ** min(failures - 1, 10), LAST_PAUSE_S)
                log.warning("%s: vLLM is started again in %.1f s", self._process.url, pause)
                await asyncio.sleep(pause)
        finally:
            await self._process.stop()

    async def _until_gone(self) -> None:
        heard = time.monotonic()
        while self._process.pid is not None and time.monotonic() < heard + self._silent_s:
            await asyncio.sleep(LOOK_S)
            if await self._process.is_healthy():
                heard = time.monotonic()
        log.warning("%s: vLLM %s", self._process.url, "is silent" if self._process.pid else "has ended")
