"""When a retry or a hedge may be sent at all, and how long to wait before a retry.

A backend in trouble must not get more traffic for it. The budget is that of Finagle's `RetryBudget`: each
request earns a share of a retry, which expires; retries and hedges spend what was earned. Time and randomness
are passed in.
"""

import re
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import exp, inf

from router_policies.types import Resilience

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


class RetryBudget:
    """One token, one retry. What was earned fades over `window_s`, towards a floor that time alone earns.

    So there are never more retries than `share` of the requests, `least_per_s` a second and, once, the floor.
    """

    __slots__ = ("_at", "_floor", "_share", "_tokens", "_window_s")

    def __init__(
        self, now: float, *, share: float = 0.2, least_per_s: float = 1.0, window_s: float = 10.0
    ) -> None:
        self._share, self._window_s = share, window_s
        self._tokens = self._floor = least_per_s * window_s
        self._at = now

    def deposit(self, now: float) -> None:
        """A request has come in."""
        self._leak(now)
        self._tokens += self._share

    def try_withdraw(self, now: float) -> bool:
        """Whether one retry or hedge may be sent now; it is then paid for."""
        self._leak(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _leak(self, now: float) -> None:
        kept = exp((self._at - now) / self._window_s)
        self._tokens = self._floor + (self._tokens - self._floor) * kept
        self._at = now


def backoff_s(
    retry: int,
    retry_after: str | None,
    policy: Resilience,
    *,
    random: Callable[[], float],
    unix_s: float,
    left_s: float = inf,
) -> float | None:
    """Seconds to wait before retry number `retry`, from 0. None: no retry here, so on to the next candidate.

    Exponential with full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS, 2015), on top of what the
    backend asked for in its `retry-after`. It is no use where that is longer than the policy's maximum, or
    where the wait would not end within the `left_s` until the deadline.
    """
    least = retry_after_s(retry_after, unix_s) or 0.0
    if least > policy.max_backoff_s:
        return None
    jitter = random() * min(policy.max_backoff_s, policy.backoff_s * 2**retry)
    wait = min(policy.max_backoff_s, least + jitter)
    return wait if wait < left_s else None


def retry_after_s(header: str | None, unix_s: float) -> float | None:
    """A `retry-after` in seconds from now: seconds or an HTTP date (RFC 9110, 10.2.3). None: unreadable."""
    if header is None:
        return None
    if _SECONDS.fullmatch(value := header.strip()):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - unix_s)
