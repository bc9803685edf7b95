"""What a door tells the user, and with which exit code it ends."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cairn.errors import SourceError, guard, written_at


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of a process in the foreground, and afterwards those of the test run."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_a_person_can_put_right_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    def door() -> int:
        raise SourceError("notes.txt:3: is not\n  UTF-8")

    assert guard(door) == 2
    assert capsys.readouterr().err == "error: notes.txt:3: is not UTF-8\n"


def test_a_full_disk_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    def door() -> int:
        with open("/dev/full", "w") as full:
            full.write("x" * 100_000)
        return 0

    assert guard(door) == 2
    told = capsys.readouterr().err
    assert told == "error: a disk that was written to: No space left on device: free some disk and run again\n"


def test_a_full_disk_is_named_by_who_writes_there(capsys: pytest.CaptureFixture[str]) -> None:
    def door() -> int:
        with written_at("somewhere else"), written_at("the store"), open("/dev/full", "w") as full:
            full.write("x" * 100_000)
        return 0

    assert guard(door) == 2
    assert capsys.readouterr().err.startswith("error: the store: No space left on device: free some disk")


def test_a_file_where_a_folder_should_be_is_one_line_and_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file")

    def door() -> int:
        (tmp_path / "artifacts" / "tokens").mkdir()
        return 0

    assert guard(door) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / 'artifacts' / 'tokens'}: Not a directory: move it away")
    assert told.count("\n") == 1


def test_ctrl_c_that_comes_by_two_ways_at_once_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned_up = []

    def door() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            cleaned_up.append(True)
        return 0

    assert guard(door) == 130
    assert cleaned_up
    assert capsys.readouterr().err.count("interrupted") == 1


def test_ctrl_c_is_130_and_termination_143(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    def terminated() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert guard(interrupted) == 130
    assert "run again to go on" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        guard(terminated)
    assert ended.value.code == 143


def test_an_interrupt_that_was_swallowed_still_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    finished = []

    def door() -> int:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finished.append(True)
        return 0

    assert guard(door) == 130
    assert finished
    assert "interrupted: finished work is kept" in capsys.readouterr().err


def test_a_defect_keeps_its_traceback() -> None:
    def broken() -> int:
        raise ZeroDivisionError

    def forbidden() -> int:
        raise OSError(errno.EIO, "broken disk")

    with pytest.raises(ZeroDivisionError):
        guard(broken)
    with pytest.raises(OSError, match="broken disk"):
        guard(forbidden)
