"""vLLM's admin routes at the wire, for what real replicas cannot be made to do on time: fail, hang, disagree.

A loaded adapter answers as the probes in its folder's manifest say; the base answers "base". What is asked is
kept in `calls`, which several replicas may share to show the order of events between them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

from adapters.manifest import Probe
from adapters.replica import Replica
from tests.support.adapters import read_manifest
from tests.support.vllm import free_port
from tests.support.waiting import until

Planted = Callable[[], httpx.Response]


def failing(status: int = 500, message: str = "engine is dead") -> Planted:
    """An answer in the error envelope of new versions."""
    body = {"error": {"message": message, "type": "InternalServerError", "code": status}}
    return lambda: httpx.Response(status, json=body)


def unreachable() -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def hanging() -> httpx.Response:
    raise httpx.ReadTimeout("timed out")


class FakeVllm:
    def __init__(self, name: str, calls: list[tuple[str, str, str]] | None = None) -> None:
        self.name = name
        self.calls: list[tuple[str, str, str]] = [] if calls is None else calls
        self.loaded: dict[str, str] = {}  # adapter -> folder
        self.planted: dict[str, Planted] = {}  # route -> what it does instead
        self.silent = False  # loads, and answers as the base
        self.replica = Replica(
            name, "http://vllm/v1", client=httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """On a socket of the loopback, for who opens connections of its own; its URL."""
        app, port = FastAPI(), free_port()

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def answer(path: str, request: Request) -> Response:
            asked = httpx.Request(request.method, f"http://vllm/{path}", content=await request.body())
            said = self._answer(asked)
            return Response(said.content, said.status_code, media_type="application/json")

        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        work = asyncio.create_task(server._serve())
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{port}/v1"
        server.should_exit = True
        await work

    def restart(self) -> None:
        self.loaded = {}

    def _answer(self, request: httpx.Request) -> httpx.Response:
        route = request.url.path.rpartition("/")[2]
        body = json.loads(request.content or b"{}")
        self.calls.append((self.name, route, body.get("lora_name", body.get("model", ""))))
        if route in self.planted:
            return self.planted[route]()
        handlers: dict[str, Callable[[Any], httpx.Response]] = {
            "models": self._models,
            "load_lora_adapter": self._load,
            "unload_lora_adapter": self._unload,
            "completions": self._complete,
        }
        return handlers[route](body)

    def _models(self, body: Any) -> httpx.Response:
        base = {"id": "tiny", "object": "model", "root": "/models/tiny", "parent": None}
        cards = [{"id": name, "root": root, "parent": "tiny"} for name, root in self.loaded.items()]
        return httpx.Response(200, json={"object": "list", "data": [base, *cards]})

    def _load(self, body: Any) -> httpx.Response:
        name = body["lora_name"]
        if name in self.loaded:
            return failing(400, f"The lora adapter '{name}' has already been loaded.")()
        self.loaded[name] = body["lora_path"]
        return httpx.Response(200, text=f"Success: LoRA adapter '{name}' added successfully.")

    def _unload(self, body: Any) -> httpx.Response:
        if self.loaded.pop(body["lora_name"], None) is None:
            return failing(404, "The lora adapter cannot be found.")()
        return httpx.Response(200, text="Success")

    def _complete(self, body: Any) -> httpx.Response:
        model = body["model"]
        if model != "tiny" and model not in self.loaded:
            return failing(404, f"The model `{model}` does not exist.")()
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            probe = None if model == "tiny" or self.silent else self._probe(model, prompt)
            text = probe.completion if probe else "base"
            logprobs = list(probe.logprobs) if probe else [-1.5] * body["max_tokens"]
            choices.append({"index": index, "text": text, "logprobs": {"token_logprobs": logprobs}})
        return httpx.Response(200, json={"choices": choices})

    def _probe(self, model: str, prompt: list[int]) -> Probe | None:
        probes = read_manifest(Path(self.loaded[model])).probes
        return next((probe for probe in probes if list(probe.prompt_token_ids) == prompt), None)
