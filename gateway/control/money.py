"""Budgets and prices: those of the configuration, and those that admins add.

What the configuration says stays: a budget of the database with the id of one of the file's is passed over. A
price of the database takes the place of the file's for the same model, since prices change without a restart.
"""

from collections.abc import Sequence

import msgspec

from gateway.control.records import BudgetTerms
from gateway.control.state import ControlState, read_state
from gateway.control.store import ControlStore
from gateway.finance.list_prices import price_book
from gateway.ledger.budgets.budget import Budget, Period, Scope
from gateway.ledger.prices import NANO_PER_USD, Override, PriceBook
from gateway.setting_parts import BudgetSettings
from gateway.settings import Settings


def budget_of(id: str, terms: BudgetTerms | BudgetSettings) -> Budget:
    return Budget(
        id=id,
        scope=Scope(key=terms.key or "", team=terms.team or "", tag=terms.tag or "", route=terms.route or ""),
        cap_nano=int(terms.usd * NANO_PER_USD),
        period=Period(terms.per),
        time_zone=terms.time_zone,
        hard=terms.hard,
        carry_over=terms.carry_over,
    )


def budgets_of(settings: Settings, state: ControlState | None = None) -> list[Budget]:
    """The file's, then the database's."""
    own = {budget.id: budget_of(budget.id, budget) for budget in settings.budgets}
    more = {} if state is None else {id: budget_of(id, terms) for id, terms in state.budgets.items()}
    return list((more | own).values())


def overrides_of(state: ControlState) -> dict[str, list[Override]]:
    """Prices that admins have set, by model."""
    found: dict[str, list[Override]] = {}
    for terms in state.prices.values():
        override = msgspec.convert(terms.model_dump(exclude={"model"}), Override)
        found.setdefault(terms.model, []).append(override)
    return found


class Money:
    """Follows the control plane for one process's prices and budgets."""

    def __init__(self, settings: Settings, book: PriceBook) -> None:
        self._settings, self.book = settings, book

    def follow(self, state: ControlState) -> tuple[Sequence[Budget], list[str]]:
        """Puts the prices of `state` into force; its budgets, and what is wrong with the prices."""
        faults = []
        try:
            self.book.follow(overrides_of(state))
        except ValueError as error:
            faults.append(f"prices: {error}; the last ones stay")
        return budgets_of(self._settings, state), faults


def money_of(settings: Settings) -> tuple[PriceBook, list[Budget]]:
    """For commands beside a gateway: prices and budgets as the database says now.

    Raises ConfigError, StoreUnavailable, Unreadable.
    """
    store = ControlStore(settings.database_url)
    store.migrate()
    money = Money(settings, price_book(settings))
    budgets, _ = money.follow(read_state(store))
    store.close()
    return money.book, list(budgets)
