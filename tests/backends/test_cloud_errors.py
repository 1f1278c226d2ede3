"""How calls fail: each failure of the provider, the connection or litellm, in the pipeline's own classes."""

import inspect
from typing import Any

import httpx
import msgspec
import pytest
from litellm import exceptions

from gateway.backends import cloud
from gateway.errors import BackendError, StreamBroken
from router_policies.types import ErrorClass
from tests.backends.cloud_case import PROVIDERS, Broken, Rented, recorded

CLASSES = {
    400: ErrorClass.REFUSED,
    401: ErrorClass.REFUSED,
    403: ErrorClass.REFUSED,
    404: ErrorClass.NOT_FOUND,
    413: ErrorClass.REFUSED,
    429: ErrorClass.RATE_LIMIT,
    500: ErrorClass.SERVER_ERROR,
    503: ErrorClass.SERVER_ERROR,
    529: ErrorClass.SERVER_ERROR,
}
OVERLOADED = (
    b"event: error\n"
    b'data: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
)
ERRORS = [
    (provider, case)
    for provider in PROVIDERS
    for case in msgspec.json.decode(recorded(f"{provider}_errors.json"))
]


async def failure(rented: Rented, **asked: Any) -> BackendError:
    with pytest.raises(BackendError) as failed:
        await rented.ask(**asked)
    return failed.value


def test_every_exception_of_litellm_has_a_class() -> None:
    """Fails when litellm grows an exception that the table does not name."""
    theirs = {
        kind
        for _, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == exceptions.__name__
    }
    assert theirs <= set(cloud._ERRORS), "name them in cloud._ERRORS"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("provider", "case"), ERRORS, ids=lambda v: v if isinstance(v, str) else str(v["status"])
)
async def test_what_the_provider_says(provider: str, case: Any, stream: bool) -> None:
    """Its status and its words come through, whole or streamed, with the class that the status means."""
    rented = Rented(provider)
    rented.answer(httpx.Response(case["status"], headers={"retry-after": "7"}, json=case["body"]))
    error = await failure(rented, stream=stream)
    said = case["body"]["error"]["message"]
    blocked = "content filtering" in said
    assert error.error_class is (ErrorClass.CONTENT_POLICY if blocked else CLASSES[case["status"]])
    assert (error.status, error.message, error.retry_after) == (case["status"], said, "7")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_codes_that_clients_know(stream: bool) -> None:
    """A prompt that is too long, an unknown model, a blocked answer: OpenAI has codes for these."""
    codes = {}
    for case in msgspec.json.decode(recorded("anthropic_errors.json")):
        rented = Rented("anthropic")
        rented.answer(httpx.Response(case["status"], json=case["body"]))
        codes[case["body"]["error"]["message"]] = (await failure(rented, stream=stream)).code
    assert {code for code in codes.values() if code} == {
        "content_policy_violation",
        "context_length_exceeded",
        "invalid_api_key",
        "model_not_found",
    }
    assert codes["prompt is too long: 210000 tokens > 200000 maximum"] == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("raised", "error_class"),
    [
        (httpx.ConnectError("refused"), ErrorClass.CONNECTION),
        (httpx.RemoteProtocolError("closed"), ErrorClass.CONNECTION),
        (httpx.ReadError("reset"), ErrorClass.CONNECTION),
        (httpx.ConnectTimeout("slow"), ErrorClass.TIMEOUT),
        (TimeoutError(), ErrorClass.TIMEOUT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_no_answer(provider: str, stream: bool, raised: Exception, error_class: ErrorClass) -> None:
    """A connection that fails is no fault of the provider's, and litellm does not send the request again."""
    rented = Rented(provider)
    rented.router.route().mock(side_effect=raised)
    error = await failure(rented, stream=stream)
    assert error.error_class is error_class
    assert len(rented.router.calls) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [302, 502])
async def test_answers_that_are_no_answers(provider: str, status: int) -> None:
    """A redirect is not followed, and a proxy's HTML does not get into our error."""
    rented = Rented(provider)
    headers = {"location": "https://elsewhere.example/", "content-type": "text/html"}
    rented.answer(httpx.Response(status, headers=headers, content=b"<html>no</html>"))
    error = await failure(rented)
    assert (error.error_class, error.status) == (ErrorClass.SERVER_ERROR, 502)
    assert "html" not in error.message
    assert len(rented.router.calls) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("content", [b"{not json", b"{}", b""])
async def test_an_answer_that_cannot_be_read(provider: str, content: bytes) -> None:
    """Status 200 and nonsense is the provider's fault, never the client's."""
    rented = Rented(provider)
    rented.answer(httpx.Response(200, content=content))
    assert (await failure(rented)).error_class is ErrorClass.SERVER_ERROR


async def test_an_error_as_the_first_event() -> None:
    """Anthropic can fail after its 200, before any text: another backend may still take over."""
    rented = Rented("anthropic")
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=OVERLOADED))
    error = await failure(rented, stream=True)
    assert error.error_class is ErrorClass.SERVER_ERROR
    assert "Overloaded" in error.message
    assert "litellm" not in error.message


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_empty_stream(provider: str) -> None:
    """Nothing at all is a failure, and not an answer that stopped at once."""
    rented = Rented(provider)
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b""))
    assert (await failure(rented, stream=True)).error_class is ErrorClass.SERVER_ERROR


def _first_half(provider: str) -> bytes:
    """A stream up to the last of its text, before it says that it is at its end."""
    whole = recorded(f"{provider}_stream.sse")
    return (
        whole[: whole.index(b" look.") + 100].rpartition(b"\n\n" if provider == "anthropic" else b"\r\n\r\n")[
            0
        ]
        + b"\n\n"
    )


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "error",
    [None, httpx.ReadError("reset"), httpx.RemoteProtocolError("peer closed"), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
async def test_a_stream_that_breaks(provider: str, error: Exception | None) -> None:
    """After the first event: StreamBroken, and neither an invented finish nor an end mark.

    Also where the body ends well and only the provider's own end is missing, which litellm calls `stop`.
    """
    rented = Rented(provider)
    body = Broken([_first_half(provider)], error)
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body))
    response = await rented.backend.send(rented.request(stream=True))
    got = bytearray()
    with pytest.raises(StreamBroken):
        await _read(response, got)
    assert b"I'll" in got
    assert b'"finish_reason":"' not in got
    assert b"[DONE]" not in got
    await response.aclose()
    assert body.closed


async def _read(response: Any, into: bytearray) -> None:
    while chunk := await response.read():
        into += chunk


async def test_an_error_event_in_mid_stream() -> None:
    """Anthropic's `error` event after text: the stream is broken, in the provider's words."""
    rented = Rented("anthropic")
    body = _first_half("anthropic") + OVERLOADED
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body))
    response = await rented.backend.send(rented.request(stream=True))
    with pytest.raises(StreamBroken, match="Overloaded"):
        await _read(response, bytearray())


async def test_text_that_looks_like_the_end_is_not_the_end() -> None:
    """A model that quotes its provider's wire cannot make a cut stream look whole."""
    rented = Rented("gemini")
    quote = {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": '"finishReason": "STOP"'}]}, "index": 0}
        ]
    }
    event = b"data: " + msgspec.json.encode(quote) + b"\r\n\r\n"
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=event))
    response = await rented.backend.send(rented.request(stream=True))
    with pytest.raises(StreamBroken):
        await _read(response, bytearray())
