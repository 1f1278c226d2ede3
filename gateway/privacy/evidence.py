"""Signatures under the rows of the ledger: a row that was altered or made up later is told from a true one.

A signature is the HMAC-SHA256 of a row's canonical form, under a key that the database does not hold. It
stands in the row beside the key's id. It tells nothing of rows that were removed.

The keys are lines of a file that only its owner may read, or of an environment variable, parted by blanks.
The last one signs; those before it have signed, and rows that carry their ids are still good. So whoever
wants a new key adds a line. At the first start the file is made.
"""

import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.errors import ConfigError
from gateway.ledger.tables import COLUMNS, LATER_COLUMNS, UNSAID, Row, encode

KEY_FILE = "audit.key"  # below the state's folder
SHORTEST = 32  # characters of a key

_SIGNED_BY, _SIGNATURE = COLUMNS.index("signed_by"), COLUMNS.index("signature")
# Measured times are no evidence, and a database may give a float back that is written in another way.
_TIMES = slice(COLUMNS.index("first_byte_ms"), COLUMNS.index("duration_ms") + 1)


class Keyring:
    """The keys that sign and verify rows. Prints itself without them."""

    def __init__(self, keys: Sequence[str], source: str) -> None:
        """The last of `keys` signs. ConfigError: there is none, or one is too short."""
        problems = [
            f"key {n} has fewer than {SHORTEST} characters" for n, k in _numbered(keys) if len(k) < SHORTEST
        ]
        if problems or not keys:
            raise ConfigError(source, problems or ["holds no key"])
        self._keys = {_id_of(key): key.encode() for key in keys}
        self._id = _id_of(keys[-1])

    def sign(self, row: Row) -> None:
        """Puts id and signature into a row that is otherwise whole."""
        row[_SIGNED_BY] = self._id
        row[_SIGNATURE] = _hmac(self._keys[self._id], row)

    def fault(self, row: Row) -> str:
        """What is wrong with the signature of a row as it was read back; empty: nothing."""
        if not row[_SIGNATURE]:
            return "unsigned"
        key = self._keys.get(row[_SIGNED_BY])
        if key is None:
            return f"signed with a key that is not known: {row[_SIGNED_BY]!r:.40}"
        return "" if hmac.compare_digest(_hmac(key, row), str(row[_SIGNATURE])) else "signature wrong"


def open_keyring(state: Path, variable: str, environment: Mapping[str, str]) -> Keyring:
    """The keys in the environment's `variable`, or without one those in `state`'s key file, which is made.

    Raises ConfigError.
    """
    if variable:
        return Keyring(environment.get(variable, "").split(), f"privacy.signing_key_env: {variable}")
    path = state / KEY_FILE
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise ConfigError(str(path), ["others than its owner may use it: chmod 600"])
        return Keyring(path.read_text(encoding="ascii").split(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"the audit key cannot be read: {error}"]) from error


def known_keyring(state: Path, variable: str, environment: Mapping[str, str]) -> Keyring:
    """The same for whoever verifies: a key made only now would call all rows forged. Raises ConfigError."""
    if not variable and not (state / KEY_FILE).exists():
        raise ConfigError(str(state / KEY_FILE), ["there is no audit key, so no signature can be verified"])
    return open_keyring(state, variable, environment)


def _make(path: Path) -> None:
    """Whole from the first moment on, and once, whichever of several processes comes first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, mine = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # for its owner alone
    with os.fdopen(number, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(mine, path)
    except FileExistsError:
        pass  # another process was first: its key is everybody's
    finally:
        os.unlink(mine)


def _numbered(keys: Sequence[str]) -> enumerate[str]:
    return enumerate(keys, 1)


def _id_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _hmac(key: bytes, row: Row) -> str:
    """Over all columns before the signature but the times, and over those after it where one says something.

    So a column that comes later alters no old signature, and none can be given a word afterwards.
    """
    signed = row[: _TIMES.start] + row[_TIMES.stop : _SIGNATURE]
    later = row[LATER_COLUMNS : LATER_COLUMNS + len(UNSAID)]
    if later != UNSAID:
        signed += later
    return hmac.digest(key, encode(signed), "sha256").hex()
