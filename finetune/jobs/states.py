"""The life of a fine-tuning job, as one table.

    validating_files ──▶ queued ──▶ running ──▶ succeeded
           │                │ ▲        │ │
           │                │ └────────┘ │      back to queued: its worker was told to end
           ▼                ▼            ▼
         failed          paused ◀── (running)   paused ──▶ queued (resumed)

Every state that is not final may become `cancelled`. The status in the database is the truth that a worker
follows: whoever cancels or pauses a job changes it, and the worker that is at it stops when it sees that.
"""

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    """OpenAI's words."""

    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset({Status.QUEUED, Status.FAILED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.PAUSED, Status.QUEUED}
    ),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

FINAL = frozenset(status for status, following in TRANSITIONS.items() if not following)
LEASABLE = frozenset({Status.VALIDATING, Status.QUEUED, Status.RUNNING})  # a worker has something to do
