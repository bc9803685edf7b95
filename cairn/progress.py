"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere. Always on stderr.

A process whose output another one reads has no terminal. It may be told (`relayed`) to send its lines often and marked,
so that the reader (`pass_on`) can draw the bar.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LINE_EVERY = 10.0  # seconds between plain lines
FIRST_LINE = 3.0  # seconds before the first: what is over sooner needs none
BAR_EVERY = 0.1
RELAYED = "CAIRN_PROGRESS_RELAYED"
RELAY_EVERY = 0.5
# ASCII's unit separator, which no message holds: before the share that is done, and after it.
MARK = "\x1f"


@dataclass
class Progress:
    """Counts work done towards `total` units; `advance` is cheap enough to call for every unit."""

    label: str
    total: float
    unit: str
    done: float = 0
    note: str = ""
    """A few words shown after the count, such as the current loss."""
    before: float = 0
    """What was done before this run."""
    _started: float = field(default_factory=time.monotonic)
    _next: float = 0

    def __post_init__(self) -> None:
        self._next = self._started + FIRST_LINE

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Count `amount` more units as done."""
        self.done += amount
        self.note = self.note if note is None else note
        self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_EVERY
            print(self.line(now), file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        """`label: done/total unit, rate, time left`."""
        elapsed = now - self._started
        rate = (self.done - self.before) / elapsed if elapsed > 0 else 0.0
        left = f", {duration((self.total - self.done) / rate)} left" if rate and self.total > self.done else ""
        note = f", {self.note}" if self.note else ""
        return f"{self.label}: {_count(self.done)}/{_count(self.total)} {self.unit}, {_count(rate)}/s{left}{note}"

    @property
    def share(self) -> float:
        """What is done, from 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0


class _Bar(Progress):
    """A `Progress` that rewrites one line of a terminal."""

    def __post_init__(self) -> None:
        self._next = 0

    def _draw(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + BAR_EVERY
            _bar(self.share, self.line(now))


class _Relayed(Progress):
    """A `Progress` that another process draws."""

    def __post_init__(self) -> None:
        self._next = 0

    def _draw(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + RELAY_EVERY
            print(f"{MARK}{self.share:.4f}{MARK}{self.line(now)}", file=sys.stderr, flush=True)


class _Silent(Progress):
    """A `Progress` that counts and shows nothing."""

    def _draw(self) -> None:
        pass


@contextmanager
def progress(label: str, total: float, unit: str, done: float = 0, shown: bool = True) -> Iterator[Progress]:
    """Show progress of the work in the block.

    Args:
        done: what an earlier, interrupted run had finished; it does not count for the rate.
        shown: False where another process shows it.
    """
    heard = _Bar if _on_a_terminal() else _Relayed if os.environ.get(RELAYED) else Progress
    kind = heard if shown else _Silent
    counter = kind(label, total, unit, done)
    counter.before = done
    try:
        yield counter
    finally:
        if kind is _Bar:
            _clear()
        elif kind is _Relayed:
            print(MARK, file=sys.stderr, flush=True)


def relayed() -> dict[str, str]:
    """What to add to the environment of a process whose lines are given to `pass_on`."""
    return {RELAYED: "1"} if _on_a_terminal() else {}


def pass_on(line: str) -> None:
    """Show a line of another process; a line of progress as a bar, which the next line takes the place of."""
    _, *marked = line.split(MARK, 2)
    if len(marked) == 2:
        _bar(float(marked[0]), marked[1])
        return
    if _on_a_terminal():
        _clear()
    if not marked:
        print(line, file=sys.stderr, flush=True)


def _on_a_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _clear() -> None:
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _bar(share: float, line: str) -> None:
    """Rewrite the line of the terminal. It never wraps: what wrapped could not be taken back."""
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    width = min(24, columns - len(line) - 4)
    filled = int(width * share)
    bar = f"[{'#' * filled}{'.' * (width - filled)}] " if width >= 8 else ""
    print(f"\r\x1b[K{(bar + line)[: columns - 1]}", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`95` as `1m35s`."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{secs:02d}s" if minutes else f"{secs}s"


def _count(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
