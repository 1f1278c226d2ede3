"""`--since` of several commands: a date, or a span back from now."""

from datetime import UTC, datetime

import typer

from gateway.finance.periods import UNITS, before


def read_since(text: str, now: datetime) -> datetime:
    """A span back from `now`, or a date of UTC. Raises typer.BadParameter."""
    try:
        if text[-1:] in UNITS:
            return before(now, text)
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is neither 30d, 12h, 2w nor a date", param_hint="--since"
        ) from error
