"""Permits are minted in one place only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import router_policies

ROOT = Path(router_policies.__file__).parent.parent
PACKAGES = ("gateway", "router_policies", "adapters", "finetune")
LOOKS = {"isinstance", "issubclass"}  # take the type and make nothing of it


def _name(node: ast.expr) -> str:
    """The last part of a name or dotted name; of anything else, nothing."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _mints(node: ast.AST) -> bool:
    """Whether the node calls Permit, hands it to something that could, renames it or inherits from it."""
    match node:
        case ast.Call():
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            copies = _name(node.func) in {"replace", "copy", "deepcopy"} and any(_is_permit(a) for a in given)
            handed = _name(node.func) not in LOOKS and any(
                _name(inner) == "Permit" for a in given for inner in _types(a)
            )
            return _name(node.func) == "Permit" or handed or copies
        case ast.alias():
            return node.name == "Permit" and node.asname is not None
        case ast.ClassDef():
            return any(_name(base) == "Permit" for base in node.bases)
        case ast.Assign() | ast.NamedExpr():
            return _name(node.value) == "Permit"
    return False


def _types(node: ast.expr) -> Iterator[ast.expr]:
    """A type expression and what it is made of: `list[Permit]`, `Permit | None`."""
    yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.Name | ast.Attribute))


def _is_permit(node: ast.expr) -> bool:
    return _name(node).lower().endswith("permit")


def mints(source: str) -> list[int]:
    """The lines at which a permit could come into being."""
    return [getattr(node, "lineno", 0) for node in ast.walk(ast.parse(source)) if _mints(node)]


def test_decide_alone_mints_permits() -> None:
    """In all four packages, one expression makes a Permit, and it stands in decide.py."""
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = [path.relative_to(ROOT).as_posix() for path in sources for _ in mints(path.read_text())]
    assert found == ["router_policies/decide.py"]


@pytest.mark.parametrize(
    "source",
    [
        "Permit(call_id='x')",
        "types.Permit(**stolen)",
        "msgspec.convert(row, Permit)",
        "msgspec.json.Decoder(type=list[Permit])",
        "from router_policies.types import Permit as Leave",
        "Leave = Permit",
        "class Pass(Permit): ...",
        "msgspec.structs.replace(candidate.permit, zone='other')",
    ],
)
def test_the_search_finds_every_way_to_mint(source: str) -> None:
    """The test above could fail: each way to a Permit that the language offers is seen."""
    assert mints(source)


@pytest.mark.parametrize(
    "source",
    ["def f(permit: Permit | None) -> None: ...", "isinstance(x, Permit)", "send(permit=candidate.permit)"],
)
def test_the_search_lets_use_pass(source: str) -> None:
    """Naming the type, looking at a permit and handing it on is no minting."""
    assert not mints(source)
