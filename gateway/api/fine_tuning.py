"""`/v1/fine_tuning/jobs`, as OpenAI's SDKs expect it."""

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints
from pydantic_core import PydanticCustomError

from finetune.jobs.errors import UnknownCursor, UnknownFile
from finetune.jobs.files import FINE_TUNE, FileStore
from finetune.jobs.records import Asked, Owner, Wishes
from finetune.jobs.states import Status
from finetune.jobs.store import JobStore
from gateway.admission import check_model
from gateway.api.files import owner_of
from gateway.api.fine_tuning_views import checkpoint_view, event_number, event_view, job_view
from gateway.api.models import in_loop
from gateway.errors import BadRequest
from gateway.types import Principal

_METADATA = re.compile(r"metadata\[(.+)\]")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Auto = Literal["auto"]


def _whole(most: int) -> PlainValidator:
    """ "auto", or a whole number from 1 on."""

    def check(value: object) -> object:
        if value == "auto" or (type(value) is int and 1 <= value <= most):
            return value
        raise PydanticCustomError("hyperparameter", f"must be 'auto' or a whole number from 1 to {most}")

    return PlainValidator(check, json_schema_input_type=int | Auto)


def _positive(most: float) -> PlainValidator:
    """ "auto", or a number above 0."""

    def check(value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most:
            return float(value)
        raise PydanticCustomError("hyperparameter", f"must be 'auto' or a number above 0, up to {most}")

    return PlainValidator(check, json_schema_input_type=float | Auto)


class SupervisedHyperparameters(Part):
    n_epochs: Annotated[int | Auto, _whole(50)] = "auto"
    batch_size: Annotated[int | Auto, _whole(256)] = "auto"
    learning_rate_multiplier: Annotated[float | Auto, _positive(100)] = "auto"


class DpoHyperparameters(SupervisedHyperparameters):
    beta: Annotated[float | Auto, _positive(2)] = "auto"


class Supervised(Part):
    hyperparameters: SupervisedHyperparameters = SupervisedHyperparameters()


class Dpo(Part):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Method(Part):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: dict[str, Any] | None = None


Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]


class CreateJob(Part):
    model: Text
    training_file: Text
    validation_file: Text | None = None
    method: Method | None = None
    hyperparameters: SupervisedHyperparameters | None = Field(None, description="Deprecated: use `method`.")
    suffix: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    metadata: Metadata | None = None
    integrations: list[dict[str, Any]] | None = None


def fine_tuning_router(
    admit: Callable[[Request], Principal],
    jobs: JobStore,
    files: FileStore,
    *,
    base: str,
    aliases: Callable[[], Mapping[str, str]],
) -> APIRouter:
    """`base`: the model that can be fine-tuned; empty: none. `aliases`: those that this process routes to."""
    router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])
    served = Depends(in_loop(aliases))
    _add_reading(router, Depends(admit), served, jobs)
    _add_changing(router, Depends(admit), jobs)

    @router.post("")
    def create(asked: CreateJob, client: Annotated[Principal, Depends(admit)]) -> dict[str, Any]:
        """Queue a job; a worker checks its files, trains and releases it."""
        check_model(client, asked.model)
        _check_base(asked.model, base)
        _check_integrations(asked.integrations)
        wanted = _asked(asked)
        owner = owner_of(client)
        _check_file(files, asked.training_file, "training_file", owner)
        if asked.validation_file is not None:
            _check_file(files, asked.validation_file, "validation_file", owner)
        job = jobs.create(
            wanted,
            training_file=asked.training_file,
            validation_file=asked.validation_file or "",
            owner=owner,
            model_words=f"{wanted.method} on {wanted.model}",
        )
        return job_view(job, {})

    return router


