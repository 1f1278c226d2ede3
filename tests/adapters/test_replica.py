"""The client of a replica's admin routes, against vLLM's answers as its versions give them."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from adapters.errors import ReplicaRefused, ReplicaUnreachable
from adapters.replica import Replica, error_message

FLAT = {"object": "error", "message": "no such adapter", "type": "NotFoundError", "code": 404}
NESTED = {"error": {"message": "no such adapter", "type": "NotFoundError", "param": None, "code": 404}}


def replica(answer: Callable[[httpx.Request], httpx.Response], **options: str) -> Replica:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return Replica("one", "http://vllm:8000/v1/", client=client, **options)


def answering(status: int, **content: object) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(status, **content)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (json.dumps(NESTED).encode(), "no such adapter"),
        (json.dumps(FLAT).encode(), "no such adapter"),
        (b'{"detail": "Not Found"}', '{"detail": "Not Found"}'),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b"Internal Server Error", "Internal Server Error"),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "��"),
        (b"", "no message"),
    ],
)
def test_error_messages(body: bytes, message: str) -> None:
    """New and old envelopes, FastAPI's own, plain text and no text at all give a message."""
    assert error_message(body) == message


async def test_key_and_address() -> None:
    """The key goes in the header, `/v1` of a base URL is not doubled, and load is never in place."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, text="Success")

    assert await replica(answer, api_key="sk-secret").load("desk@0", Path("/adapters/desk"))
    assert str(seen[0].url) == "http://vllm:8000/v1/load_lora_adapter"
    assert seen[0].headers["authorization"] == "Bearer sk-secret"
    assert json.loads(seen[0].content) == {"lora_name": "desk@0", "lora_path": "/adapters/desk"}


@pytest.mark.parametrize("envelope", ["nested", "flat"])
async def test_loaded_already_is_success(envelope: str) -> None:
    """A second load is told apart from a first, and is no error, in either envelope."""
    body = {"message": "The lora adapter 'a' has already been loaded. If you want ...", "code": 400}
    answer = answering(400, json={"error": body} if envelope == "nested" else body)
    assert await replica(answer).load("a", Path("/a")) is False


@pytest.mark.parametrize("status", [400, 401, 404, 500])
async def test_refused_load(status: int) -> None:
    """Every other refusal is an error with status and message."""
    with pytest.raises(ReplicaRefused, match=rf"one: no such adapter \(HTTP {status}\)") as refused:
        await replica(answering(status, json=NESTED)).load("a", Path("/a"))
    assert refused.value.status == status


async def test_unloading_what_is_not_there() -> None:
    """An adapter that is gone is as good as unloaded."""
    assert await replica(answering(200, text="Success")).unload("a") is True
    assert await replica(answering(404, json=NESTED)).unload("a") is False
    with pytest.raises(ReplicaRefused):
        await replica(answering(500, json=NESTED)).unload("a")


@pytest.mark.parametrize(
    ("error", "hangs"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ReadTimeout(""), True),
        (httpx.RemoteProtocolError("cut"), False),
    ],
)
async def test_unreachable(error: httpx.HTTPError, hangs: bool) -> None:
    """Whatever httpx raises is one error; a replica that is slow is told from one that is not there."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(ReplicaUnreachable, match="GET /v1/models") as unreachable:
        await replica(answer).models()
    assert unreachable.value.hangs is hangs


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data": [{}]}', b'{"data": 1}', b"\xff"])
async def test_an_answer_that_is_not_the_protocols(body: bytes) -> None:
    """Something else that listens there is an error of the replica, not of ours."""
    with pytest.raises(ReplicaRefused, match="unexpected answer"):
        await replica(answering(200, content=body)).models()


async def test_completion() -> None:
    """Text and log-probabilities come back; the call is greedy and sends token ids as they are."""
    seen: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        choice = {"text": "card_desk", "logprobs": {"token_logprobs": [-0.5, -0.25]}}
        return httpx.Response(200, json={"choices": [choice]})

    completion = await replica(answer).complete("desk@0", (1, 2, 3), 2)
    assert completion == ("card_desk", (-0.5, -0.25))
    assert seen[0]["prompt"] == [[1, 2, 3]]
    assert (seen[0]["temperature"], seen[0]["max_tokens"]) == (0, 2)


async def test_a_kept_connection_that_was_closed_is_no_failure() -> None:
    """A connection that breaks is tried once more; a replica that is gone is told after the second try."""
    tries = 0

    def breaks_once(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise httpx.ReadError("reset by peer")
        return httpx.Response(200, json={"data": []})

    async with httpx.AsyncClient(transport=httpx.MockTransport(breaks_once)) as client:
        assert await Replica("a", "http://vllm", client=client).models() == ()

    def always_breaks(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset by peer")

    async with httpx.AsyncClient(transport=httpx.MockTransport(always_breaks)) as client:
        with pytest.raises(ReplicaUnreachable, match="reset by peer"):
            await Replica("a", "http://vllm", client=client).models()
