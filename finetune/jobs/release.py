"""How an adapter gets from a worker to the replicas: by whoever can speak to them."""

from collections.abc import Callable
from pathlib import Path

Release = Callable[[Path, str], str]
"""Brings the adapter in a folder up on every replica, on behalf of a key; its immutable name.

Raises `NotReleased` where that will not do, `Unreachable` where it may do later.
"""


class NotReleased(Exception):
    """The replicas, or the gateway for them, said no; the text says why."""


class Unreachable(Exception):
    """Nobody was there to say anything."""
