"""A client for one vLLM replica's admin side: what it serves, load, unload, and the calls that a probe needs.

vLLM's routes for loading are for trusted networks, and its key both infers and loads: only the gateway holds
it, and only replicas in a local zone are spoken to from here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import msgspec

from adapters.errors import ReplicaRefused, ReplicaUnreachable
from adapters.load import ReplicaLoad, parse_load

ASK_TIMEOUT_S = 5.0  # listing, unloading, tokenizing: answered from memory
WORK_TIMEOUT_S = 120.0  # loading reads the adapter's files, the first completion warms kernels up
T = TypeVar("T")
ALREADY_LOADED = "has already been loaded"


class ServedModel(msgspec.Struct, frozen=True):
    """One model as `/v1/models` lists it. An adapter has a `parent`; its `root` is where it came from."""

    id: str
    root: str | None = None
    parent: str | None = None


class _ModelList(msgspec.Struct, frozen=True):
    data: tuple[ServedModel, ...]


class _Logprobs(msgspec.Struct, frozen=True):
    token_logprobs: tuple[float, ...]


class _Choice(msgspec.Struct, frozen=True):
    text: str
    logprobs: _Logprobs
    index: int = 0  # of its prompt


class _Completion(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...]


class _Tokens(msgspec.Struct, frozen=True):
    tokens: tuple[int, ...]


class Completion(NamedTuple):
    """A greedy answer: its text without special tokens, and a natural log-probability for each token."""

    text: str
    logprobs: tuple[float, ...]


class Replica:
    """One vLLM server. Every method raises ReplicaUnreachable or ReplicaRefused, and nothing else.

    `base_url` is the server's root, with or without `/v1`. A client that is passed in stays its owner's.
    """

    def __init__(
        self, name: str, base_url: str, *, api_key: str = "", client: httpx.AsyncClient | None = None
    ) -> None:
        self.name = name
        self._root = base_url.rstrip("/").removesuffix("/v1")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        # A proxy of the environment would be a way out, for the key as well.
        self._client, self._owned = client or httpx.AsyncClient(trust_env=False), client is None

    async def aclose(self) -> None:
        if self._owned:
            await self._client.aclose()

    async def models(self) -> tuple[ServedModel, ...]:
        """The base first, then the adapters that are loaded."""
        return self._read(await self._ask("GET", "/v1/models"), _ModelList).data

    async def work(self) -> ReplicaLoad:
        """What it says of its work."""
        return parse_load((await self._ask("GET", "/metrics")).text)

    async def load(self, release: str, path: Path) -> bool:
        """Load the adapter in `path`, a folder as the replica sees it. False: the name was loaded already."""
        body = {"lora_name": release, "lora_path": str(path)}  # never load_inplace: prefix cache goes by name
        try:
            await self._ask("POST", "/v1/load_lora_adapter", body, WORK_TIMEOUT_S)
        except ReplicaRefused as refused:
            if refused.status == httpx.codes.BAD_REQUEST and ALREADY_LOADED in refused.reason:
                return False
            raise
        return True

    async def unload(self, release: str) -> bool:
        """Forget an adapter. False: it was not loaded."""
        try:
            await self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": release})
        except ReplicaRefused as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    async def complete(self, model: str, prompt_token_ids: Sequence[int], max_tokens: int) -> Completion:
        """The greedy continuation of a prompt by the base or an adapter."""
        return (await self.complete_all(model, [prompt_token_ids], max_tokens))[0]

    async def complete_all(
        self, model: str, prompts: Sequence[Sequence[int]], max_tokens: int
    ) -> tuple[Completion, ...]:
        """The greedy continuations of several prompts, in one request: vLLM computes them as a batch."""
        body = {
            "model": model,
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": 0,  # of the chosen tokens only
            "add_special_tokens": False,
        }
        answer = await self._ask("POST", "/v1/completions", body, WORK_TIMEOUT_S)
        choices = {choice.index: choice for choice in self._read(answer, _Completion).choices}
        if sorted(choices) != list(range(len(prompts))):
            told = f"{len(prompts)} prompts were completed by choices {sorted(choices)}"
            raise ReplicaRefused(self.name, answer.status_code, told)
        ordered = (choices[at] for at in range(len(prompts)))
        return tuple(Completion(one.text, one.logprobs.token_logprobs) for one in ordered)

    async def tokenize(
        self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[int, ...]:
        """A chat as the replica's own template and tokenizer turn it into a prompt."""
        body = {"model": model, "messages": list(messages), "add_generation_prompt": True}
        if tools:
            body["tools"] = list(tools)
        return self._read(await self._ask("POST", "/tokenize", body), _Tokens).tokens

    async def _ask(
        self, method: str, path: str, body: object = None, timeout_s: float = ASK_TIMEOUT_S
    ) -> httpx.Response:
        try:
            request = self._client.build_request(
                method,
                self._root + path,
                content=None if body is None else msgspec.json.encode(body),
                headers={**self._headers, "content-type": "application/json"},
                timeout=timeout_s,
            )
            answer = await self._send(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            told = str(error) or type(error).__name__
            hangs = isinstance(error, httpx.TimeoutException)
            raise ReplicaUnreachable(self.name, f"{method} {path}: {told}", hangs=hangs) from error
        if not answer.is_success:
            raise ReplicaRefused(self.name, answer.status_code, error_message(answer.content))
        return answer

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Once more where the connection broke: most likely a kept one that the replica closed just then.

        All that is asked here may be asked twice; if the replica is gone the second try says so.
        """
        try:
            return await self._client.send(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            return await self._client.send(request)

    def _read(self, answer: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ReplicaRefused(self.name, answer.status_code, f"unexpected answer: {error}") from error


def error_message(body: bytes) -> str:
    """The message of a vLLM error: nested under `error` in new versions, flat in old ones, or plain text."""
    try:
        envelope = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        envelope = None
    if isinstance(envelope, dict):
        inner = envelope.get("error")
        message = inner.get("message") if isinstance(inner, dict) else envelope.get("message", inner)
        if isinstance(message, str) and message:
            return message
    return body[:500].decode(errors="replace") or "no message"
