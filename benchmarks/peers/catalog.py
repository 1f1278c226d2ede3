"""The peers: where each comes from, how it is started, and what it wants of a client.

Each is set up for speed, as its own documentation has it: one worker, no access log, no database, no
telemetry.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.request import Request, urlopen

import msgspec

from .install import Source, binaries, node_modules
from .process import free_port

UPSTREAM_KEY = "sk-upstream"


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where a peer runs."""

    folder: Path
    port: int  # to listen on
    mock: int  # the port of its upstream


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    command: tuple[str, ...]
    files: Mapping[str, str] = {}  # name in the site's folder -> content
    environment: Mapping[str, str] = {}


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    launch: Callable[[Site], Launch] | None  # None: the mock itself, no gateway between
    source: Source = Source()
    path: str = "/v1/chat/completions"
    model: str = "gpt-4o-mini"
    key: str = "sk-bench"
    headers: Callable[[int], tuple[str, ...]] = lambda mock: ()  # besides the key
    port_in_output: str = ""  # a pattern: it chooses its port itself and prints it
    streams: bool = True
    slow: bool = False  # too slow for the common rates: gets an eighth of them
    settle: Callable[[int], None] | None = None  # waits until work that a load left behind is done


def ask(peer: Peer, port: int, mock: int, body: bytes) -> bytes:
    """One request as a client of `peer` makes it. Raises OSError."""
    headers = {"authorization": f"Bearer {peer.key}", "content-type": "application/json"}
    headers |= dict(header.split(": ", 1) for header in peer.headers(mock))
    with urlopen(Request(f"http://127.0.0.1:{port}{peer.path}", body, headers), timeout=10) as answer:
        return bytes(answer.read())


def _nginx(site: Site) -> Launch:
    temporary = "\n".join(
        f"  {kind}_temp_path {site.folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = f"""worker_processes 1; daemon off; pid {site.folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
{temporary}
  access_log off; tcp_nodelay on; keepalive_requests 10000000; keepalive_timeout 300;
  client_body_buffer_size 64k;
  upstream mock {{ server 127.0.0.1:{site.mock}; keepalive 512; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{site.port} backlog=2048;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 600;
      proxy_set_header Connection ""; proxy_set_header Authorization "Bearer {UPSTREAM_KEY}";
    }}
  }}
}}
"""
    return Launch(
        command=("nginx", "-c", f"{site.folder}/nginx.conf", "-p", str(site.folder)),
        files={"nginx.conf": conf},
    )


def _litellm(site: Site) -> Launch:
    yaml = f"""model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini-2024-07-18
      api_base: "http://127.0.0.1:{site.mock}/v1"
      api_key: {UPSTREAM_KEY}
litellm_settings: {{set_verbose: false, telemetry: false, num_retries: 0, request_timeout: 600}}
general_settings: {{master_key: sk-bench, disable_spend_logs: true}}
"""
    program = str(binaries("litellm") / "litellm")
    return Launch(
        command=(
            program, "--config", f"{site.folder}/litellm.yaml", "--num_workers", "1", "--telemetry", "False",
            "--host", "127.0.0.1", "--port", str(site.port),
        ),
        files={"litellm.yaml": yaml},
        environment={
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "DISABLE_ADMIN_UI": "True",
            "NO_DOCS": "True",
            "NO_REDOC": "True",
        },
    )  # fmt: skip


def _portkey(site: Site) -> Launch:
    script = node_modules() / "@portkey-ai/gateway/build/start-server.js"
    return Launch(
        command=("node", str(script), f"--port={site.port}", "--headless"),
        environment={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"},
    )


def _portkey_headers(mock: int) -> tuple[str, ...]:
    return ("x-portkey-provider: openai", f"x-portkey-custom-host: http://127.0.0.1:{mock}/v1")


def _tensorzero(site: Site) -> Launch:
    toml = f"""[gateway]
observability.enabled = false
[models."gpt-4o-mini"]
routing = ["mock"]
[models."gpt-4o-mini".providers.mock]
type = "openai"
model_name = "gpt-4o-mini-2024-07-18"
api_base = "http://127.0.0.1:{site.mock}/v1/"
api_key_location = "env::OPENAI_API_KEY"
"""
    # The Python package holds the whole gateway; its server is started from there.
    start = """import asyncio, inspect, sys, tensorzero
async def main():
    gateway = tensorzero._start_http_gateway(
        config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=True)
    gateway = await gateway if inspect.isawaitable(gateway) else gateway
    print("listens at", gateway.base_url, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    return Launch(
        command=(str(binaries("tensorzero") / "python"), "start.py", "tensorzero.toml"),
        files={"tensorzero.toml": toml, "start.py": start},
        environment={"OPENAI_API_KEY": UPSTREAM_KEY, "RUST_LOG": "error"},
    )


def _router(name: str, *program: str) -> Callable[[Site], Launch]:
    """vllm-router is sglang-router's child: they take the same arguments."""

    def launch(site: Site) -> Launch:
        return Launch(
            command=(
                str(binaries(name) / program[0]), *program[1:],
                "--worker-urls", f"http://127.0.0.1:{site.mock}", "--policy", "round_robin",
                "--host", "127.0.0.1", "--port", str(site.port), "--prometheus-port", str(free_port()),
                "--log-level", "error", "--worker-startup-timeout-secs", "30",
            )
        )  # fmt: skip

    return launch


DIRECT = Peer(name="direct", launch=None)
NGINX = Peer(name="nginx", launch=_nginx, source=Source(apt="nginx"))
NGINX_AGAIN = msgspec.structs.replace(NGINX, name="nginx again")
PEERS = {
    peer.name: peer
    for peer in (
        NGINX,
        Peer(
            name="vllm-router",
            launch=_router("vllm-router", "vllm-router"),
            source=Source(pip=("vllm-router==0.1.17",)),
        ),
        Peer(
            name="litellm",
            launch=_litellm,
            source=Source(pip=("litellm[proxy]==1.106.2", "httptools")),
            slow=True,
        ),
        Peer(
            name="sglang-router",
            launch=_router("sglang-router", "python", "-m", "sglang_router.launch_router"),
            source=Source(pip=("sglang-router==0.3.2",)),
        ),
        Peer(
            name="tensorzero",
            launch=_tensorzero,
            source=Source(pip=("tensorzero==2026.6.0",)),
            path="/openai/v1/chat/completions",
            model="tensorzero::model_name::gpt-4o-mini",
            port_in_output=r"listens at http://127\.0\.0\.1:(\d+)/",
        ),
        Peer(
            name="portkey",
            launch=_portkey,
            source=Source(npm=("@portkey-ai/gateway@1.15.2",)),
            headers=_portkey_headers,
            streams=False,  # answers each with 500 here: TypeError: immutable
        ),
    )
}
NEEDED = ("nginx", "vllm-router")  # for the ratios
DEFAULT = ("nginx", "vllm-router", "litellm")
