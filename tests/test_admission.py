"""`gateway.admission`: who gets in, by which header."""

import pytest

from gateway.admission import KEY_PREFIX, SHELF, Keys, hash_key, new_key
from gateway.errors import Unauthenticated
from gateway.types import Principal

ALICE, BOB = Principal(key_id="alice", team="a"), Principal(key_id="bob", team="b")
KEYS = Keys([(hash_key("sk-alice"), ALICE), (hash_key("sk-bob"), BOB)])


@pytest.mark.parametrize(
    ("authorization", "api_key", "expected"),
    [
        ("Bearer sk-alice", "", ALICE),
        ("bearer sk-alice", "", ALICE),
        ("BEARER   sk-alice  ", "", ALICE),
        ("", "sk-bob", BOB),
        ("", " sk-bob ", BOB),
        ("Bearer sk-alice", "sk-bob", ALICE),
        ("Basic c2s6", "sk-bob", BOB),  # some proxy's own; x-api-key is ours
    ],
)
def test_admitted(authorization: str, api_key: str, expected: Principal) -> None:
    """A key is taken from the bearer first, then from x-api-key."""
    assert KEYS.admit(authorization, api_key) is expected


@pytest.mark.parametrize(
    ("authorization", "api_key", "code"),
    [
        ("", "", None),
        ("Bearer", "", None),
        ("Bearer ", "sk-bob", None),  # the bearer counts where there is one, even an empty one
        ("Basic sk-alice", "", None),
        ("Bearer sk-alice2", "", "invalid_api_key"),
        ("Bearer sk-alic", "", "invalid_api_key"),
        ("Bearer SK-ALICE", "", "invalid_api_key"),
        ("Bearer sk-wrong", "sk-bob", "invalid_api_key"),
        ("", hash_key("sk-alice"), "invalid_api_key"),
        ("Bearer \xff\udcff", "", "invalid_api_key"),
        ("Bearer " + "x" * 100_000, "", "invalid_api_key"),
    ],
)
def test_not_admitted(authorization: str, api_key: str, code: str | None) -> None:
    """401 in OpenAI's words; a key's hash is no key, and the message repeats nothing of it."""
    with pytest.raises(Unauthenticated) as caught:
        KEYS.admit(authorization, api_key)
    assert (caught.value.status, caught.value.code) == (401, code)
    assert "sk-" not in caught.value.message


def test_two_keys_on_one_shelf() -> None:
    """Hashes that begin alike are told apart."""
    digest = hash_key("sk-alice")
    alike = digest[:SHELF] + hash_key("another")[SHELF:]
    keys = Keys([(alike, BOB), (digest, ALICE)])
    assert keys.admit("", "sk-alice") is ALICE


def test_new_keys() -> None:
    """Each is new, long, and says whose it is."""
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith(KEY_PREFIX) and len(key) == len(KEY_PREFIX) + 43 for key in made)
