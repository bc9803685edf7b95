"""Artifacts by digest, wherever they lie: at known places of a project, or else in a store.

`dvc repro` leaves bytes in DVC's cache, `cairn run` in the project's folders, a pod in the store. Who asks for a digest
need not know.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cairn.errors import StoreError
from cairn.lineage.artifact import digest_of
from cairn.lineage.store import Store


@dataclass
class Places:
    """Looks at each place once, and fetches each artifact once."""

    store: Store
    scratch: Path
    """Where what is fetched is put."""
    places: Sequence[Path] = ()
    found: dict[str, Path] | None = None
    """Where artifacts were found to lie whole, by digest; None: `places` are still to be looked at."""

    def __call__(self, digest: str, only: Collection[str] | None = None) -> Path:
        """The folder, or file, of an artifact; it is read and not written to.

        Args:
            only: the files that are wanted of it, by their paths; None is all of it.

        Raises StoreError when it lies nowhere, or holds none of the files `only`.
        """
        if self.found is None:
            self.found = {known: path for path in self.places if (known := digest_of(path)) is not None}
        if digest in self.found:
            return self.found[digest]
        part = "" if only is None else "-" + hashlib.sha256("\n".join(sorted(only)).encode()).hexdigest()[:12]
        target = self.scratch / f"{digest}{part}"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.store.get(digest, target, only)
            if not target.exists():
                raise StoreError(f"{self.store.url}: {digest} holds none of what was asked for")
        if only is None:
            self.found[digest] = target
        return target
