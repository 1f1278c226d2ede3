"""Is the canary worse than the stable release? A sequential test: it may be looked at as often as one likes.

Errors and bad ratings are events of unknown probability. For each arm a confidence sequence bounds it at all
times at once: the p for which the mixture likelihood ratio, x events in n with p ~ Beta(1/2, 1/2),

    B(x + 1/2, n - x + 1/2) / B(1/2, 1/2)  over  p^x (1 - p)^(n - x)

stays below 1 / alpha (Robbins 1970; Ville's inequality). That holds for any n, the smallest too. Latencies
are compared as the difference of their mean logarithms, with the normal mixture of an mSPRT (Johari et al.,
"Peeking at A/B tests", 2017) and estimated variances: valid from some tens of requests on, hence `least`.

Each measure has a margin. All of a sequence's interval below the margin: no worse. All above it: worse. Else
nobody knows yet. A canary is promoted when no measure can be worse, rolled back as soon as one is; the chance
of either being wrong is below `alpha`, shared evenly by the measures, however often one looks.
"""

import math
from typing import Any, Literal

import msgspec

Verdict = Literal["promote", "roll back", "go on"]
TAU = 0.1  # of the mixture over differences of log latency: most sensitive to ones of this size


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """What one release did during the trial."""

    requests: int = 0
    failures: int = 0  # of requests: failed, or broken off by the backend
    timed: int = 0  # requests with a latency
    log_sum: float = 0.0  # of ln(milliseconds to the first byte)
    log_squares: float = 0.0
    rated: int = 0
    bad: int = 0  # of those rated, by people or by a judge


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    alpha: float = 0.05
    errors: float = 0.02  # more, as a difference of shares
    latency: float = 0.25  # longer, as a share of the stable release's
    ratings: float = 0.05  # more bad ones, as a difference of shares
    least: int = 30  # latencies in each arm


class Interval(msgspec.Struct, frozen=True):
    """Bounds of canary minus stable that hold at all times at once."""

    low: float
    high: float


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    verdict: Verdict
    reason: str
    numbers: dict[str, Any]  # of each measure: its interval and margin; of each arm: its counts


def judge(canary: Arm, stable: Arm, limits: Limits) -> Judgement:
    """What the numbers so far say."""
    measures = {
        "errors": (
            _share(canary.failures, canary.requests, stable.failures, stable.requests, limits),
            limits.errors,
        ),
        "latency": (_latency(canary, stable, limits), math.log1p(limits.latency)),
    }
    if canary.rated or stable.rated:
        measures["ratings"] = (
            _share(canary.bad, canary.rated, stable.bad, stable.rated, limits),
            limits.ratings,
        )
    numbers: dict[str, Any] = {
        name: {"low": round(found.low, 5), "high": round(found.high, 5), "margin": round(margin, 5)}
        for name, (found, margin) in measures.items()
        if math.isfinite(found.low)
    }
    numbers |= {"canary": msgspec.to_builtins(canary), "stable": msgspec.to_builtins(stable)}
    worse = [name for name, (found, margin) in measures.items() if found.low > margin]
    open_ = [name for name, (found, margin) in measures.items() if found.high >= margin]
    if worse:
        return Judgement(verdict="roll back", reason=f"worse in {', '.join(worse)}", numbers=numbers)
    if open_:
        return Judgement(verdict="go on", reason=f"not yet known: {', '.join(open_)}", numbers=numbers)
    return Judgement(verdict="promote", reason=f"no worse in {', '.join(measures)}", numbers=numbers)


def bounds(events: int, n: int, alpha: float) -> Interval:
    """Of a probability, by `events` in `n`; wrong at any time with a chance below `alpha`."""
    if n == 0:
        return Interval(0.0, 1.0)
    rest = n - events
    mixture = math.lgamma(events + 0.5) + math.lgamma(rest + 0.5) - math.lgamma(n + 1) - math.log(math.pi)

    def excluded(p: float) -> bool:
        likelihood = (events * math.log(p) if events else 0.0) + (rest * math.log1p(-p) if rest else 0.0)
        return mixture - likelihood > -math.log(alpha)

    peak = events / n
    low = 0.0 if events == 0 else _edge(peak, 0.0, excluded)
    high = 1.0 if rest == 0 else _edge(peak, 1.0, excluded)
    return Interval(low, high)


def _edge(inside: float, outside: float, excluded: Any) -> float:
    """Where exclusion begins between a value that is not excluded and one that is, from outside of it."""
    for _ in range(50):
        middle = (inside + outside) / 2
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _share(events: int, n: int, others: int, m: int, limits: Limits) -> Interval:
    alpha = limits.alpha / 3 / 2  # of three measures, by two arms
    ours, theirs = bounds(events, n, alpha), bounds(others, m, alpha)
    return Interval(ours.low - theirs.high, ours.high - theirs.low)


def _latency(canary: Arm, stable: Arm, limits: Limits) -> Interval:
    """Of the difference of mean log latencies."""
    if min(canary.timed, stable.timed) < max(2, limits.least):
        return Interval(-math.inf, math.inf)
    (mean, variance), (other, others_variance) = _moments(canary), _moments(stable)
    v = max(variance / canary.timed + others_variance / stable.timed, 1e-12)
    alpha, t = limits.alpha / 3, TAU**2
    radius = math.sqrt(v * (v + t) / t * (math.log((v + t) / v) - 2 * math.log(alpha)))
    return Interval(mean - other - radius, mean - other + radius)


def _moments(arm: Arm) -> tuple[float, float]:
    mean = arm.log_sum / arm.timed
    return mean, max(0.0, (arm.log_squares - arm.timed * mean**2) / (arm.timed - 1))
