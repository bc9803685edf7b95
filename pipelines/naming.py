"""Which artifact a person means: a path, the beginning of a digest, or a Git revision."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cairn.errors import ArtifactError
from cairn.lineage.artifact import digest_of
from cairn.lineage.graph import Graph
from cairn.lineage.store import Store
from pipelines.runs import outputs_at, pinned_as
from pipelines.stages import place, stages

DIGEST = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class Meant:
    """An artifact, or an object of a source, and the store whose attestations know it."""

    name: str
    """As the person said it."""
    digest: str
    store: Store
    root: Path
    """Of the project that it lies in; where nothing says so, of this one."""

    def places(self) -> list[Path]:
        """Where the project has its artifacts."""
        return artifacts_of(self.root)


def artifacts_of(root: Path) -> list[Path]:
    """Every artifact that lies in a project, those made last first."""
    made = [root / path for stage in stages() for path in stage.outputs.values()]
    return [path for path in reversed(made) if path.exists()]


def meant(name: str, graph: Callable[[Store], Graph] | None = None, store: Store | None = None) -> Meant:
    """What a person means by a path, by at least six digits of a digest, or by a Git revision.

    A project, or a revision, means what was made last in it.

    Args:
        graph: reads all attestations of a store; with it, a digest may also be that of an object of a source.
        store: whose attestations are asked for; None is that of the project which the path lies in.

    Raises ArtifactError when nothing is meant by it, or several things.
    """
    path = Path(name)
    if path.exists():
        return _at(name, path, store)
    store = store or Store.default()
    found = _digests(name.lower(), store, graph) if DIGEST.fullmatch(name.lower()) else []
    if len(found) > 1:
        raise ArtifactError(f"{name}: {len(found)} digests begin so: write more of it")
    if found:
        return Meant(name, found[0], store, Path())
    outputs = outputs_at(name)
    if outputs is None:
        what = "no path, no digest of an artifact or object" if graph else "no path, no digest of an artifact"
        raise ArtifactError(f"{name}: {what} in {store.url}, and no Git revision")
    for stage in reversed(stages()):
        for output in stage.outputs.values():
            digest = pinned_as(store, outputs[str(output)]) if str(output) in outputs else None
            if digest is not None:
                return Meant(name, digest, store, Path())
    raise ArtifactError(f"{name}: nothing that its dvc.lock names is pinned in {store.url}")


def _at(name: str, path: Path, store: Store | None) -> Meant:
    lying = artifacts_of(path) if path.is_dir() else []
    if lying:
        return Meant(name, digest_of(lying[0]) or "", store or Store.default(path), path)
    whole = path.resolve()
    around = (parent for parent in whole.parents if (parent / place("sources")).exists() or (parent / ".dvc").exists())
    root = next(around, Path())
    root = Path() if root == Path.cwd() else root
    return Meant(name, digest_of(path) or "", store or Store.default(root), root)


def _digests(beginning: str, store: Store, graph: Callable[[Store], Graph] | None) -> list[str]:
    pinned = {pin.removesuffix(".json") for pin in store.list("pins")} | set(store.list("attestations"))
    found = sorted(digest for digest in pinned if digest.startswith(beginning))
    if found or graph is None:
        return found
    return sorted(digest for digest in graph(store).users if digest.startswith(beginning))
