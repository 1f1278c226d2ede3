"""An interpreter of FOCUS 1.2's machine-readable rules, over the rows of a CSV export.

A rule holds for a row when it does not apply, when its condition does not, when it only allows (MAY), or when
its requirement holds. Composite rules pass their conditions on to what they are made of. Rules without a
requirement (Type Dynamic) are words for people; which these are is counted, never passed over in silence.
"""

import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2].parent / "shared" / "data" / "finance" / "focus-1.2-rules.json.gz"
ROOT = "CostAndUsage-D-000-M"
Row = dict[str, str | None]
_NUMBER = re.compile(r"-?(\d+)(\.\d+)?(E-?\d+)?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_UNIT = re.compile(
    r"[A-Z][A-Za-z-]*( (per|Per) [A-Z][A-Za-z]*)?|\d+ [A-Z][A-Za-z]*|[A-Z][A-Za-z]*-[A-Z][A-Za-z]*"
)
_CURRENCIES = {"USD", "EUR", "GBP", "JPY", "CHF"}


class Rules:
    """The rules, what this provider supports, and what was found while checking."""

    def __init__(self, supported: set[str]) -> None:
        document = json.loads(gzip.decompress(FILE.read_bytes()))
        self.rules: dict[str, Any] = document["ModelRules"]
        self.criteria: dict[str, Any] = document["ApplicabilityCriteria"]
        self.functions: dict[str, Any] = document["CheckFunctions"]
        self.supported = supported
        self.failed: Counter[str] = Counter()  # MUST and MUST NOT
        self.advised: Counter[str] = Counter()  # SHOULD and RECOMMENDED, not followed
        self.status: dict[str, str] = {}  # rule -> why it was not checked, or "checked"
        self._distinct: dict[tuple[str, str], dict[str, int]] = {}
        self._columns: set[str] = set()

    def check(self, rows: list[Row]) -> None:
        """Fills `failed`, `advised` and `status`."""
        self._columns = set(rows[0])
        for name, function in self.functions.items():
            assert function["Arguments"], name
        for a, b in self._pairs():
            values: dict[str, set[str | None]] = defaultdict(set)
            for row in rows:
                if (key := row.get(a)) is not None:
                    values[key].add(row.get(b))
            self._distinct[a, b] = {key: len(found) for key, found in values.items()}
        for row in rows:
            self._holds(ROOT, row)

    def classify(self) -> Counter[str]:
        """How many rules there are of each status; what no row reached is told apart."""
        for name, rule in self.rules.items():
            unsupported = [c for c in rule["ApplicabilityCriteria"] if c not in self.supported]
            if name in self.status:
                continue
            if unsupported:
                self.status[name] = f"not applicable: {unsupported[0]}"
            elif not rule["ValidationCriteria"]["Requirement"]:
                self.status[name] = "words for people"
            elif self._below_unsupported(name):
                self.status[name] = "not applicable: part of a rule that is not"
            else:
                self.status[name] = "no row meets its condition"
        return Counter(status.partition(":")[0] for status in self.status.values())

    def _below_unsupported(self, name: str) -> bool:
        above = [
            n
            for n, r in self.rules.items()
            if name in r["ValidationCriteria"].get("Dependencies", ()) and n != ROOT
        ]
        return any(
            self.status.get(n, "").startswith("not applicable") or self._unsupported(n) for n in above
        ) or any(self._below_unsupported(n) for n in above if n.split("-")[1] == "C" and n != name)

    def _unsupported(self, name: str) -> bool:
        return any(c not in self.supported for c in self.rules[name]["ApplicabilityCriteria"])

    def _holds(self, name: str, row: Row) -> bool:
        rule = self.rules[name]
        criteria = rule["ValidationCriteria"]
        unsupported = [c for c in rule["ApplicabilityCriteria"] if c not in self.supported]
        if unsupported:
            self.status[name] = f"not applicable: {unsupported[0]}"
            return True
        if not criteria["Requirement"]:
            self.status[name] = "words for people"
            return True
        if criteria["Condition"] and not self._true(criteria["Condition"], row):
            return True
        self.status[name] = "checked"
        holds = self._true(criteria["Requirement"], row)
        if holds or criteria["Keyword"] == "MAY":
            return True
        if criteria["Keyword"] in ("MUST", "MUST NOT"):
            self.failed[name] += 1
            return False
        self.advised[name] += 1
        return True

    def _true(self, check: dict[str, Any], row: Row) -> bool:
        return CHECKS[check["CheckFunction"]](self, check, row)

    def _pairs(self) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()

        def walk(value: Any) -> None:
            if isinstance(value, dict):
                if value.get("CheckFunction") == "CheckDistinctCount":
                    found.add((value["ColumnAName"], value["ColumnBName"]))
                for inner in value.values():
                    walk(inner)
            elif isinstance(value, list):
                for inner in value:
                    walk(inner)

        walk(self.rules)
        return found

    def distinct(self, a: str, b: str, row: Row) -> int | None:
        key = row.get(a)
        return None if key is None else self._distinct[a, b][key]

    def present(self, column: str) -> bool:
        return column in self._columns


