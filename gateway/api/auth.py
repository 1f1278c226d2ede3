"""Keys on the FastAPI side: the same ones as on the hot path, and what their roles may do."""

from collections.abc import Callable
from enum import Enum

from fastapi import Request

from gateway.admission import Keys
from gateway.control.records import Role
from gateway.errors import Forbidden
from gateway.types import Principal


class Right(Enum):
    """What a part of the admin API asks for: the roles that have it."""

    READ_COSTS = frozenset({Role.OWNER, Role.OPERATOR, Role.FINANCE, Role.VIEWER})
    READ = frozenset({Role.OWNER, Role.OPERATOR, Role.VIEWER})
    CHANGE = frozenset({Role.OWNER, Role.OPERATOR})


def any_key(keys: Keys) -> Callable[[Request], Principal]:
    """A dependency: whoever has a key."""

    def admit(request: Request) -> Principal:
        return keys.admit(request.headers.get("authorization", ""), request.headers.get("x-api-key", ""))

    return admit


def key_with(keys: Keys, right: Right) -> Callable[[Request], Principal]:
    """A dependency: whoever has a key whose role has `right`."""
    admit = any_key(keys)

    def admit_right(request: Request) -> Principal:
        principal = admit(request)
        check_right(principal, right)
        return principal

    return admit_right


def check_right(principal: Principal, right: Right) -> None:
    """Raises Forbidden where the key's role does not have it."""
    if principal.role in right.value:
        return
    if not principal.role:
        raise Forbidden(f"The key {principal.key_id!r} may not use /admin.", code="admin_only")
    needed = ", ".join(sorted(right.value))
    raise Forbidden(
        f"The key {principal.key_id!r} is a {principal.role}'s; this needs one of: {needed}.",
        code="role_lacks_right",
    )
