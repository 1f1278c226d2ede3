"""Every request, exactly once, in integer nano-dollars."""

from gateway.ledger.ledger import Ledger
from gateway.ledger.prices import PriceBook

__all__ = ["Ledger", "PriceBook"]
