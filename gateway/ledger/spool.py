"""The spool: append-only local files that hold what the database does not have yet.

    spool_dir/
      lock                 held while a process claims directories
      <pid>-<time>/        one for each process
        lock               held by the owner for as long as it lives; the kernel lets go when it dies
        00000001.log       segments, in the order in which they were written

A line is `K cccccccc payload`: the kind (B begun, S settled), the CRC-32 of kind and payload in hexadecimal,
and JSON, which holds no raw newline. Each line is one write(2), so once `append` returns it is in the page
cache and outlives this process, however that ends. It is not synced: a power cut may take the last seconds.
"""

import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from gateway.errors import HeadgateError

BEGUN, SETTLED = b"B", b"S"
SEGMENT_BYTES = 8 << 20
_READ_BYTES = 64 << 10  # what the reader decodes at a time: some 100 settled lines, see drain
_HEAD = len(b"K cccccccc ")


class SpoolUnwritable(HeadgateError):
    """The local disk took no further line: full, read-only or gone."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Some lines of one segment, in order: (kind, payload) each. `torn`: lines that were no whole lines."""

    segment: int
    lines: tuple[tuple[bytes, bytes], ...]
    torn: int


def seal(kind: bytes, payload: bytes) -> bytes:
    """The line for `payload`, newline included."""
    return b"%b %08x %b\n" % (kind, zlib.crc32(payload, kind[0]), payload)


def unseal(line: bytes) -> tuple[bytes, bytes] | None:
    """Kind and payload of a line without its newline; None: it is torn or was altered."""
    kind, payload = line[:1], line[_HEAD:]
    if kind not in (BEGUN, SETTLED) or line[:_HEAD] != b"%b %08x " % (kind, zlib.crc32(payload, line[0])):
        return None
    return kind, payload


class Writer:
    """Appends lines to the newest segment of one directory. Not thread-safe: the ledger holds a lock."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Raises SpoolUnwritable."""
        self._directory, self._segment_bytes = directory, segment_bytes
        self._fd, self._segment, self._size = -1, 0, 0
        self._torn = False
        self._rotate()

    def append(self, kind: bytes, payload: bytes) -> int:
        """Returns the line's segment once it is in the page cache. SpoolUnwritable: it is not there."""
        line = seal(kind, payload)
        if self._size >= self._segment_bytes:
            self._rotate()
        if self._torn:  # the disk filled up in mid-line
            line = b"\n" + line
        try:
            written = os.write(self._fd, line)
        except OSError as e:
            raise SpoolUnwritable(f"{self._directory}: {e}") from e
        self._size += written
        self._torn = written < len(line)
        if self._torn:
            raise SpoolUnwritable(f"{self._directory}: {written} of {len(line)} bytes written")
        return self._segment

    def close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def _rotate(self) -> None:
        """Opens the next segment. Once it is there the one before it gets no line more: see Reader."""
        path = _path(self._directory, self._segment + 1)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as e:
            raise SpoolUnwritable(f"{path}: {e}") from e
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._segment, self._size, self._torn = fd, self._segment + 1, 0, False


class Reader:
    """Reads the segments of one directory in order, also while they are being written."""

    def __init__(self, directory: Path, *, sealed: bool, skip: tuple[bytes, ...] = ()) -> None:
        """`sealed`: nobody writes there any more. Lines of the kinds in `skip` are passed over unread."""
        self._directory, self._sealed, self._skip = directory, sealed, skip
        self.finished = False
        self._tail = b""  # the beginning of a line whose end has not been seen
        self._open(min(segments(directory), default=1))

    def read(self) -> Chunk | None:
        """What comes next; None: nothing at present, or ever again when `finished`."""
        while not self.finished:
            if data := self._more():
                return self._chunk(data)
            later = min((n for n in segments(self._directory) if n > self.segment), default=None)
            if later is None and not self._sealed:
                return None
            if data := self._more():  # a later segment means only now that this one had its last line
                return self._chunk(data)
            torn, segment = self._next_segment(later)
            if torn:
                return Chunk(segment=segment, lines=(), torn=torn)
        return None

    def _more(self) -> bytes:
        try:
            fd = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return b""
        try:
            data = os.pread(fd, _READ_BYTES, self._offset)
        finally:
            os.close(fd)
        self._offset += len(data)
        return data

    def _chunk(self, data: bytes) -> Chunk:
        *whole, self._tail = (self._tail + data).split(b"\n")
        lines = [unseal(line) for line in whole if line and not line.startswith(self._skip)]
        good = tuple(filter(None, lines))
        return Chunk(segment=self.segment, lines=good, torn=len(lines) - len(good))

    def _next_segment(self, later: int | None) -> tuple[int, int]:
        """Goes on to `later` (None: to the end); returns the torn lines left behind and their segment."""
        torn, left, self._tail = int(bool(self._tail)), self.segment, b""
        self._open(left + 1 if later is None else later)
        self.finished = later is None
        return torn, left

    def _open(self, segment: int) -> None:
        self.segment, self._offset = segment, 0  # all segments before this one are read to their ends
        self._path = str(_path(self._directory, segment))


class Claim:
    """One process's directory, locked for as long as this object is not released."""

    def __init__(self, directory: Path, fd: int) -> None:
        self.directory, self._fd = directory, fd

    @property
    def holder(self) -> str:
        """The name of the process, unlike that of any other before or after it."""
        return self.directory.name

    def release(self, *, remove: bool) -> None:
        """Lets go; with `remove` the directory goes too. What cannot be removed the next start adopts."""
        if remove:
            with suppress(OSError):
                for n in segments(self.directory):
                    remove_segment(self.directory, n)
                (self.directory / "lock").unlink()
                self.directory.rmdir()
        os.close(self._fd)


def claim(root: Path) -> tuple[Claim, list[Claim]]:
    """A new directory for this process, and those below `root` whose owners are dead.

    Raises SpoolUnwritable.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(root / "lock"):
            orphans = [c for d in sorted(root.iterdir()) if d.is_dir() and (c := _adopt(d)) is not None]
            return _create(root / f"{os.getpid()}-{time.time_ns()}"), orphans
    except OSError as e:
        raise SpoolUnwritable(f"{root}: {e}") from e


def segments(directory: Path) -> list[int]:
    """The numbers of the segments that are there, unordered."""
    return [int(name[:-4]) for name in os.listdir(directory) if name.endswith(".log")]


def remove_segment(directory: Path, n: int) -> None:
    _path(directory, n).unlink(missing_ok=True)


def count_settled(directory: Path) -> int:
    """How many settled lines a directory holds, counted by their first bytes alone."""
    data = (_path(directory, n).read_bytes() for n in segments(directory))
    return sum(d.startswith(SETTLED + b" ") + d.count(b"\n" + SETTLED + b" ") for d in data)


def _path(directory: Path, n: int) -> Path:
    return directory / f"{n:08d}.log"


def _create(directory: Path) -> Claim:
    directory.mkdir(mode=0o700)
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return Claim(directory, fd)


def _adopt(directory: Path) -> Claim | None:
    """A claim on a dead process's directory; None: its owner lives, or somebody is just removing it."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return Claim(directory, fd)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
