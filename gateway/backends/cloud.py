"""Rented APIs that do not speak OpenAI's protocol, through litellm. The only file that imports it.

litellm translates; that is all it may do. It gets a client whose one way out is this backend's door and
whose every request is tapped (`cloud_exchange`), is asked only for what tests have seen it translate
(`cloud_providers`), and its answers are written anew (`cloud_wire`). Retries, fallbacks, caches, callbacks
and budgets are the pipeline's and stay off here.

The import takes seconds, so only the composition root imports this module, and only where a cloud backend is
configured.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

# litellm asks the network for its price map when it is imported and for a list of Anthropic's headers later,
# past any client that we give it. No socket without a permit: whatever the environment says, it uses the
# copies that it ships. In its development mode it also reads any .env file above the working directory.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
os.environ["LITELLM_MODE"] = "PRODUCTION"

import litellm
from litellm import exceptions
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

from gateway.backends import cloud_wire
from gateway.backends.base import Sink, UpstreamRequest, UpstreamResponse
from gateway.backends.cloud_exchange import Exchange, Tap, exchanging
from gateway.backends.cloud_providers import known, translated
from gateway.backends.http1 import Timeouts
from gateway.backends.wire import DONE, read_error
from gateway.errors import BackendError, StreamBroken
from gateway.privacy.egress import Door, GuardedTransport
from router_policies.types import ErrorClass, Zone

# What litellm raises: our class for it, and OpenAI's code where there is one.
_ERRORS: dict[type[Exception], tuple[ErrorClass, str | None]] = {
    exceptions.APIConnectionError: (ErrorClass.CONNECTION, None),
    exceptions.APIError: (ErrorClass.SERVER_ERROR, None),
    exceptions.APIResponseValidationError: (ErrorClass.SERVER_ERROR, None),
    exceptions.AuthenticationError: (ErrorClass.REFUSED, "invalid_api_key"),
    exceptions.BadGatewayError: (ErrorClass.SERVER_ERROR, None),
    exceptions.BadRequestError: (ErrorClass.REFUSED, None),
    exceptions.BlockedPiiEntityError: (ErrorClass.REFUSED, None),
    exceptions.BudgetExceededError: (ErrorClass.REFUSED, None),
    exceptions.ContentPolicyViolationError: (ErrorClass.CONTENT_POLICY, "content_policy_violation"),
    exceptions.ContextWindowExceededError: (ErrorClass.REFUSED, "context_length_exceeded"),
    exceptions.GuardrailRaisedException: (ErrorClass.REFUSED, None),
    exceptions.ImageFetchError: (ErrorClass.REFUSED, None),
    exceptions.InternalServerError: (ErrorClass.SERVER_ERROR, None),
    exceptions.InvalidRequestError: (ErrorClass.REFUSED, None),
    exceptions.JSONSchemaValidationError: (ErrorClass.SERVER_ERROR, None),
    exceptions.LiteLLMUnknownProvider: (ErrorClass.REFUSED, None),
    exceptions.MidStreamFallbackError: (ErrorClass.SERVER_ERROR, None),
    exceptions.MockException: (ErrorClass.SERVER_ERROR, None),
    exceptions.ModelNotMappedError: (ErrorClass.REFUSED, None),
    exceptions.ModifyResponseException: (ErrorClass.REFUSED, None),
    exceptions.NotFoundError: (ErrorClass.NOT_FOUND, "model_not_found"),
    exceptions.OpenAIError: (ErrorClass.SERVER_ERROR, None),
    exceptions.PaymentRequiredError: (ErrorClass.REFUSED, None),
    exceptions.PermissionDeniedError: (ErrorClass.REFUSED, None),
    exceptions.RateLimitError: (ErrorClass.RATE_LIMIT, None),
    exceptions.RejectedRequestError: (ErrorClass.REFUSED, None),
    exceptions.SensitiveDataRouteException: (ErrorClass.REFUSED, None),
    exceptions.ServiceUnavailableError: (ErrorClass.SERVER_ERROR, None),
    exceptions.Timeout: (ErrorClass.TIMEOUT, None),
    exceptions.UnprocessableEntityError: (ErrorClass.REFUSED, None),
    exceptions.UnsupportedParamsError: (ErrorClass.REFUSED, "unsupported_parameter"),
    exceptions.VectorStoreSearchError: (ErrorClass.REFUSED, None),
}
_UNKNOWN: tuple[ErrorClass, str | None] = (ErrorClass.SERVER_ERROR, None)
# What a provider can say after a status of 200. Anything else means that litellm could not read the answer.
_IN_AN_ANSWER = frozenset({ErrorClass.CONTENT_POLICY, ErrorClass.RATE_LIMIT, ErrorClass.SERVER_ERROR})
_STATUS = {
    ErrorClass.CONNECTION: 503,
    ErrorClass.TIMEOUT: 504,
    ErrorClass.RATE_LIMIT: 429,
    ErrorClass.SERVER_ERROR: 502,
    ErrorClass.NOT_FOUND: 404,
    ErrorClass.REFUSED: 400,
    ErrorClass.CONTENT_POLICY: 400,
}
_PREFIX = re.compile(r"^(litellm\.\w+: *)+")


class CloudBackend:
    """One account at one provider. `inner` carries the requests beyond the door; None: over the network.

    Raises ConfigError for a provider that is not known to go through the client that litellm is given.
    """

    def __init__(
        self,
        name: str,
        zone: Zone,
        door: Door,
        *,
        provider: str,
        api_key: str,
        api_base: str = "",
        timeouts: Timeouts | None = None,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._provider = known(name, provider)
        _confine()
        self.name, self.zone, self.provider = name, zone, provider
        self._door = door
        self._tap = Tap(GuardedTransport(door, inner), timeouts or Timeouts())
        self._fixed = {
            "custom_llm_provider": provider,
            "api_key": api_key,
            "api_base": api_base or self._provider.api_base,  # else litellm looks in the environment
            "client": AsyncHTTPHandler(transport=self._tap, follow_redirects=False),
            "num_retries": 0,
            "max_retries": 0,
            "drop_params": False,
        }

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        released = self._door.release(request.permit, request.call_id, request.model, request.content)
        body = msgspec.json.decode(released)
        asked = {**translated(request.endpoint, body, self.provider), **self._fixed, "model": request.model}
        with (
            self._door.admitted(request.permit, request.call_id, request.model),
            exchanging(self._provider) as exchange,
        ):
            try:
                return await (_stream if request.stream else _whole)(asked, request.endpoint, exchange)
            except asyncio.CancelledError:
                await exchange.aclose()
                raise
            except Exception as error:
                await exchange.aclose()
                raise _translate(error, exchange) from error

    async def aclose(self) -> None:
        await self._tap.shut()


class CloudAnswer:
    """A whole answer, or a stream whose first event has arrived; see `backends.base.UpstreamResponse`."""

    status = 200

    def __init__(
        self, content_type: str, first: bytes, rest: AsyncIterator[bytes] | None, exchange: Exchange
    ) -> None:
        self.content_type, self._first, self._rest = content_type, first, rest
        self._exchange = exchange
        self._running = asyncio.Event()
        self._running.set()

    async def read(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        if self._rest is None:
            return b""
        try:
            return await anext(self._rest, b"")
        except Exception as error:
            failure = _translate(error, self._exchange)
            raise StreamBroken(failure.message, silent=failure.error_class is ErrorClass.TIMEOUT) from error

    async def read_all(self, limit: int) -> bytes:
        parts, size = [], 0
        while part := await self.read():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise StreamBroken(f"it is over {limit} bytes")
        return b"".join(parts)

    async def pump(self, sink: Sink) -> None:
        while event := await self.read():
            sink(event)
            await self._running.wait()

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    async def aclose(self) -> None:
        await self._exchange.aclose()


async def _whole(asked: dict[str, Any], endpoint: str, exchange: Exchange) -> CloudAnswer:
    answer = (await litellm.acompletion(**asked)).model_dump()
    body = cloud_wire.body(cloud_wire.RENDERINGS[endpoint], answer, counted=exchange.counted)
    return CloudAnswer("application/json", body, None, exchange)


async def _stream(asked: dict[str, Any], endpoint: str, exchange: Exchange) -> CloudAnswer:
    """Waits for the first event, so that another backend may still take over."""
    stream = await litellm.acompletion(**asked, stream=True, stream_options={"include_usage": True})
    events = _events(stream, cloud_wire.RENDERINGS[endpoint], exchange)
    return CloudAnswer("text/event-stream", await anext(events), events, exchange)


async def _events(stream: Any, rendering: cloud_wire.Rendering, exchange: Exchange) -> AsyncIterator[bytes]:
    """Raises StreamBroken where litellm says `stop` for a provider that did not (invariant 4)."""
    async for chunk in stream:
        data = chunk.model_dump()
        if cloud_wire.finished(data) and not exchange.ended:
            break
        for event in cloud_wire.events(rendering, data, counted=exchange.counted):
            yield event
    if not exchange.ended:
        raise StreamBroken("the provider's stream ended before its end")
    yield DONE


def _translate(error: Exception, exchange: Exchange) -> BackendError:
    """What happened, by what the wire said where it said something, else by what litellm makes of it."""
    if isinstance(exchange.failure, BackendError):
        return exchange.failure
    if isinstance(exchange.failure, TimeoutError | httpx.TimeoutException):
        return BackendError(ErrorClass.TIMEOUT, "the provider did not answer in time", status=504)
    if exchange.failure is not None:
        return BackendError(ErrorClass.CONNECTION, "the connection to the provider failed", status=503)
    found = getattr(error, "original_exception", None) or error  # of MidStreamFallbackError
    error_class, code = next((_ERRORS[c] for c in type(found).__mro__ if c in _ERRORS), _UNKNOWN)
    if exchange.status >= 300:
        return _provider_error(error_class, code, exchange)
    if exchange.status and error_class not in _IN_AN_ANSWER:
        return BackendError(ErrorClass.SERVER_ERROR, "the provider's answer cannot be read")
    message = _PREFIX.sub("", str(found)).partition("\n")[0]
    return BackendError(error_class, message, status=_STATUS[error_class], code=code)


def _provider_error(error_class: ErrorClass, code: str | None, exchange: Exchange) -> BackendError:
    """The provider's own words. A redirect is an error too: requests go to configured hosts only."""
    said = read_error(exchange.status, exchange.error_body)
    blocked = error_class is ErrorClass.CONTENT_POLICY
    return BackendError(
        error_class if blocked else said.error_class,
        said.message,
        status=exchange.status if exchange.status >= 400 else 502,
        type=said.type,
        code=said.code or code,
        param=said.param,
        retry_after=exchange.retry_after,
    )


class _NoWay(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Where litellm's own clients lead."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.UnsupportedProtocol("litellm opens no connections of its own here")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.UnsupportedProtocol("litellm opens no connections of its own here")


def _confine() -> None:
    """Takes from litellm every way out but the clients that it is given, and every way to tell others.

    Beside a call it makes clients of its own, to fetch images, tokenizers or lists, and for endpoints that do
    not honour the one they are given. Its log lines may quote prompts.
    """
    AsyncHTTPHandler.create_async_transport = staticmethod(lambda *_, **__: _NoWay())
    AsyncHTTPHandler.create_httpx_proxy_mounts = staticmethod(lambda *_, **__: None)
    litellm.sync_transport = _NoWay()
    litellm.disable_aiohttp_transport = True
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.disable_streaming_logging = True
    litellm.verbose_logger.disabled = True
    litellm.cache = None
    litellm.num_retries = litellm.fallbacks = litellm.context_window_fallbacks = None
    litellm.modify_params = litellm.drop_params = False
