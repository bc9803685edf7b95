"""`dvc.lock` as `dvc repro` writes it, without dvc: byte for byte, so that DVC finds nothing to do and leaves no diff.

DVC reads the file, puts one stage in, and writes the whole file again, for every stage that ran. What was there keeps
its place and its spelling. The rules are those of dvc/dvcfile.py and dvc/stage/serialize.py (3.67, schema 2.0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cairn.errors import ArtifactError, one_line
from cairn.lineage.artifact import Artifact
from cairn.lineage.pins import pin_of
from pipelines.stages import RECIPE, Stage

LOCK = Path("dvc.lock")
SCHEMA = "2.0"


@dataclass(frozen=True)
class Locked:
    """A lock file with the stages of a run in it."""

    text: str
    written: tuple[str, ...]
    """Stages whose entry is new, or another than before."""
    dropped: tuple[str, ...]
    """Stages whose entry does not fit what the run took and made, and is gone."""


def entry(stage: Stage, recipe: Any, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """What stands under the name of a stage.

    Args:
        recipe: the section of the recipe, as DVC reads it: `params` holds it as it is written.
        artifacts: every input and output by name.
    """

    def listed(places: Mapping[str, Path]) -> list[dict[str, Any]]:
        pairs = sorted((str(path), artifacts[name]) for name, path in places.items())
        return [_item(path, artifact) for path, artifact in pairs]

    said: dict[str, Any] = {"cmd": " ".join(["python", *stage.command()])}
    if stage.inputs:
        said["deps"] = listed(stage.inputs)
    said["params"] = {str(RECIPE): {stage.name: recipe}}
    said["outs"] = listed(stage.outputs)
    return said


def lock(before: str | None, entries: Mapping[str, Mapping[str, Any]]) -> Locked:
    """Put the entries of a run into the lock file `before`, in the order in which their stages run.

    An entry of another stage stays where every artifact that it shares with the run is the same there.

    Raises ArtifactError when `before` is no lock file of DVC's.
    """
    stages = _stages(before)
    addresses = {item["path"]: item["md5"] for one in entries.values() for item in _items(one)}
    dropped = tuple(
        name
        for name, one in stages.items()
        if name not in entries and any(addresses.get(i.get("path"), i.get("md5")) != i.get("md5") for i in _items(one))
    )
    text = before or ""
    if dropped:
        read = _read(text)
        for name in dropped:
            del read["stages"][name]
        text = _written(read)
    written = tuple(name for name, one in entries.items() if stages.get(name) != one)
    for name in written:
        read = _read(text) or {"schema": SCHEMA}
        read["stages"] = read.get("stages") or {}
        read["stages"].update({name: entries[name]})
        text = _written(read)
    return Locked(text, written, dropped)


def _item(path: str, artifact: Artifact) -> dict[str, Any]:
    pin = pin_of(artifact)
    item = {"path": path, "hash": "md5", "md5": pin["md5"], "size": artifact.size}
    return {**item, "nfiles": len(artifact.members)} if artifact.is_directory else item


def _items(one: Any) -> Sequence[Mapping[str, Any]]:
    """Every input and output of an entry, which another hand may have written."""
    listed = [*(one.get("deps") or ()), *(one.get("outs") or ())] if isinstance(one, dict) else []
    return [item for item in listed if isinstance(item, dict)]


def _stages(text: str | None) -> Mapping[str, Any]:
    """The stages of a lock file; none where there is no file."""
    way_out = f"put it back (`git checkout {LOCK}`), or remove it"
    try:
        read = _read(text or "")
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ArtifactError(f"{LOCK}:{line}: not valid YAML: {one_line(error.problem)}: {way_out}") from None
    except YAMLError as error:
        raise ArtifactError(f"{LOCK}: not valid YAML: {one_line(error)}: {way_out}") from None
    if not read:
        return {}
    if not isinstance(read, dict) or read.get("schema") != SCHEMA:
        raise ArtifactError(f"{LOCK}: is no lock file of DVC's with schema {SCHEMA}: {way_out}")
    stages = read.get("stages") or {}
    if not isinstance(stages, dict) or not all(isinstance(one, dict) for one in stages.values()):
        raise ArtifactError(f"{LOCK}: its stages are no mapping: {way_out}")
    return stages


def _read(text: str) -> Any:
    return YAML().load(text)


def _written(read: Any) -> str:
    yaml = YAML()
    yaml.default_flow_style = False
    text = StringIO()
    yaml.dump(read, text)
    return text.getvalue()
