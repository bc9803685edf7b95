"""A whole project in a folder: own text, a small recipe, the DAG. What a user has after a clone, made in seconds."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cairn.lineage.artifact import digest_of
from cairn.lineage.environment import CODE
from pipelines.stages import NAMES, place

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ("documents", "tokenizer", "tokens", "checkpoint", "optimizer", "model", "scores", "report")
NOUNS = "cairn stone path ridge summit valley river marker walker compass map lantern boot rope cloud".split()
VERBS = "marks follows finds loses crosses climbs leaves reaches holds carries watches repeats".split()


def write_text(folder: Path, documents: int = 120) -> None:
    """English-like sentences, the same on every machine."""
    folder.mkdir(parents=True)
    chance = random.Random(7)
    for number in range(documents):
        lines = []
        for _ in range(24):
            words = [f"The {chance.choice(NOUNS)} {chance.choice(VERBS)} the {chance.choice(NOUNS)}" for _ in range(2)]
            lines.append(f"{words[0]}, and {words[1].lower()} number {chance.randrange(1000)}.")
        (folder / f"{number:04d}.txt").write_text("\n".join(lines) + "\n")


def small_recipe() -> dict[str, Any]:
    """The default recipe, cut down to seconds."""
    recipe: dict[str, Any] = YAML(typ="safe").load((ROOT / "recipes" / "tiny.yaml").read_text())
    recipe["snapshot"] = {
        "sources": [{"name": "walks", "uri": "text", "domain": "walks", "kind": "prose", "licence": "CC0-1.0"}]
    }
    recipe["ingest"]["split"] = {"heldout": 0.1, "development": 0.1, "seed": 0}
    recipe["tokenize"]["vocab_size"] = 400
    recipe["pretrain"]["model"].update(
        {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "mlp_width": 64, "context": 64}
    )
    # Steps enough to be caught in the middle, and each in the log, so that a test can see when that is.
    training = {
        "steps": 150,
        "batch": 4,
        "micro_batch": 2,
        "checkpoint_every": 20,
        "keep_every": 100,
        "evaluate_every": 75,
        "log_every": 1,
    }
    recipe["pretrain"].update(training, threads=1)
    recipe["evaluate"]["threads"] = 1
    return recipe


def heed_interrupt() -> None:
    """Tests may run where Ctrl-C is ignored, as behind `&` in a shell; what they start is to heed it all the same."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Project:
    """A project folder, and the commands a user types in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, root: Path) -> "Project":
        """A new project with its own text, as a Git repository with DVC set up."""
        root.mkdir(parents=True)
        write_text(root / "text")
        project = cls(root)
        project.write_recipe(small_recipe())
        shutil.copy(ROOT / "dvc.yaml", root)
        (root / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(ROOT / ".dvc" / name, root / ".dvc" / name)
        shutil.copytree(ROOT / ".dvc" / "plots", root / ".dvc" / "plots")
        for package in CODE:
            shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
        for lock in ROOT.glob("requirements*.lock"):
            shutil.copy(lock, root)
        (root / ".gitignore").write_text("/.cairn/\n/artifacts/\n/dvc_plots/\n__pycache__/\n")
        project.git("init", "-q", "-b", "main")
        project.commit("A small project")
        return project

    def write_recipe(self, recipe: dict[str, Any]) -> None:
        """Put a recipe in force."""
        with open(self.root / "params.yaml", "w") as file:
            YAML().dump(recipe, file)

    def recipe(self) -> dict[str, Any]:
        """The recipe in force."""
        recipe: dict[str, Any] = YAML(typ="safe").load((self.root / "params.yaml").read_text())
        return recipe

    def git(self, *arguments: str) -> str:
        """The output of a git command that succeeds."""
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own, the way a terminal does."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        surroundings = {**os.environ, "PATH": path, "CAIRN_WORKERS": "1", **environment}
        surroundings.pop("CAIRN_STORE", None)
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_interrupt,
        )

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """What a command prints; it must end with `code`."""
        process = self.start(*command, **environment)
        printed, _ = process.communicate(timeout=280)
        assert process.returncode == code, f"{' '.join(command)} ended with {process.returncode}:\n{printed}"
        return printed

    def digests(self) -> dict[str, str | None]:
        """Artifact name to digest."""
        return {name: digest_of(self.root / place(name)) for name in ARTIFACTS}

    def ran(self, printed: str) -> list[str]:
        """The stages whose work ran, as the doors said."""
        return [name for name in NAMES if f"{name}: running" in printed]

    def wait_for_step(self, step: int) -> None:
        """Return when training has logged this step."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            logs = list((self.root / ".cairn" / "work").glob("*/scratch/training.jsonl"))
            if logs and logs[0].read_bytes().count(b"\n") >= step:
                return
            time.sleep(0.005)
        raise AssertionError(f"step {step} was not reached")
