"""The demo's tables."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gateway.demo.client import Answer
from gateway.demo.config import USD_PER_HOUR
from gateway.demo.screen import micro_usd, table
from gateway.demo.tour import Stop
from gateway.demo.traffic import Batch, LiveTraffic

COST_NOTE = (
    "Cost in millionths of a dollar. Rented: the provider's list price by token. Owned: a machine at "
    f"${USD_PER_HOUR} an hour, shared by the requests in flight; its idle time is nobody's request."
)


def tour_table(seen: Sequence[tuple[Stop, Answer]]) -> Table:
    """Each request, and what the gateway's headers say of it."""
    made = table("request", "class", "route", "answered by, and why", "HTTP", "cost", right=("HTTP", "cost"))
    for stop, answer in seen:
        made.add_row(
            stop.title,
            answer.privacy,
            answer.route or "none",
            _by_and_why(answer),
            str(answer.status),
            micro_usd(answer.cost_nano),
        )
    return made


def _by_and_why(answer: Answer) -> Text:
    """Two lines. Of the reason only what the other columns do not say."""
    by = f"{answer.backend} {answer.who}" if answer.backend else "nobody"
    why, _, _ = answer.reason.removeprefix(f"route {answer.route}: ").partition("; falls to")
    why = "first choice" if "(first choice" in why else why
    return Text.assemble(by, "\n", (why, "dim"))


def live_table(live: LiveTraffic) -> Table:
    """Who answered while the adapter was trained and swapped in."""
    made = table("answered by", "requests", "first", "last", right=("requests", "first", "last"))
    for who, count in live.who().most_common():
        times = [a.at - live.started for a in live.answers if a.ok and f"{a.backend}/{a.who}" == who]
        made.add_row(who.replace("/", " ", 1), str(count), f"{min(times):.1f} s", f"{max(times):.1f} s")
    made.add_row("failed", str(len(live.failed)), "", "")
    return made


def shift_table(before: Batch, after: Batch) -> Table:
    """The same held-out rows, for the same model name, before and after."""
    made = table(f"{len(before.answers)} held-out rows", "before", "after", right=("before", "after"))
    rows = {
        "answered by": (before.who, after.who),
        "exact match": (f"{before.exact_match:.2f}", f"{after.exact_match:.2f}"),
        "sent to the rented model": (f"{1 - before.owned_share:.0%}", f"{1 - after.owned_share:.0%}"),
        "never left this machine": (f"{before.owned_share:.0%}", f"{after.owned_share:.0%}"),
        "cost of 1,000 requests": (f"${before.usd_per_thousand:.5f}", f"${after.usd_per_thousand:.5f}"),
    }
    for name, (old, new) in rows.items():
        made.add_row(name, old, new)
    return made
