"""The fake provider's tokens: real ones, so that limits, meters and prices see numbers like a provider's."""

import hashlib
from typing import Any

import msgspec
import tiktoken

from gateway.backends.fake_text import content_text
from gateway.ledger.tokens import encoder

_MESSAGE_TOKENS = 3  # around each message, and once more before the answer: OpenAI's chat format
_IMAGE_TOKENS = 85  # an image in low detail
_CACHE_MIN, _CACHE_STEP = 1024, 128  # OpenAI caches prompts from 1,024 tokens, in steps of 128


def encoding() -> tiktoken.Encoding:
    """What the fake counts with, whatever model it is asked for."""
    return encoder("o200k_base")


def pieces(text: str) -> list[str]:
    """The text, cut where its tokens end; a character that spans tokens stays whole."""
    cut, held = [], b""
    for token in encoding().decode_tokens_bytes(encoding().encode_ordinary(text)):
        held += token
        try:
            cut.append(held.decode())
        except UnicodeDecodeError:
            continue
        held = b""
    return cut


def chat_prompt(body: dict[str, Any]) -> tuple[list[int], int]:
    """The tokens of a chat's text, and the number that the format and images add to them."""
    messages = body["messages"]
    parts = [part for m in messages if isinstance(m.get("content"), list) for part in m["content"]]
    images = sum(part.get("type") in ("image_url", "input_image") for part in parts)
    text = "".join(_rendered(m) for m in messages)
    if body.get("tools"):
        text = msgspec.json.encode(body["tools"]).decode() + text
    return encoding().encode_ordinary(text), _MESSAGE_TOKENS * (len(messages) + 1) + _IMAGE_TOKENS * images


def text_tokens(text: str | list[int]) -> list[int]:
    """A prompt's or an input's tokens; clients may send the tokens themselves."""
    return encoding().encode_ordinary(text) if isinstance(text, str) else text


def detokenised(text: str | list[int]) -> str:
    return text if isinstance(text, str) else encoding().decode(text)


def _rendered(message: dict[str, Any]) -> str:
    calls = msgspec.json.encode(message["tool_calls"]).decode() if message.get("tool_calls") else ""
    return f"{message.get('role', '')}\n{content_text(message.get('content'))}{calls}"


class PrefixCache:
    """Remembers prompts as OpenAI's prompt cache does: the longest known prefix, in steps of 128 tokens."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def hit(self, model: str, tokens: list[int]) -> int:
        """How many tokens were seen before at the head of a prompt; remembers this one."""
        digest, cached = hashlib.blake2b(model.encode(), digest_size=16), 0
        for end in range(_CACHE_STEP, len(tokens) + 1, _CACHE_STEP):
            digest.update(repr(tokens[end - _CACHE_STEP : end]).encode())
            if end < _CACHE_MIN:
                continue
            prefix = digest.copy().digest()
            cached = end if prefix in self._known else cached
            self._known.add(prefix)
        return cached
