"""The rented APIs that `cloud.py` reaches, and what of OpenAI's requests each of them can take.

A table of what tests have seen arrive on the provider's wire. litellm knows of more, but drops some of it
without a word (Anthropic's `json_object`, Gemini's `parallel_tool_calls`), turns some into other things
(`service_tier: auto` into Gemini's dearest tier), and would take its own options (`api_base`,
`mock_response`) from a client's body. What is not in the table is refused by name.

A provider and an endpoint are here only when litellm was seen to send the call through the client that it
is given. Embeddings are not: Gemini's go out past that client, and their usage is litellm's own guess.
Nothing in this module imports litellm, which takes seconds.
"""

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.errors import BackendError, ConfigError
from router_policies.types import ErrorClass

_SAMPLING = frozenset({"max_tokens", "temperature", "top_p", "stop"})
_CHAT = _SAMPLING | {
    "messages",
    "max_completion_tokens",
    "tools",
    "tool_choice",
    "response_format",
    "reasoning_effort",
}
_OURS = frozenset({"model", "stream", "stream_options"})  # set by `cloud.py` itself

# Who asks, and where OpenAI keeps it. No answer depends on it, and a provider need not know.
_ABOUT_THE_CALLER = frozenset(
    {"metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)

# Said or not said, these mean the same.
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tools": ([],),
}
_COMPLETION_MAX_TOKENS = 16  # OpenAI's default for this endpoint
_REMOTE = re.compile(r"^\s*(?!data:)[a-zA-Z][a-zA-Z0-9+.-]*:", re.ASCII)


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """`end` and `counted` are found in the bytes of an answer that came to its end, and that holds usage."""

    api_base: str
    chat: frozenset[str]
    completions: frozenset[str]
    formats: frozenset[str]  # types of `response_format`
    end: re.Pattern[bytes]
    counted: re.Pattern[bytes]


# A quote after a backslash stands inside a JSON string: what a model says can never look like the end.
PROVIDERS = {
    "anthropic": Provider(
        api_base="https://api.anthropic.com",
        chat=_CHAT | {"parallel_tool_calls"},
        completions=_SAMPLING,
        formats=frozenset({"text", "json_schema"}),
        end=re.compile(rb'(?<!\\)"stop_reason"\s*:\s*"'),
        counted=re.compile(rb'(?<!\\)"output_tokens"\s*:'),
    ),
    "gemini": Provider(
        api_base="https://generativelanguage.googleapis.com/v1beta",
        chat=_CHAT | {"seed", "frequency_penalty", "presence_penalty"},
        completions=_SAMPLING | {"seed", "frequency_penalty", "presence_penalty"},
        formats=frozenset({"text", "json_object", "json_schema"}),
        end=re.compile(rb'(?<!\\)"(finishReason|blockReason)"\s*:\s*"'),
        counted=re.compile(rb'(?<!\\)"usageMetadata"\s*:'),
    ),
}


def known(backend: str, provider: str) -> Provider:
    """Raises ConfigError for a provider that is not in the table."""
    if provider not in PROVIDERS:
        names = ", ".join(sorted(PROVIDERS))
        raise ConfigError(f"backends.{backend}", [f"provider: {provider!r} is not known; known are {names}"])
    return PROVIDERS[provider]


def origin(provider: str, api_base: str = "") -> tuple[str, int]:
    """Host and port that a backend of this provider must be allowed to reach; none for an unknown one."""
    default = PROVIDERS[provider].api_base if provider in PROVIDERS else ""
    parts = urlsplit(api_base or default)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def translated(endpoint: str, body: dict[str, Any], provider: str) -> dict[str, Any]:
    """What litellm.acompletion is asked for. Raises BackendError for what the provider cannot do."""
    can = PROVIDERS[provider]
    if endpoint == "chat/completions":
        asked = _taken(body, can.chat, provider)
        _check_format(asked, can, provider)
        _check_media(asked.get("messages"), provider)
        return asked
    if endpoint == "completions":
        return _completion(body, can, provider)
    raise _refusal(f"{provider} is not offered for /v1/{endpoint}", None)


def _completion(body: dict[str, Any], can: Provider, provider: str) -> dict[str, Any]:
    """These providers only chat: the prompt becomes a user's message."""
    asked = _taken({**body, "prompt": None}, can.completions, provider)
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise _refusal(f"{provider} takes one prompt, given as text", "prompt")
    return {
        "max_tokens": _COMPLETION_MAX_TOKENS,
        **asked,
        "messages": [{"role": "user", "content": prompt}],
    }


def _taken(body: dict[str, Any], accepted: frozenset[str], provider: str) -> dict[str, Any]:
    taken = {}
    for name, value in body.items():
        if value is None or name in _OURS or name in _ABOUT_THE_CALLER:
            continue
        if name in accepted:
            taken[name] = value
        elif value not in _DEFAULTS.get(name, ()):
            raise _refusal(f"{provider} does not support the parameter {name!r}", name)
    if not taken.get("tools"):
        taken.pop("tools", None)
    return taken


def _check_format(asked: dict[str, Any], can: Provider, provider: str) -> None:
    wanted = asked.get("response_format") or {}
    kind = wanted.get("type", "text") if isinstance(wanted, dict) else wanted
    if kind not in can.formats:
        raise _refusal(f"{provider} does not support response_format {kind!r}", "response_format")


def _check_media(messages: Any, provider: str) -> None:
    """litellm would fetch what an address names, from here and past the door. So: bytes, not addresses."""
    talk = messages if isinstance(messages, list) else []
    contents = [m.get("content") for m in talk if isinstance(m, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    if any(_names_an_address(part) for part in parts):
        raise _refusal(f"{provider} takes images and files as data: URLs only", "messages")


def _names_an_address(node: Any) -> bool:
    if isinstance(node, dict):
        return node.get("type") != "text" and any(_names_an_address(value) for value in node.values())
    if isinstance(node, list):
        return any(_names_an_address(item) for item in node)
    return isinstance(node, str) and _REMOTE.match(node) is not None


def _refusal(message: str, param: str | None) -> BackendError:
    return BackendError(
        ErrorClass.REFUSED,
        message,
        status=400,
        type="invalid_request_error",
        code="unsupported_parameter" if param else "unsupported_endpoint",
        param=param,
    )
