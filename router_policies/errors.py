"""What a policy that cannot be used raises, and the words it is told in."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class PolicyError(Exception):
    """The policy cannot be used. `problems` lists all that is wrong, one line each, with the key's path."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source, self.problems = source, tuple(problems)
        super().__init__("\n".join([f"{source}:", *(f"  - {p}" for p in problems)]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean "x"?` where a known word is close, else the known words, else nothing."""
    words = sorted(known)
    if close := get_close_matches(word, words, n=1):
        return f', did you mean "{close[0]}"?'
    return f"; known are {', '.join(words)}" if words else ""
