"""`--since` of several commands: a date, or a span back from now."""

from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def read_since(text: str, now: datetime) -> datetime:
    """A span back from `now`, or a date of UTC. Raises typer.BadParameter."""
    try:
        if text[-1:] in _UNITS:
            return now - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is neither 30d, 12h, 2w nor a date", param_hint="--since"
        ) from error
