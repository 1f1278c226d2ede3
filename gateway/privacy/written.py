"""Patterns that admins write: which of them are safe to run on every request."""

import re2

LONGEST_PROGRAM = 200_000  # bytes of memory that RE2 may use for one pattern


def check_pattern(regex: str) -> None:
    """ValueError says why a pattern cannot be used: RE2 cannot read it, or it matches where nothing is."""
    options = re2.Options()
    options.max_mem = LONGEST_PROGRAM
    options.log_errors = False
    try:
        pattern = re2.compile(regex, options)
    except re2.error as error:
        raise ValueError(f"RE2 cannot read it: {error}") from None
    if pattern.search("") is not None:
        raise ValueError("it matches an empty text, and so every request")
