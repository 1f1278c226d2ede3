"""One door out: nothing else in the product opens a connection, save what is listed here with its reason."""

import ast
from pathlib import Path

import pytest

import gateway
from gateway.errors import EgressRefused
from gateway.privacy.egress import local_client
from router_policies.types import PrivacyClass, Zone

ROOT = Path(gateway.__file__).parent.parent
PACKAGES = ("gateway", "router_policies", "adapters", "finetune")

# Whatever makes a client or a socket, by its full name.
OPENERS = {
    *(f"httpx.{name}" for name in ("Client", "AsyncClient", "HTTPTransport", "AsyncHTTPTransport")),
    *(
        f"httpx.{verb}"
        for verb in ("request", "get", "post", "put", "patch", "delete", "head", "options", "stream")
    ),
    *(f"requests.{name}" for name in ("Session", "request", "get", "post", "put", "patch", "delete", "head")),
    *(f"urllib.request.{name}" for name in ("urlopen", "urlretrieve", "build_opener", "OpenerDirector")),
    *(f"http.client.{name}" for name in ("HTTPConnection", "HTTPSConnection")),
    *(f"asyncio.{name}" for name in ("open_connection", "open_unix_connection")),
    *(f"socket.{name}" for name in ("socket", "create_connection", "socketpair")),
    *(f"litellm.llms.custom_httpx.http_handler.{name}" for name in ("AsyncHTTPHandler", "HTTPHandler")),
    "opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter",
    "huggingface_hub.snapshot_download",
    "smtplib.SMTP",
    "ftplib.FTP",
}
METHODS = {"create_connection", "create_datagram_endpoint", "sock_connect", "create_unix_connection"}
LIBRARIES = {"aiohttp", "urllib3", "httpcore", "websockets", "pycurl", "grpc", "boto3", "paramiko", "smtplib"}

ALLOWED = {
    "gateway/privacy/egress.py": "the door",
    "gateway/backends/cloud.py": "hands litellm a client whose transport is the door's (test_cloud_guard)",
    "gateway/monitor/spans.py": "spans hold no content, and go to an address of our own network (settings)",
    "gateway/cli/client.py": "an operator's command speaks to the gateway's admin API",
    "gateway/cli/workers.py": "a socket pair between the supervisor and its workers",
    "gateway/cli/listener.py": "the port that the gateway listens on",
    "gateway/backends/vllm_process.py": "health of a vLLM that this machine has just started, on loopback",
    "gateway/backends/vllm_cpu.py": "imports vLLM's own modules, in vLLM's process",
    "gateway/privacy/recogniser/process.py": "a socket pair between the gateway and its recogniser's process",
    "gateway/privacy/recogniser/worker.py": "the other end of that pair",
    "gateway/privacy/recogniser/engines.py": "loads the library that is configured, in that process",
    "gateway/limits/redis.py": "counts for rate limits: names of keys, teams and routes, and numbers",
    "gateway/demo/parts.py": "the demonstration speaks to its own gateway",
    "gateway/demo/children.py": "finds a free port",
    "adapters/replica.py": "stands alone; the gateway hands it a client of the door's (fleet.py)",
    "finetune/base.py": "fetches a base model by name, in the trainer's process: sends no content",
}


def opens(source: str) -> list[int]:
    """The lines at which a client or a socket could come into being, however it was imported."""
    tree = ast.parse(source)
    known, lines = _imported(tree)
    return lines + [node.lineno for node in ast.walk(tree) if _opens(node, known)]


def _imported(tree: ast.AST) -> tuple[dict[str, str], list[int]]:
    """What each imported name stands for, and the lines that import a library of clients."""
    known: dict[str, str] = {}
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                known[alias.asname or first] = alias.name if alias.asname else first
                lines += [node.lineno] if first in LIBRARIES else []
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            lines += [node.lineno] if node.module.partition(".")[0] in LIBRARIES else []
    return known, lines


def _opens(node: ast.AST, known: dict[str, str]) -> bool:
    """Whether the node calls an opener, inherits from one, gives it another name or imports by a name."""
    match node:
        case ast.Call():
            name = _full_name(node.func, known)
            imports = name in ("importlib.import_module", "__import__") and not _names_our_own(node.args[0])
            return name in OPENERS or name.rpartition(".")[2] in METHODS or imports
        case ast.ClassDef():
            return any(_full_name(base, known) in OPENERS for base in node.bases)
        case ast.Assign() | ast.AnnAssign() if node.value is not None:
            return _full_name(node.value, known) in OPENERS
    return False


def _full_name(node: ast.expr, known: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, known)}.{node.attr}"
    return ""


def _names_our_own(node: ast.expr) -> bool:
    """A module that is imported by name must be one of ours, so that this test reads it too."""
    return isinstance(node, ast.Constant) and str(node.value).partition(".")[0] in PACKAGES


def test_nothing_else_opens_a_connection() -> None:
    """In all four packages only what is listed does, and all that is listed does: the list stays true."""
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix() for path in sources if opens(path.read_text())}
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "import httpx\nhttpx.AsyncClient()",
        "import httpx as h\nh.post('https://x.example', json=body)",
        "from httpx import AsyncClient as C\nC()",
        "from httpx import AsyncHTTPTransport\nclass Mine(AsyncHTTPTransport): ...",
        "import httpx\nmake = httpx.Client\nmake()",
        "import requests\nrequests.Session()",
        "import urllib.request\nurllib.request.urlopen('https://x.example')",
        "from urllib.request import urlopen\nurlopen('https://x.example')",
        "import http.client\nhttp.client.HTTPSConnection('x.example')",
        "import socket\nsocket.create_connection(('x.example', 443))",
        "import asyncio\nawait_ = asyncio.open_connection('x.example', 443)",
        "loop.create_connection(factory, 'x.example', 443)",
        "import aiohttp",
        "from aiohttp import ClientSession",
        "import importlib\nimportlib.import_module('aiohttp').ClientSession()",
        "__import__(name)",
    ],
)
def test_the_search_finds_a_planted_client(source: str) -> None:
    """The test above could fail: each way to a client is seen."""
    assert opens(source)


@pytest.mark.parametrize(
    "source",
    [
        "import httpx\ndef f(client: httpx.AsyncClient) -> httpx.Response: ...",
        "from urllib.parse import urlsplit\nurlsplit('x')",
        "import asyncio\nasyncio.create_task(x)",
        "import importlib\nimportlib.import_module('gateway.backends.cloud')",
    ],
)
def test_the_search_lets_others_pass(source: str) -> None:
    """To name a client's type, or to do something else with the same module, opens nothing."""
    assert not opens(source)


async def test_our_own_replicas_are_reached_through_the_door_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes of adapters hold content: their client goes to one host, by no proxy, and nowhere outside."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    home = Zone(name="home", ceiling=PrivacyClass.RESTRICTED, local=True)
    cloud = Zone(name="cloud", ceiling=PrivacyClass.INTERNAL)
    async with local_client("vllm", home, "http://127.0.0.1:8000/v1") as client:
        assert client._mounts == {}
        with pytest.raises(EgressRefused, match="backend vllm may reach"):
            await client.get("http://192.0.2.1/")
    async with local_client("vllm", cloud, "http://127.0.0.1:8000/v1") as client:
        with pytest.raises(EgressRefused, match="needs a permit"):
            await client.post("http://127.0.0.1:8000/v1/completions", json={"prompt": "content"})
