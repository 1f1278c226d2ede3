"""One request with the OpenAI SDK, and what the gateway's x-headgate-* headers say of it."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Self

import httpx
import msgspec
from openai import APIStatusError, AsyncOpenAI, OpenAIError

from gateway.demo.config import OWNED
from gateway.ledger.prices import NANO_PER_USD

MOST_TOKENS = 16
TIMEOUT_S = 120.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `status` is 0 where nothing did; `error` is OpenAI's code, or what went wrong."""

    status: int
    text: str = ""
    error: str = ""
    privacy: str = ""
    route: str = ""
    reason: str = ""
    backend: str = ""
    model: str = ""
    adapter: str = ""
    cost_nano: int | None = None  # None: not known when the headers were sent
    at: float = 0.0  # time.monotonic() when it was complete

    @property
    def ok(self) -> bool:
        return self.status == 200 and not self.error

    @property
    def owned(self) -> bool:
        return self.backend == OWNED

    @property
    def who(self) -> str:
        """The adapter or model that answered."""
        return self.adapter or self.model


class Client:
    """A client of the gateway. It does not retry: a request that fails is seen to fail."""

    def __init__(self, url: str, key: str) -> None:
        self._sdk = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=TIMEOUT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sdk.close()

    async def chat(self, model: str, messages: Sequence[Any], **more: Any) -> Answer:
        """A chat completion; `more` are further parameters of the SDK's call."""

        async def call() -> tuple[httpx.Headers, str]:
            raw = await self._sdk.chat.completions.with_raw_response.create(
                model=model, messages=list(messages), max_tokens=MOST_TOKENS, temperature=0, **more
            )
            return raw.headers, raw.parse().choices[0].message.content or ""

        return await _answered(call)

    async def stream(self, model: str, messages: Sequence[Any]) -> Answer:
        async def call() -> tuple[httpx.Headers, str]:
            raw = await self._sdk.chat.completions.with_raw_response.create(
                model=model, messages=list(messages), max_tokens=MOST_TOKENS, stream=True
            )
            chunks = [chunk async for chunk in raw.parse()]
            return raw.headers, "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

        return await _answered(call)

    async def embed(self, model: str, text: str) -> Answer:
        async def call() -> tuple[httpx.Headers, str]:
            raw = await self._sdk.embeddings.with_raw_response.create(model=model, input=text)
            return raw.headers, f"{len(raw.parse().data[0].embedding)} numbers"

        return await _answered(call)


async def _answered(call: Callable[[], Awaitable[tuple[httpx.Headers, str]]]) -> Answer:
    try:
        headers, text = await call()
    except APIStatusError as error:
        return _read(error.response.headers, status=error.status_code, error=error.code or error.message)
    except (OpenAIError, httpx.HTTPError) as error:  # no connection, a timeout, a stream that broke off
        return Answer(status=0, error=f"{type(error).__name__}: {error}", at=time.monotonic())
    return _read(headers, status=200, text=text)


def _read(headers: Mapping[str, str], *, status: int, text: str = "", error: str = "") -> Answer:
    cost = headers.get("x-headgate-cost")
    return Answer(
        status=status,
        text=text.strip(),
        error=error,
        privacy=headers.get("x-headgate-privacy-class", ""),
        route=headers.get("x-headgate-route", ""),
        reason=headers.get("x-headgate-reason", ""),
        backend=headers.get("x-headgate-backend", ""),
        model=headers.get("x-headgate-model", ""),
        adapter=headers.get("x-headgate-adapter", ""),
        cost_nano=None if cost is None else int(Decimal(cost) * NANO_PER_USD),
        at=time.monotonic(),
    )
