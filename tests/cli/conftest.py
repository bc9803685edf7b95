"""How these tests type: in this process, which spares the start of Python for every line."""

import fcntl
import io
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cairn.cli.main import enter
from cairn.errors import guard

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    """What a command line brought."""

    code: int
    out: str
    err: str


Cairn = Callable[..., Said]


@pytest.fixture
def cairn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cairn:
    """Type `cairn …` in a folder, not on a terminal."""

    def type_in(*words: str, at: Path, stdin: str | bytes = "") -> Said:
        monkeypatch.chdir(at)
        monkeypatch.setenv("CAIRN_DEBUG", "")
        piped = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
        before = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        try:
            code = guard(lambda: enter(words))
        finally:
            signal.signal(signal.SIGTERM, before)
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return type_in


def on_a_terminal(*words: str, at: Path, columns: int) -> str:
    """What `cairn …` shows on a terminal of so many columns."""
    reading, writing = os.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    program = "from cairn.cli.main import main; main()"
    surroundings = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    surroundings |= {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "NO_COLOR": "1", "TERM": "dumb"}
    shown = b""
    with subprocess.Popen([sys.executable, "-c", program, *words], cwd=at, env=surroundings, stdout=writing):
        os.close(writing)
        try:
            while data := os.read(reading, 4096):
                shown += data
        except OSError:
            pass  # how Linux says that nobody writes any more
    os.close(reading)
    return shown.decode()
