"""The parts of the demo, started one after the other and stopped in reverse, whatever happens."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from finetune.base import find_base
from gateway.backends.vllm_process import VllmProcess
from gateway.demo import children
from gateway.demo.config import BASE, RENTED_KEY, VLLM_KEY, Keys, write
from gateway.demo.rented import CHAT, Rented, rented_model
from gateway.demo.rows import Rows
from gateway.demo.screen import Screen
from gateway.errors import HeadgateError

PORT = 4000  # what the other commands take for the gateway's, if it is free
READY_S = 60.0
POLL_S = 0.1
TAIL = 4000  # characters


class GatewayFailed(HeadgateError):
    """`headgate serve` ended or did not become ready. The message holds the tail of its log."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What runs. `environment` holds the secrets that headgate.yaml names."""

    url: str
    config: Path
    environment: Mapping[str, str]
    keys: Keys
    rented: Rented


@asynccontextmanager
async def running(folder: Path, rows: Rows, openai_key: str, screen: Screen) -> AsyncIterator[Parts]:
    """vLLM, the rented model and the gateway, ready for requests."""
    async with AsyncExitStack() as stack:
        rented = await stack.enter_async_context(rented_model(openai_key, (*rows.train, *rows.held_out)))
        screen.part(CHAT, rented.url, _what(rented), stand_in=rented.stand_in is not None)
        vllm_key = secrets.token_urlsafe(24)
        vllm = await stack.enter_async_context(_vllm(folder, vllm_key, screen))
        screen.part("vLLM", vllm.url, f"vLLM on this machine, base {BASE}")
        keys, port = Keys(), children.free_port(PORT)
        parts = Parts(
            url=f"http://127.0.0.1:{port}",
            config=write(folder, port=port, vllm_url=vllm.url, rented_url=rented.url, keys=keys),
            environment={VLLM_KEY: vllm_key, RENTED_KEY: rented.key},
            keys=keys,
            rented=rented,
        )
        await stack.enter_async_context(_gateway(parts, folder / "gateway.log", screen))
        screen.part("gateway", parts.url, f"headgate serve --config {parts.config}")
        yield parts


def _what(rented: Rented) -> str:
    if rented.stand_in is None:
        return "OpenAI's API (OPENAI_API_KEY is set); costs a cent or so"
    return "stands in for the rented API, answers by rule"


@asynccontextmanager
async def _vllm(folder: Path, key: str, screen: Screen) -> AsyncIterator[VllmProcess]:
    """float32: then an adapter's probes compare exactly."""
    process = VllmProcess(
        find_base(BASE)[0],
        BASE,
        children.free_port(),
        log_path=folder / "vllm.log",
        dtype="float32",
        max_model_len=1024,
        api_key=key,
    )
    try:
        process.start()
        with screen.waiting("starting vLLM") as progress:
            await process.wait_ready(progress)
        yield process
    finally:
        await process.stop()


@asynccontextmanager
async def _gateway(parts: Parts, log: Path, screen: Screen) -> AsyncIterator[None]:
    serve = children.running("serve", "--config", str(parts.config), log=log, environment=parts.environment)
    async with serve as process, httpx.AsyncClient(base_url=parts.url) as http:
        started = time.monotonic()
        with screen.waiting("starting the gateway") as progress:
            while not await _is_ready(http):
                seconds = time.monotonic() - started
                if process.returncode is not None or seconds > READY_S:
                    raise GatewayFailed(f"the gateway did not start:\n{_tail(log)}")
                progress(seconds, "waiting for /ready")
                await asyncio.sleep(POLL_S)
        yield


async def _is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/ready")).is_success
    except httpx.HTTPError:
        return False


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
