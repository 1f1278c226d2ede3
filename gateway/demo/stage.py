"""What the acts of the demo play on."""

from pathlib import Path

import msgspec

from gateway.demo.checks import Checks
from gateway.demo.client import Client
from gateway.demo.parts import Parts
from gateway.demo.rows import Rows
from gateway.demo.screen import Screen
from gateway.errors import HeadgateError


class Unmet(HeadgateError):
    """The demo cannot go on: something that it needs did not come about."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What the acts play on."""

    screen: Screen
    folder: Path
    rows: Rows
    parts: Parts
    app: Client
    people: Client
    checks: Checks
