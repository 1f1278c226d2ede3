"""Keys on the FastAPI side: the same ones as on the hot path."""

from collections.abc import Callable

from fastapi import Request

from gateway.admission import Keys
from gateway.errors import Forbidden
from gateway.types import Principal


def any_key(keys: Keys) -> Callable[[Request], Principal]:
    """A dependency: whoever has a key."""

    def admit(request: Request) -> Principal:
        return keys.admit(request.headers.get("authorization", ""), request.headers.get("x-api-key", ""))

    return admit


def admin_key(keys: Keys) -> Callable[[Request], Principal]:
    """A dependency: whoever has a key with `admin: true`."""
    admit = any_key(keys)

    def admit_admin(request: Request) -> Principal:
        principal = admit(request)
        if not principal.admin:
            raise Forbidden(f"The key {principal.key_id!r} may not use /admin.", code="admin_only")
        return principal

    return admit_admin
