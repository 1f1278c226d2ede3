"""A `Generation` as it looks on OpenAI's wire: https://platform.openai.com/docs/api-reference.

As one object or as a stream of chunks; then embeddings and the list of models, which need no generation.
"""

import array
import base64
import itertools
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.backends import fake_tokens
from gateway.backends.fake_generate import Generation, WireError, inputs, required
from gateway.backends.fake_text import unit_vector

OWNER = "headgate-fake"
FINGERPRINT = "fp_headgate_fake"
_DIMENSIONS, _MAX_DIMENSIONS = 1536, 3072


def chat_answer(made: Generation) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": made.text, "refusal": None, "annotations": []}
    if made.tool:
        call = {"name": made.tool.name, "arguments": made.text}
        message["content"] = None
        message["tool_calls"] = [{"id": _call_id(made), "type": "function", "function": call}]
    choice = {"message": message, "logprobs": logprobs(made, made.pieces), "finish_reason": made.finish}
    return _object(made, "chat.completion", [{"index": i, **choice} for i in range(made.choices)], made.usage)


def chat_chunks(made: Generation) -> Iterator[dict[str, Any]]:
    """Role, pieces, finish; the pieces of all choices in turns."""
    first: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if made.tool:
        call = {"name": made.tool.name, "arguments": ""}
        opened = {"index": 0, "id": _call_id(made), "type": "function", "function": call}
        first = {"role": "assistant", "content": None, "tool_calls": [opened], "refusal": None}
    deltas = [(first, None), *((_delta(made, p), logprobs(made, [p])) for p in made.pieces)]
    for delta, scored in deltas:
        yield from _chat_chunk(made, {"delta": delta, "logprobs": scored, "finish_reason": None})
    yield from _chat_chunk(made, {"delta": {}, "logprobs": None, "finish_reason": made.finish})


def _delta(made: Generation, piece: str) -> dict[str, Any]:
    if made.tool:
        return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
    return {"content": piece}


def _chat_chunk(made: Generation, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for index in range(made.choices):
        yield _object(made, "chat.completion.chunk", [{"index": index, **choice}], None)


def completion_answer(made: Generation) -> dict[str, Any]:
    choice = {"text": made.text, "logprobs": _text_logprobs(made, made.pieces), "finish_reason": made.finish}
    return _object(made, "text_completion", [{"index": i, **choice} for i in range(made.choices)], made.usage)


def completion_chunks(made: Generation) -> Iterator[dict[str, Any]]:
    """Pieces, then the finish; the pieces of all choices in turns."""
    for piece in [*made.pieces, None]:
        choice = {
            "text": piece or "",
            "logprobs": _text_logprobs(made, [piece] if piece else []),
            "finish_reason": None if piece else made.finish,
        }
        for index in range(made.choices):
            yield _object(made, "text_completion", [{"index": index, **choice}], None)


def usage_chunk(made: Generation, like: dict[str, Any]) -> dict[str, Any]:
    """The last chunk of a stream whose client asked for usage; `like` any other chunk."""
    return {**like, "choices": [], "usage": made.usage}


def _object(
    made: Generation, kind: str, choices: list[dict[str, Any]], counted: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "id": made.id,
        "object": kind,
        "created": made.created,
        "model": made.model,
        "choices": choices,
        "system_fingerprint": FINGERPRINT,
        **({} if counted is None else {"usage": counted}),
    }


def _call_id(made: Generation) -> str:
    return "call_" + made.id[-24:]


def _logprob(piece: str, rank: int = 0) -> float:
    """Between -0.5 and 0 for the piece itself, lower for each alternative; the same on every call."""
    return -(zlib.crc32(piece.encode()) % 500 + 1) / 1000 - rank


def logprobs(made: Generation, pieces: Sequence[str]) -> dict[str, Any] | None:
    """Those of a chat's pieces; None where they were not asked for."""
    if made.top_logprobs is None or made.tool:
        return None
    ranks = range(made.top_logprobs)
    content = [{**_ranked(p, 0), "top_logprobs": [_ranked(p, rank) for rank in ranks]} for p in pieces]
    return {"content": content, "refusal": None}


def _ranked(piece: str, rank: int) -> dict[str, Any]:
    token = piece + "~" * rank
    return {"token": token, "logprob": _logprob(piece, rank), "bytes": list(token.encode())}


def _text_logprobs(made: Generation, pieces: Sequence[str]) -> dict[str, Any] | None:
    if made.top_logprobs is None:
        return None
    ranks = range(made.top_logprobs)
    return {
        "tokens": list(pieces),
        "token_logprobs": [_logprob(p) for p in pieces],
        "top_logprobs": [{p + "~" * rank: _logprob(p, rank) for rank in ranks} for p in pieces],
        "text_offset": list(itertools.accumulate(map(len, pieces[:-1]), initial=0))[: len(pieces)],
    }


# Embeddings and models.


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    model = required(body, "model")
    texts = inputs(required(body, "input"))
    dimensions = body.get("dimensions") or _DIMENSIONS
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise WireError(f"Invalid value for 'dimensions' = {dimensions}.", param="dimensions")
    vectors = [unit_vector(fake_tokens.detokenised(text), dimensions) for text in texts]
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": _base64(v) if packed else v}
        for i, v in enumerate(vectors)
    ]
    count = sum(len(fake_tokens.text_tokens(text)) for text in texts)
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def _base64(vector: list[float]) -> str:
    """Little-endian float32, as OpenAI packs them."""
    packed = array.array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode("ascii")


def models(names: Sequence[str]) -> dict[str, Any]:
    data = [{"id": name, "object": "model", "created": 1767225600, "owned_by": OWNER} for name in names]
    return {"object": "list", "data": data}
