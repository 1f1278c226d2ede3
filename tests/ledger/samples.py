"""Calls and entries for tests: plausible ones, of which a test changes what it is about."""

from typing import Any

from gateway.types import Entry, Outcome, Usage

STARTED_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z


def entry(call_id: str, **changes: Any) -> Entry:
    """A settled request to a rented model."""
    values: dict[str, Any] = {
        "call_id": call_id,
        "started_ns": STARTED_NS,
        "key_id": "key-1",
        "team": "search",
        "tags": ("batch", "eu"),
        "endpoint": "chat/completions",
        "model_asked": "auto",
        "privacy": "internal",
        "findings": {"email": 2},
        "policy": "default@3",
        "route": "cheap",
        "reason": "matched cheap",
        "backend": "openai-main",
        "zone": "us",
        "model": "gpt-4o-mini",
        "stream": True,
        "attempts": 1,
        "status": 200,
        "outcome": Outcome.OK,
        "usage": Usage(input_tokens=1000, cached_input_tokens=400, output_tokens=50),
        "cost_nano": 150_000,
        "price": "litellm: gpt-4o-mini",
        "first_byte_ms": 210.5,
        "duration_ms": 900.25,
    }
    return Entry(**(values | changes))


def begun(call_id: str, **changes: Any) -> Entry:
    """The same before its answer: the prompt estimated, and priced as such."""
    estimate = Usage(input_tokens=1000, estimated=True)
    return entry(call_id, status=0, first_byte_ms=None, usage=estimate, **changes)
