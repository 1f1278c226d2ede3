"""Corrections: rows that say what is to be added to a call's tokens and cost, long after it was settled.

A row of the ledger is never changed. What turned out otherwise is a further row that names the call: a price
that was not known is known by now, or the provider's own count replaces an estimate of ours. It starts when
the call did, so that it counts in the call's day, budgets and reports. Its id is the call's with a number: of
two that correct the same state of a call the database takes one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from gateway.ledger.budgets.bill import Bill
from gateway.ledger.budgets.budget import Covering
from gateway.ledger.prices import PriceBook
from gateway.ledger.store import Store
from gateway.ledger.tables import Row, encode, to_row
from gateway.types import Entry, Resolves, Usage

_PAGE = 500  # calls that are read, and corrected, at a time
_TOKENS = tuple(name for name in Usage.__struct_fields__ if name.endswith("_tokens"))


class Corrected(msgspec.Struct, kw_only=True):
    """What a run did."""

    calls: int = 0  # looked at
    corrections: int = 0  # written
    added_nano: int = 0  # to what was known of their cost
    unknown: tuple[str, ...] = ()  # calls that the ledger does not have
    unpriced: int = 0  # whose price is still not known


class Corrector:
    """Writes corrections into one ledger, signed as its rows are and charged to the budgets that cover it."""

    def __init__(
        self,
        store: Store,
        book: PriceBook,
        providers: Mapping[str, str],
        covering: Covering,
        sign: Callable[[Row], None],
        now_ns: Callable[[], int],
    ) -> None:
        """`providers`: the price book's name of the provider, by backend; others are replicas of ours."""
        self.store, self._book, self._providers = store, book, providers
        self._bill, self._sign, self._now_ns = Bill(covering, ""), sign, now_ns

    def rerate(self, since_ns: int | None, until_ns: int | None) -> Corrected:
        """Prices what was not known when it was recorded and is known by now, as of when it was used.

        Raises StoreUnavailable.
        """
        done, after = Corrected(), ""
        while found := self.store.unpriced(since_ns, until_ns, after, _PAGE):
            after = found[-1].call_id
            history = self.store.corrected([entry.call_id for entry in found])
            self._write(done, (self._rerated(history[entry.call_id], done) for entry in found))
        return done

    def reconcile(self, counted: Sequence[tuple[str, Usage, int | None]]) -> Corrected:
        """Puts a provider's own count of each call in the place of what the ledger has.

        `counted`: call id, tokens, and the cost in nano-dollars where the provider says it, else None: then
        the price book does. Raises StoreUnavailable.
        """
        done = Corrected()
        for first in range(0, len(counted), _PAGE):
            page = counted[first : first + _PAGE]
            history = self.store.corrected([call_id for call_id, _, _ in page])
            done.unknown += tuple(call_id for call_id, _, _ in page if call_id not in history)
            known = [line for line in page if line[0] in history]
            self._write(done, (self._counted(history[id], usage, cost, done) for id, usage, cost in known))
        return done

    def _rerated(self, history: Sequence[Entry], done: Corrected) -> Entry | None:
        call, usage = history[0], _usage_of(history)
        done.calls += 1
        if call.backend not in self._providers:
            done.unpriced += 1
            return None
        priced = self._book.cost(call.model, self._providers[call.backend], usage, call.started_ns)
        if priced.cost_nano is None:
            done.unpriced += 1
            return None
        return self._correction(history, usage, priced.cost_nano, priced.source, "its price became known")

    def _counted(
        self, history: Sequence[Entry], usage: Usage, cost_nano: int | None, done: Corrected
    ) -> Entry | None:
        call, source = history[0], "the provider's own account"
        done.calls += 1
        if cost_nano is None:
            provider = self._providers.get(call.backend, "")
            priced = self._book.cost(call.model, provider, usage, call.started_ns)
            cost_nano, source = priced.cost_nano, priced.source
        if cost_nano is None:
            done.unpriced += 1
            return None
        return self._correction(history, usage, cost_nano, source, "the provider counted it")

    def _correction(
        self, history: Sequence[Entry], usage: Usage, cost_nano: int, price: str, why: str
    ) -> Entry | None:
        """None: nothing is to be added, and nothing is resolved."""
        call, counted = history[0], why == "the provider counted it"
        known = _cost_of(history)
        resolved = Resolves(0)
        for entry in history[1:]:
            resolved |= Resolves(entry.resolves)
        resolves = Resolves(0)
        if known is None:
            resolves |= Resolves.PRICE
        if counted and call.usage.estimated and Resolves.TOKENS not in resolved:
            resolves |= Resolves.TOKENS
        before = _usage_of(history)
        added = {name: getattr(usage, name) - getattr(before, name) for name in _TOKENS}
        cost = cost_nano - (known or 0)
        if not cost and not any(added.values()) and not resolves:
            return None
        return replace(
            call,
            call_id=f"{call.call_id}~{len(history)}",
            findings={},
            reason=why,
            attempts=0,
            error_class=None,
            usage=Usage(
                **added,
                estimated=call.usage.estimated,
                service_tier=usage.service_tier or before.service_tier,
            ),
            cost_nano=cost,
            price=price,
            first_byte_ms=None,
            duration_ms=0.0,
            cause="",
            session="",
            response_id="",
            reached=(),
            signed_by="",
            signature="",
            corrects=call.call_id,
            resolves=int(resolves),
            recorded_ns=self._now_ns(),
        )

    def _write(self, done: Corrected, corrections: Iterator[Entry | None]) -> None:
        made = [entry for entry in corrections if entry is not None]
        rows = [to_row(encode(entry)) for entry in made]
        for row in rows:
            self._sign(row)
        done.corrections += self.store.insert_rows(rows, self._bill)
        done.added_nano += sum(entry.cost_nano or 0 for entry in made)


def _usage_of(history: Sequence[Entry]) -> Usage:
    """What is known of a call's tokens by now."""
    sums = {name: sum(getattr(entry.usage, name) for entry in history) for name in _TOKENS}
    return Usage(**sums, service_tier=history[-1].usage.service_tier)


def _cost_of(history: Sequence[Entry]) -> int | None:
    """What is known of a call's cost by now."""
    known = [entry.cost_nano for entry in history if entry.cost_nano is not None]
    return sum(known) if known else None
