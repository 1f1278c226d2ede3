"""OpenAI's error envelope for everything that FastAPI answers itself."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.errors import ApiError, BadRequest, NotFound

log = logging.getLogger("headgate.api")


def render(error: ApiError) -> Response:
    return Response(error.body(), error.status, error.headers, media_type="application/json")


def install(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _ours)
    app.add_exception_handler(HTTPException, _starlettes)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for it alone
    return render(error)


async def _starlettes(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    asked = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return render(NotFound(f"Invalid URL ({asked})", code="unknown_url"))
    message = f"Not allowed: {asked}." if error.status_code == 405 else str(error.detail)
    return render(BadRequest(message, status=error.status_code, headers=dict(error.headers or {})))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"] if step not in ("body", "query", "path"))
    return render(BadRequest(f"{where}: {first['msg']}" if where else first["msg"], param=where or None))


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed on a fault of ours", request.method, request.url.path, exc_info=error)
    return render(
        ApiError("The gateway failed on this request; its operator has the trace.", code="internal")
    )
