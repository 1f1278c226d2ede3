"""The names that OpenTelemetry's GenAI semantic conventions have for what the gateway knows.

https://github.com/open-telemetry/semantic-conventions-genai, as of 2026: `gen_ai.system` has become
`gen_ai.provider.name`.
"""

from urllib.parse import urlsplit

import msgspec

from gateway.settings import AnyBackend, LitellmSettings, OpenAISettings, Settings, VllmSettings
from gateway.types import Entry, Outcome

_OPERATIONS = {
    "chat/completions": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
_PROVIDERS = {"gemini": "gcp.gemini"}  # where litellm's name is another
_PORTS = {"http": 80, "https": 443}


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """A backend as telemetry names it. Without a host, the provider's own address is used."""

    provider: str
    host: str = ""
    port: int = 0


def upstreams(settings: Settings) -> dict[str, Upstream]:
    """All backends of the configuration, by name."""
    return {name: _upstream(backend) for name, backend in settings.backends.items()}


def named_models(settings: Settings) -> frozenset[str]:
    """The models that backends are configured to serve, without the wildcard."""
    found: set[str] = set()
    for backend in settings.backends.values():
        found.update((backend.model,) if isinstance(backend, VllmSettings) else backend.models)
    return frozenset(model for model in found if "*" not in model)


def operation(endpoint: str) -> str:
    """`gen_ai.operation.name` of an endpoint below /v1/."""
    return _OPERATIONS.get(endpoint, endpoint)


def error_type(entry: Entry) -> str:
    """`error.type`: why the last attempt failed or else how the call ended; empty where it went well."""
    if entry.outcome is Outcome.OK:
        return ""
    return (entry.error_class or entry.outcome).value


def _upstream(backend: AnyBackend) -> Upstream:
    parts = urlsplit(backend.url)
    return Upstream(
        provider=_provider(backend),
        host=parts.hostname or "",
        port=parts.port or _PORTS.get(parts.scheme, 0),
    )


def _provider(backend: AnyBackend) -> str:
    if isinstance(backend, LitellmSettings):
        return _PROVIDERS.get(backend.provider, backend.provider)
    return backend.price_as if isinstance(backend, OpenAISettings) else "vllm"
