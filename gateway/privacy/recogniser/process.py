"""A worker process kept alive: one question at a time, each with a deadline.

A worker that dies, or does not answer in time, is replaced after a pause that doubles while that goes on. In
the meantime every question fails at once. Nothing of the gateway's environment reaches it but what Python
needs: it reads prompts and has no use for keys.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Event, Lock, Thread

import msgspec

from gateway.errors import HeadgateError
from gateway.privacy.recogniser.frames import FOREVER, UNTIL, receive, send
from gateway.privacy.recogniser.spans import Answer, Span

START_S = 120.0  # a library's large model may take a minute to load
GRACE_S = 0.5  # the worker gives up by itself; after that much more it is stuck
LONGEST_PAUSE_S = 10.0
_KEPT = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "HOME", "TMPDIR", "HF_HOME", "HF_HUB_OFFLINE")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Down(HeadgateError):
    """No answer can be had; the message says why and holds no content."""


class Worker:
    """`ask` from any thread. `start` once, before."""

    def __init__(self, kind: str, model: str) -> None:
        self._arguments = (kind, model)
        self._turn = Lock()
        self._child: _Child | None = None
        self._failures = 0
        self._closed = Event()

    @property
    def kind(self) -> str:
        return self._arguments[0]

    def start(self) -> None:
        """Raises Down when the recogniser cannot be loaded."""
        self._child = _Child(self._arguments)

    def ask(self, text: str, deadline_s: float) -> list[Span]:
        """Waits for its turn and for the answer, `deadline_s` for both. Raises Down."""
        until = time.monotonic() + deadline_s
        if not self._turn.acquire(timeout=-1 if until == FOREVER else deadline_s):
            raise Down("the recogniser is busy")
        try:
            if self._child is None:
                raise Down("the recogniser is being restarted")
            answer = self._child.ask(text, until)
            self._failures = 0
        except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
            self._replace()
            raise Down("the recogniser died or hung; it is restarted") from error
        finally:
            self._turn.release()
        if answer.failure:
            raise Down(f"the recogniser failed: {answer.failure}")
        return answer.spans

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        child = self._child
        return child.pid if child else None

    def close(self) -> None:
        self._closed.set()
        with self._turn:
            if self._child:
                self._child.kill()
            self._child = None

    def _replace(self) -> None:
        if self._child:
            self._child.kill()
        self._child = None
        Thread(target=self._revive, name="recogniser-restart", daemon=True).start()

    def _revive(self) -> None:
        while not self._closed.wait(self._pause_s()):
            self._failures += 1
            try:
                child = _Child(self._arguments)
            except Down:
                continue
            with self._turn:
                if self._closed.is_set():
                    child.kill()
                else:
                    self._child = child
            return

    def _pause_s(self) -> float:
        return min(0.1 * float(2 ** min(self._failures, 10)), LONGEST_PAUSE_S)


class _Child:
    """One process, from its start to its end."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Returns when it is ready. Raises Down."""
        self._channel, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _ONE_THREAD
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module, arguments from the configuration
                    [sys.executable, "-m", "gateway.privacy.recogniser.worker", *arguments],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # a library's warnings may quote the text
                    env=environment,
                    start_new_session=True,  # Ctrl-C is the gateway's; this ends with it
                )
        except OSError as error:
            self._channel.close()
            raise Down(f"cannot be started: {error.strerror}") from error
        self._greeted()

    def _greeted(self) -> None:
        try:
            failure = self._answer(time.monotonic() + START_S).failure
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            failure = f"ended before it was ready ({type(error).__name__})"
        if failure:
            self.kill()
            raise Down(failure)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, text: str, until: float) -> Answer:
        request = UNTIL.pack(until) + text.encode("utf-8", "surrogatepass")
        send(self._channel, request, until + GRACE_S)
        return self._answer(until + GRACE_S)

    def _answer(self, until: float) -> Answer:
        return msgspec.msgpack.decode(receive(self._channel, until), type=Answer)

    def kill(self) -> None:
        self._process.kill()
        self._channel.close()
        self._process.wait()
