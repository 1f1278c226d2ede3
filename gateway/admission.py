"""Who is asking. Keys are held as SHA-256 digests only: with 256 random bits each, no slow hash is needed."""

import hashlib
import hmac
import secrets
from collections import defaultdict
from collections.abc import Iterable

from gateway.errors import Unauthenticated
from gateway.types import Principal

KEY_PREFIX = "sk-hg-"
SHELF = 8  # hex digits of a hash that find its shelf


def new_key() -> str:
    """A new client key. It is shown once and never stored."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """SHA-256 in hex: what the configuration holds."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """All keys, by hash."""

    def __init__(self, principals: Iterable[tuple[str, Principal]]) -> None:
        self._shelves: dict[str, list[tuple[str, Principal]]] = defaultdict(list)
        for digest, principal in principals:
            self._shelves[digest[:SHELF]].append((digest, principal))

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
        for known, principal in self._shelves.get(digest[:SHELF], ()):
            if hmac.compare_digest(known, digest):
                return principal
        raise Unauthenticated("Incorrect API key provided.", code="invalid_api_key")
