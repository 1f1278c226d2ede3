"""Who is asking. Keys are held as SHA-256 digests only: with 256 random bits each, no slow hash is needed."""

import hashlib
import hmac
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from gateway.control.principals import FOREVER, Admitted
from gateway.errors import Forbidden, Unauthenticated
from gateway.types import Principal

KEY_PREFIX = "hg_"
SHELF = 8  # hex digits of a hash that find its shelf

Shelves = Mapping[str, Sequence[Admitted]]


def new_key() -> str:
    """A new client key. It is shown once and never stored."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """SHA-256 in hex: what the configuration and the database hold."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """All keys, by hash: those that stay and, behind them, those that `follow` replaces."""

    def __init__(self, fixed: Iterable[tuple[str, Principal]]) -> None:
        """`fixed` are hashes, each with whom it lets in."""
        self._fixed = tuple(Admitted(digest=digest, principal=principal) for digest, principal in fixed)
        self._shelves: Shelves = _shelved(self._fixed)

    def follow(self, others: Iterable[Admitted]) -> None:
        """From now on these are admitted besides the fixed ones, and no others. From any thread."""
        self._shelves = _shelved((*self._fixed, *others))

    def admit(self, authorization: str, api_key: str) -> Principal:
        """The principal of `Authorization: Bearer …` or `x-api-key`. Raises Unauthenticated."""
        scheme, _, token = authorization.partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else api_key.strip()
        if not key:
            raise Unauthenticated(
                "You didn't provide an API key. Provide it in an Authorization header using Bearer auth "
                "(Authorization: Bearer YOUR_KEY)."
            )
        digest = hash_key(key)
        # The dictionary sees only a short prefix of a hash; the rest is compared in constant time.
        for known in self._shelves.get(digest[:SHELF], ()):
            if hmac.compare_digest(known.digest, digest):
                if known.until != FOREVER and known.until <= time.time():
                    raise Unauthenticated("This API key has expired.", code="key_expired")
                return known.principal
        raise Unauthenticated("Incorrect API key provided.", code="invalid_api_key")


def check_model(principal: Principal, model: str) -> None:
    """Raises Forbidden where the key is held to other models."""
    allowed = principal.models
    if allowed is None or model in allowed:
        return
    if not any(name.endswith("*") and model.startswith(name[:-1]) for name in allowed):
        raise Forbidden(
            f"The key {principal.key_id!r} may not use this model.", param="model", code="model_not_allowed"
        )


def check_route(principal: Principal, route: str | None) -> None:
    """Raises Forbidden where the key is held to other routes than the one that its request takes."""
    if principal.routes is not None and route not in principal.routes:
        raise Forbidden(
            f"The key {principal.key_id!r} may not use the route that answers this request.",
            param="model",
            code="route_not_allowed",
        )


def _shelved(keys: Iterable[Admitted]) -> Shelves:
    shelves: dict[str, list[Admitted]] = defaultdict(list)
    for key in keys:
        shelves[key.digest[:SHELF]].append(key)
    return dict(shelves)
