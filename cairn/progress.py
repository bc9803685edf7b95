"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere. Always on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LINE_EVERY = 10.0  # seconds between plain lines


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
    _next_line: float = 0

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Count `amount` more units as done."""
        self.done += amount
        self.note = self.note if note is None else note
        self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + LINE_EVERY
            print(self.line(now), file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        """`label: done/total unit, rate, time left`."""
        elapsed = now - self._started
        rate = (self.done - self.before) / elapsed if elapsed > 0 else 0.0
        left = f", {duration((self.total - self.done) / rate)} left" if rate and self.total > self.done else ""
        note = f", {self.note}" if self.note else ""
        return f"{self.label}: {_count(self.done)}/{_count(self.total)} {self.unit}, {_count(rate)}/s{left}{note}"


class _Bar(Progress):
    """A `Progress` that rewrites one line of a terminal."""

    def _draw(self) -> None:
        now = time.monotonic()
        if now >= self._next_line or self.done >= self.total:
            self._next_line = now + 0.1
            width = 24
            filled = int(width * min(1.0, self.done / self.total)) if self.total else width
            print(
                f"\r\x1b[K[{'#' * filled}{'.' * (width - filled)}] {self.line(now)}",
                end="",
                file=sys.stderr,
                flush=True,
            )


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
    terminal = shown and sys.stderr.isatty()
    kind = _Bar if terminal else Progress if shown else _Silent
    counter = kind(label, total, unit, done)
    counter.before = done
    try:
        yield counter
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


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
