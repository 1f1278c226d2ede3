"""What the demo says: acts, notes, tables of at most 100 columns, and what is being waited for."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

WIDTH = 100  # where no terminal says otherwise
HEARTBEAT_S = 10.0  # between lines on an output that is no terminal
LOG_PREFIX = re.compile(r".*\.py:\d+\]\s*")  # vLLM: who, when, which file
PLAIN = re.compile(r"[\w /]+")  # what the demo itself says, such as: warming up
LAST_LINE = 58  # characters of a log's last line


class Screen:
    """A terminal, or a log file: there, what a bar would show becomes a line now and then."""

    def __init__(self) -> None:
        probe = Console()
        self.live = probe.is_terminal
        self._console = Console(highlight=False, width=min(probe.width, WIDTH) if self.live else WIDTH)
        self._started = time.monotonic()
        self.finished = False  # the last act is over

    @property
    def environment(self) -> dict[str, str]:
        """For commands that write to the same place: rich asks for its width there."""
        return {"COLUMNS": str(self._console.width)}

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._started

    def act(self, number: int, title: str) -> None:
        self._console.print()
        self._console.rule(f"[bold]{number}. {title}[/bold] [dim]{self.seconds:.0f} s[/dim]", align="left")

    def say(self, text: str) -> None:
        """Plain text; rich's markup is obeyed."""
        self._console.print(text)

    def note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def line(self, text: str) -> None:
        """One line to be copied: never wrapped."""
        self._console.print(Text(text), soft_wrap=True)

    def failed(self, text: str) -> None:
        self._console.print(Text(text, style="red"))

    def show(self, shown: RenderableType) -> None:
        self._console.print(shown)

    def part(self, name: str, url: str, what: str, *, stand_in: bool = False) -> None:
        """A part that runs now."""
        mark = "[yellow]STAND-IN[/yellow]" if stand_in else "[green]real    [/green]"
        self._console.print(f"  {mark}  [bold]{name:<11}[/bold]  {url:<26}  {what}", soft_wrap=True)

    def check(self, holds: bool, text: str) -> None:
        mark = "[green]✓[/green]" if holds else "[red]✗[/red]"
        self._console.print(f"  {mark} ", Text(text), sep="")

    @contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[float, str], None]]:
        """Shows that something is under way; the callable takes the seconds so far and the last log line."""
        if not self.live:
            yield _Heartbeat(self, what)
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
        with Progress(
            *columns, TextColumn("[dim]{task.fields[line]}"), console=self._console, transient=True
        ) as bar:
            task = bar.add_task(what, total=None, line="")
            yield lambda _, line: bar.update(task, line=escape(_gist(line)))

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar over `total` steps; the callable takes one step."""
        if not self.live:
            self.note(f"  {what}, {total} times")
            yield lambda: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)


class _Heartbeat:
    """A line each HEARTBEAT_S."""

    def __init__(self, screen: Screen, what: str) -> None:
        self._screen, self._what, self._next = screen, what, 0.0

    def __call__(self, seconds: float, line: str) -> None:
        if seconds >= self._next:
            self._next = seconds + HEARTBEAT_S
            self._screen.note(f"  {self._what}: {seconds:.0f} s  {_gist(line)}")


def _gist(line: str) -> str:
    """A log line without its time and place; nothing of one that goes on with the line before."""
    prefix = LOG_PREFIX.match(line)
    gist = line[prefix.end() :] if prefix else line if PLAIN.fullmatch(line) else ""
    return gist[:LAST_LINE]


def table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """An empty table; columns in `right` hold numbers, those in `whole` are never broken."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name in whole or name in right,
            overflow="fold",
        )
    return made


def micro_usd(nano: int | None) -> str:
    """Nano-dollars in millionths of a dollar."""
    return "—" if nano is None else f"{nano / 1000:.2f}"