def _column(test: Callable[[str], bool]) -> Callable[[Rules, dict[str, Any], Row], bool]:
    """A check of one column's text; no text, nothing wrong: nullability has rules of its own."""

    def check(rules: Rules, check: dict[str, Any], row: Row) -> bool:
        value = row.get(check["ColumnName"])
        return value is None or test(value)

    return check


def _named(check: dict[str, Any]) -> str:
    """The column; one rule of the file has it under another key."""
    return str(check.get("ColumnName") or check["CheckCondition"])


def _equal(value: str | None, expected: Any) -> bool:
    if value is None or expected is None:
        return value is None and expected is None
    return Decimal(value) == expected if isinstance(expected, int | float) else value == expected


def _all_of(rules: Rules, check: dict[str, Any], row: Row) -> bool:
    held = [rules._true(item, row) for item in check["Items"]]  # each of them, so that all are seen
    return all(held)


def _any_of(rules: Rules, check: dict[str, Any], row: Row) -> bool:
    before = rules.failed.copy()
    held = [rules._true(item, row) for item in check["Items"]]
    if any(held):  # of alternatives one is enough
        rules.failed = before
    return any(held)


def _product(rules: Rules, check: dict[str, Any], row: Row) -> bool:
    a, b, result = (row.get(check[n]) for n in ("ColumnAName", "ColumnBName", "ResultColumnName"))
    return a is None or b is None or result is None or Decimal(a) * Decimal(b) == Decimal(result)


def _distinct(rules: Rules, check: dict[str, Any], row: Row) -> bool:
    count = rules.distinct(check["ColumnAName"], check["ColumnBName"], row)
    return count is None or count == check["ExpectedCount"]


def _is_text(value: str) -> bool:
    return value == value.strip() and bool(value) and all(c.isprintable() for c in value)


def _is_key_value(value: str) -> bool:
    pairs = json.loads(value, object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    return len(set(keys)) == len(keys) and not any(isinstance(v, list | dict) for _, v in pairs)


def _is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None


CHECKS: dict[str, Callable[[Rules, dict[str, Any], Row], bool]] = {
    "AND": _all_of,
    "OR": _any_of,
    "ColumnPresent": lambda rules, c, row: rules.present(c["ColumnName"]),
    "CheckDistinctCount": _distinct,
    "CheckValue": lambda rules, c, row: _equal(row.get(_named(c)), c["Value"]),
    "CheckNotValue": lambda rules, c, row: not _equal(row.get(_named(c)), c["Value"]),
    "CheckSameValue": lambda rules, c, row: row.get(c["ColumnAName"]) == row.get(c["ColumnBName"]),
    "CheckNotSameValue": lambda rules, c, row: row.get(c["ColumnAName"]) != row.get(c["ColumnBName"]),
    "CheckModelRule": lambda rules, c, row: rules._holds(c["ModelRuleId"], row),
    "CheckGreaterOrEqualThanValue": _column(lambda v: Decimal(v) >= 0),
    "CheckDecimalValue": _column(_is_number),
    "CheckNationalCurrency": _column(_CURRENCIES.__contains__),
    "ColumnByColumnEqualsColumnValue": _product,
    "TypeDecimal": _column(_is_number),
    "TypeString": _column(lambda v: True),  # what CSV holds is text
    "TypeDateTime": _column(lambda v: _MOMENT.fullmatch(v) is not None),
    "FormatDateTime": _column(lambda v: _MOMENT.fullmatch(v) is not None),
    "FormatNumeric": _column(_is_number),
    "FormatString": _column(_is_text),
    "FormatUnit": _column(lambda v: _UNIT.fullmatch(v) is not None),
    "FormatCurrency": _column(lambda v: re.fullmatch(r"[A-Z]{3}", v) is not None),
    "FormatKeyValue": _column(_is_key_value),
}