def _add_reading(router: APIRouter, admitted: Any, served: Any, jobs: JobStore) -> None:
    Client = Annotated[Principal, admitted]
    Aliases = Annotated[Any, served]

    @router.get("")
    def listing(
        request: Request,
        client: Client,
        aliases: Aliases,
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """The jobs of the key's team or project, newest first; `metadata[k]=v` narrows them down."""
        wanted = _metadata(request)
        found, more = jobs.page(owner_of(client), after=after, limit=limit, metadata=wanted)
        return {"object": "list", "data": [job_view(job, aliases) for job in found], "has_more": more}

    @router.get("/{job_id}")
    def one(job_id: str, client: Client, aliases: Aliases) -> dict[str, Any]:
        return job_view(jobs.get(job_id, owner_of(client)), aliases)

    @router.get("/{job_id}/events")
    def events(
        job_id: str, client: Client, after: str = "", limit: Annotated[int, Query(ge=1, le=1_000)] = 20
    ) -> dict[str, Any]:
        """What happened, newest first."""
        job = jobs.get(job_id, owner_of(client))
        found, more = jobs.events(job_id, before=event_number(job, after), limit=limit)
        return {"object": "list", "data": [event_view(job, event) for event in found], "has_more": more}

    @router.get("/{job_id}/checkpoints")
    def checkpoints(
        job_id: str, client: Client, after: str = "", limit: Annotated[int, Query(ge=1, le=100)] = 10
    ) -> dict[str, Any]:
        """What was trained by certain steps, latest first."""
        job = jobs.get(job_id, owner_of(client))
        views = [checkpoint_view(job, each) for each in jobs.checkpoints(job_id)]
        ids = [each["id"] for each in views]
        if after and after not in ids:
            raise UnknownCursor(after)
        rest = views[ids.index(after) + 1 :] if after else views
        shown = rest[:limit]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(rest) > limit,
        }


def _add_changing(router: APIRouter, admitted: Any, jobs: JobStore) -> None:
    Client = Annotated[Principal, admitted]

    @router.post("/{job_id}/cancel")
    def cancel(job_id: str, client: Client) -> dict[str, Any]:
        """End a job for good."""
        return job_view(jobs.change(job_id, owner_of(client), Status.CANCELLED), {})

    @router.post("/{job_id}/pause")
    def pause(job_id: str, client: Client) -> dict[str, Any]:
        """Stop a job that is queued or running until it is resumed."""
        return job_view(jobs.change(job_id, owner_of(client), Status.PAUSED), {})

    @router.post("/{job_id}/resume")
    def resume(job_id: str, client: Client) -> dict[str, Any]:
        """Put a paused job back into the queue."""
        return job_view(jobs.change(job_id, owner_of(client), Status.QUEUED), {})


def _asked(asked: CreateJob) -> Asked:
    """Raises BadRequest for what cannot be trained here."""
    method = asked.method or Method(type="supervised")
    if method.type == "reinforcement":
        raise BadRequest(
            f"The method '{method.type}' is not supported; this gateway knows supervised and dpo.",
            param="method.type",
            code="unsupported_method",
        )
    if method.type == "dpo":
        given: SupervisedHyperparameters = (method.dpo or Dpo()).hyperparameters
    elif method.supervised is not None:
        given = method.supervised.hyperparameters
    else:
        given = asked.hyperparameters or SupervisedHyperparameters()
    return Asked(
        model=asked.model,
        method=method.type,
        hyperparameters=Wishes(**given.model_dump()),
        seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        suffix=asked.suffix or "",
        metadata=asked.metadata,
    )


def _check_base(model: str, base: str) -> None:
    if model != base or not base:
        known = f"the only one is {base!r}" if base else "it has no backend of kind vllm"
        raise BadRequest(
            f"The model {model!r} cannot be fine-tuned by this gateway: {known}.",
            param="model",
            code="model_not_available",
        )


def _check_integrations(integrations: list[dict[str, Any]] | None) -> None:
    if integrations:
        raise BadRequest(
            "Integrations are not supported: this gateway sends nothing of a job to other services. "
            "The job's events and its result file hold all metrics.",
            param="integrations",
            code="unsupported_integration",
        )


def _check_file(files: FileStore, id: str, param: str, owner: Owner) -> None:
    try:
        stored = files.get(id, owner)
    except UnknownFile:
        raise BadRequest(f"invalid {param}: {id}", param=param, code="file_not_found") from None
    if stored.purpose != FINE_TUNE:
        raise BadRequest(
            f"The file {id} has the purpose {stored.purpose!r}, not {FINE_TUNE!r}.",
            param=param,
            code="invalid_file_purpose",
        )


def _metadata(request: Request) -> dict[str, str]:
    found = ((_METADATA.fullmatch(name), value) for name, value in request.query_params.multi_items())
    return {match[1]: value for match, value in found if match}
