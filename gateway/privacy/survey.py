"""Which of many patterns match somewhere in a text, in one pass."""

from collections.abc import Sequence
from typing import Any

import re2

# Bytes that the automaton may grow to; it takes what the texts that it meets make of it.
_MEMORY = 32 << 20


class Survey:
    """`re2.Set`, made safe: where its automaton fails it reports no match, and nobody hears of it.

    That is when memory is not even enough to begin anew. So one pattern more is in it, which every text
    has: where that one is missing, all may match.
    """

    def __init__(self, patterns: Sequence[str], memory: int = _MEMORY) -> None:
        options = re2.Options()
        options.max_mem = memory
        options.log_errors = False
        self._set: Any = re2.Set.SearchSet(options)
        for pattern in (*patterns, ""):
            self._set.Add(pattern)
        self._set.Compile()
        self._count = len(patterns)

    def matching(self, raw: bytes) -> Sequence[int]:
        """The numbers of the patterns that match in `raw`, ascending; or all, when it cannot tell."""
        matches = self._set.Match(raw)
        if not matches:
            return range(self._count)
        return sorted(matches)[:-1]
