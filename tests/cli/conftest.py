"""How these tests type: in this process, which spares the start of Python for every line."""

import io
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cairn.cli.main import enter
from cairn.errors import guard


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

    def type_in(*words: str, at: Path, stdin: str = "") -> Said:
        monkeypatch.chdir(at)
        monkeypatch.setenv("CAIRN_DEBUG", "")
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        before = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        try:
            code = guard(lambda: enter(words))
        finally:
            signal.signal(signal.SIGTERM, before)
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return type_in
