"""`/v1/files`: what is uploaded to train on, and what training leaves behind, as OpenAI's SDKs expect it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse

from finetune.dataset import MAXIMUM_FILE_BYTES
from finetune.jobs.errors import FileInUse, JobsError, UnknownCursor, UnknownFile, UnknownJob, WrongStatus
from finetune.jobs.files import FINE_TUNE, NS, FileStore
from finetune.jobs.records import Owner, StoredFile
from finetune.jobs.store import JobStore
from gateway.api.errors import render
from gateway.api.uploads import receive
from gateway.errors import ApiError, BadRequest, NotFound, TooLarge
from gateway.types import Principal

_FULL = "Your team keeps as many bytes of files as it may: delete some that no job needs."
SHORTEST_S, LONGEST_S = 3_600, 2_592_000  # of expires_after[seconds]


def owner_of(principal: Principal) -> Owner:
    return Owner(principal.team, principal.project, principal.key_id)


def files_router(
    admit: Callable[[Request], Principal], files: FileStore, jobs: JobStore, *, most_bytes: int
) -> APIRouter:
    """`most_bytes`: of files that a team may keep."""
    router = APIRouter(prefix="/v1/files", tags=["files"])
    Client = Annotated[Principal, Depends(admit)]

    @router.post("", openapi_extra=_FORM)
    async def upload(request: Request, client: Client) -> dict[str, Any]:
        """Upload JSON Lines to train on: up to 512 MiB, purpose `fine-tune`."""
        left = most_bytes - await asyncio.to_thread(files.kept, client.team)
        if left <= 0:
            raise TooLarge(_FULL, status=403, code="file_quota_exceeded")
        with await asyncio.to_thread(files.incoming) as incoming:
            form = await receive(
                request.headers.get("content-type", ""),
                request.stream(),
                incoming,
                min(left, MAXIMUM_FILE_BYTES),
            )
            if form.filename is None:
                raise BadRequest("'file' is a required property", param="file")
            _check_purpose(form.fields.get("purpose"))
            _check_name(form.filename, incoming.bytes)
            stored = await asyncio.to_thread(
                files.keep,
                incoming,
                filename=form.filename,
                purpose=FINE_TUNE,
                owner=owner_of(client),
                seconds=_lifetime(form.fields),
            )
        return file_view(stored)

    @router.get("")
    def listing(
        client: Client,
        purpose: str = "",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
        after: str = "",
    ) -> dict[str, Any]:
        """The files of the key's team or project."""
        found, more = files.page(
            owner_of(client), purpose=purpose, after=after, limit=limit, newest_first=order == "desc"
        )
        return {
            "object": "list",
            "data": [file_view(stored) for stored in found],
            "first_id": found[0].id if found else "",
            "last_id": found[-1].id if found else "",
            "has_more": more,
        }

    @router.get("/{file_id}")
    def one(file_id: str, client: Client) -> dict[str, Any]:
        return file_view(files.get(file_id, owner_of(client)))

    @router.get("/{file_id}/content")
    def content(file_id: str, client: Client) -> Response:
        """The file's bytes."""
        stored = files.get(file_id, owner_of(client))
        path: Path = files.path(stored.id)
        if not path.is_file():
            raise UnknownFile(file_id)
        return FileResponse(path, media_type="application/octet-stream", filename=stored.filename)

    @router.delete("/{file_id}")
    def delete(file_id: str, client: Client) -> dict[str, Any]:
        """Delete a file that no job needs any longer."""
        files.get(file_id, owner_of(client))
        if job := jobs.using(file_id):
            raise FileInUse(file_id, job)
        files.delete(file_id, owner_of(client))
        return {"id": file_id, "object": "file", "deleted": True}

    return router


def file_view(stored: StoredFile) -> dict[str, Any]:
    """OpenAI's file object."""
    expires = {} if stored.expires_at is None else {"expires_at": stored.expires_at}
    return {
        "id": stored.id,
        "object": "file",
        "bytes": stored.bytes,
        "created_at": stored.created_ns // NS,
        "filename": stored.filename,
        "purpose": stored.purpose,
        "status": "processed",
        **expires,
    }


def install(app: FastAPI) -> None:
    app.add_exception_handler(JobsError, _jobs_error)


async def _jobs_error(request: Request, error: Exception) -> Response:
    match error:
        case UnknownFile():
            answer: ApiError = NotFound(str(error), param="id")
        case UnknownJob():
            answer = NotFound(str(error), param="fine_tune_id", code="fine_tune_not_found")
        case UnknownCursor():
            answer = BadRequest(str(error), param="after")
        case FileInUse():
            answer = BadRequest(str(error), status=409, code="file_in_use")
        case WrongStatus():
            answer = BadRequest(str(error), code="invalid_job_status")
        case _:
            answer = BadRequest(str(error))
    return render(answer)


def _check_purpose(purpose: str | None) -> None:
    if purpose is None:
        raise BadRequest("'purpose' is a required property", param="purpose")
    if purpose != FINE_TUNE:
        raise BadRequest(
            f"The purpose {purpose[:40]!r} is not supported: this gateway keeps files to {FINE_TUNE} alone.",
            param="purpose",
            code="unsupported_purpose",
        )


def _check_name(filename: str, size: int) -> None:
    if not filename.endswith(".jsonl"):
        raise BadRequest(
            "Invalid file format for Fine-Tuning API. Must be .jsonl",
            param="file",
            code="invalid_file_format",
        )
    if not size:
        raise BadRequest("The file is empty.", param="file", code="empty_file")


def _lifetime(fields: dict[str, str]) -> int | None:
    """Seconds that the file is kept; None: for good. Raises BadRequest."""
    given = fields.get("expires_after[seconds]")
    if given is None:
        return None
    if fields.get("expires_after[anchor]", "created_at") != "created_at":
        raise BadRequest("expires_after.anchor must be 'created_at'.", param="expires_after")
    if not (given.isascii() and given.isdigit() and SHORTEST_S <= int(given[:12]) <= LONGEST_S):
        raise BadRequest(
            f"expires_after.seconds must be a whole number from {SHORTEST_S} to {LONGEST_S}.",
            param="expires_after",
        )
    return int(given)


_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": [FINE_TUNE]},
                    },
                }
            }
        },
    }
}
