"""What has to hold at the demo's end: each expectation with a line that says what was seen."""

import msgspec

from gateway.backends.fake import FakeProvider
from gateway.demo.config import BASE
from gateway.demo.traffic import Batch, LiveTraffic

ADAPTER_AT_LEAST, BASE_AT_MOST = 0.80, 0.20  # exact match on the held-out rows


class Check(msgspec.Struct, frozen=True):
    holds: bool
    text: str


class Checks:
    """Expectations, in the order in which they were looked at."""

    def __init__(self) -> None:
        self.made: list[Check] = []

    @property
    def hold(self) -> bool:
        return all(check.holds for check in self.made)

    def expect(self, holds: bool, text: str) -> None:
        self.made.append(Check(holds, text))

    def traffic(self, live: LiveTraffic) -> None:
        asked, failed = len(live.answers), len(live.failed)
        self.expect(not failed, f"{asked} live requests during training and swap, {failed} failed")

    def learning(self, base: Batch, adapter: Batch) -> None:
        self.expect(
            base.exact_match <= BASE_AT_MOST and not base.failed,
            f"base {BASE}: held-out exact match {base.exact_match:.2f}, at most {BASE_AT_MOST:.2f}",
        )
        self.expect(
            adapter.exact_match >= ADAPTER_AT_LEAST,
            f"{adapter.who}: held-out exact match {adapter.exact_match:.2f}, at least {ADAPTER_AT_LEAST:.2f}",
        )

    def shift(self, before: Batch, after: Batch) -> None:
        self.expect(
            before.owned_share == 0 and after.owned_share == 1 and not after.failed,
            f"the task's traffic moved to the adapter: owned {before.owned_share:.0%} before, "
            f"{after.owned_share:.0%} after",
        )

    def privacy(self, stand_in: FakeProvider | None, canary: str) -> None:
        """What a stand-in was sent can be searched; what the real API was sent cannot."""
        if stand_in is not None:
            size = sum(map(len, stand_in.received))
            self.expect(
                not stand_in.saw(canary.encode()),
                f"the card number is nowhere in the {size:,} bytes that reached the stand-in",
            )
