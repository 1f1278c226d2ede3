"""The life of a release on the fleet, as one table.

                      ┌───────────────┐
                      ▼               │ (again)
    registered ──▶ loading ──▶ probing ──▶ stable ──▶ retired
                      │           │                      │
                      └──▶ failed ◀┘     failed, retired ──▶ loading (again)

A release is `stable` when every replica of its rollout served it and passed the probe; only then may an alias
point at it. `retired` means that no alias needs it and the replicas have been told to drop it. Loading and
probing may begin again from themselves: the process that was at it may have died.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    REGISTERED = "registered"
    LOADING = "loading"
    PROBING = "probing"
    STABLE = "stable"
    FAILED = "failed"
    RETIRED = "retired"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.REGISTERED: frozenset({State.LOADING}),
    State.LOADING: frozenset({State.LOADING, State.PROBING, State.FAILED}),
    State.PROBING: frozenset({State.LOADING, State.STABLE, State.FAILED}),
    State.STABLE: frozenset({State.LOADING, State.RETIRED}),
    State.FAILED: frozenset({State.LOADING}),
    State.RETIRED: frozenset({State.LOADING}),
}

# In these states no alias can be moved to a release and nobody is at work on it: replicas may drop it.
DROPPABLE = frozenset({State.REGISTERED, State.FAILED, State.RETIRED})
