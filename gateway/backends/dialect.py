"""Where vLLM's answers depart from OpenAI's schema, and the way back. All else passes byte for byte."""

import re

import msgspec

# vLLM writes null where OpenAI leaves out, and OpenAI's schema has no null there. Inside a JSON string the
# quotes would stand behind backslashes, so what a model says never matches.
_NULLS = re.compile(
    rb',"(?:annotations|function_call|prompt_tokens_details|completion_tokens_details)": ?null'
)
_LOGPROBS = re.compile(rb'"logprobs": ?\{"content"')


def as_openai(answer: bytes) -> bytes:
    """A whole answer as OpenAI would write it."""
    return with_refusals(_NULLS.sub(b"", answer))


def with_refusals(data: bytes) -> bytes:
    """An answer, or an event's data, with the log-probabilities of a refusal: null where none are given.

    What cannot be read passes as it came.
    """
    if not _LOGPROBS.search(data):
        return data
    try:
        answer = msgspec.json.decode(data)
        for choice in answer["choices"]:
            if isinstance(choice["logprobs"], dict):
                choice["logprobs"].setdefault("refusal", None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return data
    return msgspec.json.encode(answer)
