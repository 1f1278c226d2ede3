"""Real servers in the test process: an event loop in a thread of its own, and uvicorn on it."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvicorn
import uvloop

from gateway.app import Headgate

T = TypeVar("T")


class LoopThread:
    """An event loop that runs while blocking clients, as the SDKs are, wait in the test's own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Without a loop, one of uvloop's, as in production: its transports are not asyncio's own."""
        self._loop = loop or uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Server:
    """One gateway on a free port of the loopback."""

    def __init__(self, loop: LoopThread, app: Headgate) -> None:
        self._loop = loop
        self._uvicorn = uvicorn.Server(app.server_config(port=0))
        self._uvicorn.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._done = asyncio.run_coroutine_threadsafe(self._serve(), loop._loop)
        loop.run(self._until_started())

    async def _serve(self) -> None:
        await self._uvicorn.serve()

    async def _until_started(self) -> None:
        while not self._uvicorn.started:
            if self._done.done():
                self._done.result()
                raise RuntimeError("the server stopped while starting")
            await asyncio.sleep(0.01)  # uvicorn gives no event to wait for

    @property
    def url(self) -> str:
        port = self._uvicorn.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._done.result(30)
