"""`/admin/reports`: what was spent, as JSON or as a file. Reads only; no prompt is in it."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.errors import ApiError, BadRequest, ConfigError
from gateway.finance.desk import REPORTS, Desk, Question
from gateway.finance.files import MEDIA_TYPES, WRITERS
from gateway.ledger.store import StoreUnavailable
from gateway.types import Principal

Name = Literal["chargeback", "movers", "forecast", "savings", "hosting", "breakeven", "focus"]
Form = Literal["json", "csv", "xlsx", "parquet"]
Text = Annotated[str, Query(max_length=200)]
SVG = "image/svg+xml"


def _of_type(*types: str) -> dict[int | str, dict[str, Any]]:
    """How the API's description names what an answer may be."""
    return {200: {"description": "The report.", "content": {name: {} for name in types}}}


def reports_router(admit: Callable[[Request], Principal], desk: Desk) -> APIRouter:
    """`admit` lets those in who may see what everybody spends."""
    router = APIRouter(prefix="/admin/reports", tags=["reports"])
    Finance = Annotated[Principal, Depends(admit)]

    @router.get("/breakeven.svg", response_class=Response, responses=_of_type(SVG))
    def chart(
        _: Finance,
        replica: Text,
        against: Text,
        adapter: Text = "",
        training_usd: Text = "0",
        period: Text = "30d",
        tz: Text = "UTC",
    ) -> Response:
        """Self-hosting against an API over utilisation, as a drawing."""
        asked = Question(
            replica=replica, against=against, adapter=adapter, training_usd=training_usd, period=period, tz=tz
        )
        return Response(_answered(lambda: desk.breakeven_svg(asked)), media_type=SVG)

    @router.get("/{name}", response_class=Response, responses=_of_type(*MEDIA_TYPES.values()))
    def report(
        _: Finance,
        name: Name,
        by: Text = "team,model,adapter",
        period: Text = "30d",
        each: Text = "",
        tz: Text = "UTC",
        top: Annotated[int, Query(ge=1, le=1000)] = 10,
        against: Text = "",
        replica: Text = "",
        adapter: Text = "",
        training_usd: Text = "0",
        account: Text = "headgate",
        format: Form = "json",
    ) -> Response:
        """One report; each takes the parameters that it needs and leaves the others alone.

        `by`: groups, in order. `period`: 2026-11, 2026-W45, 2026-Q4, 2026-11-05, first..last, 30d, 12h, 2w.
        `each`: day, week or month. `against`: BACKEND/MODEL (savings, breakeven). `replica`: a backend of
        ours (breakeven). Amounts are decimal strings of US dollars.
        """
        asked = Question(
            by=by,
            period=period,
            each=each,
            tz=tz,
            top=top,
            against=against,
            replica=replica,
            adapter=adapter,
            training_usd=training_usd,
            account=account,
        )
        data = _answered(lambda: WRITERS[format](REPORTS[name](desk, asked)))
        headers = (
            {} if format == "json" else {"content-disposition": f'attachment; filename="{name}.{format}"'}
        )
        return Response(data, media_type=MEDIA_TYPES[format], headers=headers)

    return router


def _answered(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (ValueError, ConfigError) as error:
        raise BadRequest(str(error), code="unanswerable_report") from error
    except StoreUnavailable as error:
        raise ApiError("The ledger's database is not reached; try again.", status=503) from error
