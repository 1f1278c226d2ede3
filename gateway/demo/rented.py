"""The rented model: OpenAI's API where OPENAI_API_KEY is set, else a stand-in on this machine.

The stand-in answers the demo's task from the labels of the data set, a fixed share of them wrong, which no
real model does; everything else it answers with a sentence that says what it is.
"""

import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec

from finetune.dataset import Row
from gateway.backends.fake import FakeProvider
from gateway.backends.fake_calls import Behaviour
from gateway.backends.fake_text import Lookup
from gateway.demo.rows import label, question

CHAT, EMBEDDING = "gpt-4o-mini", "text-embedding-3-small"
OPENAI_URL = "https://api.openai.com/v1"
ERROR_RATE = 0.04  # of the stand-in's labels
PACE = Behaviour(times=10**9, latency=0.35, chunk_delay=0.02)  # seconds; of a near and well-tempered API


class Rented(msgspec.Struct, frozen=True):
    """Where the rented model is, and with which key. `stand_in` is None when it is the real one."""

    url: str
    key: str
    stand_in: FakeProvider | None


@asynccontextmanager
async def rented_model(openai_key: str, rows: Iterable[Row]) -> AsyncIterator[Rented]:
    if openai_key:
        yield Rented(OPENAI_URL, openai_key, None)
        return
    key = secrets.token_urlsafe(24)
    answer = Lookup({question(row): label(row) for row in rows}, error_rate=ERROR_RATE)
    provider = FakeProvider(answer=answer, api_key=key, models=(CHAT, EMBEDDING))
    provider.script(PACE)
    await provider.start()
    try:
        yield Rented(f"{provider.url}/v1", key, provider)
    finally:
        await provider.stop()
