"""`/admin/privacy/decisions`: the decision records, read-only."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request

from gateway.errors import BadRequest
from gateway.finance.periods import to_ns
from gateway.ledger.store import Store
from gateway.ledger.tables import encode, to_row
from gateway.privacy.evidence import Keyring
from gateway.types import Entry, Principal
from router_policies.privacy import Scale

_SHOWN = (
    "call_id",
    "key_id",
    "team",
    "endpoint",
    "privacy",
    "cause",
    "findings",
    "policy",
    "route",
    "reason",
    "outcome",
    "reached",
    "session",
    "signed_by",
    "signature",
)


def decisions_router(
    admit: Callable[[Request], Principal], store: Store, keys: Keyring, scale: Scale
) -> APIRouter:
    router = APIRouter(prefix="/admin/privacy", tags=["privacy"])

    # Not async: FastAPI runs it in a thread, for the database blocks.
    @router.get("/decisions")
    def decisions(
        _: Annotated[Principal, Depends(admit)],
        since: Annotated[datetime | None, Query(description="Included; UTC where no zone is given.")] = None,
        until: Annotated[datetime | None, Query(description="Not included.")] = None,
        privacy: Annotated[str | None, Query(alias="class")] = None,
        zone: Annotated[
            str | None, Query(max_length=64, pattern="^[ -~]*$", description="That it was tried to reach.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[
            str, Query(max_length=64, pattern="^[ -~]*$", description="The last_id of the page before.")
        ] = "",
    ) -> dict[str, Any]:
        """What was decided about requests, the earliest first: class, findings, route, zones, permits."""
        found = store.decisions(
            _ns(since), _ns(until), privacy=_label(privacy, scale), zone=zone, after=after, limit=limit + 1
        )
        page = found[:limit]
        return {
            "object": "list",
            "data": [_shown(entry, keys) for entry in page],
            "has_more": len(found) > limit,
            "last_id": page[-1].call_id if page else None,
        }

    return router


def _shown(entry: Entry, keys: Keyring) -> dict[str, Any]:
    said = msgspec.to_builtins({name: getattr(entry, name) for name in _SHOWN})
    at = datetime.fromtimestamp(entry.started_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return {"started_at": at, **said, "signature_fault": keys.fault(to_row(encode(entry))) or None}


def _ns(moment: datetime | None) -> int | None:
    """Raises BadRequest for a time that the ledger cannot hold."""
    if moment is None:
        return None
    if not 1970 < moment.year < 2200:
        raise BadRequest("since and until lie between 1971 and 2199", code="no_such_time")
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return to_ns(aware)


def _label(privacy: str | None, scale: Scale) -> str | None:
    """Raises BadRequest naming the known classes."""
    try:
        return None if privacy is None else scale.parse(privacy).label
    except ValueError as error:
        raise BadRequest(str(error), param="class", code="unknown_privacy_class") from None
