"""All reports by name, asked for in words: what the command line and the admin API share."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

import msgspec

from gateway.finance import forecast, reports, savings, tco
from gateway.finance.chart import break_even_svg
from gateway.finance.focus import Exporter
from gateway.finance.list_prices import ListPrices, hourly_of, kilowatts_of, providers_of
from gateway.finance.periods import Each, Period, read_period, zone
from gateway.finance.reconcile import against_total, by_day
from gateway.finance.sheet import Sheet
from gateway.ledger.prices import PriceBook
from gateway.ledger.store import Store
from gateway.settings import Settings

NANO_PER_USD = 10**9


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a report; each takes what it needs. Words as a person writes them."""

    by: str = "team,model,adapter"
    period: str = "30d"
    each: str = ""  # day, week or month
    tz: str = "UTC"
    top: int = 10
    against: str = ""  # backend/model to compare with
    replica: str = ""
    adapter: str = ""
    training_usd: str = "0"
    account: str = "headgate"


class Desk:
    """Answers questions over one ledger. Reads only; safe to use from several threads."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        book: PriceBook | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        """Without a `book` the configuration's is read when a report first needs it."""
        self._store, self._settings = store, settings
        self._now = now or (lambda: datetime.now(UTC))
        self._prices = None if book is None else ListPrices(book, providers_of(settings))

    def chargeback(self, asked: Question) -> Sheet:
        """Cost by groups and period."""
        each = None if not asked.each else _each(asked.each)
        return reports.chargeback(
            self._store, _words(asked.by), self._period(asked), each=each, tz=zone(asked.tz)
        )

    def movers(self, asked: Question) -> Sheet:
        """The groups whose cost changed most against the period of the same length before."""
        return reports.movers(self._store, _words(asked.by), self._period(asked), asked.top)

    def forecast(self, asked: Question) -> Sheet:
        """Trend, and where the month in progress will end, with an interval."""
        tz = zone(asked.tz)
        today = self._now().astimezone(tz).date()
        month = read_period(f"{today:%Y-%m}", tz, self._now())
        return forecast.forecast(self._store, month, today, tz)

    def savings(self, asked: Question) -> Sheet:
        """Cost beside that of the same tokens at another model's list price."""
        model, backend = self._against(asked)
        by, period = _words(asked.by), self._period(asked)
        return savings.savings(self._store, by, period, self._list_prices(), model, backend)

    def hosting(self, asked: Question) -> Sheet:
        """Busy and idle cost, utilisation, CPTI and energy of our own replicas."""
        hourly, kilowatts = hourly_of(self._settings), kilowatts_of(self._settings)
        return tco.hosting(self._store, self._period(asked), hourly, self._now(), kilowatts)

    def breakeven(self, asked: Question) -> Sheet:
        """Self-hosting against an API over utilisation."""
        return tco.break_even_sheet(self._break_even(asked), self._period(asked), asked.against)

    def breakeven_svg(self, asked: Question) -> str:
        """The same as a drawing."""
        result = self._break_even(asked)
        return break_even_svg(result, f"{result.name} against {asked.against}, {asked.period}")

    def focus(self, asked: Question) -> Sheet:
        """FOCUS 1.2: one row per day, group and meter."""
        providers, hourly = providers_of(self._settings), hourly_of(self._settings)
        exporter = Exporter(self._store, self._list_prices(), providers, account=asked.account)
        return exporter.export(self._period(asked), hourly=hourly, now=self._now())

    def reconcile(
        self, period: str, backends: Collection[str], account: Mapping[tuple[date, str], int]
    ) -> Sheet:
        """A provider's account by day and model beside the ledger."""
        return by_day(self._store, self._utc(period), self._rented(backends), account)

    def reconcile_total(self, period: str, backends: Collection[str], usd: str) -> Sheet:
        """An invoice's total beside the ledger."""
        return against_total(self._store, self._utc(period), self._rented(backends), _nano(usd))

    def _utc(self, period: str) -> Period:
        return read_period(period, zone("UTC"), self._now())

    def _rented(self, named: Collection[str]) -> Collection[str]:
        """Those that are named, or all. ValueError: one is no rented backend."""
        known = providers_of(self._settings)
        for name in named:
            if name not in known:
                raise ValueError(f"{name!r} is no rented backend; known are {', '.join(known)}")
        return named or known

    def _break_even(self, asked: Question) -> tco.BreakEven:
        hourly = hourly_of(self._settings)
        if asked.replica not in hourly:
            known = ", ".join(hourly) or "none is configured"
            raise ValueError(f"{asked.replica!r} is no replica of ours; known are: {known}")
        period = self._period(asked)
        (replica,) = tco.replicas(self._store, period, {asked.replica: hourly[asked.replica]}, self._now())
        return tco.break_even(
            self._store,
            replica,
            period,
            self._list_prices(),
            self._against(asked),
            adapter=asked.adapter or None,
            training_nano=_nano(asked.training_usd),
        )

    def _period(self, asked: Question) -> Period:
        return read_period(asked.period, zone(asked.tz), self._now())

    def _against(self, asked: Question) -> tuple[str, str]:
        backend, slash, model = asked.against.partition("/")
        if not slash or backend not in self._settings.backends:
            known = ", ".join(providers_of(self._settings))
            raise ValueError(
                f"{asked.against!r} names nothing to compare with: write BACKEND/MODEL, backends are {known}"
            )
        return model, backend

    def _list_prices(self) -> ListPrices:
        if self._prices is None:
            self._prices = ListPrices.of(self._settings)
        return self._prices


REPORTS: dict[str, Callable[[Desk, Question], Sheet]] = {
    "chargeback": Desk.chargeback,
    "movers": Desk.movers,
    "forecast": Desk.forecast,
    "savings": Desk.savings,
    "hosting": Desk.hosting,
    "breakeven": Desk.breakeven,
    "focus": Desk.focus,
}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _each(text: str) -> Each:
    try:
        return Each(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is none of {', '.join(Each)}") from error


def _nano(usd: str) -> int:
    try:
        return int(Decimal(usd) * NANO_PER_USD)
    except InvalidOperation as error:
        raise ValueError(f"{usd!r} is no amount of US dollars") from error
