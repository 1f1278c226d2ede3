"""One tree of errors. What a replica, the file system or the database says is translated to it at the edge.

AdapterError
├── ArtifactRefused       a folder cannot become an artifact; lists every reason
├── ArtifactTampered      an artifact in the store is no longer what it was when it came in
├── UnknownRelease        neither stored nor registered, or not a release's name at all
├── UnknownAlias
├── NoPrevious            there is nothing to roll back to
├── NotServable           the release is in a state, or was evaluated in a way, that forbids this step
├── AliasMoved            somebody else moved the alias at the same time
├── NoSlot                it is not loaded, and could not be in the time that a request waits
├── ReplicaError          one replica did not do what it was asked
│   ├── ReplicaUnreachable    no HTTP answer in time
│   ├── ReplicaRefused        an HTTP error, or an answer that is not the protocol's
│   ├── ForeignAdapter        the release's name is taken there by files from elsewhere
│   └── ProbeFailed           it is loaded and answers wrongly
└── RolloutFailed         the alias has not moved; the reasons, replica by replica
"""

from collections.abc import Mapping, Sequence


class AdapterError(Exception):
    """Anything that this package raises on purpose."""


class ArtifactRefused(AdapterError):
    """`problems` lists all that is wrong with the folder, one line each."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source, self.problems = source, tuple(problems)
        super().__init__(f"{source} is refused: {'; '.join(problems)}")


class ArtifactTampered(AdapterError):
    def __init__(self, release: str, problems: Sequence[str]) -> None:
        self.release, self.problems = release, tuple(problems)
        super().__init__(f"{release} is not what was stored: {'; '.join(problems)}")


class UnknownRelease(AdapterError):
    def __init__(self, release: str) -> None:
        self.release = release
        super().__init__(f"there is no release {release!r}")


class UnknownAlias(AdapterError):
    def __init__(self, alias: str) -> None:
        self.alias = alias
        super().__init__(f"there is no alias {alias!r}")


class NoPrevious(AdapterError):
    def __init__(self, alias: str) -> None:
        self.alias = alias
        super().__init__(f"{alias} has no previous release to go back to")


class NotServable(AdapterError):
    def __init__(self, release: str, reason: str) -> None:
        self.release, self.reason = release, reason
        super().__init__(f"{release}: {reason}")


class AliasMoved(AdapterError):
    def __init__(self, alias: str) -> None:
        self.alias = alias
        super().__init__(
            f"{alias} was moved by somebody else at the same time; look again before you move it"
        )


class NoSlot(AdapterError):
    def __init__(self, release: str, waited_s: float) -> None:
        self.release = release
        super().__init__(f"{release} is not loaded, and could not be within {waited_s:g} s")


class ReplicaError(AdapterError):
    def __init__(self, replica: str, reason: str) -> None:
        self.replica, self.reason = replica, reason
        super().__init__(f"{replica}: {reason}")


class ReplicaUnreachable(ReplicaError):
    """`hangs`: it may be there and only slow."""

    def __init__(self, replica: str, reason: str, *, hangs: bool = False) -> None:
        self.hangs = hangs
        super().__init__(replica, reason)


class ReplicaRefused(ReplicaError):
    """`status` is the HTTP status; 200 when the body was not what the protocol says."""

    def __init__(self, replica: str, status: int, reason: str) -> None:
        self.status = status
        super().__init__(replica, f"{reason} (HTTP {status})")


class ForeignAdapter(ReplicaError):
    pass


class ProbeFailed(ReplicaError):
    def __init__(self, replica: str, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(replica, "; ".join(reasons))


class RolloutFailed(AdapterError):
    """`reasons` maps each replica that failed to what it said."""

    def __init__(self, release: str, reasons: Mapping[str, str]) -> None:
        self.release, self.reasons = release, dict(reasons)
        told = "; ".join(f"{replica}: {reason}" for replica, reason in reasons.items())
        super().__init__(f"{release} was not rolled out, no alias has moved: {told}")
