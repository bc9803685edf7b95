"""A corpus in a folder, and the first two stages over it: through their functions, and through their doors."""

import gzip
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import zstandard

from cairn.lineage.stage import Component, Outcome
from cairn.lineage.store import Store
from cairn.resources import Resources
from components.ingest.documents import SPLITS, read_split
from components.ingest.ingest import ingest
from components.ingest.recipe import Ingest
from components.snapshot.lock import Lock, read_lock
from components.snapshot.recipe import Snapshot
from components.snapshot.snapshot import snapshot

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data"
EVERYTHING: dict[str, Any] = {
    "min_document_bytes": None,
    "gopher": None,
    "c4": None,
    "fineweb": None,
    "split": {"heldout": 0.0, "development": 0.0},
}
"""A section of ingest that keeps all text, and trains on it."""


def source(uri: object, name: str = "text", **changes: Any) -> dict[str, object]:
    """A source as a recipe has it."""
    return {"name": name, "uri": str(uri), "domain": name, "licence": "CC0-1.0", **changes}


def jsonl(*records: object) -> bytes:
    """Records as JSON lines."""
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """Write a parquet file."""
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def packed(data: bytes, compression: str) -> bytes:
    """Data as a `.gz`, `.zst` or `.xz` file."""
    if compression == ".gz":
        return gzip.compress(data)
    return lzma.compress(data) if compression == ".xz" else zstandard.compress(data)


class Corpus:
    """A folder `text` of source files, and a project around it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.text = root / "text"
        self.text.mkdir(parents=True)
        self.store = Store(str(root / ".cairn" / "store"))
        self.lock_file = root / "sources.lock.json"

    def put(self, name: str, data: bytes | str) -> Path:
        """Write a source file."""
        path = self.text / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def snapshot(self, *sources: dict[str, object], refresh: bool = False) -> Outcome:
        """Take a snapshot; without sources, of the folder `text`."""
        recipe = {"sources": sources or (source(self.text),)}
        return snapshot(
            Snapshot.model_validate_json(json.dumps(recipe)),
            self.lock_file,
            refresh=refresh,
            component=Component.of("components.snapshot"),
            store=self.store,
            resources=Resources(workers=1, processes=1),
            home=self.root / ".cairn",
        )

    @property
    def lock(self) -> Lock:
        """The lock file."""
        return read_lock(self.lock_file)

    def locked(self) -> list[str]:
        """The URIs in the lock file, in its order."""
        return [found.uri for source in self.lock.sources for found in source.objects]

    def ingest(self, made: str = "documents", workers: int = 1, **section: Any) -> Path:
        """Make documents from the lock file; all text is kept where the section does not say otherwise."""
        documents, work = self.root / made, self.root / f"{made}-work"
        documents.mkdir(exist_ok=True)
        ingest(
            Ingest.model_validate_json(json.dumps({**EVERYTHING, **section})),
            sources=self.lock_file,
            documents=documents,
            store=self.store,
            work=work,
            workers=workers,
        )
        return documents

    def door(self, name: str, *arguments: str, code: int = 0, workers: int = 1) -> str:
        """What the door of a stage prints to stderr, when entered as `dvc` enters it. It must end with `code`."""
        place = self.place(workers)
        with subprocess.Popen(self.command(name, *arguments), **place, stderr=subprocess.PIPE) as process:
            said: str = process.communicate(timeout=120)[1].decode()
        assert process.returncode == code, said
        return said

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of a stage."""
        places = {
            "snapshot": ["--output", "sources=sources.lock.json"],
            "ingest": ["--input", "sources=sources.lock.json", "--output", "documents=artifacts/documents"],
        }
        return [sys.executable, "-m", f"components.{name}", "--recipe", "params.yaml", *places[name], *arguments]

    def place(self, workers: int = 1) -> dict[str, Any]:
        """Where a command of this project runs."""
        surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "CAIRN_WORKERS": str(workers)}
        surroundings.pop("CAIRN_STORE", None)
        return {"cwd": self.root, "env": surroundings}

    def write_recipe(self, *sources: dict[str, object], **section: Any) -> None:
        """Put a recipe in force that keeps all text, where the ingest section does not say otherwise."""
        recipe = json.loads(orjson.dumps(_recipe()))
        recipe["snapshot"] = {"sources": list(sources) or [source("text")]}
        recipe["ingest"] = {**EVERYTHING, **section}
        (self.root / "params.yaml").write_text(json.dumps(recipe, indent=1))


def records(documents: Path, splits: Sequence[str] = SPLITS) -> list[dict[str, Any]]:
    """Every document of the splits, in order."""
    return [record for split in splits for record in read_split(documents, split)]


def texts(documents: Path, splits: Sequence[str] = SPLITS) -> list[str]:
    """The text of every document of the splits, in order."""
    return [record["text"] for record in records(documents, splits)]


def ledger(documents: Path) -> dict[str, Any]:
    """The ledger of a documents artifact."""
    read: dict[str, Any] = json.loads((documents / "ledger.json").read_text())
    return read


def _recipe() -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load((ROOT / "recipes" / "tiny.yaml").read_text())
