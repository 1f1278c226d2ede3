"""What a request on our own replica costs: the hourly rate, shared by whoever is in flight.

Processor sharing: while n requests are in flight each is charged rate / n, so together they pay for every
busy moment once and for no idle one. Virtual time V(t) = ∫ rate / n(t) dt makes it O(1) an event: a
request pays V(end) − V(start). (The construction is that of generalised processor sharing, Parekh and
Gallager 1993.)

Money is counted in *grains* of nano-dollar × ns / h: rate × time is whole grains. Dividing them by n
leaves fewer than n; they stay in `_undivided` and go into the next span. Rounding a request's grains to
nano-dollars leaves less than one; it goes to the request that finishes next. So nothing is made and nothing
vanishes: at any time the charges sum to at most rate × busy time, and when nothing is in flight to its
floor or one nano-dollar less.
"""

from gateway.ledger.prices import usd

GRAINS_PER_NANO = 3600 * 10**9  # ns in an hour


class BusyMeter:
    """The clock of one replica. Times are nanoseconds of one monotonic clock, passed in; not thread-safe.

    A time before the latest one seen counts as that one.
    """

    def __init__(self, nano_per_hour: int, now_ns: int) -> None:
        """`nano_per_hour`: what the replica costs in nano-dollars (1e-9 USD) an hour, busy or not."""
        if nano_per_hour < 0:
            raise ValueError("nano_per_hour must not be negative")
        self.nano_per_hour = nano_per_hour
        self._since_ns = self._now_ns = now_ns
        self._busy_ns = 0
        self._virtual = 0  # grains that one request in flight since the beginning would have paid
        self._undivided = 0  # grains of busy time not in _virtual yet, fewer than the requests in flight
        self._unpaid = 0  # grains of finished requests below one nano-dollar
        self._starts: dict[int, int] = {}  # token -> _virtual at its start
        self._next_token = 0

    @property
    def source(self) -> str:
        """What `Entry.price` says of such a cost."""
        return f"self-hosted: {usd(self.nano_per_hour)} USD/h shared by requests in flight"

    @property
    def in_flight(self) -> int:
        return len(self._starts)

    def start(self, now_ns: int) -> int:
        """A request begins; returns the token to finish it with."""
        self._advance(now_ns)
        self._next_token += 1
        self._starts[self._next_token] = self._virtual
        return self._next_token

    def finish(self, token: int, now_ns: int) -> int:
        """The request ends, however it ended; returns its cost in nano-dollars. KeyError: not in flight."""
        self._advance(now_ns)
        grains = self._virtual - self._starts.pop(token) + self._unpaid
        cost, self._unpaid = divmod(grains, GRAINS_PER_NANO)
        return cost

    def busy_nano(self, now_ns: int) -> int:
        """Nano-dollars, rounded down, for the time with at least one request in flight."""
        self._advance(now_ns)
        return self._busy_ns * self.nano_per_hour // GRAINS_PER_NANO

    def idle_nano(self, now_ns: int) -> int:
        """Nano-dollars for the time with none; with `busy_nano` it sums to rate × uptime, rounded down."""
        busy = self.busy_nano(now_ns)
        return (self._now_ns - self._since_ns) * self.nano_per_hour // GRAINS_PER_NANO - busy

    def _advance(self, now_ns: int) -> None:
        elapsed = max(0, now_ns - self._now_ns)
        self._now_ns += elapsed
        if not self._starts:
            return
        self._busy_ns += elapsed
        share, self._undivided = divmod(elapsed * self.nano_per_hour + self._undivided, len(self._starts))
        self._virtual += share
