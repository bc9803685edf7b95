"""The house itself: locks, rooms, the README's drawing, the command line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.stages import NAMES, mermaid

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements.torch-cpu.lock", "requirements.torch-cuda.lock")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_requirement_by_hash_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    blocks = [block for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE) if "==" in block]
    assert blocks
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
    assert "://" not in text
    assert "index-url" not in text


def test_torch_is_in_its_own_locks_only() -> None:
    pinned = {name: re.findall(r"^torch==\S+", (ROOT / name).read_text(), re.MULTILINE) for name in LOCKS}
    assert pinned["requirements.lock"] == []
    assert "torch==2.13.0+cpu" in pinned["requirements.torch-cpu.lock"]
    assert pinned["requirements.torch-cuda.lock"] == ["torch==2.13.0"]


@pytest.mark.parametrize("name", NAMES)
def test_a_room_has_everything_a_room_needs(name: str) -> None:
    files = {path.name for path in (ROOT / "components" / name).iterdir()}
    assert {"metadata.yaml", "recipe.py", "__main__.py", "__init__.py", "component.py", "summary.py"} <= files


def test_the_readme_draws_the_dag_as_it_is() -> None:
    assert mermaid() in (ROOT / "README.md").read_text(), "put the output of `cairn dag --mermaid` into the README"


def cairn(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from cairn.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_help_names_every_verb_and_loads_nothing_heavy() -> None:
    shown = cairn("--help")
    assert shown.returncode == 0
    assert all(verb in shown.stdout for verb in ("run", "snapshot", "dag"))
    program = (
        "import sys; from cairn.cli import main; "
        "print(sorted({'torch', 'transformers', 'pyarrow', 'dvc', 'kfp', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == "[]"


def test_an_unknown_verb_ends_with_2_and_no_traceback() -> None:
    shown = cairn("runn")
    assert shown.returncode == 2
    assert "No such command 'runn'" in shown.stderr
    assert "Traceback" not in shown.stderr
