"""Where vLLM's answers depart from OpenAI's schema, and the way back. All else passes byte for byte."""

import re

import msgspec

# vLLM writes null where OpenAI leaves out, and OpenAI's schema has no null there. Inside a JSON string the
# quotes would stand behind backslashes, so what a model says never matches.
_NULLS = re.compile(rb',"(?:annotations|function_call|prompt_tokens_details|completion_tokens_details)":null')


def as_openai(answer: bytes) -> bytes:
    """A whole answer as OpenAI would write it."""
    if b'details":null' in answer or b'annotations":null' in answer or b'function_call":null' in answer:
        answer = _NULLS.sub(b"", answer)
    return with_refusals(answer)


def with_refusals(data: bytes) -> bytes:
    """An answer, or an event's data, with the log-probabilities of a refusal: null where none are given.

    What cannot be read passes as it came.
    """
    if b'"logprobs":{"content"' not in data:
        return data
    try:
        answer = msgspec.json.decode(data)
        for choice in answer["choices"]:
            if isinstance(choice["logprobs"], dict):
                choice["logprobs"].setdefault("refusal", None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return data
    return msgspec.json.encode(answer)
