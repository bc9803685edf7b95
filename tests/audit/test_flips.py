"""A single flipped bit, anywhere in what a project and its store hold, is detected, and the file is named."""

import hashlib
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.audit.attacks import audited, digest, store_of, wrong
from tests.pipelines.project import Project
from trainer.metrics import TrainingLog
from trainer.place import Place
from trainer.progress import InProgress

STORE = Path(".cairn/store")


@dataclass(frozen=True)
class Flippable:
    """A file, and how an audit has to name it."""

    path: Path
    """From the project."""
    words: tuple[str, ...]
    """All of them are in one finding."""
    target: str = "artifacts/report"
    """What is audited: something that was made from it."""


@pytest.fixture(scope="module")
def flipped(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with work in progress and a pointer, whose files are flipped and put back."""
    root = tmp_path_factory.mktemp("flipped") / "project"
    shutil.copytree(built.root, root, symlinks=True)
    project = Project(root)
    store_of(project).swap("models/small/current", 0, {"digest": digest(project, "model")})
    work = root / ".cairn" / "work" / ("5" * 64) / "scratch"
    work.mkdir(parents=True)
    log = TrainingLog(work / "training.jsonl", 0)
    checkpoints = InProgress(Place(str(work / "checkpoints")), {"pretrain": {"steps": 3}}, keep_last=2)
    for step in (1, 2):
        log.write({"step": step, "loss": 3.0 / step})
        said = {"log": log.settle(), "kept": {}}
        checkpoints.save(step, {"model.weight": torch.arange(64.0)}, log.path.read_bytes(), said)
    checkpoints.wait()
    assert wrong(audited(project)) == []
    return project


def kinds(project: Project) -> dict[str, list[Flippable]]:
    """Every kind of file, and all files of it."""
    root = project.root
    of_optimizer = {md5_of(path) for path in (root / "artifacts/optimizer").rglob("*") if path.is_file()}

    def files(folder: str, pattern: str = "**/*") -> Iterator[Path]:
        return (path.relative_to(root) for path in sorted((root / folder).glob(pattern)) if path.is_file())

    def objects(folder: str) -> Iterator[Flippable]:
        for path in files(folder):
            address = f"files/md5/{path.parent.name}/{path.name}"
            listing = (root / path).read_bytes() if path.suffix == ".dir" else b""
            mine = path.parent.name + path.name in of_optimizer or any(md5.encode() in listing for md5 in of_optimizer)
            yield Flippable(path, (address,), "artifacts/optimizer" if mine else "artifacts/report")

    def artifacts() -> Iterator[Flippable]:
        for path in files("artifacts"):
            if path.suffix != ".sig":
                folder = Path(*path.parts[:2])
                inside = path.relative_to(folder).as_posix()
                target = str(folder) if folder.name == "optimizer" else "artifacts/report"
                yield Flippable(path, (str(folder), f"changed: {inside}"), target)

    def records(folder: str) -> Iterator[Flippable]:
        return (Flippable(path, (path.relative_to(STORE).as_posix(),)) for path in files(f"{STORE}/{folder}"))

    return {
        "artifact": [one for one in artifacts() if "artifacts/model/" not in str(one.path)],
        "export": [one for one in artifacts() if "artifacts/model/" in str(one.path)],
        "object": list(objects(f"{STORE}/files")),
        "cache": list(objects(".dvc/cache/files")),
        "attestation": list(records("attestations")),
        "signpost": list(records("stages")),
        "pin": list(records("pins")),
        "pointer": list(records("models")),
        "signature": [*records("signatures"), Flippable(Path("artifacts/model.sig"), ("artifacts/model.sig",))],
        "sources": [Flippable(Path("sources.lock.json"), ("sources.lock.json",))],
        "dvc.lock": [Flippable(Path("dvc.lock"), ("dvc.lock",))],
        "work": [
            Flippable(path, (path.parent.as_posix(),) if path.parent.name.isdecimal() else ("training.jsonl",))
            for path in files(".cairn/work")
        ],
        "lock": [
            Flippable(one.path, one.words)
            for name in root.glob("requirements*.lock")
            for one in objects(f"{STORE}/files")
            if one.path.parent.name + one.path.name == md5_of(name)
        ],
    }


def md5_of(path: Path) -> str:
    """The md5 that an object is addressed by."""
    return hashlib.md5(path.read_bytes()).hexdigest()


def undetected(project: Project, count: int, seed: int) -> list[str]:
    """Flip `count` bits, one at a time, spread over the kinds; those that no audit found or named."""
    chance = random.Random(seed)
    found = kinds(project)
    assert all(found.values()), [name for name, files in found.items() if not files]
    names: Sequence[str] = sorted(found)
    failed = []
    for index in range(count):
        kind = names[index % len(names)]
        one = chance.choice([file for file in found[kind] if (project.root / file.path).stat().st_size])
        path = project.root / one.path
        data, mode = path.read_bytes(), path.stat().st_mode
        bit = chance.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            path.chmod(0o644)
            path.write_bytes(changed)
            said = wrong(audited(project, one.target))
            if not any(all(word in line for word in one.words) for line in said):
                failed.append(f"{kind}: bit {bit} of {one.path}: {said}")
        finally:
            path.write_bytes(data)
            path.chmod(mode)
    return failed


def test_a_flipped_bit_is_found_and_its_file_is_named(flipped: Project) -> None:
    assert undetected(flipped, 50, seed=4) == []
    assert wrong(audited(flipped)) == []


@pytest.mark.slow
def test_a_thousand_flipped_bits_are_found_and_their_files_named(flipped: Project) -> None:
    assert undetected(flipped, 1000, seed=1000) == []
