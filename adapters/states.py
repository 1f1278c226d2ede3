"""The life of a release on the fleet, as one table.

    registered ──▶ loading ──▶ probing ──▶ shadow ──▶ canary ──▶ stable ──▶ retired
                      │           │  └───────┴──────────┴─────────▲ │
                      └──▶ failed ◀┘         └──▶ rolled back ◀───┴─┘

Any stage after probing may be left out. `shadow`: it may be sent copies of requests, and answers nobody;
`canary`: it answers a share of the traffic, and a sequential test compares it with the stable release;
`stable`: it was served and passed the probe wherever its rollout asked for that; only then may an alias point
at it that takes all traffic. `rolled back`: an alias was moved away from it. `retired`: no alias needs it and
the replicas have been told to drop it. Whatever has ended may begin again at loading, and so may loading and
probing: the process that was at it may have died.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    REGISTERED = "registered"
    LOADING = "loading"
    PROBING = "probing"
    SHADOW = "shadow"
    CANARY = "canary"
    STABLE = "stable"
    FAILED = "failed"
    ROLLED_BACK = "rolled back"
    RETIRED = "retired"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.REGISTERED: frozenset({State.LOADING}),
    State.LOADING: frozenset({State.LOADING, State.PROBING, State.FAILED}),
    State.PROBING: frozenset({State.LOADING, State.SHADOW, State.CANARY, State.STABLE, State.FAILED}),
    State.SHADOW: frozenset({State.LOADING, State.CANARY, State.STABLE, State.ROLLED_BACK}),
    State.CANARY: frozenset({State.LOADING, State.STABLE, State.ROLLED_BACK}),
    State.STABLE: frozenset({State.LOADING, State.RETIRED, State.ROLLED_BACK}),
    State.FAILED: frozenset({State.LOADING}),
    State.ROLLED_BACK: frozenset({State.LOADING, State.STABLE, State.RETIRED}),
    State.RETIRED: frozenset({State.LOADING}),
}

# The stages in which a release has passed its rollout, and the alias that each of them has to itself.
STAGES: Mapping[State, str] = {State.SHADOW: "shadow", State.CANARY: "canary", State.STABLE: "stable"}

# In these states no alias can be moved to a release and nobody is at work on it: replicas may drop it.
DROPPABLE = frozenset({State.REGISTERED, State.FAILED, State.RETIRED})
