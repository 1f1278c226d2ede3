"""What new rows of the ledger cost the budgets that cover them."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from sqlalchemy import Connection

from gateway.ledger.budgets.budget import Covering
from gateway.ledger.budgets.store import Charge, charge
from gateway.ledger.tables import COLUMNS, Row

_KEY, _TEAM, _TAGS, _ROUTE, _STARTED, _COST = (
    COLUMNS.index(name) for name in ("key_id", "team", "tags", "route", "started_ns", "cost_nano")
)


class Bill:
    """Charges rows to budgets, and to the leases of `holder`, the process that answered them."""

    def __init__(self, covering: Covering, holder: str) -> None:
        self._covering, self._holder = covering, holder

    def covers(self, row: Row) -> bool:
        """Whether some budget pays for it. What has no known price costs a budget nothing."""
        return bool(row[_COST]) and any(self._charges([row]))

    def pay(self, connection: Connection, rows: Sequence[Row]) -> None:
        """`rows` have just been inserted, in the same transaction."""
        charge(connection, self._holder, self._charges(rows))

    def _charges(self, rows: Iterable[Row]) -> Iterator[Charge]:
        for row in rows:
            tags = msgspec.json.decode(row[_TAGS])
            for budget in self._covering.of(row[_KEY], row[_TEAM], tags, row[_ROUTE]) if row[_COST] else ():
                yield Charge(budget.id, budget.window(row[_STARTED]).start_ns, row[_COST])
