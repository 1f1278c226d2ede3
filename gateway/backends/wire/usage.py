"""The tokens of an answer, as chats, completions and embeddings name them and as Responses does."""

from typing import Annotated

import msgspec

from gateway.ledger.prices.rates import STANDARD
from gateway.types import Usage

_LONGEST_TIER = 32  # characters
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a backend's nonsense raises."""

# The bound keeps a backend's nonsense out of the ledger's 64-bit columns: the usage is then unreadable.
Tokens = Annotated[int, msgspec.Meta(le=10**12)]


class _Writes(msgspec.Struct):
    """How long cached parts of a prompt are kept, as litellm passes Anthropic's on."""

    ephemeral_1h_input_tokens: Tokens | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    audio_tokens: Tokens | None = None
    image_tokens: Tokens | None = None
    cache_creation_token_details: _Writes | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Tokens | None = None
    audio_tokens: Tokens | None = None
    image_tokens: Tokens | None = None


class Given(msgspec.Struct):
    """Usage as it stands on the wire."""

    prompt_tokens: Tokens | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens: Tokens | None = None
    completion_tokens_details: _OutputDetails | None = None
    cache_creation_input_tokens: Tokens | None = None  # as litellm passes Anthropic's on
    # Responses
    input_tokens: Tokens | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens: Tokens | None = None
    output_tokens_details: _OutputDetails | None = None

    def meters(self, service_tier: str | None = None) -> Usage | None:
        """None when the provider gave none. An explicit zero is not missing (litellm#37992).

        A cached token of audio or of an image counts as cached: providers do not say how the two overlap.
        """
        into = self.input_tokens if self.prompt_tokens is None else self.prompt_tokens
        out = self.output_tokens if self.completion_tokens is None else self.completion_tokens
        if into is None and out is None:
            return None
        inputs = self.prompt_tokens_details or self.input_tokens_details or _InputDetails()
        outputs = self.completion_tokens_details or self.output_tokens_details or _OutputDetails()
        read, said = max(0, into or 0), max(0, out or 0)
        cached = max(0, inputs.cached_tokens or 0)
        written = max(0, inputs.cache_write_tokens or self.cache_creation_input_tokens or 0)
        thought = max(0, outputs.reasoning_tokens or 0)
        writes = inputs.cache_creation_token_details
        heard = _part(inputs.audio_tokens, read - cached - written)
        spoken = _part(outputs.audio_tokens, said - thought)
        return Usage(
            input_tokens=read,
            cached_input_tokens=cached,
            cache_write_tokens=written,
            cache_write_1h_tokens=_part(writes.ephemeral_1h_input_tokens if writes else 0, written),
            audio_input_tokens=heard,
            image_input_tokens=_part(inputs.image_tokens, read - cached - written - heard),
            output_tokens=said,
            reasoning_tokens=thought,
            audio_output_tokens=spoken,
            image_output_tokens=_part(outputs.image_tokens, said - thought - spoken),
            service_tier=tier_of(service_tier),
        )


def _part(tokens: int | None, whole: int) -> int:
    """Of what is left of the whole."""
    return max(0, min(tokens or 0, whole))


def tier_of(named: str | None) -> str:
    """The service tier as rows have it: empty for the plain one, and for a name that is none."""
    if named is None or named in STANDARD or len(named) > _LONGEST_TIER or not named.isidentifier():
        return ""
    return named


class _Body(msgspec.Struct):
    usage: Given | None = None
    service_tier: str | None = None


_decode_body = msgspec.json.Decoder(_Body).decode


def usage_of(body: bytes | msgspec.Raw) -> Usage | None:
    """The usage of a whole JSON answer; None when there is none that makes sense."""
    try:
        found = _decode_body(body)
    except UNREADABLE:
        return None
    return found.usage.meters(found.service_tier) if found.usage else None


class _Named(msgspec.Struct):
    id: str = ""


_decode_named = msgspec.json.Decoder(_Named).decode
_LONGEST_ID = 256  # characters


def answer_id(body: bytes | msgspec.Raw) -> str:
    """The id of a whole JSON answer; empty where it has none that can be kept."""
    try:
        found = _decode_named(body).id
    except UNREADABLE:
        return ""
    return found if len(found) <= _LONGEST_ID and found.isascii() and found.isprintable() else ""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Part(msgspec.Struct):
    text: str | None = None


class _Item(msgspec.Struct):
    content: list[_Part] | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []
    output: list[_Item] = []  # Responses


def answer_text(body: bytes) -> str:
    """What a whole answer says; empty where it cannot be read."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except UNREADABLE:
        return ""
    said = [c.message.content if c.message else c.text for c in answer.choices]
    said += [part.text for item in answer.output for part in item.content or ()]
    return "\n".join(text or "" for text in said)
