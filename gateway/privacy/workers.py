"""A few daemon threads for detectors that may be slow, each call with a deadline.

`concurrent.futures` has a pool, but the interpreter waits for its threads at exit, and a detector
that hangs would keep the process alive. Nothing here waits for a thread that hangs.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class AllStuck(Exception):
    """Every thread is busy with a call that nobody waits for any more."""


class Workers:
    """`run` from one event loop, or from several."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._threads = 0
        self._jobs: SimpleQueue[tuple[Future[object], Callable[[], object]]] = SimpleQueue()
        self._stuck: set[Future[object]] = set()

    async def run(self, job: Callable[[], T], deadline_s: float) -> T:
        """`job()` in a thread. TimeoutError after `deadline_s`, time in the queue included; AllStuck at once.

        `job` raises nothing that the caller wants to see: it returns it.
        """
        if len(self._stuck) >= self._size:
            raise AllStuck
        future: Future[T] = Future()
        self._jobs.put((future, job))  # type: ignore[arg-type]  # one queue for all types of result
        self._start()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), deadline_s)
        finally:
            if future.running():
                self._abandon(future)  # type: ignore[arg-type]

    def _start(self) -> None:
        if self._threads < self._size:
            self._threads += 1
            Thread(target=self._work, name=f"detector-{self._threads}", daemon=True).start()

    def _abandon(self, future: Future[object]) -> None:
        self._stuck.add(future)
        future.add_done_callback(self._stuck.discard)  # at once, if it has just ended

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue  # its deadline passed in the queue
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001  # a thread must survive whatever a plug-in raises
                future.set_exception(RuntimeError(type(error).__name__))
