"""Progress: a bar where a person looks, lines where a file is written, marks where another process draws."""

import fcntl
import os
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from cairn import progress as shown
from cairn.progress import RELAYED, pass_on, progress, relayed

END = "that was all"


@contextmanager
def terminal(columns: int = 40) -> Iterator[int]:
    """Standard error as a terminal; its other end, to read what was drawn."""
    reading, writing = os.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.set_blocking(reading, False)
    before = sys.stderr
    with open(writing, "w", encoding="utf-8") as stream:
        sys.stderr = stream
        try:
            yield reading
        finally:
            sys.stderr = before
    os.close(reading)


@pytest.fixture(autouse=True)
def colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def drawn(reading: int) -> list[str]:
    """What was drawn, one entry for each time that the line was taken back."""
    print(END, end="", file=sys.stderr, flush=True)
    data = b""
    while not data.endswith(END.encode()):  # a terminal hands on what is written in pieces, and in its own time
        with suppress(BlockingIOError):
            data += os.read(reading, 1 << 16)
    return data.decode().removesuffix(END).split("\r\x1b[K")


def work(total: int = 200, note: str | None = None, **settings: Any) -> None:
    with progress("train", total, "steps", **settings) as counter:
        for _ in range(total):
            counter.advance(1, note)
            time.sleep(0.001)


def test_on_a_terminal_a_line_is_rewritten_and_taken_back_and_never_wraps() -> None:
    with terminal() as screen:
        work(note="loss 1.234 and a long note that no narrow terminal has room for")
        frames = drawn(screen)
    assert frames[0] == ""
    assert frames[-1] == "", "the bar is gone when the work is done"
    assert len(frames) > 3
    assert all(len(frame) < 40 for frame in frames)
    assert frames[1].startswith("train: 1/200 steps")
    assert "\n" not in "".join(frames)


def test_a_bar_is_drawn_where_there_is_room() -> None:
    with terminal(columns=80) as screen:
        work(total=3)
        first = drawn(screen)[1]
    assert first.startswith("[")
    assert "train: 1/3" in first


def test_elsewhere_short_work_says_nothing_and_long_work_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(shown, "FIRST_LINE", 0.05)
    monkeypatch.setattr(shown, "LINE_EVERY", 0.05)
    work(note="loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) < 100
    assert all(line.startswith("train: ") and line.endswith(", loss 1.5") for line in lines)


def test_what_another_process_counts_is_drawn_here_and_its_words_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RELAYED, "1")
    work(total=3)
    print("train: resuming at step 2", file=sys.stderr)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    with terminal() as screen:
        assert relayed() == {RELAYED: "1"}
        for line in said:
            pass_on(line)
        frames = drawn(screen)
    assert "train: 1/3" in frames[1]
    assert frames[-1] == "train: resuming at step 2\r\n", "the bar made room"


def test_without_a_terminal_nothing_is_asked_of_other_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert relayed() == {}
    pass_on("train: resuming at step 2")
    assert capsys.readouterr().err == "train: resuming at step 2\n"


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(shown, "FIRST_LINE", 0.0)
    with terminal() as screen:
        work(total=3)
        assert drawn(screen)[0].startswith("train: 1/3 steps")


def test_what_an_earlier_run_did_does_not_count_for_the_rate() -> None:
    with progress("train", 1000, "steps", done=900, shown=False) as counter:
        counter.advance(10)
        line = counter.line(counter._started + 10)
    assert line == "train: 910/1000 steps, 1/s, 1m30s left"
